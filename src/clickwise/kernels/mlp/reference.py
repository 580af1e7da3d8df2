"""The meaning of `mlp`, in obvious torch; its gradient is autograd's."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def mlp(x_BK: torch.Tensor, weights, biases, relu_last: bool = True) -> torch.Tensor:
    """As `clickwise.kernels.mlp.mlp`."""
    for layer, (weight_HK, bias_H) in enumerate(zip(weights, biases, strict=True)):
        x_BK = F.linear(x_BK, weight_HK, bias_H)
        if relu_last or layer < len(weights) - 1:
            x_BK = F.relu(x_BK)
    return x_BK
