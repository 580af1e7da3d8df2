"""What a batch looks up: ids of columns become rows of joint matrices, one matrix per width of tables, and these are
pooled."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from clickwise.batch import Column, Ragged
from clickwise.embedding.table import Table
from clickwise.errors import EngineError
from clickwise.kernels.cpu_rows import rows_at

AT_ONCE = 2**19  # values of rows that are cast at a time


class Limits(NamedTuple):
    """Of every feature of a group; not to be written to."""

    rows_F: torch.Tensor  # of its table
    last_F: torch.Tensor  # row of that
    starts_F: torch.Tensor  # that table's first row in the joint matrix
    is_modulo_F: torch.Tensor  # whether ids are taken modulo the rows, bool


@dataclasses.dataclass(frozen=True)
class Group:
    """The tables of one width, trainable or frozen, whose rows are one joint matrix.

    place      how the matrix lies over several processes (`placement.Kind`); "" where one holds it
    first_row  by table the index of its row 0 in the joint matrix
    features   positions in the engine's features; for each of them:
    table_of   its table
    starts     that table's first row
    """

    dim: int
    trainable: bool
    place: str
    tables: tuple[Table, ...]
    first_row: dict[str, int]
    features: tuple[int, ...]
    table_of: tuple[Table, ...]
    starts: tuple[int, ...]

    def of(self, tables: tuple[Table, ...]) -> Group:
        """The same rows, looked up by other features: those of these tables. Made once."""
        names = tuple(table.name for table in tables)
        if names not in self._of:
            self._of[names] = dataclasses.replace(self, features=tuple(range(len(tables))), table_of=tables,
                                                  starts=tuple(self.first_row[name] for name in names))
        return self._of[names]

    @functools.cached_property
    def _of(self) -> dict[tuple[str, ...], Group]:
        return {}

    @functools.cached_property
    def rows(self) -> int:
        """Of the joint matrix."""
        return sum(table.rows for table in self.tables)

    @functools.cached_property
    def rows_of_features(self) -> tuple[int, ...]:
        """Of every feature's table."""
        return tuple(table.rows for table in self.table_of)

    @functools.cached_property
    def modulo_of_features(self) -> tuple[bool, ...]:
        """Whether ids of every feature are taken modulo the rows of its table."""
        return tuple(table.modulo for table in self.table_of)

    @functools.cached_property
    def _limits(self) -> dict[tuple[torch.dtype, torch.device], Limits]:
        return {}

    def limits(self, dtype: torch.dtype, device: torch.device) -> Limits:
        """Those of the features, made once."""
        if (dtype, device) not in self._limits:
            rows = self.rows_of_features
            self._limits[dtype, device] = Limits(
                _constant(rows, dtype, device), _constant(tuple(of - 1 for of in rows), dtype, device),
                _constant(self.starts, dtype, device), _constant(self.modulo_of_features, torch.bool, device))
        return self._limits[dtype, device]

    @functools.cached_property
    def row_type(self) -> torch.dtype:
        """Of numbers of rows of the joint matrix."""
        wide = self.rows > 2**31 - 1
        return torch.int64 if wide else torch.int32

    @functools.cached_property
    def name(self) -> str:
        return "_".join([f"{self.dim}", *["frozen"] * (not self.trainable), *filter(None, [self.place])])


@dataclasses.dataclass(frozen=True)
class Lookup:
    """What one batch looks up in one group. Each feature has one bag per sample, or as many as its column [B, L] has
    positions, where a bag is one row or, at padding, none; the bags of a sample follow one another.

    rows_V    rows of the joint matrix; without multi-hot columns and padding one per bag, in bag order
    starts_G  where each bag begins in `rows_V`, with the end appended; None: bag g is row g
    bag_V     the bag of each row; None as above
    weight_V  1 / length of the bag where the table pools by mean; None: all 1
    """

    rows_V: torch.Tensor
    bags: int
    starts_G: torch.Tensor | None = None
    bag_V: torch.Tensor | None = None
    weight_V: torch.Tensor | None = None


def bags_of(column: Column) -> int:
    """How many rows of a column stand side by side in a sample: 1, or the L of ids [B, L]."""
    return column.shape[1] if is_history(column) else 1


def shapes_of(blocks: Sequence[Mapping[str, Column]]) -> tuple[int, list[int | None], torch.device]:
    """(B, of every block the L of its histories or None, the device); EngineError where columns do not fit together."""
    samples, lengths, devices = set(), [], set()
    for block in blocks:
        of_block = {column.shape[1] if is_history(column) else None for column in block.values()}
        if len(of_block) > 1:
            raise EngineError(f"the features {', '.join(block)} side by side", expected="as many positions in each",
                              found=", ".join(f"{bags_of(column)} of {name!r}" for name, column in block.items()))
        lengths.append(next(iter(of_block), None))
        for column in block.values():
            samples.add(len(column))
            devices.add((column.values_V if isinstance(column, Ragged) else column).device)
    if len(samples) != 1:
        raise EngineError("blocks of features", found=f"columns of {sorted(samples)} samples" if samples else "none",
                          expected="columns of one number of samples")
    return samples.pop(), lengths, devices.pop()


