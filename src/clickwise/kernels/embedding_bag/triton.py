"""`embedding_bag` on a GPU: one launch for all features of a batch, whatever their widths, tables and types of ids.

A program gathers one slot (a feature, or one position of a feature's [B, L]) for a few samples. What it needs to know
of its slot stands in a small table on the GPU: where ids, offsets and rows begin, counted from one tensor of each kind,
so that batches whose columns share a buffer need no new table. Ids are read in the type they are stored in, rows are
cast in registers and written to their columns of the result: every byte is moved once.

Addresses are 64 bits wide: tables of more than 2³¹ elements need no other path.

In training the same launch leaves behind what the update of the tables sorts (see `Touched`).
"""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from clickwise.kernels.embedding_bag import FeatureLookup, Ids, reference
from clickwise.kernels.gpu import FLOATS

KINDS = {torch.uint8: 0, torch.int8: 1, torch.int16: 2, torch.int32: 4, torch.int64: 8}
MEAN, MODULO, PADDED = 1, 2, 4  # flags of a slot; PADDED: a negative id is padding
ELEMENTS = 2048  # of rows that a program holds at a time
LAYOUTS = 64  # tables of slots that are kept
# The columns of a table of slots: 0 where its ids begin, in bytes · 1 their type, as in KINDS · 2 ids from one sample's
# to the next · 3 where its offsets begin, in bytes · 4 flags · 5 where row 0 begins, in elements · 6 rows · 7 dim
# 8 its first column of the rows · 9 its first position among the touched rows; −1: not trained · 10 its table's first
# row in the joint matrix of its group · 11 the type of its offsets; 0: one id per sample
FIELDS: tl.constexpr = tl.constexpr(12)


@triton.jit
def _load_ids(ptr, kind, at, mask):
    """Ids at positions of a column, wide, whatever their type; `ptr` counts bytes."""
    if kind == 8:
        ids = tl.load(ptr.to(tl.pointer_type(tl.int64)) + at, mask=mask, other=0)
    elif kind == 4:
        ids = tl.load(ptr.to(tl.pointer_type(tl.int32)) + at, mask=mask, other=0).to(tl.int64)
    elif kind == 2:
        ids = tl.load(ptr.to(tl.pointer_type(tl.int16)) + at, mask=mask, other=0).to(tl.int64)
    elif kind == 1:
        ids = tl.load(ptr.to(tl.pointer_type(tl.int8)) + at, mask=mask, other=0).to(tl.int64)
    else:
        ids = tl.load(ptr.to(tl.pointer_type(tl.uint8)) + at, mask=mask, other=0).to(tl.int64)
    return ids


@triton.jit
def _rows_of(ids_ptr, slot_ptr, at, mask):
    """(rows of the slot's table that the ids at these positions mean, which of them are no padding)."""
    flags, rows = tl.load(slot_ptr + 4), tl.load(slot_ptr + 6)
    ids = _load_ids(ids_ptr, tl.load(slot_ptr + 1), at * tl.load(slot_ptr + 2), mask)
    real = mask & ((ids >= 0) | ((flags & 4) == 0))
    if (flags & 2) != 0:
        ids = ids % rows
        ids = tl.where(ids < 0, ids + rows, ids)
    return ids, real


@triton.jit
def _bags(ids_ptr, slot_ptr, s, here, RAGGED: tl.constexpr):
    """(first position, end, length of the longest) of the samples' bags in the slot's column."""
    begin, end, longest = s, s + 1, 1
    if RAGGED:
        kind = tl.load(slot_ptr + 11)
        if kind != 0:
            offsets_ptr = ids_ptr + tl.load(slot_ptr + 3)
            begin = _load_ids(offsets_ptr, kind, s, here)
            end = _load_ids(offsets_ptr, kind, s + 1, here)
            longest = tl.max(end - begin, axis=0).to(tl.int32)
    return begin, end, longest


