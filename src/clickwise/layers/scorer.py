"""Small networks that end in one score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from clickwise.kernels.mlp import mlp
from clickwise.kernels.pair_scores import pair_scores, scores_at_once
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
    """Linear and activation for each of `sizes`, dropout before the last layer, and a linear layer to one score;
    x [..., inputs] → float32 [...]."""

    def __init__(self, inputs: int, sizes: Sequence[int], act: Activation, *, dropout: float = 0.0) -> None:
        super().__init__()
        widths = [inputs, *sizes, 1]
        self.layers = nn.ModuleList(Linear(*pair) for pair in zip(widths, widths[1:], strict=False))
        self.activations = nn.ModuleList(activation(act, size) for size in sizes)
        self.dropout, self.act = nn.Dropout(dropout), act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 2 and self._is_one_kernel() and scores_at_once(x):
            return self._scores(x, x.new_empty(1, len(x), 0), self.layers[0].weight)[0]
        return self._after_first(self.layers[0](x))

    def of_pairs(self, a_VA: torch.Tensor, b_SVC: torch.Tensor, weight: torch.Tensor | None = None, *,
                 with_product: bool = False, rows_S: Sequence[int] | None = None,
                 mask_SV: torch.Tensor | None = None) -> torch.Tensor:
        """[S, V]: of every row of a, and after it each of the S rows of b that stand at its index, and with
        `with_product` a ⊙ b. `weight` is used instead of the first layer's. Past the first `rows_S` of each S a score
        means nothing, nor where `mask_SV` is false: the statistics of Dice are those of the others."""
        weight = self.layers[0].weight if weight is None else weight
        if self._is_one_kernel():
            return self._scores(a_VA, b_SVC, weight, with_product=with_product, rows_S=rows_S)
        parts = [a_VA, b_SVC, a_VA * b_SVC] if with_product else [a_VA, b_SVC]
        of_parts = weight.split([part.shape[-1] for part in parts], dim=1)
        biases = [self.layers[0].bias, *[None] * len(parts[1:])]
        return self._after_first(sum(linear(*part) for part in zip(parts, of_parts, biases, strict=True)), mask_SV)

    def _is_one_kernel(self) -> bool:
        return self.act != "dice" and not (self.training and self.dropout.p)

    def _scores(self, a_VA: torch.Tensor, b_SVC: torch.Tensor, weight: torch.Tensor, **more) -> torch.Tensor:
        slopes = [act.slope_H for act in self.activations] if self.act == "prelu" else []
        weights, biases = [layer.weight for layer in self.layers[1:]], [layer.bias for layer in self.layers]
        return pair_scores(a_VA, b_SVC, [weight, *weights], biases, self.act, slopes, **more)

    def _after_first(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        for index, (act, layer) in enumerate(zip(self.activations, self.layers[1:], strict=True)):
            x = act(x, mask) if self.act == "dice" else act(x)
            if index == len(self.activations) - 1:
                x = self.dropout(x)
            x = layer(x)
        return x.squeeze(-1).float()
