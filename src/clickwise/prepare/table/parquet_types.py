"""The types of Parquet files that hold the rows of one table: the one that holds the values of all files."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa

from clickwise.errors import PrepareError
from clickwise.prepare.named_columns import parquet_schema

NUMBER = "number"  # int64 where all values of a column are whole numbers, else float64
_NUMBERS = {"boolean", "int64", "uint64", "decimal", "float64"}
_KINDS = {"null": pa.types.is_null, "boolean": pa.types.is_boolean, "uint64": pa.types.is_uint64,
          "int64": pa.types.is_integer, "float64": pa.types.is_floating, "decimal": pa.types.is_decimal,
          "timestamp": lambda type_: pa.types.is_timestamp(type_) or pa.types.is_date(type_), "time": pa.types.is_time,
          "string": lambda type_: pa.types.is_string(type_) or pa.types.is_large_string(type_)
          or pa.types.is_string_view(type_) or pa.types.is_binary(type_) or pa.types.is_large_binary(type_)
          or pa.types.is_binary_view(type_)}


def parquet_types(file: Path, columns: Collection[str]) -> dict[str, pa.DataType]:
    """The types of these columns of a file."""
    schema = parquet_schema(file, expected="a Parquet file, the type of its chunk")
    return {name: schema.field(name).type for name in columns}


def kind_of(type_: pa.DataType) -> str:
    """A key of `_KINDS`, or array<…> of one; the name of any other type, whose values cannot be read."""
    if pa.types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return f"array<{kind_of(type_.value_type)}>"
    return next((kind for kind, holds in _KINDS.items() if holds(type_)), str(type_))


def widest_types(files: Sequence[Path], columns: Collection[str], numbers: Collection[str]) -> dict[str, str]:
    """Column → the type to read it as, for those whose files differ. Raises PrepareError where no type holds all.

    Numbers of several types are float64 where they are `numbers`, and else `NUMBER`, perhaps in an array: no id is
    rounded, and the values tell what they are.
    """
    types = {file: parquet_types(file, columns) for file in files}
    widest = {}
    for name in columns:
        kinds: dict[str, Path] = {}
        for file in files:
            kinds.setdefault(kind_of(types[file][name]), file)
        if len(kinds) > 1:
            kinds.pop("null", None)  # a file without any value
        widest[name] = widest_kind(set(kinds), name in numbers)
        if widest[name] is None and len(kinds) == 1:
            ((_, file),) = kinds.items()
            raise PrepareError(f"{file}, column {name!r}", found=f"values of the type {types[file][name]}",
                               expected="true and false, numbers, times, texts, or lists of these",
                               do="write them as texts")
        if widest[name] is None:
            one, other = next(pair for pair in itertools.combinations(kinds, 2) if widest_kind(set(pair)) is None)
            raise PrepareError(f"{kinds[one]} and {kinds[other]}",
                               found=f"{name!r} as {types[kinds[one]][name]} and as {types[kinds[other]][name]}",
                               expected="types of which one holds the values of both",
                               do="write the files again with one type for that column")
    return {name: type_ for name, type_ in widest.items() if len({types[file][name] for file in files}) > 1}


def widest_kind(kinds: Collection[str], is_number: bool = False) -> str | None:
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
