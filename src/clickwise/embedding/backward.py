"""When a backward pass ends, and where in it an engine receives the gradient of its rows."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from clickwise.errors import EngineError
from clickwise.machine import INSTALL_TORCH


def this_backward() -> int | None:
    """A number for the backward pass that is running; None outside of one."""
    number = torch._C._current_graph_task_id()
    return None if number == -1 else number


def at_its_end(call: Callable[[], None]) -> None:
    """Has autograd call this when all of the backward pass that is running has succeeded."""
    torch.autograd.Variable._execution_engine.queue_callback(call)


def require_end_of_backward() -> None:
    """EngineError where torch does not do what the two functions above need."""
    if not hears_of_backward():
        raise EngineError("embedding.engine",
                          found=f"torch {torch.__version__}, which does not tell an engine when a backward ends",
                          expected="one that does, or every look-up would take an optimizer step of its own",
                          do=INSTALL_TORCH)


@functools.cache
def hears_of_backward() -> bool:
    """Whether the two functions of torch above (they are not public; FSDP uses the second in the same way) are there
    and right, by one small backward pass."""
    seen: list[int | str | None] = []

    def watch(grad: torch.Tensor) -> None:
        seen.append(this_backward())
        if len(seen) == 1:
            at_its_end(lambda: seen.append("end"))

    try:
        before = this_backward()
        with torch.inference_mode(False), torch.enable_grad():
            x, y = (torch.ones((), device="cpu", requires_grad=True) for _ in range(2))
            x.register_hook(watch)
            y.register_hook(watch)
            (x * y).backward()
    except (AttributeError, TypeError, RuntimeError):
        return False
    first = seen[0]
    return seen == [first, first, "end"] and first not in (None, before) and this_backward() == before


class RowsOfTables(torch.autograd.Function):
    """Forward: the result, `before` and rows. Backward: the engine receives the gradient, and only the columns of
    `before` go further up."""

    @staticmethod
    def forward(ctx, anchor, before, engine, lookups, samples, widths, dtype):
        ctx.engine, ctx.lookups, ctx.widths = engine, lookups, widths
        ctx.before = None if before is None else (before.shape[1], before.dtype)
        return engine._rows(lookups, samples, widths, dtype, before)

    @staticmethod
    def backward(ctx, grad):
        trains, wants_before = ctx.needs_input_grad[:2]
        if trains:
            ctx.engine._receive(ctx.lookups, ctx.widths, grad)
        grad_before = None
        if wants_before:
            columns, dtype = ctx.before
            grad_before = grad[:, :columns].to(dtype)
        return (None, grad_before, *(None,) * 5)
