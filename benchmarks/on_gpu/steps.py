"""Stages c, d and h: training steps, inference, and where a step's time goes."""

from __future__ import annotations

import contextlib
import gc
import itertools
import statistics
import time
from collections import Counter

import torch
from on_gpu.context import Context
from on_gpu.machine import ms_of, plain_torch, single_ms
from on_gpu.models import compile_model, distinct_share, ready, recipe_of, spec_of, without_dropout
from on_gpu.roofline import PREDICTED_STEPS, PUBLISHED_INFERENCE, PUBLISHED_STEPS, floor_ms, work_of_step

from clickwise.train.evaluate import predictions

# How far our kernels may lie from plain torch in the same precision, as a share. Bf16 and float32 of one batch differ
# by up to 0.002 in the losses and 0.03 in the change (DLRM 0.001, DIN 0.03: Adam makes whole steps of small gradients);
# other orders of the same bf16 sums by less.
SAME_LOSS, SAME_CHANGE = 0.005, 0.1
FIRST_ROWS = 4096  # of each table whose change is compared: those of the most frequent ids
Compared = tuple[list[float], torch.Tensor]  # the losses of the first steps, and how these changed the weights
ENGINE = {"fast": "fused", "plain torch": "reference", "compiled": "fused"}


def train(context: Context, model: str, batch: int, settings: tuple[str, ...], variants: tuple[str, ...],
          stages: str) -> None:
    """Rows of stage c for each variant, and of stage h for the first.

    fast         our kernels, eager
    plain torch  the engine `reference` and no kernels
    compiled     the model under torch.compile, its tables by our kernels
    """
    compared = {}
    for variant in variants:
        case = f"{model} {batch:,}, {variant}"
        try:
            with plain_torch() if variant == "plain torch" else contextlib.nullcontext():
                compared[variant] = _train(context, model, batch, settings, variant, stages)
        except Exception as error:  # out of memory, or a compiler's: the other variants go on
            context.row("c", case, "samples/s", None, error=f"{type(error).__name__}: {str(error)[:300]}",
                        holds=False if variant == "fast" else None)
        gc.collect()
        context.machine.forget()
        stages = stages.replace("h", "")
    if "fast" in compared and "c" in stages:
        context.row("c", f"{model} {batch:,}, captured in a CUDA graph", "samples/s", None,
                    remark="there is no captured step yet")
    if {"fast", "plain torch"} <= compared.keys():
        _compare(context, model, batch, compared["fast"], compared["plain torch"])


def _compare(context: Context, model: str, batch: int, fast: Compared, plain: Compared) -> None:
    """Whether the first steps have the losses of plain torch, and move the weights as it does."""
    case = f"{model} {batch:,}, fast against plain torch"
    (losses, change), (plain_losses, plain_change) = fast, plain
    off = max(abs(a - b) / abs(b) if a == a and b else float("inf") for a, b in zip(losses, plain_losses, strict=True))
    context.row("c", case, f"losses of {len(losses)} steps, most apart", off, "of a loss", bound=SAME_LOSS,
                holds=off <= SAME_LOSS)
    off = float((change - plain_change).norm() / plain_change.norm())
    context.row("c", case, f"weights changed by {len(losses)} steps, apart", off, "of the change", bound=SAME_CHANGE,
                holds=off <= SAME_CHANGE)


