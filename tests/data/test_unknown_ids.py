"""What becomes of ids out of range: the same wherever they come in, and never anything without being told."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickwise.data.arrays import keep_known
from clickwise.data.check import check_columns
from clickwise.data.columns import read_columns
from clickwise.data.transcode import transcode
from clickwise.errors import SpecError
from clickwise.feature_spec import Chunk, Feature, FeatureSpec

types = st.sampled_from(["int8", "int16", "int32", "int64", "uint8", "uint64"])


@given(data=st.data(), dtype=types, cardinality=st.integers(1, 2**40), policy=st.sampled_from(["zero", "modulo"]))
def test_every_id_is_known_afterwards_and_known_ones_stay(data, dtype, cardinality, policy):
    limits = np.iinfo(dtype)
    ids = data.draw(st.lists(st.integers(int(limits.min), int(limits.max)), max_size=20))
    found = keep_known(np.array(ids, dtype), Feature("c", "int64", cardinality, unknown_ids=policy)).tolist()
    known = range(cardinality)
    assert found == [number if number in known else number % cardinality if policy == "modulo" else 0 for number in ids]


@pytest.mark.parametrize("policy", [None, "error"])
def test_an_error_changes_nothing(policy):
    ids = np.array([-1, 5, 2**40])
    assert keep_known(ids, Feature("c", "int8", 5, unknown_ids=policy)) is ids


IDS = {"c": [3, 9, 10, 25, -1, 300, 10**15], "tags": [[0], [], [9, 10], [-3], [27, 300], [4], [1]]}
KNOWN = {"zero": {"c": [3, 9, 0, 0, 0, 0, 0], "tags": [[0], [], [9, 0], [0], [0, 0], [4], [1]]},
         "modulo": {"c": [3, 9, 0, 5, 9, 0, 10**15 % 10], "tags": [[0], [], [9, 0], [7], [7, 0], [4], [1]]}}


def source(folder, type_: str, policy: str | None) -> FeatureSpec:
    """IDS as a dataset of 10 ids for each feature."""
    dtype = "int64" if type_ == "split_binary" else "int8"
    features = {"c": Feature("c", dtype, 10, unknown_ids=policy),
                "tags": Feature("tags", dtype, 10, max_hotness=2, unknown_ids=policy)}
    chunks = (Chunk(type_, ("c", "tags"), ("a",)),)
    if type_ == "csv":
        lines = [f"{c},{'|'.join(map(str, tags))}" for c, tags in zip(*IDS.values(), strict=True)]
        (folder / "a").write_text("\n".join(lines) + "\n")
    elif type_ == "parquet":
        pq.write_table(pa.table(IDS), folder / "a")
    else:
        np.array(IDS["c"]).tofile(folder / "c")
        np.array(sum(IDS["tags"], [])).tofile(folder / "values")
        np.cumsum([0, *map(len, IDS["tags"])]).tofile(folder / "offsets")
        chunks = (Chunk(type_, ("c",), ("c",)), Chunk(type_, ("tags",), ("values", "offsets")))
    return FeatureSpec(features, {"train": chunks}, {"categorical": ["c", "tags"]}, {}, folder)


def holds(spec: FeatureSpec, expected) -> None:
    check_columns(spec, "train")
    columns = read_columns(spec, "train")
    assert columns.arrays["c"].dtype == columns.arrays["tags"].values.dtype == "int8"
    assert {name: [array[row].tolist() for row in range(columns.rows)] for name, array in columns.arrays.items()} \
        == expected


@pytest.mark.parametrize("policy", KNOWN)
@pytest.mark.parametrize("type_", ["csv", "parquet", "split_binary"])
def test_transcode_applies_it_and_keeps_it(tmp_path, type_, policy):
    (tmp_path / "in").mkdir()
    spec = transcode(source(tmp_path / "in", type_, policy), tmp_path / "out", chunk_rows=3)
    holds(spec, KNOWN[policy])
    assert FeatureSpec.load(tmp_path / "out").features["c"] == Feature("c", "int8", 10, unknown_ids=policy)


@pytest.mark.parametrize("policy", KNOWN)
@pytest.mark.parametrize("type_", ["csv", "parquet"])
def test_reading_for_training_applies_it(tmp_path, type_, policy):
    holds(source(tmp_path, type_, policy), KNOWN[policy])


@pytest.mark.parametrize("policy", [None, "error"])
@pytest.mark.parametrize("type_", ["csv", "parquet", "split_binary"])
def test_without_it_the_first_unknown_id_is_an_error(tmp_path, type_, policy):
    (tmp_path / "in").mkdir()
    spec = source(tmp_path / "in", type_, policy)
    for work in (lambda: check_columns(spec, "train"), lambda: transcode(spec, tmp_path / "out")):
        with pytest.raises(SpecError, match="row 2\n.*id 10 .*'c'\n.*0 … 9 .*\n.*set unknown_ids: zero or"):
            work()
    assert not (tmp_path / "out").exists()


def test_columns_that_are_mapped_are_not_rewritten(tmp_path):
    with pytest.raises(SpecError, match="row 2\n.*id 10 .*\n.*\n.*clickwise transcode applies unknown_ids: zero"):
        check_columns(source(tmp_path, "split_binary", "zero"), "train")


def test_hashes_of_64_bits_are_taken_modulo(tmp_path):
    hashes = [2**64 - 1, 2**63, 7]
    pq.write_table(pa.table({"c": pa.array(hashes, pa.uint64())}), tmp_path / "a")
    spec = FeatureSpec({"c": Feature("c", "int8", 100, unknown_ids="modulo")},
                       {"train": (Chunk("parquet", ("c",), ("a",)),)}, {"categorical": ["c"]}, {}, tmp_path)
    assert read_columns(spec, "train").arrays["c"].tolist() == [number % 100 for number in hashes]
