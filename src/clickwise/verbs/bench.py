"""`clickwise bench`: how fast a recipe trains, predicts or reads, here and now.

Warm-up is left out. What is reported is the median over windows for throughput, and p50, p90, p95 and p99 for single
steps; of a loader its throughput alone.
Training steps follow each other as in a training: a GPU is waited for where a window ends. Predictions are waited for
one by one.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from clickwise import machine, memory
from clickwise.batch import Batch
from clickwise.data.loader import Loader
from clickwise.errors import DataError, UsageError
from clickwise.kernels.prepacked import PackedWeights
from clickwise.latest_run import latest_run
from clickwise.run.folder import RECIPE, recipe_of
from clickwise.run.session import Session, build_session
from clickwise.serve.signature import FILE as SIGNATURE
from clickwise.train.evaluate import predictions
from clickwise.train.step import Precision
from clickwise.training_recipe import load_recipe
from clickwise.verbs.timing import GPUClock, WaitingClock, throughput, time_calls

if TYPE_CHECKING:
    from clickwise.verbs.profiling import Profile

What = Literal["train", "inference", "data"]


def bench(name: str, overrides: list[str], *, what: What = "train", steps: int = 50, warmup: int = 10,
          batch_sizes: tuple[int, ...] = (), precisions: tuple[str, ...] = (), with_loading: bool = False,
          trust_paths: bool = False, profile: Path | None = None) -> dict[str, Any]:
    """One row of figures per precision and batch size (`rows`), and under which circumstances they were measured.
    `name` is that of a recipe, or a run folder; for inference also an export.

    Inference is of batches of the test mapping, held in memory, or with `with_loading` as the loader gives them. With a
    folder `profile`, further steps behind those that were timed are traced into it, and `profiles` tells of them.
    """
    if what == "inference" and (Path(name) / SIGNATURE).exists():
        from clickwise.verbs.bench_export import bench_export

        for option, given, do in (("--profile", profile, "operators are torch's, which an export does not call"),
                                  ("--precisions", precisions, "an export has the one that it was written in")):
            if given:
                raise UsageError(option, found="an export", expected="a recipe or a run", do=do)
        return bench_export(Path(name), steps=steps, warmup=warmup, batch_sizes=batch_sizes)
    for precision in precisions:
        if precision not in get_args(Precision):
            raise UsageError("--precisions", found=repr(precision),
                             expected=f"{', '.join(get_args(Precision))}, several with commas")
    traces = None
    if profile is not None:
        from clickwise.verbs.profiling import Profile

        traces = Profile(profile)
    memory.keep_freed_memory()
    folder = latest_run(Path(name))
    is_run = (folder / RECIPE).exists()
    recipe = recipe_of(folder, overrides, trust_paths=trust_paths) if is_run else load_recipe(name, overrides)
    measure = {"train": _train, "inference": _inference_with_loading if with_loading else _inference, "data": _data}
    rows = []
    for precision, size in itertools.product(precisions or (recipe.train.precision,),
                                             batch_sizes or (recipe.train.batch_size,)):
        config = dataclasses.replace(recipe.train, precision=precision, batch_size=size, evaluation_batch_size=size)
        session = build_session(dataclasses.replace(recipe, train=config), trust_paths=trust_paths)
        named = {} if what == "data" else {"precision": precision}
        rows.append({**named, "batch_size": size, **measure[what](session, steps, warmup, traces)})
        del session  # before the next one takes its place
    loading = {"loading": "included" if with_loading else "excluded"} if what == "inference" else {}
    profiles = {"profiles": traces.found} if traces else {}
    return {"what": what, **loading, "recipe": name, "overrides": list(overrides), "model": recipe.model_name,
            "steps": steps, "warmup": warmup, "rows": rows, **profiles,
            **machine.circumstances()}


def _train(session: Session, steps: int, warmup: int, traces: Profile | None) -> dict[str, float]:
    """Whole steps: waiting for the loader, copy to the device, forward, backward, update."""
    batches = _endless(session.train_loader())
    clock = GPUClock() if session.device.type == "cuda" else WaitingClock(session.device)
    return _time(lambda: session.step(next(batches)), clock, session, steps, warmup, traces, "train")


def _inference(session: Session, steps: int, warmup: int, traces: Profile | None) -> dict[str, float]:
    """Forward passes over batches that are in memory already: copy to the device, logits."""
    held = list(itertools.islice(_endless(_test_loader(session)), min(steps, 20)))
    return _time_predictions(session, itertools.cycle(held), steps, warmup, traces)


def _inference_with_loading(session: Session, steps: int, warmup: int, traces: Profile | None) -> dict[str, float]:
    """The same with waiting for the loader, which reads ahead while the model works, as when a file is scored."""
    return _time_predictions(session, _endless(_test_loader(session)), steps, warmup, traces)


def _test_loader(session: Session) -> Loader:
    """Batches of the test mapping; raises DataError where it does not fill one."""
    loader, size = session.evaluation_loader(session.recipe.data.test), session.evaluation_batch_size
    if loader.columns.rows < size:
        raise DataError(f"batch size {size:,}", found=f"the mapping {session.recipe.data.test!r} has only "
                        f"{loader.columns.rows:,} rows", expected="a batch no larger than the data")
    return loader


def _time_predictions(session: Session, batches: Iterator[Batch], steps: int, warmup: int,
                      traces: Profile | None) -> dict[str, float]:
    results = predictions(session.model, batches, precision=session.recipe.train.precision, device=session.device,
                          weights=PackedWeights())
    return _time(lambda: next(results), WaitingClock(session.device), session, steps, warmup, traces, "inference")


def _time(call: Callable[[], object], clock: WaitingClock | GPUClock, session: Session, steps: int, warmup: int,
          traces: Profile | None, what: str) -> dict[str, float]:
    config = session.recipe.train
    timed = time_calls(call, clock, config.batch_size, steps, warmup)
    if traces is not None:
        traces.of_calls(call, f"{what}-{config.precision}-{config.batch_size}")
    return timed


def _data(session: Session, steps: int, warmup: int, traces: None) -> dict[str, float]:
    """The loader alone, whole epochs: it reads ahead, so that how long one waits for a single batch says nothing of it.
    """
    loader = session.train_loader()
    rates = []
    for epoch in range(1 + -(-steps // len(loader))):
        started = time.perf_counter()
        for _ in loader.epoch(epoch):
            pass
        if epoch:  # the first is the warm-up
            rates.append(loader.columns.rows / (time.perf_counter() - started))
    return throughput(np.array(rates))


def _endless(loader: Loader) -> Iterator[Batch]:
    """Full batches, epoch after epoch."""
    for epoch in itertools.count():
        for batch in loader.epoch(epoch):
            if len(batch) == loader.batch_size:
                yield batch
