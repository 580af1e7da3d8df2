"""The engine `sharded` as a test of one process sees it: every process of several runs the same test with the whole
batch, of which the engine is given its part; what comes back is the whole again, and so are tables and states."""

from __future__ import annotations

import datetime
import os

import torch
import torch.distributed as dist
from hypothesis import Phase, settings

from clickwise import processes
from clickwise.batch import Ragged
from clickwise.embedding.placement import Sharding
from clickwise.embedding.sharded import ShardedEmbeddings

SHARDINGS = {"rows": Sharding(copied_rows=0), "tables": Sharding(by="tables", copied_rows=0),
             "copies": Sharding(copied_rows=6)}
SHARDING = SHARDINGS[os.environ.get("TABLES_LIE", "rows")]


class WholeBatchEmbeddings(ShardedEmbeddings):
    _has_part = False

    def forward(self, columns, *, before=None):
        if self._has_part:
            return super().forward(columns, before=before)
        columns = tuple(columns)
        self._check_columns(columns, before)
        if self.check_ids:
            self._check_ids(dict(zip(self.features, columns, strict=True)))
        samples = len(columns[0]) if columns else len(before) if before is not None else 0
        return self._gathered(samples, lambda: (super(WholeBatchEmbeddings, self).forward(
            [part_of(column) for column in columns], before=None if before is None else MyPart.apply(before)),))[0]

    def lookup_groups(self, *blocks):
        if self.check_ids:
            for block in blocks:
                self._check_ids(block)
        samples = len(next(iter(next(block for block in blocks if block).values()))) if any(blocks) else 0
        if len({len(column) for block in blocks for column in block.values()}) != 1:
            return super().lookup_groups(*blocks)  # raises
        return self._gathered(samples, lambda: super(WholeBatchEmbeddings, self).lookup_groups(
            *({feature: part_of(column) for feature, column in block.items()} for block in blocks)))

    def _gathered(self, samples, look_up):
        self._has_part = True
        try:
            found = look_up()
        finally:
            self._has_part = False
        return tuple(FromAllParts.apply(part, samples) for part in found)

    def rows_of(self, table):
        return self._whole(table)

    def _whole(self, table, state="weight"):
        parts = processes.from_each((self.held_rows(table), self._held(table, state).clone()))
        rows = next(each.rows for each in self.tables if each.name == table)
        whole = parts[0][1].new_empty(rows, *parts[0][1].shape[1:])
        for held, part in parts:
            whole[held.start:held.stop:held.step] = part
        return whole

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        for table in self.tables:
            destination[f"{prefix}tables.{table.name}.weight"] = self._whole(table.name)

    def optimizer_state_dict(self):
        state = super().optimizer_state_dict()
        state["tables"] = {table: {name: self._whole(table, name) for name in of_table}
                           for table, of_table in state["tables"].items()}
        return state

    def pending_gradients(self):
        found = {}
        for table, mine in super().pending_gradients().items():
            parts = processes.from_each(mine)
            found[table] = mine if self.places[table].kind == "copied" else sum(parts[1:], parts[0]).coalesce()
        return found


class FromAllParts(torch.autograd.Function):
    """The parts of all processes, one after another; backward gives each process the gradient of its own."""

    @staticmethod
    def forward(ctx, part, samples):
        ctx.samples = samples
        if samples == len(part) and processes.count() == 1:
            return part.clone()
        return torch.cat(processes.from_each(part.detach())).contiguous()

    @staticmethod
    def backward(ctx, grad):
        return part_of(grad), None


class MyPart(torch.autograd.Function):
    """This process's part of the whole; backward joins the gradients of all parts."""

    @staticmethod
    def forward(ctx, whole):
        return part_of(whole).clone()

    @staticmethod
    def backward(ctx, grad):
        return torch.cat(processes.from_each(grad))


def part_of(column):
    first, last = (len(column) * (processes.rank() + n) // processes.count() for n in (0, 1))
    if isinstance(column, Ragged):
        begin, end = int(column.offsets[first]), int(column.offsets[last])
        return Ragged(column.values_V[begin:end], column.offsets[first:last + 1] - column.offsets[first])
    return column[first:last]


def join():
    """Joins the other processes; from now on hypothesis draws the same examples in each."""
    settings.register_profile("several processes", derandomize=True, database=None, phases=[Phase.generate])
    settings.load_profile("several processes")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=600))
        torch.set_num_threads(1)
