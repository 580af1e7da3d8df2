"""`clickwise train` and `fit` say what baselines reach on the same rows, and what is suspicious."""

from __future__ import annotations

import json
import math
import random
import sys

import numpy as np
import pandas as pd
import pytest

import clickwise as cw
from clickwise import checkpoint
from clickwise.baselines import rows

SETTINGS = ["train.batch_size=64", "train.epochs=2", "model.bottom_mlp=[8]", "model.top_mlp=[8]", "model.cross_rank=4"]


def frame(count=1200, seed=0):
    dice = random.Random(seed)
    data = pd.DataFrame([{"age": dice.gauss(40, 9), "town": dice.choice(["Oslo", "Bonn", "Rome"]),
                          "shop": f"s{dice.randrange(8)}"} for _ in range(count)])
    chance = 1 / (1 + np.exp(1 - 3 * (data.town == "Oslo") + (data.age > 45)))
    return data.assign(click=[int(dice.random() < p) for p in chance])


@pytest.fixture
def train(clickwise, tmp_path):
    """Prepares a frame (None: it is prepared) and trains on it: what was printed, the run folder, baselines.json."""
    def run(data, *words):
        if data is not None:
            data.to_csv(tmp_path / "rows.csv", index=False)
            assert clickwise("spec", "infer", "rows.csv", "--label", "click", "--out", "spec").code == 0
            assert clickwise("prepare", "table/prepare", "dataset.spec=spec", "out=columns").code == 0
        result = clickwise("train", "table/dcnv2", "data.path=columns", *SETTINGS, *words)
        assert result.code == 0, result.err
        (folder,) = {path.parent for path in tmp_path.glob("runs/*-*/*/DONE")} - set(run.before)
        run.before.append(folder)
        return result, folder, json.loads((folder / "baselines.json").read_text())

    run.before = []
    return run


def test_the_model_stands_beside_baselines_on_the_same_rows(train, clickwise):
    result, folder, told = train(frame())
    metrics = json.loads((folder / "metrics.json").read_text())["mappings"]["test"]
    assert told["results"]["model"] == {name: metrics[name] for name in ("auc", "log_loss")}
    dataset = cw.Dataset(cw.load_recipe(str(folder / "recipe.yaml")).data)
    rate, here = (np.mean(dataset.columns(mapping).arrays["click"]) for mapping in ("train", "test"))
    loss = -here * math.log(rate) - (1 - here) * math.log(1 - rate)
    assert told["results"]["constant"] == {"auc": 0.5, "log_loss": pytest.approx(loss, rel=1e-6)}
    for name in ("logistic_regression", "boosted_trees"):
        assert told["results"][name]["auc"] > 0.7 and told["results"][name]["log_loss"] < loss - 0.05
    assert (told["mapping"], told["rows"], told["of"]) == ("test", metrics["rows"], metrics["rows"])
    assert told["train_rows"] == told["of_train"] == dataset.columns("train").rows
    assert told["warnings"] == [] and "warning" not in result.err
    lines = [line.split() for line in result.out.splitlines()]
    for name, values in told["results"].items():
        assert [name, "auc", f"{values['auc']:.5f}", "log_loss", f"{values['log_loss']:.5f}"] in lines
    assert "boosted trees" in (folder / "report.html").read_text()


def test_baselines_change_no_bit_of_the_model(train):
    (_, without, told), (_, beside, both), (_, _, again) = train(frame(), "baselines=[]"), train(None), train(None)
    assert list(told["results"]) == ["model", "constant"] and both == again
    first, second = (checkpoint.load(folder / "checkpoint/last.pt") for folder in (without, beside))
    assert all((first["model"][name] == second["model"][name]).all() for name in first["model"])
    assert told["results"]["model"] == both["results"]["model"]


