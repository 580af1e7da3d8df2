"""Columns whose values belong to a key of a row, as those of an ad belong to every row that shows it.

They are written once per key, and a row carries the number of its key: the values are handed out to the rows when the
columns of a mapping are written. A join in the engine would carry every value of every row through memory instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ibis.expr.types as ir
import numpy as np

from clickwise.feature_spec import Feature
from clickwise.files import write_array
from clickwise.prepare import write
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.scatter import block

_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Column:
    """A column in a raw file, one value per key; of a multi-hot one `offsets` says where the values of a key begin."""

    values: np.ndarray
    offsets: np.ndarray | None = None


def store_columns(folder: PreparationFolder, name: str, columns: Callable[[tuple[str, ...]], ir.Table], *,
                  features: Mapping[str, Feature], rows: int, shuffle_seed: int | None = None) -> dict[str, Column]:
    """The columns `features`, now in raw files that last as long as the preparation.

    `columns(names)` gives the table with `row` (0 … rows−1) and those columns, which cost little; with `shuffle_seed`
    the rows are permuted, both as `write.write_mapping` has it.
    """
    columns_folder = folder.work / "columns"
    chunks = write.write_mapping(folder.engine, columns_folder, name, columns, features=features,
                                 channels={"own": tuple(features)}, rows=rows, shuffle_seed=shuffle_seed,
                                 buffer_bytes=folder.buffer_bytes, spill_folder=folder.work / "spill", one_pass=True)
    return {chunk.features[0]: _opened([columns_folder / file for file in chunk.files], features[chunk.features[0]])
            for chunk in chunks}


def _opened(paths: Sequence[Path], feature: Feature) -> Column:
    dtypes = (np.dtype(feature.dtype), np.dtype(np.int64))
    arrays = [np.asarray(np.memmap(path, dtype, "r")) if path.stat().st_size else np.empty(0, dtype)
              for path, dtype in zip(paths, dtypes, strict=False)]
    return Column(*arrays)


@dataclass(frozen=True)
class BroadcastByKey:
    """The columns of a chunk: values[key[row]] of each, values[row] where its key is None."""

    columns: Sequence[Column]
    keys: Sequence[np.ndarray | None]

    def write(self, paths: Sequence[Path], features: Sequence[Feature], rows: int,
              report: Callable[[int, str], None]) -> None:
        with open(paths[0], "wb") as values:
            if features[0].is_multi_hot:
                with open(paths[1], "wb") as offsets:
                    self._write_lists(values, offsets, rows, report)
                return
            for first in range(0, rows, _ROWS_AT_ONCE):
                taken = [_taken(column.values, key, first, min(first + _ROWS_AT_ONCE, rows))
                         for column, key in zip(self.columns, self.keys, strict=True)]
                write_array(values, block(taken, taken[0].dtype))
                report(len(taken[0]), paths[0].name)

    def _write_lists(self, values, offsets, rows: int, report: Callable[[int, str], None]) -> None:
        (column,), (key,) = self.columns, self.keys
        end_of_last = 0
        write_array(offsets, np.zeros(1, np.int64))
        for first in range(0, rows, _ROWS_AT_ONCE):
            end = min(first + _ROWS_AT_ONCE, rows)
            starts = _taken(column.offsets[:-1], key, first, end)
            counts = _taken(column.offsets[1:], key, first, end) - starts
            ends = np.cumsum(counts)
            positions = np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1])
            write_array(values, column.values[positions])
            write_array(offsets, end_of_last + ends)
            end_of_last += int(ends[-1])
            report(end - first, Path(values.name).name)


def _taken(values: np.ndarray, key: np.ndarray | None, first: int, end: int) -> np.ndarray:
    return values[first:end] if key is None else values.take(key[first:end])
