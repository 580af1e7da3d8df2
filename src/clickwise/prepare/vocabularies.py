"""Vocabularies of the training rows, beside the output and, where there is an engine, in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from clickwise.arrow_arrays import of_numbers
from clickwise.files import file_stem
from clickwise.prepare.folder import PreparationFolder
from clickwise.progress import Progress

if TYPE_CHECKING:
    import ibis.expr.types as ir


def store_vocabularies(folder: PreparationFolder, tables: Mapping[str, ir.Table],
                       limit: Callable[[str], int]) -> dict[str, int]:
    """Fits a vocabulary for every feature, of the column of its name in its table; feature -> cardinality.

    `limit(feature)` is its frequency limit.
    """
    sizes = {}
    with Progress("counting values", total=len(tables), unit="features") as bar:
        for name, table in tables.items():
            sizes[name] = store_vocabulary(folder, name, table, limit(name))
            bar.advance(1, name)
    return sizes


def store_vocabulary(folder: PreparationFolder, name: str, table: ir.Table, limit: int = 0, *,
                     weight: str | None = None, prefix: str = "vocabulary_") -> int:
    """Stores the vocabulary (`steps.vocabulary`) of the column `name` of `table` as `<prefix><name>`, and writes it to
    preparation/vocabularies/<name>.parquet; the cardinality."""
    from clickwise.prepare import steps  # with Ibis

    vocabulary = folder.engine.materialise(steps.vocabulary(table, name, limit, weight=weight), prefix + name)
    return write_vocabulary(folder, name, vocabulary) + 1


def write_vocabulary(folder: PreparationFolder, name: str, vocabulary: ir.Table) -> int:
    """Writes it; how many values it has."""
    path = _path(folder, name)
    folder.engine.write_parquet(vocabulary.order_by("id"), path)
    return parquet.read_metadata(path).num_rows


def write_vocabulary_of(folder: PreparationFolder, name: str, values: pa.Array, limit: int) -> int:
    """Writes the vocabulary of values in memory, as `store_vocabulary` does of a table; the cardinality."""
    counts = values.drop_null().value_counts()
    found = pa.table({"value": counts.field(0), "count": counts.field(1)})
    found = found.filter(pc.greater_equal(found["count"], of_numbers(np.array([limit]))[0]))
    found = found.sort_by([("count", "descending"), ("value", "ascending")])
    return write_counted(folder, name, found["value"], found["count"]) + 1


def write_counted(folder: PreparationFolder, name: str, value: pa.Array | np.ndarray,
                  count: pa.Array | np.ndarray) -> int:
    """Writes a vocabulary of values in the order of their ids; how many they are."""
    value, count = (of_numbers(each) if isinstance(each, np.ndarray) else each for each in (value, count))
    ids = of_numbers(np.arange(1, len(value) + 1, dtype=np.int32))
    parquet.write_table(pa.table({"value": value, "id": ids, "count": count}), _path(folder, name))
    return len(value)


def read_vocabulary(folder: PreparationFolder, name: str) -> pa.Array:
    """The values of a vocabulary that was written, in the order of their ids."""
    with parquet.ParquetFile(_path(folder, name)) as file:  # `read_table` imports pandas, where it is installed
        return file.read(columns=["value"])["value"].combine_chunks()


def _path(folder: PreparationFolder, name: str) -> Path:
    path = folder.preparation / "vocabularies" / f"{file_stem(name)}.parquet"
    path.parent.mkdir(exist_ok=True)
    return path
