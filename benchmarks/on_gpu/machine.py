"""The two machines that the stages run on: a GPU, and for a rehearsal a CPU on which Triton interprets the kernels.

A stage knows neither: it has a device, waits for it and asks what it used.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MOST_GIB = 70.0  # that a stage may take of a card's memory


class Card:
    """One NVIDIA GPU."""

    compiler = "inductor"  # what torch.compile makes its code with

    def __init__(self) -> None:
        import torch

        torch.cuda.set_device(0)
        free = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, MOST_GIB * 2**30 / free))
        self.device = torch.device("cuda", 0)
        self.name = torch.cuda.get_device_name(0)
        self.profiled = torch.autograd.DeviceType.CUDA
        self.wait = torch.cuda.synchronize

    def peak_gib(self) -> float | None:
        """The most memory that tensors took since `forget_peak`."""
        import torch

        return torch.cuda.max_memory_allocated() / 2**30

    def forget(self) -> None:
        """Gives memory back and starts the peak anew."""
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


class Rehearsal:
    """This computer's CPU in place of a card: whether everything works, never how fast."""

    compiler = "aot_eager"
    name = "rehearsal"

    def __init__(self) -> None:
        os.environ["TRITON_INTERPRET"] = "1"
        sys.path.append(str(Path(__file__).parents[2] / "tests"))
        import torch
        import triton_device  # noqa: F401  the interpreter's arithmetic, made right

        from clickwise.kernels import gpu
        from clickwise.models import histories

        gpu.runs_on = lambda device: device.type != "meta"  # what is on meta is only counted
        histories.bf16_instructions = lambda: "AMX"  # as on a card, no model takes float32 for bfloat16
        self.device = torch.device("cpu")
        self.profiled = torch.autograd.DeviceType.CPU
        self.wait = lambda: None

    def peak_gib(self) -> float | None:
        return None

    def forget(self) -> None:
        pass


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """No kernels: plain torch in their place, as on a device that has none."""
    from clickwise.kernels import gpu

    kept, gpu.runs_on = gpu.runs_on, lambda device: False
    try:
        yield
    finally:
        gpu.runs_on = kept


def ms_of(call: Callable[[], object], times: int, wait: Callable[[], None]) -> tuple[float, float]:
    """(milliseconds of a call in a row of `times`, waiting only behind the last; of these the host's)."""
    wait()
    started = time.perf_counter()
    for _ in range(times):
        call()
    host = time.perf_counter() - started
    wait()
    return 1e3 * (time.perf_counter() - started) / times, 1e3 * host / times


def single_ms(call: Callable[[], object], times: int, wait: Callable[[], None]) -> list[float]:
    """Milliseconds of each of `times` calls, waited for one by one; ascending."""
    return sorted(ms_of(call, 1, wait)[0] for _ in range(times))
