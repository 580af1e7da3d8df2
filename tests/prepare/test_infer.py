"""`clickwise spec infer`: what is found in files, what is guessed from it, and that the draft is a Feature Spec."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import gzip
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clickwise.data.columns import read_columns
from clickwise.errors import ClickwiseError
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare import column_profile
from clickwise.prepare.infer import infer

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ROWS = 400


def write_csv(path, columns, header=True, delimiter=","):
    opened = gzip.open(path, "wt", newline="") if path.suffix == ".gz" else open(path, "w", newline="")
    with opened as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows(([list(columns)] if header else []) + [*zip(*columns.values(), strict=True)])
    return path


def cycle(*values):
    return [values[index % len(values)] for index in range(ROWS)]


LABEL = cycle(0, 1, 0)
TEXT = {"dtype": "str", "cardinality": "auto"}
NUMBER = {"dtype": "float32"}


@pytest.mark.parametrize(("name", "values", "channel", "entry"), [
    ("height", cycle(1.5, 2, 1.75), "numerical", NUMBER),
    ("height", cycle("1.5", "NA", "-2e3", ""), "numerical", NUMBER),
    ("clicks", [index * 7 for index in range(ROWS)], "numerical", NUMBER),
    ("balance", cycle(-5, 3, 900), "categorical", TEXT),
    ("month", cycle(*range(1, 13)), "categorical", {"dtype": "int8", "cardinality": 13}),
    ("month", cycle(*range(1, 13), ""), "categorical", TEXT),
    ("item", [index // 2 for index in range(ROWS)], "categorical", {"dtype": "int16", "cardinality": 200}),
    ("user_id", cycle(*range(10**9, 10**9 + 60)), "categorical", TEXT),
    ("zip", cycle("01234", "99999", "00001"), "categorical", TEXT),
    ("shop", cycle("a", "b", "NA"), "categorical", TEXT),
    ("member", cycle("true", "False"), "categorical", TEXT),
    ("genres", cycle("Action|Comedy", "Comedy", "Action", "Drama|Action|Comedy"), "categorical",
     TEXT | {"max_hotness": 3}),
    ("tags", cycle("3|17|4", "3|4", "", "17"), "categorical", {"dtype": "int8", "cardinality": 18, "max_hotness": 3}),
    ("title", cycle("a|b", "c|d", "e|f"), "categorical", TEXT),
    ("session", cycle(*range(50)), "display", {"dtype": "int64"}),
    ("query", cycle("shoes", "hats"), "display", {"dtype": "str"}),
    ("impression_id", [f"i{index}" for index in range(ROWS)], "", {}),
    ("comment", [f"text {index}" for index in range(ROWS)], "", {}),
    ("order_id", list(range(ROWS)), "", {}),
    ("country", cycle("DE"), "", {}),
    ("empty", cycle(""), "", {}),
    ("at", cycle("2024-01-02", "2024-02-03T10:11:12.5Z", "2024-1-2 10:11"), "", {}),
])
def test_what_a_column_is_taken_for(tmp_path, name, values, channel, entry):
    draft = infer([write_csv(tmp_path / "rows.csv", {name: values, "label": LABEL})])
    assert (draft.guesses[name].channel, draft.guesses[name].entry) == (channel, entry)
    assert draft.guesses[name].why
    if channel:
        assert draft.save(tmp_path).channels[channel] == (name,)


@pytest.mark.parametrize(("values", "channel", "entry"), [
    (pa.array(cycle("a", "b")).dictionary_encode(), "categorical", TEXT),
    (pa.array(cycle([1, 2], [7], None, [])), "categorical", {"dtype": "int8", "cardinality": 8, "max_hotness": 2}),
    (pa.array(cycle(["x"], ["y", "z", "x"])), "categorical", TEXT | {"max_hotness": 3}),
    (pa.array(cycle(["x"], ["y"])), "categorical", TEXT | {"max_hotness": 2}),
    (pa.array(cycle([1.5], [2.5, 3.5])), "", {}),
    (pa.array(cycle(1.5, None, float("nan"))), "numerical", NUMBER),
    (pa.array(cycle(1, 2, 3), pa.int8()), "categorical", {"dtype": "int8", "cardinality": 4}),
    (pa.array(cycle(True, False)), "categorical", TEXT),
    (pa.array(cycle(datetime.date(2024, 1, 2), datetime.date(2024, 1, 3))), "", {}),
    (pa.array(cycle({"a": 1}, {"a": 2})), "", {}),
    (pa.array(cycle(b"a", b"b")), "", {}),
    (pa.nulls(ROWS), "", {}),
])
def test_columns_of_parquet(tmp_path, values, channel, entry):
    pq.write_table(pa.table({"x": values, "label": LABEL}), tmp_path / "rows.parquet", row_group_size=130)
    draft = infer([tmp_path / "rows.parquet"])
    assert (draft.guesses["x"].channel, draft.guesses["x"].entry) == (channel, entry)
    draft.save(tmp_path)


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=6).map(str.strip)
cells = st.one_of(st.integers(-3, 200).map(str), st.floats(-9, 9).map(str), words, st.sampled_from(["", "NA", "a|b"]))
names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/\\"),
                min_size=1, max_size=8).map(str.strip).filter(lambda name: name not in ("", ".", "..", "label"))


@QUICK
@given(table=st.integers(2, 12).flatmap(lambda rows: st.dictionaries(
    names, st.lists(cells, min_size=rows, max_size=rows), min_size=1, max_size=4)))
@example(table={"#": ["-1", "0"], ",": ["1", "0"]})  # a header that is no comment
def test_any_draft_is_a_spec_and_counts_what_is_there(tmp_path, table):
    columns = {**table, "label": [index % 2 for index in range(len(next(iter(table.values()))))]}
    draft = infer([write_csv(tmp_path / "rows.csv", columns)], label="label", header=True, delimiter=",")
    spec = draft.save(tmp_path)
    assert spec.channels["label"] == ("label",)
    for name, values in table.items():
        profile = draft.table.columns[name]
        assert profile.values == {value.strip() for value in values} - {""}
        assert profile.rows == len(values)
        if profile.is_number:
            numbers = [float(value) for value in values if value not in column_profile.MISSING_NUMBERS]
            assert (profile.low, profile.high, profile.known) == (min(numbers), max(numbers), len(numbers))


def test_the_size_of_blocks_changes_nothing(tmp_path, monkeypatch):
    values = {"a": [*range(300), *["x"] * 100], "b": [*range(399), "1.5"], "c": cycle("x|y", "y", "z|y|x"),
              "label": LABEL}
    path = write_csv(tmp_path / "rows.csv", values)
    whole = infer([path]).text(tmp_path)
    monkeypatch.setattr(column_profile, "BLOCK_BYTES", 200)
    assert infer([path]).text(tmp_path) == whole
    assert "text, 301 values" in whole and "numbers 0 … 398" in whole


def test_counting_ends_at_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(column_profile, "DISTINCT_LIMIT", 10)
    monkeypatch.setattr(column_profile, "BLOCK_BYTES", 64)
    draft = infer([write_csv(tmp_path / "rows.csv", {"city": [f"c{index}" for index in range(ROWS)], "label": LABEL})])
    found = draft.table.columns["city"]
    assert found.more and len(found.values) < 40
    assert re.search(r"city: .*# text, more than \d+ values in 400 rows", draft.text(tmp_path))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_delimiter_and_header_are_found(tmp_path, delimiter, ending):
    columns = {"label": LABEL, "city": cycle("a,b", "c"), "tags": cycle("x;y", "y", "x"), "n": cycle(1.5, 2.5)}
    if delimiter == ";":
        columns["tags"] = cycle("x|y", "y", "x")
    draft = infer([write_csv(tmp_path / f"a.{ending}", columns, delimiter=delimiter)])
    spec = draft.save(tmp_path)
    (chunk,) = spec.chunks("train")
    assert chunk.features == tuple(columns) and chunk.options["header"] is True
    assert chunk.options.get("delimiter", ",") == delimiter
    assert spec.features["tags"].max_hotness == 2
    bare = infer([write_csv(tmp_path / f"b.{ending}", columns, header=False, delimiter=delimiter)], label="column_1")
    assert list(bare.table.columns) == ["column_1", "column_2", "column_3", "column_4"] and not bare.table.has_header
    assert [guess.entry for guess in bare.guesses.values()] == [guess.entry for guess in draft.guesses.values()]


def test_a_file_without_header_keeps_every_column(tmp_path):
    path = write_csv(tmp_path / "rows.csv", {"a": LABEL, "b": cycle("DE"), "c": cycle("x", "y")}, header=False)
    spec = infer([path], label="column_1").save(tmp_path)
    assert spec.channels["left_out"] == ("column_2",)
    assert spec.chunks("train")[0].features == ("column_1", "column_2", "column_3")


def test_a_column_without_a_name_is_passed_over(tmp_path):
    path = write_csv(tmp_path / "rows.csv", {"": range(ROWS), "label": LABEL, "city": cycle("x", "y")})
    assert infer([path]).save(tmp_path).chunks("train")[0].features == ("label", "city")


def test_mappings_by_the_names_of_the_files(tmp_path):
    names = ["day_1_train.csv", "train-2.csv", "test.csv", "rows_valid.csv", "contest_train.csv"]
    paths = [write_csv(tmp_path / name, {"label": LABEL, "city": cycle("x", "y")}) for name in names]
    spec = infer(paths).save(tmp_path / "spec")
    assert {mapping: [file for chunk in chunks for file in chunk.files] for mapping, chunks in spec.mappings.items()} \
        == {"train": ["../day_1_train.csv", "../train-2.csv", "../contest_train.csv"], "test": ["../test.csv"],
            "validation": ["../rows_valid.csv"]}
    assert list(infer([paths[2]]).mappings) == ["train"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_encoded_data_goes_straight_to_columns(clickwise, tmp_path, ending):
    columns = {"clicked": cycle(0, 1, 1), "price": cycle(1.5, 2.5, -3), "city": cycle(*range(9)),
               "session": cycle(*range(40))}
    for mapping in ("train", "test"):
        if ending == "parquet":
            pq.write_table(pa.table({**columns, "tags": cycle([3, 17], [], [5])}), tmp_path / f"{mapping}.parquet")
        else:
            write_csv(tmp_path / f"{mapping}.csv", {**columns, "tags": cycle("3|17", "", "5")})
    result = clickwise("spec", "infer", f"train.{ending}", f"test.{ending}", "--out", "draft", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["next"] == "clickwise transcode draft --out draft/columns"
    assert clickwise(*found["next"].split()[1:]).code == 0
    read = read_columns(FeatureSpec.load("draft/columns"), "test")
    assert read.numerical[:, 0].tolist() == columns["price"] and read.arrays["city"].tolist() == columns["city"]
    assert read.arrays["clicked"].tolist() == [bool(value) for value in columns["clicked"]]
    assert read.arrays["tags"][0].tolist() == [3, 17]
    assert np.diff(read.arrays["tags"].offsets).tolist() == cycle(2, 0, 1)


def test_raw_text_is_sent_to_preparation(clickwise, tmp_path):
    write_csv(tmp_path / "rows.csv", {"income": cycle("<=50K", ">50K"), "city": cycle("a", "b")})
    result = clickwise("spec", "infer", "rows.csv", "--label", "income", "--out", "draft")
    assert result.code == 0, result.err
    assert """clickwise prepare table/prepare dataset.spec=draft "dataset.label_is='>50K'" out=draft/columns""" \
        in result.out
    for words in (("transcode", "draft", "--out", "columns"), ("train", "tiny/dlrm", "data.synthetic=null",
                                                               "data.path=draft")):
        result = clickwise(*words)
        assert result.code == 1
        assert "raw text (dtype: str)" in result.err
        assert "clickwise prepare table/prepare dataset.spec=draft" in result.err


def test_a_spec_that_is_there_is_not_lost(clickwise, tmp_path):
    write_csv(tmp_path / "rows.csv", {"label": LABEL, "city": cycle("a", "b")})
    (tmp_path / "feature_spec.yaml").write_text("mine")
    result = clickwise("spec", "infer", "rows.csv", "--out", ".")
    assert result.code == 2 and "--overwrite" in result.err
    assert (tmp_path / "feature_spec.yaml").read_text() == "mine"
    assert clickwise("spec", "infer", "rows.csv", "--out", ".", "--overwrite").code == 0
    FeatureSpec.load(tmp_path)


@pytest.mark.parametrize(("text", "options", "words"), [
    (None, {}, ["rows.csv", "no such file"]),
    ("", {}, ["rows.csv", "an empty file"]),
    ("\n\n", {}, ["rows.csv", "no lines"]),
    ("a,label\n", {}, ["rows.csv", "no rows"]),
    ("a,a,label\n1,2,0\n3,4,1\n", {}, ["two columns named 'a'"]),
    ("a,b,c\n1,x,0\n2,y,1\n3,x,1\n", {}, ["--label", "two values have: b, c"]),
    ("a,b\n1,x\n2,y\n3,z\n", {}, ["--label", "no column has two values"]),
    ("a,label\n1,0\n", {"label": "lable"}, ["--label lable", "did you mean 'label'?"]),
    ("a,label\n1,0\n", {"display": "b"}, ["--display b", "no such column"]),
    ("a,label\nx,0\ny,1\n", {"numerical": ["a"]}, ["--numerical a", "'x' and 'y'"]),
    ("a,label\nx,0\ny,1\n", {"categorical": ["label"], "label": "label"}, ["label", "named twice"]),
    ("a,label\n1,0\n1,2,3\n", {}, ["rows.csv, line 3", "3 field(s)"]),
    (b"a,label\n\x00\xfe,1\n", {}, ["rows.csv", "zero bytes"]),
])
def test_one_message_for_a_mistake(tmp_path, text, options, words):
    path = tmp_path / "rows.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ClickwiseError) as error:
        infer([path], **options)
    for word in words:
        assert word in str(error.value), str(error.value)


def test_files_that_do_not_belong_together(tmp_path):
    one = write_csv(tmp_path / "one.csv", {"label": LABEL, "city": cycle("a", "b")})
    other = write_csv(tmp_path / "other.csv", {"label": LABEL, "town": cycle("a", "b")})
    pq.write_table(pa.table({"label": LABEL}), tmp_path / "rows.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    for files, word in (([one, other], "the columns label, town"), ([one, tmp_path / "rows.parquet"], "at once"),
                        ([tmp_path / "broken.parquet"], "a Parquet file"), ([tmp_path], "a folder")):
        with pytest.raises(ClickwiseError, match=word):
            infer(files)


# ---- lists that a person names

LISTS = [f"{'abc'[index % 3]}{'; ' if index % 2 else ''}{'xyz'[index % 5 % 3] if index % 2 else ''}"
         for index in range(ROWS)]


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_lists_by_their_delimiter(clickwise, tmp_path, ending):
    texts = {"tags": LISTS, "words": cycle("a b", "b c d", "d"), "one": cycle(*map(str, range(5))), "label": LABEL}
    if ending == "csv":
        write_csv(tmp_path / "rows.csv", texts)
    elif ending == "parquet":
        pq.write_table(pa.table(texts), tmp_path / "rows.parquet")
    else:
        rows = [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = clickwise("spec", "infer", f"rows.{ending}", "--out", "spec", "--multi-hot", "tags=; ", "--multi-hot",
                       "words=space", "--multi-hot", "one=|")
    assert result.code == 0, result.err
    features = FeatureSpec.load("spec").features
    assert [(features[name].max_hotness, features[name].list_delimiter) for name in ("tags", "words", "one")] == \
        [(2, "; "), (3, " "), (2, None)]
    done = clickwise("prepare", "table/prepare", "dataset.spec=spec", "out=columns", "dataset.test_share=0",
                     "dataset.validation_share=0", "dataset.shuffle=false")
    assert done.code == 0, done.err
    found = read_columns(FeatureSpec.load("columns"), "train").arrays
    names = pq.read_table("columns/preparation/vocabularies/tags.parquet")
    ids = dict(zip(names["value"].to_pylist(), names["id"].to_pylist(), strict=True))
    expected = [[ids[tag] for tag in tags.split("; ")] for tags in LISTS]
    assert sorted(ids) == list("abcxyz") and expected == [row.tolist() for row in _rows(found["tags"])]


def _rows(lists):
    return [lists.values[start:end] for start, end in zip(lists.offsets, lists.offsets[1:], strict=False)]


def test_encoded_lists_of_two_delimiters_go_straight_to_columns(clickwise, tmp_path):
    for mapping in ("train", "test"):
        write_csv(tmp_path / f"{mapping}.csv", {"a": cycle("3|1", "2", ""), "b": cycle("4;0", "5;6;1", "3"),
                                                "label": LABEL})
    assert clickwise("spec", "infer", "train.csv", "test.csv", "--out", "spec", "--multi-hot", "b=;").code == 0
    done = clickwise("transcode", "spec", "--out", "columns")
    assert done.code == 0, done.err
    found = read_columns(FeatureSpec.load("columns"), "test").arrays
    assert [row.tolist() for row in _rows(found["a"])] == cycle([3, 1], [2], [])
    assert [row.tolist() for row in _rows(found["b"])] == cycle([4, 0], [5, 6, 1], [3])


def test_categorical_lists(tmp_path):
    lists = cycle(["x"], ["y", "z", "x"])
    texts = cycle("a|b", "b", "c|a|b")
    pq.write_table(pa.table({"lists": lists, "texts": texts, "label": LABEL}), tmp_path / "rows.parquet")
    guesses = infer([tmp_path / "rows.parquet"], categorical=["lists", "texts"]).guesses
    assert guesses["lists"].entry == TEXT | {"max_hotness": 3} and guesses["texts"].entry == TEXT
    assert all(guess.channel == "categorical" for name, guess in guesses.items() if name != "label")


def test_lists_in_several_ways_are_told_apart(tmp_path):
    columns = {"tags": cycle("a;b", "b", "c;a;b"), "genres": cycle("x|y", "y", "z|x"), "places": cycle(
        "Rome, Italy", "Milan, Italy", "Paris, France", "Nice, France", "Italy", "France"), "label": LABEL}
    guesses = infer([write_csv(tmp_path / "rows.csv", columns)]).guesses
    assert guesses["genres"].entry == TEXT | {"max_hotness": 2} and guesses["tags"].entry == TEXT
    assert "--multi-hot 'tags=;'" in guesses["tags"].check and "multi_hot={'tags': ';'}" in guesses["tags"].check
    assert guesses["places"].channel == "categorical" and "--multi-hot places=," in guesses["places"].check
    asked = infer([tmp_path / "rows.csv"], multi_hot={"tags": ";"}).guesses["tags"]
    assert asked.entry == TEXT | {"max_hotness": 3, "list_delimiter": ";"} and not asked.check


def test_parts_before_the_first_delimiter_are_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(column_profile, "BLOCK_BYTES", 64)
    columns = {"tags": [*cycle("90", "7"), *cycle("3|17", "3")], "label": LABEL + LABEL}
    entry = infer([write_csv(tmp_path / "rows.csv", columns)]).guesses["tags"].entry
    assert entry == {"dtype": "int8", "cardinality": 91, "max_hotness": 2}


@pytest.mark.parametrize("name, text, char", [("tab", "\t", "\t"), ("\\t", "\t", "\t"), ("||", "||", "||"),
                                              ("::", "::", "::"), ("semicolon", ";", ";"), ("space", " ", " "),
                                              ("|", "|", "|")])
def test_delimiters_by_name(clickwise, tmp_path, name, text, char):
    (tmp_path / "rows.txt").write_text("".join(f"{a}{text}{b}{text}{c}\n" for a, b, c in [
        ("city", "label", "shop"), *(("ab"[row % 2], row % 3 % 2, "xyz"[row % 3]) for row in range(60))]))
    result = clickwise("spec", "infer", "rows.txt", "--delimiter", name, "--out", "spec")
    assert result.code == 0, result.err
    (chunk,) = FeatureSpec.load("spec").chunks("train")
    assert chunk.features == ("city", "label", "shop") and chunk.options["delimiter"] == char
    assert clickwise("prepare", "table/prepare", "dataset.spec=spec", "out=columns").code == 0


@pytest.mark.parametrize("words, found", [
    (["--multi-hot", "tags"], "no ="), (["--multi-hot", "=;"], "no name"),
    (["--multi-hot", "tgs=;"], "did you mean 'tags'"), (["--multi-hot", "tags=abcde"], "'abcde'"),
    (["--multi-hot", "tags=;", "--categorical", "tags"], "named twice"), (["--delimiter", "abcde"], "'abcde'"),
    (["--delimiter", ""], "''"), (["--categorical", "tgs"], "did you mean 'tags'")])
def test_one_message_for_a_wrong_delimiter(clickwise, tmp_path, words, found):
    write_csv(tmp_path / "rows.csv", {"tags": cycle("a;b", "b"), "label": LABEL})
    result = clickwise("spec", "infer", "rows.csv", "--out", "spec", *words)
    assert result.code == 2 and found in result.err and not (tmp_path / "spec").exists()


# ---- dates by the evidence of all values

DAYS = [(index % 28 + 1, index % 12 + 1) for index in range(ROWS)]
SMALL_DAYS = [(index % 12 + 1, index % 11 + 1) for index in range(ROWS)]


@pytest.mark.parametrize("values, format_", [
    ([f"{day:02}/{month:02}/2024" for day, month in DAYS], "%d/%m/%Y"),
    ([f"{month}/{day}/2024" for day, month in DAYS], "%m/%d/%Y"),
    ([f"{day}.{month}.2024 {day % 24}:07" for day, month in DAYS], "%d.%m.%Y %H:%M"),
    ([f"{month}-{day}-2024, 1:02:03 PM" for day, month in DAYS], "%m-%d-%Y, %I:%M:%S %p"),
    ([f"{day}/{month}/2024{' 10:00' if day % 2 else ''}" for day, month in DAYS], "%d/%m/%Y[ %H:%M[:%S]]"),
    ([f"{day} Feb 2024" for day, _ in DAYS], "%d %b %Y"),
    ([f"February {day}, 2024" for day, _ in DAYS], "%b %d, %Y"),
    ([f"2024/{month}/{day}" for day, month in DAYS], "%Y/%m/%d"),
    ([f"2024-{month}-{day}" for day, month in DAYS], "%Y-%m-%d"),
    ([f"Mon, {day} Feb 2024 10:00:00 +0100" for day, _ in DAYS], "%a, %d %b %Y %H:%M:%S %z"),
    ([f"Wed Feb {day:02} 13:08:45 +0000 2024" for day, _ in DAYS], "%a %b %d %H:%M:%S %z %Y"),
    ([f"{day:02}/{month:02}/24" for day, month in DAYS], "%d/%m/%y"),
    ([f"{day:02}/{month:02}/2024" if day % 5 else "NA" for day, month in DAYS], "%d/%m/%Y"),
    ([f"{day:02}/{month:02}/2024" for day, month in [*SMALL_DAYS[1:], (13, 1)]], "%d/%m/%Y"),
    ([f"2024-{month:02}-{day:02}T10:00:00Z" for day, month in DAYS], None),  # needs none
    ([f"{day:02}/{month:02}/2024" for day, month in SMALL_DAYS], "asked"),
    ([f"{day:02}/{month:02}/24" for day, month in SMALL_DAYS], "asked"),
    ([f"{day}/{month}/2024" if day % 2 else f"{month}/{day}/2024" for day, month in DAYS], "several"),
    ([f"2024-{month}-{day} 10:00" if day % 2 else f"2024-{month:02}-{day:02}T10:00Z" for day, month in DAYS],
     "several"),
])
@pytest.mark.parametrize("block", [1 << 22, 200])
def test_how_dates_are_written(tmp_path, monkeypatch, values, format_, block):
    monkeypatch.setattr(column_profile, "BLOCK_BYTES", block)
    monkeypatch.setattr(column_profile, "DISTINCT_LIMIT", 20 if block == 200 else 100_000)
    draft = infer([write_csv(tmp_path / "rows.csv", {"when": values, "label": LABEL, "x": cycle("a", "b")})])
    guess = draft.guesses["when"]
    if format_ in ("asked", "several", None):
        assert (guess.channel, guess.entry) == (("left_out", {"dtype": "str"}) if format_ == "asked" else ("", {}))
        assert {"asked": "day come first, or the month", "several": "no one format", None: ""}[format_] in guess.check
        assert bool(guess.check) == (format_ is not None)
    else:
        assert (guess.channel, guess.entry) == ("left_out", {"dtype": "str", "format": format_})
        assert bool(guess.check) == ("%y" in format_)  # years of two digits may be something else
    spec = draft.save(tmp_path)
    assert format_ in ("asked", "several", None) or spec.features["when"].time_format == format_
    assert spec == FeatureSpec.load(tmp_path) and FeatureSpec.load(spec.save(tmp_path / "saved")) == spec


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_split_goes_by_dates_as_they_are_written(clickwise, tmp_path, ending):
    days = [datetime.date(2023, 3, 1) + datetime.timedelta(days=index * 37 % ROWS) for index in range(ROWS)]
    columns = {"when": [f"{day:%d/%m/%Y}" for day in days], "n": [float(day.toordinal()) + 0.5 for day in days],
               "label": LABEL}
    write_csv(tmp_path / "rows.csv", columns)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n"
                                                 for row in zip(*columns.values(), strict=True)))
    result = clickwise("spec", "infer", f"rows.{ending}", "--out", "spec", "--numerical", "n")
    assert result.code == 0 and "left_out     when" in result.out, result.err
    done = clickwise("prepare", "table/prepare", "dataset.spec=spec", "out=columns", "dataset.order_by=when",
                     "dataset.bins=0")
    assert done.code == 0, done.err
    parts = [read_columns(FeatureSpec.load("columns"), mapping).numerical[:, 0]
             for mapping in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [280, 40, 80]
    assert parts[0].max() < parts[1].min() and parts[1].max() < parts[2].min()


def test_a_moment_is_one_value_however_it_is_written(clickwise, tmp_path, monkeypatch):
    days = [f"{day:02}/{month}/2024" for day, month in DAYS]
    write_csv(tmp_path / "rows.csv", {"when": days, "x": cycle("a", "b"), "label": LABEL})
    assert clickwise("spec", "infer", "rows.csv", "--out", "spec").code == 0
    spec = FeatureSpec.load("spec")
    channels = {**spec.channels, "categorical": ("x", "when"), "left_out": ()}
    feature = dataclasses.replace(spec.features["when"], cardinality="auto")
    dataclasses.replace(spec, channels=channels, features=spec.features | {"when": feature}).save("spec")
    for name, size in (("small", 1), ("large", 1 << 40)):
        monkeypatch.setattr("clickwise.prepare.table.VALUE_BYTES", size)
        done = clickwise("prepare", "table/prepare", "dataset.spec=spec", f"out={name}", "dataset.test_share=0",
                         "dataset.validation_share=0", "dataset.shuffle=false")
        assert done.code == 0, done.err
    for file in (tmp_path / "small/train").iterdir():
        assert file.read_bytes() == (tmp_path / "large/train" / file.name).read_bytes()
    raw = json.loads((tmp_path / "small/preparation/encoding.json").read_text())["raw"]
    assert raw["when"] == {"type": "time", "format": "%d/%m/%Y"}
    ids = read_columns(FeatureSpec.load("small"), "train").arrays["when"].tolist()
    assert len(set(ids)) == len(set(DAYS)) and 0 not in ids
    others = ["2024-{1:02}-{0:02}", "{0}/{1}/2024", "2024-{1:02}-{0:02}T00:00:00Z"]
    write_csv(tmp_path / "other.csv", {"x": cycle("a", "b"), "when": [
        others[index % 3].format(*day) for index, day in enumerate(DAYS)]})
    done = clickwise("prepare", "table/prepare", "--with", "small", "dataset.input=[other.csv]", "out=more")
    assert done.code == 0, done.err
    assert read_columns(FeatureSpec.load("more"), "input").arrays["when"].tolist() == ids


def test_the_owner_says_how_dates_are_written(clickwise, tmp_path):
    days = [f"{day}/{month}/2024" for day, month in SMALL_DAYS]
    write_csv(tmp_path / "rows.csv", {"when": days, "x": cycle("a", "b"), "label": LABEL})
    drafted = clickwise("spec", "infer", "rows.csv", "--out", "asked")
    assert "please check when" in drafted.out and "--format when=%d/%m/%Y or when=%m/%d/%Y" in drafted.out
    words = ("prepare", "table/prepare", "dataset.order_by=when", "out=columns")
    wrong = clickwise(*words, "dataset.spec=asked")
    assert wrong.code == 1 and "format: '%d/%m/%Y'" in wrong.err
    assert clickwise("spec", "infer", "rows.csv", "--out", "said", "--format", "when=%d/%m/%Y").code == 0
    assert FeatureSpec.load("said").features["when"].time_format == "%d/%m/%Y"
    done = clickwise(*words, "dataset.spec=said")
    assert done.code == 0, done.err


@pytest.mark.parametrize("words, found", [
    (["--format", "when=%d/%m"], "%Y or %y not once"), (["--format", "when=%d.%m.%Y"], "'13/02/2024'"),
    (["--format", "when"], "no ="), (["--format", "whn=%d/%m/%Y"], "did you mean 'when'"),
    (["--format", "n=%d/%m/%Y"], "dates as %d/%m/%Y"), (["--format", "when=%d/%m/%Y", "--ignore", "when"], "twice")])
def test_one_message_for_a_wrong_format(clickwise, tmp_path, words, found):
    write_csv(tmp_path / "rows.csv", {"when": cycle("13/02/2024", "14/02/2024"), "n": cycle(1, 2), "label": LABEL})
    result = clickwise("spec", "infer", "rows.csv", "--out", "spec", *words)
    assert result.code == 2 and found in result.err and not (tmp_path / "spec").exists()


# ---- decisions that once went wrong


def decided(tmp_path, **columns):
    """What a table's columns are taken for, and what a person is asked to check."""
    size = len(next(iter(columns.values())))
    path = write_csv(tmp_path / "rows.csv", {**columns, "label": [index % 2 for index in range(size)]})
    return infer([path]).guesses


