"""What one column alone says of the label: almost all of it where the label, or what follows from it, is among the
features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from clickwise.baselines.rows import Rows
from clickwise.metrics.roc import exact_auc

ALL_BUT_TELLS = 0.99  # AUC
FEWEST = 10  # clicks and non-clicks: of fewer, a column may rank all rightly by chance
SMOOTHING = 10.0  # rows of the mean click rate that every id has beside its own


def telling_columns(train: Rows, measured: Rows, numbers: Sequence[str]) -> dict[str, float]:
    """Column → its AUC on `measured`, of those that reach `ALL_BUT_TELLS`; `numbers` names the numerical ones.

    A number ranks by itself, in either direction. An id ranks by its click rate in `train`, a list of ids by the mean
    of theirs. Where both are the same rows, click rates are those of every second row and rank the others.
    """
    if train is measured:
        train, measured = train.every(2), train.every(2, 1)
    clicks = int(measured.label_B.sum())
    if min(clicks, len(measured) - clicks) < FEWEST:
        return {}
    return {name: auc for name, auc in _aucs(train, measured, numbers) if auc >= ALL_BUT_TELLS}


def _aucs(train: Rows, measured: Rows, numbers: Sequence[str]) -> Iterator[tuple[str, float]]:
    for name, value_B in zip(numbers, measured.numerical_BN.T, strict=True):
        auc = exact_auc(np.ascontiguousarray(value_B), measured.label_B)
        yield name, max(auc, 1 - auc)
    rate, click_B = train.label_B.mean(), train.label_B.astype(np.float64)
    for fitted, column in zip(train.ids, measured.ids, strict=True):
        rate_of_id = (fitted.by_id(click_B) + SMOOTHING * rate) / (fitted.counts() + SMOOTHING)
        length_B = column.lengths(len(measured))
        score_B = (column.sums(rate_of_id, len(measured)) + rate * (length_B == 0)) / np.maximum(length_B, 1)
        yield column.name, exact_auc(score_B, measured.label_B)
