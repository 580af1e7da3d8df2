"""The cross network of DCNv2."""

from __future__ import annotations

import torch
from torch import nn

from clickwise.kernels.cross import CrossLayer, cross
from clickwise.layers.mlp import truncated_normal_

STD = 0.05  # of the matrices' first values, before the normal is cut at two deviations


class CrossNetwork(nn.ModuleList):
    """`x ← x0 ⊙ (V (U x) + b) + x`, `layers` times from x0 [B, width]; [B, width].

    U [rank, width] and V [width, rank] are the two factors of a matrix of low rank; with rank None a layer has the
    full matrix V [width, width] and no U. First values as in the reference: matrices from a truncated normal, b = 0.
    Source: Wang et al. 2021, "DCN V2", equations 1 and 2.
    """

    def __init__(self, width: int, *, layers: int, rank: int | None) -> None:
        super().__init__(_CrossLayer(width, rank) for _ in range(layers))

    def forward(self, x0_BK: torch.Tensor) -> torch.Tensor:
        return cross(x0_BK, [layer.parameters_of_kernel() for layer in self])


class _CrossLayer(nn.Module):
    def __init__(self, width: int, rank: int | None) -> None:
        super().__init__()
        self.u_RK = None if rank is None else nn.Parameter(truncated_normal_(torch.empty(rank, width), STD))
        self.v_KR = nn.Parameter(truncated_normal_(torch.empty(width, width if rank is None else rank), STD))
        self.bias_K = nn.Parameter(torch.zeros(width))

    def parameters_of_kernel(self) -> CrossLayer:
        return self.u_RK, self.v_KR, self.bias_K
