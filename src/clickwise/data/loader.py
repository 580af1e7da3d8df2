"""Columns -> Batches: shuffled, sharded, read ahead, and every batch a pure function of (seed, epoch, its number).

A batch is read as whole slices of columns into one buffer (page-locked where a GPU is), ids in their stored type.
`shuffle="rows"` permutes blocks of the file, takes several blocks as a window, and permutes the rows of the window one
column at a time, so that the column being gathered stays in the processor's cache.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch

from clickwise.batch import Batch, Column, Part, Ragged
from clickwise.data import events_windows
from clickwise.data.arrays import Array, RaggedArray, gather, take_segments
from clickwise.data.columns import Columns, check_loadable
from clickwise.data.events_windows import HistoryBatcher
from clickwise.data.read_ahead import Buffers, read_ahead
from clickwise.errors import DataError, nearest
from clickwise.feature_spec import CHANNELS, ID_CHANNELS, FeatureSpec

SHUFFLES = ("none", "batches", "rows")
BLOCKS_PER_WINDOW = 16
ALIGNMENT = 64  # bytes, of every tensor in the buffer of its batch
EVENTS = ""  # instead of a channel: what histories are made of


class Loader:
    """Batches of the channels of `columns`; histories are cut from its events as batches are made.

    channels     those that a batch holds; label and display are in it always
    batch_size   samples of a global batch; rank r of `world_size` gets its r-th contiguous part of each, or, of a last
                 batch with fewer samples than processes, perhaps a row that is not its own (`Batch.part`)
    shuffle      none | batches (their order) | rows (inside windows of `window_rows` rows, made of permuted blocks)
    drop_last    leave out a last batch that is not full (the others keep it, always as the last one)
    prefetch     batches that a thread reads ahead; 0 reads in the caller's thread. With shuffle="rows" a second thread
                 makes the next window, so that up to three windows are in memory
    pin_memory   page-locked batches, where there is a GPU

    `len(loader)` is the number of batches of an epoch. Iterating yields the rest of the current epoch and then stands
    at the start of the next; `state_dict()` between two batches continues with exactly the next one.
    """

    def __init__(self, columns: Columns, spec: FeatureSpec, *, batch_size: int,
                 shuffle: Literal["none", "batches", "rows"] = "none", window_rows: int = 1_048_576, seed: int = 0,
                 drop_last: bool = False, rank: int = 0, world_size: int = 1, prefetch: int = 2,
                 pin_memory: bool = False, channels: Collection[str] = CHANNELS) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("window_rows", window_rows, 1), ("seed", seed, 0),
                                   ("prefetch", prefetch, 0), ("world_size", world_size, 1), ("rank", rank, 0)):
            if value < least:
                raise DataError(name, found=str(value), expected=f"at least {least}")
        if shuffle not in SHUFFLES:
            raise DataError("shuffle", found=repr(shuffle), expected=", ".join(SHUFFLES), do=nearest(shuffle, SHUFFLES))
        if rank >= world_size:
            raise DataError("rank", found=f"{rank} of {world_size}", expected=f"0 … {world_size - 1}")
        check_loadable(spec)
        self.columns, self.spec = columns, spec
        self.batch_size, self.shuffle, self.window_rows, self.seed = batch_size, shuffle, window_rows, seed
        self.drop_last, self.rank, self.world_size, self.prefetch = drop_last, rank, world_size, prefetch
        self.pin_memory = pin_memory and torch.cuda.is_available()
        if columns.rows < batch_size and drop_last:
            raise DataError("batch_size", found=f"{batch_size} with drop_last, for {columns.rows:,} rows",
                            expected="a batch no larger than the data", do=f"batch_size={columns.rows} or less")
        made = {channel: [feature for feature in spec.channel(channel) if feature.name not in columns.arrays]
                if columns.events is not None and channel in channels else [] for channel in events_windows.CHANNELS}
        self._histories = HistoryBatcher(columns.events, spec, made, seed) if any(made.values()) else None
        fields = _fields(columns, spec, {*channels, "label", "display"})
        if self._histories is not None:
            fields += [(EVENTS, column) for column in columns.events.columns()]
        self._channels, self._arrays = [channel for channel, _ in fields], [array for _, array in fields]
        windows = max(1, window_rows // batch_size) if shuffle == "rows" else 1
        self._buffers = Buffers(keep=3 * windows + prefetch)
        self._next = (0, 0)

    def __len__(self) -> int:
        full, rest = divmod(self.columns.rows, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @property
    def samples(self) -> int:
        """Samples of an epoch, over all ranks."""
        return min(len(self) * self.batch_size, self.columns.rows)

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(*self._next)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start_batch` on, the same whatever was read before."""
        windows = self._windows(epoch, start_batch)
        if self.prefetch and self.shuffle == "rows":
            windows = read_ahead(windows, 1)
        batches = itertools.chain.from_iterable(windows)
        if self.prefetch:
            batches = read_ahead(batches, self.prefetch)
        number = start_batch
        self._next = (epoch, start_batch)
        try:
            for batch in batches:
                number += 1
                self._next = (epoch, number) if number < len(self) else (epoch + 1, 0)
                yield batch
        finally:
            for stage in (batches, windows):
                if hasattr(stage, "close"):  # ends the threads, the last one first
                    stage.close()

    def state_dict(self) -> dict[str, Any]:
        """The next batch, and what must be the same for it to be the same."""
        epoch, batch = self._next
        return {"epoch": epoch, "batch": batch, "data": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stands where `state` was taken; raises DataError for a state of other data or another order."""
        for key, value in self._identity().items():
            if state["data"][key] != value:
                raise DataError("loader state", found=f"{key} = {state['data'][key]}", expected=f"{key} = {value}",
                                do="continue with the dataset and the settings of the interrupted run")
        self._next = (state["epoch"], state["batch"])

    def _identity(self) -> dict[str, Any]:
        window = self.window_rows if self.shuffle == "rows" else 0
        return {"spec": self.spec.fingerprint(), "rows": self.columns.rows, "batch_size": self.batch_size,
                "shuffle": self.shuffle, "window_rows": window, "seed": self.seed, "drop_last": self.drop_last,
                **({} if self.columns.events is None else dataclasses.asdict(self.columns.events.histories))}

    # ---- what to read

    def _windows(self, epoch: int, start_batch: int) -> Iterator[Iterable[Batch]]:
        """Batches from `start_batch` on, in groups: whole windows for shuffle="rows", else a single group."""
        if not 0 <= start_batch <= len(self):
            raise DataError("start_batch", found=str(start_batch), expected=f"0 … {len(self)}, the batches of an epoch")
        if self.shuffle != "rows":
            order = np.arange(len(self))
            if self.shuffle == "batches":
                full = self.columns.rows // self.batch_size
                order[:full] = self._random(epoch, 0).permutation(full)
            yield (self._read_slice(epoch, *self._bounds(number)) for number in order[start_batch:].tolist())
            return
        per_window = max(1, self.window_rows // self.batch_size)
        blocks = self._blocks(epoch)
        for first in range(start_batch - start_batch % per_window, len(self), per_window):
            bounds = [self._bounds(number) for number in range(first, min(first + per_window, len(self)))]
            begin, end = bounds[0][0], bounds[-1][1]
            order = self._random(epoch, 1 + first // per_window).permutation(end - begin)
            parts = [order[start - begin : stop - begin] for start, stop in bounds[max(0, start_batch - first) :]]
            made = self._read_window(_overlap(blocks, begin, end), [self._share(part) for part in parts])
            yield (self._of_part(self._with_events(epoch, outs, batch), len(part))
                   for (outs, batch), part in zip(made, parts, strict=True))

    def _bounds(self, number: int) -> tuple[int, int]:
        return number * self.batch_size, min((number + 1) * self.batch_size, self.columns.rows)

    def _random(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, stream))

    def _blocks(self, epoch: int) -> np.ndarray:
        """Rows [blocks, 2] (first, end) of the blocks of the file, in the order of this epoch."""
        starts = np.arange(0, self.columns.rows, max(1, self.window_rows // BLOCKS_PER_WINDOW))
        blocks = np.stack([starts, np.append(starts[1:], self.columns.rows)], axis=1)
        return blocks[self._random(epoch, 0).permutation(len(blocks))]

    def _share(self, rows: np.ndarray) -> np.ndarray:
        """The part of a global batch that this rank reads."""
        first, end = self._part(len(rows))
        return rows[first:end] if end > first else rows[:1]

    def _part(self, rows: int) -> tuple[int, int]:
        """Where in a global batch the rank's part begins and ends."""
        return rows * self.rank // self.world_size, rows * (self.rank + 1) // self.world_size

    def _of_part(self, batch: Batch, rows: int) -> Batch:
        """The batch, which says what part of the `rows` of a global batch it is, if it is one."""
        if self.world_size == 1:
            return batch
        first, end = self._part(rows)
        return dataclasses.replace(batch, part=Part(end - first, rows))

    # ---- reading

    def _read_slice(self, epoch: int, start: int, stop: int) -> Batch:
        rows = stop - start
        first, end = self._part(rows)
        start, stop = (start + first, start + end) if end > first else (start, start + 1)
        counts = [int(array.offsets[stop] - array.offsets[start]) for array in self._arrays if _is_ragged(array)]
        outs, batch = self._empty_batch(stop - start, counts)
        for array, out in zip(self._arrays, outs, strict=True):
            if isinstance(array, RaggedArray):
                first, last = array.offsets[start], array.offsets[stop]
                np.copyto(out.values, array.values[first:last])
                np.subtract(array.offsets[start : stop + 1], first, out=out.offsets)
            else:
                np.copyto(out, array[start:stop])
        return self._of_part(self._with_events(epoch, outs, batch), rows)

    def _read_window(self, segments: list[tuple[int, int]],
                     orders: list[np.ndarray]) -> list[tuple[list[Array], Batch]]:
        """The arrays, and the batch that is made of them, for each of `orders`, which number the rows of all `segments`
        of the file laid end to end."""
        lists = {index: take_segments(array, segments) for index, array in enumerate(self._arrays) if _is_ragged(array)}
        made = [self._empty_batch(len(order), [int((array.offsets[order + 1] - array.offsets[order]).sum())
                                               for array in lists.values()]) for order in orders]
        for index, array in enumerate(self._arrays):
            window = lists[index] if index in lists else take_segments(array, segments)
            for order, (outs, _) in zip(orders, made, strict=True):
                gather(window, order, outs[index])
        return made

    def _with_events(self, epoch: int, outs: list[Array], batch: Batch) -> Batch:
        """The batch with the channels that are made of events; `outs` end with the columns of its samples."""
        if self._histories is None:
            return batch
        memory = self._memory(self._histories.shapes(len(batch)))
        sampled = [out for out, channel in zip(outs, self._channels, strict=True) if channel == EVENTS]
        label_B = None if batch.label is None else batch.label.numpy()
        self._histories.fill(epoch, sampled, label_B, [array for array, _ in memory])
        made = by_channel(self._histories.channels, [tensor for _, tensor in memory])
        return dataclasses.replace(batch, **made)

    def _empty_batch(self, rows: int, counts: Iterable[int]) -> tuple[list[Array], Batch]:
        """Memory for a batch, one buffer for all of it: as arrays to fill, and as the Batch. `counts` are the numbers
        of values of the ragged columns."""
        counts, shapes = iter(counts), []
        for array in self._arrays:
            if isinstance(array, RaggedArray):
                shapes += [((next(counts),), array.values.dtype), ((rows + 1,), array.offsets.dtype)]
            else:
                shapes.append(((rows, *array.shape[1:]), array.dtype))
        parts = iter(self._memory(shapes))
        outs, tensors = [], []
        for array in self._arrays:
            out, tensor = next(parts)
            if isinstance(array, RaggedArray):
                offsets, offsets_tensor = next(parts)
                out, tensor = RaggedArray(out, offsets), Ragged(tensor, offsets_tensor)
            outs.append(out)
            tensors.append(tensor)
        return outs, Batch(**by_channel(self._channels, tensors))

    def _memory(self, shapes: list[tuple[tuple[int, ...], np.dtype]]) -> list[tuple[np.ndarray, torch.Tensor]]:
        """Arrays of these shapes and types in one buffer, each with the tensor that is the same memory."""
        sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in shapes]
        starts = [0, *itertools.accumulate(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)]
        if self.pin_memory:  # torch keeps its own stock of page-locked memory
            memory = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=True)
        else:
            memory = torch.from_numpy(self._buffers.take(starts[-1]))
        raw = memory.numpy()
        return [(raw[start : start + size].view(dtype).reshape(shape),
                 memory[start : start + size].view(TORCH_TYPES[dtype.name]).view(shape))
                for start, size, (shape, dtype) in zip(starts, sizes, shapes, strict=False)]


