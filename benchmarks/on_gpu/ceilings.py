"""Stage a: what the card can do at most, by a large copy and a large product of matrices."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from on_gpu.context import Context
from on_gpu.machine import single_ms


def run(context: Context) -> None:
    machine = context.machine
    facts = {"card": machine.name}
    if machine.device.type == "cuda":
        facts["memory_gib"] = torch.cuda.get_device_properties(machine.device).total_memory / 2**30
    context.row("a", "copy, bytes read and written", "copy", _copy_gb_s(context), "GB/s", predicted=3000.0, **facts)
    size = context.sizes.product
    context.row("a", f"product, bf16, {size:,} × {size:,}", "product", _product_tflop_s(context, size), "TFLOP/s",
                predicted=750.0)


def _copy_gb_s(context: Context) -> float:
    x = torch.randn(context.sizes.copy_bytes // 4, device=context.machine.device)
    y = torch.empty_like(x)
    return 2 * x.nbytes / _median_ms(lambda: y.copy_(x), context) / 1e6


def _product_tflop_s(context: Context, size: int) -> float:
    a, b = (torch.randn(size, size, device=context.machine.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / _median_ms(lambda: a @ b, context) / 1e9


def _median_ms(call: Callable[[], object], context: Context) -> float:
    single_ms(call, 3, context.machine.wait)
    return statistics.median(single_ms(call, 10, context.machine.wait))
