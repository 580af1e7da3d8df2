"""A small table is prepared in memory, one of any size by the engine: the same bytes, the same words for mistakes."""

from __future__ import annotations

import datetime
import decimal
import json
import random

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from clickwise.errors import ClickwiseError
from clickwise.prepare import run
from clickwise.prepare.table.in_engine import RowsInEngine
from clickwise.prepare.table.in_memory import RowsInMemory

ROWS = 400
UTC = datetime.UTC


def column(values):
    """ROWS values by a die; what a function gives, or one of a list."""
    dice = random.Random(str(values))
    return [values(dice, index) if callable(values) else dice.choice(values) for index in range(ROWS)]


def lists(dice, index):
    return dice.choice([None, [], [f"t{dice.randrange(9)}" for _ in range(dice.randrange(4))]])


# Of each: the values, its feature, its channel, and settings. "parquet" columns cannot be written as text.
COLUMNS = {
    "float": (lambda dice, index: dice.choice([None, round(dice.gauss(0, 9), 3), 0.0, -0.0]), "float32", "numerical"),
    "tail": (lambda dice, index: dice.expovariate(1) ** 9, "float64", "numerical"),
    "constant": ([3], "float32", "numerical"),
    "empty": ([None], "float32", "numerical"),
    "words": (["NA", " 7", "8.5 ", "-1e3", "null", "12"], "float32", "numerical"),
    "huge": ([1e300, -1e300, 1e-310, None], "float64", "numerical"),
    "whole": ([7, 8, "7.0", " 9 ", "", "-4"], "str", "categorical"),
    "digits": (["12", "3", "-4", "123456789012345678"], "str", "categorical"),
    "large": (["9223372036854775807", "9223372036854775808", "5"], "str", "categorical"),
    "zeros": (["007", "7", "8"], "str", "categorical"),
    "text": (["Oslo", " Oslo", "São Paulo", "", "NA", "x" * 70, "\U0001f600"], "str", "categorical"),
    "rare": (lambda dice, index: f"v{int(dice.expovariate(1) ** 4)}", "str", "categorical"),
    "truth": (["true", "False", "1", ""], "str", "categorical"),
    "day": (["2024-01-05", "2024-01-05 10:00", "2024-01-05T10:00:00.5Z", ""], "str", "categorical"),
    "no day": (["2024-01-05", "2024-02-31"], "str", "categorical"),
    "ids": (lambda dice, index: dice.randrange(90), "int32", "categorical"),
    "parted": (["a|b", "b||a", "", "c", "a|a|a"], "str", "multi_hot"),
    "parted numbers": (["1|2", "2.0|x", "", "3"], "str", "multi_hot"),
    "session": (["s1", "s2", "", "s3"], "str", "display"),
    "place": ([1, 2, None, 5], "int64", "item"),
    "owner": (["a", "b", ""], "str", "item"),
}
PARQUET = {
    "lists": (lists, "str", "multi_hot", pa.list_(pa.string())),
    "lists of numbers": (lambda dice, index: dice.choice([None, [1, 2], [2, None], []]), "int64", "multi_hot",
                         pa.list_(pa.int64())),
    "float ids": ([7.0, None, 8.0, float("nan")], "str", "categorical", pa.float64()),
    "parts": ([7.5, None, 8.0, float("inf")], "str", "categorical", pa.float64()),
    "decimal": ([decimal.Decimal("1.50"), decimal.Decimal("2.00"), None], "str", "categorical", pa.decimal128(9, 2)),
    "unsigned": ([2**64 - 1, 5, None], "str", "categorical", pa.uint64()),
    "bool": ([True, False, None], "str", "categorical", pa.bool_()),
    "date": ([datetime.date(2024, 1, 5), None], "str", "categorical", pa.date32()),
    "zoned": ([datetime.datetime(2024, 1, 5, 10, tzinfo=UTC), None], "str", "categorical", pa.timestamp("us", "UTC")),
    "clock": ([datetime.time(10, 5), None], "str", "categorical", pa.time64("us")),
    "coded": (["a", "b", None], "str", "categorical", pa.dictionary(pa.int8(), pa.string())),
    "bytes": ([b"a", b"\xc3\xa9", None], "str", "categorical", pa.binary()),
    "price": ([decimal.Decimal("1.50"), None], "float64", "numerical", pa.decimal128(9, 2)),
    "session": ([1, 2, None, 5], "int64", "display", pa.int64()),
    "truths": ([True, False, None], "float32", "numerical", pa.bool_()),
    "small": ([1.5, float("nan"), None], "float32", "numerical", pa.float32()),
}
LABEL = {"click": (["0", "1", "1", ""], "bool", "label")}


def write(folder, columns, rows=None):
    """The columns as rows.csv, or with types of Parquet as rows.parquet, and their Feature Spec."""
    folder.mkdir(parents=True)
    typed = any(len(entry) == 4 for entry in columns.values())
    table = pa.table({name: pa.array([None if value == "" else value for value in column(entry[0])], entry[3])
                      if len(entry) == 4 else pa.array(["" if value is None else str(value)
                                                        for value in column(entry[0])]).cast(pa.string())
                      for name, entry in columns.items()})
    if typed:
        parquet.write_table(table, folder / "rows.parquet")
    else:
        csv.write_csv(table, folder / "rows.csv")
    channels, features = {}, {}
    for name, (_, dtype, channel, *_) in columns.items():
        features[name] = {"dtype": dtype} | ({"cardinality": "auto"} if channel in ("categorical", "multi_hot")
                                             and dtype == "str" else {"cardinality": 100} if channel == "categorical"
                                             else {})
        features[name] |= {"max_hotness": 3, "cardinality": "auto"} if channel == "multi_hot" else {}
        channels.setdefault("categorical" if channel == "multi_hot" else channel, []).append(name)
    kind = "parquet" if typed else "csv"
    (folder / "feature_spec.yaml").write_text(json.dumps({
        "feature_spec": features, "channel_spec": channels, "metadata": {},
        "source_spec": {"train": [{"type": kind, "features": list(columns), "files": [f"rows.{kind}"]}]}}))


