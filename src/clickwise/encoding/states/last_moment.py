"""How long ago a key was seen last, in seconds; `at` is in milliseconds. Missing where it was never seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa

from clickwise.encoding.states.keyed_table import take
from clickwise.encoding.states.state import FIRST, GoingOn, State, grown, in_runs, moments

TIME, BEFORE = "time", "before"  # the last moment of a key, and the one before it
MS = 1000


@dataclasses.dataclass(frozen=True)
class LastMoment(State):
    """`gives` one column."""

    kind = "last_moment"

    @property
    def stored(self):
        return dict.fromkeys((TIME, BEFORE) if self.goes_on else (TIME,), pa.int64())

    def look_up(self, values):
        last = take(self.table.values[TIME], self.table.find_all([values[name] for name in self.by]))
        is_known = last.is_valid().to_numpy(zero_copy_only=False)
        return self.given(moments(values[self.at]), last.fill_null(0).to_numpy(zero_copy_only=False), is_known)

    def given(self, when: np.ndarray, last: np.ndarray, is_known: np.ndarray) -> dict[str, pa.Array]:
        (name,) = self.gives
        is_known = is_known & (when != FIRST)
        return {name: pa.array((when - np.where(is_known, last, when)) / MS, mask=~is_known)}

    def given_one(self, values, stored):
        (name,) = self.gives
        when = values[self.at]
        if stored is None or when is None:
            return {name: None}
        last = stored[TIME]
        if self.goes_on and last >= when:
            last = stored[BEFORE] if stored[BEFORE] < when else FIRST
        return {name: None if last == FIRST else (when - last) / MS}

    def going_on(self):
        return GoingOnMoments(self)


class GoingOnMoments(GoingOn):
    """By row `last` and `before`, FIRST where there is none. Row 0 is nobody's."""

    def __init__(self, state: LastMoment) -> None:
        super().__init__(state)
        self.last, self.before = (np.concatenate([[FIRST], state.table.values[name].to_numpy()]) for name in
                                  (TIME, BEFORE))

    def look_up(self, values):
        rows = self.keys.find_all([values[name] for name in self.state.by])
        when = moments(values[self.state.at])
        return self._given(when, self._earlier(rows, when))

    def _earlier(self, rows: np.ndarray, when: np.ndarray) -> np.ndarray:
        """The last moment before each; FIRST where there is none, or it is not known any more."""
        before = np.where(self.before[rows] < when, self.before[rows], FIRST)
        return np.where(self.last[rows] < when, self.last[rows], before)

    def _given(self, when: np.ndarray, last: np.ndarray) -> dict[str, pa.Array]:
        return self.state.given(when, last, last != FIRST)

    def _replay(self, events):
        when = moments(events.values[self.state.at])
        rows = self.keys.find_all([events.values[name] for name in self.state.by], add=True)
        size = self.keys.size + 1
        self.last, self.before = grown(self.last, size, FIRST), grown(self.before, size, FIRST)
        order, is_first, is_new, end = in_runs(rows, when)
        rows, sorted_when = rows[order], when[order]
        start = np.maximum.accumulate(np.where(is_new, np.arange(len(rows)), 0))  # of each event's moment
        earlier = self._earlier(rows, sorted_when)
        earlier = np.where(is_first[start], earlier, np.maximum(earlier, sorted_when[start - 1]))
        key, of_last = rows[end], sorted_when[end]
        old = self.last[key]
        self.before[key] = np.where(of_last >= old, earlier[end], np.maximum(self.before[key], of_last))
        self.last[key] = np.maximum(old, of_last)  # an earlier one may come late: clocks disagree
        self.last[0] = self.before[0] = FIRST
        last = np.empty(len(rows), np.int64)
        last[order] = earlier
        return self._given(when, last)

    def last_moments(self):
        return self.last

    def stored(self):
        rows = slice(1, self.keys.size + 1)
        return {TIME: pa.array(self.last[rows]), BEFORE: pa.array(self.before[rows])}
