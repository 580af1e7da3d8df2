"""The types of Parquet files that hold the rows of one table: the one that holds the values of all files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa

from clickwise.errors import PrepareError
from clickwise.prepare.named_columns import parquet_schema


def parquet_types(file: Path, columns: Collection[str]) -> dict[str, pa.DataType]:
    """The types of these columns of a file."""
    schema = parquet_schema(file, expected="a Parquet file, the type of its chunk")
    return {name: schema.field(name).type for name in columns}


def _kind(type_: pa.DataType) -> str:
    """null, boolean, int64, decimal, float64, timestamp, string, or an array of one; of any other type its name."""
    if pa.types.is_dictionary(type_):
        return _kind(type_.value_type)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return f"array<{_kind(type_.value_type)}>"
    for kind, holds in (("null", pa.types.is_null), ("boolean", pa.types.is_boolean), ("int64", pa.types.is_integer),
                        ("float64", pa.types.is_floating), ("decimal", pa.types.is_decimal),
                        ("timestamp", lambda t: pa.types.is_timestamp(t) or pa.types.is_date(t)),
                        ("string", lambda t: pa.types.is_string(t) or pa.types.is_large_string(t)
                         or pa.types.is_string_view(t) or pa.types.is_binary(t) or pa.types.is_large_binary(t))):
        if holds(type_):
            return kind
    return str(type_)


def widest_types(files: Sequence[Path], columns: Collection[str], numbers: Collection[str]) -> dict[str, str]:
    """Column → the type to read it as, for those whose files differ. Raises PrepareError where no type holds all.

    Integers beside floats are float64 where they are `numbers`, and texts else: no id is rounded.
    """
    types = {file: parquet_types(file, columns) for file in files}
    widest = {}
    for name in columns:
        if len({types[file][name] for file in files}) == 1:
            continue
        kinds: dict[str, Path] = {}
        for file in files:
            kinds.setdefault(_kind(types[file][name]), file)
        kinds.pop("null", None)  # a file without any value
        widest[name] = _widest(set(kinds), name in numbers)
        if widest[name] is None:
            (one, first), (other, second), *_ = kinds.items()
            raise PrepareError(f"{first} and {second}", found=f"{name!r} as {one} and as {other}",
                               expected="types of which one holds the values of both",
                               do="write the files again with one type for that column")
    return widest


def _widest(kinds: set[str], is_number: bool) -> str | None:
    lists = [kind for kind in kinds if kind.startswith("array<")]
    if lists:
        inner = {kind[6:-1] for kind in lists} - {"null"}
        inner_type = next(iter(inner), "string") if len(inner) < 2 else _widest(inner, is_number)
        return f"array<{inner_type}>" if len(lists) == len(kinds) and inner_type else None
    if len(kinds) == 1 and "decimal" not in kinds:
        return next(iter(kinds))
    if kinds <= {"boolean", "int64"}:
        return "int64"
    if kinds <= {"boolean", "int64", "decimal", "float64"} and is_number:
        return "float64"
    return "string" if kinds <= {"boolean", "int64", "decimal", "float64", "timestamp", "string"} else None
