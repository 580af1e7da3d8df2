"""Stacks of fully connected layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from clickwise.kernels import gpu
from clickwise.kernels.mlp import mlp

ALIGNED = 8  # numbers of 16 bits are 16 bytes: rows of as many, or a multiple, are what fast products on a GPU read


class MLP(nn.ModuleList):
    """Linear, ReLU and dropout for each of `sizes`; x [B, inputs] → [B, sizes[-1]], or x itself without sizes.

    Where there is `padding`, x may come behind it, and is laid there otherwise. First values as in `fill`.
    """

    def __init__(self, inputs: int, sizes: Sequence[int], *, dropout: float = 0.0, truncated: bool = False) -> None:
        super().__init__()
        self.inputs = inputs
        for outputs in sizes:
            self.append(fill(nn.Linear(inputs, outputs), truncated=truncated))
            inputs = outputs
        self.outputs = inputs
        self.dropout = dropout

    def padding(self, device: torch.device) -> int:
        """How many columns of zeros belong in front of x on this device; the layers' weights know nothing of them."""
        return -self.inputs % ALIGNED if len(self) and gpu.runs_on(device) else 0

    def forward(self, x_BH: torch.Tensor) -> torch.Tensor:
        weights = [layer.weight for layer in self]
        if padding := self.padding(x_BH.device):
            weights[0] = F.pad(weights[0], (padding, 0))
            if x_BH.shape[-1] == self.inputs:
                x_BH = F.pad(x_BH, (padding, 0))
        return mlp(x_BH, weights, [layer.bias for layer in self], dropout=self.dropout if self.training else 0.0)

    def zero_input_columns(self, columns: slice) -> None:
        """Sets the first layer's weights of these inputs to 0: for inputs that are padding and always 0."""
        with torch.no_grad():
            self[0].weight[:, columns] = 0.0


def fill(linear: nn.Linear, *, truncated: bool = False) -> nn.Linear:
    """`linear` with first values as the references have them: weights N(0, 2/(inputs + outputs)), biases
    N(0, 1/outputs) (variances); `truncated` (Keras' GlorotNormal) cuts the weights' normal at two deviations."""
    std = math.sqrt(2.0 / (linear.in_features + linear.out_features))
    if truncated:
        truncated_normal_(linear.weight, std / TRUNCATED_STD)
    else:
        nn.init.normal_(linear.weight, std=std)
    nn.init.normal_(linear.bias, std=math.sqrt(1.0 / linear.out_features))
    return linear


def glorot_uniform(linear: nn.Linear) -> nn.Linear:
    """`linear` with first values as Keras gives them by default: weights U(± √(6 / (inputs + outputs))), biases 0."""
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


TRUNCATED_STD = 0.87962566103423978  # the standard deviation of N(0, 1) cut at ± 2


def truncated_normal_(tensor: torch.Tensor, std: float) -> torch.Tensor:
    """`tensor` filled from N(0, std²) cut at ± 2 std."""
    return nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)
