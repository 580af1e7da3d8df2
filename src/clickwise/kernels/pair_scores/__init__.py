"""A small MLP over pairs of rows that ends in one score: activation units, and networks that judge what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from clickwise.kernels import cpu_products
from clickwise.kernels.pair_scores import cpu, reference

Activation = Literal["sigmoid", "relu", "prelu"]


def pair_scores(a_VA: torch.Tensor, b_SVC: torch.Tensor, weights: Sequence[torch.Tensor],
                biases: Sequence[torch.Tensor], activation: Activation, slopes: Sequence[torch.Tensor] = (), *,
                with_product: bool = False, rows_S: Sequence[int] | None = None) -> torch.Tensor:
    """The score of every row of a with each of the S rows of b that stand at its place, float32 [S, V].

    The first layer sees [a, b], with `with_product` [a, b, a ⊙ b]; what it makes of a is computed once for all S.
    weights  per layer [outputs, inputs], the last with one output; biases per layer [outputs]
    slopes   of prelu, per layer but the last [outputs]
    rows_S   only so many rows of each S, the first, are scored; the scores of all others are 0
    Under `torch.autocast` the arithmetic has its type, and the gradients the types of their tensors.
    """
    fits = scores_at_once(a_VA) and len(b_SVC) > 0 and len(weights) > 1
    run = cpu.pair_scores if fits else reference.pair_scores
    return run(a_VA, b_SVC, weights, biases, activation, slopes, with_product=with_product, rows_S=rows_S)


def scores_at_once(a_VA: torch.Tensor) -> bool:
    """Whether `pair_scores` of these goes through all layers at once, here and now: then b may be of width 0, and the
    scores are those of a alone."""
    return cpu_products.works_for(a_VA)
