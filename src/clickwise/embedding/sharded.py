"""The engine `sharded`: tables over many processes, with the rules of the reference.

Every row has one owner (`placement.py`; small tables have a copy everywhere). A process asks the owners for the rows of
its part of a batch, each once however often it occurs; backward sends the sum of each row's gradients back, and the
owner, who gets one from every process that asked, takes one step with their sum. So each step is that of one process
with the whole batch, where every process's loss is its part of the batch's. All processes make the same calls.

Two processes, three rows, each row with process `row mod 2`; the batch looks up 2 0 | 0 1:

    process 0 asks itself for 0 2; process 1 asks process 0 for 0, itself for 1
    forward    process 0 sends rows 0 2 to itself and row 0 to process 1
    backward   process 0 gets gradients of 0 2 and of 0: the two of row 0 are summed, rows 0 and 2 take a step
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist

from clickwise import processes
from clickwise.batch import Column
from clickwise.embedding.lookup import Group, Lookup, look_up, pooled
from clickwise.embedding.placement import ROWS_DEALT, Sharding, places
from clickwise.embedding.reference import ReferenceEmbeddings
from clickwise.embedding.table import Table, TableOptimizer
from clickwise.embedding.tables import Received, table_bytes
from clickwise.kernels.cpu_rows import rows_at
from clickwise.kernels.sparse_update import sparse_update
from clickwise.kernels.sparse_update.cpu import stable_sort


@dataclasses.dataclass(frozen=True)
class _Fetched:
    """One look-up in one group: what of it was asked of whom.

    lookup     its `rows_V` number the U different rows, which stand by owner
    order_V    the places of equal rows one after another; those of row u begin at
    starts_U   [U + 1], the end appended
    rows_U     the different rows, as their owners number them
    sent, got  how many rows were asked of each process, and how many each asked for here
    asked_A    the rows of this process that were asked for, by process
    """

    lookup: Lookup
    order_V: torch.Tensor
    starts_U: torch.Tensor
    rows_U: torch.Tensor
    sent: list[int]
    got: list[int]
    asked_A: torch.Tensor

    def summed(self, grad_GD: torch.Tensor) -> torch.Tensor:
        """The gradients of the different rows, [U, D] float32, out of those of the bags."""
        lookup, grad_GD = self.lookup, grad_GD.float().contiguous()
        if not len(self.rows_U):
            return grad_GD.new_zeros(0, grad_GD.shape[1])
        bag_V = self.order_V if lookup.bag_V is None else lookup.bag_V.index_select(0, self.order_V).long()
        weight_V = None if lookup.weight_V is None else lookup.weight_V.index_select(0, self.order_V)
        return torch.embedding_bag(grad_GD, bag_V, self.starts_U, False, 0, False, weight_V, True)[0]


class _Request:
    """What one look-up asks of the owners, on its way while others compute: first how many rows are asked of each
    process, then which."""

    def __init__(self, lookup: Lookup, order_V: torch.Tensor, starts_U: torch.Tensor, rows_U: torch.Tensor,
                 sent_P: torch.Tensor) -> None:
        self.looked_up, self.rows_U, self.sent_P = (lookup, order_V, starts_U), rows_U, sent_P
        self.got_P, self.asked_A = torch.empty_like(sent_P), None
        self.on_its_way = dist.all_to_all_single(self.got_P, sent_P, async_op=True)

    def proceed(self) -> None:
        """Sends the rows' numbers, once it is known how many come."""
        if self.asked_A is None:
            self.on_its_way.wait()
            self.sent, self.got = torch.stack([self.sent_P, self.got_P]).tolist()  # the one wait for a GPU
            self.asked_A = self.rows_U.new_empty(sum(self.got))
            self.on_its_way = dist.all_to_all_single(self.asked_A, self.rows_U, self.got, self.sent, async_op=True)

    def fetched(self) -> _Fetched:
        self.proceed()
        self.on_its_way.wait()
        return _Fetched(*self.looked_up, self.rows_U, self.sent, self.got, self.asked_A)


