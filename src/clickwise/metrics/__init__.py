"""Metrics of scored impressions: streaming, mergeable, float64.

    metrics = MetricSet(build_metrics(["auc", "log_loss", "gauc"]))
    metrics.update(logit_B, label_B, group_B)     # per batch, tensors on any device
    metrics.merge(of_another_process)
    metrics.compute()                             # {"rows": …, "base_rate": …, "auc": …, "auc_error_bound": …, …}

`metric.py` says what a metric is. A new one joins by a file, a line in METRICS, and a line in the contract tests
(tests/contracts/test_metrics_contract.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from clickwise.errors import RecipeError, nearest
from clickwise.metrics.auc import AUC, ExactAUC
from clickwise.metrics.calibration import Calibration
from clickwise.metrics.gauc import GAUC
from clickwise.metrics.log_loss import Accuracy, Counts, LogLoss, NormalizedEntropy
from clickwise.metrics.metric import Flaws, Kept, Metric, Scored, Sums
from clickwise.metrics.report_material import ReportMaterial
from clickwise.metrics.slices import Slices

__all__ = ["AUC", "Accuracy", "Calibration", "Counts", "ExactAUC", "GAUC", "Kept", "LogLoss", "METRICS", "Metric",
           "MetricSet", "NormalizedEntropy", "ReportMaterial", "Scored", "Slices", "Sums", "build_metrics"]

METRICS: dict[str, type[Metric]] = {
    "auc": AUC,
    "exact_auc": ExactAUC,
    "log_loss": LogLoss,
    "normalized_entropy": NormalizedEntropy,
    "calibration": Calibration,
    "gauc": GAUC,
    "accuracy": Accuracy,
}


def build_metrics(names: Iterable[str], where: str = "metrics") -> dict[str, Metric]:
    """Fresh metrics by name, in the order given. Raises RecipeError, told to stand at `where`, for an unknown name."""
    names = list(names)
    for name in names:
        if name not in METRICS:
            raise RecipeError(where, found=repr(name), expected="names of metrics", do=nearest(name, METRICS))
    return {name: METRICS[name]() for name in names}


class MetricSet(Metric):
    """Several metrics fed together: what they share (sigmoid, bins, losses) is computed once per block.

    `compute` returns the results of all, after `rows` and `base_rate`.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self.metrics = {"counts": Counts(), **metrics}
        self.flaws = Flaws()

    def add(self, scored: Scored) -> None:
        for metric in self.metrics.values():
            metric.add(scored)

    def result(self) -> dict[str, float]:
        return {key: value for metric in self.metrics.values() for key, value in metric.result().items()}

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
