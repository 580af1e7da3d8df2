from __future__ import annotations

import ibis
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickwise.errors import PrepareError
from clickwise.feature_spec import Feature
from clickwise.prepare import write
from clickwise.prepare.duckdb_engine import DuckDBEngine
from clickwise.prepare.scatter import permuted

CHANNELS = {"numerical": ("a", "b"), "categorical": ("id", "tags"), "label": ("label",), "display": ("display",)}
FEATURES = {"a": Feature("a", "float16"), "b": Feature("b", "float16"), "label": Feature("label", "bool"),
            "id": Feature("id", "int8", cardinality=100), "display": Feature("display", "int64"),
            "tags": Feature("tags", "int16", cardinality=1000, max_hotness=9)}


@pytest.fixture(scope="module")
def engine():
    engine = DuckDBEngine(memory_limit="500MB", threads=1)
    yield engine
    engine.close()


def rows(count, seed):
    rng = np.random.default_rng(seed)
    lists = [rng.integers(0, 1000, rng.integers(0, 10)).tolist() for _ in range(count)]
    return {"a": rng.normal(size=count).astype(np.float32).tolist(), "b": rng.normal(size=count).tolist(),
            "id": rng.integers(0, 100, count).tolist(), "tags": lists, "label": rng.integers(0, 2, count).tolist(),
            "display": rng.integers(0, 2**60, count).tolist()}


def written(engine, folder, columns, **options):
    """The columns in the file order, after they were streamed in an order of their own."""
    count = len(columns["id"])
    types = {"row": "int64", "a": "float32", "b": "float64", "id": "int32", "tags": "array<int32>", "label": "int8",
             "display": "int64"}
    order = np.random.default_rng(1).permutation(count)
    mixed = {name: [values[i] for i in order] for name, values in {"row": range(count), **columns}.items()}
    table = engine.materialise(ibis.memtable(mixed, schema={name: types[name] for name in mixed}), "t")
    chunks = write.write_mapping(engine, folder, "train", lambda names: table.select("row", *names), features=FEATURES,
                                 channels=CHANNELS, rows=count, spill_folder=folder / "spill", **options)
    return {file: np.fromfile(folder / file, FEATURES[chunk.features[0]].dtype if "offsets" not in file else "int64")
            for chunk in chunks for file in chunk.files}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 300), seed=st.integers(0, 99), shuffle=st.none() | st.integers(0, 5),
       buffer_bytes=st.sampled_from([1 << 20, 1000, 64, 1]), one_pass=st.booleans())
def test_every_value_in_its_place_however_little_is_buffered(engine, tmp_path, count, seed, shuffle, buffer_bytes,
                                                             one_pass):
    columns = rows(count, seed)
    found = written(engine, tmp_path, columns, shuffle_seed=shuffle, buffer_bytes=buffer_bytes, one_pass=one_pass)
    position = np.arange(count) if shuffle is None else permuted(np.arange(count), count, shuffle)
    order = np.argsort(position)
    numerical = np.array([columns["a"], columns["b"]], np.float16).T[order]
    assert np.array_equal(found["train/numerical.bin"].reshape(-1, 2), numerical)
    for name in ("label", "id", "display"):
        assert found[f"train/{name}.bin"].tolist() == [columns[name][i] for i in order]
    offsets, values = found["train/tags.offsets.bin"], found["train/tags.values.bin"]
    assert offsets[0] == 0 and len(offsets) == count + 1 and offsets[-1] == len(values)
    assert [values[offsets[i]:offsets[i + 1]].tolist() for i in range(count)] == [columns["tags"][i] for i in order]
    assert list((tmp_path / "spill").iterdir()) == []


@pytest.mark.parametrize(("name", "value", "found"), [
    ("id", 100, "from 0 to 100"), ("id", -1, "from -1 to"), ("id", None, "1 rows without a value"),
    ("tags", [3, 1000], "to 1000"), ("tags", None, "without a value"), ("a", float("-inf"), "not finite"),
    ("b", 1e9, "not finite or too large"), ("label", 2, "to 2")])
def test_values_that_contradict_the_spec_are_not_written(engine, tmp_path, name, value, found):
    columns = rows(20, 0)
    columns["id"][3] = 0
    columns[name][5] = value
    with pytest.raises(PrepareError, match=found) as caught:
        written(engine, tmp_path, columns)
    assert caught.value.where == name


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_permuted_is_one_to_one(size, seed):
    numbers = np.arange(size)
    result = permuted(numbers, size, seed)
    assert np.array_equal(np.sort(result), numbers)
    some = numbers[::3]
    assert np.array_equal(permuted(some, size, seed), result[::3])  # a number's position depends on it alone


def test_permuted_mixes_well():
    size = 100_000
    result = permuted(np.arange(size), size, 1)
    assert abs(np.corrcoef(result, np.arange(size))[0, 1]) < 0.02
    gaps = np.abs(np.diff(result))
    assert abs(gaps.mean() / size - 1 / 3) < 0.01 and (gaps == 1).mean() < 1e-3
    assert not np.array_equal(result, permuted(np.arange(size), size, 2))
    first_half = result[:size // 2]
    assert abs((first_half < size // 2).mean() - 0.5) < 0.01
