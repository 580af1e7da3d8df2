"""A log of events through an encoding whose states go on: every row sees what was known before its moment."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from clickwise.encoding.document import Encoding
from clickwise.encoding.encoder import Encoded, Encoder
from clickwise.encoding.lists import rows_of_array
from clickwise.encoding.states import EventLog, GoingOn
from clickwise.errors import DataError


class Replay:
    """The columns `names` of the rows of a log, which has a label; `needs` are its raw columns, `required` those of
    them that are not optional, `columns` the names and what event logs keep.

    `repeats` is how many rows of the logs so far were the same event as another one: they count once, and each gets
    the values of that event. `states` are as they stand after all of them (those of the encoding at first, where they
    are not given); `encoder` looks them up so. `last` is the last time of them: the next log begins no earlier.
    """

    def __init__(self, encoding: Encoding, names: Iterable[str], states: Mapping[str, GoingOn] | None = None) -> None:
        """Raises DataError for an encoding none of whose states go on."""
        encoding.check_for_new_rows()
        if not encoding.goes_on:
            raise DataError(encoding.folder, found="no state that goes on with the events of a log",
                            expected="a run on data whose preparation said so", do="give the rows with --input")
        self.encoding, self.log, names = encoding, encoding.events, list(names)
        self.states = states if states is not None else {
            name: state.going_on() for name, state in encoding.tables.items() if state.goes_on}
        kept = [column for state in encoding.tables.values() if isinstance(state, EventLog) for column in state.columns]
        self._names = names
        self.encoder = Encoder(encoding, names, self.states)
        self.columns = list(dict.fromkeys([*names, *kept]))
        self._all = Encoder(encoding, self.columns, self.states)
        self._label = Encoder(encoding, [self.log.label])
        further = {of: str(encoding.raw_column(of)) for of in (self.log.time, *self.log.same, *self.log.order)}
        self.needs: Mapping[str, str] = {**self._label.needs, **further, **self._all.needs}
        self.required = {of: held for of, held in self.needs.items() if not encoding.raw_column(of).optional}
        self.repeats, self.last = 0, None

    def with_states(self, states: Mapping[str, GoingOn]) -> Replay:
        """The same for another log, with these states, as this one was at first."""
        found = copy.copy(self)
        found.states, found.encoder, found._all = states, *(encoder.with_states(states) for encoder in (
            self.encoder, self._all))
        found.repeats, found.last = 0, None
        return found

    def read(self, raw: pa.Table, where: str = "rows") -> tuple[dict[str, pa.Array], np.ndarray]:
        """Of a log in any order the raw columns that it needs, as their types read them, and the label, int64 [rows].
        Raises DataError for a row without a time or a label."""
        read = self._all.read(raw, self.needs, where)
        time = read[self.log.time]
        if time.null_count:
            row = int(np.argmin(time.is_valid().to_numpy(zero_copy_only=False)))
            raise DataError(f"{where}, row {row:,}", found=f"no {self.log.time}", expected="a time in every row")
        return read, self._label.columns(raw, where).arrays[self.log.label].astype(np.int64)

    def rows(self, raw: pa.Table, where: str = "rows") -> Encoded:
        """All rows of a log, in the order of their time. Raises DataError for a row before the one above it, and for
        one without a label."""
        read, label = self.read(raw, where)
        self._check_order(read[self.log.time], where)
        events, label, event_of = merged(pa.table(read), label, self.log.same)
        self.repeats += len(event_of) - len(events)
        order = np.lexsort([events[name].to_numpy() for name in reversed(self.log.order)])
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        found = self._all.replay(events.take(pa.array(order)), label[order], where)
        row_B = place[event_of]
        self.last = int(read[self.log.time][-1].as_py()) if len(row_B) else self.last
        arrays = {name: found.arrays[name] for name in self._names}
        if not (row_B == np.arange(len(row_B))).all() or len(order) != len(row_B):
            arrays = {name: rows_of_array(array, row_B) for name, array in arrays.items()}
        return Encoded(arrays, found.missing, found.unseen)

    def _check_order(self, time: pa.Array, where: str) -> None:
        name, time = self.log.time, time.to_numpy()
        if self.last is not None and len(time) and time[0] < self.last:
            raise DataError(f"{where}, row 0", found=f"{name} {time[0]} after {self.last}, the last of an earlier log",
                            expected="a log that begins where the one before it ends")
        if len(back := np.flatnonzero(time[1:] < time[:-1])):
            row = int(back[0]) + 1
            raise DataError(f"{where}, row {row:,}", found=f"{name} {time[row]} after {time[row - 1]}",
                            expected=f"rows in the order of {name}", do="sort the log by it")


def merged(rows: pa.Table, label: np.ndarray, same: Sequence[str]) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Each event once, rows that agree in `same` being one: the least of all its values and the greatest label; its
    label, and which event each row is."""
    order, is_new = _same(rows, same)
    if is_new.all():
        return rows, label, np.arange(len(label))
    event_of = np.empty(len(order), np.int64)
    event_of[order] = np.cumsum(is_new) - 1
    least = rows.append_column("__event", pa.array(event_of)).group_by("__event").aggregate(
        [(name, "min") for name in rows.column_names]).sort_by("__event").drop_columns("__event")
    clicked = np.zeros(len(least), np.int64)
    np.maximum.at(clicked, event_of, label)
    return least.rename_columns([name.removesuffix("_min") for name in least.column_names]), clicked, event_of


def count_repeats(rows: pa.Table, same: Sequence[str]) -> int:
    """How many rows agree with an earlier one in the columns `same`."""
    return int((~_same(rows, same)[1]).sum())


def _same(rows: pa.Table, same: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """An order in which rows that agree stand together, and which of them are the first."""
    columns = [rows[name].combine_chunks().to_numpy(zero_copy_only=False) for name in same]
    order = np.lexsort(columns)
    is_new = np.append(True, np.zeros(max(len(order) - 1, 0), bool))[:len(order)]
    for column in columns:
        is_new[1:] |= column[order][1:] != column[order][:-1]
    return order, is_new
