"""Stacks of fully connected layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


class MLP(nn.Sequential):
    """Linear, ReLU (and dropout) for each of `sizes`; x [B, inputs] → [B, sizes[-1]], or x itself without sizes.

    Initialised as the reference DLRM is: weights N(0, 2/(fan_in + fan_out)), biases N(0, 1/fan_out) (variances).
    """

    def __init__(self, inputs: int, sizes: Sequence[int], *, dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for outputs in sizes:
            linear = nn.Linear(inputs, outputs)
            nn.init.normal_(linear.weight, std=math.sqrt(2.0 / (inputs + outputs)))
            nn.init.normal_(linear.bias, std=math.sqrt(1.0 / outputs))
            layers += [linear, nn.ReLU(inplace=True)]
            if dropout:
                layers.append(nn.Dropout(dropout))
            inputs = outputs
        super().__init__(*layers)
        self.outputs = inputs

    def zero_input_columns(self, columns: slice) -> None:
        """Sets the first layer's weights of these inputs to 0: for inputs that are padding and always 0."""
        with torch.no_grad():
            self[0].weight[:, columns] = 0.0
