"""`clickwise bench`: how fast a recipe trains, predicts or reads, here and now.

Warm-up is left out, the device is synchronized around everything that is timed, and what is reported is the median
over windows for throughput, and p50, p90 and p99 for single steps.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch

from clickwise import machine, memory
from clickwise.batch import Batch
from clickwise.build import Trainer, build_trainer, load_recipe
from clickwise.train.evaluate import predictions

What = Literal["train", "inference", "data"]


def bench(name: str, overrides: list[str], *, what: What = "train", steps: int = 50, warmup: int = 10,
          batch_sizes: tuple[int, ...] = ()) -> dict[str, Any]:
    """One row of figures per batch size (`rows`), and under which circumstances they were measured."""
    memory.keep_freed_memory()
    recipe = load_recipe(name, overrides)
    rows = []
    for size in batch_sizes or (recipe.train.batch_size,):
        sizes = dataclasses.replace(recipe.train, batch_size=size, evaluation_batch_size=size)
        trainer = build_trainer(dataclasses.replace(recipe, train=sizes))
        measure = {"train": _train, "inference": _inference, "data": _data}[what]
        rows.append({"batch_size": size, **measure(trainer, steps, warmup)})
        del trainer  # before the next one takes its place
    return {"what": what, "recipe": name, "overrides": list(overrides), "model": recipe.model_name,
            "precision": recipe.train.precision, "steps": steps, "warmup": warmup, "rows": rows,
            **machine.circumstances()}


def _train(trainer: Trainer, steps: int, warmup: int) -> dict[str, float]:
    """Whole steps: waiting for the loader, copy to the device, forward, backward, update."""
    batches = _endless(trainer)
    return _time(lambda: trainer.step(next(batches)), trainer, steps, warmup)


def _inference(trainer: Trainer, steps: int, warmup: int) -> dict[str, float]:
    """Forward passes over batches that are in memory already: copy to the device, logits."""
    held = list(itertools.islice(_endless(trainer), min(steps, 20)))
    batches = itertools.cycle(held)
    results = predictions(trainer.model, batches, precision=trainer.recipe.train.precision, device=trainer.device)
    return _time(lambda: next(results), trainer, steps, warmup)


def _data(trainer: Trainer, steps: int, warmup: int) -> dict[str, float]:
    """The loader alone, whole epochs: a shuffled window costs its first batch what the others then get for nothing."""
    loader = trainer.train_loader()
    rates, milliseconds = [], []
    for epoch in range(1 + -(-steps // len(loader))):
        started, gaps = time.perf_counter(), []
        for _ in loader.epoch(epoch):
            gaps.append(time.perf_counter())
        if epoch:  # the first is the warm-up
            rates.append(loader.columns.rows / (gaps[-1] - started))
            milliseconds += list(1e3 * np.diff([started, *gaps]))
    return _figures(np.array(rates), np.array(milliseconds))


def _endless(trainer: Trainer) -> Iterator[Batch]:
    """Full batches of the training mapping, epoch after epoch."""
    loader = trainer.train_loader()
    for epoch in itertools.count():
        for batch in loader.epoch(epoch):
            if len(batch) == trainer.recipe.train.batch_size:
                yield batch


def _time(call: Callable[[], object], trainer: Trainer, steps: int, warmup: int) -> dict[str, float]:
    """Figures of `steps` calls in five windows, after `warmup` calls that are not counted."""
    synchronize = torch.cuda.synchronize if trainer.device.type == "cuda" else lambda: None
    for _ in range(warmup):
        call()
    synchronize()
    milliseconds = np.empty(steps)
    for index in range(steps):
        started = time.perf_counter()
        call()
        synchronize()
        milliseconds[index] = 1e3 * (time.perf_counter() - started)
    windows = [window.mean() for window in np.array_split(milliseconds, min(5, steps))]
    return _figures(1e3 * trainer.recipe.train.batch_size / np.array(windows), milliseconds)


def _figures(rates: np.ndarray, milliseconds: np.ndarray) -> dict[str, float]:
    """Median and range of the windows' samples/s, and percentiles of the single steps."""
    p50, p90, p95, p99 = np.percentile(milliseconds, [50, 90, 95, 99])
    return {"samples_per_s": round(float(np.median(rates)), 1), "samples_per_s_min": round(float(rates.min()), 1),
            "samples_per_s_max": round(float(rates.max()), 1), "ms_p50": round(float(p50), 4),
            "ms_p90": round(float(p90), 4), "ms_p95": round(float(p95), 4), "ms_p99": round(float(p99), 4)}
