"""What a user did, event by event: each key has a list of events by time, and a row sees the last of them before it:
before its moment, or the first so many of all, where it says how many came before.

In values.arrow a row holds the lists of a key: `time`, and for every feature the ids of its events.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from clickwise.encoding.lists import Lists
from clickwise.encoding.states.state import FIRST, Events, GoingOn, State, Values, moments
from clickwise.errors import DataError

TIME, OUTCOME = "time", "outcome"  # in place of a column: event minus row, in `at`'s unit; 1 passed over, 2 clicked


@dataclasses.dataclass(frozen=True)
class EventLog(State):
    """Lists of at most `length` events, the latest last. `features`: what it gives → the encoded column that is kept of
    an event, OUTCOME or TIME. `clicks_only`: nothing else is an event. `position`: a column that says how many events
    came before a row, where it has a value; its moment must be known even so."""

    length: int = 50
    features: Mapping[str, str] = dataclasses.field(default_factory=dict)
    clicks_only: bool = False
    position: str | None = None

    kind = "event_log"

    @property
    def needs(self):
        return super().needs if self.position is None else (*super().needs, self.position)

    @property
    def is_of_lists(self):
        return True

    @property
    def stored(self):
        return dict.fromkeys((TIME, *(name for name, column in self.features.items() if column != TIME)))

    @property
    def columns(self) -> tuple[str, ...]:
        """The encoded columns that are kept of an event."""
        return tuple(column for column in self.features.values() if column not in (TIME, OUTCOME))

    def load(self, folder: Path) -> EventLog:
        loaded = super().load(folder)
        lists = [column.combine_chunks() for column in loaded.table.values.columns]
        if not all(pa.types.is_large_list(column.type) and pa.types.is_signed_integer(column.type.value_type)
                   and not column.null_count and not column.values.null_count and column.offset == 0
                   and column.offsets.equals(lists[0].offsets) for column in lists):
            raise DataError(folder, found="lists that are not of the same events", expected="a state as preparation "
                            "wrote it", do="prepare the dataset again, or copy the file again")
        return loaded

    @functools.cached_property
    def log(self) -> EventsByKey:
        columns = {name: self.table.values[name].combine_chunks() for name in self.stored}
        offsets = columns[TIME].offsets.to_numpy() if self.table.size else np.zeros(1, np.int64)
        return EventsByKey(np.append(offsets[:1], offsets), {
            name: column.values.to_numpy() for name, column in columns.items()})

    def look_up(self, values: Values) -> dict[str, Lists]:
        return self.log.before(self, self.table.find_all([values[name] for name in self.by]), values)

    def stored_of(self, row):
        first, end = self.log.offsets[row:row + 2]
        return {name: column[first:end] for name, column in self.log.columns.items()}

    def given_one(self, values, stored):
        when, position = values[self.at], None if self.position is None else values[self.position]
        if stored is None or when is None:
            return {name: [] for name in self.features}
        end = int(np.searchsorted(stored[TIME], when)) if position is None else min(max(position, 0), len(stored[TIME]))
        seen = slice(max(0, end - self.length), end)
        return {name: (stored[TIME][seen] - when if column == TIME else stored[name][seen]).tolist()
                for name, column in self.features.items()}

    def going_on(self):
        return GoingOnEvents(self)


@dataclasses.dataclass
class EventsByKey:
    """Events in memory: those of row r are those from offsets[r] to offsets[r + 1], in the order of time; row 0 has
    none."""

    offsets: np.ndarray
    columns: dict[str, np.ndarray]

    def before(self, state: EventLog, rows: np.ndarray, values: Values) -> dict[str, Lists]:
        """The last events of each row strictly before the moment that `values` say, or before its position."""
        when = moments(values[state.at])
        first, low, high = (self.offsets[rows + index] for index in (0, 0, 1))
        end = high
        times = np.append(self.columns[TIME], 0)
        while (searching := low < high).any():
            middle = (low + high) // 2
            is_earlier = searching & (times[middle] < when)
            low, high = np.where(is_earlier, middle + 1, low), np.where(searching & ~is_earlier, middle, high)
        if state.position is not None:
            position = values[state.position]
            many = np.clip(position.fill_null(0).to_numpy(zero_copy_only=False), 0, end - first)
            low = np.where(position.is_valid().to_numpy(zero_copy_only=False) & (when > FIRST), first + many, low)
        start = np.maximum(first, low - state.length)
        offsets = np.concatenate([[0], np.cumsum(low - start)])
        positions = np.repeat(start - offsets[:-1], np.diff(offsets)) + np.arange(offsets[-1])
        found = {name: self.columns[name][positions] for name, column in state.features.items() if column != TIME}
        for name, column in state.features.items():
            if column == TIME:
                found[name] = times[positions] - np.repeat(when, np.diff(offsets))
        return {name: (found[name], offsets) for name in state.features}


class GoingOnEvents(GoingOn):
    """The whole log in memory: every `update` puts it in order anew, so tell it of many events at a time."""

    def __init__(self, state: EventLog) -> None:
        super().__init__(state)
        self.log = state.log

    def look_up(self, values):
        return self.log.before(self.state, self.keys.find_all([values[name] for name in self.state.by]), values)

    def replay(self, events):
        self.update(events)
        return self.look_up(events.values)

    def _replay(self, events: Events) -> None:
        state = self.state
        if state.clicks_only:
            events = events.take(np.flatnonzero(events.label == 1))
        rows = self.keys.find_all([events.values[name] for name in state.by], add=True)
        added = {TIME: moments(events.values[state.at])}
        for name, column in state.features.items():
            if column != TIME:
                added[name] = events.label + 1 if column == OUTCOME else events.columns[column]
        old = np.repeat(np.arange(len(self.log.offsets) - 1), np.diff(self.log.offsets))
        of = np.concatenate([old, rows])
        joined = {name: np.concatenate([column, added[name].astype(column.dtype)])
                  for name, column in self.log.columns.items()}
        order = np.lexsort((joined[TIME], of))
        counts = np.bincount(of, minlength=self.keys.size + 1)
        self.log = EventsByKey(np.concatenate([[0], np.cumsum(counts)]), {name: column[order] for name, column in
                                                                   joined.items()})

    def _click(self, events):
        if self.state.clicks_only:
            self._replay(events)
            return
        rows, when = (self.keys.find_all([events.values[of] for of in self.state.by]), moments(
            events.values[self.state.at]))
        kept = {name: column for name, column in self.state.features.items() if column not in (TIME, OUTCOME)}
        for outcome in (name for name, column in self.state.features.items() if column == OUTCOME):
            outcomes = self.log.columns[outcome].copy()
            for event, row in enumerate(rows):
                of_key = slice(*self.log.offsets[row:row + 2])
                same = (self.log.columns[TIME][of_key] == when[event]) & (outcomes[of_key] == 1)
                for name, column in kept.items():
                    same &= self.log.columns[name][of_key] == events.columns[column][event]
                outcomes[of_key][np.flatnonzero(same)[:1]] = 2  # the first of several that look alike
            self.log = dataclasses.replace(self.log, columns={**self.log.columns, outcome: outcomes})

    def last_moments(self):
        ends = self.log.offsets[1:]
        times = np.append(self.log.columns[TIME], FIRST)[ends - 1]
        return np.where(np.diff(self.log.offsets), times, FIRST)

    def stored(self):
        """Of each key the last `length` events, and the last `length` before its last moment."""
        offsets, length = self.log.offsets, self.state.length
        of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        is_last = self.log.columns[TIME] == self.last_moments()[of]
        ends, position = offsets[1:], np.arange(len(of))
        earlier = ends - np.bincount(of, is_last, len(ends)).astype(np.int64)  # where each last moment begins
        kept = (position >= ends[of] - length) | (~is_last & (position >= earlier[of] - length))
        offsets = pa.array(np.concatenate([[0], np.cumsum(kept)])[offsets[1:]])
        return {name: pa.LargeListArray.from_arrays(offsets, pa.array(column[kept]))
                for name, column in self.log.columns.items()}
