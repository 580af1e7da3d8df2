"""Small networks that end in one score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from clickwise.kernels.mlp import mlp
from clickwise.layers.activation import Activation, activation


class Linear(nn.Linear):
    """`nn.Linear` through our products, for inputs of any number of dimensions; first values as in Keras."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x_BK: torch.Tensor) -> torch.Tensor:
        return linear(x_BK, self.weight, self.bias)


def linear(x_BK: torch.Tensor, weight_HK: torch.Tensor, bias_H: torch.Tensor | None = None) -> torch.Tensor:
    """x Wᵀ + b over the last dimension of x [..., K]; [..., H], in the type of an enclosing autocast."""
    if bias_H is None:
        bias_H = torch.zeros(len(weight_HK), device=weight_HK.device, dtype=weight_HK.dtype)
    if x_BK.dim() == 2:
        return mlp(x_BK, [weight_HK], [bias_H], relu_last=False)
    flat_VK = x_BK.reshape(-1, x_BK.shape[-1])
    return mlp(flat_VK, [weight_HK], [bias_H], relu_last=False).view(*x_BK.shape[:-1], len(weight_HK))


class Scorer(nn.Module):
    """Linear and activation for each of `sizes`, dropout before the last layer, and a linear layer to one score.

    x [..., inputs] → float32 [...]. It may be given in parts that stand for their concatenation; a part that is the
    same for many others (length 1 in a dimension, or without it) is multiplied once.
    """

    def __init__(self, inputs: int, sizes: Sequence[int], act: Activation, *, dropout: float = 0.0) -> None:
        super().__init__()
        widths = [inputs, *sizes, 1]
        self.layers = nn.ModuleList(Linear(*pair) for pair in zip(widths, widths[1:], strict=False))
        self.activations = nn.ModuleList(activation(act, size) for size in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        return self.after_first(of_parts(self.layers[0], parts))

    def after_first(self, x: torch.Tensor) -> torch.Tensor:
        """The score, where the first layer's product is given."""
        for place, (act, layer) in enumerate(zip(self.activations, self.layers[1:], strict=True)):
            x = act(x)
            if place == len(self.activations) - 1:
                x = self.dropout(x)
            x = layer(x)
        return x.squeeze(-1).float()


def of_parts(layer: Linear, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """What the layer gives for the concatenation of the parts."""
    if len(parts) == 1:
        return layer(parts[0])
    weights = layer.weight.split([part.shape[-1] for part in parts], dim=1)
    products = [linear(part, weight, layer.bias if place == 0 else None)
                for place, (part, weight) in enumerate(zip(parts, weights, strict=True))]
    return sum(products[1:], products[0])
