"""The engine `reference`: plain torch on any device; what it computes is what every engine must compute.

All tables of one width live in one matrix, so that one gather serves them all and one sort finds the repeats; frozen
ones in a matrix of their own, which no update sees.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from clickwise.batch import Column, Ragged
from clickwise.embedding import Embeddings
from clickwise.embedding.lookup import (
    Group,
    Lookup,
    bags_of,
    check_ids_of,
    joined,
    look_up,
    look_up_histories,
    pooled,
    shapes_of,
)
from clickwise.embedding.table import Table, TableOptimizer, fill_first_values
from clickwise.errors import EngineError
from clickwise.kernels.sparse_update import sparse_update
from clickwise.machine import INSTALL_TORCH
from clickwise.memory import ask_for_huge_pages

# A look-up (of every group; the width of every feature) and the gradient of its result: the last columns, as many as
# the sum of widths, are the rows'.
Received = tuple[tuple[Lookup, ...], tuple[int, ...], torch.Tensor]


ROW_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ReferenceEmbeddings(Embeddings):
    """`table_dtype` is the type that rows are stored in. In bfloat16 they take half of the memory and of its
    bandwidth; steps are taken in float32 and rounded at random, up or down, so that small ones are not lost."""

    def __init__(self, tables: Sequence[Table], features: Sequence[str], optimizer: TableOptimizer, *, seed: int = 0,
                 device: torch.device | str = "cpu", check_ids: bool = False, table_dtype: str = "float32") -> None:
        if table_dtype not in ROW_TYPES:
            raise EngineError("embedding.table_dtype", found=repr(table_dtype), expected=" or ".join(ROW_TYPES))
        if not _hears_of_backward():
            raise EngineError("embedding.engine",
                              found=f"torch {torch.__version__}, which does not tell an engine when a backward ends",
                              expected="one that does, or every look-up would take an optimizer step of its own",
                              do=INSTALL_TORCH)
        super().__init__(tables, features, optimizer)
        self.check_ids, self.step = check_ids, 0
        self._groups = tuple(self._group(*kind) for kind in sorted({(t.dim, t.trainable) for t in self.tables}))
        for group in self._groups:
            rows = sum(table.rows for table in group.tables)
            weight_RD = torch.empty(rows, group.dim, dtype=ROW_TYPES[table_dtype], device=device)
            if weight_RD.device.type == "cpu":
                ask_for_huge_pages(weight_RD.data_ptr(), weight_RD.nbytes)
            for table in group.tables:
                start = group.first_row[table.name]
                fill_first_values(weight_RD[start:start + table.rows], table, seed)
            # Buffers, not parameters: the dense optimizer must not see them. Saved by table, not by group.
            self.register_buffer(f"weight_{group.name}", weight_RD, persistent=False)
            for name, state in optimizer.states().items() if group.trainable else ():
                self.register_buffer(f"{name}_{group.name}", state.beside(weight_RD), persistent=False)
        self._received: dict[int, list[Received]] = {}  # by backward
        self._deferred: list[Received] | None = None

    def _group(self, dim: int, trainable: bool) -> Group:
        tables = tuple(table for table in self.tables if (table.dim, table.trainable) == (dim, trainable))
        ends = itertools.accumulate((table.rows for table in tables), initial=0)
        first_row = {table.name: row for table, row in zip(tables, ends, strict=False)}
        features = tuple(f for f, feature in enumerate(self.features) if self.table_of[feature] in tables)
        table_of = tuple(self.table_of[self.features[f]] for f in features)
        return Group(dim, trainable, tables, first_row, features, table_of,
                      tuple(first_row[table.name] for table in table_of))

    def _weight(self, group: Group) -> torch.Tensor:
        return getattr(self, f"weight_{group.name}")

    def _states(self, group: Group) -> dict[str, torch.Tensor]:
        return {name: getattr(self, f"{name}_{group.name}") for name in self.optimizer.states()}

    # Forward ---------------------------------------------------------------------------------------------------------

    def forward(self, columns: Sequence[Column], *, before: torch.Tensor | None = None) -> torch.Tensor:
        columns = tuple(columns)
        self._check_columns(columns, before)
        if not self._groups:
            return torch.zeros(0, 0) if before is None else before.to(_type_of_rows(before.device))
        if self.check_ids:
            self._check_ids(dict(zip(self.features, columns, strict=True)))
        trains = self._trains()
        lookups = self._look_up(columns, trains)
        widths = tuple(dim * bags_of(column) for dim, column in zip(self.dims, columns, strict=True))
        return self._looked_up(lookups, len(columns[0]), widths, before, trains)

    def _trains(self) -> bool:
        return self.training and self.trainable and torch.is_grad_enabled()

    def _looked_up(self, lookups: tuple[Lookup, ...], samples: int, widths: tuple[int, ...],
                   before: torch.Tensor | None, trains: bool) -> torch.Tensor:
        device = self._weight(self._groups[0]).device
        dtype = _type_of_rows(device)
        if not trains and not (before is not None and before.requires_grad and torch.is_grad_enabled()):
            return self._rows(lookups, samples, widths, dtype, before)
        if _this_backward() is None:
            self._received.clear()  # left behind by a backward that failed
        # The anchor gives the rows a gradient function, so that backward reaches this engine; on their device, so
        # that autograd knows the stream. Itself it never gets a gradient.
        anchor = torch.empty(0, device=device, requires_grad=trains)
        return _RowsOfTables.apply(anchor, before, self, lookups, samples, widths, dtype)

    def blocks(self, *blocks: Mapping[str, Column]) -> tuple[torch.Tensor, ...]:
        if len(self._groups) != 1:
            return super().blocks(*blocks)
        # Each is looked up by itself as it shall stand in memory; backward joins them into one update.
        samples, lengths, _ = shapes_of(blocks)
        return tuple(self._block(block, samples, length) for block, length in zip(blocks, lengths, strict=True))

    def _block(self, block: Mapping[str, Column], samples: int, length: int | None) -> torch.Tensor:
        if not block:
            weight_RD = self._weight(self._groups[0])
            return weight_RD.new_zeros(samples, 0, dtype=_type_of_rows(weight_RD.device))
        if self.check_ids:
            self._check_ids(block)
        group, columns = self._groups[0].of(tuple(self.table_of[feature] for feature in block)), tuple(block.values())
        width = group.dim * len(block)
        if length is None:
            return self._looked_up((look_up(group, columns),), samples, (width,), None, self._trains())
        rows = self._looked_up((look_up_histories(group, columns),), samples, (length * width,), None, self._trains())
        return rows.view(samples, length, width)

    def _look_up(self, columns: tuple[Column, ...], trains: bool) -> tuple[Lookup, ...]:
        """What `_rows` and, after backward, `_update` need to know of a batch."""
        return tuple(look_up(group, columns) for group in self._groups)

    def _rows(self, lookups: tuple[Lookup, ...], samples: int, widths: tuple[int, ...], dtype: torch.dtype,
              before: torch.Tensor | None) -> torch.Tensor:
        """[B, sum of widths]: rows, those of the features in turn; behind `before`, if there is one."""
        of_groups = [pooled(self._weight(group), lookup, dtype)
                     for group, lookup in zip(self._groups, lookups, strict=True)]
        if len(of_groups) == 1:
            parts = [of_groups[0].view(samples, sum(widths))]
        else:
            parts = [of_groups[0]] * len(self.features)
            for group, part_GD in zip(self._groups, of_groups, strict=True):
                mine = [widths[feature] for feature in group.features]
                part_BX = part_GD.view(samples, sum(mine))
                for feature, part in zip(group.features, part_BX.split(mine, dim=1), strict=True):
                    parts[feature] = part
        if before is not None:
            parts.insert(0, before.to(dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _check_columns(self, columns: tuple[Column, ...], before: torch.Tensor | None) -> None:
        if len(columns) != len(self.features):
            raise EngineError("embeddings", found=f"{len(columns)} columns",
                              expected=f"{len(self.features)}: {', '.join(self.features)}")
        for feature, column in zip(self.features, columns, strict=True):
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

    def _check_ids(self, columns: Mapping[str, Column]) -> None:
        for feature, column in columns.items():
            check_ids_of(feature, column, self.table_of[feature])

    # Backward --------------------------------------------------------------------------------------------------------

    def _receive(self, lookups: tuple[Lookup, ...], widths: tuple[int, ...], grad: torch.Tensor) -> None:
        """Called by backward with the gradient of the result; acted on when that backward ends."""
        backward = _this_backward()
        if backward in self._received:
            self._received[backward].append((lookups, widths, grad))
        else:
            self._received[backward] = [(lookups, widths, grad)]
            _at_its_end(functools.partial(self._end_of_backward, backward))

    def _end_of_backward(self, backward: int) -> None:
        """Called by autograd when all of a backward has succeeded."""
        self._finish(self._received.pop(backward))

    @torch.no_grad()
    def _finish(self, received: list[Received]) -> None:
        if self._deferred is None:
            self._update(received)
        else:
            self._deferred += received

    def _update(self, received: list[Received], scale: float | torch.Tensor = 1.0,
                skip: torch.Tensor | None = None) -> None:
        if skip is not None and bool(skip):
            return
        self.step += 1
        lr = self.optimizer.lr * self.lr_factor
        for place, group in enumerate(self._groups):
            if not group.trainable:
                continue
            lookup = joined([lookups[place] for lookups, _, _ in received])
            grads = [self._grad_of(group, widths, grad) for _, widths, grad in received]
            grad_GD = grads[0] if len(grads) == 1 else torch.cat(grads)
            sparse_update(self._weight(group), self._states(group), lookup.rows_V, grad_GD, self.optimizer, lr=lr,
                          step=self.step, bag_V=lookup.bag_V, weight_V=lookup.weight_V, scale=float(scale))

    def _grad_of(self, group: Group, widths: tuple[int, ...], grad: torch.Tensor) -> torch.Tensor:
        """The gradient of the group's bags [G, dim] out of the gradient of the result."""
        grad = _of_rows(widths, grad)
        if len(self._groups) == 1:
            return grad.reshape(-1, group.dim)
        by_feature = grad.split(widths, dim=1)
        return torch.cat([by_feature[feature] for feature in group.features], dim=1).view(-1, group.dim)

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
        return torch.stack([_of_rows(widths, grad).isfinite().all() for _, widths, grad in self._deferred]).all()

    # State -----------------------------------------------------------------------------------------------------------

    def _by_table(self, name: str, buffer: str) -> torch.Tensor:
        for group in self._groups:
            if name in group.first_row:
                start = group.first_row[name]
                rows = next(table.rows for table in group.tables if table.name == name)
                return getattr(self, f"{buffer}_{group.name}")[start:start + rows]
        raise EngineError("embeddings", found=f"the table {name!r}", expected="a table of this model")

    def table_rows(self, name: str) -> torch.Tensor:
        return self._by_table(name, "weight")

    def set_counts(self, counts: Mapping[str, np.ndarray]) -> None:
        for feature in self.counted:
            if feature not in counts:
                raise EngineError(f"feature {feature!r}", found="no counts of its ids",
                                  expected="counts for each of " + ", ".join(self.counted))
        for table in self.tables if self.counted else ():
            if table.trainable:
                self._by_table(table.name, "count").copy_(_counts_of_rows(table, counts).clamp_(min=1))

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        for table in self.tables:
            destination[f"{prefix}tables.{table.name}.weight"] = self.table_rows(table.name)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                              error_msgs) -> None:
        expected = {f"{prefix}tables.{table.name}.weight": table for table in self.tables}
        for key, table in expected.items():
            rows_RD = self.table_rows(table.name)
            if key not in state_dict:
                missing_keys.append(key)
            elif state_dict[key].shape != rows_RD.shape:
                error_msgs.append(f"{key}: found {tuple(state_dict[key].shape)}, expected {tuple(rows_RD.shape)}")
            else:
                rows_RD.copy_(state_dict[key])
        unexpected_keys.extend(key for key in state_dict if key.startswith(prefix) and key not in expected)

    def optimizer_state_dict(self) -> dict:
        names = self.optimizer.states()
        tables = {table.name: {name: self._by_table(table.name, name) for name in names if table.trainable}
                  for table in self.tables}
        return {"optimizer": self.optimizer.name, "step": self.step, "tables": tables}

    def load_optimizer_state_dict(self, state: dict) -> None:
        if state["optimizer"] != self.optimizer.name:
            raise EngineError("embedding optimizer state", found=f"state of {state['optimizer']!r}",
                              expected=f"state of {self.optimizer.name!r}")
        frozen = {table.name for table in self.tables if not table.trainable}
        found = {table: {name: tuple(value.shape) for name, value in states.items() if table not in frozen}
                 for table, states in state["tables"].items()}
        mine = self.optimizer_state_dict()["tables"]
        expected = {table: {name: tuple(value.shape) for name, value in states.items()}
                    for table, states in mine.items()}
        if found != expected:
            table = next(name for name in {**expected, **found} if found.get(name) != expected.get(name))
            raise EngineError(f"embedding optimizer state of table {table!r}", found=str(found.get(table, "nothing")),
                              expected=str(expected.get(table, "nothing")))
        for table, states in mine.items():
            for name, value in states.items():
                value.copy_(state["tables"][table][name])
        self.step = int(state["step"])


