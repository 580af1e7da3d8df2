"""Stacks of fully connected layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from clickwise.kernels.mlp import mlp


class MLP(nn.ModuleList):
    """Linear, ReLU and dropout for each of `sizes`; x [B, inputs] → [B, sizes[-1]], or x itself without sizes.

    Initialised as the reference DLRM is: weights N(0, 2/(fan_in + fan_out)), biases N(0, 1/fan_out) (variances).
    """

    def __init__(self, inputs: int, sizes: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__()
        for outputs in sizes:
            linear = nn.Linear(inputs, outputs)
            nn.init.normal_(linear.weight, std=math.sqrt(2.0 / (inputs + outputs)))
            nn.init.normal_(linear.bias, std=math.sqrt(1.0 / outputs))
            self.append(linear)
            inputs = outputs
        self.outputs = inputs
        self.dropout = dropout

    def forward(self, x_BH: torch.Tensor) -> torch.Tensor:
        if not (self.training and self.dropout):
            return mlp(x_BH, [layer.weight for layer in self], [layer.bias for layer in self])
        for layer in self:
            x_BH = nn.functional.dropout(mlp(x_BH, [layer.weight], [layer.bias]), self.dropout)
        return x_BH

    def zero_input_columns(self, columns: slice) -> None:
        """Sets the first layer's weights of these inputs to 0: for inputs that are padding and always 0."""
        with torch.no_grad():
            self[0].weight[:, columns] = 0.0
