"""What all states have in common: they stand still as files, and some of them go on with events.

A frozen state is looked up and never changes. One that goes on holds all events before `until`; of later ones it must
be told, in the order of the column `at`, which tells their moments. An event is never part of what is looked up for its
own moment: look up, then update.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from clickwise.encoding.raw_column import RawColumn
from clickwise.encoding.states.keyed_table import GrowingKeys, KeyedTable, TableInMemory, files_of

Values = Mapping[str, pa.Array]  # columns as their raw types read them
FIRST = np.iinfo(np.int64).min  # a moment before all others


@dataclasses.dataclass(frozen=True)
class Events:
    """Rows that happened: their `values`; `label`, 1 for a click, int64 [rows]; and encoded `columns`."""

    values: Values
    label: np.ndarray
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def take(self, rows: np.ndarray) -> Events:
        at = pa.array(rows)
        return Events({name: column.take(at) for name, column in self.values.items()}, self.label[rows],
                      {name: column[rows] for name, column in self.columns.items()})


@dataclasses.dataclass(frozen=True)
class State:
    """`by` are the columns of its keys, `at` that of the moment, `gives` the columns that it gives, in their order.

    `goes_on`: rows must bring those columns along, or events must be replayed. `until` is the value of `at` up to which
    it holds all events; None: all there are. `table` is what lies on disk, keyed by `by`.
    """

    by: tuple[str, ...]
    gives: Mapping[str, RawColumn]
    at: str | None = None
    goes_on: bool = False
    until: int | None = None
    table: KeyedTable | TableInMemory | None = dataclasses.field(default=None, compare=False, repr=False)

    kind: ClassVar[str]

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns that a look-up takes."""
        return self.by if self.at is None else (*self.by, self.at)

    @property
    def stored(self) -> dict[str, pa.DataType | None]:
        """The columns of values.arrow and their types; None: `load` looks at it."""
        return {name: column.type.arrow for name, column in self.gives.items()}

    @property
    def is_of_lists(self) -> bool:
        """Whether it gives lists of what is encoded already."""
        return False

    @property
    def files(self) -> list[str]:
        """The names of its files."""
        return files_of(len(self.by))

    def load(self, folder: Path) -> State:
        """The same, with its files in `folder` open. Raises DataError."""
        return dataclasses.replace(self, table=KeyedTable(folder, len(self.by), self.stored))

    def look_up(self, values: Values) -> dict[str, Any]:
        """The columns that it gives for many rows, as it stands; missing where a key is missing."""
        raise NotImplementedError

    def look_up_one(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same for one row, in Python's own values."""
        keys = [values[name] for name in self.by]
        row = 0 if None in keys else self.table.find(keys)
        return self.given_one(values, self.stored_of(row) if row else None)

    def stored_of(self, row: int) -> dict[str, Any]:
        """What is stored in a row of its table, which are numbered from 1 on; lists as numpy arrays."""
        return {name: value(row) for name, value in self.table.value.items()}

    def given_one(self, values: Mapping[str, Any], stored: Mapping[str, Any] | None) -> dict[str, Any]:
        """What it gives for one row, of what is stored of its keys; None: nothing is."""
        raise NotImplementedError

    def going_on(self) -> GoingOn:
        """A copy in memory that can be updated."""
        raise NotImplementedError


class GoingOn:
    """A state in memory that takes events."""

    def __init__(self, state: State) -> None:
        self.state, self.keys = state, GrowingKeys(state.table)

    def look_up(self, values: Values) -> dict[str, Any]:
        """What it gives for rows, of events strictly before the moment of each."""
        raise NotImplementedError

    def update(self, events: Events) -> None:
        """Takes in events, in any order; what lies before `until` is in it and left out. Events may come late, before
        others that it has taken: rows of the last moment, and later ones, see them."""
        if len(fresh := self._fresh(events)):
            self._replay(events if len(fresh) == len(events.label) else events.take(fresh))

    def replay(self, events: Events) -> dict[str, Any]:
        """What it gives for each event, of those strictly before it; then it is as after `update`."""
        fresh = self._fresh(events)
        if len(fresh) == len(events.label):
            return self._replay(events)
        found = self.look_up(events.values)
        if len(fresh):
            later = self._replay(events.take(fresh))
            order = np.arange(len(events.label))
            order[fresh] = len(order) + np.arange(len(fresh))
            found = {name: pa.concat_arrays([found[name], later[name]]).take(pa.array(order)) for name in found}
        return found

    def click(self, events: Events) -> None:
        """Events that it has taken already, without a click: they were clicked after all, as their label says now."""
        if len(fresh := self._fresh(events)):
            self._click(events.take(fresh))

    def is_late(self, values: Values) -> np.ndarray:
        """Which rows lie before the last moment that it knows of their keys; bool [rows]."""
        rows = self.keys.find_all([values[name] for name in self.state.by])
        return self.last_moments()[rows] > moments(values[self.state.at])

    def last_moments(self) -> np.ndarray:
        """By row, FIRST where there is none; row 0 is nobody's."""
        raise NotImplementedError

    def stored(self) -> dict[str, pa.Array]:
        """The columns that the state stores, as it stands now, in the order of `keys`: as far as rows of the last
        moment of a key, and later ones, can see it."""
        raise NotImplementedError

    def _replay(self, events: Events) -> dict[str, Any]:
        raise NotImplementedError

    def _click(self, events: Events) -> None:
        """Nothing, where a state does not look at clicks."""

    def _fresh(self, events: Events) -> np.ndarray:
        if self.state.until is None:
            return np.arange(len(events.label))
        return np.flatnonzero(moments(events.values[self.state.at]) >= self.state.until)


def moments(column: pa.Array) -> np.ndarray:
    """int64; a missing one is before all others."""
    return column.fill_null(FIRST).to_numpy(zero_copy_only=False) if column.null_count else \
        column.to_numpy(zero_copy_only=False)


def in_runs(rows: np.ndarray, when: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The order of events by row and moment, and in it which are the first of their row, which of their moment, and
    where each row's last one stands."""
    order = np.lexsort((when, rows))
    rows, when = rows[order], when[order]
    is_first = np.append(True, rows[1:] != rows[:-1])
    is_new = is_first | np.append(True, when[1:] != when[:-1])
    return order, is_first, is_new, np.append(np.flatnonzero(is_first)[1:] - 1, len(rows) - 1)


def grown(array: np.ndarray, rows: int, value: int = 0) -> np.ndarray:
    """The array with at least `rows` rows, the further ones filled with `value`."""
    if len(array) >= rows:
        return array
    return np.concatenate([array, np.full(max(rows - len(array), len(array) // 2), value, array.dtype)])
