"""Cross layers: the explicit interactions of DCNv2."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clickwise.kernels import cpu_products, gpu
from clickwise.kernels.cross import cpu, reference

CrossLayer = tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]


def cross(x0_BK: torch.Tensor, layers: Sequence[CrossLayer]) -> torch.Tensor:
    """x after `x ← x0 ⊙ (V (U x) + b) + x` for each of `layers` (U, V, b), starting from x0; [B, K].

    U [R, K] and V [K, R] are a weight matrix of rank R in two factors; with U None, V [K, K] is the matrix itself.
    b [K]. Under `torch.autocast` the arithmetic and the result have its type, and the gradients the types of their
    tensors. Source: Wang et al. 2021, "DCN V2", equations 1 and 2 (low rank).
    """
    run = reference.cross
    if (on_gpu := gpu.kernels_for(x0_BK, "cross")) and on_gpu.supports(x0_BK, layers):
        run = on_gpu.cross
    elif cpu_products.works_for(x0_BK) and len(layers) > 0:
        run = cpu.cross
    return run(x0_BK, layers)
