"""Activations between linear layers, by name."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from clickwise import processes
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

    def forward(self, x_BH: torch.Tensor, mask_B: torch.Tensor | None = None) -> torch.Tensor:
        """`mask_B` has a value for every row of x and is false at padding, whose values, NaN too, reach neither the
        statistics nor a gradient; what comes back for it has no meaning."""
        flat_VH = x_BH.flatten(0, -2)
        if mask_B is not None:
            mask_V1 = mask_B.reshape(-1, 1)
            flat_VH = flat_VH.masked_fill(~mask_V1, 0.0)
        # The product of a sum of squares over many rows needs float32.
        with torch.autocast(x_BH.device.type, enabled=False):
            if self.training and (mask_B is not None or processes.count() > 1):
                mask_V1 = flat_VH.new_ones(len(flat_VH), 1, dtype=torch.bool) if mask_B is None else mask_V1
                mean_H, variance_H = self._statistics(flat_VH.float(), mask_V1)
                normal_VH = (flat_VH.float() - mean_H) * (variance_H + 1e-8).rsqrt()
            else:
                normal_VH = nn.functional.batch_norm(
                    flat_VH.float(), self.mean_H, self.variance_H, eps=1e-8,
                    training=self.training and len(flat_VH) > 1, momentum=self.momentum)
        p_VH = torch.sigmoid(normal_VH).to(x_BH.dtype)
        slope_H = self.slope_H.to(x_BH.dtype)
        return (flat_VH * torch.lerp(slope_H.expand_as(p_VH), torch.ones_like(p_VH), p_VH)).view(x_BH.shape)

    def _statistics(self, x_VH: torch.Tensor, mask_V1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of the rows of the mask, of all processes, or the averages where they are fewer than two; x
        is 0 elsewhere.

        The averages are updated as torch's batch_norm does it, with the unbiased variance. How many rows there are
        is known to the device alone, which is not waited for.
        """
        rows = processes.sum_over_all(mask_V1.sum())
        mean_H = processes.differentiable_sum(x_VH.sum(0)) / rows.clamp(min=1)
        deviation_VH = (x_VH - mean_H) * mask_V1
        square_H = processes.differentiable_sum((deviation_VH * deviation_VH).sum(0))
        variance_H, is_enough = square_H / rows.clamp(min=1), rows > 1
        with torch.no_grad():
            momentum = self.momentum * is_enough
            self.mean_H.lerp_(mean_H, momentum)
            self.variance_H.lerp_(square_H / (rows - 1).clamp(min=1), momentum)
        return torch.where(is_enough, mean_H, self.mean_H), torch.where(is_enough, variance_H, self.variance_H)
