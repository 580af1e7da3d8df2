"""Ids of crossed features, computed on the device of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64  # odd, near 2^64 / golden ratio; as a signed number
LOW_32, POSITIVE = 0xFFFFFFFF, 2**63 - 1


def cross_ids(columns: Sequence[torch.Tensor], buckets: int) -> torch.Tensor:
    """An id below `buckets` per sample for the values that it has in all columns together, int64 [B].

    From h = 0, for the ids of one column after another and for a last 0: h ← (h xor id) · 9E3779B97F4A7C15 modulo 2^64,
    then h ← h xor (h shifted right by 32 bits, zeros shifted in). The bucket is the lower 63 bits of h modulo
    `buckets`: the same on every device and in every version, as tables that were trained with it need.
    """
    hash_B = torch.zeros_like(columns[0], dtype=torch.int64)
    for ids_B in (*columns, torch.zeros_like(columns[0])):
        hash_B = (hash_B ^ ids_B.long()) * MULTIPLIER
        hash_B = hash_B ^ ((hash_B >> 32) & LOW_32)
    return (hash_B & POSITIVE) % buckets
