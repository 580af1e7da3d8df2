"""`clickwise bench`: how fast a recipe trains, predicts or reads, here and now.

Warm-up is left out. What is reported is the median over windows for throughput, and p50, p90 and p99 for single steps.
Training steps follow each other as in a training: a GPU is waited for where a window ends. Predictions are waited for
one by one.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clickwise import machine, memory
from clickwise.batch import Batch
from clickwise.data.loader import Loader
from clickwise.errors import DataError
from clickwise.kernels.prepacked import PackedWeights
from clickwise.run.folder import RECIPE, recipe_of
from clickwise.run.session import Session, build_session
from clickwise.serve.signature import FILE as SIGNATURE
from clickwise.train.evaluate import predictions
from clickwise.training_recipe import load_recipe
from clickwise.verbs.timing import GPUClock, WaitingClock, figures, time_calls

What = Literal["train", "inference", "data"]


def bench(name: str, overrides: list[str], *, what: What = "train", steps: int = 50, warmup: int = 10,
          batch_sizes: tuple[int, ...] = (), with_loading: bool = False, trust_paths: bool = False) -> dict[str, Any]:
    """One row of figures per batch size (`rows`), and under which circumstances they were measured. `name` is that of a
    recipe, or a run folder; for inference also an export.

    Inference is of batches of the test mapping, held in memory, or with `with_loading` as the loader gives them.
    """
    if what == "inference" and (Path(name) / SIGNATURE).exists():
        from clickwise.verbs.bench_export import bench_export

        return bench_export(Path(name), steps=steps, warmup=warmup, batch_sizes=batch_sizes)
    memory.keep_freed_memory()
    is_run = (Path(name) / RECIPE).exists()
    recipe = recipe_of(Path(name), overrides, trust_paths=trust_paths) if is_run else load_recipe(name, overrides)
    rows = []
    for size in batch_sizes or (recipe.train.batch_size,):
        sizes = dataclasses.replace(recipe.train, batch_size=size, evaluation_batch_size=size)
        session = build_session(dataclasses.replace(recipe, train=sizes), trust_paths=trust_paths)
        inference = _inference_with_loading if with_loading else _inference
        measure = {"train": _train, "inference": inference, "data": _data}[what]
        rows.append({"batch_size": size, **measure(session, steps, warmup)})
        del session  # before the next one takes its place
    loading = {"loading": "included" if with_loading else "excluded"} if what == "inference" else {}
    return {"what": what, **loading, "recipe": name, "overrides": list(overrides), "model": recipe.model_name,
            "precision": recipe.train.precision, "steps": steps, "warmup": warmup, "rows": rows,
            **machine.circumstances()}


def _train(session: Session, steps: int, warmup: int) -> dict[str, float]:
    """Whole steps: waiting for the loader, copy to the device, forward, backward, update."""
    batches = _endless(session.train_loader())
    clock = GPUClock() if session.device.type == "cuda" else WaitingClock(session.device)
    return time_calls(lambda: session.step(next(batches)), clock, session.recipe.train.batch_size, steps, warmup)


def _inference(session: Session, steps: int, warmup: int) -> dict[str, float]:
    """Forward passes over batches that are in memory already: copy to the device, logits."""
    held = list(itertools.islice(_endless(_test_loader(session)), min(steps, 20)))
    return _time_predictions(session, itertools.cycle(held), steps, warmup)


def _inference_with_loading(session: Session, steps: int, warmup: int) -> dict[str, float]:
    """The same with waiting for the loader, which reads ahead while the model works, as when a file is scored."""
    return _time_predictions(session, _endless(_test_loader(session)), steps, warmup)


def _test_loader(session: Session) -> Loader:
    """Batches of the test mapping; raises DataError where it does not fill one."""
    loader, size = session.evaluation_loader(session.recipe.data.test), session.evaluation_batch_size
    if loader.columns.rows < size:
        raise DataError(f"batch size {size:,}", found=f"the mapping {session.recipe.data.test!r} has only "
                        f"{loader.columns.rows:,} rows", expected="a batch no larger than the data")
    return loader


def _time_predictions(session: Session, batches: Iterator[Batch], steps: int, warmup: int) -> dict[str, float]:
    results = predictions(session.model, batches, precision=session.recipe.train.precision, device=session.device,
                          weights=PackedWeights())
    return time_calls(lambda: next(results), WaitingClock(session.device), session.recipe.train.batch_size, steps,
                      warmup)


def _data(session: Session, steps: int, warmup: int) -> dict[str, float]:
    """The loader alone, whole epochs: a shuffled window costs its first batch what the others then get for nothing."""
    loader = session.train_loader()
    rates, milliseconds = [], []
    for epoch in range(1 + -(-steps // len(loader))):
        started, gaps = time.perf_counter(), []
        for _ in loader.epoch(epoch):
            gaps.append(time.perf_counter())
        if epoch:  # the first is the warm-up
            rates.append(loader.columns.rows / (gaps[-1] - started))
            milliseconds += list(1e3 * np.diff([started, *gaps]))
    return figures(np.array(rates), np.array(milliseconds))


def _endless(loader: Loader) -> Iterator[Batch]:
    """Full batches, epoch after epoch."""
    for epoch in itertools.count():
        for batch in loader.epoch(epoch):
            if len(batch) == loader.batch_size:
                yield batch
