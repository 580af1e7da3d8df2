"""Gradient boosting of scikit-learn, where scikit-learn is installed: its default settings, stopped early by a tenth of
the training rows, however few they are.

Features of at most 255 ids are categories, the ids of larger ones, which preparation orders by frequency, are numbers;
of a list it sees the first id. One thread works: the bits do not depend on the machine's number of cores.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clickwise.baselines.rows import Rows, Unable

MOST_ROWS = 1 << 16  # up to twice as many rows are all taken, of more every second, third, …
MOST_CATEGORIES = 255


def fit(rows: Rows, seed: int) -> Callable[[Rows], np.ndarray]:
    """A function of rows, their logits [B] float64. Raises Unable where scikit-learn is missing or refuses the rows."""
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise Unable("scikit-learn is not installed (pip install scikit-learn)") from None
    rows = rows.every(max(1, len(rows) // MOST_ROWS))
    if not 0 < rows.label_B.mean() < 1:
        raise Unable("the labels of the training rows are all alike")
    numbers = rows.numerical_BN.shape[1]
    model = HistGradientBoostingClassifier(
        random_state=seed % 2**32, early_stopping=True, categorical_features=[
            numbers + index for index, column in enumerate(rows.ids) if column.cardinality <= MOST_CATEGORIES])
    with threadpool_limits(1):
        try:
            model.fit(_matrix(rows), rows.label_B)
        except ValueError as error:
            raise Unable(f"scikit-learn refuses: {error}") from None

    def logits(rows: Rows) -> np.ndarray:
        with threadpool_limits(1):
            return model.decision_function(_matrix(rows))

    return logits


def _matrix(rows: Rows) -> np.ndarray:
    """Numbers and ids beside each other, float32 [B, columns]: exact for ids below 2^24."""
    matrix = np.empty((len(rows), rows.numerical_BN.shape[1] + len(rows.ids)), np.float32)
    matrix[:, : rows.numerical_BN.shape[1]] = rows.numerical_BN
    for index, column in enumerate(rows.ids, rows.numerical_BN.shape[1]):
        if column.row_V is None:
            matrix[:, index] = column.id_V
        else:
            row, first = np.unique(column.row_V, return_index=True)
            matrix[:, index] = 0
            matrix[row, index] = column.id_V[first]
    return matrix
