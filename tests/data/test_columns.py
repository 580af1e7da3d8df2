"""Columns from disk: what is read equals what was written, and what cannot be read says why."""

from __future__ import annotations

import dataclasses
import gzip
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_dataset import small_columns, small_spec, write

from clickwise.data.arrays import RaggedArray
from clickwise.data.columns import read_columns
from clickwise.errors import ClickwiseError, DataError, SpecError
from clickwise.feature_spec import Chunk, Feature, FeatureSpec

TABLE = FeatureSpec(
    {"label": Feature("label", "bool"), "x": Feature("x", "float32"), "y": Feature("y", "float64"),
     "c": Feature("c", "int16", 300), "tags": Feature("tags", "int8", 50, max_hotness=3),
     "pair": Feature("pair", "int32", 9, dimensions=(2,))},
    {}, {"label": ["label"], "numerical": ["y", "x"], "categorical": ["c", "tags"], "history": ["pair"]})


def table(folder, type_: str, files, features=("label", "x", "y", "c", "tags", "pair"), **options) -> FeatureSpec:
    chunk = Chunk(type_, tuple(features), tuple(files), options)
    return dataclasses.replace(TABLE, mappings={"train": (chunk,)}, folder=folder)


def equal(a, b) -> None:
    if isinstance(a, RaggedArray):
        np.testing.assert_array_equal(a.offsets, b.offsets)
        a, b = a.values, b.values
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_split_binary_comes_back_as_it_was_written(tmp_path):
    written = small_columns(1000)
    columns = read_columns(write(small_spec(tmp_path), written), "train")
    assert columns.rows == 1000
    equal(columns.numerical, written.numerical)
    assert columns.arrays.keys() == written.arrays.keys()
    for name, array in written.arrays.items():
        equal(columns.arrays[name], array)


def test_one_hot_ids_are_mapped_not_copied(tmp_path):
    spec = write(small_spec(tmp_path), small_columns(100))
    column = read_columns(spec, "train").arrays["large"]
    with open(tmp_path / "train" / "large.bin", "r+b") as file:
        file.write(np.int32(77).tobytes())
    assert column[0] == 77
    assert not column.flags.writeable


def test_only_the_channels_asked_for_are_opened(tmp_path):
    spec = write(small_spec(tmp_path), small_columns(100))
    (tmp_path / "train" / "tags.values.bin").unlink()
    columns = read_columns(spec, "train", channels=["numerical", "label"])
    assert columns.arrays.keys() == {"label"} and columns.numerical.shape == (100, 2)


def test_several_files_are_rows_one_after_another(tmp_path):
    np.arange(5, dtype="int8").tofile(tmp_path / "b")
    np.arange(5, 9, dtype="int8").tofile(tmp_path / "a")
    spec = FeatureSpec({"c": Feature("c", "int8", 9)}, {"all": (Chunk("split_binary", ("c",), ("b", "a")),)},
                       {"categorical": ["c"]}, {}, tmp_path)
    np.testing.assert_array_equal(read_columns(spec, "all").arrays["c"], np.arange(9))


def test_lists_of_fixed_length_are_a_matrix(tmp_path):
    np.arange(12, dtype="int32").tofile(tmp_path / "h.bin")
    spec = FeatureSpec({"h": Feature("h", "int32", 12, dimensions=(3,))},
                       {"all": (Chunk("split_binary", ("h",), ("h.bin",)),)}, {"history": ["h"]}, {}, tmp_path)
    assert read_columns(spec, "all").arrays["h"].shape == (4, 3)


def truncate(path, count: int) -> None:
    os.truncate(path, path.stat().st_size - count)