def _train(context: Context, model: str, batch: int, settings: tuple[str, ...], variant: str,
           stages: str) -> Compared:
    """Rows of one variant; the losses of its first steps, and how these changed the weights."""
    machine, sizes = context.machine, context.sizes
    recipe = recipe_of(model, batch, (*settings, f"embedding.engine={ENGINE[variant]}"))
    machine.forget()
    started = time.perf_counter()
    trained = ready(recipe, sizes, machine)
    machine.wait()
    built, turn = time.perf_counter() - started, itertools.cycle(trained.batches)
    if variant == "compiled":
        compile_model(trained.model, machine.compiler)

    def step() -> dict[str, torch.Tensor]:
        return trained.step(next(turn))

    before, started = _weights(trained.model), time.perf_counter()
    with without_dropout(trained.model):
        losses = [sum(step().values())]
        machine.wait()
        first = time.perf_counter() - started
        losses = torch.stack(losses + [sum(step().values()) for _ in range(sizes.compared_steps - 1)]).tolist()
    change = _weights(trained.model) - before
    del before
    if "c" in stages:  # dropout takes part from here on, and what it compiles is not timed
        step()
        windows = [ms_of(step, sizes.window, machine.wait) for _ in range(sizes.windows)]
        ms, host_ms = statistics.median_low(windows)
        singles = single_ms(step, sizes.singles, machine.wait)
        work = work_of_step(recipe, spec_of(model, sizes), distinct_share(trained.batches[0]))
        ceilings, key = context.ceilings(), (model, batch)
        predicted = PREDICTED_STEPS.get(key) if variant == "fast" else None
        share = floor_ms(work, batch, ceilings) / ms if work and ceilings else None
        context.row("c", f"{model} {batch:,}, {variant}", "samples/s", 1e3 * batch / ms, predicted=predicted,
                    published=PUBLISHED_STEPS.get(key), ms=ms, ms_of_windows=[ms for ms, _ in windows],
                    host_ms=host_ms, single_ms_p50=statistics.median_low(singles), roofline_share=share,
                    peak_gib=machine.peak_gib(), model_built_s=built, first_step_s=first, losses=losses,
                    precision=recipe.train.precision, distinct_ids=distinct_share(trained.batches[0]))
    if "h" in stages:
        _profile(context, f"{model} {batch:,}, {variant}", step)
    return losses, change


def _weights(model: torch.nn.Module) -> torch.Tensor:
    """A copy of the dense weights and of the first rows of every table."""
    return torch.cat([weight[:FIRST_ROWS if ".tables." in f".{name}" else None].float().flatten()
                      for name, weight in model.state_dict().items() if weight.is_floating_point()])


def _profile(context: Context, case: str, step) -> None:
    """The kernels that take a step's time, and how long the device waits between them."""
    machine, steps = context.machine, context.sizes.profiled_steps
    with torch.profiler.profile() as profile:
        ms_of(step, steps, machine.wait)
    events = [event for event in profile.events()  # annotations, as of an optimizer's step, lie over the kernels
              if event.device_type == machine.profiled and not event.is_user_annotation]
    if not events:
        context.row("h", case, "launches", None, error="the profiler saw nothing on the device", holds=False)
        return
    ms, calls = Counter(), Counter()
    for event in events:
        ms[event.name] += (event.time_range.end - event.time_range.start) / 1e3 / steps
        calls[event.name] += 1 / steps
    times = sorted((event.time_range.start, event.time_range.end) for event in events)
    busy, end = 0.0, times[0][0]
    for start, stop in times:
        busy, end = busy + max(0.0, stop - max(start, end)), max(end, stop)
    span = end - times[0][0]
    context.row("h", case, "launches", len(events) / steps, "a step", busy_ms=busy / 1e3 / steps,
                gaps_ms=(span - busy) / 1e3 / steps, gaps_share=1 - busy / span if span else None,
                kernels=[{"name": name[:120], "ms": each, "calls": calls[name]} for name, each in ms.most_common(10)])


def infer(context: Context, model: str, batches: tuple[int, ...], settings: tuple[str, ...]) -> None:
    """Stage d: forward passes, of batches that are on the device."""
    machine, sizes = context.machine, context.sizes
    trained = ready(recipe_of(model, max(batches), settings), sizes, machine, batches=1)
    for size in batches:
        machine.forget()
        part = trained.batches[0].map(lambda column: column[:size].contiguous())  # noqa: B023  used at once
        results = predictions(trained.model, itertools.repeat(part), precision=trained.recipe.train.precision,
                              device=machine.device)
        ms_of(lambda: next(results), 3, machine.wait)  # noqa: B023
        ms, host_ms = ms_of(lambda: next(results), sizes.window, machine.wait)  # noqa: B023
        singles = single_ms(lambda: next(results), sizes.singles, machine.wait)  # noqa: B023
        context.row("d", f"{model} {size:,}", "samples/s", 1e3 * size / ms,
                    published=PUBLISHED_INFERENCE.get((model, size)), ms=ms, host_ms=host_ms,
                    single_ms_p50=statistics.median_low(singles), single_ms_p99=singles[int(0.99 * (len(singles) - 1))],
                    peak_gib=machine.peak_gib(), precision=trained.recipe.train.precision)
