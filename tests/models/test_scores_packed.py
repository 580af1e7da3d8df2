"""Every model scores with weights made ready as it does without, and after a step as the trained one does."""

from __future__ import annotations

import pytest
import torch
from model_inputs import batch_of, history_spec, model_of, spec_of

from clickwise.kernels.prepacked import PackedWeights
from clickwise.models.dcnv2 import DCNv2
from clickwise.models.dien import DIEN
from clickwise.models.din import DIN
from clickwise.models.dlrm import DLRM
from clickwise.models.sim import SIM
from clickwise.models.wide_deep import WideDeep
from clickwise.run.scores import scores
from clickwise.run.session import build_session
from clickwise.train.evaluate import predictions
from clickwise.training_recipe import load_recipe

CPU = torch.device("cpu")
CLICKS, EVENTS = spec_of(3, [50, 30, 20]), history_spec([20], [50, 30], [50, 30], length=12)
MLPS = dict(bottom_mlp=(64, 8), top_mlp=(128, 64))
MODELS = {
    "dlrm": (DLRM, CLICKS, dict(embedding_dim=8, **MLPS)),
    "dcnv2": (DCNv2, CLICKS, dict(embedding_dim=8, cross_rank=16, **MLPS)),
    "dcnv2 parallel": (DCNv2, CLICKS, dict(embedding_dim=8, cross_rank=None, structure="parallel", **MLPS)),
    "wide_deep": (WideDeep, spec_of(3, [50, 30, 20], [None, 4, None]), dict(embedding_dim=8, deep_hidden=(128, 64))),
    "din": (DIN, EVENTS, dict(embedding_dim=8, top_mlp=(64, 32))),
    "dien": (DIEN, EVENTS, dict(embedding_dim=8, top_mlp=(64, 32))),
    "sim": (SIM, EVENTS, dict(embedding_dim=8, short_length=4, k=4, top_mlp=(64, 32))),
}


@pytest.fixture(params=MODELS)
def model_and_spec(request):
    model_class, spec, settings = MODELS[request.param]
    return model_of(model_class, spec, **settings), spec


def logits(model, batches, precision, **how):
    return torch.cat([logit_B for logit_B, _ in predictions(model, batches, precision=precision, device=CPU, **how)])


def same(found, expected, precision):
    """bf16 to the bit; float32 sums may be in another order."""
    return torch.equal(found, expected) if precision == "bf16" else \
        torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scores_are_those_of_plain_weights(model_and_spec, precision):
    model, spec = model_and_spec
    batches, packed = [batch_of(spec, rows, rows) for rows in (1, 3, 64, 2500)], PackedWeights()
    found = logits(model, batches, precision, weights=packed)
    assert same(found, logits(model, batches, precision), precision)
    assert torch.equal(found, logits(model, batches, precision, weights=packed))
    assert torch.equal(found, logits(model, batches, precision, weights=PackedWeights()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    after = logits(model, batches, precision, weights=packed)
    assert torch.equal(after, logits(model, batches, precision, weights=PackedWeights()))
    assert not torch.equal(after, found)


def test_logits_may_be_written_to_and_learned_from(model_and_spec):
    model, spec = model_and_spec
    batch, packed = batch_of(spec, 20), PackedWeights()
    logit_B = logits(model, [batch], "fp32", weights=packed)
    logit_B.add_(1)
    (logit_B * torch.ones(20, requires_grad=True)).sum().backward()
    sum(model.train().losses(batch).values()).backward()  # nothing made for scoring is in the way of training
    assert any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_of_65536(precision):
    model, spec = model_of(DLRM, CLICKS, embedding_dim=8, **MLPS), CLICKS
    batch = batch_of(spec, 65_536)
    found = logits(model, [batch], precision, weights=PackedWeights())
    assert same(found, logits(model, [batch], precision), precision)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recipe", ["tiny/dlrm", "tiny/wide_deep"])  # fused optimizers, and one of ours
def test_measured_while_training_are_the_weights_of_that_moment(recipe, precision):
    session = build_session(load_recipe(recipe, ["data.synthetic.rows={train: 2000, validation: 500, test: 700}",
                                                 "train.batch_size=100", f"train.precision={precision}"]))

    def measured() -> torch.Tensor:
        seen = []
        session.evaluate("test", watch=lambda logit_B, batch: seen.append(logit_B))
        of_rows = scores(session, session.dataset.spec, session.dataset.columns("test"))["logit"]
        assert torch.equal(torch.cat(seen), torch.from_numpy(of_rows)), "predicted is what was measured"
        plain = logits(session.model, session.evaluation_loader("test").epoch(0), precision)
        assert same(torch.cat(seen), plain, precision)
        return torch.cat(seen)

    before = measured()
    for batch in session.train_loader().epoch(0):
        session.step(batch)
    after = measured()
    assert not same(after, before, precision)
    session.model.load_state_dict(build_session(session.recipe).model.state_dict())
    assert torch.equal(measured(), before)
