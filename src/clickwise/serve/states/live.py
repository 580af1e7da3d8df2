"""States of a server that go on with the events it receives: rows are scored by what was known before their moment.

A request looks up the rows of states that it touches, in one question to the store. Events are taken in by the code of
a replay, over the same few rows, and what they changed is written at once, all or none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from clickwise.encoding.by_key import ByKey, by_key
from clickwise.encoding.document import Encoding
from clickwise.encoding.encoder import Encoder
from clickwise.encoding.replay import Replay
from clickwise.encoding.states import Events, GoingOn
from clickwise.encoding.states.state import Values, moments
from clickwise.errors import DataError
from clickwise.serve.states.rows import FORGOTTEN, StatesInStore
from clickwise.serve.states.seen import Seen
from clickwise.serve.states.store import Records, Store


@dataclasses.dataclass(frozen=True)
class Taken:
    """Of the events of a request how many were counted; of these how many came `late`, before others of one of their
    keys; how many `clicks` there were on events that were received before; how many were `repeats` of others, in the
    request or before it; and how many the export `holds` already."""

    events: int = 0
    late: int = 0
    clicks: int = 0
    repeats: int = 0
    holds: int = 0


class LiveStates:
    """The states of an encoding that go on, in a store, which several processes may share; what it has nothing of is as
    the export says. `encoder` is that of the columns `names` of rows, as the states stand."""

    def __init__(self, encoding: Encoding, names: Iterable[str], store: Store, *, user: str | None = None) -> None:
        """`user` is the column whose values can be forgotten, by default the key of the event log, or of last moments.
        Raises DataError for an encoding none of whose states go on."""
        going_on = {name: state for name, state in encoding.tables.items() if state.goes_on}
        made = {}  # a column of each state, whatever a model reads: models of one encoding may share a store
        for name, column in encoding.columns.items():
            for of in column.sources:
                made.setdefault(encoding.state_of(of), name)
        self._replay = Replay(encoding, [made[name] for name in going_on if name in made], dict.fromkeys(going_on))
        self._states = StatesInStore(encoding, store, user)
        self._of_events = LiveEncoder(self._states, self._replay.columns)
        self.encoder = LiveEncoder(self._states, names)
        self.encoder = LiveEncoder(self._states, names, by_key=by_key(self.encoder))

    @property
    def needs(self) -> Mapping[str, str]:
        """The raw columns of events, the label's too, each with what it holds."""
        return self._replay.needs

    @property
    def identity(self) -> str:
        """Models whose states have the same identity, in one store, share them."""
        return self._states.identity

    @property
    def store(self) -> Store:
        return self._states.store

    @property
    def user(self) -> str:
        """The column whose values are users."""
        return self._states.user

    @property
    def states(self) -> list[str]:
        """The names of the states of the store that the columns are made of."""
        return self.encoder.of_store

    def look_up_one(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What these states give for one row, of its values as they were read."""
        return self._states.ones(self.states, values)

    def events(self, raw: pa.Table, where: str = "events") -> Taken:
        """Takes in events with their labels, in any order. Raises DataError for a row that cannot be read, has no time
        or no label, and StoreError; no event of the table is counted then."""
        if not len(raw):
            return Taken()
        raw = raw.select([name for name in self._replay.needs if name in raw.column_names]).combine_chunks()
        read, label = self._replay.read(raw, where)
        values = self._of_events.keys_of(raw, where)
        names, log = self._of_events.of_store, self._replay.log
        touched, seen = self._states.touched(names, values), Seen(self._states, log.same, read, label)
        is_later = np.zeros(len(raw), bool)
        for name in names:
            state = self._states.states[name]
            is_later |= np.ones(len(raw), bool) if state.until is None else moments(values[state.at]) >= state.until
        order = np.argsort(moments(read[log.time]), kind="stable")
        taken = Taken()

        def change(found: Records) -> Mapping:
            nonlocal taken
            of_states, of_seen = found[:len(touched.keys)], found[len(touched.keys):]
            is_known, is_clicked = seen.known(of_seen)
            records = touched.records(of_states)
            going_on = touched.going_on(records)
            is_late = np.zeros(len(raw), bool)
            for state in going_on.values():
                is_late |= state.is_late(values)
            rows_of = {"events": ~is_known & is_later, "late": ~is_known & is_later & is_late,
                       "clicks": is_clicked & is_later, "holds": ~is_later}
            counts = {name: int((rows & seen.is_first).sum()) for name, rows in rows_of.items()}
            taken = Taken(**counts, repeats=len(raw) - counts["events"] - counts["clicks"] - counts["holds"])
            clicked = {name: _Clicked(state) for name, state in going_on.items()}
            for rows, states in ((rows_of["events"], going_on), (rows_of["clicks"], clicked)):
                if rows.any():
                    self._replay.with_states(states).rows(raw.take(pa.array(order[rows[order]])), where)
            changed = touched.changed(going_on, records)
            return {**changed, **seen.records(of_seen)} if counts["events"] or counts["clicks"] else {}

        self.store.update([*touched.keys, *seen.keys], change)
        return taken

    def forget(self, user: object) -> None:
        """Forgets a user: what events said of him, and for what the export holds of him in states that go on, a mark
        that it is not to be looked at. Raises DataError for what is no value of the column `user`."""
        column = self._states.user
        value = self._states.encoding.raw_column(column).type.one(user)
        if value is None:
            raise DataError(column, found=repr(user), expected=str(self._states.encoding.raw_column(column)))
        self.store.replace(self._states.owner(column, value), {FORGOTTEN: b"1"})


class _Clicked:
    """A state that takes clicks on events that it knows."""

    def __init__(self, state: GoingOn) -> None:
        self.look_up, self._state = state.look_up, state

    def replay(self, events: Events) -> Mapping[str, Any]:
        self._state.click(events)
        return self.look_up(events.values)


class LiveEncoder(Encoder):
    """An encoder whose states that go on are looked up in a store, `of_store` by their names."""

    def __init__(self, states: StatesInStore, names: Iterable[str], *, alone: bool = False,
                 by_key: Iterable[ByKey] = ()) -> None:
        super().__init__(states.encoding, names, dict.fromkeys(states.states), alone=alone, by_key=by_key)
        self._states = states
        self.of_store = [name for name in self.looked_up if name in states.states]
        self._standing = [name for name in self.looked_up if name not in states.states]

    def for_columns(self, names, *, alone=False):
        return LiveEncoder(self._states, names, alone=alone, by_key=self.by_key)

    def with_given(self, states: Mapping[str, Any]) -> LiveEncoder:
        """The same, which looks these states up in what is given."""
        found = self.with_states(states)
        found.of_store = [name for name in self.of_store if name not in states]
        found._standing = [name for name in self.looked_up if name not in found.of_store]
        return found

    @property
    def takes_ones(self) -> bool:
        return True

    def _look_up_one(self, found: dict[str, Any]) -> None:
        for name in self._standing:
            found |= self.encoding.tables[name].look_up_one(found)
        found |= self._states.ones(self.of_store, found)

    def _look_up_all(self, read, raw, where, first):
        values = self._keys(read, raw, where, first)
        touched = self._states.touched(self.of_store, values)
        now = self.with_states(touched.going_on(touched.records()))
        for name in self.of_store:
            now._look_up(name, read, raw, where, first)

    def keys_of(self, raw: pa.Table, where: str) -> Values:
        """The columns that the states of the store need, of many rows."""
        given = self._given(raw, where)
        return self._keys({of: self._read(of, column, where, 0) for of, column in given.items()}, given, where, 0)

    def _keys(self, read, raw, where, first) -> Values:
        for name in self._standing:
            self._look_up(name, read, raw, where, first)
        return {of: read[of][0] for name in self.of_store for of in self._states.states[name].needs}
