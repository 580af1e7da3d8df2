"""Metrics of rankings: rows kept by display (a display, a user's day, a session), and how its clicks stand in it.

Any order of the rows is right, and so is any cut into batches and processes: nothing is computed before all rows are
there. They are kept in few bytes, sorted some hundred thousand at a time, and every metric reads the same pass.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from clickwise.errors import DataError
from clickwise.metrics.metric import Kept, Scored

PENDING = 1 << 20  # rows that wait, on the device they came from, until they are moved and packed together
CHUNK = 1 << 17  # rows that are sorted at a time: the temporaries stay near the cache

TIES = ("average", "pessimistic", "optimistic")


@dataclasses.dataclass(frozen=True)
class Standing:
    """How the clicks of G whole displays stand in the ranking by descending score.

    Rows of a display that share a score are a run; its R runs that hold a click are listed, the highest first.

    items_G         int64, rows of the display
    clicks_G        int64, clicks among them
    display_R       int64, the display of the run, ascending
    above_R         int64, rows of the display with a higher score
    clicks_above_R  int64, clicks among those
    rows_R          int64, rows of the run
    clicks_R        int64, clicks among those, at least 1
    """

    items_G: np.ndarray
    clicks_G: np.ndarray
    display_R: np.ndarray
    above_R: np.ndarray
    clicks_above_R: np.ndarray
    rows_R: np.ndarray
    clicks_R: np.ndarray

    def broken(self, ties: str) -> Standing:
        """The same with ties broken for or against the clicks: runs of clicks alone, so that no order matters."""
        if ties == "average":
            return self
        others_R = self.rows_R - self.clicks_R if ties == "pessimistic" else 0
        return dataclasses.replace(self, above_R=self.above_R + others_R, rows_R=self.clicks_R)


def standing(items_G: np.ndarray, score_B: np.ndarray, label_B: np.ndarray) -> Standing:
    """The standing of displays whose rows follow one another, the first `items_G[0]` rows being the first display's.

    One sort does it: display, score and label are packed into 64 bits such that the order of the integers is theirs
    (at most 2^31 displays).
    """
    display_B = np.repeat(np.arange(len(items_G), dtype=np.uint64), items_G)
    bits_B = (score_B.astype(np.float32) + np.float32(0)).view(np.uint32)  # −0 becomes 0
    descending_B = np.where(bits_B >> 31, bits_B, ~bits_B & np.uint32(0x7FFFFFFF)).astype(np.uint64)
    packed_B = np.sort(display_B << np.uint64(33) | descending_B << np.uint64(1) | label_B.astype(np.uint64))

    first_R = starts(packed_B >> np.uint64(1))
    clicks_to_B = np.cumsum(packed_B & np.uint64(1), dtype=np.int64)
    clicks_to_R = clicks_to_B[np.append(first_R[1:], len(packed_B)) - 1]  # up to and with the run
    clicks_R = np.diff(clicks_to_R, prepend=0)
    rows_R = np.diff(first_R, append=len(packed_B))

    with_click = np.flatnonzero(clicks_R)
    first_R, rows_R, clicks_R, clicks_to_R = (x[with_click] for x in (first_R, rows_R, clicks_R, clicks_to_R))
    display_R = (packed_B[first_R] >> np.uint64(33)).astype(np.int64)
    ends_G = np.cumsum(items_G)
    clicks_to_G = clicks_to_B[ends_G - 1]
    clicks_G = np.diff(clicks_to_G, prepend=0)
    return Standing(items_G, clicks_G, display_R, first_R - (ends_G - items_G)[display_R],
                    clicks_to_R - clicks_R - (clicks_to_G - clicks_G)[display_R], rows_R, clicks_R)


def starts(value_V: np.ndarray) -> np.ndarray:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate(([True], value_V[1:] != value_V[:-1]))[: len(value_V)])


class ByDisplay(Kept):
    """A metric of whole displays. A subclass says what each display adds up to (`tally`, `results`).

    It keeps 5 bytes per row, and 12 per stretch of consecutive rows of one display; equal input gives the very same
    bits in any order. A batch without display ids is a DataError.
    """

    needs_groups = True
    names = ("logit_B", "label_B", "display_S", "rows_S")  # S stretches: the id of the display, rows in the stretch
    name: str

    @abc.abstractmethod
    def tally(self, standing: Standing) -> list[float]:
        """Sums over some whole displays."""

    @abc.abstractmethod
    def results(self, total: np.ndarray) -> dict[str, float]:
        """What `compute` returns, from the tally of all displays, float64."""

    def reset(self) -> None:
        super().reset()
        self.pending: list[tuple[torch.Tensor, ...]] = []
        self.pending_rows = 0

    def add(self, scored: Scored) -> None:
        if scored.group_B is None:
            raise DataError(f"metrics: {self.name}", found="impressions without groups",
                            expected="the channel 'display'",
                            do=f"name the grouping feature in channel_spec, or leave {self.name} out")
        self.pending.append((scored.logit_B.clone(), scored.label_B, scored.group_B.to(torch.int64, copy=True)))
        self.pending_rows += len(scored)
        if self.pending_rows >= PENDING:
            self.pack()

    def pack(self) -> None:
        """Moves what is pending to the CPU, and writes each display id once per stretch."""
        if self.pending_rows:
            logit_B, label_B, display_B = (torch.cat(parts).cpu() for parts in zip(*self.pending, strict=True))
            first_S = starts(display_B.numpy())
            rows_S = np.diff(first_S, append=len(display_B)).astype(np.int32)
            self.keep(logit_B=logit_B, label_B=label_B, display_S=display_B[torch.from_numpy(first_S)],
                      rows_S=torch.from_numpy(rows_S))
        self.pending, self.pending_rows = [], 0

    def kept(self, name: str) -> torch.Tensor:
        self.pack()
        return super().kept(name)

    def merge(self, other: ByDisplay) -> None:
        self.pack()
        other.pack()
        super().merge(other)

    def load_state_dict(self, state: dict) -> None:
        self.reset()
        super().load_state_dict(state)

    def standings(self) -> Iterator[Standing]:
        """The standing of all displays in the order of their ids, some whole displays at a time."""
        if not len(self.kept("rows_S")):
            return
        self._sort()
        logit_B, label_B, display_S, rows_S = (self.kept(name).numpy() for name in self.names)
        stretch = row = 0
        while stretch < len(rows_S):
            rows_to_S = np.cumsum(rows_S[stretch : stretch + CHUNK])
            last = stretch + min(int(rows_to_S.searchsorted(CHUNK)), len(rows_to_S) - 1)
            end = int(display_S.searchsorted(display_S[last], "right"))  # the last display whole
            items_G = np.add.reduceat(rows_S[stretch:end], starts(display_S[stretch:end]), dtype=np.int64)
            row_end = row + int(items_G.sum())
            yield standing(items_G, logit_B[row:row_end], label_B[row:row_end])
            stretch, row = end, row_end

    def _sort(self) -> None:
        """Brings the stretches of a display together, in ascending order of the display ids."""
        display_S, rows_S = self.kept("display_S").numpy(), self.kept("rows_S").numpy()
        if (display_S[1:] >= display_S[:-1]).all():
            return
        order_S = np.argsort(display_S, kind="stable")
        first_S = np.cumsum(rows_S, dtype=np.int64) - rows_S
        for name in ("logit_B", "label_B"):
            column_B = self.kept(name).numpy()
            sorted_B, row = np.empty_like(column_B), 0
            for start in range(0, len(order_S), CHUNK):
                some_S = order_S[start : start + CHUNK]
                place_B = ranges(first_S[some_S], rows_S[some_S])
                sorted_B[row : row + len(place_B)] = column_B[place_B]
                row += len(place_B)
            self.columns[name] = [torch.from_numpy(sorted_B)]
        self.columns["display_S"] = [torch.from_numpy(display_S[order_S])]
        self.columns["rows_S"] = [torch.from_numpy(rows_S[order_S])]

    def result(self) -> dict[str, float]:
        return in_one_pass([self])[0]


def in_one_pass(metrics: Sequence[ByDisplay]) -> list[dict[str, float]]:
    """The results of each metric over the displays that the first of them keeps."""
    totals = [np.zeros(()) for _ in metrics]
    for some in metrics[0].standings() if metrics else ():
        totals = [total + metric.tally(some) for metric, total in zip(metrics, totals, strict=True)]
    return [metric.results(total) for metric, total in zip(metrics, totals, strict=True)]


def ranges(first_S: np.ndarray, length_S: np.ndarray) -> np.ndarray:
    """first, first + 1, … (`length` of them) for every entry, one after the other, int64."""
    ends_S = np.cumsum(length_S, dtype=np.int64)
    return np.arange(ends_S[-1] if len(ends_S) else 0) + np.repeat(first_S - (ends_S - length_S), length_S)
