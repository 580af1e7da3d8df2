"""Metrics of scored impressions: streaming, mergeable, float64.

    metrics = MetricSet(build_metrics(["auc", "log_loss", "map_at_12"]))
    metrics.update(logit_B, label_B, display_B)     # per batch, tensors on any device
    metrics.merge(of_another_process)
    metrics.compute()                             # {"rows": …, "base_rate": …, "auc": …, "auc_error_bound": …, …}

`metric.py` says what a metric is. A new one joins by a file, a line in `clickwise.registry`, and a line in the contract
tests (tests/contracts/test_metrics_contract.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from clickwise import registry
from clickwise.errors import RecipeError, nearest
from clickwise.metrics.arrays import (
    accuracy,
    auc,
    by_display,
    calibration,
    gauc,
    hit_rate,
    ids_of,
    log_loss,
    map,
    mrr,
    ndcg,
    normalized_entropy,
)
from clickwise.metrics.auc_in_groups import GAUC
from clickwise.metrics.displays import ByDisplay, in_one_pass
from clickwise.metrics.losses import Accuracy, Counts, LogLoss, NormalizedEntropy
from clickwise.metrics.metric import Flaws, Kept, Metric, Scored, Sums
from clickwise.metrics.ranking import MAP, MRR, NDCG, HitRate, RankingMetric
from clickwise.metrics.reliability import Calibration
from clickwise.metrics.report_material import ReportMaterial
from clickwise.metrics.roc import AUC, ExactAUC
from clickwise.metrics.slices import Slices

__all__ = ["AUC", "Accuracy", "ByDisplay", "Calibration", "Counts", "ExactAUC", "GAUC", "HitRate", "Kept", "LogLoss",
           "MAP", "METRICS", "MRR", "Metric", "MetricSet", "NDCG", "NormalizedEntropy", "RankingMetric",
           "ReportMaterial", "Scored", "Slices", "Sums", "accuracy", "auc", "build_metric", "build_metrics",
           "by_display", "calibration", "gauc", "hit_rate", "log_loss", "map", "measure", "mrr", "ndcg",
           "normalized_entropy"]

METRICS: dict[str, type[Metric]] = {name: registry.resolve("metric", name, "metrics")
                                    for name in registry.NAMES["metric"]}


def build_metrics(names: Iterable[str], where: str = "metrics") -> dict[str, Metric]:
    """Fresh metrics by name, in the order given; docs/metrics.md lists the names.

    Those of rankings may say how many of a display's first items count, and how ties are broken: `map_at_12`,
    `mrr`, `ndcg_at_5_pessimistic`. Raises RecipeError, which names `where`, for any other name.
    """
    return {name: build_metric(name, where) for name in names}


def build_metric(name: str, where: str = "metrics") -> Metric:
    """A fresh metric; see `build_metrics`. One of your own goes by its dotted path and is constructed without
    arguments."""
    if registry.is_path(name):
        metric = registry.resolve("metric", name, where)
        if not (isinstance(metric, type) and issubclass(metric, Metric)):
            raise RecipeError(where, found=f"{name!r} is no Metric", expected="a subclass of clickwise.metrics.Metric")
        return metric()
    if name in METRICS and name != "hit_rate":
        return METRICS[name]()
    parts = re.fullmatch(r"(?P<measure>\w+?)(_at_(?P<k>[1-9]\d{0,8}))?(_(?P<ties>pessimistic|optimistic))?", name)
    metric = METRICS.get(parts["measure"]) if parts else None
    if metric is None or not issubclass(metric, RankingMetric) or (metric is HitRate and parts["k"] is None):
        examples = ["hit_rate_at_1" if known == "hit_rate" else known for known in METRICS]
        raise RecipeError(where, found=repr(name), expected="names of metrics, such as auc or map_at_12",
                          do=nearest(name, [*examples, "map_at_12", "ndcg_at_5"]))
    return metric(k=int(parts["k"]) if parts["k"] else None, ties=parts["ties"] or "average")


def measure(labels: Any, scores: Any, displays: Any = None, *,
            metrics: Sequence[str] = ("auc", "log_loss", "normalized_entropy", "calibration")) -> dict[str, float]:
    """Several metrics of whole arrays at once: labels 0 or 1, scores as logits, and which rows were shown together
    where a metric asks for it. `clickwise.metrics.auc`, `.log_loss`, … give one of them, also from probabilities."""
    found = MetricSet(build_metrics(metrics))
    found.update(*(column if isinstance(column, torch.Tensor) else torch.from_numpy(np.array(column))
                   for column in (scores, labels)), None if displays is None else torch.from_numpy(ids_of(displays)))
    return found.compute()


class MetricSet(Metric):
    """Several metrics fed together: what they share (sigmoid, bins, losses) is computed once per block.

    Those by display keep the same rows, so only the first of them is fed, and all are read from it in one pass.
    `compute` returns the results of all, after `rows` and `base_rate`.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self.names = ["counts", *metrics]
        self.by_display = {name: metric for name, metric in metrics.items() if isinstance(metric, ByDisplay)}
        spared = list(self.by_display)[1:]
        self.metrics = {"counts": Counts(), **{name: metrics[name] for name in metrics if name not in spared}}
        self.flaws = Flaws()

    def add(self, scored: Scored) -> None:
        for metric in self.metrics.values():
            metric.add(scored)

    def result(self) -> dict[str, float]:
        found = dict(zip(self.by_display, in_one_pass(list(self.by_display.values())), strict=True))
        found |= {name: metric.result() for name, metric in self.metrics.items() if name not in found}
        for name in filter(registry.is_path, self.names):  # the first value of a metric of your own is the metric's
            found[name] = {name: next(iter(found[name].values())), **found[name]}
        return {key: value for name in self.names for key, value in found[name].items()}

    def merge(self, other: MetricSet) -> None:
        self.flaws.raise_if_any()
        other.flaws.raise_if_any()
        for name, metric in self.metrics.items():
            metric.merge(other.metrics[name])

    def reset(self) -> None:
        self.flaws = Flaws()
        for metric in self.metrics.values():
            metric.reset()

    def state_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        self.flaws.raise_if_any()
        return {name: metric.state_dict() for name, metric in self.metrics.items()}

    def load_state_dict(self, state: dict[str, dict[str, torch.Tensor]]) -> None:
        for name, metric in self.metrics.items():
            metric.load_state_dict(state[name])
