"""What the data do, and not the model: a guiding metric without a value, and a loss that one number ruins."""

import json
import random

import pytest
import torch

from clickwise.batch import Batch
from clickwise.train.evaluate import is_defined

FAST = ["train.batch_size=64", "baselines=[]", "--json"]


def table(folder, name, rows, click, price=lambda row: row % 90):
    lines = [f"{row % 40},{row // 4},{price(row)},{click(row)}" for row in range(rows)]
    (folder / name).write_text("\n".join(["item,view,price,click", *lines]) + "\n")


@pytest.fixture
def columns(clickwise, tmp_path):
    """Prepares three files, of which validation holds non-clicks alone."""
    draw = random.Random(0)
    table(tmp_path, "train.csv", 600, lambda row: draw.randrange(2))
    table(tmp_path, "valid.csv", 100, lambda row: 0)
    table(tmp_path, "test.csv", 100, lambda row: draw.randrange(2))
    assert clickwise("spec", "infer", "train.csv", "valid.csv", "test.csv", "--label", "click", "--categorical", "item",
                     "--numerical", "price", "--display", "view", "--out", "spec").code == 0
    assert clickwise("prepare", "table/prepare", "dataset.spec=spec", "out=columns").code == 0
    return "columns"


@pytest.mark.parametrize("metric", ["auc", "normalized_entropy", "calibration", "gauc", "map_at_12"])
def test_one_class_validation(clickwise, columns, tmp_path, metric):
    words = ["train", "table/dcnv2", f"data.path={columns}", "train.epochs=3", "train.patience=1",
             f"train.metric={metric}", f"metrics=[{metric}, log_loss]", *FAST]
    result = clickwise(*words)
    assert result.code == 0, result.err
    assert f"warning: {metric} is undefined on validation" in result.err
    assert "all its labels are 0" in result.err.split("\nrun ")[0]  # before the first step
    told = json.loads(result.out)
    assert (told["steps"], told["stopped"], told["checkpoint"]) == (30, "", "last")
    assert "undefined" not in clickwise(*words, "train.metric=log_loss", "train.steps=1").err


@pytest.mark.parametrize(("metric", "defined"), [("auc", True), ("gauc", False), ("map_at_12", False), ("mrr", False),
                                                 ("log_loss", True)])
def test_displays_of_one_class_each_leave_rankings_undefined(metric, defined):
    label = torch.tensor([0, 0, 0, 1] if metric == "gauc" else [0, 0, 0, 0]).repeat_interleave(2)
    if metric == "auc":
        label[0] = 1
    batch = Batch(label=label, display=torch.arange(4).repeat_interleave(2))
    assert is_defined(metric, [batch] * 5) == defined


def test_a_mapping_whose_second_class_comes_late_is_defined():
    batches = [Batch(label=torch.zeros(3))] * 6 + [Batch(label=torch.ones(3))]
    assert is_defined("auc", batches) and not is_defined("auc", batches[:6])


@pytest.fixture
def extreme(clickwise, tmp_path):
    """A Feature Spec of CSV in which the price of one row of a mapping is 3e38."""
    def make(mapping):
        draw = random.Random(0)
        for name in ("train", "test"):
            table(tmp_path, f"{name}.csv", 400, lambda row: draw.randrange(2),
                  lambda row, name=name: 3e38 if row == 250 and name == mapping else row % 9)
        (tmp_path / "feature_spec.yaml").write_text("""
feature_spec: {click: {dtype: bool}, item: {cardinality: 40}, view: {dtype: int64}, price: {dtype: float32}}
source_spec:
  train: [{type: csv, features: [item, view, price, click], files: [train.csv]}]
  test: [{type: csv, features: [item, view, price, click], files: [test.csv]}]
channel_spec: {label: [click], categorical: [item], numerical: [price], display: [view]}
""")
        return ["data.path=.", "data.validation=null", "train.epochs=2", *FAST]
    return make


@pytest.mark.parametrize("often", [1, 100])
def test_one_extreme_number(clickwise, extreme, often):
    result = clickwise("train", "table/dcnv2", *extreme("train"), f"train.log_every={often}")
    assert result.code == 1 and "price = 3e+38" in result.err and "optimizer.lr" not in result.err


def test_one_extreme_number_in_what_is_measured_and_predicted(clickwise, extreme, tmp_path):
    words = extreme("test")
    result = clickwise("train", "table/dcnv2", *words)
    assert result.code == 1 and "price = 3e+38" in result.err
    run = json.loads(clickwise("train", "table/dcnv2", *words, "data.test=train").out)["run"]
    result = clickwise("predict", run, "--input", "test.csv", "--encoded", "--out", "scores.parquet")
    assert result.code == 1 and "'price' reaches the model as 3e+38" in result.err
    assert not (tmp_path / "scores.parquet").exists()


def test_a_rate_that_is_too_high_is_told_as_such(clickwise, extreme):
    result = clickwise("train", "table/dcnv2", *extreme(""), "optimizer={name: sgd, lr: 1e30}")
    assert result.code == 1 and "lower optimizer.lr" in result.err and "price" not in result.err
