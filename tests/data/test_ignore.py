"""`data.ignore`: a recipe leaves inputs out, wherever a model then reads, in training, measuring and scoring."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from model_inputs import history_spec, spec_of
from small_log import write_log

import clickwise
from clickwise import checkpoint
from clickwise.data.dataset import DataConfig, Dataset
from clickwise.data.synthetic import synthesize
from clickwise.errors import RecipeError, SpecError
from clickwise.feature_spec import FeatureSpec, without
from clickwise.models.din import DIN, DINConfig
from clickwise.train.step import TrainStep
from clickwise.verbs.evaluate import evaluate
from clickwise.verbs.predict import predict
from clickwise.verbs.train import train

SPEC = history_spec([9], [30, 5], [30, 5, 7], gaps=[6], beside=spec_of(3, [4, 8]))


def channels(spec):
    return {channel: list(names) for channel, names in spec.channels.items() if names}


@pytest.mark.parametrize(("ignore", "changes"), [
    (["user"], {"user": None}), (["c0", "n1"], {"categorical": ["c1"], "numerical": ["n0", "n2"]}),
    (["numerical", "n0", "n0"], {"numerical": None}),
    (["seen2", "unseen2"], {"history": ["seen0", "seen1", "seen3"], "negative_history": ["unseen0", "unseen1"]}),
    (["target1", "seen1", "unseen1"], {"target_item": ["target0"], "history": ["seen0", "seen2", "seen3"],
                                       "negative_history": ["unseen0", "unseen2"]}),
    (["target1", "seen1", "negative_history"], {"target_item": ["target0"], "history": ["seen0", "seen2", "seen3"],
                                                "negative_history": None}),
    (["seen3"], {"history": ["seen0", "seen1", "seen2"]}), (["history"], {"history": None, "negative_history": None}),
    (["negative_history"], {"negative_history": None})])
def test_what_is_left(ignore, changes):
    spec = without(SPEC, ignore)
    expected = {channel: changes.get(channel, names) for channel, names in channels(SPEC).items()}
    assert channels(spec) == {channel: names for channel, names in expected.items() if names}
    assert set(spec.features) == {name for names in spec.channels.values() for name in names} and not spec.mappings
    assert without(spec, []).channels == spec.channels


@pytest.mark.parametrize(("ignore", "words"), [
    (["usr"], ["'usr'", "did you mean 'user'"]), (["targt1"], ["'target1'"]), (["label"], ["label", "no model reads"]),
    (["click"], ["'click'", "of the channel label"]), (["seen0", "target0", "unseen0"], ["'seen0'", "padding"]),
    (["target1"], ["target1 without seen1", "data.ignore=[target1, seen1, unseen1]"]),
    (["unseen1"], ["unseen1 without target1"]), (["target1", "seen1"], ["target1, seen1 without unseen1"])])
def test_what_cannot_be_left_out(ignore, words):
    features = {("click" if name == "label" else name): dataclasses.replace(feature, name="click")
                if name == "label" else feature for name, feature in SPEC.features.items()}
    spec = dataclasses.replace(SPEC, features=features, channels={**SPEC.channels, "label": ("click",)})
    with pytest.raises(RecipeError) as error:
        without(spec, ignore)
    assert all(word in str(error.value) for word in ["data.ignore", *words]), error.value


def test_a_model_says_what_it_cannot_be_without():
    with pytest.raises(SpecError, match=r"channel_spec.history"):
        DIN.tables(without(SPEC, ["history"]), DINConfig())


def batches(path, ignore=(), mapping="train"):
    dataset = Dataset(DataConfig(path=str(path), ignore=ignore))
    loader = dataset.train_loader(batch_size=7, seed=3, pin_memory=False) if mapping == "train" else \
        dataset.evaluation_loader(mapping, batch_size=7, pin_memory=False)
    return [batch.map(lambda tensor: tensor.clone()) for batch in loader.epoch(0)]


@pytest.mark.parametrize("mapping", ["train", "test"])
def test_what_is_left_is_the_same_to_the_bit_draws_included(tmp_path, mapping):
    write_log(tmp_path)
    for ignore, kept in ((["user"], {"user": []}), (["gap"], {"history": [0, 1]}),
                         (["category", "category_history", "category_negatives"],
                          {"target_item": [0], "history": [0, 2], "negative_history": [0]})):
        for batch, whole in zip(batches(tmp_path, ignore, mapping), batches(tmp_path, (), mapping), strict=True):
            for channel in ("label", "display"):
                assert (getattr(batch, channel) is None) == (getattr(whole, channel) is None)
            assert batch.label.equal(whole.label)
            for channel in ("user", "target_item", "history", "negative_history"):
                columns = getattr(whole, channel)
                expected = [columns[place] for place in kept.get(channel, range(len(columns)))]
                found = getattr(batch, channel)
                assert len(found) == len(expected)
                assert all(one.equal(other) for one, other in zip(found, expected, strict=True))


def test_some_numericals_of_one_file(tmp_path):
    synthesize(spec_of(4, [5, 6]), {"train": 60, "test": 20}, tmp_path / "set")
    for batch, whole in zip(batches(tmp_path / "set", ["n0", "n2", "c0"]), batches(tmp_path / "set"),
                            strict=True):
        assert batch.numerical.equal(whole.numerical[:, [1, 3]])
        assert len(batch.categorical) == 1 and batch.categorical[0].equal(whole.categorical[1])
    assert all(batch.numerical is None for batch in batches(tmp_path / "set", ["numerical"]))


def rows(count, seed):
    dice = random.Random(seed)
    return {"click": [dice.randrange(2) for _ in range(count)], "town": [dice.choice("abc") for _ in range(count)],
            "shop": [dice.choice("xyz") for _ in range(count)], "age": [dice.random() for _ in range(count)],
            "price": [dice.random() for _ in range(count)]}


def test_a_run_never_asks_for_what_it_leaves_out(tmp_path, monkeypatch):
    """Trained, resumed, measured, saved and loaded; raw rows need not have the columns."""
    settings = {"data.ignore": ["town", "age", "age_bin"], "train.batch_size": 50, "train.epochs": 1,
                "train.checkpoint_every": 2, "train.threads": 1, "model.cross_rank": 2, "model.bottom_mlp": [4],
                "model.top_mlp": [4]}
    train_rows, test_rows = rows(400, 1), rows(60, 2)
    model = clickwise.fit(pa.table(train_rows), label="click", settings=settings, test=0.2, out=tmp_path / "fit")
    few = {name: values for name, values in test_rows.items() if name not in ("town", "age")}
    found = model.predict_logit(pa.table(few))
    assert np.array_equal(found, model.predict_logit(pa.table(test_rows)))
    assert np.array_equal(found, clickwise.load(model.save(tmp_path / "saved")).predict_logit(pa.table(few)))
    assert model.evaluate(pa.table(few))["log_loss"] > 0 and set(model.baselines) >= {"constant"}
    pq.write_table(pa.table(few), tmp_path / "few.parquet")
    predict(model.folder, source=tmp_path / "few.parquet", out=tmp_path / "out.parquet")
    assert np.array_equal(pq.read_table(tmp_path / "out.parquet")["logit"].to_numpy(), found)

    assert set(FeatureSpec.load(model.folder).features) >= {"town", "age"}  # the data's, whatever the recipe leaves out
    assert evaluate(model.folder)["metrics"]["auc"] == model.metrics["test"]["auc"]
    predict(model.folder, source=Path("test"), out=tmp_path / "mapping.parquet", carry=("town",))
    assert {"town", "logit"} <= {*pq.read_schema(tmp_path / "mapping.parquet").names}

    words = [*(f"{key}={json.dumps(value)}" for key, value in settings.items()), f"data.path={tmp_path}/fit/columns",
             "baselines=[]"]
    whole = train("table/dcnv2", words, out=tmp_path / "runs")
    step = TrainStep.__call__

    def dying(self, *batches):
        if self.steps == 4:
            raise KeyboardInterrupt
        return step(self, *batches)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", dying)
        with pytest.raises(clickwise.errors.Interrupted):
            train("table/dcnv2", words, out=tmp_path / "killed")
    killed = (tmp_path / "killed" / "latest").resolve()
    train(None, [], resume=killed)
    one, other = (checkpoint.load(run / "checkpoint/last.pt")["model"] for run in (whole, killed))
    assert one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)
    assert not any("town" in key for key in one)
