"""The types of Parquet files that hold the rows of one table: the one that holds the values of all files."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa

from clickwise.errors import PrepareError
from clickwise.prepare.named_columns import parquet_schema
from clickwise.prepare.parquet_kinds import kind_of, widest_kind


def parquet_types(file: Path, columns: Collection[str]) -> dict[str, pa.DataType]:
    """The types of these columns of a file."""
    schema = parquet_schema(file, expected="a Parquet file, the type of its chunk")
    return {name: schema.field(name).type for name in columns}


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
