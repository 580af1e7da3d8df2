"""Arrow arrays of numpy's and of Python's values and back, without pandas. `pyarrow.array` imports it, where it is
installed, to see whether it was handed some of its objects; so do `pyarrow.scalar` and `to_numpy`. That takes 0.4 s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa


def dtype_of(type_: pa.DataType) -> np.dtype:
    """numpy's type of a number or a truth value. `to_pandas_dtype` of pyarrow 18 asks for pandas."""
    if pa.types.is_boolean(type_):
        return np.dtype(bool)
    kind = "f" if pa.types.is_floating(type_) else "u" if pa.types.is_unsigned_integer(type_) else "i"
    return np.dtype(f"{kind}{type_.bit_width // 8}")


def of_numbers(values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    """The numbers or truth values, null where they are `missing` (bool)."""
    content = np.packbits(values, bitorder="little") if values.dtype == bool else np.ascontiguousarray(values)
    buffers = [None, pa.py_buffer(content)]
    if missing is not None and missing.any():
        buffers[0] = pa.py_buffer(np.packbits(~missing, bitorder="little"))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)


def of_texts(values: Sequence[str | None]) -> pa.StringArray:
    """The texts, null where one is None."""
    texts = [b"" if value is None else value.encode() for value in values]
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    missing = np.array([value is None for value in values], bool)
    validity = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
    large = pa.Array.from_buffers(pa.large_string(), len(texts), [
        validity, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))])
    return large.cast(pa.string())


EMPTY, NO_TEXT = of_texts(["", None])  # scalars


def of_values(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    """Python's values, None for null, of the type string, bool, int64 or float64."""
    if pa.types.is_string(type_):
        return of_texts(values)
    missing = np.array([value is None for value in values], bool)
    dtype = np.int8 if pa.types.is_boolean(type_) else dtype_of(type_)
    return of_numbers(np.array([0 if value is None else value for value in values], dtype), missing).cast(type_)


def to_numpy(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """As `to_numpy(zero_copy_only=False)` of an array: numbers that are null are NaN, whole ones float64 then."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or
            pa.types.is_boolean(column.type) and not column.null_count):
        return column.to_numpy(zero_copy_only=False)
    values = _values(column)
    if column.null_count:
        values = values.astype(values.dtype if values.dtype.kind == "f" else np.float64)
        values[~_are_valid(column)] = np.nan
    return values


def filled(column: pa.Array | pa.ChunkedArray, value: int) -> np.ndarray:
    """The numbers or truth values of a column, `value` where one is null."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    values = _values(column)
    return np.where(_are_valid(column), values, values.dtype.type(value)) if column.null_count else values


def _values(column: pa.Array) -> np.ndarray:
    """What the array holds, with anything at all where it is null."""
    content = column.buffers()[1] or b""
    if pa.types.is_boolean(column.type):
        return _bits(content, column)
    return np.frombuffer(content, dtype_of(column.type))[column.offset:column.offset + len(column)]


def _are_valid(column: pa.Array) -> np.ndarray:
    """Where an array with nulls has none, bool."""
    return _bits(column.buffers()[0], column)


def _bits(buffer: pa.Buffer | bytes, column: pa.Array) -> np.ndarray:
    """The bits of a buffer of the array that stand for its values, bool."""
    first, end = column.offset, column.offset + len(column)
    packed = np.frombuffer(buffer, np.uint8)[first // 8:-(-end // 8)]
    return np.unpackbits(packed, bitorder="little")[first % 8:first % 8 + end - first].view(bool)
