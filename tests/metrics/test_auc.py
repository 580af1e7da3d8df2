from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.metrics import AUC, ExactAUC
from clickwise.metrics.roc import exact_auc


def streamed(logit_B, label_B, **options):
    metric = AUC(**options)
    metric.update(torch.from_numpy(np.asarray(logit_B, np.float32)), torch.from_numpy(np.asarray(label_B, bool)))
    return metric.compute()


def clicks(rate: float, rows: int = 200_000, spread: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    logit_B = rng.normal(math.log(rate / (1 - rate)), spread, rows).astype(np.float32)
    return logit_B, rng.random(rows) < 1 / (1 + np.exp(-logit_B))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(width=32, allow_nan=False), st.booleans()), min_size=2, max_size=60),
       st.sampled_from([2, 16, 1024]))
def test_error_stays_below_the_bound_for_any_scores(pairs, bins):
    logit_B, label_B = np.array(pairs, np.float32).T
    results, exact = streamed(logit_B, label_B == 1, bins=bins), exact_auc(logit_B, label_B == 1)
    assert math.isnan(exact) and math.isnan(results["auc"]) or (
        abs(results["auc"] - exact) <= results["auc_error_bound"] + 1e-13)


def test_bound_is_reached_by_a_perfect_order_inside_one_bin():
    logit_B = np.linspace(1.0, 1.001, 10, dtype=np.float32)
    results = streamed(logit_B, logit_B > 1.0005, bins=2)
    assert (results["auc"], results["auc_error_bound"]) == (0.5, 0.5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([-math.inf, -2.0, -0.0, 0.0, 1.5, math.inf]), st.booleans()), min_size=2))
def test_exact_equals_the_mean_over_pairs(pairs):
    logit_B, label_B = np.array([p[0] for p in pairs], np.float32), np.array([p[1] for p in pairs])
    positive, negative = logit_B[label_B][:, None], logit_B[~label_B]
    if positive.size and negative.size:
        expected = np.mean((positive > negative) + 0.5 * (positive == negative))
        assert exact_auc(logit_B, label_B) == pytest.approx(expected, abs=1e-14)
    else:
        assert math.isnan(exact_auc(logit_B, label_B))


@pytest.mark.parametrize("rate, spread", [(0.002, 0.7), (0.03, 1.0), (0.25, 1.2), (0.5, 3.0), (0.9, 1.0)])
def test_realistic_scores_are_right_to_a_millionth(rate, spread):
    logit_B, label_B = clicks(rate, spread=spread)
    results = streamed(logit_B, label_B)
    exact = sklearn.metrics.roc_auc_score(label_B, logit_B)
    assert abs(results["auc"] - exact) < 1e-6
    assert abs(results["auc"] - exact) <= results["auc_error_bound"] < 1e-5


def test_saturated_scores_keep_their_order():
    """Far tails hold everything: scores of a diverging model, ±inf, the largest float."""
    logit_B = np.concatenate([np.linspace(-500, -50, 200), np.linspace(50, 500, 200), [-np.inf, np.inf, 3e38, -3e38]])
    logit_B = logit_B.astype(np.float32)
    label_B = np.random.default_rng(0).random(len(logit_B)) < 0.5
    assert streamed(logit_B, label_B)["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(
        label_B, np.clip(logit_B, -3.3e38, 3.3e38)), abs=1e-3)
    assert streamed([-np.inf, 3e38, np.inf], [False, False, True])["auc"] == 0.75  # 3e38 shares the bin of inf
    assert streamed([-np.inf, 1e3, np.inf], [False, False, True])["auc"] == 1


def test_constant_scores_are_one_half():
    assert streamed([-6.2] * 1000, [True] + [False] * 999)["auc"] == 0.5


def test_many_rows_do_not_overflow():
    metric = AUC(bins=4)
    metric.update(torch.tensor([-9.0, 9.0]), torch.tensor([False, True]))
    metric.sums["counts"] *= 10**11  # pairs: 10^22, more than an int64 holds
    assert metric.compute()["auc"] == 1


def test_exact_keeps_what_float32_tells_apart():
    close = torch.tensor([1.0, 1.0 + 2**-23])
    for label, auc in (([False, True], 1.0), ([True, False], 0.0)):
        metric = ExactAUC()
        metric.update(close, torch.tensor(label))
        assert metric.compute() == {"exact_auc": auc}