class ShardedEmbeddings(ReferenceEmbeddings):
    """`sharding` says how tables lie over the processes; the processes are those of `clickwise.processes`."""

    spans_processes = True

    def __init__(self, tables: Sequence[Table], features: Sequence[str], optimizer: TableOptimizer, *,
                 sharding: Sharding = ROWS_DEALT, table_dtype: str = "float32", **settings) -> None:
        self.sharding, self.rank, self.processes = sharding, processes.rank(), processes.count()
        self.places = places(tables, sharding, self.processes,
                             lambda table: table_bytes(table, optimizer, table_dtype))
        self._narrow = sharding.wire == "bfloat16"
        self._asked: tuple[tuple[Column, ...], list[_Fetched | _Request]] | None = None
        super().__init__(tables, features, optimizer, table_dtype=table_dtype, **settings)

    # Where rows lie ---------------------------------------------------------------------------------------------------

    def _kind(self, table: Table) -> tuple[int, bool, str]:
        return table.dim, table.trainable, self.places[table.name].kind

    def _order(self, table: Table) -> int:
        return self.places[table.name].owner  # so that an owner's rows of the joint matrix stand together

    def _bounds(self, group: Group) -> list[int]:
        """[processes + 1]: the rows of process p are numbered from bounds[p] to bounds[p + 1], where each process's
        stand together."""
        if group.place == "dealt":
            each = -(-group.rows // self.processes)
            return [each * process for process in range(self.processes + 1)]
        rows = [0] * self.processes
        for table in group.tables:
            rows[self.places[table.name].owner] += table.rows
        return list(itertools.accumulate(rows, initial=0))

    def _rows_here(self, group: Group) -> int:
        if group.place == "dealt":
            return len(range(self.rank, group.rows, self.processes))
        if group.place == "whole":
            first, end = self._bounds(group)[self.rank:self.rank + 2]
            return end - first
        return group.rows

    def held_rows(self, table: str) -> range:
        group = self._group_of(table)
        rows = next(each.rows for each in group.tables if each.name == table)
        return self.places[table].held(rows, self.rank, self.processes, group.first_row[table])

    def rows_to_save(self, table: str) -> range:
        is_copy = self.places[table].kind == "copied" and self.rank
        return range(0) if is_copy else self.held_rows(table)

    def _first_here(self, group: Group, table: str) -> int:
        first = group.first_row[table]
        if group.place == "dealt":
            return -(-(first - self.rank) // self.processes)
        if group.place == "whole":
            return first - self._bounds(group)[self.rank] if self.places[table].owner == self.rank else 0
        return first

    # Look-up ----------------------------------------------------------------------------------------------------------

    def ask(self, columns: Sequence[Column]) -> None:
        if self.processes > 1 and self._trains():
            columns = tuple(columns)
            self._asked = columns, [self._request(group, look_up(group, columns)) for group in self._groups]

    def _look_up(self, columns: tuple[Column, ...], trains: bool) -> tuple[_Fetched, ...]:
        if self._asked is None or not all(map(operator.is_, columns, self._asked[0])):
            return super()._look_up(columns, trains)
        (_, requests), self._asked = self._asked, None
        return tuple(each.fetched() if isinstance(each, _Request) else each for each in requests)

    def _found(self, group: Group, lookup: Lookup) -> _Fetched:
        found = self._request(group, lookup)
        return found.fetched() if isinstance(found, _Request) else found

    def _request(self, group: Group, lookup: Lookup) -> _Fetched | _Request:
        """The different rows of the look-up, which are asked of their owners, if there are others."""
        rows_V = lookup.rows_V
        if group.place == "dealt":
            each = self._bounds(group)[1]
            wide = rows_V if each * self.processes <= torch.iinfo(rows_V.dtype).max else rows_V.long()
            at_V = torch.div(wide, self.processes, rounding_mode="trunc")  # the floor, and faster than a remainder
            rows_V = (wide - at_V * self.processes).mul_(each).add_(at_V)
        sorted_V, order_V = stable_sort(rows_V)
        rows_U, inverse_V, counts_U = torch.unique_consecutive(sorted_V, return_inverse=True, return_counts=True)
        number_V = torch.empty_like(inverse_V).scatter_(0, order_V, inverse_V)
        starts_U = torch.nn.functional.pad(counts_U.cumsum(0), (1, 0))
        lookup = dataclasses.replace(lookup, rows_V=number_V)
        if group.place == "copied":
            return _Fetched(lookup, order_V, starts_U, rows_U, [], [], rows_U)
        bounds = self._bounds(group)
        bounds_P = torch.tensor(bounds, dtype=rows_U.dtype, device=rows_U.device)
        sent_P = torch.searchsorted(rows_U, bounds_P).diff()
        rows_U = rows_U - torch.repeat_interleave(bounds_P[:-1], sent_P, output_size=len(rows_U))
        if self.processes == 1:
            return _Fetched(lookup, order_V, starts_U, rows_U, [], [], rows_U)
        most = max(end - first for first, end in itertools.pairwise(bounds))
        return _Request(lookup, order_V, starts_U, rows_U.to(torch.int32 if most < 2**31 else torch.int64), sent_P)

    def _exchanged(self, rows_X: torch.Tensor, sent: list[int], got: list[int]) -> torch.Tensor:
        """What the others sent to this process, by process, for rows that go to them, `sent[p]` to process p."""
        if self.processes == 1:
            return rows_X
        found = rows_X.new_empty(sum(got), *rows_X.shape[1:])
        dist.all_to_all_single(found, rows_X.contiguous(), got, sent)
        return found

    def _on_wire(self, rows_XD: torch.Tensor) -> torch.Tensor:
        return rows_XD.bfloat16() if self._narrow and self.processes > 1 else rows_XD

    def _pooled(self, group: Group, fetched: _Fetched, dtype: torch.dtype,
                out: torch.Tensor | None = None) -> torch.Tensor:
        rows_AD = rows_at(self._weight(group), fetched.asked_A)
        if group.place != "copied":
            rows_AD = self._exchanged(self._on_wire(rows_AD), fetched.got, fetched.sent)
        return pooled(rows_AD, fetched.lookup, dtype, out)

    # Update -----------------------------------------------------------------------------------------------------------

    def _update(self, received: list[Received], scale: float | torch.Tensor = 1.0,
                skip: torch.Tensor | None = None) -> None:
        if skip is not None and bool(skip):
            return
        self.step += 1
        for request in self._asked[1] if self._asked is not None else ():
            if isinstance(request, _Request):
                request.proceed()
        for group, rows_A, grad_AD in self._at_owners(received):
            sparse_update(self._weight(group), self._states(group), rows_A, grad_AD, self.optimizer,
                          lr=self.optimizer.lr * self.lr_factor, step=self.step, scale=float(scale))

    def _at_owners(self, received: list[Received]) -> Iterator[tuple[Group, torch.Tensor, torch.Tensor]]:
        """(group, rows that this process holds of it, their gradients) of every trained group; rows repeat."""
        for index, group in enumerate(self._groups):
            if not group.trainable:
                continue
            fetched = [(looked[index], self._grad_of(group, widths, grad)) for looked, widths, grad in received]
            if group.place == "copied":
                yield group, *self._summed_copies(group, fetched)
                continue
            grads = [self._exchanged(self._on_wire(each.summed(grad_GD)), each.sent, each.got).float()
                     for each, grad_GD in fetched]
            asked = [each.asked_A for each, _ in fetched]
            yield (group, asked[0], grads[0]) if len(grads) == 1 else (group, torch.cat(asked), torch.cat(grads))

    def _summed_copies(self, group: Group,
                       fetched: list[tuple[_Fetched, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows that any process looked up, the sum of their gradients over all)."""
        # The last column counts: a row that was looked up is stepped even if its gradient is 0.
        sum_RX = torch.zeros(group.rows, group.dim + 1, device=self._weight(group).device)
        for each, grad_GD in fetched:
            summed_UD = each.summed(grad_GD)
            sum_RX.index_add_(0, each.rows_U, torch.nn.functional.pad(summed_UD, (0, 1), value=1.0))
        touched_A = processes.sum_over_all(sum_RX)[:, -1].nonzero().squeeze(1)
        return touched_A, sum_RX[touched_A, :-1]

    def pending_gradients_finite(self) -> torch.Tensor:
        finite = super().pending_gradients_finite()
        return processes.greatest_of_all((~finite).float()) == 0

    def _gradients(self, received: list[Received]) -> Iterator[tuple[Group, torch.Tensor, torch.Tensor]]:
        for group, rows_A, grad_AD in self._at_owners(received) if received else ():
            if group.place == "dealt":
                rows_A = rows_A.long() * self.processes + self.rank
            elif group.place == "whole":
                rows_A = rows_A.long() + self._bounds(group)[self.rank]
            yield group, rows_A, grad_AD


