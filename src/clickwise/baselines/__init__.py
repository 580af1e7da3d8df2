"""What a model is measured beside, on the same rows: a constant, a logistic regression, boosted trees, single columns.

Each learns from at most about 200,000 training rows (`rows.py`) and depends on them and a seed alone: same rows, same
bits. A baseline is a function of training rows and a seed that returns a function of other rows, their logits [B]; it
raises `Unable`, which says why, where it cannot be fitted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clickwise.baselines import boosted_trees, logistic_regression
from clickwise.baselines.rows import Rows

Baseline = Callable[[Rows, int], Callable[[Rows], np.ndarray]]

BASELINES: dict[str, Baseline] = {"logistic_regression": logistic_regression.fit, "boosted_trees": boosted_trees.fit}
