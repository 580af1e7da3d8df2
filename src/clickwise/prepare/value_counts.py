"""How often each value of a column of uint32 occurs, in bounded memory, however many different ones there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from clickwise.arrow_arrays import of_numbers, to_numpy

_END = 1 << 32
BYTES = 64  # that one different value takes while it is counted


class Counts(NamedTuple):
    """Different values, uint32 [U], and how often each occurs, int64 [U]."""

    value: np.ndarray
    count: np.ndarray

    def where(self, which: np.ndarray) -> Counts:
        return Counts(self.value[which], self.count[which])


NONE = Counts(np.empty(0, np.uint32), np.empty(0, np.int64))


def count_values(blocks: Callable[[], Iterable[pa.UInt32Array]], limit: int, most: int) -> Counts:
    """The values that occur at least `limit` times and at least once, by descending count, equal counts by ascending
    value. `blocks()` gives the column, in which null is no value, anew at every call: it is gone through again where
    more than `most` different values are in sight; then the lower ones are counted first.

    With `most` 2 and the values 1 9 1 8 7 9, 9 is left for later once 1, 8 and 9 are in sight, and 7 and 8 too: 1
    occurs twice. The second pass begins behind 1 and finds 9, 8, 7.
    """
    found, low = [], 0
    while low < _END:
        counts, high = NONE, _END
        waiting: list[Counts] = []
        for block in blocks():
            if (low, high) != (0, _END):
                values = to_numpy(block.drop_null())
                block = of_numbers(values[(values >= low) & (values < high)])
            waiting.append(_counted(block))
            if sum(len(each.value) for each in waiting) >= len(counts.value):  # so each value is added a few times
                counts, waiting = _sum([counts, *waiting]), []
                while len(counts.value) > most and high - low > 1:
                    high = max(low + 1, int(np.median(counts.value)))
                    counts = counts.where(counts.value < high)
        counts = _sum([counts, *waiting])
        counts = counts.where(counts.value < high)
        found.append(counts.where(counts.count >= limit) if limit > 1 else counts)
        low = high
    counts = Counts(*map(np.concatenate, zip(*found, strict=True)))
    return counts.where(np.lexsort((counts.value, -counts.count)))


def _counted(values: pa.UInt32Array) -> Counts:
    counts = values.value_counts()
    if values.null_count:
        counts = counts.filter(counts.field(0).is_valid())
    return Counts(to_numpy(counts.field(0)), to_numpy(counts.field(1)))


def _sum(parts: Sequence[Counts]) -> Counts:
    """The counts of several parts, of which each has a value once."""
    parts = [part for part in parts if len(part.value)]
    if len(parts) < 2:
        return parts[0] if parts else NONE
    value, count = map(np.concatenate, zip(*parts, strict=True))
    order = np.argsort(value)
    value, count = value[order], count[order]
    first = np.flatnonzero(np.append(True, value[1:] != value[:-1]))
    return Counts(value[first], np.add.reduceat(count, first))
