"""Kinds of types of Parquet columns, and the one that holds the values of several."""

from __future__ import annotations

from collections.abc import Set

import pyarrow as pa

from clickwise.arrow_files import is_list, is_text

NUMBER = "number"  # int64 where all values of a column are whole numbers, else float64
_NUMBERS = {"boolean", "int64", "uint64", "decimal", "float64"}
_KINDS = {"null": pa.types.is_null, "boolean": pa.types.is_boolean, "uint64": pa.types.is_uint64,
          "int64": pa.types.is_integer, "float64": pa.types.is_floating, "decimal": pa.types.is_decimal,
          "timestamp": lambda type_: pa.types.is_timestamp(type_) or pa.types.is_date(type_), "time": pa.types.is_time,
          "string": is_text}


def kind_of(type_: pa.DataType) -> str:
    """A key of `_KINDS`, or array<…> of one; the name of any other type, whose values cannot be read."""
    if pa.types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if is_list(type_):
        return f"array<{kind_of(type_.value_type)}>"
    return next((kind for kind, holds in _KINDS.items() if holds(type_)), str(type_))


def widest_kind(kinds: Set[str], is_number: bool = False) -> str | None:
    """The type that holds the values of all kinds; None where none does."""
    lists = {kind[6:-1] for kind in kinds if kind.startswith("array<")}
    if lists:
        inner = widest_kind(lists - {"null"} or {"string"}, is_number)
        return f"array<{inner}>" if inner and all(kind.startswith("array<") for kind in kinds) else None
    if not kinds <= _KINDS.keys():
        return None
    if len(kinds) == 1 and kinds != {"decimal"}:
        return next(iter(kinds))
    if kinds <= {"boolean", "int64"}:
        return "int64"
    if kinds <= _NUMBERS:
        return "float64" if is_number else NUMBER
    return "string"
