"""A run is a whole model: raw rows get the scores that the prepared ones got, wherever the run is and whoever asks."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from criteo_rows import random_lines, write_raw

from clickwise.encoding import Encoder, Encoding
from clickwise.prepare import run as prepare
from clickwise.verbs.train import train

ROWS = 400
SMALL = ("train.batch_size=64", "train.epochs=1", "train.evaluation_batch_size=50", "model.cross_rank=4",
         "model.bottom_mlp=[8]", "model.top_mlp=[8]")
BLOCKED = "import sys; sys.modules['duckdb'] = sys.modules['ibis'] = None; from clickwise.cli import main; main()"


def raw_rows(count: int, seed: int) -> list[dict]:
    dice = random.Random(seed)
    towns = ["Oslo", " Bonn", "São Paulo", "a,b", 'the "old" town', "two\nlines", "NA", "007", "7", "7.0", ""]
    return [{"click": dice.choice(["yes", "no"]), "town": dice.choice(towns),
             "price": dice.choice(["", "NA", "12.5", "1e3", "-0.0", dice.random()]),
             "shop": dice.choice(["5", "6", "7.0", "1005000", "1005000.0", ""]),
             "member": dice.choice(["true", "True", "FALSE", ""]), "age": dice.randrange(90),
             "tags": "|".join(dice.choices("abcdefg", k=dice.randrange(4))), "session": f"s{dice.randrange(30)}"}
            for _ in range(count)]


def write_csv(path: Path, rows: list[dict], columns=None) -> None:
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), delimiter="\t" if ".tsv" in path.name else ",",
                                extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def typed(rows: list[dict]) -> pa.Table:
    """The same rows as a program would hand them on: numbers as numbers, nulls, lists."""
    def number(text):
        return None if text in ("", "NA") else float(text)

    return pa.table({
        "tags": [row["tags"].split("|") if row["tags"] else None for row in rows],
        "shop": pa.array([number(row["shop"]) for row in rows], pa.float64()),
        "price": pa.array([number(row["price"]) for row in rows], pa.float64()),
        "town": pa.array([row["town"] for row in rows]).dictionary_encode(),
        "member": [{"true": True, "false": False}.get(row["member"].lower()) for row in rows],
        "age": pa.array([row["age"] for row in rows], pa.int16()), "session": [row["session"] for row in rows]})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with raw rows, their columns, and a run on them."""
    folder = tmp_path_factory.mktemp("raw")
    write_csv(folder / "train.csv", raw_rows(1500, 1))
    write_csv(folder / "test.csv", raw_rows(ROWS, 2))
    features = {"click": {"dtype": "str"}, "price": {"dtype": "float32"}, "age": {"dtype": "float32"},
                "tags": {"dtype": "str", "cardinality": "auto", "max_hotness": 4}, "session": {"dtype": "str"},
                **{name: {"dtype": "str", "cardinality": "auto"} for name in ("town", "shop", "member")}}
    channels = {"label": ["click"], "numerical": ["price", "age"], "categorical": ["town", "shop", "member", "tags"],
                "display": ["session"]}
    (folder / "feature_spec.yaml").write_text(json.dumps({
        "feature_spec": features, "channel_spec": channels, "metadata": {}, "source_spec": {
            mapping: [{"type": "csv", "features": list(features), "files": [f"{mapping}.csv"], "header": True}]
            for mapping in ("train", "test")}}))
    prepare({"dataset": {"name": "table", "spec": str(folder), "label_is": "yes", "frequency_limit": 2,
                         "hash_buckets": {"town": 7}, "log_numericals": ["age"]}, "out": str(folder / "columns")},
            "test")
    made_run = train("table/dcnv2", [f"data.path={folder / 'columns'}", *SMALL], out=folder / "runs")
    return folder, made_run


def scored(clickwise, run, source, *words):
    result = clickwise("predict", run, "--input", source, "--out", "scored.parquet", *words)
    assert result.code == 0, result.err
    return pq.read_table("scored.parquet")