@triton.jit
def _gather(slots_ptr, ids_ptr, weight_ptr, out_ptr, key_ptr, at_ptr, factor_ptr, samples, slots, out_stride, width,
            first_column, DIM: tl.constexpr, ALIGN: tl.constexpr, OUT_ALIGN: tl.constexpr, UNIT: tl.constexpr,
            RAGGED: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr):
    slot_ptr = slots_ptr + tl.program_id(0) % slots * FIELDS
    s = (tl.program_id(0) // slots).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    here = s < samples
    ids_ptr = ids_ptr.to(tl.pointer_type(tl.int8))
    begin, end, longest = _bags(ids_ptr, slot_ptr, s, here, RAGGED)
    ids_ptr += tl.load(slot_ptr)
    factor = tl.full((BLOCK_B,), 1.0, tl.float32)
    if RAGGED:
        if (tl.load(slot_ptr + 4) & 1) != 0:
            factor = 1.0 / tl.maximum(end - begin, 1).to(tl.float32)
    weight_start, column = tl.load(slot_ptr + 5), tl.load(slot_ptr + 8) + first_column

    if key_ptr is not None:
        key_start, first_row = tl.load(slot_ptr + 9), tl.load(slot_ptr + 10)
        if key_start >= 0:
            for j in range(0, longest):
                on = here & (begin + j < end)
                row, real = _rows_of(ids_ptr, slot_ptr, begin + j, on)
                to = key_start + begin + j
                tl.store(key_ptr + to, tl.where(real, first_row + row, -1).to(key_ptr.dtype.element_ty), mask=on)
                tl.store(at_ptr + to, ((s * width + column) // UNIT).to(at_ptr.dtype.element_ty), mask=on)
                if factor_ptr is not None:
                    tl.store(factor_ptr + to, factor, mask=on)

    if DIM > 0:
        dim = DIM
    else:
        dim = tl.multiple_of(tl.load(slot_ptr + 7).to(tl.int32), ALIGN)
    to = tl.multiple_of(s * out_stride + column, OUT_ALIGN)
    for start in range(0, dim, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        inside = (d < dim)[None, :]
        if RAGGED:
            value = tl.zeros((BLOCK_B, BLOCK_D), tl.float32)
            for j in range(0, longest):
                row, on = _rows_of(ids_ptr, slot_ptr, begin + j, here & (begin + j < end))
                source = tl.multiple_of(weight_start + row * dim, ALIGN)
                value += tl.load(weight_ptr + source[:, None] + d[None, :], mask=on[:, None] & inside,
                                 other=0.0).to(tl.float32)
            value *= factor[:, None]
        else:
            row, on = _rows_of(ids_ptr, slot_ptr, s, here)
            source = tl.multiple_of(weight_start + row * dim, ALIGN)
            value = tl.load(weight_ptr + source[:, None] + d[None, :], mask=on[:, None] & inside, other=0.0)
        tl.store(out_ptr + to[:, None] + d[None, :], value.to(tl.float32).to(out_ptr.dtype.element_ty),
                 mask=here[:, None] & inside)


@triton.jit
def _check(slots_ptr, ids_ptr, bad_ptr, samples, slots, RAGGED: tl.constexpr, BLOCK_B: tl.constexpr):
    """The least sample · slots + slot with an id that is no row."""
    slot = tl.program_id(0) % slots
    slot_ptr = slots_ptr + slot * FIELDS
    s = (tl.program_id(0) // slots).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    here = s < samples
    ids_ptr = ids_ptr.to(tl.pointer_type(tl.int8))
    begin, end, longest = _bags(ids_ptr, slot_ptr, s, here, RAGGED)
    ids_ptr += tl.load(slot_ptr)
    rows = tl.load(slot_ptr + 6)
    for j in range(0, longest):
        row, on = _rows_of(ids_ptr, slot_ptr, begin + j, here & (begin + j < end))
        first = tl.min(tl.where(on & ((row < 0) | (row >= rows)), s, samples), axis=0)
        if first < samples:
            tl.atomic_min(bad_ptr, first * slots + slot)


@dataclasses.dataclass(frozen=True)
class Touched:
    """What a look-up leaves for the update of a group of tables, one entry per id.

    key_V     the row of the group's joint matrix, int32 or int64; negative: padding, of histories or behind the bags
    at_V      times `unit`: where the gradient of the row begins in that of the result, in elements; int32 or int64
    factor_V  what the row was multiplied by; None: 1
    """

    key_V: torch.Tensor
    at_V: torch.Tensor
    unit: int
    factor_V: torch.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class _Layout:
    """The table of slots for columns that lie in memory in one way, and what follows from it."""

    slots: torch.Tensor
    width: int
    is_ragged: bool
    has_mean: bool
    ends: tuple[int, ...]  # by group where its touched rows end


class Gather:
    """The look-up of several features in several tables, to be called batch after batch.

    tables      [rows, dim] each, contiguous, of one type, on one device, where they stay
    groups      of tables that are updated together, in turn: what `Touched` counts rows in
    first_row   per table the index of its row 0 in its group's joint matrix; None: it is not trained
    """

    def __init__(self, tables: Sequence[torch.Tensor], lookups: Sequence[FeatureLookup], *,
                 groups: Sequence[Sequence[int]] = (), first_row: Sequence[int | None] = ()) -> None:
        self.lookups, self.tables = tuple(lookups), tuple(tables)
        itemsize, first = tables[0].element_size(), tables[0].data_ptr()
        starts = [(table.data_ptr() - first) // itemsize for table in tables]
        self.first_row = first_row or [None] * len(tables)
        group_of = {table: group for group, of_group in enumerate(groups) for table in of_group}
        # The positions of touched rows are given out group by group, so that each group's stand together.
        self.groups = [[f for f, lookup in enumerate(lookups) if group_of.get(lookup.table) == group]
                       for group in range(len(groups))]
        rows = max((sum(len(tables[t]) for t in of_group) for of_group in groups), default=0)
        self.key_type = torch.int32 if rows < 2**31 else torch.int64
        self.starts = [starts[lookup.table] for lookup in self.lookups]
        self.shapes = [tables[lookup.table].shape for lookup in self.lookups]
        dims = [dim for _, dim in self.shapes]
        self.align = math.gcd(16, *dims, *self.starts)
        self.unit = math.gcd(16, *dims)  # of columns of the result
        self.one_dim = dims[0] if len(set(dims)) == 1 else 0
        self.block_d = min(triton.next_power_of_2(max(dims)), 256)
        self._layouts: OrderedDict[tuple, _Layout] = OrderedDict()

    def __call__(self, columns: Sequence[Ids], dtype: torch.dtype, *, out: torch.Tensor | None = None,
                 first: int = 0, touched: bool = False) -> tuple[torch.Tensor, tuple[Touched, ...]]:
        """(the rows as `embedding_bag` gives them, where asked for one `Touched` per group). Waits for nothing.

        They stand in the columns of the result from `first` on, and the others stay as they are. A `Touched` counts
        in a gradient of the whole result, contiguous.
        """
        columns, samples, layout = self._laid_out(columns)
        width, unit = first + layout.width, math.gcd(self.unit, first)
        if out is None:
            out = torch.empty(samples, width, dtype=dtype, device=self.tables[0].device)
        key_V = at_V = factor_V = None
        if touched:
            key_V, at_V, factor_V = self._room(layout, samples * width // unit)
        if samples and layout.width:
            slots, block_b = len(layout.slots), max(4, min(256, ELEMENTS // self.block_d))
            _gather[(triton.cdiv(samples, block_b) * slots,)](
                layout.slots, _start(columns[0]), self.tables[0], out, key_V, at_V, factor_V, samples, slots,
                out.stride(0), width, first, DIM=self.one_dim, ALIGN=self.align,
                OUT_ALIGN=math.gcd(unit, out.stride(0)), UNIT=unit, RAGGED=layout.is_ragged, BLOCK_B=block_b,
                BLOCK_D=self.block_d, num_warps=4)
        parts = [slice(*ends) for ends in zip((0, *layout.ends), layout.ends, strict=False)] if touched else []
        return out, tuple(Touched(key_V[part], at_V[part], unit, None if factor_V is None else factor_V[part])
                          for part in parts)

    def first_bad(self, columns: Sequence[Ids]) -> tuple[int, int] | None:
        """(sample, feature) of the first id that is no row of its table; None where all are. Waits for the GPU."""
        columns, samples, layout = self._laid_out(columns)
        none, slots = 2**62, len(layout.slots)
        if not samples or not slots:
            return None
        bad = torch.full((1,), none, dtype=torch.int64, device=self.tables[0].device)
        _check[(triton.cdiv(samples, 256) * slots,)](layout.slots, _start(columns[0]), bad, samples, slots,
                                                     RAGGED=layout.is_ragged, BLOCK_B=256)
        code = int(bad)
        if code == none:
            return None
        features = [f for f, column in enumerate(columns) for _ in range(_positions(column))]
        return code // slots, features[code % slots]

    def _laid_out(self, columns: Sequence[Ids]) -> tuple[list[Ids], int, _Layout]:
        """(columns that the kernels can read, the number of samples, where everything is)."""
        columns = [tuple(map(_readable, column)) if isinstance(column, tuple) else _readable(column)
                   for column in columns]
        samples = len(columns[0][1]) - 1 if isinstance(columns[0], tuple) else len(columns[0])
        base = _start(columns[0]).data_ptr()
        key = tuple((ids.data_ptr() - base, ids.dtype, ids.shape, ids.stride()) for column in columns
                    for ids in (column if isinstance(column, tuple) else (column,)))
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._layouts[key] = self._layout(columns, samples, base)
            if len(self._layouts) > LAYOUTS:
                self._layouts.popitem(last=False)
        else:
            self._layouts.move_to_end(key)
        return columns, samples, layout

    def _layout(self, columns: list[Ids], samples: int, base: int) -> _Layout:
        key, ends = 0, []
        first_key = [-1] * len(columns)
        for features in self.groups:
            for f in features:
                if self.first_row[self.lookups[f].table] is not None:
                    first_key[f] = key
                    key += columns[f].numel() if isinstance(columns[f], torch.Tensor) else len(columns[f][0])
            ends.append(key)
        slots, width = [], 0
        for f, (lookup, column) in enumerate(zip(self.lookups, columns, strict=True)):
            (rows, dim), first_row = self.shapes[f], self.first_row[lookup.table] or 0
            ids, offsets = column if isinstance(column, tuple) else (column, None)
            is_mean = lookup.mean and offsets is not None
            flags = MEAN * is_mean + MODULO * lookup.modulo + PADDED * (ids.dim() == 2)
            stride = ids.stride(0) if len(ids) > 1 else 1
            for position in range(_positions(column)):
                begin = ids.data_ptr() - base + (position * ids.stride(1) * ids.element_size() if ids.dim() == 2 else 0)
                of_offsets = (0, 0) if offsets is None else (offsets.data_ptr() - base, KINDS[offsets.dtype])
                first = first_key[f] + position * samples if first_key[f] >= 0 else -1
                slots.append([begin, KINDS[ids.dtype], stride, of_offsets[0], flags, self.starts[f], rows, dim, width,
                              first, first_row, of_offsets[1]])
                width += dim
        is_ragged = any(isinstance(column, tuple) for column in columns)
        has_mean = any(slot[4] & MEAN for slot in slots)
        return _Layout(_on_device(slots, self.tables[0].device), width, is_ragged, has_mean, tuple(ends))

    def _room(self, layout: _Layout, positions: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Memory for the touched rows of all groups, whose gradients begin at some of so many positions; behind the
        bags of a column no row is touched."""
        total, device = layout.ends[-1] if layout.ends else 0, self.tables[0].device
        key_V = torch.full((total,), -1, dtype=self.key_type, device=device) if layout.is_ragged else \
            torch.empty(total, dtype=self.key_type, device=device)
        at_type = torch.int32 if positions < 2**31 else torch.int64
        at_V = torch.empty(total, dtype=at_type, device=device)
        return key_V, at_V, torch.empty(total, device=device) if layout.has_mean else None


def _readable(ids: torch.Tensor) -> torch.Tensor:
    return ids if ids.dtype in KINDS else ids.long()


def _start(column: Ids) -> torch.Tensor:
    """What addresses of ids are counted from: the first column."""
    return column[0] if isinstance(column, tuple) else column


def _positions(column: Ids) -> int:
    return column.shape[1] if isinstance(column, torch.Tensor) and column.dim() == 2 else 1


def _on_device(rows: list[list[int]], device: torch.device) -> torch.Tensor:
    """A table of numbers on the device, without waiting for it."""
    table = torch.tensor(rows, dtype=torch.int64).view(-1, FIELDS.value)
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table


def supports(tables: Sequence[torch.Tensor], columns: Sequence[Ids]) -> bool:
    """Whether the kernels are made for these."""
    first = tables[0]
    return len(columns) > 0 and first.dtype in FLOATS and all(
        t.dtype == first.dtype and t.device == first.device and t.is_contiguous() for t in tables)


def self_test(device: torch.device) -> None:
    """Raises where rows on `device` are not those of the reference."""
    tables = [torch.randn(9, 20, device=device), torch.randn(5, 4, device=device)]
    lookups = [FeatureLookup(0), FeatureLookup(1, mean=True), FeatureLookup(1, modulo=True)]
    columns = [torch.tensor([8, 0, 3], dtype=torch.int16, device=device),
               (torch.tensor([4, 1, 1], dtype=torch.int8, device=device), torch.tensor([0, 2, 2, 3], device=device)),
               torch.tensor([[1, -1], [99, 2], [0, 7]], device=device)]
    for dtype in (torch.float32, torch.bfloat16):
        found, expected = (run(tables, lookups, columns, dtype) for run in (embedding_bag, reference.embedding_bag))
        torch.testing.assert_close(found, expected)


def embedding_bag(tables, lookups, columns, dtype, out=None) -> torch.Tensor:
    """As `clickwise.kernels.embedding_bag.embedding_bag`."""
    if out is not None and out.stride(1) != 1:
        return out.copy_(Gather(tables, lookups)(columns, dtype)[0])
    return Gather(tables, lookups)(columns, dtype, out=out)[0]