def prepared(folder, tables, monkeypatch, **settings):
    """Every byte of the columns, what encoding.json and summary.json say, the vocabularies and examples; or the error.
    Tables on disk are the engine's."""
    used = []
    for kind in (RowsInEngine, RowsInMemory):
        monkeypatch.setattr(kind, "write", lambda self, *arguments, _kind=kind, _write=kind.write, **names:
                            used.append(_kind) or _write(self, *arguments, **names))
    out = folder.parent / f"out_{tables}"
    section = {"name": "table", "spec": str(folder), "frequency_limit": 2, "bins": 4, **settings}
    try:
        run({"dataset": section, "engine": {"threads": 1, "tables": tables}, "out": str(out)}, "test.yaml")
    except ClickwiseError as error:
        return str(error)
    assert used == [RowsInMemory if tables == "memory" else RowsInEngine]
    summary = json.loads((out / "preparation/summary.json").read_text())
    found = {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*"))
             if file.suffix in (".bin", ".vocabulary") or file.name in ("encoding.json", "feature_spec.yaml",
                                                                        "columns.json")}
    found |= {str(file.relative_to(out)): parquet.read_table(file).to_pydict()
              for file in sorted(out.rglob("*.parquet"))}
    return found | {key: value for key, value in summary.items() if key not in ("seconds", "inputs", "fingerprint")}


def same(folder, **settings):
    """What both find, which must be the same."""
    found = []
    for tables in ("memory", "disk"):
        with pytest.MonkeyPatch.context() as patch:
            found.append(prepared(folder, tables, patch, **settings))
    memory, disk = found
    assert type(memory) is type(disk), found
    if isinstance(memory, str):
        assert memory == disk
    else:
        assert memory.keys() == disk.keys()
        assert not [key for key in memory if repr(memory[key]) != repr(disk[key])]
    return memory


@pytest.mark.parametrize(("columns", "settings"), [
    (COLUMNS, {}),
    (COLUMNS, {"split_by": "rare", "hash_buckets": {"rare": 5, "text": 3}, "hash_only": ["text"], "bins": 0}),
    (COLUMNS, {"shuffle": False, "log_numericals": ["float"], "frequency_limit": 0, "validation_share": 0}),
    (PARQUET | {"click": (["yes", "no", None], "str", "label", pa.string())}, {"label_is": "yes"}),
    (PARQUET | {"click": ([1, 5, None, 9], "int64", "label", pa.int64())}, {"label_above": 4, "test_share": 0.5}),
    ({"x": COLUMNS["float"], "when": (lambda dice, index: f"2024-01-{1 + dice.randrange(28):02}", "str", "item")},
     {"order_by": "when"}),
    ({"x": COLUMNS["float"], "when": (lambda dice, index: dice.randrange(99), "int64", "item")}, {"order_by": "when"}),
], ids=["all", "hashed", "plain", "parquet", "above", "by time", "by number"])
def test_the_same_bytes(tmp_path, columns, settings):
    write(tmp_path / "raw", ({} if "click" in columns else LABEL) | columns)
    found = same(tmp_path / "raw", **settings)
    assert isinstance(found, dict), found
    assert sum(found["rows"].values()) + found["rows_without_label"] == ROWS and found["rows_without_label"] > 0


@pytest.mark.parametrize(("change", "settings", "words"), [
    ({"float": (["1", "two"], "float32", "numerical")}, {}, "'two'"),
    ({"float": (["1", "inf"], "float32", "numerical")}, {}, "a finite number"),
    ({"place": (["1", "1.5"], "int64", "display")}, {}, "a whole number"),
    ({"parted": (["a|b|c|d", "a"], "str", "multi_hot")}, {}, "at most 3 values"),
    ({"click": (["0", "2"], "bool", "label")}, {}, "label_is"),
    ({"click": (["1"], "bool", "label")}, {}, "labels of both kinds"),
    ({"click": ([""], "bool", "label")}, {}, "no label"),
    ({}, {"order_by": "text"}, "without 'text'"),
    ({}, {"test_share": 0.999, "validation_share": 0.0001}, "no rows for the mapping"),
    ({"large": ([2.0**60, 5.0], "str", "categorical", pa.float64())}, {}, "a float stands for several"),
    ({"text": ([["a"], []], "str", "categorical", pa.list_(pa.string()))}, {}, "a list column"),
], ids=["word", "infinite", "part", "long list", "label", "one label", "no label", "order", "share", "float", "list"])
def test_the_same_words_for_mistakes(tmp_path, change, settings, words):
    names = {name.split(" ")[0] for name in change} | {"float", "place", "text"}
    columns = LABEL | {name: COLUMNS[name] for name in names & set(COLUMNS)} | change
    if any(len(entry) == 4 for entry in columns.values()):
        columns = {name: entry if len(entry) == 4 else (*entry, pa.string()) for name, entry in columns.items()
                   if name in change or name == "click"}
    write(tmp_path / "raw", columns)
    found = same(tmp_path / "raw", **settings)
    assert isinstance(found, str) and words in found, found
