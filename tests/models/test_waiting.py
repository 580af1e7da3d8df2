"""A training step of a model of histories never waits for the device: on torch's device `meta` there are no values, so
that whatever depends on one raises."""

import contextlib

import pytest
import torch
from model_inputs import batch_of, history_spec

from clickwise.models.dien import DIEN
from clickwise.models.din import DIN
from clickwise.models.sim import SIM

SPEC = history_spec([9], [30, 5], [30, 5], gaps=[6], length=8)
DIM = 4
SMALL = dict(embedding_dim=DIM, top_mlp=(8,))
STEPS = {
    **{f"din, {scores}, {act}": (DIN, dict(scores=scores, unit_activation=act, activation=act, unit_mlp=(6,)))
       for scores in ("unit", "dot") for act in ("sigmoid", "relu", "prelu", "dice")},
    **{f"dien, {preset}": (DIEN, dict(preset=preset, gru_size=6, auxiliary_mlp=(6,), auxiliary_loss_weight=1.0))
       for preset in ("default", "compat")},
    **{f"sim, {search}": (SIM, dict(search=search, short_length=3, k=2, gru_size=6, hash_group=2, dropout=0.1,
                                    search_loss_weight=float(search == "soft"), auxiliary_loss_weight=1.0))
       for search in ("soft", "hard", "simhash", "sdim")},
    "sim, compat": (SIM, dict(preset="compat", short_length=3, k=2, gru_size=6, activation="dice")),
}


class RowsOfNothing(torch.nn.Module):
    """Embeddings as a model sees them, of tables without values."""

    def lookup_groups(self, *blocks):
        return tuple(torch.empty(*next(iter(block.values())).shape, DIM * len(block), device="meta", requires_grad=True)
                     for block in blocks)


@pytest.mark.parametrize("wait", [lambda x: x.nonzero(), lambda x: x[x], lambda x: bool(x.all()),
                                  lambda x: x.sum().item(), lambda x: x.tolist(), torch.unique])
def test_there_waiting_raises(wait):
    with pytest.raises((NotImplementedError, RuntimeError)):
        wait(torch.ones(3, dtype=torch.bool, device="meta"))


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_waits_for_nothing(monkeypatch, name, training):
    monkeypatch.setattr(torch, "autocast", lambda *args, **settings: contextlib.nullcontext())  # it knows no `meta`
    model_class, settings = STEPS[name]
    model = model_class(SPEC, RowsOfNothing(), model_class.Config(**{**SMALL, **settings})).to("meta").train(training)
    batch = batch_of(SPEC, 12).map(lambda tensor: tensor.to("meta"))
    if not training:
        with torch.no_grad():
            assert model(batch).shape == (12,)
        return
    sum(model.losses(batch).values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
