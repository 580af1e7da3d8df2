"""What is reported of the rows that were read: how many each file has, and the moments that they are of."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import ibis.expr.types as ir

from clickwise.encoding.raw_types import Float, Text, Time
from clickwise.prepare.engine import Engine
from clickwise.prepare.infer import UNIX
from clickwise.prepare.table.rows import FILE


def spans_of(engine: Engine, labelled: ir.Table, by: ir.IntegerValue, names: Sequence[str], order_by: str,
             time: Time) -> dict[str, tuple[str, str]]:
    """Name → the first and the last moment of the rows with a label whose `by` is its index in `names`, by the
    column `order_by`, read as `time`; where it holds neither times nor numbers, none."""
    written = Text().bulk(labelled[order_by])
    labelled = labelled.select("__label", by=by, time=time.bulk(written), number=Float().bulk(written))
    labelled = labelled.filter(labelled["__label"].notnull())
    found = engine.rows(labelled.group_by("by").aggregate(
        first_time=labelled.time.min(), last_time=labelled.time.max(), first_number=labelled.number.min(),
        last_number=labelled.number.max()))
    kind = "time" if any(row["first_time"] for row in found) else "number"
    return {names[row["by"]]: (_moment(row[f"first_{kind}"]), _moment(row[f"last_{kind}"]))
            for row in found if row[f"first_{kind}"] is not None}


def _moment(value: str | float) -> str:
    """A time or a number as text; Unix seconds also as the time they are."""
    if isinstance(value, str):
        return value
    text = f"{value:.0f}" if value.is_integer() else f"{value:g}"
    for factor in (1, 10**3, 10**6):
        if UNIX[0] * factor <= value < UNIX[1] * factor:
            return f"{text} ({datetime.datetime.fromtimestamp(value // factor, datetime.UTC):%Y-%m-%d %H:%M:%S})"
    return text


def files_of(engine: Engine, labelled: ir.Table, names: Sequence[str], order_by: str | None,
             time: Time) -> dict[str, dict[str, Any]]:
    """File → its `rows`, how many of them are `without_label`, and its `time` as in `spans_of`, where there is one."""
    counts = {row[FILE]: row for row in engine.rows(labelled.group_by(FILE).aggregate(
        rows=labelled.count(), without_label=labelled.count(where=labelled["__label"].isnull())))}
    spans = spans_of(engine, labelled, labelled[FILE], names, order_by, time) if order_by else {}
    return {name: {**{key: counts[index][key] if index in counts else 0 for key in ("rows", "without_label")},
                   **({"time": spans[name]} if name in spans else {})} for index, name in enumerate(names)}


def shown(files: dict[str, dict[str, Any]], most: int) -> str:
    """`clicks.csv 1,200 (2024-01-01 … 2024-01-07), more.csv 0`"""
    texts = [f"{name.rpartition('/')[2]} {counts['rows']:,}"
             + (f" ({' … '.join(counts['time'])})" if "time" in counts else "") for name, counts in files.items()]
    return ", ".join(texts[:most]) + (f", and {len(texts) - most} more (summary.json)" if len(texts) > most else "")
