"""What a column is in memory: an array, or lists of different lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clickwise.errors import DataError
from clickwise.spec import FeatureSpec


@dataclass(frozen=True)
class RaggedArray:
    """Lists of different lengths: row i is `values[offsets[i]:offsets[i + 1]]`; offsets are int64, [rows + 1]."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


Array = np.ndarray | RaggedArray


@dataclass(frozen=True)
class Columns:
    """Rows of a dataset, column by column, in the types they are stored in.

    arrays     feature -> ids [rows], lists of fixed length [rows, L], or RaggedArray (multi-hot); no numericals
    numerical  [rows, N] in the order of the channel, or None
    """

    rows: int
    arrays: dict[str, Array] = field(default_factory=dict)
    numerical: np.ndarray | None = None


def column_file(spec: FeatureSpec, name: str) -> Path:
    """The path of a chunk's file; raises DataError where it is not a file."""
    path = spec.folder / name
    if path.is_dir():
        raise DataError(path, found="a folder", expected=f"a file, as {spec.name} says")
    if not path.exists():
        raise DataError(path, found="no such file", expected=f"a column file that {spec.path} names",
                        do="prepare the dataset again, or correct files in source_spec")
    return path


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


def fit(source: np.ndarray, dtype: np.dtype, where: str, row_of: Callable[[int], int]) -> np.ndarray:
    """A copy of `source` in `dtype`; a value that `dtype` cannot hold raises DataError, it is never wrapped or cut.

    `row_of(place)` is the row in the file, for the message, of a place in the flat `source`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        array = source.astype(dtype)
        wrong = array != source if dtype.kind != "f" else np.isinf(array) & np.isfinite(source)
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        expected = "0 or 1" if dtype.kind == "b" else f"a value that fits {dtype.name}"
        raise DataError(f"{where}, row {row_of(place)}", found=str(source.reshape(-1)[place]), expected=expected)
    return array
