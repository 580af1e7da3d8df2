"""Metrics of arrays are those of training, and take what people have: lists, frames, scores of any scale."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

import clickwise as cw
from clickwise.errors import DataError
from clickwise.metrics import build_metric

RNG = np.random.default_rng(0)
ROWS = 3000
SCORE = np.round(RNG.normal(-1, 2, ROWS), 2).astype(np.float32)  # with ties
LABEL = RNG.random(ROWS) < 1 / (1 + np.exp(-SCORE))
DISPLAY = RNG.integers(0, 300, ROWS) * 7 - 5
PROBABILITY = 1 / (1 + np.exp(-SCORE.astype(np.float64)))


def of_rows(name):
    return cw.measure(LABEL, SCORE, DISPLAY, metrics=[name])[name]


@pytest.mark.parametrize("name", ["log_loss", "normalized_entropy", "calibration", "accuracy"])
def test_of_probabilities(name):
    assert getattr(cw.metrics, name)(LABEL, PROBABILITY) == pytest.approx(of_rows(name), rel=1e-7)
    with pytest.raises(DataError, match="expected 0 … 1"):
        getattr(cw.metrics, name)(LABEL, SCORE)


def test_log_loss_is_scikit_learns_and_one_of_certainty_is_none():
    assert cw.metrics.log_loss(LABEL, PROBABILITY) == pytest.approx(sklearn.metrics.log_loss(LABEL, PROBABILITY),
                                                                    rel=1e-6)
    assert cw.metrics.log_loss([0, 1], [0.0, 1.0]) == 0 and cw.metrics.log_loss([0, 1], [1.0, 1.0]) == math.inf


@pytest.mark.parametrize("scores", [SCORE, PROBABILITY, SCORE.astype(np.float64) * 1e-9 + 1,
                                    (SCORE * 100).round().astype(int)])
def test_scores_of_any_scale(scores):
    expected = sklearn.metrics.roc_auc_score(LABEL, scores)
    assert cw.metrics.auc(LABEL, scores) == pytest.approx(expected, abs=1e-12)
    assert cw.metrics.gauc(LABEL, scores, DISPLAY) == of_rows("gauc")
    for name in ("map", "mrr", "ndcg"):
        assert getattr(cw.metrics, name)(LABEL, scores, DISPLAY) == of_rows(name)
        assert getattr(cw.metrics, name)(LABEL, scores, DISPLAY, k=3, ties="pessimistic") == of_rows(
            f"{name}_at_3_pessimistic")
    assert cw.metrics.hit_rate(LABEL, scores, DISPLAY, 2) == of_rows("hit_rate_at_2")


@pytest.mark.parametrize("name", ["map", "map_at_2", "ndcg_at_5", "mrr_at_3", "mrr_optimistic", "hit_rate_at_1",
                                  "hit_rate_at_4_pessimistic", "gauc"])
def test_by_display(name):
    displays, values = cw.metrics.by_display(LABEL, PROBABILITY, DISPLAY, name)
    np.testing.assert_array_equal(displays, np.unique(DISPLAY))
    for display, value in list(zip(displays, values, strict=True))[:40]:
        rows = display == DISPLAY
        metric = build_metric(name)
        found = cw.measure(LABEL[rows], SCORE[rows], DISPLAY[rows], metrics=[name])[metric.name]
        assert value == pytest.approx(found, abs=1e-12, nan_ok=True)
    weights = np.bincount(np.searchsorted(displays, DISPLAY)) if name == "gauc" else np.ones(len(values))
    known = ~np.isnan(values)
    assert np.average(values[known], weights=weights[known]) == pytest.approx(of_rows(name), abs=1e-12)


def test_what_people_have():
    frame = pd.DataFrame({"label": LABEL.astype(int), "score": PROBABILITY, "user": DISPLAY.astype(str)})
    frame = frame.sample(frac=1, random_state=1)
    assert cw.metrics.gauc(frame.label, frame.score, frame.user) == pytest.approx(of_rows("gauc"), abs=1e-12)
    assert cw.measure(frame.label, SCORE[frame.index], frame.user, metrics=["gauc"])["gauc"] == pytest.approx(
        of_rows("gauc"), abs=1e-12)
    users, values = cw.metrics.by_display(frame.label.tolist(), frame.score.tolist(), frame.user.tolist())
    assert users.dtype.kind == "U" and len(values) == len(users)
    assert cw.metrics.auc([False, True], [[0.1], [0.2]]) == 1.0 and math.isnan(cw.metrics.auc([1, 1], [0, 1]))


@pytest.mark.parametrize("call, words", [
    (lambda: cw.metrics.auc([0, 1], [0.1]), "2 labels, 1 scores"),
    (lambda: cw.metrics.auc([0, 2], [0.1, 0.2]), "other than 0 and 1"),
    (lambda: cw.metrics.auc(["no", "yes"], [0.1, 0.2]), "metrics: labels found <U3 values"),
    (lambda: cw.metrics.auc([0, 1], [0.1, math.nan]), "metrics: scores found NaN"),
    (lambda: cw.metrics.auc([0, 1], ["a", "b"]), "expected numbers"),
    (lambda: cw.metrics.auc([0, 1], np.zeros((2, 2))), "one value per row"),
    (lambda: cw.metrics.by_display([0, 1], [0.1, 0.2], [1, 1], "auc"), "one value for all rows"),
    (lambda: cw.metrics.by_display([0, 3], [0.1, 0.2], [1, 1]), "other than 0 and 1"),
    (lambda: cw.metrics.map([0, 1], [0.1, 0.2], [1, 1, 2]), "3 displays")])
def test_one_message(call, words):
    with pytest.raises(DataError) as error:
        call()
    assert words in " ".join(str(error.value).split()), str(error.value)
