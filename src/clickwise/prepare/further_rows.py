"""Further raw rows of one mapping, through an encoding that was fitted before: a block at a time, or, where they are
events of a log, all at once, each event once and as its states knew things before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clickwise.encoding import Encoded, Encoder, Encoding
from clickwise.encoding.lists import rows_of_array
from clickwise.encoding.raw_file import RawFile
from clickwise.encoding.replay import Replay, merged
from clickwise.encoding.states import WholeRequest
from clickwise.errors import PrepareError
from clickwise.prepare.raw_files import named
from clickwise.progress import say

BLOCK_ROWS = 1 << 17


@dataclass(frozen=True)
class Source:
    """Raw rows of a mapping; `layout` is that of text without a header (`RawFile.open`), None: as the encoding says."""

    files: Sequence[Path]
    layout: Mapping[str, Any] | None = None


class FurtherRows:
    """The columns `names` of the rows of a mapping, and the label where the files have it (then it is one of `names`).

    `unlabelled`: how many rows were left out for want of a label. `repeats`: how many were the same event as another.
    """

    def __init__(self, encoding: Encoding, names: Sequence[str], label: str | None, mapping: str,
                 source: Source) -> None:
        """Raises DataError, and PrepareError where some files have a label, or states go on and the rows are no log."""
        self.mapping, self.source, self.label, self.names = mapping, source, None, list(names)
        self.encoding, self.unlabelled, self.repeats = encoding, 0, 0
        # Whole files are given: a display of one ad is one.
        self.encoder = Encoder(encoding, self.names, alone=True)
        self.files = self._opened(self.encoder.required)
        if label is not None and self._have(encoding.columns[label].of):
            self.label, self.names = label, [*names, label]
            self.encoder = Encoder(encoding, self.names, alone=True)
        self._replay = self._replayed() if self.encoder.goes_on and not self._carry() else None
        log = encoding.events
        self._are_events = log is not None and all(set(log.same) <= set(file.columns) for file in self.files)
        if self.encoder.group is not None:
            self._count_displays()

    def _opened(self, required: Mapping[str, str]) -> list[RawFile]:
        layout = self.source.layout or self.encoding.layout
        return [RawFile.open(path, required, layout) for path in self.source.files]

    def _have(self, of: str) -> bool:
        having = [of in file.columns for file in self.files]
        if any(having) and not all(having):
            raise PrepareError(self.files[having.index(False)].path, found=f"no column {of!r}, which other files have",
                               expected="a label in all files of a mapping, or in none")
        return all(having)

    def _carry(self) -> bool:
        """Whether the rows bring along what states that go on would give."""
        return not self.encoder.not_carried and all(set(self.encoder.carried) <= set(file.columns)
                                                    for file in self.files)

    def _replayed(self) -> Replay:
        if self.label is None:
            lacking = [*self.encoder.carried, *self.encoder.not_carried]
            label = self.encoding.columns[self.encoding.events.label].of
            raise PrepareError(named(self.source.files), found=f"neither the label {label} nor {', '.join(lacking)}, "
                               "which goes on with every event", expected="a log with labels, with which states go on",
                               do="add the label" + ("" if self.encoder.not_carried else ", or the columns named"))
        replay = Replay(self.encoding, self.names)
        self._opened(replay.required)
        return replay

    def _count_displays(self) -> None:
        """Looks at all rows: how many there are of each display is an input."""
        group = self.encoder.group
        self.encoder = self.encoder.in_parts(
            (table for file in self.files for table in file.blocks([group], BLOCK_ROWS)), named(self.source.files))
        (sizes,) = (state for state in self.encoder.going_on.values() if isinstance(state, WholeRequest))
        if alone := sizes.alone:
            say(f"{self.mapping}: rows that are alone with their {group}: {alone:,}")

    @property
    def total(self) -> int | None:
        """How many rows there are, where the files say so."""
        rows = [file.rows() for file in self.files]
        return None if None in rows else sum(rows)

    def blocks(self) -> Iterator[tuple[pa.Table, Encoded, int]]:
        """Raw rows and their columns, and how many rows of the files were read for them."""
        if self._are_events:
            yield self._events()
            return
        for file in self.files:
            first = 0
            for table in file.blocks(file.having(self.encoder.needs), BLOCK_ROWS):
                raw = self._labelled(table, str(file.path), first)
                yield raw, self.encoder.columns(raw, str(file.path), first), len(table)
                first += len(table)

    def _labelled(self, table: pa.Table, where: str, first: int = 0) -> pa.Table:
        if self.label is None:
            return table
        raw = table.filter(pa.array(self.encoder.has_value(self.label, table, where, first)))
        self.unlabelled += len(table) - len(raw)
        return raw

    def _events(self) -> tuple[pa.Table, Encoded, int]:
        """All rows, in the order in which each event stands in the files first."""
        log, parts, read = self.encoding.events, [], 0
        needs = list(dict.fromkeys([*self.encoder.needs, *log.same] if self._replay is None else self._replay.needs))
        for file in self.files:
            tables = list(file.blocks(file.having(needs), BLOCK_ROWS))
            if tables:
                table = pa.concat_tables(tables, promote_options="permissive")
                read += len(table)
                table = self._labelled(table, str(file.path))
                parts.append(pa.table(self.encoder.read(table, needs, str(file.path))))
        if not parts:
            return pa.table({}), Encoded({}, {}, {}), 0
        rows, where = pa.concat_tables(parts), named(self.source.files)
        clicked = np.zeros(len(rows), np.int64)
        if self.label is not None:
            clicked = Encoder(self.encoding, [self.label]).columns(rows, where).arrays[self.label].astype(np.int64)
        events, clicked, event_of = merged(rows, clicked, log.same)
        self.repeats = len(rows) - len(events)
        _, first = np.unique(event_of, return_index=True)
        order = np.argsort(first)
        events = events.take(pa.array(order))
        if self.label is not None:
            of = events.column_names.index(self.encoding.columns[self.label].of)
            events = events.set_column(of, events.column_names[of], pa.array(clicked[order]))
        return events, self._encoded(events, where), read

    def _encoded(self, events: pa.Table, where: str) -> Encoded:
        if self._replay is None:
            return self.encoder.columns(events, where)
        self._check_begin(events, where)
        time = events[self.encoding.events.time].to_numpy()
        by_time = np.argsort(time, kind="stable")
        found = self._replay.rows(events.take(pa.array(by_time)), where)
        index = np.empty(len(by_time), np.int64)
        index[by_time] = np.arange(len(by_time))
        return Encoded({name: rows_of_array(array, index) for name, array in found.arrays.items()}, found.missing,
                       found.unseen)

    def _check_begin(self, events: pa.Table, where: str) -> None:
        """Raises PrepareError for events of which every state holds the outcome already."""
        begins = {(state.at, state.until) for state in self.encoding.tables.values()
                  if state.goes_on and state.until is not None and state.at in events.column_names}
        early = np.ones(len(events), bool)
        for at, until in begins:
            early &= events[at].to_numpy() < until
        if begins and early.any():
            raise PrepareError(where, found=f"{int(early.sum()):,} rows of which the states know the outcome already",
                               expected="rows from " + ", ".join(f"{at} {until}" for at, until in sorted(begins))
                               + " on, where the states stand", do="leave the earlier ones out: the preparation that "
                               "fitted the encoding has them as its training rows")
