"""Numbers near the limits of their type, and raw values taken for ids."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clickwise.data.dataset import DataConfig, Dataset
from clickwise.data.transcode import transcode
from clickwise.encoding import Encoder, Encoding
from clickwise.feature_spec import Chunk, Feature, FeatureSpec


def raw_ids(folder: Path, greatest: int, rows: int = 400) -> FeatureSpec:
    """A Feature Spec of CSV in which `item` is 0 … 4 but for one row."""
    lines = [f"{row % 2},{greatest if row == 7 else row % 5}" for row in range(rows)]
    (folder / "rows.csv").write_text("\n".join(["y,item", *lines]) + "\n")
    chunk = (Chunk("csv", ("y", "item"), ("rows.csv",)),)
    spec = FeatureSpec({"y": Feature("y", "bool"), "item": Feature("item", "int64", "auto")},
                       {"train": chunk, "test": chunk}, {"label": ("y",), "categorical": ("item",)}, {}, folder)
    spec.save(folder)
    return spec


def test_raw_ids_auto_cardinality(clickwise, tmp_path):
    raw_ids(tmp_path, 1 << 40)
    result = clickwise("transcode", ".", "--out", "columns")
    assert result.code == 0 and "warning: item: cardinality 1,099,511,627,777" in result.err
    result = clickwise("train", "table/dcnv2", "data.path=columns", "data.validation=null", "train.batch_size=64")
    assert result.code == 1 and "Traceback" not in result.err and not (tmp_path / "runs").exists()
    assert all(word in result.err for word in ("'item'", "1,099,511,627,777 rows", "TB", "max_table_size"))
    raw_ids(tmp_path, 50_000)
    assert "warning" not in clickwise("transcode", ".", "--out", "others").err


@pytest.mark.parametrize("greatest", [6, 1 << 40])
def test_ids_of_a_table_with_fewer_rows_are_counted_modulo_its_rows(tmp_path, greatest):
    transcode(raw_ids(tmp_path, greatest), tmp_path / "columns")
    dataset = Dataset(DataConfig(path=str(tmp_path / "columns")))
    ids = dataset.columns("train").arrays["item"]
    assert (dataset.train_counts({"item": 3})["item"] == np.bincount(ids % 3, minlength=3)).all()


NUMBERS = {"prices around 1e200": lambda row: 1e200 * (1 + row % 97 / 100),
           "both ends of float64": lambda row: (1 if row % 2 else -1) * 1.7e308,
           "the least numbers there are": lambda row: 5e-324 * (row % 10)}


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS.keys())
def test_one_extreme_number_in_preparation(clickwise, tmp_path, number, memory):
    """A column whose deviation, or whose distance from the mean, is beyond float64 keeps what it says."""
    values = [number(row) for row in range(1000)]
    lines = [f"{row % 2},{row % 7},{value!r}" for row, value in enumerate(values)]
    (tmp_path / "rows.csv").write_text("\n".join(["click,item,price", *lines]) + "\n")
    assert clickwise("spec", "infer", "rows.csv", "--label", "click", "--categorical", "item", "--numerical", "price",
                     "--out", "spec").code == 0
    words = [] if memory else ["engine.tables=disk"]
    result = clickwise("prepare", "table/prepare", "dataset.spec=spec", "out=columns", *words)
    assert result.code == 0, result.err
    written = np.fromfile(tmp_path / "columns/train/numerical.bin", np.float32)
    assert abs(written.std() - 1) < 0.2 and len(np.unique(written)) == len(set(values))
    encoder = Encoder(Encoding.load(tmp_path / "columns/preparation"), ["price"])
    rows = [encoder.row({"price": repr(value)})["price"] for value in values]
    assert (encoder.columns({"price": pa.array(map(repr, values))}).arrays["price"] == np.float32(rows)).all()
    assert set(rows) == set(written.tolist())


def test_numbers_that_leave_no_room_for_the_others_are_told_and_so_are_columns_without_ids(clickwise, tmp_path):
    lines = [f"{row % 2},{row},{3e38 if row % 200 == 7 else row % 10}" for row in range(1000)]
    (tmp_path / "rows.csv").write_text("\n".join(["click,item,price", *lines]) + "\n")
    assert clickwise("spec", "infer", "rows.csv", "--label", "click", "--categorical", "item", "--numerical", "price",
                     "--out", "spec").code == 0
    result = clickwise("prepare", "table/prepare", "dataset.spec=spec", "dataset.frequency_limit=5", "out=columns",
                       "--json")
    assert result.code == 0, result.err
    assert "warning: 'price': a few numbers are so far from all others" in result.err
    assert "warning: 'item' has no ids" in result.err
    assert json.loads(result.out)["cardinalities"]["item"] == 1
