"""Tables that were once read wrongly, each a test of its name: from the raw file through `infer` and `prepare`."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from clickwise.feature_spec import FeatureSpec
from clickwise.prepare.infer import infer

AS_THEY_ARE = ["dataset.test_share=0", "dataset.validation_share=0", "dataset.shuffle=false",
               "dataset.frequency_limit=1"]


def rows(count=60, seed=0):
    dice = random.Random(seed)
    return [(dice.choice(["Oslo", "Bonn", "Rome"]), dice.randrange(20, 60), index % 2) for index in range(count)]


def text(table, delimiter=",", end="\n"):
    return "".join(delimiter.join(map(str, row)) + end for row in [("city", "age", "click"), *table])


@pytest.fixture
def prepared(clickwise, tmp_path):
    """`prepared(bytes, name)` writes a file, drafts its spec, prepares; columns by name, and what was said."""
    def prepared(content, name="log.csv", *words):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        drafted = clickwise("spec", "infer", name, "--label", "click", "--out", "spec", *words)
        assert drafted.code == 0, drafted.err
        done = clickwise("prepare", "table/prepare", "dataset.spec=spec", "out=columns", *AS_THEY_ARE)
        assert done.code == 0, done.err
        spec = FeatureSpec.load(tmp_path / "columns")
        found = {chunk.features[0]: np.fromfile(tmp_path / "columns" / chunk.files[0],
                                                spec.features[chunk.features[0]].dtype)
                 for chunk in spec.mappings["train"]}
        return found, drafted.err + done.err

    return prepared


def check(found, table):
    np.testing.assert_array_equal(found["click"], [row[2] for row in table])
    age = np.array([row[1] for row in table], float)
    np.testing.assert_allclose(found["age"], (age - age.mean()) / age.std(), rtol=1e-5)


def test_blank_first_line(prepared):
    check(prepared("\n" + text(rows()))[0], rows())


def test_comments_before_the_header(prepared):
    check(prepared("# exported on Monday\n#\n" + text(rows(), "\t"))[0], rows())


def test_mixed_line_ends(prepared):
    check(prepared(text(rows()[:30]) + text(rows()[30:], end="\r\n").partition("\n")[2])[0], rows())


def test_fault_cr_csv(prepared):
    check(prepared(text(rows(), end="\r"))[0], rows())


def test_pipe_delimited(prepared):
    check(prepared(text(rows(), "|"))[0], rows())


@pytest.mark.parametrize("row", [3, 55])
def test_long_field(prepared, row):
    table = [(city, *others) if index != row else ("word " * 60_000, *others)
             for index, (city, *others) in enumerate(rows())]
    check(prepared(text(table))[0], table)


def test_fault_long_lines(prepared):
    table = [*rows(), ("x" * 3_000_000, 30, 1)]
    check(prepared(text(table))[0], table)


def test_query_log_stray_quotes(prepared):
    table = rows()
    table[5], table[30] = ('"oslo', *table[5][1:]), ('"bonn', *table[30][1:])
    table[18], table[44] = ('rome"', *table[18][1:]), ('cheap "hotels"', *table[44][1:])
    found, _ = prepared(text(table, "\t"), "log.tsv")
    check(found, table)
    assert len(np.unique(found["city"])) == 7


def test_stray_quotes_behind_the_first_megabyte(prepared):
    table = rows(3000)
    table[2700], table[2800] = ('"oslo', *table[2700][1:]), ('bonn"', *table[2800][1:])
    table = [(city.ljust(400, "."), *others) for city, *others in table]
    table[2800] = ('bonn"', *table[2800][1:])
    found, said = prepared(text(table, "\t"), "log.tsv", "--numerical", "age")
    check(found, table)
    assert "quotes being letters" in said


def test_files_for_test_unseen(clickwise, tmp_path):
    for name in ("clicks.train.csv", "clicks.test.csv", "holdout.csv"):
        (tmp_path / name).write_text(text(rows()))
    result = clickwise("spec", "infer", "clicks.train.csv", "clicks.test.csv", "holdout.csv", "--out", "spec", "--json")
    assert json.loads(result.out)["files"] == {"train": ["clicks.train.csv"],
                                               "test": ["clicks.test.csv", "holdout.csv"]}
    assert set(FeatureSpec.load(tmp_path / "spec").mappings) == {"train", "test"}
    shown = clickwise("spec", "infer", "clicks.train.csv", "holdout.csv", "--out", "other").out
    assert "train        clicks.train.csv" in shown and "test         holdout.csv" in shown


@pytest.mark.parametrize("name, mapping", [
    *((name, "train") for name in ("clicks_train.csv", "trainset.csv", "TrainData2.csv", "day.training.csv",
                                   "latest.csv", "contest.csv", "values.csv", "developers.csv")),
    *((name, "validation") for name in ("valid.csv", "val-1.csv", "dev.csv", "clicks_eval.csv", "evalset.csv",
                                        "validation_split.csv")),
    *((name, "test") for name in ("test.csv", "testset.csv", "clicks.test.csv", "hold-out.csv", "hold_out_2.csv",
                                  "Clicks-TEST.csv"))])
def test_where_a_file_belongs(tmp_path, name, mapping):
    (tmp_path / "train_first.csv").write_text(text(rows()))
    (tmp_path / name).write_text(text(rows()))
    draft = infer([tmp_path / "train_first.csv", tmp_path / name], label="click")
    assert tmp_path / name in draft.mappings[mapping]


def test_rows_without_a_display(prepared):
    table = [(f"s{index // 2}" if index >= 40 else "", index % 7, index % 2) for index in range(60)]
    content = "session,age,click\n" + "".join(f"{session},{age},{click}\n" for session, age, click in table)
    found, said = prepared(content)
    least = np.iinfo(np.int64).min
    assert (found["session"][:40] == least).all() and (found["session"][40:] >= 0).all()
    assert "40 of 60 rows without 'session'" in said