@pytest.mark.parametrize("file", ["test.csv", "rows.csv.gz", "rows.tsv", "rows.parquet", "rows.jsonl"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_raw_file_scores_as_the_mapping_to_the_bit(clickwise, made, tmp_path, file, precision):
    folder, run = made
    rows = raw_rows(ROWS, 2)
    path = tmp_path / file
    if path.suffix == ".parquet":
        pq.write_table(typed(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in typed(rows).to_pylist()))
    else:
        write_csv(path, rows, ["session", "tags", "age", "member", "shop", "town", "price"])
    of_mapping = scored(clickwise, run, "test", f"train.precision={precision}")
    of_file = scored(clickwise, run, path, f"train.precision={precision}")
    assert of_file["logit"].to_pylist() == of_mapping["logit"].to_pylist()
    assert of_file["probability"].to_pylist() == of_mapping["probability"].to_pylist()
    assert of_file["session"].to_pylist() == [row["session"] for row in rows]  # as it stands in the file


def test_in_any_order_and_one_at_a_time(clickwise, made, tmp_path):
    folder, run = made
    rows, logits = raw_rows(ROWS, 2), scored(clickwise, run, "test")["logit"].to_numpy()
    order = random.Random(0).sample(range(ROWS), ROWS)
    write_csv(tmp_path / "in.csv", [rows[index] for index in order])
    np.testing.assert_allclose(scored(clickwise, run, "in.csv")["logit"].to_numpy(), logits[order], atol=1e-6)
    np.testing.assert_allclose(scored(clickwise, run, "in.csv", "train.evaluation_batch_size=1")["logit"].to_numpy(),
                               logits[order], atol=1e-6)


def test_ids_are_those_of_preparation_row_by_row(made):
    from clickwise.data.columns import read_columns
    from clickwise.feature_spec import FeatureSpec

    folder, run = made
    columns = read_columns(FeatureSpec.load(folder / "columns"), "test")
    encoder = Encoder(Encoding.load(run / "encoding"))
    for index, row in enumerate(raw_rows(ROWS, 2)):
        encoded = encoder.row(row)
        for name, array in columns.arrays.items():
            assert encoded[name] == array[index].tolist(), (name, row)
        assert [encoded["price"], encoded["age"]] == columns.numerical[index].tolist()


def test_a_moved_run_without_its_data_and_without_what_prepares_it(made, clickwise, tmp_path):
    folder, run = made
    logits = scored(clickwise, run, "test")["logit"].to_pylist()
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    write_csv(tmp_path / "in.csv", raw_rows(ROWS, 2))
    shutil.move(next((copy / "runs").rglob("DONE")).parent, tmp_path / "moved")
    shutil.rmtree(copy)
    away = folder.rename(folder.with_name("away"))
    try:
        subprocess.run([sys.executable, "-c", BLOCKED, "predict", "moved", "--input", "in.csv", "--out", "p.parquet"],
                       cwd=tmp_path, check=True, capture_output=True)
    finally:
        away.rename(folder)
    assert pq.read_table(tmp_path / "p.parquet")["logit"].to_pylist() == logits


def test_examples_are_raw_rows_with_the_scores_of_the_run(made, clickwise):
    folder, run = made
    examples, of_mapping = pq.read_table(run / "examples.parquet"), scored(clickwise, run, "test")
    assert len(examples) == ROWS and examples["logit"].to_pylist() == of_mapping["logit"].to_pylist()
    assert examples["town"].to_pylist() == [row["town"] or None for row in raw_rows(ROWS, 2)]
    again = scored(clickwise, run, run / "examples.parquet")
    assert again["logit"].to_pylist() == examples["logit"].to_pylist()


def test_no_examples_where_none_are_wanted(made, clickwise):
    folder, _ = made
    result = clickwise("train", "table/dcnv2", f"data.path={folder / 'columns'}", "examples=0", *SMALL, "--json")
    assert not (Path(json.loads(result.out)["run"]) / "examples.parquet").exists()


def test_states_are_read_only_and_links(made):
    folder, run = made
    for state in (run / "encoding/states").iterdir():
        assert not stat.S_IMODE(state.stat().st_mode) & 0o222
        assert state.stat().st_ino == (folder / "columns/preparation/states" / state.name).stat().st_ino


def test_by_default_predictions_lie_in_the_run_and_shares_are_told(made, clickwise, tmp_path):
    folder, run = made
    rows = raw_rows(20, 5)
    write_csv(tmp_path / "new.csv", [row | {"shop": "no", "price": "", "extra": 1} for row in rows])
    result = clickwise("predict", run, "--input", "new.csv", "--json")
    found = json.loads(result.out)
    assert Path(found["out"]) == run / "predictions/new.csv.parquet" and len(pq.read_table(found["out"])) == 20
    assert found["unseen"]["shop"] == 1.0 and "shop" not in found["missing"] and found["missing"]["price"] == 1.0
    assert "unseen values: shop 100.00%" in result.err and "not read: extra" in result.err


def test_predict_raw_rows(clickwise, tmp_path):
    """Raw item numbers are no ids, and raw prices no scaled ones."""
    dice = random.Random(0)
    items = [dice.randrange(1, 41) for _ in range(1500)]
    rows = [{"item": 3 + item, "price": 100 + 50 * dice.random() * item, "click": int(dice.random() < item / 41)}
            for item in items]
    write_csv(tmp_path / "train.csv", rows[:1000])
    write_csv(tmp_path / "test.csv", rows[1000:])
    clickwise("spec", "infer", "train.csv", "test.csv", "--label", "click", "--categorical", "item", "--out", "spec")
    assert clickwise("prepare", "table/prepare", "dataset.spec=spec", "out=columns").code == 0
    run = json.loads(clickwise("train", "table/dcnv2", "data.path=columns", *SMALL[1:], "train.epochs=3",
                               "--json").out)["run"]
    logits = scored(clickwise, run, "test")["logit"].to_pylist()
    assert scored(clickwise, run, "test.csv")["logit"].to_pylist() == logits
    result = clickwise("predict", run, "--input", "test.csv", "--out", "p.parquet", "--encoded")
    assert result.code == 1 and "Traceback" not in result.err


@pytest.fixture(scope="module")
def criteo(tmp_path_factory):
    """Lines of a test day, and a run on the days before it."""
    folder, lines = tmp_path_factory.mktemp("criteo"), random_lines(300, 1)
    section = {"name": "criteo", "frequency_limit": 2, "train": [str(write_raw(folder / "train.tsv", lines[:200]))],
               "test": [str(write_raw(folder / "test.tsv", lines[200:]))]}
    columns = prepare({"dataset": section, "out": str(folder / "columns")}, "test")
    return lines[200:], train("criteo/dlrm", [
        f"data.path={columns}", "data.validation=null", "schedule={}", *SMALL[:3], "model.bottom_mlp=[8]",
        "model.embedding_dim=8", "model.top_mlp=[8]"], out=folder / "runs")


@pytest.mark.parametrize("label", ["with", "without"])
@pytest.mark.parametrize("form", ["lines", "header", "parquet"])
def test_criteo(criteo, clickwise, tmp_path, label, form):
    test, run = criteo
    names = ["label", *(f"num_{i}" for i in range(13)), *(f"cat_{i}" for i in range(26))]
    fields = [dict(zip(names, line.split("\t"), strict=True)) for line in test]
    kept = names if label == "with" else names[1:]
    if form == "lines":
        write_raw(tmp_path / "in.tsv", ["\t".join(row[name] for name in kept) for row in fields])
    elif form == "header":
        write_csv(tmp_path / "in.csv", fields, kept[::-1])
    else:
        pq.write_table(pa.table({name: [int(row[name]) if row[name] and name.startswith("num") else row[name] or None
                                        for row in fields] for name in kept}), tmp_path / "in.parquet")
    source = {"lines": "in.tsv", "header": "in.csv", "parquet": "in.parquet"}[form]
    assert scored(clickwise, run, source)["logit"].to_pylist() == scored(clickwise, run, "test")["logit"].to_pylist()


# ---- further rows, in an encoding fitted before


@pytest.mark.parametrize("given", ["run", "columns"])
def test_prepare_with_an_encoding_gives_the_columns_of_the_test_mapping(made, clickwise, tmp_path, given):
    folder, run = made
    rows = raw_rows(ROWS, 2)
    write_csv(tmp_path / "a.csv", rows[:150])
    write_csv(tmp_path / "b.csv.gz", rows[150:])
    result = clickwise("prepare", "table/prepare", "--with", run if given == "run" else folder / "columns",
                       "dataset.input=[a.csv, b.csv.gz]", "out=more")
    assert result.code == 0, result.err
    for file in (folder / "columns/test").iterdir():
        assert (tmp_path / "more/input" / file.name).read_bytes() == file.read_bytes(), file.name
    of_test = json.loads(clickwise("evaluate", run, "--json").out)["metrics"]
    result = clickwise("evaluate", run, "--mapping", "input", "data.path=more", "--json")
    assert json.loads(result.out)["metrics"] == of_test
    again = clickwise("prepare", "table/prepare", "--with", "more", "dataset.input=[a.csv]", "out=again")
    assert again.code == 0 and (tmp_path / "again/input/shop.bin").stat().st_size == 150
    assert "already prepared" in clickwise("prepare", "table/prepare", "--with", "more", "dataset.input=[a.csv]",
                                           "out=again").err


def test_prepare_with_an_encoding_the_mappings_of_a_recipe_and_rows_without_labels(made, clickwise, tmp_path):
    folder, run = made
    result = clickwise("prepare", "table/prepare", "--with", run, f"dataset.spec={folder}", "out=both")
    assert result.code == 0, result.err
    for file in (folder / "columns/test").iterdir():
        assert (tmp_path / "both/test" / file.name).read_bytes() == file.read_bytes(), file.name
    assert (tmp_path / "both/train/shop.bin").stat().st_size == 1500
    columns = [name for name in raw_rows(1, 0)[0] if name != "click"]
    write_csv(tmp_path / "no.csv", raw_rows(30, 9), columns)
    clickwise("prepare", "table/prepare", "--with", run, "dataset.input=[no.csv]", "out=bare")
    logits = scored(clickwise, run, "input", "data.path=bare")["logit"].to_pylist()
    assert scored(clickwise, run, "no.csv")["logit"].to_pylist() == logits
    result = clickwise("evaluate", run, "--mapping", "input", "data.path=bare")
    assert result.code == 1 and "no label" in result.err
    write_csv(tmp_path / "some.csv", [row | {"click": "" if index < 4 else "no"}
                                      for index, row in enumerate(raw_rows(30, 9))])
    result = clickwise("prepare", "table/prepare", "--with", run, "dataset.input=[some.csv]", "out=some", "--json")
    assert json.loads(result.out)["rows"] == {"input": 26} and "4 rows without a label" in result.err
    result = clickwise("prepare", "table/prepare", "--with", run, "dataset.input=[some.csv, no.csv]", "out=x")
    assert result.code == 1 and "no.csv" in result.err and "label" in result.err and not (tmp_path / "x").exists()


def test_what_prepare_with_refuses(made, clickwise, tmp_path):
    folder, run = made
    write_csv(tmp_path / "in.csv", raw_rows(30, 9))
    for words, code, said in ((("kuairand/prepare", "--with", run), 1, "no files, with --with"),
                              (("table/prepare", "--with", tmp_path, "dataset.input=[in.csv]"), 1, "no encoding.json"),
                              (("table/prepare", "dataset.input=[in.csv]"), 2, "--with"),
                              (("table/prepare", "--with", run, "dataset.input=[gone.csv]"), 1, "no such file"),
                              (("criteo/prepare", "--with", run, "dataset.split=halve_last"), 1, "split")):
        result = clickwise("prepare", *words, "out=x")
        assert result.code == code and said in result.err and "Traceback" not in result.err, result.err
        assert not (tmp_path / "x").exists()


# ---- what cannot be


@pytest.mark.parametrize("change, words", [
    (lambda rows: [{k: v for k, v in row.items() if k != "price"} for row in rows],
     ("no column 'price'", "price: float", "did you mean")),
    (lambda rows: [row | {"price": "cheap"} if index == 7 else row for index, row in enumerate(rows)],
     ("column 'price', row 7", "'cheap'", "a number")),
    (lambda rows: [row | {"price": "inf"} if index == 3 else row for index, row in enumerate(rows)],
     ("column 'price', row 3", "a finite number")),
    (lambda rows: [row | {"tags": "a|b|c|d|e"} for row in rows], ("column 'tags', row 0", "5 values", "at most 4"))])
def test_rows_that_cannot_be_read(made, clickwise, tmp_path, change, words):
    folder, run = made
    write_csv(tmp_path / "in.csv", change(raw_rows(20, 3)))
    result = clickwise("predict", run, "--input", "in.csv", "--out", "p.parquet")
    assert result.code == 1 and "Traceback" not in result.err and not list(tmp_path.glob("*p.parquet*"))
    assert all(word in result.err for word in words if word != "did you mean"), result.err


def test_a_column_of_a_type_that_is_none_of_a_value(made, clickwise, tmp_path):
    folder, run = made
    pq.write_table(typed(raw_rows(5, 3)), tmp_path / "in.parquet")
    table = pq.read_table(tmp_path / "in.parquet")
    for name, column, words in (("price", pa.array([[1.0]] * 5), ("'price'", "list<", "float")),
                                ("tags", pa.array([[{"a": 1}]] * 5), ("'tags'", "struct", "lists of text")),
                                ("town", pa.array([{"a": 1}] * 5), ("'town'", "struct", "text"))):
        pq.write_table(table.set_column(table.column_names.index(name), name, column), tmp_path / "bad.parquet")
        result = clickwise("predict", run, "--input", "bad.parquet", "--out", "p.parquet")
        assert result.code == 1 and all(word in result.err for word in words), result.err


def test_an_encoding_that_is_newer_damaged_or_not_there(made, clickwise, tmp_path):
    folder, run = made
    write_csv(tmp_path / "in.csv", raw_rows(5, 3))
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    path, state = copy / "encoding/encoding.json", copy / "encoding/states/0.vocabulary"

    def refused(code: int, *words: str) -> None:
        result = clickwise("predict", copy, "--input", "in.csv", "--out", "p.parquet")
        assert result.code == code and "Traceback" not in result.err, result.err
        assert all(word in result.err for word in words), result.err

    text, content = path.read_text(), state.read_bytes()
    path.write_text(text.replace('"version": 1', '"version": 2'))
    refused(1, "encoding.json", "version 2", "version 1")
    path.write_text(text[:100])
    refused(1, "encoding.json", "copy")
    path.write_text(text.replace('"signed_log"', '"cosine"'))
    refused(1, "encoding.json", "cosine")
    path.write_text(text.replace('"states/0.vocabulary"', '"../../../secret"'))
    refused(1, "inside the folder")
    path.write_text(text)
    state.chmod(0o644)
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[:50], content[:-20], b""):
        state.write_bytes(damaged)
        refused(1, "0.vocabulary")
    state.unlink()
    refused(1, "0.vocabulary", "no such file")
    shutil.rmtree(copy / "encoding")
    refused(2, "no encoding", "--encoded")
    assert not list(tmp_path.glob("*p.parquet*"))


def test_a_run_that_cannot_be_written_to_asks_for_out(made, clickwise, tmp_path, monkeypatch):
    folder, run = made
    write_csv(tmp_path / "in.csv", raw_rows(5, 3))
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, *how, **more: Path(path).name != "predictions" and access(
        path, *how, **more))
    result = clickwise("predict", run, "--input", "in.csv")
    assert result.code == 2 and "--out" in result.err and "read-only" in result.err
