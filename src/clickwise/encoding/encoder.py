"""Raw rows to the values that a model reads: one row at a time, or many."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from clickwise.arrow_arrays import to_numpy
from clickwise.arrow_files import is_list, plain
from clickwise.encoding.by_key import ByKey
from clickwise.encoding.document import Column, Encoding, RawColumn
from clickwise.encoding.lists import Lists, known_parts, parts
from clickwise.encoding.one_row import OneRow, unreadable
from clickwise.encoding.operations import OrElse, Vocabulary
from clickwise.encoding.raw_types import Float, Text, Unreadable, python_values
from clickwise.encoding.states import Events, GoingOn, GroupSize, WholeRequest
from clickwise.errors import DataError, nearest_column

FEW = 8  # rows
Raw = pa.Table | Mapping[str, pa.Array]  # raw columns by name


@dataclasses.dataclass
class Encoded:
    """`arrays` by column, in their stored types; by raw column in how many rows a value was `missing` (a list empty),
    and in how many one was `unseen`: not in the vocabulary, which holds no rare ones either."""

    arrays: dict[str, np.ndarray | Lists]
    missing: dict[str, int]
    unseen: dict[str, int]


@dataclasses.dataclass
class ValueCounts:
    """How many rows there were, and in how many of them a value of a raw column was missing, or unseen."""

    rows: int = 0
    missing: Counter[str] = dataclasses.field(default_factory=Counter)
    unseen: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, rows: int, encoded: Encoded) -> None:
        self.rows += rows
        self.missing.update(encoded.missing)
        self.unseen.update(encoded.unseen)

    def shares(self) -> dict[str, dict[str, float]]:
        """`missing` and `unseen`: raw column → share of the rows, the greatest first, those above 0."""
        return {key: {name: count / self.rows for name, count in counts.most_common() if count}
                for key, counts in (("missing", self.missing), ("unseen", self.unseen))}


def described(shares: Mapping[str, float]) -> str:
    """Shares for a person: `shop 12.50%, price 0.10%`."""
    return ", ".join(f"{name} {share:.2%}" for name, share in shares.items())


class Encoder:
    """The columns `names` of an encoding (all, where it is None). `needs` are the raw columns that they are made of,
    each with what it holds, for messages; `required` those of them that every file must have: neither `optional`
    nor carried.

    States are looked up as they stand. Of those that go on, without `going_on`, rows bring along what they would give
    (`carried`), but for lists of events, which nothing can stand for (`not_carried`).

    Where a column tells how many rows a display has, the rows that come at once are whole displays (`group`, the key;
    `in_parts`); a row alone with its display is refused unless `alone`.

    Columns of `by_key` are looked up there; `missing` and `unseen` do not count them.
    """

    def __init__(self, encoding: Encoding, names: Iterable[str] | None = None,
                 going_on: Mapping[str, GoingOn] | None = None, *, alone: bool = False,
                 by_key: Iterable[ByKey] = ()) -> None:
        encoding.check_for_new_rows()
        self.alone = alone
        self.encoding, self.going_on = encoding, going_on or {}
        self.names = tuple(encoding.columns if names is None else names)
        self.carried: list[str] = []
        self.not_carried: list[str] = []
        made: dict[str, list[str]] = {}
        looked_up: set[str] = set()
        self.by_key = [found for table in by_key if (found := table.only(self.names)).names]
        key_of = {name: table.key for table in self.by_key for name in table.names}
        for name in self.names:
            if name in key_of:
                made.setdefault(key_of[name], []).append(name)
                continue
            for of in encoding.columns[name].sources:
                self._reach(of, name, made, looked_up)
        self._worked_out = [name for name in self.names if name not in key_of]
        self.looked_up = [name for name in encoding.tables if name in looked_up]
        self.needs = {of: self._described(of, names) for of, names in made.items()}
        self.optional = [of for of in self.needs if encoding.raw_column(of).optional]
        self.required = {of: held for of, held in self.needs.items() if of not in (*self.optional, *self.carried)}
        self._groups = [name for name in self.looked_up if isinstance(encoding.tables[name], GroupSize)]
        self._lists = [name for name in self.names if encoding.is_of_lists(encoding.columns[name].sources[0])]
        self._one_row = OneRow(encoding, self._worked_out, tuple(self.needs), self.by_key)

    def _reach(self, of: str, name: str, made: dict[str, list[str]], looked_up: set[str]) -> None:
        """Notes of which raw columns and states the column `name` is made by way of `of`."""
        of_state = self.encoding.state_of(of)
        if of_state is None:
            made.setdefault(of, []).append(name)
            return
        state = self.encoding.tables[of_state]
        if state.goes_on and of_state not in self.going_on:
            if state.is_of_lists:
                self.not_carried.append(of)
            elif of not in self.carried:
                self.carried.append(of)
                made[of] = [name]
            return
        looked_up.add(of_state)
        for needed in state.needs:
            self._reach(needed, name, made, looked_up)

    @property
    def goes_on(self) -> bool:
        """Whether columns are made of states that go on, and that it was not given."""
        return bool(self.carried or self.not_carried)

    @property
    def group(self) -> str | None:
        """The raw column of the rows that must come together, if there is one."""
        return self.encoding.tables[self._groups[0]].by[0] if self._groups else None

    def in_parts(self, tables: Iterable[pa.Table], where: str = "rows") -> Encoder:
        """This one for rows that come in parts, of which `tables` are all, with the column `group`."""
        if not self._groups:
            return self
        keys = [self.read(table, [self.group], where)[self.group] for table in tables]
        return self.with_states({name: WholeRequest(self.encoding.tables[name], keys) for name in self._groups})

    def for_columns(self, names: Iterable[str], *, alone: bool = False) -> Encoder:
        """One for other columns, with the same states."""
        return Encoder(self.encoding, names, self.going_on, alone=alone, by_key=self.by_key)

    @property
    def takes_ones(self) -> bool:
        """Whether one row alone costs less than it does as a table."""
        return not self.going_on

    def with_states(self, going_on: Mapping[str, GoingOn | WholeRequest]) -> Encoder:
        """The same with these states in place of its own."""
        found = copy.copy(self)
        found.going_on = {**self.going_on, **going_on}
        return found

    def check_carried(self, given: Iterable[str], where: object) -> None:
        """Raises DataError, which names them, for columns of states that go on and that rows do not bring along."""
        given = set(given)
        if missing := [*(of for of in self.carried if of not in given), *self.not_carried]:
            raise DataError(where, found=f"no {', '.join(missing)}", expected="what goes on with every event, "
                            + ("by a log: no column stands for a history" if self.not_carried else
                               "as columns of these names, before logarithms and scales"),
                            do="clickwise predict RUN --replay LOG, a log with labels in the order of time")

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The values of one raw row, Python's own, floats rounded as they are stored; a list for lists of ids.

        Raises DataError for a column that is absent, and for a value that cannot be read.
        """
        if self.goes_on:
            self.check_carried(row, "a row")
        if self.optional:
            row = {**dict.fromkeys(self.optional), **row}
        for of in self.needs:
            if of not in row:
                raise self._absent(of, row, "a row")
        if not self.takes_ones:
            found = self.columns(pa.table({of: [row[of]] for of in self.needs})).arrays
            return {name: array[0].tolist() if isinstance(array, tuple) else array[0].item()
                    for name, array in found.items()}
        if self._groups and not self.alone:
            state = self.encoding.tables[self._groups[0]]
            state.check({self.group: pa.array([row[self.group]])}, pa.array([1]), "a row")
        return self._one_row(row, self._look_up_one)

    def _look_up_one(self, found: dict[str, Any]) -> None:
        """Adds what states give for one row to `found`, its raw columns as they were read."""
        for state in self.looked_up:
            found |= self.encoding.tables[state].look_up_one(found)

    def columns(self, raw: Raw, where: str = "rows", first: int = 0) -> Encoded:
        """Many rows; `first` is the number of the first one, `where` the file, for messages.

        Raises DataError as `row` does, and for a column of a type that cannot be read.
        """
        raw = self._given(raw, where)
        read = {of: self._read(of, column, where, first) for of, column in raw.items()}
        self._look_up_all(read, raw, where, first)
        return self._encoded(read, raw, where, first)

    def replay(self, raw: Raw, label: np.ndarray, where: str = "rows") -> Encoded:
        """The rows of a log, each as `going_on` states knew things before its moment; they go on with all of them.
        `label`: 1 for a click, int64 [rows]."""
        raw = self._given(raw, where)
        read = {of: self._read(of, column, where, 0) for of, column in raw.items()}
        logs = [name for name in self.looked_up if self.encoding.tables[name].is_of_lists]
        for name in self.looked_up:
            if name not in logs:
                self._look_up(name, read, raw, where, 0, label)
        found = self._encoded(read, raw, where, 0)
        for name in logs:
            kept = {of: found.arrays[of] for of in self.encoding.tables[name].columns}
            self._look_up(name, read, raw, where, 0, label, kept)
        found.arrays |= self._encoded(read, raw, where, 0, [name for name in self.names if self.encoding.gives_lists(
            self.encoding.columns[name].sources[0])]).arrays
        return found

    def read(self, raw: Raw, needs: Iterable[str], where: str = "rows") -> dict[str, pa.Array]:
        """Raw columns, none of them a list, as their types read them."""
        return {of: self._read(of, column, where, 0)[0] for of, column in self._given(raw, where, needs).items()}

    def _look_up_all(self, read: dict[str, Any], raw: dict[str, pa.Array], where: str, first: int) -> None:
        """Adds what states give to `read`, and what they gave before it was read to `raw`."""
        for name in self.looked_up:
            self._look_up(name, read, raw, where, first)

    def _look_up(self, name: str, read: dict[str, Any], raw: dict[str, pa.Array], where: str, first: int,
                 label: np.ndarray | None = None, columns: Mapping[str, Any] | None = None) -> None:
        """Adds what a state gives to `read`; with `label` one that goes on takes the rows in."""
        state = self.encoding.tables[name]
        values = {of: read[of][0] for of in state.needs}
        if name not in self.going_on:
            found = state.look_up(values)
        elif label is None:
            found = self.going_on[name].look_up(values)
        else:
            found = self.going_on[name].replay(Events(values, label, columns or {}))
        if isinstance(state, GroupSize) and not self.alone:
            state.check(values, next(iter(found.values())), where)
        for of, column in found.items():
            if state.is_of_lists:
                read[of] = column
                continue
            raw[of] = column
            read[of] = (column, None) if state.gives[of].list is None else self._read(of, column, where, first)

    def _encoded(self, read: Mapping[str, tuple[Any, np.ndarray | None]], raw: Mapping[str, pa.Array], where: str,
                 first: int, names: Iterable[str] | None = None) -> Encoded:
        """The columns `names` (all that can be made) of what was read of their sources, and of `raw`, the same as it
        came, for messages."""
        found = Encoded({}, {}, {})
        for table in self.by_key if names is None else ():
            found.arrays |= table.many(read[table.key][0])
        for name in self._worked_out if names is None else names:
            column = self.encoding.columns[name]
            of = column.sources[0]
            if self.encoding.gives_lists(of):
                if of in read:
                    values, offsets = read[of]
                    found.arrays[name] = values.astype(column.dtype, copy=False), offsets
                continue
            x, offsets = read[of]
            column_where = f"{where}, column {of!r}"
            if len(column.sources) > 1:
                values = _through(column, *(read[of][0] for of in column.sources))
                found.arrays[name] = self._stored(column, values, raw[of], column_where, first)
                continue
            missing = found.missing[of] = _missing(self.encoding.raw_column(of), raw[of], x) \
                if offsets is None else int((np.diff(offsets) == 0).sum())
            if column.most is not None and (np.diff(offsets) > column.most).any():
                row = int(np.argmax(np.diff(offsets) > column.most))
                raise DataError(f"{column_where}, row {first + row:,}",
                                found=f"{int(np.diff(offsets)[row])} values", expected=f"at most {column.most}")
            values = _through(column, x)
            if column.steps and isinstance(column.steps[-1], Vocabulary):
                unseen = column.steps[-1].is_unseen(values)
                missing = 0 if isinstance(column.steps[0], OrElse) else missing
                found.unseen[of] = int(unseen.sum()) - missing if offsets is None else \
                    len(np.unique(np.searchsorted(offsets, np.flatnonzero(unseen), "right")))
            found.arrays[name] = self._stored(column, values, raw[of], column_where, first)
            if offsets is not None:
                kept = values > 0
                ends = np.concatenate([[0], np.cumsum(kept)])[offsets]
                found.arrays[name] = found.arrays[name][kept], ends
        return found

    def arrays(self, raw: pa.Table, first: int = 0) -> dict[str, np.ndarray | Lists]:
        """The arrays of `columns`. A few rows are encoded one by one, which is faster and gives the same."""
        if 0 < len(raw) <= FEW and self.takes_ones and not self._groups:
            with contextlib.suppress(DataError):  # raised once more below, with the number of the row
                values = {of: python_values(column) for of, column in self._given(raw, "rows").items()}
                rows = [self.row(dict(zip(values, row, strict=True))) for row in zip(*values.values(), strict=True)]
                return {name: self._array(name, [row[name] for row in rows]) for name in self.names}
        return self.columns(raw, first=first).arrays

    def _array(self, name: str, values: list[Any]) -> np.ndarray | Lists:
        dtype = self.encoding.columns[name].dtype
        if name not in self._lists:
            return np.array(values, dtype)
        offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
        return np.array([id_ for ids in values for id_ in ids], dtype), offsets

    def has_value(self, name: str, raw: Raw, where: str = "rows", first: int = 0) -> np.ndarray:
        """Which rows have a value of a column, a label say; bool [rows]."""
        column = self.encoding.columns[name]
        (of,) = column.sources
        values, _ = self._read(of, self._given(raw, where, [of])[of], where, first)
        values = _through(column, values)
        return ~np.isnan((_numbers(values) if isinstance(values, pa.Array) else values).astype(float))

    def _given(self, raw: Raw, where: str, needs: Iterable[str] | None = None) -> dict[str, pa.Array]:
        """The raw columns `needs`, which are all that are needed where it is None."""
        given = dict(zip(raw.column_names, raw.columns, strict=True)) if isinstance(raw, pa.Table) else raw
        found = {}
        if needs is None:
            self.check_carried(given, where)
        for of in self.needs if needs is None else needs:
            if of not in given:
                if not self.encoding.raw_column(of).optional or not given:
                    raise self._absent(of, given, where)
                rows = len(next(iter(given.values())))
                given = {**given, of: pa.nulls(rows, self.encoding.raw_column(of).type.arrow)}
            column = given[of]
            found[of] = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        return found

    def _read(self, of: str, column: pa.Array, where: str, first: int) -> tuple[pa.Array, np.ndarray | None]:
        """The column as its raw type reads it; of lists their values end to end, and where each row's end."""
        raw, where, offsets = self.encoding.raw_column(of), f"{where}, column {of!r}", None
        if raw.list is not None:
            column, offsets = parts(column, raw.list)
        elif is_list(column.type) or pa.types.is_struct(column.type) or pa.types.is_map(column.type):
            raise DataError(where, found=f"values of the type {column.type}", expected=str(raw))
        try:
            read = raw.type.array(plain(column))
        except Unreadable as error:
            row = error.index if offsets is None else int(np.searchsorted(offsets, error.index, "right")) - 1
            raise unreadable(f"{where}, row {first + row:,}", error) from None
        except pa.ArrowException as error:
            raise DataError(where, found=f"values of the type {column.type} ({str(error).splitlines()[0][:80]})",
                            expected=str(raw)) from None
        return (read, None) if offsets is None else known_parts(read, offsets)

    def _stored(self, column: Column, values: Any, raw: pa.Array, where: str, first: int) -> np.ndarray:
        dtype = np.dtype(column.dtype)
        if isinstance(values, pa.Array):
            values = _numbers(values)
        if dtype.kind != "f":
            if values.dtype.kind == "f" and np.isnan(values).any():
                raise DataError(f"{where}, row {first + int(np.argmax(np.isnan(values))):,}", found="no value",
                                expected="a label in every row")
            stored = values.astype(dtype)
            if values.dtype.itemsize > dtype.itemsize and (bad := stored != values).any():
                raise DataError(f"{where}, row {first + int(np.argmax(bad)):,}", found=str(values[bad][0]),
                                expected=f"a value that fits {dtype.name}")
            return stored
        with np.errstate(over="ignore"):
            stored = values.astype(column.number).astype(dtype)
        finite = np.isfinite(stored)
        if not finite.all():
            row = int(np.argmin(finite))
            raise DataError(f"{where}, row {first + row:,}", found=repr(raw[row].as_py()), expected="a finite number")
        return stored

    def _absent(self, of: str, given: Iterable[str], where: str) -> DataError:
        given = list(given)
        return DataError(where, found=f"no column {of!r} among {len(given)}",
                         expected=f"{of}: {self.needs.get(of) or self.encoding.raw_column(of)}",
                         do=nearest_column(of, given))

    def _described(self, of: str, names: list[str]) -> str:
        """What a raw column holds that these columns are made of."""
        made = "" if names == [of] else f", of which {', '.join(names[:5])}{', …' * (len(names) > 5)} is made"
        return f"{self.encoding.raw_column(of)}{made}"


def _missing(raw: RawColumn, column: pa.Array, read: pa.Array) -> int:
    """How many values are missing; a word among whole numbers is not: it is one that was not seen."""
    if not read.null_count or isinstance(raw.type, (Float, Text)):
        return read.null_count
    return Text().array(plain(column)).null_count


def _through(column: Column, *x: pa.Array) -> pa.Array | np.ndarray:
    """Values as a raw type reads them through a column's steps."""
    values = [_numbers(column) if pa.types.is_floating(column.type) else column for column in x]
    for step in column.steps:
        values = [step.many(*values)]
    return values[0]


def _numbers(column: pa.Array) -> np.ndarray:
    """As numpy, NaN where a value is missing."""
    if pa.types.is_boolean(column.type) and column.null_count:
        column = column.cast(pa.int8())
    return to_numpy(column)
