"""Metrics of a model over a mapping."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from clickwise.batch import Batch
from clickwise.metrics import MetricSet, build_metric
from clickwise.train.step import Precision, compute_in


@torch.no_grad()
def predictions(model: nn.Module, batches: Iterable[Batch], *, precision: Precision,
                device: torch.device) -> Iterator[tuple[torch.Tensor, Batch]]:
    """For every batch the logits [B] (float32) and the batch, both on `device`; the model's mode is restored."""
    training = model.training
    model.eval()
    try:
        for batch in batches:
            batch = batch.to(device)
            with compute_in(precision, device):
                logit_B = model(batch)
            yield logit_B, batch
    finally:
        model.train(training)


def evaluate(model: nn.Module, batches: Iterable[Batch], metrics: MetricSet, *, precision: Precision,
             device: torch.device,
             watch: Callable[[torch.Tensor, Batch], None] = lambda logit_B, batch: None) -> dict[str, float]:
    """The computed metrics by name. `watch` sees every batch too (progress, material for the report)."""
    metrics.reset()
    for logit_B, batch in predictions(model, batches, precision=precision, device=device):
        metrics.update(logit_B, batch.label, batch.display)
        watch(logit_B, batch)
    return metrics.compute()


def is_better(metric: str, value: float, than: float | None) -> bool:
    """Whether `value` of this metric improves on `than` (None: on nothing yet); NaN never does."""
    if math.isnan(value):
        return False
    goodness = build_metric(metric).goodness
    return than is None or goodness(value) > goodness(than)
