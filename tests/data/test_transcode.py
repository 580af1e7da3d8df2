"""Transcode: the same rows in the narrowest types, in one piece or not at all."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_dataset import CHANNELS, small_columns, small_spec, write

from clickwise.data.arrays import RaggedArray
from clickwise.data.check import check_columns
from clickwise.data.columns import Columns, read_columns
from clickwise.data.transcode import transcode
from clickwise.errors import ClickwiseError, DataError, SpecError, UsageError
from clickwise.feature_spec import AUTO, Chunk, Feature, FeatureSpec

AUTOS = {
    "label": Feature("label", "bool"), "n0": Feature("n0", "float32"), "n1": Feature("n1", "float64"),
    "small": Feature("small", "int64", AUTO), "large": Feature("large", "int64", 2_000_000),
    "tags": Feature("tags", "int64", AUTO, max_hotness=4, extra={"alpha": 1.5}), "display": Feature("display", "int32"),
}


def cells(columns: Columns) -> dict[str, list]:
    """The columns as lists of plain values, one for each row."""
    values = {name: [array[row].tolist() for row in range(columns.rows)] for name, array in columns.arrays.items()}
    return {**values, "n1": columns.numerical[:, 0].tolist(), "n0": columns.numerical[:, 1].tolist()}


def write_source(folder, type_: str, columns: Columns, mapping: str, pieces, files: int = 1) -> tuple[Chunk, ...]:
    """The columns as csv or parquet, in chunks of the features `pieces`, each cut into `files` files."""
    values, chunks = cells(columns), []
    (folder / mapping).mkdir(parents=True, exist_ok=True)
    for index, names in enumerate(pieces):
        cuts = np.array_split(np.arange(columns.rows), files)
        paths = [f"{mapping}/{index}-{number}.{type_}" for number in range(files)]
        for path, rows in zip(paths, cuts, strict=True):
            if type_ == "parquet":
                pq.write_table(pa.table({name: [values[name][row] for row in rows] for name in names}), folder / path,
                               row_group_size=13)
            else:
                lines = [",".join(_text(values[name][row]) for name in names) for row in rows]
                (folder / path).write_text("\n".join(lines) + "\n")
        chunks.append(Chunk(type_, tuple(names), tuple(paths)))
    return tuple(chunks)


def _text(value) -> str:
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)


def equal(found: Columns, expected: Columns) -> None:
    assert found.rows == expected.rows
    np.testing.assert_array_equal(found.numerical, expected.numerical)
    for name, array in expected.arrays.items():
        got = found.arrays[name]
        if isinstance(array, RaggedArray):
            np.testing.assert_array_equal(got.offsets, array.offsets)
            got, array = got.values, array.values
        np.testing.assert_array_equal(got, array)


ONE = [["label", "n0", "small", "large", "tags", "n1", "display"]]
SPLIT = [["tags", "n0"], ["label", "large"], ["n1", "small", "display"]]  # the numericals in two chunks


@pytest.mark.parametrize("type_", ["csv", "parquet"])
@pytest.mark.parametrize("chunk_rows", [10, 1 << 18])
@pytest.mark.parametrize("pieces", [ONE, SPLIT], ids=["one chunk", "split columns"])
def test_rows_survive(tmp_path, type_, chunk_rows, pieces):
    data = {"train": small_columns(107), "test": small_columns(31, seed=1)}
    chunks = {mapping: write_source(tmp_path, type_, columns, mapping, pieces, files=2)
              for mapping, columns in data.items()}
    source = FeatureSpec(AUTOS, chunks, CHANNELS, {"made by": "a test"}, tmp_path)
    source.save(tmp_path)
    spec = transcode(tmp_path, tmp_path / "out", chunk_rows=chunk_rows)
    assert FeatureSpec.load(tmp_path / "out") == spec
    for mapping, columns in data.items():
        check_columns(spec, mapping)
        equal(read_columns(spec, mapping), columns)
    greatest = max(int(columns.arrays["small"].max()) for columns in data.values())
    assert spec.features["small"] == Feature("small", "int8", greatest + 1)
    assert spec.features["large"] == Feature("large", "int32", 2_000_000)
    assert spec.features["tags"].dtype == "int16" and spec.features["tags"].extra == {"alpha": 1.5}
    assert spec.features["n0"].dtype == spec.features["n1"].dtype == "float32"  # declared float32 and float64
    assert spec.features["display"].dtype == "int32"
    assert (spec.channels, spec.metadata) == (CHANNELS, {"made by": "a test"})
    assert not [path for path in (tmp_path / "out").rglob(".*") if path.name != ".checked.json"]


def test_split_binary_is_narrowed(tmp_path):
    columns = small_columns(50)
    columns.arrays["large"] = columns.arrays["large"].astype("int64")
    wide = {**small_spec().features, "large": Feature("large", "int64", 1_000_000)}
    source = write(dataclasses.replace(small_spec(tmp_path / "in"), features=wide), columns)
    spec = transcode(source, tmp_path / "out", chunk_rows=7)
    equal(read_columns(spec, "train"), columns)
    assert spec.features["large"].dtype == "int32" and read_columns(spec, "train").numerical.dtype == "float16"


@pytest.mark.parametrize(("declared", "written"), [
    (("float16", "float16"), "float16"), (("float32", "float32"), "float32"), (("float64", "float64"), "float32"),
    (("float16", "float32"), "float32"), (("int64", "float32"), "float32")])
def test_numericals_keep_the_type_that_is_declared(tmp_path, declared, written):
    features = {name: Feature(name, dtype) for name, dtype in zip(("x1", "x2"), declared, strict=True)}
    spec = transcode(source_with(tmp_path, "3,0.1\n-4,2.5\n", features), tmp_path / "out")
    assert [spec.features[name].dtype for name in features] == [written] * 2
    expected = np.array([[3, 0.1], [-4, 2.5]]).astype(written)
    np.testing.assert_array_equal(read_columns(spec, "train").numerical, expected)


def test_a_mapping_without_the_display(tmp_path):
    columns = small_columns(20)
    pieces = [[name for name in ONE[0] if name != "display"]]
    chunks = {"train": write_source(tmp_path, "csv", columns, "train", pieces),
              "test": write_source(tmp_path, "csv", columns, "test", ONE)}
    spec = transcode(FeatureSpec(AUTOS, chunks, CHANNELS, {}, tmp_path), tmp_path / "out")
    assert "display" not in read_columns(spec, "train").arrays
    equal(read_columns(spec, "test"), columns)


def source_with(folder, text: str, features) -> FeatureSpec:
    (folder / "a.csv").write_text(text)
    channels = {"categorical": [n for n in features if n.startswith("c")], "label": [n for n in features if n == "y"],
                "numerical": [n for n in features if n.startswith("x")]}
    return FeatureSpec(features, {"train": (Chunk("csv", tuple(features), ("a.csv",)),)}, channels, {}, folder)


ERRORS = {
    "declared cardinality too small": ("1\n5\n9\n", {"c": Feature("c", "int64", 9)}, ("row 2", "id 9", "0 … 8")),
    "negative id": ("1\n-5\n", {"c": Feature("c", "int64", AUTO)}, ("row 1", "-5")),
    "list longer than max_hotness": ("1\n1|2|3\n", {"c": Feature("c", "int64", AUTO, max_hotness=2)},
                                     ("row 1", "a list of 3", "max_hotness")),
    "label 2": ("1\n2\n", {"y": Feature("y", "int8")}, ("row 1", "label 2")),
    "not finite": ("1\n-inf\n", {"x": Feature("x", "float32")}, ("row 1", "'x'", "-inf")),
    "missing": ("1\nnan\n", {"x": Feature("x", "float32")}, ("row 1", "'x'", "missing")),
    "too great for float16": ("1\n70000\n", {"x": Feature("x", "float16")}, ("row 1", "70000", "float16")),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_bad_values_stop_and_leave_nothing(tmp_path, kind):
    text, features, words = ERRORS[kind]
    with pytest.raises(ClickwiseError) as caught:
        transcode(source_with(tmp_path, text, features), tmp_path / "out")
    assert str(tmp_path / "a.csv") in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_an_id_beyond_its_declared_type_is_found_not_wrapped(tmp_path):
    source = source_with(tmp_path, "1\n261\n", {"c": Feature("c", "int8", 100)})  # 261 would wrap to 5
    with pytest.raises(SpecError, match="id 261"):
        transcode(source, tmp_path / "out")


def test_chunks_of_different_length(tmp_path):
    (tmp_path / "a.csv").write_text("1\n2\n3\n")
    (tmp_path / "b.csv").write_text("1\n2\n")
    features = {"c": Feature("c", "int64", AUTO), "d": Feature("d", "int64", AUTO)}
    chunks = (Chunk("csv", ("c",), ("a.csv",)), Chunk("csv", ("d",), ("b.csv",)))
    source = FeatureSpec(features, {"train": chunks}, {"categorical": ["c", "d"]}, {}, tmp_path)
    with pytest.raises(SpecError, match=r"b.csv\n.*2 rows\n.*3 rows"):
        transcode(source, tmp_path / "out")


def test_a_second_run_replaces_the_first_and_a_failed_one_does_not(tmp_path):
    features = {"c": Feature("c", "int64", AUTO)}
    for text, count in (("1\n2\n", 2), ("1\n2\n3\n", 3)):
        spec = transcode(source_with(tmp_path, text, features), tmp_path / "out")
        assert read_columns(spec, "train").rows == count
    with pytest.raises(DataError):
        transcode(source_with(tmp_path, "1\nx\n", features), tmp_path / "out")
    assert read_columns(FeatureSpec.load(tmp_path / "out"), "train").rows == 3


def test_a_full_disk_leaves_the_earlier_output_whole(tmp_path, monkeypatch):
    features = {"c": Feature("c", "int64", AUTO)}
    transcode(source_with(tmp_path, "1\n2\n", features), tmp_path / "out")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clickwise.data.transcode._ColumnWriter.write", full)
    with pytest.raises(OSError, match="No space"):
        transcode(source_with(tmp_path, "1\n2\n3\n", features), tmp_path / "out")
    assert read_columns(FeatureSpec.load(tmp_path / "out"), "train").rows == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "out"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_nothing_but_an_earlier_output_is_replaced(tmp_path):
    source = source_with(tmp_path / "in" if (tmp_path / "in").mkdir() else tmp_path / "in", "1\n",
                         {"c": Feature("c", "int64", AUTO)})
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "today.txt").write_text("dear")
    (tmp_path / "note").write_text("x")
    for out in ("in", ".", "diary", "note"):
        with pytest.raises(UsageError, match="--out"):
            transcode(source, tmp_path / out)
    assert (tmp_path / "diary" / "today.txt").exists() and (tmp_path / "in" / "a.csv").exists()


def test_a_spec_without_data(tmp_path):
    source = FeatureSpec({"c": Feature("c", "int8", 5)}, {}, {"categorical": ["c"]}, {}, tmp_path / "in")
    with pytest.raises(SpecError, match="no mapping"):
        transcode(source, tmp_path / "out")


def test_the_command_says_what_is_wrong_in_one_message(clickwise, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    spec = source_with(folder, "1;0.5\n2;0.7\n", {"c": Feature("c", "int64", AUTO), "x": Feature("x", "float32")})
    spec.save(folder)
    wrong = clickwise("transcode", folder, "--out", tmp_path / "out")
    assert wrong.code == 1 and "Traceback" not in wrong.err and "set delimiter: ';'" in wrong.err
    assert not (tmp_path / "out").exists()
    text = (folder / "feature_spec.yaml").read_text()
    (folder / "feature_spec.yaml").write_text(text.replace("type: csv", "type: csv\n    delimiter: ';'"))
    assert clickwise("transcode", folder, "--out", tmp_path / "out").code == 0
    assert read_columns(FeatureSpec.load(tmp_path / "out"), "train").rows == 2