@pytest.mark.parametrize("name, values, channel", [
    ("user", [10**6 + 7919 * (index % 500) % 50_000 for index in range(1000)], "categorical"),
    ("movie", [index % 90 * 11 + 5 for index in range(1000)], "categorical"),
    ("site_id", [index % 90 * 11 + 5 for index in range(1000)], "categorical"),
    ("zip", [10_000 + index % 400 * 37 for index in range(1000)], "categorical"),
    ("x", [1 + index % 400 for index in range(1000)], "categorical"),  # without gaps from 1
    ("x", [1 + index % 99 for index in range(1000)], "numerical"),  # hours, points
    ("x", [index**2 % 9973 for index in range(1000)], "numerical"),
    ("ts", [1_400_000_000 + 60 * index for index in range(1000)], ""),
    ("x", [1_400_000_000_000 + 60_000 * index for index in range(1000)], ""),
    ("created", [f"{index % 28 + 1:02}/{index % 12 + 1:02}/2014 10:{index % 60:02}" for index in range(1000)],
     "left_out"),
    ("created", [f"{index % 12 + 1:02}/{index % 11 + 1:02}/2014" for index in range(1000)], "left_out"),
    ("x", [f"{index % 28 + 1} Mar 2014" for index in range(1000)], "left_out"),
    ("x", [f"{index % 2}/{1 + index % 2}/2014" for index in range(1000)], ""),
    ("date", [20140101 + index % 28 for index in range(1000)], ""),
    ("x", [f"{index % 7}:0.5 {index % 5}:{index % 3}.25" for index in range(1000)], ""),
    ("opens", [f"{index % 24:02}:{index % 4 * 15:02}" for index in range(1000)], "categorical"),
    ("phone", [7_000_000_000 + 7919 * index for index in range(1000)], "numerical")])
def test_what_it_is(tmp_path, name, values, channel):
    guess = decided(tmp_path, **{name: values})[name]
    assert guess.channel == channel, guess
    doubtful = channel == "numerical" or (name == "x" and not channel) or (
        name == "created" and "format" not in guess.entry)
    assert bool(guess.check) == doubtful, guess


def test_numbers_that_nobody_scaled_are_never_transcoded(tmp_path, clickwise):
    for name in ("train.csv", "test.csv"):
        write_csv(tmp_path / name, {"shop": [index % 60 for index in range(400)], "x": [index * 7.5 for index in
                                                                                      range(400)], "label": LABEL})
    found = clickwise("spec", "infer", "train.csv", "test.csv", "--out", "spec").out
    assert "clickwise prepare" in found and "transcode" not in found
