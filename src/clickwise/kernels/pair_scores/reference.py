"""The meaning of `pair_scores`, in obvious torch; its gradient is autograd's."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def pair_scores(a_VA, b_SVC, weights, biases, activation, slopes=(), *, with_product=False,
                rows_S=None) -> torch.Tensor:
    """As `clickwise.kernels.pair_scores.pair_scores`."""
    a_SVA = a_VA.expand(b_SVC.shape[0], -1, -1)
    x = torch.cat([a_SVA, b_SVC, a_SVA * b_SVC] if with_product else [a_SVA, b_SVC], dim=-1).flatten(0, 1)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = F.linear(x, weight, bias)
        if layer == len(weights) - 1:
            score_SV = x.float().view(b_SVC.shape[:2])
            if rows_S is None:
                return score_SV
            is_scored_SV = torch.arange(len(a_VA), device=x.device) < torch.tensor(rows_S, device=x.device)[:, None]
            return torch.where(is_scored_SV, score_SV, 0.0)
        if activation == "prelu":
            slope = slopes[layer].to(x.dtype)
            x = torch.where(x > 0, x, slope * x)
        else:
            x = torch.sigmoid(x) if activation == "sigmoid" else torch.relu(x)
