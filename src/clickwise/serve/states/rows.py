"""Which rows of states a request touches, where a store keeps them, and what they hold: by the store, and by the
read-only export where the store has nothing of them.

A record belongs to its user, or to the first of its keys: `<encoding>['user_id', 3063]`, `['counts_user_tab', 1]`.
A user who is to be forgotten leaves a record `forgotten`, so that nothing in the export is seen any more.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from clickwise.encoding.document import FILE, Encoding
from clickwise.encoding.states import EventLog, GoingOn, LastMoment
from clickwise.encoding.states.state import Values
from clickwise.errors import DataError
from clickwise.serve.states.records import RecordFormat
from clickwise.serve.states.store import Key, Records, Store

FORGOTTEN = "forgotten"
to_text = ascii  # of texts and whole numbers: no two have the same, in every version of Python


class StatesInStore:
    """The states of an encoding that go on, by their names; `user` is the column whose values are users."""

    def __init__(self, encoding: Encoding, store: Store, user: str | None = None) -> None:
        """Raises DataError for states that are made of one another, and for a `user` by whom no state goes."""
        self.encoding, self.store = encoding, store
        self.states = {name: state for name, state in encoding.tables.items() if state.goes_on}
        for name, state in encoding.tables.items():
            if further := [of for of in state.needs if encoding.state_of(of) in self.states]:
                raise DataError(f"{encoding.folder}: the state {name}", found=f"{', '.join(further)} as keys",
                                expected="keys that do not change with events", do="score logs with --replay")
        self.formats = {name: RecordFormat(name, state) for name, state in self.states.items()}
        self.user = user or self._user()
        keys = dict.fromkeys(of for state in self.states.values() for of in state.by)
        if self.user not in keys:
            raise DataError(encoding.folder, found=f"no state by {self.user!r} that goes on",
                            expected=f"one of {', '.join(keys)}")
        self.identity = hashlib.sha256((encoding.folder / FILE).read_bytes()).hexdigest()[:16]
        self._owner_at = {name: state.by.index(self.user if self.user in state.by else state.by[0])
                          for name, state in self.states.items()}

    def _user(self) -> str:
        """The key of an event log, or else of last moments, or else of whatever there is."""
        ranks = [(not isinstance(state, EventLog), not isinstance(state, LastMoment)) for state in self.states.values()]
        return list(self.states.values())[ranks.index(min(ranks))].by[0]

    def owner(self, column: str, value: Any) -> str:
        return self.identity + to_text([column, value])

    def key(self, name: str, keys: tuple) -> Key:
        """Where a store keeps what the state `name` has of `keys`, none of them missing."""
        at = self._owner_at[name]
        return self.owner(self.states[name].by[at], keys[at]), to_text([name, *keys[:at], *keys[at + 1:]])

    def is_of_user(self, name: str) -> bool:
        return self.user in self.states[name].by

    def exported(self, name: str, keys: tuple) -> bytes | None:
        """The record that the export has."""
        row = self.states[name].table.find(keys)
        return self.formats[name].of_row(row) if row else None

    def ones(self, names: Iterable[str], values: Mapping[str, Any]) -> dict[str, Any]:
        """What these states give for one row."""
        rows = {name: tuple(values[of] for of in self.states[name].by) for name in names}
        found = Touched(self, {name: {keys} for name, keys in rows.items()}).records()
        given = {}
        for name, keys in rows.items():
            record = found[name].get(keys)
            given |= self.states[name].given_one(values, None if record is None else self.formats[name].one(record))
        return given

    def touched(self, names: Iterable[str], values: Values) -> Touched:
        """The rows of these states that many rows touch, of all columns `values` that the states need."""
        return Touched(self, {name: dict.fromkeys(zip(*(values[of].to_pylist() for of in self.states[name].by),
                                                      strict=True)) for name in names})


class Touched:
    """Some rows of states. `keys` are their places in the store."""

    def __init__(self, states: StatesInStore, rows: Mapping[str, Iterable[tuple]]) -> None:
        self._states = states
        self._rows = {name: {keys: states.key(name, keys) for keys in of if None not in keys}
                      for name, of in rows.items()}
        users = {key[0] for name, of in self._rows.items() if states.is_of_user(name) for key in of.values()}
        self.keys: list[Key] = [*(key for of in self._rows.values() for key in of.values()),
                                *((user, FORGOTTEN) for user in users)]

    def records(self, found: Records | None = None) -> dict[str, dict[tuple, bytes]]:
        """State → keys → record, where there is one; `found` are those of `keys` in the store."""
        known = dict(zip(self.keys, self._states.store.get(self.keys) if found is None else found, strict=True))
        of_states: dict[str, dict[tuple, bytes]] = {}
        for name, rows in self._rows.items():
            of_states[name] = of = {}
            for keys, key in rows.items():
                record = known[key]
                if record is None and known.get((key[0], FORGOTTEN)) is None:
                    record = self._states.exported(name, keys)
                if record is not None:
                    of[keys] = record
        return of_states

    def going_on(self, records: Mapping[str, Mapping[tuple, bytes]]) -> dict[str, GoingOn]:
        """The states of these rows alone."""
        found = {}
        for name, of in records.items():
            table = self._states.formats[name].table(list(of), list(of.values()))
            found[name] = dataclasses.replace(self._states.states[name], table=table).going_on()
        return found

    def changed(self, going_on: Mapping[str, GoingOn], records: Mapping[str, Mapping[tuple, bytes]]
                ) -> dict[Key, bytes]:
        """The records of states that went on from `records`, those that are others now."""
        found = {}
        for name, state in going_on.items():
            rows = [*state.keys.table.rows, *state.keys.further]
            for keys, record in zip(rows, self._states.formats[name].all(state.stored()), strict=True):
                if record != records[name].get(keys):
                    found[self._rows[name][keys]] = record
        return found
