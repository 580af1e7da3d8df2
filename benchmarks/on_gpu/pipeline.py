"""Stage g: rows from files to the device, and how much of a step waits for them."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from pathlib import Path

from on_gpu.context import Context
from on_gpu.machine import ms_of
from on_gpu.models import RECIPES, criteo_spec, first_values_on_the_device

from clickwise.data.synthetic import synthesize
from clickwise.run.session import build_session
from clickwise.training_recipe import load_recipe


def run(context: Context) -> None:
    machine, sizes = context.machine, context.sizes
    settings = next(settings for model, _, settings in sizes.steps if model == "dlrm")
    with tempfile.TemporaryDirectory() as folder:
        path, rows = Path(folder) / "columns", {"train": sizes.pipeline_rows, "test": sizes.pipeline_batch}
        started = time.perf_counter()
        synthesize(criteo_spec(sizes, tuple(rows)), rows, path, alpha=sizes.alpha)
        made = time.perf_counter() - started
        size = sum(file.stat().st_size for file in path.rglob("train/*") if file.is_file())
        context.row("g", f"synthetic columns of Criteo, alpha {sizes.alpha}", "rows/s", sizes.pipeline_rows / made)
        with first_values_on_the_device():
            trainer = build_session(load_recipe(RECIPES["dlrm"], [
                f"data.path={path}", f"train.batch_size={sizes.pipeline_batch}", "train.precision=bf16",
                f"train.device={machine.device}", *settings]))
        loader, rates = trainer.train_loader(), []
        for epoch in range(3):
            started = time.perf_counter()
            for _ in loader.epoch(epoch):
                pass
            rates.append(sizes.pipeline_rows / (time.perf_counter() - started))
        rate = statistics.median(rates[1:])
        context.row("g", "loader alone, files in the page cache", "rows/s", rate,
                    bytes_per_s=rate * size / sizes.pipeline_rows)
        rates = []
        for epoch in range(3):
            machine.wait()
            started = time.perf_counter()
            for batch in loader.epoch(epoch):
                batch.to(machine.device)
            machine.wait()
            rates.append(sizes.pipeline_rows / (time.perf_counter() - started))
        context.row("g", "loader and copy to the device", "rows/s", statistics.median(rates[1:]))

        def endless():
            for epoch in itertools.count():
                yield from (batch for batch in loader.epoch(epoch) if len(batch) == sizes.pipeline_batch)

        held = next(endless()).to(machine.device).map(lambda column: column.clone())
        fed = endless()
        steps = min(sizes.window, sizes.pipeline_rows // sizes.pipeline_batch)
        ms_of(lambda: trainer.step(held), 5, machine.wait)
        pairs = [(ms_of(lambda: trainer.step(held), steps, machine.wait)[0],
                  ms_of(lambda: trainer.step(next(fed)), steps, machine.wait)[0]) for _ in range(sizes.windows)]
        held_ms, fed_ms = (statistics.median(each) for each in zip(*pairs, strict=True))
        context.row("g", f"dlrm {sizes.pipeline_batch:,}, steps fed by the loader", "samples/s",
                    1e3 * sizes.pipeline_batch / fed_ms, ms=fed_ms, ms_with_a_held_batch=held_ms,
                    share_that_waits=max(0.0, 1 - held_ms / fed_ms))
