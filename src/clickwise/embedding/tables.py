"""What engines share whose tables lie in the memory of one device: matrices of rows and states, and when they step.

All tables of one width live in one matrix, so that one gather serves them all and one sort finds the repeats; frozen
ones in a matrix of their own, which no update sees. How rows are looked up and stepped is each engine's own.
"""

from __future__ import annotations

import abc
import functools
import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from clickwise.batch import Column, Ragged
from clickwise.embedding import Embeddings
from clickwise.embedding.backward import RowsOfTables, at_its_end, require_end_of_backward, this_backward
from clickwise.embedding.lookup import Group, bags_of, is_one_id_each
from clickwise.embedding.placement import common_rows
from clickwise.embedding.table import Table, TableOptimizer
from clickwise.errors import EngineError
from clickwise.memory import ask_for_huge_pages

# What an engine's `_look_up` gave, the width of every feature, and the gradient of the result: the last columns, as
# many as the sum of widths, are the rows'.
Received = tuple[Any, tuple[int, ...], torch.Tensor]

ROW_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TRUNCATED_STD = 0.87962566103423978  # the standard deviation of N(0, 1) cut at ± 2
DRAWN_AT_ONCE = 2**24  # values: 64 MB


class TablesInMemory(Embeddings):
    """An engine without its arithmetic: a subclass has `_look_up`, `_rows`, `_update` and `_check_ids`.

    `table_dtype` is the type that rows are stored in. In bfloat16 they take half of the memory and of its bandwidth;
    steps are taken in float32 and rounded at random, up or down, so that small ones are not lost.
    """

    def __init__(self, tables: Sequence[Table], features: Sequence[str], optimizer: TableOptimizer, *, seed: int = 0,
                 device: torch.device | str = "cpu", check_ids: bool = False, table_dtype: str = "float32") -> None:
        row_type = type_named(table_dtype)
        require_end_of_backward()
        super().__init__(tables, features, optimizer)
        self.check_ids = check_ids
        self._groups = tuple(self._group(kind) for kind in sorted({self._kind(table) for table in self.tables}))
        for group in self._groups:
            weight_RD = torch.empty(self._rows_here(group), group.dim, dtype=row_type, device=device)
            if weight_RD.device.type == "cpu":
                ask_for_huge_pages(weight_RD.data_ptr(), weight_RD.nbytes)
            # Buffers, not parameters: the dense optimizer must not see them. Saved by table, not by group.
            self.register_buffer(f"weight_{group.name}", weight_RD, persistent=False)
            for table in group.tables:
                fill_first_values(self._held(table.name), table, seed, self.held_rows(table.name))
            for name, state in optimizer.states().items() if group.trainable else ():
                self.register_buffer(f"{name}_{group.name}", state.beside(weight_RD), persistent=False)
        self._received: dict[int, list[Received]] = {}  # by backward
        self._deferred: list[Received] | None = None

    def _kind(self, table: Table) -> tuple[int, bool, str]:
        """Tables of one kind lie in one matrix: their width, whether they are trained, and their group's `place`."""
        return table.dim, table.trainable, ""

    def _order(self, table: Table) -> int:
        """Tables of one matrix stand by this number, and where it is the same as they were given."""
        return 0

    def _rows_here(self, group: Group) -> int:
        """How many rows of a group's matrix this process holds."""
        return group.rows

    def _first_here(self, group: Group, table: str) -> int:
        """Where in what this process holds of the group's matrix the table's first row lies."""
        return group.first_row[table]

    def _group(self, kind: tuple[int, bool, str]) -> Group:
        tables = tuple(sorted((table for table in self.tables if self._kind(table) == kind), key=self._order))
        ends = itertools.accumulate((table.rows for table in tables), initial=0)
        first_row = {table.name: row for table, row in zip(tables, ends, strict=False)}
        features = tuple(f for f, feature in enumerate(self.features) if self.table_of[feature] in tables)
        table_of = tuple(self.table_of[self.features[f]] for f in features)
        return Group(*kind, tables, first_row, features, table_of, tuple(first_row[table.name] for table in table_of))

    def _weight(self, group: Group) -> torch.Tensor:
        return getattr(self, f"weight_{group.name}")

    def _states(self, group: Group) -> dict[str, torch.Tensor]:
        return {name: getattr(self, f"{name}_{group.name}") for name in self.optimizer.states()}

    # What an engine does in its own way -------------------------------------------------------------------------------

    @abc.abstractmethod
    def _look_up(self, columns: tuple[Column, ...], trains: bool) -> Any:
        """What `_rows` and, after backward, `_update` need to know of a batch."""

    @abc.abstractmethod
    def _rows(self, looked: Any, samples: int, widths: tuple[int, ...], dtype: torch.dtype,
              before: torch.Tensor | None) -> torch.Tensor:
        """[B, sum of widths]: rows, those of the features in turn; behind `before`, if there is one."""

    @abc.abstractmethod
    def _update(self, received: list[Received], scale: float | torch.Tensor = 1.0,
                skip: torch.Tensor | None = None) -> None:
        """One optimizer step with all that a backward brought."""

    @abc.abstractmethod
    def _gradients(self, received: list[Received]) -> Iterator[tuple[Group, torch.Tensor, torch.Tensor]]:
        """(group, rows_V of its joint matrix, grad_VD of each, float32) of every group that is trained."""

    @abc.abstractmethod
    def _check_ids(self, columns: Mapping[str, Column]) -> None:
        """Raises EngineError for the first id that is no row of its table."""

    # Forward ----------------------------------------------------------------------------------------------------------

    def forward(self, columns: Sequence[Column], *, before: torch.Tensor | None = None) -> torch.Tensor:
        columns = tuple(columns)
        has_one_id_each = self._check_columns(columns, before)
        if not self._groups:
            return torch.zeros(0, 0) if before is None else before.to(type_of_rows(before.device))
        if self.check_ids:
            self._check_ids(dict(zip(self.features, columns, strict=True)))
        trains = self._trains()
        looked = self._look_up(columns, trains)
        widths = self.dims if has_one_id_each else \
            tuple(dim * bags_of(column) for dim, column in zip(self.dims, columns, strict=True))
        return self._looked_up(looked, len(columns[0]), widths, before, trains)

    def _trains(self) -> bool:
        return self.training and self.trainable and torch.is_grad_enabled()

    def _looked_up(self, looked: Any, samples: int, widths: tuple[int, ...],
                   before: torch.Tensor | None, trains: bool) -> torch.Tensor:
        device = self._weight(self._groups[0]).device
        dtype = type_of_rows(device)
        if not trains and not (before is not None and before.requires_grad and torch.is_grad_enabled()):
            return self._rows(looked, samples, widths, dtype, before)
        if this_backward() is None:
            self._received.clear()  # left behind by a backward that failed
        # The anchor gives the rows a gradient function, so that backward reaches this engine; on their device, so
        # that autograd knows the stream. Itself it never gets a gradient.
        anchor = torch.empty(0, device=device, requires_grad=trains)
        return RowsOfTables.apply(anchor, before, self, looked, samples, widths, dtype)

    def _check_columns(self, columns: tuple[Column, ...], before: torch.Tensor | None) -> bool:
        """Whether every column has one id per sample; EngineError where columns or `before` do not fit."""
        if len(columns) != len(self.features):
            raise EngineError("embeddings", found=f"{len(columns)} columns",
                              expected=f"{len(self.features)}: {', '.join(self.features)}")
        has_one_id_each = bool(columns) and is_one_id_each(columns)
        for feature, column in () if has_one_id_each else zip(self.features, columns, strict=True):
            ids = column.values_V if isinstance(column, Ragged) else column
            if ids.dim() != 1 and (ids.dim() != 2 or isinstance(column, Ragged)):
                raise EngineError(f"feature {feature!r}", found=f"ids of the shape {tuple(ids.shape)}",
                                  expected="one id per sample [B], several [B, L], or a bag per sample (Ragged)")
            if len(column) != len(columns[0]):
                raise EngineError(f"feature {feature!r}", found=f"{len(column)} samples",
                                  expected=f"{len(columns[0])}, as {self.features[0]!r}")
        if before is not None and (before.dim() != 2 or (columns and len(before) != len(columns[0]))):
            raise EngineError("what stands before the rows", found=f"the shape {tuple(before.shape)}",
                              expected=f"[{len(columns[0]) if columns else 'B'}, N]")
        return has_one_id_each

    # Backward --------------------------------------------------------------------------------------------------------

    def _receive(self, looked: Any, widths: tuple[int, ...], grad: torch.Tensor) -> None:
        """Called by backward with the gradient of the result; acted on when that backward ends."""
        backward = this_backward()
        if backward in self._received:
            self._received[backward].append((looked, widths, grad))
        else:
            self._received[backward] = [(looked, widths, grad)]
            at_its_end(functools.partial(self._end_of_backward, backward))

    def _end_of_backward(self, backward: int) -> None:
        """Called by autograd when all of a backward has succeeded."""
        self._finish(self._received.pop(backward))

    @torch.no_grad()
    def _finish(self, received: list[Received]) -> None:
        if self._deferred is None:
            self._update(received)
        else:
            self._deferred += received

    def defer_updates(self, on: bool) -> None:
        if self._deferred:
            raise EngineError("embedding updates", found=f"deferred gradients of {len(self._deferred)} look-ups",
                              expected="none", do="call apply_updates() first")
        self._deferred = [] if on else None

    @torch.no_grad()
    def apply_updates(self, scale: float | torch.Tensor = 1.0, skip: torch.Tensor | None = None) -> None:
        if self._deferred:
            received, self._deferred = self._deferred, []
            self._update(received, scale, skip)

    def pending_gradients_finite(self) -> torch.Tensor:
        if not self._deferred:
            device = self._weight(self._groups[0]).device if self._groups else "cpu"
            return torch.ones((), dtype=torch.bool, device=device)
        return torch.stack([columns_of_rows(widths, grad).isfinite().all() for _, widths, grad in self._deferred]).all()

    @torch.no_grad()
    def pending_gradients(self) -> dict[str, torch.Tensor]:
        found = {table.name: self._held(table.name).new_zeros(table.rows, table.dim, dtype=torch.float32,
                                                              layout=torch.sparse_coo).coalesce()
                 for table in self.tables if table.trainable}
        for group, rows_V, grad_VD in self._gradients(self._deferred or []):
            for table in group.tables:
                row_V = rows_V.long() - group.first_row[table.name]
                mine = (row_V >= 0) & (row_V < table.rows)
                found[table.name] = torch.sparse_coo_tensor(row_V[mine][None], grad_VD[mine], (table.rows, table.dim),
                                                            check_invariants=False).coalesce()
        return found

    def _held(self, table: str, state: str = "weight") -> torch.Tensor:
        group = self._group_of(table)
        first = self._first_here(group, table)
        return getattr(self, f"{state}_{group.name}")[first:first + len(self.held_rows(table))]

    def _group_of(self, table: str) -> Group:
        for group in self._groups:
            if table in group.first_row:
                return group
        raise EngineError("embeddings", found=f"the table {table!r}", expected="a table of this model")


