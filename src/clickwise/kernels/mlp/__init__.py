"""A stack of linear layers with ReLU: where a CTR model spends its arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clickwise.kernels import cpu_products, gpu
from clickwise.kernels.mlp import cpu, reference


def mlp(x_BK: torch.Tensor, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor],
        relu_last: bool = True) -> torch.Tensor:
    """ReLU(x Wᵀ + b), layer after layer, [B, H of the last]; without `relu_last` the last layer stays linear.

    weights  per layer [outputs, inputs], float32; biases per layer [outputs]
    Under `torch.autocast` the arithmetic and the result have its type, and the gradients the types of their tensors.
    """
    run = reference.mlp
    if (on_gpu := gpu.kernels_for(x_BK, "mlp")) and on_gpu.takes(x_BK, weights, relu_last):
        run = on_gpu.mlp
    elif cpu_products.works_for(x_BK) and len(weights) > 0:
        run = cpu.mlp
    return run(x_BK, weights, biases, relu_last)
