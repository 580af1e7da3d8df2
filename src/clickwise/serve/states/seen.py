"""Which events were taken in already: a request that is sent again, since its answer was lost, must not count twice.

Of every user (of every value of the first column of `same`, where the user is none of them) the last 100 events are
known again, and all of the last request with this user. An event is what the columns `same` of a log say, of which
63 bits are kept, and one says whether it was clicked. Where one of them is missing it cannot be known again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from clickwise.serve.states.rows import StatesInStore, to_text
from clickwise.serve.states.store import Key, Records

SEEN, MOST, BYTES = "seen", 100, 8
Marks = dict[int, bool]  # event → whether it was clicked, the latest last


class Seen:
    """The events of one request, with their labels. `keys` are where a store keeps what it has seen; `is_first` tells,
    by row, which is the first of the same event in the request."""

    def __init__(self, states: StatesInStore, same: Sequence[str], read: Mapping[str, pa.Array], label: np.ndarray
                 ) -> None:
        of = states.user if states.user in same else same[0]
        at, rows = list(same).index(of), list(zip(*(read[name].to_pylist() for name in same), strict=True))
        marks = (None if None in row else _mark(row) for row in rows)
        self._events = [None if mark is None else (states.owner(of, row[at]), mark)
                        for mark, row in zip(marks, rows, strict=True)]
        clicked: dict[tuple[str, int] | None, bool] = {}
        self.is_first = np.ones(len(rows), bool)
        for row, (event, label_) in enumerate(zip(self._events, label.tolist(), strict=True)):
            self.is_first[row] = event is None or event not in clicked
            clicked[event] = clicked.get(event, False) or label_ == 1
        self._clicked = np.array([clicked[event] for event in self._events], bool)
        self.keys: list[Key] = [(owner, SEEN) for owner in dict.fromkeys(event[0] for event in clicked if event)]

    def known(self, found: Records) -> tuple[np.ndarray, np.ndarray]:
        """Which rows are events of earlier requests, and which of these without a click, of which this one
        tells; bool [rows] each. `found` are the records of `keys`."""
        marks = self._marks(found)
        were_clicked = [None if event is None else marks[event[0]].get(event[1]) for event in self._events]
        is_known = np.array([was is not None for was in were_clicked], bool)
        return is_known, np.array([was is False for was in were_clicked], bool) & self._clicked

    def records(self, found: Records) -> dict[Key, bytes]:
        """The records of `keys` after this request."""
        marks, counts = self._marks(found), Counter(event[0] for event in self._events if event)
        for event, is_clicked in zip(self._events, self._clicked.tolist(), strict=True):
            if event is not None:
                of = marks[event[0]]
                of[event[1]] = of.pop(event[1], False) or is_clicked  # behind all others
        return {(owner, SEEN): _record(of, max(MOST, counts[owner])) for owner, of in marks.items()}

    def _marks(self, found: Records) -> dict[str, Marks]:
        return {owner: {number & ~1: bool(number & 1) for number in np.frombuffer(record or b"", "<u8").tolist()}
                for (owner, _), record in zip(self.keys, found, strict=True)}


def _mark(event: tuple) -> int:
    return int.from_bytes(hashlib.blake2b(to_text(event).encode(), digest_size=BYTES).digest(), "little") & ~1


def _record(marks: Marks, most: int) -> bytes:
    return np.array([mark | is_clicked for mark, is_clicked in marks.items()][-most:], "<u8").tobytes()
