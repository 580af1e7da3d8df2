"""Predictions are those of a model in evaluation mode, in whichever mode it is handed over."""

from __future__ import annotations

import pytest
import torch
from model_inputs import batch_of, history_spec, model_of, spec_of

from clickwise.metrics import MetricSet, build_metrics
from clickwise.models.din import DIN
from clickwise.models.dlrm import DLRM
from clickwise.train.evaluate import evaluate, predictions

CPU = torch.device("cpu")
MODELS = {  # dropout in training; that of DIN has running statistics too
    "dlrm": (DLRM, spec_of(2, [5, 30]), dict(bottom_mlp=(8, 4), top_mlp=(16,), dropout=0.5, embedding_dropout=0.5)),
    "din": (DIN, history_spec([], [30], [30]), dict(unit_mlp=(6,), top_mlp=(16,), activation="dice", dropout=0.5)),
}


@pytest.fixture(params=MODELS)
def model_and_batches(request):
    model_class, spec, settings = MODELS[request.param]
    return model_of(model_class, spec, embedding_dim=4, **settings), [batch_of(spec, 20, seed) for seed in range(2)]


def logits(model, batches):
    return torch.cat([logit_B for logit_B, _ in predictions(model, batches, precision="fp32", device=CPU)])


def test_a_model_in_training_predicts_without_dropout_and_trains_on(model_and_batches):
    model, batches = model_and_batches
    with torch.no_grad():
        expected = torch.cat([model.eval()(batch) for batch in batches])
        assert not torch.equal(torch.cat([model.train()(batch) for batch in batches]), expected), "no dropout to notice"
    model = model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = logits(model, batches), logits(model, batches)
    assert torch.equal(first, second)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_predictions_are_those_of_evaluation_mode(model_and_batches):
    model, batches = model_and_batches
    with torch.no_grad():
        expected = torch.cat([model.eval()(batch) for batch in batches])
    assert torch.equal(logits(model.train(), batches), expected)
    assert torch.equal(logits(model.eval(), batches), expected) and not model.training


def test_metrics_of_a_model_in_training_are_the_same_twice(model_and_batches):
    model, batches = model_and_batches
    model.train()
    first, second = (evaluate(model, batches, MetricSet(build_metrics(["log_loss"])), precision="fp32", device=CPU)
                     for _ in range(2))
    assert first == second and model.training


def test_predictions_that_are_left_early_leave_a_model_that_trains(model_and_batches):
    model, batches = model_and_batches
    left = predictions(model.train(), batches, precision="fp32", device=CPU)
    next(left)
    assert not model.training
    left.close()
    assert model.training
