"""The engine `reference`: plain torch on any device; what it computes is what every engine must compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from clickwise.batch import Column
from clickwise.embedding.lookup import (
    Group,
    Lookup,
    bags_behind,
    check_ids_of,
    joined,
    look_up,
    look_up_histories,
    pooled,
    shapes_of,
)
from clickwise.embedding.tables import Received, TablesInMemory, columns_of_rows, type_of_rows
from clickwise.kernels.sparse_update import sparse_update


class ReferenceEmbeddings(TablesInMemory):
    def lookup_groups(self, *blocks: Mapping[str, Column]) -> tuple[torch.Tensor, ...]:
        if len(self._groups) != 1:
            return super().lookup_groups(*blocks)
        # Each is looked up by itself as it shall stand in memory; backward joins them into one update.
        samples, lengths, _ = shapes_of(blocks)
        return tuple(self._block(block, samples, length) for block, length in zip(blocks, lengths, strict=True))

    def _block(self, block: Mapping[str, Column], samples: int, length: int | None) -> torch.Tensor:
        if not block:
            weight_RD = self._weight(self._groups[0])
            return weight_RD.new_zeros(samples, 0, dtype=type_of_rows(weight_RD.device))
        if self.check_ids:
            self._check_ids(block)
        group, columns = self._groups[0].of(tuple(self.table_of[feature] for feature in block)), tuple(block.values())
        width = group.dim * len(block)
        if length is None:
            return self._looked_up((self._found(group, look_up(group, columns)),), samples, (width,), None,
                                   self._trains())
        rows = self._looked_up((self._found(group, look_up_histories(group, columns)),), samples, (length * width,),
                               None, self._trains())
        return rows.view(samples, length, width)

    def _look_up(self, columns: tuple[Column, ...], trains: bool) -> tuple[Lookup, ...]:
        """What `_rows` and, after backward, `_update` need to know of a batch."""
        return tuple(self._found(group, look_up(group, columns)) for group in self._groups)

    def _found(self, group: Group, lookup: Lookup) -> Any:
        """The look-up with whatever else `_pooled` and `_update` need."""
        return lookup

    def _pooled(self, group: Group, lookup: Any, dtype: torch.dtype, out: torch.Tensor | None = None) -> torch.Tensor:
        """`pooled` of what `_found` gave."""
        return pooled(self._weight(group), lookup, dtype, out)

    def _rows(self, lookups: tuple[Lookup, ...], samples: int, widths: tuple[int, ...], dtype: torch.dtype,
              before: torch.Tensor | None) -> torch.Tensor:
        """[B, sum of widths]: rows, those of the features in turn; behind `before`, if there is one."""
        if len(lookups) == 1:
            (group,), (lookup,) = self._groups, lookups
            if before is None:
                return self._pooled(group, lookup, dtype).view(samples, sum(widths))
            out, first = before.new_empty(samples, before.shape[1] + sum(widths), dtype=dtype), before.shape[1]
            out[:, :first] = before
            self._pooled(group, lookup, dtype, out[:, first:])
            return out
        of_groups = [self._pooled(group, lookup, dtype)
                     for group, lookup in zip(self._groups, lookups, strict=True)]
        parts = [of_groups[0]] * len(self.features)
        for group, part_GD in zip(self._groups, of_groups, strict=True):
            mine = [widths[feature] for feature in group.features]
            part_BX = part_GD.view(samples, sum(mine))
            for feature, part in zip(group.features, part_BX.split(mine, dim=1), strict=True):
                parts[feature] = part
        if before is not None:
            parts.insert(0, before.to(dtype))
        return torch.cat(parts, dim=1)

    def _check_ids(self, columns: Mapping[str, Column]) -> None:
        for feature, column in columns.items():
            check_ids_of(feature, column, self.table_of[feature])

    def _update(self, received: list[Received], scale: float | torch.Tensor = 1.0,
                skip: torch.Tensor | None = None) -> None:
        if skip is not None and bool(skip):
            return
        self.step += 1
        lr = self.optimizer.lr * self.lr_factor
        for group, lookup, grad_GD in self._by_group(received):
            sparse_update(self._weight(group), self._states(group), lookup.rows_V, grad_GD, self.optimizer, lr=lr,
                          step=self.step, bag_V=lookup.bag_V, weight_V=lookup.weight_V, scale=float(scale))

    def _gradients(self, received: list[Received]) -> Iterator[tuple[Group, torch.Tensor, torch.Tensor]]:
        for group, lookup, grad_GD in self._by_group(received) if received else ():
            grad_VD = (grad_GD if lookup.bag_V is None else grad_GD[lookup.bag_V]).float()
            yield group, lookup.rows_V, grad_VD if lookup.weight_V is None else grad_VD * lookup.weight_V[:, None]

    def _by_group(self, received: list[Received]) -> Iterator[tuple[Group, Lookup, torch.Tensor]]:
        """(group, what was looked up in it, the gradient of each bag) of every group that is trained."""
        for index, group in enumerate(self._groups):
            if group.trainable:
                if len(received) == 1:
                    looked, widths, grad = received[0]
                    yield group, *self._where_it_is(group, looked[index], widths, grad)
                    continue
                grads = [self._grad_of(group, widths, grad) for _, widths, grad in received]
                yield group, joined([looked[index] for looked, _, _ in received]), torch.cat(grads)

    def _where_it_is(self, group: Group, lookup: Lookup, widths: tuple[int, ...],
                     grad: torch.Tensor) -> tuple[Lookup, torch.Tensor]:
        """(the look-up, the gradient of each bag); where that stands behind what is no row but as wide as some, all of
        it, and the look-up knows which of its bags are rows."""
        before, rest = divmod(grad.shape[1] - sum(widths), group.dim)
        if before and not rest and len(self._groups) == 1 and grad.is_contiguous():
            return bags_behind(lookup, len(grad), sum(widths) // group.dim, before), grad.view(-1, group.dim)
        return lookup, self._grad_of(group, widths, grad)

    def _grad_of(self, group: Group, widths: tuple[int, ...], grad: torch.Tensor) -> torch.Tensor:
        """The gradient of the group's bags [G, dim] out of the gradient of the result."""
        grad = columns_of_rows(widths, grad)
        if len(self._groups) == 1:
            return grad.reshape(-1, group.dim)
        by_feature = grad.split(widths, dim=1)
        return torch.cat([by_feature[feature] for feature in group.features], dim=1).view(-1, group.dim)