def test_without_scikit_learn_it_is_said_in_the_line(train, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    result, folder, told = train(frame())
    assert "boosted_trees       not measured: scikit-learn is not installed" in result.out
    assert "logistic_regression" in told["results"] and "is not installed" in (folder / "report.html").read_text()


@pytest.mark.parametrize(("column", "leak"), [
    ("paid", lambda data: data.click * 3.5 + np.linspace(0, 1, len(data))),
    ("paid_back", lambda data: -data.click - np.linspace(0, 0.5, len(data))),
    ("outcome", lambda data: np.where(data.click == 1, "bought", "left"))])
def test_a_column_that_tells_the_label_is_named(train, column, leak):
    data = frame()
    result, folder, told = train(data.assign(**{column: leak(data)}), "baselines=[]")
    (warning,) = told["warnings"]
    assert f"the column '{column}' alone" in warning and f"--ignore {column}," in warning
    assert f"warning: {warning}" in result.err.splitlines()
    assert f"the column &#x27;{column}&#x27; alone" in (folder / "report.html").read_text()


def test_a_model_worse_than_a_constant_is_named(train):
    result, folder, told = train(frame(), "baselines=[]", "optimizer.lr=3", "train.epochs=1", "data.validation=null")
    (warning,) = told["warnings"]
    assert told["results"]["model"]["log_loss"] > told["results"]["constant"]["log_loss"]
    assert "worse than a constant" in warning and f"warning: {warning}" in result.err.splitlines()
    assert "worse than a constant" in (folder / "report.html").read_text()


def test_of_many_rows_some_are_measured_the_models_too(train, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_ROWS", 20)
    monkeypatch.setattr("clickwise.run.baselines.BLOCK_ROWS", 20)
    monkeypatch.setattr(rows, "BLOCKS", 5)
    result, folder, told = train(frame())
    metrics = json.loads((folder / "metrics.json").read_text())["mappings"]["test"]
    assert (told["rows"], told["of"], told["train_rows"]) == (100, metrics["rows"], 100)
    assert told["results"]["model"]["log_loss"] != metrics["log_loss"]
    assert told["results"]["model"]["log_loss"] == pytest.approx(metrics["log_loss"], abs=0.1)
    assert f"on 100 of {metrics['rows']} rows" in result.out


def test_histories_are_left_to_the_model(clickwise, tmp_path):
    result = clickwise("train", "tiny/din", "data.synthetic.rows={train: 1000, validation: 200, test: 300}",
                       "train.batch_size=500", "train.epochs=1", "--json")
    told = json.loads(result.out)["baselines"]
    assert list(told["results"]) == ["model", "constant", "logistic_regression"] and told["rows"] == 300


def test_fit_measures_them_when_asked(tmp_path):
    model = cw.fit(frame(), label="click", settings={"train.epochs": 2, "model.bottom_mlp": [8], "model.top_mlp": [8]})
    file = model.folder / "baselines.json"
    assert list(json.loads(file.read_text())["results"]) == ["model", "constant"]
    model.save(tmp_path / "early")
    found = model.baselines
    assert list(found) == ["model", "constant", "logistic_regression", "boosted_trees"]
    assert found["model"]["auc"] == model.metrics["validation"]["auc"] and found["boosted_trees"]["auc"] > 0.6
    assert json.loads(file.read_text())["results"] == found == model.baselines and model.warnings == []
    assert "boosted trees" in model._repr_html_()
    model.save(tmp_path / "late")
    early, late = cw.load(tmp_path / "early"), cw.load(tmp_path / "late")
    assert early.baselines == found  # the columns of its training are still there
    del model, early
    assert late.baselines == found and list(cw.load(tmp_path / "early").baselines) == list(found)


def test_a_model_without_its_columns_has_what_was_measured(tmp_path):
    model = cw.fit(frame(300), label="click", validation=0, settings={"train.epochs": 1})
    model.save(tmp_path / "kept")
    del model
    kept = cw.load(tmp_path / "kept")
    assert list(kept.baselines) == ["model", "constant"]
    (tmp_path / "kept/baselines.json").unlink()
    assert kept.baselines == {} and kept.warnings == []


def test_a_leak_is_told_without_a_log(caplog):
    data = frame(400)
    model = cw.fit(data.assign(paid=data.click * 2.5 + np.linspace(0, 1, 400)), label="click",
                   settings={"train.epochs": 1})
    (warning,) = model.warnings
    assert "'paid'" in warning and "ignore=['paid']" in warning
    loud = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert loud == [f"warning: {warning}"]
