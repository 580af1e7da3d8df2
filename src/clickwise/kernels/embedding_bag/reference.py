"""The meaning of `embedding_bag`, in obvious torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def embedding_bag(tables, lookups, columns, dtype, out=None) -> torch.Tensor:
    """As `clickwise.kernels.embedding_bag.embedding_bag`."""
    parts = []
    for lookup, column in zip(lookups, columns, strict=True):
        table_RD, bags = tables[lookup.table], isinstance(column, tuple)
        ids = (column[0] if bags else column).long()
        if lookup.modulo:
            ids = torch.where(ids < 0, ids, ids % len(table_RD)) if ids.dim() == 2 else ids % len(table_RD)
        if bags:
            offsets = column[1].long()
            parts.append(F.embedding_bag(ids[:int(offsets[-1])], table_RD.float(), offsets, include_last_offset=True,
                                         mode="mean" if lookup.mean else "sum"))
        elif ids.dim() == 2:
            rows_BLD = table_RD[ids.clamp(min=0)].float().masked_fill((ids < 0)[:, :, None], 0.0)
            parts.append(rows_BLD.flatten(1))
        else:
            parts.append(table_RD[ids].float())
    rows = torch.cat(parts, dim=1).to(dtype)
    return rows if out is None else out.copy_(rows)
