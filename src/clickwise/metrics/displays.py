"""Metrics of rankings: rows kept by display (a display, a user's day, a session), and how its clicks stand in it.

Any order of the rows is right, and so is any cut into batches and processes: nothing is computed before all rows are
there. They are kept in few bytes, sorted some hundred thousand at a time, and every metric reads the same pass.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import torch

from clickwise.errors import DataError
from clickwise.metrics.kept_rows import NO_ROWS, Rows, in_id_order, joined, packed, starts
from clickwise.metrics.metric import Flaws, Metric, Scored

NO_DISPLAY = -(1 << 63)  # of a row that was shown alone or whose display is not known
PENDING = 1 << 20  # rows that wait, on the device they came from, until they are moved and packed together
CHUNK = 1 << 16  # rows that are ranked at a time: the temporaries stay in the cache

TIES = ("average", "pessimistic", "optimistic")


@dataclasses.dataclass(frozen=True)
class ClickRanks:
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

    def broken(self, ties: str) -> ClickRanks:
        """The same with ties broken for or against the clicks: runs of clicks alone, so that no order matters."""
        if ties == "average":
            return self
        others_R = self.rows_R - self.clicks_R if ties == "pessimistic" else 0
        return dataclasses.replace(self, above_R=self.above_R + others_R, rows_R=self.clicks_R)


def rank_clicks(items_G: np.ndarray, score_B: np.ndarray, label_B: np.ndarray) -> ClickRanks:
    """The ranks of displays whose rows follow one another, the first `items_G[0]` rows being the first display's.

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
    return ClickRanks(items_G, clicks_G, display_R, first_R - (ends_G - items_G)[display_R],
                    clicks_to_R - clicks_R - (clicks_to_G - clicks_G)[display_R], rows_R, clicks_R)


def chunks(rows: Rows, last: bool = False) -> Generator[ClickRanks, None, Rows]:
    """The ranks of displays in order, a chunk at a time; returns the rows of the chunk that is not yet full.

    `last`: no rows follow, so that one is given too.
    """
    stretch = row = 0
    while stretch < len(rows.rows_S):
        rows_to_S = np.cumsum(rows.rows_S[stretch : stretch + CHUNK])
        full = min(int(rows_to_S.searchsorted(CHUNK)), len(rows_to_S) - 1)
        end = int(rows.display_S.searchsorted(rows.display_S[stretch + full], "right"))  # the last display whole
        if end == len(rows.rows_S) and not last:
            break
        some = rows.cut(stretch, end, row)
        items_G = np.add.reduceat(some.rows_S, starts(some.display_S), dtype=np.int64)
        yield rank_clicks(items_G, some.logit_B, some.label_B)
        stretch, row = end, row + len(some.logit_B)
    return rows.cut(stretch, len(rows.rows_S), row)


class ByDisplay(Metric):
    """A metric of whole displays. A subclass says what each display adds up to (`tally`, `results`).

    It keeps 5 bytes per row, and 12 per stretch of consecutive rows of one display; equal input gives the very same
    bits in any order. Rows whose display is the least number of its type have none, and are left out. A batch without
    display ids is a DataError.
    """

    needs_display = True
    name: str

    @abc.abstractmethod
    def tally(self, ranks: ClickRanks) -> list[float]:
        """Sums over some whole displays."""

    @abc.abstractmethod
    def of_displays(self, ranks: ClickRanks) -> np.ndarray:
        """The value of every display, float64, NaN where it has none."""

    @abc.abstractmethod
    def results(self, total: np.ndarray) -> dict[str, float]:
        """What `compute` returns, from the tally of all displays, float64."""

    def reset(self) -> None:
        self.flaws = Flaws()
        self.pending: list[tuple[torch.Tensor, ...]] = []
        self.pending_rows = 0
        self.parts: list[Rows] = []

    def add(self, scored: Scored) -> None:
        if scored.display_B is None:
            raise DataError(f"metrics: {self.name}", found="impressions without displays",
                            expected="the channel 'display'",
                            do=f"name the grouping feature in channel_spec, or leave {self.name} out")
        display_B = scored.display_B.to(torch.int64, copy=True)
        if scored.display_B.dtype in (torch.int8, torch.int16, torch.int32):  # no display: left out when packed
            display_B.masked_fill_(display_B == torch.iinfo(scored.display_B.dtype).min, NO_DISPLAY)
        self.pending.append((scored.logit_B.clone(), scored.label_B, display_B))
        self.pending_rows += len(scored)
        if self.pending_rows >= PENDING:
            self.pack()

    def pack(self) -> None:
        """Moves what is pending to the CPU, in as few bytes as it needs."""
        if self.pending_rows:
            logit_B, label_B, display_B = (torch.cat(parts).cpu().numpy() for parts in zip(*self.pending, strict=True))
            if (has_B := display_B != NO_DISPLAY).all():
                self.parts.append(packed(logit_B, label_B, display_B))
            elif has_B.any():
                self.parts.append(packed(logit_B[has_B], label_B[has_B], display_B[has_B]))
        self.pending, self.pending_rows = [], 0

    def merge(self, other: ByDisplay) -> None:
        self.flaws.raise_if_any()
        other.flaws.raise_if_any()
        self.pack()
        other.pack()
        self.parts += other.parts

    def state_dict(self) -> dict:
        self.flaws.raise_if_any()
        self.pack()
        return {name: torch.from_numpy(column) for name, column in vars(joined([NO_ROWS, *self.parts])).items()}

    def load_state_dict(self, state: dict) -> None:
        self.reset()
        self.parts = Rows(**{name: column.numpy() for name, column in state.items()}).ascending_parts()

    def click_ranks(self) -> Iterator[ClickRanks]:
        """The ranks of all displays in the order of their ids, some whole displays at a time.

        A chunk ends with the display that holds its row number CHUNK, however the rows came: the same sums, bit by bit.
        """
        self.pack()
        rest = NO_ROWS
        for rows in in_id_order(self.parts):
            rest = yield from chunks(joined([rest, rows]))
        yield from chunks(rest, last=True)

    def result(self) -> dict[str, float]:
        return in_one_pass([self])[0]


def in_one_pass(metrics: Sequence[ByDisplay]) -> list[dict[str, float]]:
    """The results of each metric over the displays that the first of them keeps."""
    totals = [np.zeros(()) for _ in metrics]
    for some in metrics[0].click_ranks() if metrics else ():
        totals = [total + metric.tally(some) for metric, total in zip(metrics, totals, strict=True)]
    return [metric.results(total) for metric, total in zip(metrics, totals, strict=True)]
