"""Metrics of a model over a mapping."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import nn

from clickwise import processes
from clickwise.batch import Batch
from clickwise.errors import DataError
from clickwise.metrics import Metric, MetricSet, build_metric
from clickwise.train.step import Precision, compute_in

Weights = contextlib.AbstractContextManager[object]  # `kernels.prepacked.PackedWeights`, or nothing
AS_THEY_ARE: Weights = contextlib.nullcontext()
EXTREME = 1000.0  # in size: numbers on one scale are a few, seldom more than a hundred


def predictions(model: nn.Module, batches: Iterable[Batch], *, precision: Precision, device: torch.device,
                weights: Weights = AS_THEY_ARE) -> Iterator[tuple[torch.Tensor, Batch]]:
    """For every batch the logits [B] (float32) and the batch, both on `device`; the model's mode is restored. The model
    runs with these `weights`, which may be made ready for it."""
    training = model.training
    model.eval()
    without_gradients = torch.inference_mode if device.type == "cpu" else torch.no_grad
    try:
        for batch in batches:
            batch = batch.to(device)
            with without_gradients(), compute_in(precision, device), weights:
                logit_B = model(batch)
            yield logit_B.clone(), batch  # which may be written to
    finally:
        model.train(training)


def evaluate(model: nn.Module, batches: Iterable[Batch], metrics: MetricSet, *, precision: Precision,
             device: torch.device, weights: Weights = AS_THEY_ARE,
             watch: Callable[[torch.Tensor, Batch], None] = lambda logit_B, batch: None,
             numerical: Sequence[str] = ()) -> dict[str, float]:
    """The computed metrics by name. `watch` sees every batch too (progress, material for the report); `numerical` are
    the names of the batches' numbers, for messages. Several processes give their parts of the batches, and all get the
    metrics of the whole."""
    metrics.reset()
    for logit_B, batch in predictions(model, batches, precision=precision, device=device, weights=weights):
        if batch.part is not None and not batch.part.samples:
            continue
        try:
            metrics.update(logit_B, batch.label, batch.display)
        except DataError:
            name, greatest = greatest_number([batch], numerical)
            if greatest > EXTREME and logit_B.isnan().any():
                raise DataError("evaluation", found=f"logits that are no numbers, for rows with {name} = {greatest:g}",
                                expected="numbers of the scale that the model was trained on",
                                do="correct that number, or prepare the rows again") from None
            raise
        watch(logit_B, batch)
    return of_all_processes(metrics)


def of_all_processes(metrics: MetricSet) -> dict[str, float]:
    """What the metrics of all processes make together, in each of them."""
    if processes.count() == 1:
        return metrics.compute()
    others = processes.at_first(metrics.state_dict())[1:]
    for state in others:
        other = copy.deepcopy(metrics)
        other.load_state_dict(state)
        metrics.merge(other)
    return processes.from_first(metrics.compute() if processes.is_first() else None)


def greatest_number(batches: Iterable[Batch], names: Sequence[str]) -> tuple[str, float]:
    """The greatest numerical in size, and the name of its column; ("", 0.0) where there is none."""
    found = ("", 0.0)
    for batch in batches:
        if batch.numerical is not None and batch.numerical.numel():
            greatest_N = batch.numerical.abs().amax(0)
            column = int(greatest_N.argmax())
            if float(greatest_N[column]) > found[1]:
                name = names[column] if column < len(names) else f"number {column} of the batch"
                found = (name, float(greatest_N[column]))
    return found


def is_defined(metric: str, batches: Iterable[Batch]) -> bool:
    """Whether a metric has a value on these labels and displays at all, whatever a model says: not the AUC of rows of
    one class, nor a measure of rankings where no display has both. It looks no further than it must."""
    built, looked_at = build_metric(metric), 0
    for number, batch in enumerate(batches, 1):
        built.update(torch.zeros(len(batch)), batch.label, batch.display)
        if number >= 2 * looked_at:  # a result takes the longer, the more rows there are
            looked_at = number
            if math.isfinite(_value_of(metric, built)):
                return True
    return math.isfinite(_value_of(metric, built))


def _value_of(metric: str, built: Metric) -> float:
    values = built.compute()
    return values.get(metric, next(iter(values.values())))


def is_better(metric: str, value: float, than: float | None) -> bool:
    """Whether `value` of this metric improves on `than` (None: on nothing yet); what is not finite never
    does."""
    if not math.isfinite(value):
        return False
    goodness = build_metric(metric).goodness
    return than is None or goodness(value) > goodness(than)
