"""One map from logits to bins, shared by every metric that counts scores instead of keeping them.

A logit x goes to u = x / (8 + |x|), which is in [−1, 1], and [−1, 1] is cut into equal bins. So half of the bins lie in
[−8, 8], where a model's logits are (0.2 % of clicks is a logit of −6.2; with 2^20 bins a bin is 0.00005 wide there),
the rest stretches out to the largest float, and ±inf has a bin as well.

The map never changes the order of two float32 logits. For x ≥ 0 it is the chain t = 1 + x/8, r = 1/t, u = 1 − r,
(u + 1)·bins/2, cut to an integer; each step is rounded correctly (IEEE 754), correct rounding of a monotone function
is monotone, and so is a chain of them. Negative x are the mirror image up to u. Equal logits share a bin whatever
device or vector width computed it, since correctly rounded steps have one result.

Bins are nested: the bin among 2^k is the bin among 2^20 shifted right by 20 − k.
"""

from __future__ import annotations

import torch

FINEST_BITS = 20
FINEST = 1 << FINEST_BITS
SCALE = 8.0


def bin_of(logit_B: torch.Tensor, bins: int = FINEST) -> torch.Tensor:
    """The bin 0 … bins−1 of every logit, int64; `bins` is a power of two up to 2^20. NaN gets any bin, but gets one."""
    u_B = logit_B.float().abs().mul_(1 / SCALE).add_(1).reciprocal_().neg_().add_(1).copysign_(logit_B)
    return u_B.add_(1).mul_(bins / 2).long().clamp_(0, bins - 1)


def edges(bins: int) -> torch.Tensor:
    """The bins + 1 logits between which the bins lie, float64; the first is −inf and the last inf."""
    u = torch.arange(bins + 1, dtype=torch.float64) * (2 / bins) - 1
    return SCALE * u / (1 - u.abs())


def shift_to(bins: int) -> int:
    """How far a bin among 2^20 is shifted right to become its bin among `bins`."""
    if not 0 < bins <= FINEST or FINEST % bins:
        raise ValueError(f"bins must be a power of two up to 2^{FINEST_BITS}, not {bins}")
    return FINEST_BITS - (bins.bit_length() - 1)
