"""The data check: every kind of bad value is found at its row, and good data is looked at once."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from small_dataset import small_columns, small_spec, write

from clickwise.data import check, check_values
from clickwise.data.check import check_columns
from clickwise.errors import SpecError
from clickwise.feature_spec import AUTO, Chunk, Feature, FeatureSpec

ROWS = 200


def poke(path, dtype: str, index: int, value) -> None:
    """Overwrites one value of a column file."""
    array = np.fromfile(path, dtype)
    array[index] = value
    array.tofile(path)


BAD = {  # what is wrong: (file, type, index, value, row, words of the message)
    "id at the cardinality": ("large.bin", "int32", 150, 1_000_000, 150, ("'large'", "1000000", "0 … 999999")),
    "negative id": ("small.bin", "int8", 0, -1, 0, ("'small'", "-1", "0 is missing")),
    "last id": ("small.bin", "int8", ROWS - 1, 100, ROWS - 1, ("id 100",)),
    "NaN": ("numerical.bin", "float16", 77, np.nan, 38, ("'n0'", "nan", "finite")),
    "infinity": ("numerical.bin", "float16", 76, -np.inf, 38, ("'n1'", "-inf")),
    "label 2": ("label.bin", "uint8", 9, 2, 9, ("label 2", "0 or 1")),
    "offset falls": ("tags.offsets.bin", "int64", 50, 0, 49, ("never fall",)),
}


@pytest.mark.parametrize("step", [7, 1 << 20])
@pytest.mark.parametrize("kind", BAD)
def test_bad_values_are_found_at_their_row(tmp_path, monkeypatch, kind, step):
    monkeypatch.setattr(check_values, "STEP", step)
    file, dtype, index, value, row, words = BAD[kind]
    spec = write(small_spec(tmp_path), small_columns(ROWS))
    check_columns(spec, "train")
    poke(tmp_path / "train" / file, dtype, index, value)
    with pytest.raises(SpecError) as caught:
        check_columns(spec, "train")
    assert f"{file.replace('offsets', 'values')}, row {row}\n" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("step", [7, 1 << 20])
def test_bad_ids_and_lengths_of_lists(tmp_path, monkeypatch, step):
    monkeypatch.setattr(check_values, "STEP", step)
    columns = small_columns(ROWS)
    tags = columns.arrays["tags"]
    row = int(np.flatnonzero(np.diff(tags.offsets))[-1])
    tags.values[tags.offsets[row]] = 5000
    spec = write(small_spec(tmp_path), columns)
    with pytest.raises(SpecError, match=f"row {row}\n.*id 5000 of the feature 'tags'"):
        check_columns(spec, "train")
    tags.values[tags.offsets[row]] = 0
    short = dataclasses.replace(spec.features["tags"], max_hotness=2)
    spec = write(dataclasses.replace(spec, features={**spec.features, "tags": short}), columns)
    first = int(np.flatnonzero(np.diff(tags.offsets) > 2)[0])
    with pytest.raises(SpecError, match=f"row {first}\n.*a list of [34] .*\n.*at most 2"):
        check_columns(spec, "train")


def test_lists_of_fixed_length_name_the_row_not_the_value(tmp_path):
    np.array([[1, 2], [3, 4], [5, 99]], "int32").tofile(tmp_path / "h.bin")
    spec = FeatureSpec({"h": Feature("h", "int32", 9, dimensions=(2,))},
                       {"all": (Chunk("split_binary", ("h",), ("h.bin",)),)}, {"history": ["h"]}, {}, tmp_path)
    with pytest.raises(SpecError, match="row 2\n.*id 99"):
        check_columns(spec, "all")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wider_numericals_and_float_labels(tmp_path, dtype):
    features = {"x": Feature("x", dtype), "label": Feature("label", "float32")}
    chunks = (Chunk("split_binary", ("x",), ("x",)), Chunk("split_binary", ("label",), ("y",)))
    spec = FeatureSpec(features, {"all": chunks}, {"numerical": ["x"], "label": ["label"]}, {}, tmp_path)
    np.array([1, 2, np.inf], dtype).tofile(tmp_path / "x")
    np.array([1, 0, 1], "float32").tofile(tmp_path / "y")
    with pytest.raises(SpecError, match="row 2\n.*inf"):
        check_columns(spec, "all")
    np.array([1, 2, 3], dtype).tofile(tmp_path / "x")
    check_columns(spec, "all")
    np.array([1, 0.5, 1], "float32").tofile(tmp_path / "y")
    with pytest.raises(SpecError, match="row 1\n.*0.5"):
        check_columns(spec, "all")


def test_good_data_is_scanned_once(tmp_path, monkeypatch):
    spec = small_spec(tmp_path, ("train", "test"))
    for mapping in ("train", "test"):
        write(spec, small_columns(ROWS), mapping)
    scanned = []
    monkeypatch.setattr(check, "_scan", lambda spec, mapping: scanned.append(mapping))
    for mapping in ("train", "test", "train", "test"):
        check_columns(spec, mapping)
    assert scanned == ["train", "test"]
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    check_columns(FeatureSpec.load(moved), "train")
    assert scanned == ["train", "test"]


def test_a_changed_file_or_spec_is_scanned_again(tmp_path, monkeypatch):
    spec = write(small_spec(tmp_path), small_columns(ROWS))
    scanned = []
    monkeypatch.setattr(check, "_scan", lambda spec, mapping: scanned.append(spec))
    check_columns(spec, "train")
    poke(tmp_path / "train" / "large.bin", "int32", 0, 5)
    check_columns(spec, "train")
    other = dataclasses.replace(spec, metadata={"note": 1})
    check_columns(other, "train")
    check_columns(other, "train")
    assert scanned == [spec, spec, other]


def test_bad_data_is_never_remembered(tmp_path):
    spec = write(small_spec(tmp_path), small_columns(ROWS))
    poke(tmp_path / "train" / "large.bin", "int32", 3, -5)
    for _ in range(2):
        with pytest.raises(SpecError, match="row 3"):
            check_columns(spec, "train")
    assert not (tmp_path / ".checked.json").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"train": 3}', "{"])
def test_a_damaged_memory_is_ignored(tmp_path, content):
    spec = write(small_spec(tmp_path), small_columns(ROWS))
    (tmp_path / ".checked.json").write_text(content)
    check_columns(spec, "train")
    assert json.loads((tmp_path / ".checked.json").read_text())["train"]["fingerprint"] == spec.fingerprint()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    def refuse(path, value):
        raise PermissionError(13, "read-only", str(path))

    monkeypatch.setattr(check, "write_json", refuse)
    check_columns(write(small_spec(tmp_path), small_columns(ROWS)), "train")
    assert not (tmp_path / ".checked.json").exists()


def test_auto_cardinality_asks_for_transcode(tmp_path):
    spec = FeatureSpec({"c": Feature("c", "int64", AUTO)}, {"all": (Chunk("csv", ("c",), ("c.csv",)),)},
                       {"categorical": ["c"]}, {}, tmp_path)
    (tmp_path / "c.csv").write_text("1\n2\n")
    with pytest.raises(SpecError, match="transcode"):
        check_columns(spec, "all")


def test_an_id_too_large_for_its_type_is_told_as_one_out_of_range(tmp_path):
    spec = FeatureSpec({"c": Feature("c", "int8", 100)}, {"all": (Chunk("csv", ("c",), ("c.csv",)),)},
                       {"categorical": ["c"]}, {}, tmp_path)
    (tmp_path / "c.csv").write_text("1\n300\n")
    with pytest.raises(SpecError, match="row 1\n.*id 300 of the feature 'c'\n.*0 … 99 "):
        check_columns(spec, "all")
