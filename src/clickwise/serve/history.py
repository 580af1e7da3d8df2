"""A history that a request brings along, in place of what the states hold of the user."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clickwise.encoding import Encoder
from clickwise.encoding.states import EventLog
from clickwise.encoding.states.event_log import OUTCOME, TIME, EventsByKey
from clickwise.encoding.states.state import FIRST, Values, moments
from clickwise.errors import UsageError
from clickwise.serve.served import Served

MOST_EVENTS = 10_000


class GivenHistory:
    """Looked up like an event log: every row has these events, as far as they lie before it."""

    def __init__(self, state: EventLog, columns: Mapping[str, np.ndarray]) -> None:
        self._state = state
        order = np.argsort(columns[TIME], kind="stable")
        offsets = np.array([0, 0, len(order)], np.int64)
        self._log = EventsByKey(offsets, {name: column[order] for name, column in columns.items()})

    def look_up(self, values: Values) -> dict[str, Any]:
        rows = np.ones(len(values[self._state.at]), np.int64)
        return self._log.before(self._state, rows, values)


def logs_of(served: Served) -> dict[str, EventLog]:
    """The event logs that the model reads, by name, as far as it reads them."""
    encoding = served.encoder.encoding
    read = {of for name in served.encoder.names for of in encoding.columns[name].sources}
    found = {}
    for name, state in encoding.tables.items():
        if isinstance(state, EventLog) and not read.isdisjoint(state.gives):
            features = {of: column for of, column in state.features.items() if of in read}
            found[name] = dataclasses.replace(state, features=features)
    return found


def given_histories(served: Served, events: Sequence[Any]) -> dict[str, GivenHistory]:
    """What `events` are for each event log: objects of raw columns, or values of the one column that an event is told
    by, the latest last. Raises UsageError, DataError."""
    if len(events) > MOST_EVENTS:
        raise UsageError("history", found=f"{len(events):,} events", expected=f"at most {MOST_EVENTS:,}")
    logs = logs_of(served)
    if not logs:
        raise UsageError("history", found="a model that reads no history", expected="none")
    return {name: GivenHistory(state, _columns(served, state, events)) for name, state in logs.items()}


def _columns(served: Served, state: EventLog, events: Sequence[Any]) -> dict[str, np.ndarray]:
    encoding = served.encoder.encoding
    encoder = Encoder(encoding, dict.fromkeys(state.columns))
    rows = _rows(events, list(encoder.needs))
    columns = {name: [row.get(name) for row in rows] for name in {name: None for row in rows for name in row}
               if name in encoding.raw}
    raw = {name: served.array(name, values) for name, values in columns.items()}
    if rows:
        encoded = encoder.columns(raw, "history").arrays
    else:
        encoded = {name: np.zeros(0, np.int64) for name in encoder.names}
    found = {name: np.asarray(encoded[column], np.int64) for name, column in state.features.items()
             if column not in (TIME, OUTCOME)}
    found[TIME] = _times(encoder, state, raw, len(rows))
    label = _labels(encoding, raw, len(rows))
    found |= {name: label + 1 for name, column in state.features.items() if column == OUTCOME}
    if state.clicks_only:
        found = {name: column[label == 1] for name, column in found.items()}
    return found


def _rows(events: Sequence[Any], needs: list[str]) -> Sequence[Mapping[str, Any]]:
    kinds = set(map(type, events))
    if kinds <= {dict}:
        return events
    if dict in kinds or list in kinds:
        raise UsageError("history", found="events of several kinds", expected="all objects, or all keys")
    if len(needs) != 1:
        raise UsageError("history", found="bare keys", expected=f"objects with {', '.join(needs)}")
    return [{needs[0]: key} for key in events]


def _times(encoder: Encoder, state: EventLog, raw: Mapping[str, Any], rows: int) -> np.ndarray:
    """When each event was; before all rows, in their order, where none says."""
    if state.at in raw:
        return moments(encoder.read(raw, [state.at], "history")[state.at])
    if TIME in state.features.values() and rows:
        raise UsageError("history", found=f"events without {state.at}",
                         expected=f"{state.at} in every event: the model reads how long ago they were")
    return np.arange(rows, dtype=np.int64) + FIRST + 1


def _labels(encoding: Any, raw: Mapping[str, Any], rows: int) -> np.ndarray:
    """1 for a click; all are clicks where none says."""
    if encoding.events is None:
        return np.ones(rows, np.int64)
    label = Encoder(encoding, [encoding.events.label])
    if not rows or not set(label.needs) <= set(raw):
        return np.ones(rows, np.int64)
    return label.columns(raw, "history").arrays[encoding.events.label].astype(np.int64)
