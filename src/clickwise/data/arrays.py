"""What a column is in memory: an array, or lists of different lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clickwise.errors import DataError
from clickwise.feature_spec import Chunk, Feature, FeatureSpec
from clickwise.given_files import no_file

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class RaggedArray:
    """Lists of different lengths: row i is `values[offsets[i]:offsets[i + 1]]`; offsets are int64, [rows + 1]."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: int | slice) -> np.ndarray | RaggedArray:
        """The list of one row, or the lists of several."""
        if not isinstance(rows, slice):
            return self.values[self.offsets[rows] : self.offsets[rows + 1]]
        start, stop, _ = rows.indices(len(self))
        offsets = self.offsets[start : stop + 1]
        return RaggedArray(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])


class SomeColumns:
    """Some columns of an array [rows, N], copied for those rows only that are read."""

    def __init__(self, array: np.ndarray, columns: list[int]) -> None:
        self.array, self.columns, self.dtype = array, columns, array.dtype
        self.shape = (len(array), len(columns))

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.array[rows][:, self.columns]


Array = np.ndarray | RaggedArray


@dataclass(frozen=True)
class Block:
    """Rows of one file of a chunk, from its row `first` on: features by name, and columns `carried` as they stand in
    the file, arrow arrays."""

    path: Path
    first: int
    arrays: dict[str, Array]
    carried: dict[str, pa.Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter((self.arrays or self.carried).values())))


def column_file(spec: FeatureSpec, name: str) -> Path:
    """The path of a chunk's file; raises DataError where it is not a file."""
    path = spec.folder / name
    found = no_file(path)
    if found not in ("", "no such file"):
        raise DataError(path, found=found, expected=f"a file, as {spec.name} says")
    if found:
        raise DataError(path, found="no such file", expected=f"a column file that {spec.path} names",
                        do="prepare the dataset again, or correct files in source_spec")
    return path


def chunk_files(spec: FeatureSpec, chunk: Chunk) -> list[Path]:
    """The paths of the files of a csv or parquet chunk; raises DataError where one is no file, or of another type."""
    paths = [column_file(spec, name) for name in chunk.files]
    starts = [_first_bytes(path) for path in paths]
    are_parquet = [start == b"PAR1" for start in starts]
    for path, start, is_parquet in zip(paths, starts, are_parquet, strict=True):
        if is_parquet == (chunk.type == "parquet"):
            continue
        found = f"a file that starts with {start!r}" + (", a Parquet file" if is_parquet else ", no Parquet file")
        do = "write or copy the file again"
        if len(set(are_parquet)) > 1:
            do = f"all files of a chunk are of one type: write them as {chunk.type}"
        elif is_parquet or start.decode(errors="replace").replace("\n", " ").isprintable():
            do = f"set type: {'parquet' if is_parquet else 'csv'} for this chunk"
        raise DataError(path, found=found if start else "an empty file", do=do if start else "",
                        expected=f"{chunk.type}, the type of its chunk in {spec.name}")
    return paths


def _first_bytes(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(4)


def join(parts: list[Array]) -> Array:
    """One array of the rows of all parts."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], RaggedArray):
        starts = np.cumsum([0] + [len(part.values) for part in parts])
        offsets = [part.offsets[1:] + start for part, start in zip(parts, starts[:-1], strict=True)]
        return RaggedArray(np.concatenate([part.values for part in parts]),
                           np.concatenate([np.zeros(1, np.int64), *offsets]))
    return np.concatenate(parts)


def take_segments(array: Array, segments: list[tuple[int, int]]) -> Array:
    """The rows of `segments` end to end."""
    return join([array[first:end] for first, end in segments])


def gather(source: Array, order: np.ndarray, out: Array) -> None:
    """Writes the rows `order` of `source` to `out`."""
    if not isinstance(source, RaggedArray):
        np.take(source, order, axis=0, out=out, mode="clip")  # mode="raise" would copy through a temporary
        return
    starts = source.offsets[order]
    lengths = source.offsets[order + 1] - starts
    out.offsets[0] = 0
    np.cumsum(lengths, out=out.offsets[1:])
    positions = np.repeat(starts - out.offsets[:-1], lengths)
    positions += np.arange(len(positions))
    np.take(source.values, positions, out=out.values, mode="clip")


def keep_known(ids: np.ndarray, feature: Feature) -> np.ndarray:
    """Integers of any type as `feature.unknown_ids` says: the same where that is error, else all within
    0 … cardinality−1 in a type that holds them. Integer division rounds down: −1 modulo 10 is 9."""
    if feature.unknown_ids in (None, "error") or ids.dtype.kind not in "iu":
        return ids
    wide = ids.astype(np.uint64 if ids.dtype.kind == "u" else np.int64)
    if feature.unknown_ids == "modulo":
        return wide % wide.dtype.type(feature.cardinality)
    return np.where((wide >= 0) & (wide < feature.cardinality), wide, 0)


def cast_exact(source: np.ndarray, dtype: np.dtype, where: str, row_of: Callable[[int], int]) -> np.ndarray:
    """A copy of `source` in `dtype`; a value that `dtype` cannot hold raises DataError, it is never wrapped or cut.

    `row_of(index)` is the row in the file, for the message, of an index into the flat `source`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        array = source.astype(dtype)
        wrong = array != source if dtype.kind != "f" else np.isinf(array) & np.isfinite(source)
    if wrong.any():
        index = int(np.flatnonzero(wrong)[0])
        expected = "0 or 1" if dtype.kind == "b" else f"a value that fits {dtype.name}"
        raise DataError(f"{where}, row {row_of(index)}", found=str(source.reshape(-1)[index]), expected=expected)
    return array