DAMAGE = {  # what is wrong: (how it comes about, the file blamed, words of the message)
    "cut inside a row": (lambda folder: truncate(folder / "large.bin", 3), "large.bin", "397 bytes, 99.25 rows"),
    "cut between rows": (lambda folder: truncate(folder / "large.bin", 40), "large.bin", "90 rows", "100 rows"),
    "numericals cut": (lambda folder: truncate(folder / "numerical.bin", 2), "numerical.bin", "multiple of 4", "2 ×"),
    "missing": (lambda folder: (folder / "label.bin").unlink(), "label.bin", "no such file"),
    "empty": (lambda folder: (folder / "label.bin").write_bytes(b""), "label.bin", "an empty file"),
    "a folder": (lambda folder: [(folder / "label.bin").unlink(), (folder / "label.bin").mkdir()], "label.bin",
                 "a folder"),
    "values cut": (lambda folder: truncate(folder / "tags.values.bin", 2), "tags.offsets.bin", "number of values"),
    "offsets cut inside": (lambda folder: truncate(folder / "tags.offsets.bin", 4), "tags.offsets.bin", "8 bytes"),
    "offsets cut": (lambda folder: truncate(folder / "tags.offsets.bin", 80), "tags.offsets.bin", "offsets from 0"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_are_named(tmp_path, kind):
    damage, file, *words = DAMAGE[kind]
    spec = write(small_spec(tmp_path), small_columns(100))
    damage(tmp_path / "train")
    with pytest.raises((SpecError, DataError)) as caught:
        read_columns(spec, "train")
    assert str(caught.value).startswith(str(tmp_path / "train" / file))
    for word in words:
        assert word in str(caught.value)


def test_a_type_that_is_no_columns(tmp_path):
    with pytest.raises(DataError, match="'tfrecord'"):
        read_columns(table(tmp_path, "tfrecord", ["a"]), "train")


# ---- parquet and csv


def expect_table(columns, repeat: int = 1) -> None:
    def times(values, dtype):
        return np.concatenate([np.array(values, dtype)] * repeat)

    assert columns.rows == 3 * repeat
    equal(columns.arrays["label"], times([1, 0, 1], "bool"))
    equal(columns.arrays["c"], times([299, 0, 7], "int16"))
    assert [columns.arrays["tags"][row].tolist() for row in range(3 * repeat)] == [[3, 49], [], [5]] * repeat
    assert columns.arrays["tags"].values.dtype == "int8"
    equal(columns.arrays["pair"], times([[1, 2], [3, 4], [5, 6]], "int32"))
    np.testing.assert_array_equal(columns.numerical, times([[-1, 0.5], [0, 1.5], [2, 2.5]], "float64"))


def parquet_table(**changes) -> pa.Table:
    columns = {"pair": [[1, 2], [3, 4], [5, 6]], "tags": [[3, 49], [], [5]], "c": [299, 0, 7], "y": [-1.0, 0.0, 2.0],
               "x": [0.5, 1.5, 2.5], "label": [1, 0, 1], "other": ["a", "b", "c"]}
    return pa.table({**columns, **changes})


def test_parquet(tmp_path):
    for name in ("0.parquet", "1.parquet"):
        pq.write_table(parquet_table(), tmp_path / name, row_group_size=2)
    expect_table(read_columns(table(tmp_path, "parquet", ["0.parquet", "1.parquet"]), "train"), repeat=2)


def test_parquet_null_list_is_an_empty_list(tmp_path):
    pq.write_table(parquet_table(tags=[[3, 49], None, [5]]), tmp_path / "0.parquet")
    expect_table(read_columns(table(tmp_path, "parquet", ["0.parquet"]), "train"))


def test_parquet_fixed_size_lists_and_dictionaries(tmp_path):
    pairs = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32(), 2))
    pq.write_table(parquet_table(pair=pairs, c=pa.array([299, 0, 7]).dictionary_encode()), tmp_path / "0.parquet")
    expect_table(read_columns(table(tmp_path, "parquet", ["0.parquet"]), "train"))


PARQUET_ERRORS = {
    "column missing": ({"c": None, "cc": [1, 2, 3]}, "no column 'c'", "did you mean 'cc'"),
    "text": ({"c": ["a", "b", "c"]}, "'c'", "string"),
    "null": ({"c": [1, None, 3]}, "row 1", "missing value"),
    "id too wide for the type": ({"c": [1, 2, 40000]}, "row 2", "40000", "int16"),
    "fraction": ({"c": [1.0, 2.5, 3.0]}, "row 1", "2.5"),
    "label 2": ({"label": [0, 1, 2]}, "row 2", "2", "0 or 1"),
    "list where one id belongs": ({"c": [[1], [2, 3], [4]]}, "row 1", "a list of 2", "max_hotness"),
    "list of another length": ({"pair": [[1, 2], [3], [4, 5]]}, "row 1", "a list of 1", "a list of 2 (dimensions)"),
    "value in a list too wide": ({"tags": [[1], [], [2, 300]]}, "row 2", "300", "int8"),
    "float beyond the type": ({"x": [1.0, 1e300, 2.0]}, "row 1", "1e+300", "float32"),
}