def _this_backward() -> int | None:
    """A number for the backward pass that is running; None outside of one."""
    number = torch._C._current_graph_task_id()
    return None if number == -1 else number


def _at_its_end(call: Callable[[], None]) -> None:
    """Has autograd call this when all of the backward pass that is running has succeeded."""
    torch.autograd.Variable._execution_engine.queue_callback(call)


@functools.cache
def _hears_of_backward() -> bool:
    """Whether the two functions of torch above (they are not public; FSDP uses the second in the same way) are there
    and right, told by one small backward pass."""
    seen: list[int | str | None] = []

    def watch(grad: torch.Tensor) -> None:
        seen.append(_this_backward())
        if len(seen) == 1:
            _at_its_end(lambda: seen.append("end"))

    try:
        before = _this_backward()
        with torch.inference_mode(False), torch.enable_grad():
            x, y = (torch.ones((), device="cpu", requires_grad=True) for _ in range(2))
            x.register_hook(watch)
            y.register_hook(watch)
            (x * y).backward()
    except (AttributeError, TypeError, RuntimeError):
        return False
    first = seen[0]
    return seen == [first, first, "end"] and first not in (None, before) and _this_backward() == before


def _counts_of_rows(table: Table, counts: Mapping[str, np.ndarray]) -> torch.Tensor:
    """How often the ids of each row occur, int64 [rows]."""
    counts_R = torch.zeros(table.rows, dtype=torch.int64)
    for feature in table.features:
        of_ids = torch.from_numpy(counts[feature])
        if len(of_ids) > table.rows and not table.modulo:
            raise EngineError(f"feature {feature!r}", found=f"counts of {len(of_ids)} ids",
                              expected=f"at most {table.rows}, the rows of table {table.name!r}")
        counts_R.index_add_(0, torch.arange(len(of_ids)) % table.rows, of_ids)
    return counts_R


def _type_of_rows(device: torch.device) -> torch.dtype:
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


def _of_rows(widths: tuple[int, ...], grad: torch.Tensor) -> torch.Tensor:
    """The rows' columns of the gradient of a result."""
    return grad[:, grad.shape[1] - sum(widths):]


class _RowsOfTables(torch.autograd.Function):
    """Forward: the result, `before` and rows. Backward: the engine receives the gradient, and only the columns of
    `before` go further up."""

    @staticmethod
    def forward(ctx, anchor, before, engine, lookups, samples, widths, dtype):
        ctx.engine, ctx.lookups, ctx.widths = engine, lookups, widths
        ctx.before = None if before is None else (before.shape[1], before.dtype)
        return engine._rows(lookups, samples, widths, dtype, before)

    @staticmethod
    def backward(ctx, grad):
        trains, wants_before = ctx.needs_input_grad[:2]
        if trains:
            ctx.engine._receive(ctx.lookups, ctx.widths, grad)
        of_before = None
        if wants_before:
            columns, dtype = ctx.before
            of_before = grad[:, :columns].to(dtype)
        return (None, of_before, *(None,) * 5)
