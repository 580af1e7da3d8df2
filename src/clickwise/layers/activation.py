"""Activations between linear layers, by name."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from clickwise.kernels.prelu import prelu

Activation = Literal["relu", "prelu", "dice", "sigmoid"]


def activation(name: Activation, units: int) -> nn.Module:
    """A fresh activation for `units` values in the last dimension."""
    if name == "prelu":
        return PReLU(units)
    if name == "dice":
        return Dice(units)
    return {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}[name]()


class PReLU(nn.Module):
    """x where it is positive, else slope · x; one learnt slope per unit of the last dimension."""

    def __init__(self, units: int, slope: float = 0.1) -> None:
        super().__init__()
        self.slope_H = nn.Parameter(torch.full((units,), slope))

    def forward(self, x_BH: torch.Tensor) -> torch.Tensor:
        return prelu(x_BH, self.slope_H.to(x_BH.dtype))


class Dice(nn.Module):
    """p · x + (1 − p) · slope · x with p = σ((x − mean) / √(variance + 1e-8)), unit by unit.

    Mean and variance are the batch's in training and running averages otherwise, so that a sample's score does not
    depend on the others'; a single row in training, which has no variance, is judged by the averages too.
    Source: Zhou et al. 2018, "Deep Interest Network", equation 3. NOTE[DIFF] its authors' code has no averages.
    """

    def __init__(self, units: int, momentum: float = 0.01) -> None:
        super().__init__()
        self.slope_H = nn.Parameter(torch.zeros(units))
        self.momentum = momentum
        self.register_buffer("mean_H", torch.zeros(units))
        self.register_buffer("variance_H", torch.ones(units))

    def forward(self, x_BH: torch.Tensor) -> torch.Tensor:
        flat_VH = x_BH.flatten(0, -2)
        # The product of a sum of squares over many rows needs float32.
        with torch.autocast(x_BH.device.type, enabled=False):
            normal_VH = nn.functional.batch_norm(flat_VH.float(), self.mean_H, self.variance_H, eps=1e-8,
                                                 training=self.training and len(flat_VH) > 1, momentum=self.momentum)
        p_VH = torch.sigmoid(normal_VH).to(x_BH.dtype)
        slope_H = self.slope_H.to(x_BH.dtype)
        return (flat_VH * torch.lerp(slope_H.expand_as(p_VH), torch.ones_like(p_VH), p_VH)).view(x_BH.shape)
