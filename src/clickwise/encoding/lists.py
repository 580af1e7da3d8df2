"""Lists of many rows: their values end to end, and where each row's begin and end."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickwise.arrow_arrays import EMPTY, filled, to_numpy
from clickwise.arrow_files import is_list

Lists = tuple[np.ndarray, np.ndarray]  # values, and offsets int64 [rows + 1]


def parts(column: pa.Array, delimiter: str) -> tuple[pa.Array, np.ndarray]:
    """The values of lists, or of texts with a delimiter between them, end to end, and where each row's begin and end:
    offsets, int64 [rows + 1]."""
    if not is_list(column.type):
        if not pa.types.is_string(column.type):
            column = column.cast(pa.string())
        column = pc.split_pattern(pc.coalesce(column, EMPTY), delimiter)
    lengths = filled(pc.list_value_length(column), 0)
    return column.flatten(), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def known_parts(values: pa.Array, offsets: np.ndarray) -> tuple[pa.Array, np.ndarray]:
    """The same lists without the values that are missing."""
    if values.null_count:
        kept = to_numpy(values.is_valid())
        offsets, values = np.concatenate([[0], np.cumsum(kept)])[offsets], values.drop_null()
    return values, offsets


def rows_of_lists(values: np.ndarray, offsets: np.ndarray, row_B: np.ndarray) -> Lists:
    """The lists of these rows, one after the other."""
    lengths = np.diff(offsets)[row_B]
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    positions = np.repeat(offsets[:-1][row_B] - ends[:-1], lengths) + np.arange(ends[-1])
    return values[positions], ends


def rows_of_array(array: np.ndarray | Lists, row_B: np.ndarray) -> np.ndarray | Lists:
    """These rows of a column, of lists or of one value each."""
    return array[row_B] if isinstance(array, np.ndarray) else rows_of_lists(*array, row_B)


def lists_between(lists: Lists, first: int, end: int) -> Lists:
    """Those of the rows first … end − 1."""
    values, offsets = lists
    return values[offsets[first]:offsets[end]], offsets[first:end + 1] - offsets[first]
