"""Events that a server receives, and users that it forgets: for every model whose states go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from clickwise.errors import UsageError
from clickwise.serve.models import Models
from clickwise.serve.served import Served

MOST_EVENTS = 10_000


def models_of(models: Models, name: Any = None) -> list[Served]:
    """The models that take events, one of each encoding: those of one encoding share their states. Raises
    UsageError where there is none, LookupError for a name that is not served."""
    if name is not None:
        models.one(name, None)
    found = {}
    for of, versions in models.now.items():
        for served in versions.values():
            if served.states is not None and name in (None, of):
                found[served.states.identity] = served
    if not found:
        raise UsageError("events", found="no model whose states go on with events",
                         expected="an export of such a run, and --states memory, sqlite:PATH or redis://…")
    return list(found.values())


def read_events(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The events of a request. Raises UsageError."""
    events = content.get("events")
    for key in content:
        if key not in ("events", "model"):
            raise UsageError("the body", found=f"the key {key[:40]!r}", expected="events, model")
    if type(events) is not list or not 1 <= len(events) <= MOST_EVENTS:
        raise UsageError("events", found="no list" if type(events) is not list else f"{len(events):,}",
                         expected=f"a list of 1 … {MOST_EVENTS:,} objects")
    if not all(type(event) is dict for event in events):
        raise UsageError("events", found="something else", expected="objects of raw columns, with the label")
    return events


def take_events(served: Iterable[Served], events: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """By model what became of the events. Raises DataError for one that cannot be read, StoreError."""
    return {each.name: dataclasses.asdict(each.states.events(table_of(each, events))) for each in served}


def table_of(served: Served, events: list[dict[str, Any]]) -> pa.Table:
    """The raw columns that events bring along; missing in those that do not."""
    known = served.states.needs
    names = dict.fromkeys(name for event in events for name in event if name in known)
    return pa.table({name: served.array(name, [event.get(name) for event in events]) for name in names})


def forget(served: Iterable[Served], user: str) -> None:
    """Forgets a user in all states. Raises DataError, StoreError."""
    for each in served:
        each.states.forget(user)