def is_history(column: Column) -> bool:
    """Whether a column holds ids [B, L]."""
    return isinstance(column, torch.Tensor) and column.dim() == 2


def is_one_id_each(columns: Sequence[Column]) -> bool:
    """Whether every column holds ids [B] of one B."""
    shape = getattr(columns[0], "shape", ())
    return len(shape) == 1 and [getattr(column, "shape", None) for column in columns].count(shape) == len(columns)


def look_up(group: Group, columns: tuple[Column, ...]) -> Lookup:
    """The rows of one group that a batch looks up, bags in sample order."""
    mine = [columns[feature] for feature in group.features]
    dtype = group.row_type
    if is_one_id_each(mine):
        rows_V = _rows_side_by_side(mine, group)
        return Lookup(rows_V, len(rows_V))
    widths = [bags_of(column) for column in mine]
    if any(isinstance(column, Ragged) for column in mine):
        return _look_up_bags(group, mine, widths, dtype)

    of_F = [_rows_of(column, table, dtype) for column, table in zip(mine, group.table_of, strict=True)]
    _check_each(of_F, group, mine)
    rows_G = torch.cat([(rows if rows.dim() == 2 else rows[:, None]) + start
                        for rows, start in zip(of_F, group.starts, strict=True)], dim=1).view(-1)
    real_G = torch.cat([column >= 0 if column.dim() == 2 else torch.ones_like(column, dtype=torch.bool)[:, None]
                        for column in mine], dim=1).view(-1)
    return _without_padding(rows_G, real_G)


def _rows_side_by_side(columns: Sequence[torch.Tensor], group: Group) -> torch.Tensor:
    """The rows that ids [B] mean, [B · F]. All at once: of a few samples the time is that of the calls."""
    dtype, device = group.row_type, columns[0].device
    ids_FB = torch.stack(columns)  # of the widest of their types
    if ids_FB.dtype.itemsize < dtype.itemsize or not ids_FB.dtype.is_signed:
        ids_FB = ids_FB.to(dtype)
    limits, ids_BF = group.limits(ids_FB.dtype, device), ids_FB.t()
    if all(group.modulo_of_features):
        ids_BF.remainder_(limits.rows_F)
    else:
        if any(group.modulo_of_features):
            ids_BF = torch.where(limits.is_modulo_F, ids_BF.remainder(limits.rows_F), ids_BF)
        _check_rows(ids_BF, group, columns)
    return ids_BF.add_(limits.starts_F).to(dtype, memory_format=torch.contiguous_format).reshape(-1)


def look_up_histories(group: Group, columns: Sequence[torch.Tensor]) -> Lookup:
    """As `look_up` for histories [B, L] of one L, but their bags position by position: those of all features at the
    first, then at the second."""
    rows_BLF = torch.stack([_rows_of(column, table, group.row_type)
                            for column, table in zip(columns, group.table_of, strict=True)], dim=-1)
    _check_rows(rows_BLF, group, columns)
    rows_BLF.add_(group.limits(group.row_type, rows_BLF.device).starts_F)
    return _without_padding(rows_BLF.view(-1), torch.stack([column >= 0 for column in columns], dim=-1).view(-1))


def _without_padding(rows_G: torch.Tensor, real_G: torch.Tensor) -> Lookup:
    """The look-up of bags of one row, or of none where they are not real."""
    if bool(real_G.all()):
        return Lookup(rows_G, len(rows_G))
    bag_V = real_G.nonzero().squeeze(1)
    starts_G = torch.cat([bag_V.new_zeros(1), real_G.cumsum(0)])
    return Lookup(rows_G.index_select(0, bag_V), len(rows_G), starts_G.to(rows_G.dtype), bag_V.to(rows_G.dtype))


