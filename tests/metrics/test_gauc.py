from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.errors import DataError
from clickwise.metrics import GAUC
from clickwise.metrics.auc_in_groups import aucs
from clickwise.metrics.displays import rank_clicks
from clickwise.metrics.roc import exact_auc

SCORES = st.sampled_from([-math.inf, -3.0, -0.0, 0.0, 1e-40, 2.5, math.inf]) | st.floats(width=32, allow_nan=False)
ROWS = st.lists(st.tuples(st.integers(-3, 3), SCORES, st.booleans()), min_size=1, max_size=60)


@settings(deadline=None)
@given(ROWS)
def test_each_group_has_its_own_exact_auc(rows):
    columns = zip(*sorted(rows, key=lambda row: row[0]), strict=True)
    display_B, score_B, label_B = map(np.array, columns)
    score_B = score_B.astype(np.float32)
    groups, rows_G = np.unique(display_B, return_counts=True)
    expected = [exact_auc(score_B[display_B == group], label_B[display_B == group]) for group in groups]
    np.testing.assert_allclose(aucs(rank_clicks(rows_G, score_B, label_B)), expected, atol=1e-14)


def test_groups_weigh_by_impressions_and_one_class_is_skipped():
    metric = GAUC()
    metric.update(torch.tensor([1.0, 2.0, 5.0, 4.0, 3.0, 9.0]), torch.tensor([0, 1, 1, 0, 0, 1]),
                  torch.tensor([7, 7, 8, 8, 8, -1]))
    assert metric.compute() == {"gauc": 1.0, "gauc_groups": 2, "gauc_groups_skipped": 1}
    metric.update(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0]), torch.tensor([0, 1, 0, 0, 0]), torch.tensor([9] * 5))
    assert metric.compute()["gauc"] == pytest.approx((5 * 1.0 + 5 * 0.5) / 10)


def test_one_class_only_says_how_many_groups_were_skipped():
    metric = GAUC()
    metric.update(torch.zeros(4), torch.tensor([1, 1, 0, 0]), torch.tensor([1, 1, 2, 2]))
    results = metric.compute()
    assert math.isnan(results["gauc"]) and (results["gauc_groups"], results["gauc_groups_skipped"]) == (0, 2)


def test_groups_are_needed():
    with pytest.raises(DataError, match="display"):
        GAUC().update(torch.zeros(3), torch.zeros(3))
