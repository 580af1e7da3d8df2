"""Metrics of whole arrays, by the classes that training measures with.

    auc(labels, scores); log_loss(labels, probabilities); ndcg(labels, scores, displays, k=5)

`labels` are 0 and 1, or bools. `scores` may be of any scale, greater for a likelier click: probabilities, logits, the
output of another library. `probabilities` lie in 0 … 1. `displays` say which rows were shown together: integers, texts,
anything that can be compared. Each is an array, a list or a column of a frame, with one value per row.

Raises DataError for NaN, for labels other than 0 and 1, and for columns of different lengths.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from clickwise.errors import DataError
from clickwise.metrics.auc_in_groups import GAUC
from clickwise.metrics.displays import ByDisplay, rank_clicks
from clickwise.metrics.losses import Accuracy, LogLoss, NormalizedEntropy
from clickwise.metrics.metric import Metric
from clickwise.metrics.ranking import MAP, MRR, NDCG, HitRate
from clickwise.metrics.reliability import Calibration
from clickwise.metrics.roc import ExactAUC

SMALLEST_NORMAL = 0x00800000  # the bits of the least float32 that is not denormal


def auc(labels: Any, scores: Any) -> float:
    """Share of pairs (click, non-click) in which the click scores higher, a tie ½; exact. NaN for one class."""
    return _value(ExactAUC(), labels, _ranked(scores))


def gauc(labels: Any, scores: Any, groups: Any) -> float:
    """The mean of the AUCs within groups, weighted by rows; groups of one class are left out."""
    return _value(GAUC(), labels, _ranked(scores), groups)


def log_loss(labels: Any, probabilities: Any) -> float:
    """Mean of −ln of the probability given to what came true, nats."""
    return _value(LogLoss(), labels, _logits(probabilities))


def normalized_entropy(labels: Any, probabilities: Any) -> float:
    """Log loss over the entropy of the click rate: 1 is the best constant."""
    return _value(NormalizedEntropy(), labels, _logits(probabilities))


def calibration(labels: Any, probabilities: Any) -> float:
    """Sum of probabilities over number of clicks."""
    return _value(Calibration(), labels, _logits(probabilities))


def accuracy(labels: Any, probabilities: Any) -> float:
    """Share of rows whose more probable class came true."""
    return _value(Accuracy(), labels, _logits(probabilities))


def map(labels: Any, scores: Any, displays: Any, k: int | None = None, ties: str = "average") -> float:
    """Mean average precision of displays with a click, at k (None: the whole display)."""
    return _value(MAP(k, ties), labels, _ranked(scores), displays)


def ndcg(labels: Any, scores: Any, displays: Any, k: int | None = None, ties: str = "average") -> float:
    """Mean normalised discounted cumulative gain of displays with a click, at k (None: the whole display)."""
    return _value(NDCG(k, ties), labels, _ranked(scores), displays)


def mrr(labels: Any, scores: Any, displays: Any, k: int | None = None, ties: str = "average") -> float:
    """Mean of 1 / rank of a display's first click; 0 for a display whose first click comes after k."""
    return _value(MRR(k, ties), labels, _ranked(scores), displays)


def hit_rate(labels: Any, scores: Any, displays: Any, k: int, ties: str = "average") -> float:
    """Share of displays with a click that have one among the first k."""
    return _value(HitRate(k, ties), labels, _ranked(scores), displays)


def by_display(labels: Any, scores: Any, displays: Any, metric: str = "ndcg") -> tuple[np.ndarray, np.ndarray]:
    """(displays, in ascending order; the metric's value in each, float64, NaN where it has none), for a metric such as
    `ndcg_at_5`, `map_at_12_pessimistic`, `gauc`."""
    from clickwise.metrics import build_metric

    built = build_metric(metric, "metric")
    if not isinstance(built, ByDisplay):
        raise DataError("metric", found=f"{metric!r}, which has one value for all rows",
                        expected="gauc or a metric of rankings, such as ndcg_at_5")
    score_B, label_B = _ranked(scores), _column("labels", labels)
    ids, index_B, items_G = np.unique(_column("displays", displays), return_inverse=True, return_counts=True)
    _check_lengths({"labels": label_B, "scores": score_B, "displays": index_B})
    if not np.isin(label_B, (0, 1)).all():
        raise DataError("metrics: labels", found="a value other than 0 and 1", expected="0 or 1 per impression")
    order_B = np.argsort(index_B, kind="stable")
    return ids, built.of_displays(rank_clicks(items_G, score_B[order_B], label_B[order_B].astype(bool)))


def _value(metric: Metric, labels: Any, score_B: np.ndarray, displays: Any = None) -> float:
    columns = {"labels": _column("labels", labels), "scores": score_B}
    display_B = None
    if displays is not None:
        columns["displays"] = display_B = ids_of(displays)
    _check_lengths(columns)
    if columns["labels"].dtype.kind not in "biuf":
        raise DataError("metrics: labels", found=f"{columns['labels'].dtype} values", expected="0 or 1 per impression")
    metric.update(torch.from_numpy(score_B), torch.from_numpy(columns["labels"]),
                  None if display_B is None else torch.from_numpy(display_B))
    return next(iter(metric.compute().values()))


def ids_of(displays: Any) -> np.ndarray:
    """Integers that tell displays apart, int64 [rows], whatever names them."""
    found = _column("displays", displays)
    return found.astype(np.int64) if found.dtype.kind in "bi" else np.unique(found, return_inverse=True)[1]


def _column(name: str, values: Any) -> np.ndarray:
    """The values as an array of one dimension that owns its memory."""
    found = np.asarray(values)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise DataError(f"metrics: {name}", found=f"shape {list(found.shape)}", expected="one value per row")
    return np.array(found)


def _check_lengths(columns: dict[str, np.ndarray]) -> None:
    if len({len(column) for column in columns.values()}) > 1:
        raise DataError("metrics", found=", ".join(f"{len(column):,} {name}" for name, column in columns.items()),
                        expected="one of each per row")


def _numbers(name: str, values: Any) -> np.ndarray:
    found = _column(name, values)
    if found.dtype.kind not in "biuf":
        raise DataError(f"metrics: {name}", found=f"{found.dtype} values", expected="numbers")
    if found.dtype.kind == "f" and np.isnan(found).any():
        raise DataError(f"metrics: {name}", found="NaN", expected="numbers")
    return found


def _ranked(scores: Any) -> np.ndarray:
    """float32 in the order of the scores, equal where they are. What float32 cannot hold goes by its rank: the bits of
    positive floats are in the order of the numbers, so 0, 1, 2, … become the first floats there are."""
    score_B = _numbers("scores", scores)
    if score_B.dtype == np.float32:
        return score_B
    rank_B = np.unique(score_B, return_inverse=True)[1]
    return (rank_B + SMALLEST_NORMAL).astype(np.uint32).view(np.float32)


def _logits(probabilities: Any) -> np.ndarray:
    """float32, as models emit them: of a model's own probabilities the logits that they came from."""
    probability_B = _numbers("probabilities", probabilities).astype(np.float64)
    outside = (probability_B < 0) | (probability_B > 1)
    if outside.any():
        raise DataError("metrics: probabilities", found=repr(float(probability_B[outside][0])), expected="0 … 1",
                        do="for logits: clickwise.measure(labels, logits)")
    with np.errstate(divide="ignore"):
        return (np.log(probability_B) - np.log1p(-probability_B)).astype(np.float32)