def _look_up_bags(group: Group, mine: list[Column], widths: list[int], dtype: torch.dtype) -> Lookup:
    """`look_up` where a column is Ragged: each becomes bags (an id is a bag of one), interleaved by sample."""
    samples, bags = len(mine[0]), len(mine[0]) * sum(widths)
    device = next(column.values_V.device for column in mine if isinstance(column, Ragged))
    real = [column >= 0 if is_history(column) else None for column in mine]
    lengths = [column.lengths_B().long()[:, None] if isinstance(column, Ragged) else
               torch.ones(samples, 1, dtype=torch.int64, device=device) if real_BL is None else real_BL.long()
               for column, real_BL in zip(mine, real, strict=True)]
    counts = torch.stack([length.sum() for length in lengths]).tolist()  # one wait
    total = sum(counts)
    lengths_BS = torch.cat(lengths, dim=1)
    starts_G = torch.cat([torch.zeros(1, dtype=torch.int64, device=device), lengths_BS.view(-1).cumsum(0)])
    starts = starts_G[:-1].view(-1, sum(widths)).split(widths, dim=1)
    rows_V, of_F = torch.empty(total, dtype=dtype, device=device), []
    for column, table, first, start_BX, length_BX, real_BL, count in zip(
            mine, group.table_of, group.starts, starts, lengths, real, counts, strict=True):
        if isinstance(column, Ragged):
            start_B, length_B = start_BX.squeeze(1), length_BX.squeeze(1)
            at_V = torch.arange(count, device=device) + _repeated(start_B - column.offsets[:-1], length_B, count)
        elif real_BL is None:
            at_V = start_BX.squeeze(1)
        else:
            at_V = start_BX[real_BL]
        ids_V = column.values_V[:count] if isinstance(column, Ragged) else column if real_BL is None else \
            column[real_BL]
        of_F.append(_rows_of(ids_V, table, dtype))
        rows_V[at_V] = of_F[-1] + first
    _check_each(of_F, group, mine)
    bag_V = _repeated(torch.arange(bags, device=device), lengths_BS.view(-1), total)
    weight_V = None
    mean = tuple(table.pooling == "mean" for table in group.table_of)
    if any(mean_of and isinstance(column, Ragged) for mean_of, column in zip(mean, mine, strict=True)):
        mean_S = _constant(tuple(of for of, width in zip(mean, widths, strict=True) for _ in range(width)), torch.bool,
                           device)
        weight_BS = torch.where(mean_S, 1.0 / lengths_BS.clamp(min=1), 1.0)
        weight_V = _repeated(weight_BS.view(-1), lengths_BS.view(-1), total)
    return Lookup(rows_V, bags, starts_G.to(dtype), bag_V.to(dtype), weight_V)


def _check_rows(rows_F: torch.Tensor, group: Group, columns: Sequence[Column]) -> None:
    """EngineError where a row of a feature, [..., F], is none of its table: beside that in the joint matrix lies
    another's. On the CPU alone, where it costs a pass over numbers that are in the cache; a GPU would have to be waited
    for, which `numpy` refuses.
    """
    if rows_F.device.type != "cpu" or not rows_F.numel() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    left_F = group.limits(rows_F.dtype, rows_F.device).last_F - rows_F
    if rows_F.dim() == 2:  # in a history negative is padding
        left_F |= rows_F  # below 0 where either is
    if left_F.numpy().min() < 0:
        _name_wrong_id(group, columns)


def _check_each(of_F: Sequence[torch.Tensor], group: Group, columns: Sequence[Column]) -> None:
    """`_check_rows` of rows that do not stand side by side, a tensor per feature."""
    found = [(*torch.aminmax(rows), table.rows, is_history(column)) for rows, table, column
             in zip(of_F, group.table_of, columns, strict=True) if rows.device.type == "cpu" and rows.numel()]
    if not found or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    lows, highs, ends, padded = zip(*found, strict=True)
    is_low_F = (torch.stack(lows) < 0) & ~_constant(padded, torch.bool, lows[0].device)
    if (is_low_F | (torch.stack(highs) >= _constant(ends, torch.int64, highs[0].device))).numpy().any():
        _name_wrong_id(group, columns)


def _name_wrong_id(group: Group, columns: Sequence[Column]) -> None:
    for column, table in zip(columns, group.table_of, strict=True):
        check_ids_of(" or ".join(table.features), column, table)


def _rows_of(ids_V: torch.Tensor, table: Table, dtype: torch.dtype) -> torch.Tensor:
    """The rows of the table that ids of any integer type mean; an id too large for `dtype` stays too large."""
    if not table.modulo:
        if ids_V.dtype.itemsize > dtype.itemsize:
            limits = torch.iinfo(dtype)
            ids_V = ids_V.clamp(limits.min, limits.max)
        return ids_V.to(dtype)
    wide = torch.promote_types(ids_V.dtype, dtype)  # holds every id and the number of rows
    return ids_V.to(wide).remainder(table.rows).to(dtype)


