"""JSON lines as a form of a table: the same columns as CSV and Parquet, to the byte; what its values become."""

from __future__ import annotations

import gzip
import json
import random

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from clickwise import json_lines
from clickwise.encoding.raw_file import RawFile
from clickwise.errors import ClickwiseError
from clickwise.json_lines import is_json_lines, look
from clickwise.prepare.infer import infer

NAN = float("nan")


def write_lines(path, rows, **dump):
    text = "".join((row if isinstance(row, str) else json.dumps(row, **dump)) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def column_of(tmp_path, *values):
    """The Arrow column of the values of a key `x`, a row each."""
    path = write_lines(tmp_path / "rows.jsonl", [{"x": value, "y": 0} for value in values])
    (batch,) = look([path]).batches(path, ["x"])
    return batch.column(0)


@pytest.mark.parametrize("values, type_, expected", [
    (["a", None, "", "007"], pa.string(), ["a", None, "", "007"]),
    ([1, None, 2**63 - 1, -2**63], pa.int64(), [1, None, 2**63 - 1, -2**63]),
    ([2**53 + 1, 7.0, NAN], pa.int64(), [2**53 + 1, 7, None]),
    ([7, 2.5, True], pa.float64(), [7.0, 2.5, 1.0]),
    ([7.0, 8.0], pa.float64(), [7.0, 8.0]),
    ([2**53 + 1, 2.5], pa.string(), ["9007199254740993", "2.5"]),
    ([2**63, 5], pa.string(), ["9223372036854775808", "5"]),
    ([True, None, False], pa.bool_(), [True, None, False]),
    ([True, 5], pa.int64(), [1, 5]),
    (["x", 7, 7.0, True, None, NAN], pa.string(), ["x", "7", "7.0", "true", None, None]),
    ([None, None], pa.null(), [None, None]),
    (["2024-01-05"], pa.string(), ["2024-01-05"]),
    ([["a"], [], None, ["b", None]], pa.list_(pa.string()), [["a"], [], None, ["b", None]]),
    ([[1], [2.5]], pa.list_(pa.float64()), [[1.0], [2.5]]),
    ([[1], ["a"], []], pa.list_(pa.string()), [["1"], ["a"], []]),
    ([[], None], pa.list_(pa.string()), [[], None]),
])
def test_types(tmp_path, values, type_, expected):
    column = column_of(tmp_path, *values)
    assert (column.type, column.to_pylist()) == (type_, expected)


@pytest.mark.parametrize("values, found", [
    ([{"a": 1}], 'an object: {"a": 1}'), ([["a", 1]], 'a list of unlike values: ["a", 1]'),
    ([[1, True]], "a list of unlike values"), ([[[1]]], "an object or a list in a list: [[1]]"),
    ([[1, {}]], "an object or a list in a list"), ([["a"], "a"], "one value, where other rows have lists"),
    (["a", ["a"]], "a list, where other rows have one value")])
@pytest.mark.parametrize("rows", [json_lines.BLOCK_ROWS, 1])
def test_what_no_column_holds(tmp_path, monkeypatch, values, found, rows):
    monkeypatch.setattr(json_lines, "BLOCK_LETTERS", 1 if rows == 1 else 1 << 20)
    path = write_lines(tmp_path / "rows.jsonl", [{"click": 0, "n": 1}, *({"x": value, "click": 1} for value in values)])
    table = look([path])
    assert table.names == ["click", "n", "x"] and list(table.types) == ["click", "n"]
    with pytest.raises(ClickwiseError) as error:
        table.check(["x"])
    line = len(values) + 1
    assert f"rows.jsonl, line {line}, key 'x'" in str(error.value) and found in str(error.value)
    draft = infer([path])  # the others can be used
    assert draft.guesses["x"].channel == "" and found in draft.guesses["x"].why and draft.guesses["x"].check
    draft.save(tmp_path)


@pytest.mark.parametrize("line, found", [
    ('{"x": 1', "no JSON"), ("[1, 2]", "no object: '[1, 2]'"), ("7", "no object: '7'"), ("x,y", "no JSON"),
    ('{"x": "\\ud83d"}', "no UTF-8"), ('{"x": 1} {"x": 2}', "Extra data"), ("[" * 100_000, "no JSON")])
def test_a_line_that_is_no_object(tmp_path, clickwise, line, found):
    rows = [{"x": index % 5, "click": index % 2} for index in range(60)]
    write_lines(tmp_path / "good.jsonl", rows)
    drafted = clickwise("spec", "infer", "good.jsonl", "--out", "spec")
    assert drafted.code == 0, drafted.err
    write_lines(tmp_path / "good.jsonl", [*rows[:9], line, *rows[9:]])
    wrong = clickwise("spec", "infer", "good.jsonl", "--out", "other")
    assert wrong.code == 1 and "good.jsonl, line 10\n" in wrong.err and found in wrong.err
    words = ("prepare", "table/prepare", "dataset.spec=spec", "out=columns")
    wrong = clickwise(*words)
    assert wrong.code == 1 and "good.jsonl, line 10\n" in wrong.err and found in wrong.err
    done = clickwise(*words, "dataset.max_bad_rows=1")
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "columns/preparation/summary.json").read_text())
    assert sum(summary["rows"].values()) == 60 and list(summary["bad_rows_skipped"].values()) == [1]