def type_named(table_dtype: str) -> torch.dtype:
    """The type of a table's rows; EngineError for another than `ROW_TYPES` has."""
    if table_dtype not in ROW_TYPES:
        raise EngineError("embedding.table_dtype", found=repr(table_dtype), expected=" or ".join(ROW_TYPES))
    return ROW_TYPES[table_dtype]


def table_bytes(table: Table, optimizer: TableOptimizer, table_dtype: str) -> int:
    """Bytes of a table's rows, and of the optimizer's states of a table that is trained."""
    states = optimizer.states().values() if table.trainable else ()
    return table.rows * table.dim * type_named(table_dtype).itemsize + sum(
        math.prod(state.shape(table.rows, table.dim)) * state.dtype.itemsize for state in states)


def type_of_rows(device: torch.device) -> torch.dtype:
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


def columns_of_rows(widths: tuple[int, ...], grad: torch.Tensor) -> torch.Tensor:
    """The rows' columns of the gradient of a result."""
    return grad[:, grad.shape[1] - sum(widths):]


def fill_first_values(rows_HD: torch.Tensor, table: Table, seed: int, held: range | None = None) -> None:
    """Writes the first values of the rows `held` of `table`, by default all, into `rows_HD` [held, dim].

    The stream of random numbers depends on the seed and the table's part and name alone, not on the other tables, the
    device, or how many processes hold its rows: all is drawn on the CPU, a part of the rows at a time.
    """
    if table.init == "zeros":
        rows_HD.zero_()
        return
    held = range(table.rows) if held is None else held
    if rows_HD.device.type == "meta" or not held:  # which holds no values
        return
    std = {"glorot_normal": math.sqrt(2.0 / (table.rows + table.dim)) / TRUNCATED_STD,
           "inverse_sqrt_dim": math.sqrt(1.0 / table.dim)}.get(table.init)
    bound = 0.05 if table.init == "keras_uniform" else math.sqrt(1.0 / table.rows)

    def drawn(part_RD: torch.Tensor) -> torch.Tensor:
        if std is None:
            return part_RD.uniform_(-bound, bound, generator=generator)
        return torch.nn.init.trunc_normal_(part_RD, std=std, a=-2 * std, b=2 * std, generator=generator)

    name = f"{table.part}/{table.name}" if table.part else table.name
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    at_once, is_whole = max(1, DRAWN_AT_ONCE // table.dim), held == range(table.rows)
    for first in range(0, table.rows, at_once):
        rows = min(at_once, table.rows - first)
        if is_whole and rows_HD.device.type == "cpu" and rows_HD.dtype == torch.float32:
            drawn(rows_HD[first:first + rows])
            continue
        mine, theirs = common_rows(held, range(first, first + rows))
        rows_HD[mine].copy_(drawn(torch.empty(rows, table.dim))[theirs])