@functools.lru_cache(maxsize=256)
def _constant(values: tuple, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """`values` on the device, copied there once and not in every step; not to be written to."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def _repeated(of_B: torch.Tensor, times_B: torch.Tensor, total: int) -> torch.Tensor:
    """Each value as often as told, [total]; told the total, a GPU is not waited for."""
    return torch.repeat_interleave(of_B, times_B, output_size=total)


def pooled(weight_RD: torch.Tensor, lookup: Lookup, dtype: torch.dtype,
           out_BX: torch.Tensor | None = None) -> torch.Tensor:
    """One row per bag, [G, D]; or written to `out_BX`, of `dtype`, a sample's bags side by side in each of its rows,
    which may be parts of wider ones."""
    rows_V, dim = lookup.rows_V, weight_RD.shape[1]
    if len(rows_V) == 0:
        made_GD = weight_RD.new_zeros(lookup.bags, dim, dtype=dtype)
    elif lookup.starts_G is not None:
        if weight_RD.dtype != torch.float32:  # sums are in float32
            weight_RD = rows_at(weight_RD, rows_V).float()
            rows_V = torch.arange(len(rows_V), dtype=rows_V.dtype, device=rows_V.device)
        made_GD = torch.embedding_bag(weight_RD, rows_V, lookup.starts_G, False, 0, False, lookup.weight_V, True)[0]
    elif weight_RD.device.type != "cpu" or (dtype == weight_RD.dtype and out_BX is None):
        made_GD = rows_at(weight_RD, rows_V)
    else:
        # A cacheful at a time: the rows are never written to memory but where, and in the type in which, they belong.
        out_BX = weight_RD.new_empty(len(rows_V), dim, dtype=dtype) if out_BX is None else out_BX
        bags = out_BX.shape[1] // dim
        at_once = max(1, AT_ONCE // out_BX.shape[1])
        for part_BX, part_V in zip(out_BX.split(at_once), rows_V.split(at_once * bags), strict=True):
            part_BX.copy_(rows_at(weight_RD, part_V).view(part_BX.shape))
        return out_BX
    return made_GD.to(dtype) if out_BX is None else out_BX.copy_(made_GD.view(out_BX.shape))


def bags_behind(lookup: Lookup, samples: int, bags: int, before: int) -> Lookup:
    """The look-up, of `bags` for each sample, where these stand behind `before` others: two bags of each of two samples
    behind one are the bags 1 2 and 4 5. It tells gradients apart and no longer pools."""
    bags_G = torch.arange(samples * (before + bags), dtype=lookup.rows_V.dtype, device=lookup.rows_V.device)
    bags_G = bags_G.view(samples, before + bags)[:, before:].reshape(-1)
    bag_V = bags_G if lookup.bag_V is None else bags_G.index_select(0, lookup.bag_V)
    return dataclasses.replace(lookup, bags=samples * (before + bags), starts_G=None, bag_V=bag_V)


def joined(lookups: list[Lookup]) -> Lookup:
    """The lookups of several forward passes as one, bags numbered through."""
    if len(lookups) == 1:
        return lookups[0]
    if all(lookup.bag_V is None for lookup in lookups):
        return Lookup(torch.cat([lookup.rows_V for lookup in lookups]), sum(lookup.bags for lookup in lookups))
    bag_parts, first = [], 0
    for lookup in lookups:
        bag_V = lookup.bag_V
        if bag_V is None:
            bag_V = torch.arange(lookup.bags, device=lookup.rows_V.device)
        bag_parts.append(bag_V.long() + first)
        first += lookup.bags
    weight_V = None
    if any(lookup.weight_V is not None for lookup in lookups):
        weight_V = torch.cat([torch.ones(len(lookup.rows_V), device=lookup.rows_V.device)
                              if lookup.weight_V is None else lookup.weight_V for lookup in lookups])
    return Lookup(torch.cat([lookup.rows_V for lookup in lookups]), first, None, torch.cat(bag_parts), weight_V)


def check_ids_of(feature: str, column: Column, table: Table) -> None:
    """EngineError naming feature, sample and id of the first id that is not a row of the table."""
    if table.modulo:
        return
    ids_V = column.values_V[:int(column.offsets[-1])] if isinstance(column, Ragged) else column.reshape(-1)
    if len(ids_V) == 0:
        return
    low, high = torch.aminmax(ids_V)
    is_window = is_history(column)  # where a negative id is padding
    if (is_window or int(low) >= 0) and int(high) < table.rows:
        return
    wide_V = ids_V.long()
    index = int(((wide_V >= table.rows) if is_window else (wide_V < 0) | (wide_V >= table.rows)).nonzero()[0, 0])
    sample = int(torch.searchsorted(column.offsets, index, right=True)) - 1 if isinstance(column, Ragged) \
        else index // bags_of(column)
    raise EngineError(f"feature {feature!r}, sample {sample} of the batch", found=f"the id {int(wide_V[index])}",
                      expected=f"0 … {table.rows - 1}, the rows of table {table.name!r}",
                      do="prepare the data again, or correct the feature's cardinality")