TORCH_TYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (
    torch.bool, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32,
    torch.float64)}


def _fields(columns: Columns, spec: FeatureSpec, channels: Collection[str]) -> list[tuple[str, Array]]:
    """The columns of these channels, each with its channel."""
    fields: list[tuple[str, Array]] = []
    for channel in (*ID_CHANNELS, "numerical", "label", "display"):
        if channel not in channels:
            continue
        names = spec.channels.get(channel, ())
        present = [name for name in names if name in columns.arrays]
        if present and len(present) < len(names):
            missing = next(name for name in names if name not in columns.arrays)
            raise DataError(f"column {missing!r}", found="not among the columns read",
                            expected=f"every feature of the channel {channel!r}")
        if channel == "numerical" and columns.numerical is not None:
            fields.append((channel, columns.numerical))
        fields += [(channel, columns.arrays[name]) for name in present]
    for _, array in fields:
        if len(array) != columns.rows:
            raise DataError("columns", found=f"a column of {len(array):,} rows", expected=f"{columns.rows:,} rows")
    return fields


def by_channel(channels: list[str], tensors: list[Column]) -> dict[str, Any]:
    """The fields of a Batch: tensors of one channel together, those of EVENTS left out."""
    of: dict[str, Any] = {}
    for channel, tensor in zip(channels, tensors, strict=True):
        if channel in ID_CHANNELS:
            of[channel] = (*of.get(channel, ()), tensor)
        elif channel != EVENTS:
            of[channel] = tensor
    return of


def _is_ragged(array: Array) -> bool:
    return isinstance(array, RaggedArray)


def _overlap(blocks: np.ndarray, begin: int, end: int) -> list[tuple[int, int]]:
    """The rows of the file at the positions begin … end of `blocks` laid end to end, as (first, end) pieces."""
    ends = np.cumsum(blocks[:, 1] - blocks[:, 0])
    pieces = []
    for index in range(int(np.searchsorted(ends, begin, side="right")), len(blocks)):
        first, stop = blocks[index].tolist()
        position = int(ends[index]) - (stop - first)
        if position >= end:
            break
        pieces.append((first + max(0, begin - position), stop - max(0, int(ends[index]) - end)))
    return pieces
