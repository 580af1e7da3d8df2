"""Raw rows as a request of the Open Inference Protocol: a tensor for each raw column."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Mapping, Sequence
from typing import Any

from clickwise.serve.signature import RawInput
from clickwise.serve.tensors import TEXT

DATATYPES = {"integer": "INT64", "float": "FP64", "boolean": "BOOL"}  # of raw types; all others are texts


def request_of(rows: Sequence[Mapping[str, Any]], raw: Mapping[str, RawInput]) -> dict[str, Any]:
    """The body of `infer` for these rows, in JSON's own values; null for what is missing."""
    return {"inputs": [{"name": name, "datatype": datatype(column), "shape": [len(rows)],
                        "data": [_plain(row[name], column) for row in rows]} for name, column in raw.items()]}


def datatype(column: RawInput) -> str:
    """The protocol's type of a raw column."""
    return TEXT if column.list is not None else DATATYPES.get(column.type, TEXT)


def _plain(value: Any, column: RawInput) -> Any:
    if column.list is not None and isinstance(value, (list, tuple)):
        return column.list.join(str(_plain(part, RawInput(column.type))) for part in value if part is not None)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (datetime.datetime, datetime.date)):
        return str(value)
    if isinstance(value, decimal.Decimal):
        return str(value) if column.type not in DATATYPES else float(value)
    return None if value is None or value != value else value
