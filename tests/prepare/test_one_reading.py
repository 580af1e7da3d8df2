"""A value means the same however a file stores it: files of one table whose types or spellings differ."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from fractions import Fraction

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prepared_columns import read

from clickwise.errors import PrepareError
from clickwise.prepare import run
from clickwise.prepare.infer import infer
from clickwise.prepare.scales import fit_scales, fit_scales_of

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
IDS = {"dtype": "str", "cardinality": "auto"}
NAN = float("nan")
UTC = datetime.UTC


# ---- the cases that were found


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_one_id_two_spellings(clickwise, tmp_path, ending):
    """Training holds 1005000, the test file 1005000.0, as pandas writes ids once one is missing."""
    items = [1000 * (1000 + index % 20) for index in range(120)]
    tables = {"train": pa.table({"click": [index % 2 for index in range(120)], "item": items}),
              "test": pa.table({"click": [index % 2 for index in range(60)],
                                "item": pa.array([None, *map(float, items[1:60])], pa.float64())})}
    for mapping, table in tables.items():
        if ending == "parquet":
            pq.write_table(table, tmp_path / f"{mapping}.parquet")
        else:
            rows = ["click,item", *(f"{row['click']},{'' if row['item'] is None else row['item']}"
                                    for row in table.to_pylist())]
            (tmp_path / f"{mapping}.csv").write_text("\n".join(rows) + "\n")
    assert ending == "parquet" or "1001000.0" in (tmp_path / "test.csv").read_text()
    for words in (("spec", "infer", f"train.{ending}", f"test.{ending}", "--label", "click", "--categorical", "item",
                   "--out", "spec"),
                  ("prepare", "table/prepare", "dataset.spec=spec", "out=columns", "dataset.validation_share=0",
                   "dataset.frequency_limit=1")):
        result = clickwise(*words)
        assert result.code == 0, result.err
    assert (np.fromfile(tmp_path / "columns/test/item.bin", "int8") == 0).tolist() == [True] + 59 * [False]


def test_parquet_int_then_float(clickwise, tmp_path):
    """The type of the first file rounded the numbers of the second."""
    parts = [np.arange(50), np.arange(50) + 0.5]
    for index, part in enumerate(parts):
        pq.write_table(pa.table({"click": np.arange(50) % 2, "x": part}), tmp_path / f"part-{index}.parquet")
    for words in (("spec", "infer", "part-0.parquet", "part-1.parquet", "--numerical", "x", "--out", "spec"),
                  ("prepare", "table/prepare", "dataset.spec=spec", "out=columns", "dataset.test_share=0",
                   "dataset.validation_share=0", "dataset.shuffle=false", "dataset.frequency_limit=1")):
        result = clickwise(*words)
        assert result.code == 0, result.err
    found, numbers = np.fromfile(tmp_path / "columns/train/numerical.bin", "float32"), np.concatenate(parts)
    np.testing.assert_allclose(found, (numbers - numbers.mean()) / numbers.std(), atol=1e-6)


# ---- and their neighbours: the columns of two files of training rows, and of one file of test rows


def d(text):
    return decimal.Decimal(text)


def day(number, hour=0, **options):
    return datetime.datetime(2024, 1, number, hour, **options)


INT32, FLOAT, DECIMAL = pa.int32(), pa.float32(), pa.decimal128(5, 2)
NEIGHBOURS = {  # values of both files, of which the last two are in the second; the raw type; which of them are equal
    "int32_int64": (pa.array([7, 8], INT32), pa.array([7, 9]), "integer", "abac"),
    "int_double": (pa.array([7, 8]), pa.array([7.0, NAN]), "integer", "aba-"),
    "double_int": (pa.array([7.0, NAN]), pa.array([7, 8]), "integer", "a-ab"),
    "float_double": (pa.array([7, 8], FLOAT), pa.array([7.0, 9.0]), "integer", "abac"),
    "int_parts": (pa.array([7, 8]), pa.array([7.0, 7.5]), "text", "abac"),
    "parts_int": (pa.array([7.0, 7.5]), pa.array([7, 8]), "text", "abac"),
    "large_int_parts": (pa.array([2**60, 2**60 + 1]), pa.array([0.5, 0.5]), "text", "abcc"),
    "null_int": (pa.nulls(2), pa.array([7, 8]), "integer", "--ab"),
    "null_double": (pa.nulls(2), pa.array([7.0, 8.0]), "integer", "--ab"),
    "null_text": (pa.nulls(2), pa.array(["a", "b"]), "text", "--ab"),
    "null_date": (pa.nulls(2), pa.array([day(2).date(), day(3).date()]), "time", "--ab"),
    "null_null": (pa.nulls(2), pa.nulls(2), "text", "----"),
    "bool_int": (pa.array([True, False]), pa.array([1, 5]), "integer", "abac"),
    "bool_double": (pa.array([True, False]), pa.array([1.0, 0.0]), "integer", "abab"),
    "bool_text": (pa.array([True, False]), pa.array(["True", "false"]), "boolean", "abab"),
    "truths": (pa.array(["true", "FALSE"]), pa.array(["1", "True"]), "boolean", "abaa"),
    "int_text": (pa.array([7, 8]), pa.array(["7.0", " 8"]), "integer", "abab"),
    "int_words": (pa.array([7, 8]), pa.array(["7", "x"]), "text", "abac"),
    "double_text": (pa.array([7.0, NAN]), pa.array(["7", "8"]), "integer", "a-ab"),
    "zeros": (pa.array(["007", "7"]), pa.array(["7", "7.0"]), "text", "abbc"),
    "decimal_int": (pa.array([d("7.00"), d("8.00")], DECIMAL), pa.array([7, 9]), "integer", "abac"),
    "decimal_scales": (pa.array([d("7.00"), d("8.00")], DECIMAL), pa.array([d("7.0"), d("9.0")]), "integer", "abac"),
    "decimal_parts": (pa.array([d("7.50"), d("8.00")], DECIMAL), pa.array([d("7.5"), d("8.0")]), "text", "abab"),
    "decimal_double": (pa.array([d("7.50"), d("8.00")], DECIMAL), pa.array([7.5, 9.0]), "text", "abac"),
    "large_decimal": (pa.array([d(2**60), d(2**60 + 1)], pa.decimal128(38, 0)), pa.array([2**60, 7]), "integer",
                      "abac"),
    "uint64": (pa.array([2**63 + 1, 2**63 + 2], pa.uint64()), pa.array([2**63 + 1, 7], pa.uint64()), "text", "abac"),
    "uint64_int": (pa.array([2**63 + 1, 7], pa.uint64()), pa.array([7, -7]), "text", "abbc"),
    "date_time": (pa.array([day(2).date(), day(3).date()]), pa.array([day(2), day(2, 1)]), "time", "abac"),
    "time_zones": (pa.array([day(2), day(3)]), pa.array([day(2, tzinfo=UTC), day(3, 1, tzinfo=UTC)],
                                                        pa.timestamp("ms", "Asia/Tokyo")), "time", "abac"),
    "nanoseconds": (pa.array([day(2), day(3)], pa.timestamp("ns")), pa.array([day(2), day(4)]), "time", "abac"),
    "time_text": (pa.array([day(2), day(3)]), pa.array(["2024-01-02", "2024-01-03T01:00+01:00"]), "time", "abab"),
    "clock": (pa.array([datetime.time(1), datetime.time(2)], pa.time32("s")),
              pa.array([datetime.time(1), datetime.time(2, 0, 0, 500000)], pa.time64("us")), "text", "abac"),
    "dictionary": (pa.array(["a", "b"]).dictionary_encode(), pa.array(["a", "c"]), "text", "abac"),
    "dictionary_int": (pa.array([7, 8]).dictionary_encode(), pa.array([7.0, 9.0]), "integer", "abac"),
    "bytes": (pa.array(["é".encode(), b"b"]), pa.array(["é".encode(), b"c"]), "text", "abac"),
    "bytes_text": (pa.array(["é".encode(), b"b"]), pa.array(["é", "c"], pa.large_string()), "text", "abac"),
    "nan": (pa.array([7.0, NAN]), pa.array([NAN, 8.0]), "integer", "a--b"),
}
LISTS = {
    "int32_int64s": (pa.array([[7], [8, 9]], pa.list_(INT32)), pa.array([[9, 7], None]), "integer", "a bc ca -"),
    "int_doubles": (pa.array([[7], [8]]), pa.array([[7.0, NAN], [9.0]]), "integer", "a b a c"),
    "part_ints": (pa.array([[7.5], [8.0]]), pa.array([[8], []], pa.list_(INT32)), "text", "a b b -"),
    "int_texts": (pa.array([[7], [8]]), pa.array([["7.0", "9"], []]), "integer", "a b ac -"),
    "bytes_texts": (pa.array([["é".encode()], [b"b"]]), pa.array([["é"], []]), "text", "a b a -"),
    "null_texts": (pa.nulls(2), pa.array([["a"], ["b", "a"]]), "text", "- - a ba"),
    "null_lists": (pa.array([[None], []], pa.list_(pa.null())), pa.array([[7], [8, 7]]), "integer", "- - a ba"),
    "no_lists": (pa.nulls(2), pa.nulls(2), "text", "- - - -"),
    "fixed_large": (pa.array([[7, 8], [8, 8]], pa.list_(pa.int64(), 2)), pa.array([[7], []], pa.large_list(INT32)),
                    "integer", "ab bb a -"),
}


def prepare(folder, mappings, features, channels, **options):
    """Writes the tables of every mapping as Parquet files and prepares them; their labels are 0 and 1 by turns unless
    there is a column y."""
    sources = {}
    for mapping, tables in mappings.items():
        files = [f"{mapping}-{index}.parquet" for index in range(len(tables))]
        for file, table in zip(files, tables, strict=True):
            rows = len(next(iter(table.values())))
            pq.write_table(pa.table({"y": [index % 2 for index in range(rows)]} | table), folder / file)
        sources[mapping] = [{"type": "parquet", "files": files, "features": ["y", *features]}]
    spec = {"feature_spec": {"y": {"dtype": "float32"}, **features}, "source_spec": sources, "metadata": {},
            "channel_spec": {"label": ["y"], **channels}}
    (folder / "feature_spec.yaml").write_text(json.dumps(spec))
    section = {"name": "table", "spec": str(folder), "frequency_limit": 1, "shuffle": False, "test_share": 0,
               "validation_share": 0, **options}
    engine = {"threads": section.pop("threads", 1)}
    return run({"dataset": section, "engine": engine, "out": str(folder / f"out{engine['threads']}")}, "test.yaml")


def prepare_x(folder, *parts, channel="categorical", entry=IDS, test=None, **options):
    """`prepare` of one column `x`, in as many files; the columns by mapping. The test mapping is the same rows."""
    tables = [{"x": part, "n": np.arange(len(part), dtype=float)} for part in parts]
    tests = tables if test is None else [{"x": test, "n": np.arange(len(test), dtype=float)}]
    mappings = {"train": tables, "test": tests}
    channels = {"numerical": ["n"]}
    channels[channel] = [*channels.get(channel, []), "x"]
    out = prepare(folder, mappings, {"x": entry, "n": {"dtype": "float32"}}, channels, **options)
    return {mapping: read(out, mapping) for mapping in mappings}


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory):
    """The encoding and the columns by mapping of all neighbours; the test rows are all training rows."""
    folder = tmp_path_factory.mktemp("neighbours")
    parts = [{name: case[index] for name, case in {**NEIGHBOURS, **LISTS}.items()} for index in (0, 1)]
    features = dict.fromkeys(NEIGHBOURS, IDS) | dict.fromkeys(LISTS, IDS | {"max_hotness": 3})
    out = prepare(folder, {"train": parts, "test": parts}, features, {"categorical": list(features)})
    return (json.loads((out / "preparation/encoding.json").read_text())["raw"],
            {mapping: read(out, mapping) for mapping in ("train", "test")})


def pattern(values):
    """Equal ids as equal letters, in the order in which they come up, 0 as -."""
    letters = {0: "-"}
    for value in values:
        letters.setdefault(value, chr(ord("a") + len(letters) - 1))
    return [letters[value] for value in values]


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_one_value_has_one_id_in_files_of_different_types(neighbours, name):
    raw, columns = neighbours
    *_, type_, expected = NEIGHBOURS[name]
    assert raw[name]["type"] == type_
    for mapping in columns:
        assert "".join(pattern(columns[mapping][name])) == expected


@pytest.mark.parametrize("name", LISTS)
def test_and_so_in_lists(neighbours, name):
    raw, columns = neighbours
    *_, type_, expected = LISTS[name]
    assert raw[name]["type"] == type_
    for mapping in columns:
        letters = iter(pattern([id_ for row in columns[mapping][name] for id_ in row]))
        rows = ["".join(next(letters) for _ in row) or "-" for row in columns[mapping][name]]
        assert " ".join(rows) == expected


@pytest.mark.parametrize("train, test, expected", [
    (pa.array(["7", "8"]), pa.array(["7.0", "9"]), [1, 0]),
    (pa.array([7, 8]), pa.array([7.0, NAN]), [1, 0]),
    (pa.array([7, 8]), pa.array([day(2), day(3)]), [0, 0]),
    (pa.array([day(2), day(3)]), pa.array([day(2).date(), day(4).date()]), [1, 0]),
    (pa.array([day(2), day(3)]), pa.array([7, 8]), [0, 0]),
    (pa.array([False, True]), pa.array(["TRUE", "1", "0", None]), [2, 2, 1, 0]),
    (pa.array([False, True]), pa.array([d("1.00"), d("0.00")]), [2, 1]),
], ids=["text", "double", "time for int", "date", "int for time", "truths", "decimal truths"])
def test_values_of_another_type_in_the_test_file_alone(tmp_path, train, test, expected):
    assert list(prepare_x(tmp_path, train, test=test)["test"]["x"]) == expected


@pytest.mark.parametrize("parts, words", [
    ([pa.array([{"a": 1}]), pa.array([1])], ["train-0.parquet and ", "train-1.parquet", "struct<a: int64>", "int64"]),
    ([pa.array([1]), pa.array(["1"]), pa.array([{"a": 1}])],
     ["train-0.parquet and ", "train-2.parquet", "int64", "struct<a: int64>"]),
    ([pa.array([[1]]), pa.array([1])], ["train-0.parquet and ", "train-1.parquet", "list<element: int64>", "int64"]),
    ([pa.nulls(1), pa.array([{"a": 1}])], ["train-1.parquet, column 'x'", "struct<a: int64>", "as texts"]),
    ([pa.array([2.0**53 + 2, 7.0])], ["train-0.parquet, column 'x', row 0", "9007199254740994.0", "2^53"]),
    ([pa.array([7, 8]), pa.array([7.0, 2.0**53 + 2])], ["train-1.parquet, column 'x'", "9007199254740994.0", "2^53"]),
    ([pa.array(["7"]), pa.array([2.0**60])], ["train-1.parquet, column 'x'", "1.152921504606847e+18", "2^53"]),
    ([pa.array([2.0**24 + 2, 7.0], FLOAT)], ["train-0.parquet, column 'x', row 0", "16777218.0", "2^24"]),
    ([pa.array([b"\xff\xfe"])], ["train-0.parquet", "not valid UTF8"]),
])
def test_one_message_for_what_cannot_be_read(tmp_path, parts, words):
    with pytest.raises(PrepareError) as error:
        prepare_x(tmp_path, *parts)
    for word in words:
        assert word in str(error.value), str(error.value)


@pytest.mark.parametrize("parts, words", [
    ([pa.array([[7.0, 2.0**53 + 2]])], ["train-0.parquet, column 'x', row 0", "9007199254740994.0", "2^53"]),
    ([pa.array([[7]]), pa.array([[2.0**53 + 2]])], ["train-1.parquet, column 'x'", "9007199254740994.0", "2^53"]),
])
def test_one_message_for_lists_that_cannot_be_read(tmp_path, parts, words):
    with pytest.raises(PrepareError) as error:
        prepare_x(tmp_path, *parts, entry=IDS | {"max_hotness": 3})
    for word in words:
        assert word in str(error.value), str(error.value)


def test_a_float_in_the_test_file_that_may_stand_for_several_ids(tmp_path):
    with pytest.raises(PrepareError, match=r"test-0.parquet, column 'x', row 1\n  found    9007199254740994.0"):
        prepare_x(tmp_path, pa.array([7, 8]), test=pa.array([7.0, 2.0**53 + 2]))


@pytest.mark.parametrize("options", [{}, {"label_is": 1}, {"label_is": "1"}, {"label_is": 1.0}, {"label_is": True},
                                     {"label_above": 0}], ids=str)
@pytest.mark.parametrize("parts", [
    [pa.array([1, 0, 1]), pa.array([0.0, NAN, 1.0])], [pa.array([0.0, NAN, 1.0]), pa.array([1, 0, 1])],
    [pa.array([True, False]), pa.array([1.0, 0.0])]], ids=["int double", "double int", "bool double"])
def test_labels_in_files_of_different_types(tmp_path, parts, options):
    out = prepare(tmp_path, {"train": [{"y": part, "n": np.arange(len(part), dtype=float)} for part in parts]},
                  {"n": {"dtype": "float32"}}, {"numerical": ["n"]}, **options)
    expected = [bool(value) for part in parts for value in part.to_pylist() if value == value]
    assert read(out, "train")["y"].tolist() == expected


def test_label_above_a_number_between_those_of_several_types(tmp_path):
    parts = [pa.array([1, 2, 3]), pa.array([2.5, NAN, 2.0]), pa.array([d("2.01"), d("1.99")])]
    out = prepare(tmp_path, {"train": [{"y": part, "n": np.arange(len(part), dtype=float)} for part in parts]},
                  {"n": {"dtype": "float32"}}, {"numerical": ["n"]}, label_above=2)
    assert read(out, "train")["y"].tolist() == [False, False, True, True, False, True, False]


@pytest.mark.parametrize("parts", [
    [pa.array([5, 1, 3, 2]), pa.array([2.5, 0.5, 9.0, 4.0])],
    [pa.array([5, 1, 3, 2]), pa.array(["2.5", "0.5", "9", "4"])],
    [pa.array([5 * 10**18, 10**18, 3 * 10**18, 2 * 10**18]), pa.array([2.5e18, 0.5e18, 9e18, 4e18])],
    [pa.array([day(5), day(1), day(3), day(2)]), pa.array([day(2, 12), day(1, 1), day(9), day(4)])],
    [pa.array([day(number).date() for number in (5, 1, 3, 2)]), pa.array([day(2, 12), day(1, 1), day(9), day(4)])],
], ids=["int double", "int text", "large", "times", "date time"])
def test_order_by_in_files_of_different_types(tmp_path, parts):
    tables = [{"when": part, "n": np.arange(4.0) + 4 * index} for index, part in enumerate(parts)]
    out = prepare(tmp_path, {"train": tables}, {"n": {"dtype": "float32"}}, {"numerical": ["n"]}, order_by="when",
                  test_share=0.25)
    assert len(read(out, "train")["n"]) == 6
    mean, std = np.mean([1, 2, 3, 4, 5, 7]), np.std([1, 2, 3, 4, 5, 7])
    np.testing.assert_allclose(read(out, "test")["n"], [(0 - mean) / std, (6 - mean) / std], rtol=1e-6)


@pytest.mark.parametrize("last", [pa.array([NAN, 7.0]), pa.array(["nan", "7"])])
def test_order_by_needs_a_number_where_nan_is_none(tmp_path, last):
    tables = [{"when": part, "n": np.arange(2.0)} for part in (pa.array([1, 2]), last)]
    with pytest.raises(PrepareError, match="1 rows without 'when'"):
        prepare(tmp_path, {"train": tables}, {"n": {"dtype": "float32"}}, {"numerical": ["n"]}, order_by="when",
                test_share=0.25)


def test_rows_of_a_user_stay_together_in_files_of_different_types(tmp_path):
    users = list(range(40))
    tables = [{"user": part, "n": np.arange(40.0) + 100 * index}
              for index, part in enumerate((pa.array(users), pa.array(users, pa.float64())))]
    out = prepare(tmp_path, {"train": tables}, {"n": {"dtype": "float32"}, "user": {"dtype": "int64"}},
                  {"numerical": ["n"], "display": ["user"]}, split_by="user", test_share=0.4)
    train, test = (set(read(out, mapping)["user"].tolist()) for mapping in ("train", "test"))
    assert train and test and not train & test and train | test == set(users)


@pytest.mark.parametrize("dtype", ["int64", "str"])
def test_displays_in_files_of_different_types(tmp_path, dtype):
    found = prepare_x(tmp_path, pa.array([7.0, NAN]), pa.array([7, 8]), channel="display", entry={"dtype": dtype},
                      test=pa.array([8, 7]))
    least = np.iinfo(np.int64).min  # of a row without a display
    assert pattern([0 if x == least else x for x in found["train"]["x"].tolist()]) == ["a", "-", "a", "b"]
    assert found["test"]["x"].tolist() == found["train"]["x"][[3, 2]].tolist()


@pytest.mark.parametrize("parts", [[pa.array([day(2), day(3)])], [pa.array([1, 2]), pa.array(["2.5", "x"])]])
def test_numericals_that_are_no_numbers(tmp_path, parts):
    with pytest.raises(PrepareError, match="column 'x', row [03]\n.*\n  expected a finite number"):
        prepare_x(tmp_path, *parts, channel="numerical", entry={"dtype": "float32"})


# ---- `spec infer` reads them the same way

TYPES = {
    "int double": ([7, 8, 9, None], [7.0, NAN, 8.0, 9.0], "number", {"7", "8", "9"}),
    "int parts": ([7, 8, 9, 7], [7.0, 7.5, 8.0, 9.0], "number", {"7", "8", "9", "7.5"}),
    "bool int": ([True, False, True, False], [1, 0, 5, 7], "integer", {"0", "1", "5", "7"}),
    "int text": ([7, 8, 9, 7], ["7", "x", "8", "9"], "text", {"7", "8", "9", "x"}),
    "int texts of numbers": ([7, 8, 9, 7], ["7", "10", "8", "9"], "integer", {"7", "8", "9", "10"}),
    "date time": ([day(2).date()] * 4, [day(2)] * 4, "time", {"2024-01-02", "2024-01-02 00:00:00"}),
    "time int": ([day(2)] * 4, [7] * 4, "text", {"2024-01-02 00:00:00", "7"}),
    "null int": ([None] * 4, [7, 8, 9, 7], "integer", {"7", "8", "9"}),
}


def draft_of(folder, *parts, name="x"):
    files = []
    for index, part in enumerate(parts):
        files.append(folder / f"{len(list(folder.iterdir()))}-{index}.parquet")
        pq.write_table(pa.table({"label": [row % 2 for row in range(len(part))], name: part}), files[-1])
    return infer(files)


@pytest.mark.parametrize("case", TYPES)
def test_a_column_is_of_one_kind_whichever_file_comes_first(tmp_path, case):
    one, other, kind, values = TYPES[case]
    one, other = pa.array(one), pa.array(other)
    drafts = [draft_of(tmp_path, *parts) for parts in ((one, other), (other, one))]
    for draft in drafts:
        assert (draft.table.columns["x"].kind, draft.table.columns["x"].values) == (kind, values)
    assert drafts[0].guesses["x"] == drafts[1].guesses["x"]


@pytest.mark.parametrize("value", [{"a": 1}, [1]], ids=["struct", "list"])
def test_types_that_nothing_holds_are_left_out(tmp_path, value):
    parts = [pa.array([value] * 4), pa.array([1] * 4)]
    for order in (parts, parts[::-1], [*parts, pa.nulls(4)]):
        guess = draft_of(tmp_path, *order).guesses["x"]
        assert guess.channel == "" and "int64" in guess.why and str(parts[0].type).split("<")[0] in guess.why


@pytest.mark.parametrize("name, values, channel", [
    ("item_id", [1005000.0, 1006000.0, NAN, 1005000.0], "categorical"),
    ("item_id", ["1005000.0", "1006000.0", "", "1005000"], "categorical"),
    ("zip", [d("10115.00"), d("99999.00"), None, d("10115.00")], "categorical"),
    ("item_id", [1005000.0, 1006000.5, NAN, 1005000.0], "numerical"),
    ("rating", [1.0, 2.0, 5.0, 1.0], "numerical"),
    ("session_id", [1005000.0, 1006000.0, NAN, 1005000.0], "display"),
    ("item_id", ["1005000.0", "1005000", "1006000", "1006000.0"], "categorical"),
    ("item_id", [1.0, 2.0, 3.0, 4.0], ""),
])
def test_whole_numbers_of_a_column_named_id_are_ids(tmp_path, name, values, channel):
    assert draft_of(tmp_path, pa.array(values), name=name).guesses[name].channel == channel


# ---- what has no id is said


def test_shares_without_an_id_are_said_and_written(tmp_path, capsys):
    train = {"city": ["a", "b", None, "b"], "shop": ["s", "t", "s", "t"], "tags": [["x"], [], ["x", "y"], ["z"]],
             "code": [1, 2, 1, 2], "all": ["k"] * 4}
    test = {"city": ["a", "q", None, "r"], "shop": ["u", "v", "w", None], "tags": [["q"], [], None, ["r", "q"]],
            "code": [7, 8, 9, 7], "all": ["k"] * 4}
    features = dict.fromkeys(train, IDS) | {"tags": IDS | {"max_hotness": 2}}
    out = prepare(tmp_path, {"train": [train], "test": [test]}, features, {"categorical": list(features)},
                  frequency_limits={"code": 2}, hash_buckets={"code": 3})
    shares = json.loads((out / "preparation/summary.json").read_text())["without_an_id"]
    assert shares == {"train": {"city": 0.25, "shop": 0, "tags": 0.25, "code": 0, "all": 0},
                      "test": {"city": 0.75, "shop": 1, "tags": 1, "code": 0, "all": 0}}
    for mapping in shares:  # they are what lies on disk
        for name, column in read(out, mapping).items():
            if name in features:
                empty = [not np.any(value) for value in column]
                assert sum(empty) / 4 == shares[mapping][name]
    said = capsys.readouterr().err
    assert "train: rows without an id (missing, rare or unseen): city 25 %, tags 25 %\n" in said
    assert "test: rows without an id (missing, rare or unseen): shop 100 %, tags 100 %, city 75 %\n" in said
    warned = [line for line in said.splitlines() if line.startswith("warning:")]
    assert [line.split("'")[1] for line in warned] == ["shop", "tags", "code"]
    assert warned[0] == ("warning: test: no value of 'shop' is in the vocabulary: all are missing, rare or not in the "
                         "training rows")


def test_of_many_columns_the_worst_are_said(tmp_path, capsys):
    names = [f"c{index}" for index in range(11)]
    prepare(tmp_path, {"train": [dict.fromkeys(names, ["a", None])]}, dict.fromkeys(names, IDS), {"categorical": names})
    assert "c5 50 %, c6 50 %, and 3 more (summary.json)\n" in capsys.readouterr().err


# ---- sums of numbers


def test_numbers_of_any_size_give_the_same_bytes_for_any_number_of_threads(tmp_path):
    dice = np.random.default_rng(3)
    rows = 300_000  # several row groups, for several threads
    x = dice.choice([-1, 1], rows) * 10.0 ** dice.integers(-300, 301, rows)
    table = {"x": x, "z": x.copy(), "w": dice.normal(1e6, 1e-3, rows),
             "u": dice.choice([1e-300, 0.1, 1e16, -1e16], rows)}
    features, channels = dict.fromkeys(table, {"dtype": "float32"}), {"numerical": list(table)}
    found = []
    for threads in (1, 4):
        out = prepare(tmp_path, {"train": [table]}, features, channels, threads=threads, log_numericals=["z"],
                      test_share=0.1)
        found.append({str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*"))
                      if file.suffix == ".bin" or file.name == "encoding.json"})
    assert len(found[0]) >= 5 and found[0] == found[1]
    columns = read(out, "train")
    assert {name: abs(columns[name].astype(float).std() - 1) < 1e-3 for name in table} == dict.fromkeys(table, True)


def exact_scale(values):
    numbers = [Fraction(value) for value in values if value is not None]
    mean = sum(numbers) / len(numbers)
    return mean, sum((number - mean) ** 2 for number in numbers) / len(numbers)


sizes = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1000, 1000) | st.integers(-9, 9).map(float)


@QUICK
@given(values=st.lists(st.none() | sizes, min_size=1, max_size=30).filter(any) | st.floats(
    1e3, 1e200, allow_subnormal=False).flatmap(lambda around: st.lists(st.floats(
        around, around * (1 + 1e-6)), min_size=1, max_size=20)), tiny=st.booleans())
def test_scales_are_those_of_exact_arithmetic(engine, values, tiny):
    if tiny:  # to numbers without all their digits
        values = [None if value is None else value * 1e-310 for value in values]
    table = engine.materialise(ibis.memtable(pa.table({"x": pa.array(values, pa.float64())})), "numbers")
    found = fit_scales(engine, table, ["x"])["x"]
    assert fit_scales_of({"x": np.array([np.nan if value is None else value for value in values])}) == {"x": found}
    mean, variance = exact_scale(values)
    most = max((abs(Fraction(value)) for value in values if value is not None), default=Fraction(0))
    smallest = Fraction(math.ulp(0.0))
    assert abs(Fraction(found["mean"]) - mean) <= most * Fraction(2) ** -52 + smallest
    error = most * Fraction(2) ** -52 + smallest  # of the mean, and of the distance to it where that is small
    spread = max(abs(Fraction(value) - mean) for value in values if value is not None) + error
    std = Fraction(found["std"])
    bound = spread**2 * Fraction(2) ** -48 + error**2 + 2 * std * smallest  # `std` itself is a float
    assert abs(std**2 - variance) <= bound or (std == 1 and variance <= bound)


def test_sums_do_not_depend_on_the_order(engine):
    dice = np.random.default_rng(5)
    x = dice.choice([-1, 1], 5000) * 10.0 ** dice.integers(-30, 31, 5000)
    found = []
    for _ in range(3):
        table = engine.materialise(ibis.memtable(pa.table({"x": dice.permutation(x)})), "numbers")
        found.append(fit_scales(engine, table, ["x"]))
    assert found[0] == found[1] == found[2] == fit_scales_of({"x": x})
