"""What every model keeps, whatever the features. A new model joins with one line in MODELS."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from model_inputs import batch_of, history_spec, model_of, spec_of

from clickwise import registry, wiring
from clickwise.batch import Batch
from clickwise.models.dcnv2 import DCNv2
from clickwise.models.dien import DIEN
from clickwise.models.din import DIN
from clickwise.models.dlrm import DLRM
from clickwise.models.sim import SIM
from clickwise.models.wide_deep import WideDeep

MODELS = {  # the class, and settings that use all it has, small
    "dlrm": (DLRM, dict(embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(16,), dropout=0.1, embedding_dropout=0.1)),
    "dlrm, cat": (DLRM, dict(embedding_dim=4, bottom_mlp=(8, 6), top_mlp=(16,), interaction="cat", dropout=0.1,
                             embedding_dropout=0.1)),
    "dcnv2": (DCNv2, dict(embedding_dim=4, bottom_mlp=(8, 6), cross_layers=2, cross_rank=3, top_mlp=(16,), dropout=0.1,
                          embedding_dropout=0.1)),
    "dcnv2, parallel, full rank": (DCNv2, dict(embedding_dim=4, bottom_mlp=(), cross_rank=None, structure="parallel",
                                               top_mlp=(16, 8), dropout=0.1)),
    "wide_deep": (WideDeep, dict(embedding_dim=4, deep_hidden=(16, 8), combiner="mean", embedding_dropout=0.1)),
    "din": (DIN, dict(embedding_dim=4, unit_mlp=(6,), top_mlp=(16, 8), activation="dice", dropout=0.1,
                      embedding_dropout=0.1)),
    "din, compat": (DIN, dict(preset="compat", embedding_dim=4, top_mlp=(16,))),
    "dien": (DIEN, dict(embedding_dim=4, gru_size=6, auxiliary_mlp=(6,), auxiliary_loss_weight=1.0, top_mlp=(16,),
                        dropout=0.1, embedding_dropout=0.1)),
    "dien, bilinear": (DIEN, dict(embedding_dim=4, gru_size=6, attention="bilinear")),
    "sim": (SIM, dict(embedding_dim=4, short_length=4, k=3, heads=2, head_dim=3, gru_size=6, search_mlp=(6,),
                      auxiliary_mlp=(6,), top_mlp=(16,), dropout=0.1, embedding_dropout=0.1,
                      search_loss_weight=1.0, auxiliary_loss_weight=1.0)),
    "sim, compat": (SIM, dict(preset="compat", embedding_dim=4, k=500, top_mlp=(16,))),
    "sim, hard": (SIM, dict(search="hard", embedding_dim=4, short_length=2, top_mlp=(16,))),
    "sim, simhash": (SIM, dict(search="simhash", embedding_dim=4, short_length=2, k=2, pooling="dot")),
    "sim, sdim": (SIM, dict(search="sdim", embedding_dim=4, short_length=2, hash_bits=4, hash_group=2)),
}
HISTORIES = {DIN, DIEN, SIM}
FEATURES = {  # numericals, cardinalities, max_hotness
    "no numericals": (0, [5, 9, 4], ()), "no categoricals": (4, [], ()), "one categorical": (0, [5], ()),
    "one of each": (1, [5], ()), "one-hot and multi-hot": (2, [5, 30], (None, 4)),
    "multi-hot only": (0, [7, 7], (3, 3)),
}

every_model = pytest.mark.parametrize("name", MODELS)


def make(name, spec):
    model_class, settings = MODELS[name]
    return model_of(model_class, spec, **settings)


def spec_for(name, *features):
    """A spec with these features, and those without which the model cannot be."""
    spec = spec_of(*features)
    return history_spec([], [30, 9], [30, 9], gaps=[4], length=8, beside=spec) if MODELS[name][0] in HISTORIES else spec


def dense(model):
    return list(model.parameters())  # engines keep their tables in buffers


def test_every_registered_model_is_held_to_the_contract():
    held = {model_class for model_class, _ in MODELS.values()}
    assert {registry.resolve("model", name, "here") for name in registry.NAMES["model"]} <= held


@every_model
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("rows", [1, 17])
def test_any_features_train(name, features, rows):
    spec = spec_for(name, *FEATURES[features])
    model, batch = make(name, spec), batch_of(spec, rows)
    losses = model.losses(batch)
    assert losses and all(loss.dim() == 0 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in dense(model))
    with torch.no_grad():
        logit_B = model.eval()(batch)
    assert logit_B.shape == (rows,) and logit_B.dtype == torch.float32


@every_model
def test_prediction_needs_no_label(name):
    spec = spec_for(name, 2, [5, 6])
    model, batch = make(name, spec).eval(), batch_of(spec, 5)
    torch.testing.assert_close(model(dataclasses.replace(batch, label=None)), model(batch))


@every_model
def test_every_sample_is_scored_by_itself(name):
    spec = spec_for(name, 2, [5, 6, 40], (None, None, 3))
    model, both = make(name, spec).eval(), batch_of(spec, 6)
    with torch.no_grad():
        whole = model(both)
        for row in range(6):
            torch.testing.assert_close(model(one_row(both, row)), whole[row:row + 1], rtol=1e-4, atol=1e-5)


def one_row(batch, row):
    def of(column):
        if isinstance(column, torch.Tensor):
            return column[row:row + 1]
        first, end = column.offsets[row:row + 2].tolist()
        return dataclasses.replace(column, values_V=column.values_V[first:end], offsets=torch.tensor([0, end - first]))

    columns = {name: tuple(map(of, value)) for name, value in vars(batch).items() if isinstance(value, tuple)}
    return dataclasses.replace(batch, numerical=of(batch.numerical), label=None, **columns)


@every_model
def test_the_same_seed_gives_the_same_model_and_every_input_counts(name):
    spec = spec_for(name, 3, [5, 6])
    one, other = make(name, spec).eval(), make(name, spec).eval()
    batch = batch_of(spec, 8)
    assert torch.equal(one(batch), other(batch))
    with torch.no_grad():
        for engine in wiring.engines_of(one):
            for table in engine.tables:
                engine.set_rows(table.name, engine.rows_of(table.name).mul_(10))
        before = one(batch)
        assert not torch.equal(one(dataclasses.replace(batch, numerical=batch.numerical.flip(1))), before)
        swapped = (batch.categorical[0].flip(0), batch.categorical[1])
        assert not torch.equal(one(dataclasses.replace(batch, categorical=swapped)), before)
        if spec.channel("history"):
            for channel in ("target_item", "history"):
                other_sample = {channel: tuple(column.flip(0) for column in getattr(batch, channel))}
                assert not torch.equal(one(dataclasses.replace(batch, **other_sample)), before)


@every_model
@pytest.mark.parametrize("training", [False, True], ids=["prediction", "training"])
def test_what_a_model_reads_is_enough_and_all_of_it_counts(name, training):
    spec = history_spec([7], [30, 9], [30, 9], gaps=[4], length=8, beside=spec_of(2, [5, 6]))
    model, batch = make(name, spec).train(training), batch_of(spec, 12)
    reads = model.reads(spec, model.Config(**MODELS[name][1]), training=training)
    assert reads == {channel: spec.channels[channel] for channel in reads}

    @torch.no_grad()
    def result(batch):
        torch.manual_seed(0)
        return sum(model.losses(batch).values()) if training else model(batch)

    whole = result(batch)
    only = {channel: getattr(batch, channel) for channel in reads} | ({"label": batch.label} if training else {})
    assert torch.equal(result(Batch(**only)), whole)
    for channel in reads:
        columns = only[channel]
        other = tuple(column.flip(0) for column in columns) if isinstance(columns, tuple) else columns.flip(0)
        assert not torch.equal(result(dataclasses.replace(batch, **{channel: other})), whole), channel


@every_model
def test_bf16_autocast_gives_float32_logits_close_to_full_precision(name):
    spec = spec_for(name, 3, [50, 60])
    model, batch = make(name, spec).eval(), batch_of(spec, 64)
    with torch.no_grad():
        full = model(batch)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(batch)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)
