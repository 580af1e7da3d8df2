"""Values that arrive in any order, each with its position, into a file; and the permutation of a shuffle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from clickwise.arrow_arrays import to_numpy
from clickwise.files import write_array

_MAX_BUCKETS = 200  # two open files each
_PERMUTED_AT_ONCE = 1 << 16


class ScatterFile:
    """`dtype[rows]` or `dtype[rows, width]` in a raw file, put together from values that come with their positions.

    A file that fits into `buffer_bytes` is put together in memory. A larger one is divided into ranges of rows: values
    are appended to the range they belong to, and at the end one range after another is read back and put in order.
    With room for 2 rows, positions 3, 0, 2, 1 with values d, a, c, b leave d, c in range 1 (at its 1, 0) and a, b in
    range 0 (at its 0, 1); written are a, b, then c, d.
    """

    def __init__(self, path: Path, rows: int, dtype: np.dtype | str, width: int = 1, *, buffer_bytes: int,
                 spill_folder: Path) -> None:
        self.path, self.rows, self.dtype, self.spill_folder = path, rows, np.dtype(dtype), spill_folder
        # A row of numbers is moved as one item: numpy scatters those 2.5 times faster than rows of a matrix.
        self.item = self.dtype if width == 1 else np.dtype((np.void, self.dtype.itemsize * width))
        self.done, self.memory, self.ranges = 0, None, {}
        if rows * self.item.itemsize <= buffer_bytes:
            self.memory = np.empty(rows, self.item)
        else:
            self.range_rows = max(1, buffer_bytes // (2 * self.item.itemsize + 12), -(-rows // _MAX_BUCKETS))

    def __enter__(self) -> ScatterFile:
        return self

    def put(self, positions: np.ndarray, values: np.ndarray) -> None:
        """values[i] belongs at positions[i]; every position comes exactly once."""
        if not len(positions):
            return
        self.done += len(positions)
        values = values.astype(self.dtype, copy=False)
        if self.item != self.dtype:
            values = np.ascontiguousarray(values).view(self.item).reshape(-1)
        if self.memory is not None:
            if positions[-1] - positions[0] == len(positions) - 1 and (np.diff(positions) == 1).all():
                self.memory[positions[0]:positions[-1] + 1] = values
            else:
                self.memory[positions] = values
            return
        number = positions // self.range_rows
        if number[0] != number[-1] or (number != number[0]).any():
            order = np.argsort(number, kind="stable")
            number, positions, values = number[order], positions[order], values[order]
        starts = np.flatnonzero(np.diff(number)) + 1
        for first, end in zip([0, *starts], [*starts, len(number)], strict=True):
            if first < end:
                self._append(int(number[first]), positions[first:end], values[first:end])

    def put_all(self, batches: Iterable[pa.RecordBatch], report: Callable[[int, str], None] = lambda rows, file: None
                ) -> None:
        """The same of every batch: positions in its first column, values in its second."""
        for batch in batches:
            self.put(to_numpy(batch.column(0)), to_numpy(batch.column(1)))
            report(len(batch), self.path.stem)

    def _append(self, number: int, positions: np.ndarray, values: np.ndarray) -> None:
        if number not in self.ranges:
            stem = self.spill_folder / f"{self.path.name}.{number}"
            self.ranges[number] = (open(f"{stem}.positions", "wb"), open(f"{stem}.values", "wb"))
        position_file, value_file = self.ranges[number]
        write_array(position_file, (positions - number * self.range_rows).astype(np.uint32))
        write_array(value_file, values)

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                if self.done != self.rows:
                    raise RuntimeError(f"{self.path.name}: {self.done} values for {self.rows} positions")
                self._write()
        finally:
            self.memory = None
            for files in self.ranges.values():
                for file in files:
                    file.close()
                    Path(file.name).unlink(missing_ok=True)

    def _write(self) -> None:
        with open(self.path, "wb") as out:
            if self.memory is not None:
                write_array(out, self.memory)
                return
            for number in range(-(-self.rows // self.range_rows)):
                position_file, value_file = self.ranges[number]
                position_file.close()
                value_file.close()
                part = np.empty(min(self.range_rows, self.rows - number * self.range_rows), self.item)
                part[np.fromfile(position_file.name, np.uint32)] = np.fromfile(value_file.name, self.item)
                write_array(out, part)


class RowOrder:
    """Where a row goes: `order(row)`, the row number itself, or with a seed its position in a permutation.

    The permutation is worked out once and kept in memory, or in the file `path` where it is larger than a quarter of
    `buffer_bytes`.
    """

    def __init__(self, rows: int, seed: int | None, path: Path, buffer_bytes: int) -> None:
        self.seed, self.path, self.memory = seed, path, None
        self.dtype = np.dtype(np.uint32 if rows < 2**32 else np.int64)
        if seed is None:
            return
        if rows * 8 <= buffer_bytes // 4:
            self.memory = permuted(np.arange(rows), rows, seed)
            return
        with open(path, "wb") as file:
            for first in range(0, rows, _PERMUTED_AT_ONCE):
                part = permuted(np.arange(first, min(first + _PERMUTED_AT_ONCE, rows)), rows, seed)
                write_array(file, part.astype(self.dtype))

    def __call__(self, row: np.ndarray) -> np.ndarray:
        if self.seed is None or not len(row):
            return row
        if self.memory is not None:
            return self.memory[row]
        first, end = int(row.min()), int(row.max()) + 1
        if end - first > 2**24:  # rows from all over the table: let the system page
            return np.memmap(self.path, self.dtype, "r")[row].astype(np.int64)
        part = np.fromfile(self.path, self.dtype, end - first, offset=first * self.dtype.itemsize)
        return part[row - first].astype(np.int64)

    def between(self, first: int, end: int) -> np.ndarray:
        """Where the rows first … end−1 go."""
        return self.memory[first:end] if self.memory is not None else self(np.arange(first, end))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def permuted(numbers: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Where a permutation of 0 … size−1, chosen by `seed`, sends each of `numbers`; int64.

    A Feistel network over the bits of the number: each half in turn is XORed with a keyed mix of the other, which is
    one-to-one whatever the mix is. Numbers sent beyond `size` go round again until they are inside (Black and
    Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002). Plain integer arithmetic, no state, no memory.
    """
    bits = max(2, (size - 1).bit_length())
    low_bits = np.uint64(bits // 2)
    low_mask, high_mask = np.uint64((1 << bits // 2) - 1), np.uint64((1 << bits - bits // 2) - 1)
    keys = np.random.SeedSequence(seed).generate_state(6, np.uint64)

    def mix(half: np.ndarray, key: np.uint64) -> np.ndarray:
        mixed = (half + key) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        return mixed >> np.uint64(32)

    def network(numbers: np.ndarray) -> np.ndarray:
        low, high = numbers & low_mask, numbers >> low_bits
        for first, second in keys.reshape(-1, 2):
            low ^= mix(high, first) & low_mask
            high ^= mix(low, second) & high_mask
        return high << low_bits | low

    result = np.empty(len(numbers), np.int64)
    for first in range(0, len(numbers), _PERMUTED_AT_ONCE):
        part = network(numbers[first:first + _PERMUTED_AT_ONCE].astype(np.uint64))
        outside = np.flatnonzero(part >= size)
        while len(outside):
            part[outside] = network(part[outside])
            outside = outside[part[outside] >= size]
        result[first:first + _PERMUTED_AT_ONCE] = part
    return result


def block(columns: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """One column as it is, several as the columns of a matrix."""
    if len(columns) == 1:
        return columns[0]
    values = np.empty((len(columns[0]), len(columns)), dtype)
    for index, column in enumerate(columns):
        values[:, index] = column
    return values
