"""A stack of linear layers with ReLU: where a CTR model spends its arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clickwise.kernels import cpu_products, gpu
from clickwise.kernels.dropout import dropout as drop
from clickwise.kernels.mlp import cpu, reference


def mlp(x_BK: torch.Tensor, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor],
        relu_last: bool = True, dropout: float = 0.0) -> torch.Tensor:
    """ReLU(x Wᵀ + b), layer after layer, [B, H of the last]; without `relu_last` the last layer stays linear.

    weights  per layer [outputs, inputs], float32; biases per layer [outputs]
    dropout  behind every ReLU this share of the values becomes 0 at random, and the others are scaled up
    Under `torch.autocast` the arithmetic and the result have its type, and the gradients the types of their tensors.
    """
    has_relu = len(weights) > int(not relu_last)  # without any a layer on a GPU is best left to torch
    if has_relu and (on_gpu := gpu.kernels_for(x_BK, "mlp")) and on_gpu.supports(x_BK, dropout):
        return on_gpu.mlp(x_BK, weights, biases, relu_last, dropout)
    run = cpu.mlp if cpu_products.works_for(x_BK) and len(weights) > 0 else reference.mlp
    if not dropout:
        return run(x_BK, weights, biases, relu_last)
    for layer, (weight_HK, bias_H) in enumerate(zip(weights, biases, strict=True)):
        has_relu = relu_last or layer < len(weights) - 1
        x_BK = run(x_BK, [weight_HK], [bias_H], has_relu)
        x_BK = drop(x_BK, dropout) if has_relu else x_BK
    return x_BK
