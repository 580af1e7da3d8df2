"""Dropout."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def dropout(x: torch.Tensor, share: float) -> torch.Tensor:
    """`x` with that share of its elements 0 at random, the others scaled up so that the mean stays.

    On a CPU torch draws 64 random bits for every element, one thread after another, which is a fifth of a Wide & Deep
    step; 16 bits do: the share is met to within 2^-17, the scale is that of the share as met.
    """
    if x.device.type != "cpu":
        return F.dropout(x, share)
    threshold = round(share * 2**16)
    if threshold == 2**16:
        return F.dropout(x, share)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-2**63, None)
    kept = words.view(torch.int16)[:x.numel()].view(x.shape) >= threshold - 2**15
    return x * kept.to(x.dtype).mul_(2**16 / (2**16 - threshold))
