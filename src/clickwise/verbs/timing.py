"""How long calls take: their rate in windows, and percentiles of single calls."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch


class WaitingClock:
    """Times calls one by one, each until its result is there: on a CPU when it returns, on a GPU when it is done."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.wait = torch.cuda.synchronize if device is not None and device.type == "cuda" else lambda: None

    def mark(self) -> float:
        """A mark behind all that was called before."""
        self.wait()
        return time.perf_counter()

    def milliseconds(self, first: float, then: float) -> float:
        """Between two marks, once they are waited for."""
        return 1e3 * (then - first)


class GPUClock:
    """Times calls that follow each other on a GPU, which works on after a call has returned, without waiting."""

    def wait(self) -> None:
        torch.cuda.synchronize()

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, first: torch.cuda.Event, then: torch.cuda.Event) -> float:
        return first.elapsed_time(then)


def time_calls(call: Callable[[], object], clock: WaitingClock | GPUClock, batch_size: int, steps: int,
          warmup: int) -> dict[str, float]:
    """Figures of `steps` calls in five windows, after `warmup` calls that are not counted."""
    for _ in range(warmup):
        call()
    rates, milliseconds = [], []
    for window in np.array_split(np.arange(steps), min(5, steps)):
        clock.wait()
        started, marks = time.perf_counter(), [clock.mark()]
        for _ in window:
            call()
            marks.append(clock.mark())
        clock.wait()
        rates.append(batch_size * len(window) / (time.perf_counter() - started))
        milliseconds += map(clock.milliseconds, marks, marks[1:])
    return figures(np.array(rates), np.array(milliseconds))


def figures(rates: np.ndarray, milliseconds: np.ndarray) -> dict[str, float]:
    """Throughput, and percentiles of the single steps."""
    p50, p90, p95, p99 = np.percentile(milliseconds, [50, 90, 95, 99])
    return {**throughput(rates), "ms_p50": round(float(p50), 4), "ms_p90": round(float(p90), 4),
            "ms_p95": round(float(p95), 4), "ms_p99": round(float(p99), 4)}


def throughput(rates: np.ndarray) -> dict[str, float]:
    """Median and range of the windows' samples/s."""
    return {"samples_per_s": round(float(np.median(rates)), 1), "samples_per_s_min": round(float(rates.min()), 1),
            "samples_per_s_max": round(float(rates.max()), 1)}
