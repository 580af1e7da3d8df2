"""Rows kept by display in few bytes, and given back in the order of the display ids: a merge sort in two steps.

Every part is sorted when it is packed; at the end all parts are read side by side, from the least id to the greatest.
So no more than a part (about a million rows) is ever moved at a time, and rows that come in order are not moved at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

READ = 1 << 18  # rows that are read at a time, over all parts
SAMPLE = 1 << 10  # one row in so many says where to cut


@dataclasses.dataclass(frozen=True)
class Rows:
    """B rows in S stretches, each of consecutive rows of one display.

    logit_B    float32
    label_B    bool
    display_S  int64, the id of the stretch's display, ascending
    rows_S     int32, how many rows it has
    """

    logit_B: np.ndarray
    label_B: np.ndarray
    display_S: np.ndarray
    rows_S: np.ndarray

    def cut(self, stretch: int, end: int, row: int) -> Rows:
        """The stretches from `stretch` to `end`, of which the first begins at `row`; a view."""
        rows_S = self.rows_S[stretch:end]
        rows = slice(row, row + int(rows_S.sum(dtype=np.int64)))
        return Rows(self.logit_B[rows], self.label_B[rows], self.display_S[stretch:end], rows_S)

    def sorted(self) -> Rows:
        """The same stretches with ascending display ids."""
        if ascends(self.display_S):
            return self
        order_S = np.argsort(self.display_S, kind="stable")
        place_B = ranges((np.cumsum(self.rows_S, dtype=np.int64) - self.rows_S)[order_S], self.rows_S[order_S])
        return Rows(self.logit_B[place_B], self.label_B[place_B], self.display_S[order_S], self.rows_S[order_S])

    def ascending_parts(self) -> list[Rows]:
        """Views, cut wherever the display id falls."""
        falls = np.flatnonzero(self.display_S[1:] < self.display_S[:-1]) + 1
        row_S = np.concatenate(([0], np.cumsum(self.rows_S, dtype=np.int64)))
        cuts = [0, *falls.tolist(), len(self.rows_S)]
        return [self.cut(start, end, int(row_S[start])) for start, end in pairwise(cuts) if end > start]


NO_ROWS = Rows(np.empty(0, np.float32), np.empty(0, bool), np.empty(0, np.int64), np.empty(0, np.int32))


def packed(logit_B: np.ndarray, label_B: np.ndarray, display_B: np.ndarray) -> Rows:
    """The rows sorted by display, each id written once per stretch."""
    if not ascends(display_B):
        order_B = np.argsort(display_B)
        logit_B, label_B, display_B = logit_B[order_B], label_B[order_B], display_B[order_B]
    first_S = starts(display_B)
    return Rows(logit_B, label_B, display_B[first_S], np.diff(first_S, append=len(display_B)).astype(np.int32))


def joined(parts: Sequence[Rows]) -> Rows:
    """The parts one after the other."""
    return Rows(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(Rows)))


def in_id_order(parts: Sequence[Rows]) -> Iterator[Rows]:
    """All stretches of sorted parts by ascending display id, some of them at a time, no display in two of these."""
    samples = [part.display_S[np.searchsorted(np.cumsum(part.rows_S, dtype=np.int64),
                                              np.arange(0, len(part.logit_B), SAMPLE), "right")] for part in parts]
    limits = np.unique(np.sort(np.concatenate(samples))[:: READ // SAMPLE]) if parts else []
    stretches, rows = [0] * len(parts), [0] * len(parts)
    for limit in [*limits[1:], None]:  # ids below the limit; the last time, all that are left
        some = []
        for i, part in enumerate(parts):
            end = len(part.display_S) if limit is None else int(part.display_S.searchsorted(limit))
            if end > stretches[i]:
                some.append(part.cut(stretches[i], end, rows[i]))
                stretches[i], rows[i] = end, rows[i] + len(some[-1].logit_B)
        if some:
            yield (joined(some) if len(some) > 1 else some[0]).sorted()


def ascends(value_V: np.ndarray) -> bool:
    return bool((value_V[1:] >= value_V[:-1]).all())


def starts(value_V: np.ndarray) -> np.ndarray:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate(([True], value_V[1:] != value_V[:-1]))[: len(value_V)])


def ranges(first_S: np.ndarray, length_S: np.ndarray) -> np.ndarray:
    """first, first + 1, … (`length` of them) for every entry, one after the other, int64."""
    ends_S = np.cumsum(length_S, dtype=np.int64)
    return np.arange(ends_S[-1] if len(ends_S) else 0) + np.repeat(first_S - (ends_S - length_S), length_S)
