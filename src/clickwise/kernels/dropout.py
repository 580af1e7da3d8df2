"""Dropout."""

from __future__ import annotations

import torch
import torch.nn.functional as F

VALUES = 2**16  # that the random bits of an element may have, where we draw them


def threshold_of(share: float) -> int:
    """How many of VALUES drop an element; where it is all of them, torch has to drop with its finer bits."""
    return round(share * VALUES)


def dropout(x: torch.Tensor, share: float) -> torch.Tensor:
    """`x` with that share of its elements 0 at random, the others scaled up so that the mean stays.

    On a CPU torch draws 64 random bits for every element, one thread after another, which is a fifth of a Wide & Deep
    step; 16 bits do: the share is met to within 2^-17, the scale is that of the share as met.
    """
    threshold = threshold_of(share)
    if x.device.type != "cpu" or threshold == VALUES:
        return F.dropout(x, share)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-2**63, None)
    kept = words.view(torch.int16)[:x.numel()].view(x.shape) >= threshold - VALUES // 2
    return x * kept.to(x.dtype).mul_(VALUES / (VALUES - threshold))
