from __future__ import annotations

import math

import pytest
import sklearn.metrics
import torch

from clickwise.metrics import LogLoss, NormalizedEntropy


def test_equals_scikit_learn():
    logit_B = torch.randn(5_000, generator=torch.Generator().manual_seed(0)) * 3
    label_B = torch.rand(5_000, generator=torch.Generator().manual_seed(1)) < 0.3
    metric = LogLoss()
    metric.update(logit_B, label_B)
    expected = sklearn.metrics.log_loss(label_B.numpy(), logit_B.double().sigmoid().numpy())
    assert metric.compute()["log_loss"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("logit, label, loss", [(800, 1, 0.0), (-800, 0, 0.0), (800, 0, 800.0), (-800, 1, 800.0),
                                                (30, 1, math.exp(-30)), (math.inf, 1, 0.0), (math.inf, 0, math.inf)])
def test_extreme_logits(logit, label, loss):
    metric = LogLoss()
    metric.update(torch.tensor([float(logit)]), torch.tensor([label]))
    assert metric.compute()["log_loss"] == pytest.approx(loss, rel=1e-9, abs=0)


def test_sums_do_not_lose_small_losses():
    """A million losses of 1e-6 beside one of 1,000: float32 sums would drop most of them."""
    metric = LogLoss()
    small = -math.log(math.expm1(1e-6))  # a logit whose loss, if clicked, is 1e-6
    metric.update(torch.tensor([-1000.0]), torch.tensor([1]))
    metric.update(torch.full((1_000_000,), small), torch.ones(1_000_000, dtype=torch.bool))
    assert metric.compute()["log_loss"] * 1_000_001 == pytest.approx(1001, rel=1e-6)


def test_best_constant_has_normalized_entropy_one():
    label_B = torch.tensor([1, 0, 0, 0, 0])
    metric = NormalizedEntropy()
    metric.update(torch.full((5,), math.log(0.2 / 0.8)), label_B)
    assert metric.compute()["normalized_entropy"] == pytest.approx(1, rel=1e-7)
