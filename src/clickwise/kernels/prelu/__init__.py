"""PReLU with one slope per unit."""

from __future__ import annotations

import torch

from clickwise.kernels.prelu import cpu, reference


def prelu(x_BH: torch.Tensor, slope_H: torch.Tensor) -> torch.Tensor:
    """x where it is above 0, else slope · x; both of one float type."""
    run = cpu.prelu if x_BH.device.type == "cpu" and not torch.compiler.is_compiling() else reference.prelu
    return run(x_BH, slope_H)
