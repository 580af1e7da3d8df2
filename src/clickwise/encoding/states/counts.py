"""Impressions and clicks by key: of a user, of a user in a place, …

Two columns, in this order. A key that was never seen has 0 of both. With `at`, what is looked up are those before the
row's day or moment, whichever the column tells.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa

from clickwise.encoding.states.keyed_table import take
from clickwise.encoding.states.state import FIRST, GoingOn, State, grown, in_runs, moments

WHEN = "when"  # the last moment of a key
LATE = ("late_impressions", "late_clicks")  # what it brought


@dataclasses.dataclass(frozen=True)
class Counts(State):
    """`gives` impressions and clicks, or impressions alone."""

    kind = "counts"

    def look_up(self, values):
        keys = [values[name] for name in self.by]
        rows = self.table.find_all(keys)
        return {name: _missing_with(keys, take(self.table.values[name], rows).fill_null(0)) for name in self.gives}

    def given_one(self, values, stored):
        if stored is None:
            return dict.fromkeys(self.gives, None if any(values[name] is None for name in self.by) else 0)
        if not self.goes_on:
            return stored
        when = values[self.at]
        if when is not None and stored[WHEN] < when:
            return {name: stored[name] for name in self.gives}
        return {name: stored[name] - stored[late] for name, late in zip(self.gives, LATE, strict=False)}

    @property
    def stored(self):
        return dict.fromkeys((*self.gives, *((WHEN, *LATE) if self.goes_on else ())), pa.int64())

    def going_on(self):
        return GoingOnCounts(self)


def _missing_with(keys: list[pa.Array], column: pa.Array) -> pa.Array:
    """The column, missing where one of the keys is."""
    mask = np.zeros(len(column), bool)
    for key in keys:
        if key.null_count:
            mask |= ~key.is_valid().to_numpy(zero_copy_only=False)
    return pa.array(column.to_numpy(zero_copy_only=False), mask=mask)


class GoingOnCounts(GoingOn):
    """By row, [rows, 2] each: `total`, and `late`, what came at the last moment `when`, which that moment's own rows do
    not see. Row 0 is nobody's."""

    def __init__(self, state: Counts) -> None:
        super().__init__(state)
        stored = [state.table.values[name].to_numpy() for name in state.stored]
        self.when = np.concatenate([[FIRST], stored[-3]])
        self.total, self.late = (np.zeros((len(self.when), 2), np.int64) for _ in range(2))
        for index in range(len(state.gives)):
            self.total[1:, index] = stored[index]
        self.late[1:, 0], self.late[1:, 1] = stored[-2:]

    def look_up(self, values):
        keys = [values[name] for name in self.state.by]
        counts = self._before(self.keys.find_all(keys), moments(values[self.state.at]))
        return self._given(keys, counts)

    def _before(self, rows: np.ndarray, when: np.ndarray) -> np.ndarray:
        return self.total[rows] - np.where((self.when[rows] >= when)[:, None], self.late[rows], 0)

    def _given(self, keys, counts: np.ndarray) -> dict[str, pa.Array]:
        return {name: _missing_with(keys, pa.array(counts[:, index])) for index, name in enumerate(self.state.gives)}

    def _replay(self, events):
        keys = [events.values[name] for name in self.state.by]
        rows, when = self.keys.find_all(keys, add=True), moments(events.values[self.state.at])
        self._grow()
        order, is_first, is_new, last = in_runs(rows, when)
        rows, when = rows[order], when[order]
        index = np.arange(len(rows))
        first, moment = (np.maximum.accumulate(np.where(starts, index, 0)) for starts in (is_first, is_new))
        so_far = np.zeros((len(rows) + 1, 2), np.int64)  # before each event, over all keys
        so_far[1:, 0], so_far[1:, 1] = index + 1, np.cumsum(events.label[order])
        counts = np.empty((len(rows), 2), np.int64)
        counts[order] = self._before(rows, when) + so_far[moment] - so_far[first]

        key, of_last = rows[last], so_far[last + 1] - so_far[moment[last]]
        old, new = self.when[key][:, None], when[last][:, None]  # an earlier day may come late: clocks disagree
        self.late[key] = np.where(new >= old, of_last, 0) + np.where(new <= old, self.late[key], 0)
        self.total[key] += so_far[last + 1] - so_far[first[last]]
        self.when[key] = np.maximum(self.when[key], when[last])
        self.total[0] = self.late[0] = 0
        self.when[0] = FIRST
        return self._given(keys, counts)

    def _click(self, events):
        rows = self.keys.find_all([events.values[name] for name in self.state.by])
        np.add.at(self.total[:, 1], rows, 1)
        np.add.at(self.late[:, 1], rows, self.when[rows] == moments(events.values[self.state.at]))
        self.total[0] = self.late[0] = 0

    def _grow(self) -> None:
        rows = self.keys.size + 1
        if len(self.when) < rows:
            self.when = grown(self.when, rows, FIRST)
            more = np.zeros((len(self.when) - len(self.total), 2), np.int64)
            self.total, self.late = (np.concatenate([array, more]) for array in (self.total, self.late))

    def last_moments(self):
        return self.when

    def stored(self):
        rows = slice(1, self.keys.size + 1)
        columns = [*self.total[rows].T[:len(self.state.gives)], self.when[rows], *self.late[rows].T]
        return {name: pa.array(column) for name, column in zip(self.state.stored, columns, strict=True)}