def test_a_damaged_end(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl.gz", [{"x": random.random()} for _ in range(5000)])
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ClickwiseError, match="cut off or damaged"):
        look([path])


def test_a_key_that_no_row_has(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [{"city": "a"}])
    with pytest.raises(ClickwiseError, match="no row with the key 'City'(.|\n)*did you mean 'city'"):
        RawFile.open(path, {"City": "text"})


@pytest.mark.parametrize("name, is_it", [("a.jsonl", True), ("a.JSONL.gz", True), ("a.ndjson", True), ("a.json", True),
                                         ("a.csv", False), ("json.csv.gz", False), ("a.parquet", False)])
def test_by_its_name(tmp_path, name, is_it):
    assert is_json_lines(tmp_path / name) == is_it


def test_blocks_are_as_long_as_asked(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [{"x": index} for index in range(100)])
    file = RawFile.open(path, {"x": "integer"})
    assert file.rows() == 100
    assert [len(block) for block in file.blocks(["x"], 30)] == [30, 30, 30, 10]


# ---- one table in three forms


def rows_of_all_types(count=400):
    dice = random.Random(7)
    return {
        "city": [dice.choice(["Oslo", "Röm", "Bonn", None]) for _ in range(count)],
        "code": [dice.choice(["007", "7", "0815"]) for _ in range(count)],
        "user": [dice.choice([2**53 + 1, 2**53 + 2, 5, None]) for _ in range(count)],
        "price": [dice.choice([None, dice.gauss(0, 9)]) for _ in range(count)],
        "member": [dice.choice([True, False, None]) for _ in range(count)],
        "tags": [dice.choice(["a|b", "b", "c|a|b"]) for _ in range(count)],
        "at": [f"2024-01-{1 + index % 28:02} 10:00:00" for index in range(count)],
        "session": [index // 4 for index in range(count)],
        "click": [index * 7 % 3 % 2 for index in range(count)]}


def test_the_same_columns_whatever_the_form(tmp_path, clickwise):
    columns = rows_of_all_types()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    pyarrow.csv.write_csv(pa.table(columns), tmp_path / "rows.csv")
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    write_lines(tmp_path / "rows.jsonl", [{key: value for key, value in row.items() if value is not None}
                                          for row in rows])
    write_lines(tmp_path / "lists.ndjson.gz", [row | {"tags": row["tags"].split("|")} for row in rows])
    found = {}
    for name in ("rows.csv", "rows.parquet", "rows.jsonl", "lists.ndjson.gz"):
        drafted = clickwise("spec", "infer", name, "--categorical", "user", "--out", f"{name}-spec")
        assert drafted.code == 0, drafted.err
        done = clickwise("prepare", "table/prepare", f"dataset.spec={name}-spec", f"out={name}-columns",
                         "dataset.order_by=at")
        assert done.code == 0, done.err
        folder = tmp_path / f"{name}-columns"
        found[name] = {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*"))
                       if file.suffix in (".bin", ".yaml") and file.name != "recipe.yaml"}
    assert len(found["rows.csv"]) > 20
    for name, files in found.items():
        assert files == found["rows.csv"], name


def test_what_reads_columns_says_to_prepare(tmp_path, clickwise):
    write_lines(tmp_path / "rows.jsonl", [{"shop": index % 9, "click": index % 2} for index in range(400)])
    assert clickwise("spec", "infer", "rows.jsonl", "--out", "spec").code == 0
    for words in (("transcode", "spec", "--out", "columns"), ("train", "table/dcnv2", "data.path=spec",
                                                               "data.validation=null", "data.test=train")):
        result = clickwise(*words)
        assert result.code == 1 and "clickwise prepare table/prepare dataset.spec=spec" in result.err, result.err