@pytest.mark.parametrize("kind", PARQUET_ERRORS)
def test_parquet_errors(tmp_path, kind):
    changes, *words = PARQUET_ERRORS[kind]
    content = parquet_table(**{name: values or [0, 0, 0] for name, values in changes.items()})
    content = content.drop_columns([name for name, values in changes.items() if values is None])
    pq.write_table(content, tmp_path / "0.parquet")
    with pytest.raises(ClickwiseError) as caught:
        read_columns(table(tmp_path, "parquet", ["0.parquet"]), "train")
    assert str(tmp_path / "0.parquet") in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_parquet_that_is_none(tmp_path):
    (tmp_path / "0.parquet").write_text("label,x\n1,2\n")
    with pytest.raises(DataError, match="0.parquet"):
        read_columns(table(tmp_path, "parquet", ["0.parquet"]), "train")


LINES = ["1,0.5,-1,299,3|49,1|2", "0,1.5,0,0,,3|4", "1,2.5,2,7,5,5|6"]


def test_csv_without_header(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join(LINES) + "\n")
    (tmp_path / "b.csv").write_text("\r\n".join(LINES))
    expect_table(read_columns(table(tmp_path, "csv", ["a.csv", "b.csv"]), "train"), repeat=2)


def test_csv_with_header_in_another_order(tmp_path):
    lines = ["other,pair,tags,c,y,x,label", "a,1|2,3|49,299,-1,0.5,1.0", "b,3|4,,0,0,1.5,0", "c,5|6,5,7,2,2.5,1"]
    (tmp_path / "a.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    expect_table(read_columns(table(tmp_path, "csv", ["a.csv"]), "train"))


def test_csv_gzip_and_other_delimiters(tmp_path):
    text = "\n".join(LINES).replace(",", "\t").replace("|", " ")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    spec = table(tmp_path, "csv", ["a.csv.gz"], delimiter="\t", list_delimiter=" ", header=False)
    expect_table(read_columns(spec, "train"))


CSV_ERRORS = {
    "wrong delimiter": ([line.replace(",", "\t") for line in LINES], "line 1", "1 field(s)", "set delimiter: '\\t'"),
    "field too many": (["1,0.5,-1,299,3|49,1|2,9"], "line 1", "7 field(s)", "6: label, x"),
    "later row too short": ([*LINES, "", "1,2"], f"line {len(LINES) + 2}\n", "2 field(s): '1,2'", "6: label"),
    "word for an id": ([LINES[0], LINES[1].replace(",0,0,", ",0,abc,")], "column 'c', line 2\n", "'abc'",
                       "an integer"),
    "word in a list": ([LINES[0], LINES[1].replace("3|4", "3|x")], "row 1", "'x'", "'pair'"),
    "nothing for an id": ([LINES[0], LINES[1].replace(",0,0,", ",0,,")], "row 1", "'c'", "missing value"),
    "label 2": (["2" + LINES[0][1:]], "row 0", "0 or 1"),
    "label a word": ([LINES[0], "yes" + LINES[1][1:]], "row 1", "'yes'", "0 or 1"),
    "header misspelt": (["label,x,y,c,tag,pair", *LINES], "a.csv"),
    "word for a number, behind a header and an empty line": (
        ["label,x,y,c,tags,pair", "", *LINES, LINES[0].replace(LINES[0].split(",")[1], "1 or 2", 1)],
        f"column 'x', line {len(LINES) + 3}\n", "'1 or 2'", "a number"),
    "empty": ([], "line 1\n", "an empty file"),
}


@pytest.mark.parametrize("kind", CSV_ERRORS)
def test_csv_errors(tmp_path, kind):
    lines, *words = CSV_ERRORS[kind]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(ClickwiseError) as caught:
        read_columns(table(tmp_path, "csv", ["a.csv"]), "train")
    assert str(tmp_path / "a.csv") in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_csv_header_asked_for_but_misspelt(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join(["label,x,y,c,tag,pair", *LINES]))
    with pytest.raises(DataError, match="did you mean 'tag'"):
        read_columns(table(tmp_path, "csv", ["a.csv"], header=True), "train")


@pytest.mark.parametrize("type_", ["csv", "parquet"])
def test_folder_and_missing_file_of_tables(tmp_path, type_):
    (tmp_path / "0").mkdir()
    with pytest.raises(DataError, match="a folder"):
        read_columns(table(tmp_path, type_, ["0"]), "train")
    with pytest.raises(DataError, match="no such file"):
        read_columns(table(tmp_path, type_, ["1"]), "train")
