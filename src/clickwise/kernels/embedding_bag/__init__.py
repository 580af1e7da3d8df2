"""Rows of several tables, looked up, pooled and laid side by side: all features of a batch at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from clickwise.kernels import gpu
from clickwise.kernels.embedding_bag import reference

# Ids [B], or [B, L], or the values and offsets of bags: bag b is values[offsets[b]:offsets[b + 1]].
Ids = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class FeatureLookup:
    """How a feature is looked up: in which table, whether its bags are averaged, and whether ids are taken modulo the
    table's rows."""

    table: int
    mean: bool = False
    modulo: bool = False


def embedding_bag(tables: Sequence[torch.Tensor], lookups: Sequence[FeatureLookup], columns: Sequence[Ids], *,
                  dtype: torch.dtype | None = None, out: torch.Tensor | None = None) -> torch.Tensor:
    """[B, sum of widths] of `dtype`, or `out` of that shape: the rows of each column's ids, one column after another.

    tables   [rows, dim] each, of one float type
    columns  one per lookup; ids of any integer type. [B]: one row each. Bags: sum or mean of their rows, zeros where
             empty. [B, L]: L rows side by side, zeros where an id is negative
    dtype    by default that of the tables
    out      may be a part of a wider buffer: the samples' distance in memory is its own

    It is not differentiable: whoever needs gradients knows where they belong. Ids out of range are not looked for.
    """
    run = reference.embedding_bag
    if (on_gpu := gpu.kernels_for(tables[0], "embedding_bag")) and on_gpu.supports(tables, columns):
        run = on_gpu.embedding_bag
    dtype = dtype or (tables[0].dtype if out is None else out.dtype)
    with torch.no_grad():
        return run(tables, lookups, columns, dtype, out)
