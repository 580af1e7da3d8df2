"""Arrow arrays of numpy's and of Python's values and back, without pandas. `pyarrow.array` imports it, where it is
installed, to see whether it was handed some of its objects; so do `pyarrow.scalar` and `to_numpy`. That takes 0.4 s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa


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
    dtype = np.int8 if pa.types.is_boolean(type_) else type_.to_pandas_dtype()
    return of_numbers(np.array([0 if value is None else value for value in values], dtype), missing).cast(type_)


def to_numpy(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """As `to_numpy(zero_copy_only=False)` of an array: numbers that are null are NaN, whole ones float64 then."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    is_truth = pa.types.is_boolean(column.type)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or
            is_truth and not column.null_count):
        return column.to_numpy(zero_copy_only=False)
    first, end = column.offset, column.offset + len(column)
    validity, content = column.buffers()
    if content is None:
        return np.empty(0, column.type.to_pandas_dtype())
    if is_truth:
        return _bits(content, first, end)
    values = np.frombuffer(content, column.type.to_pandas_dtype())[first:end]
    if column.null_count:
        values = values.astype(values.dtype if values.dtype.kind == "f" else np.float64)
        values[~_bits(validity, first, end)] = np.nan
    return values


def filled(column: pa.Array | pa.ChunkedArray, value: int) -> np.ndarray:
    """The numbers or truth values of a column, `value` where one is null."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    first, end = column.offset, column.offset + len(column)
    validity, content = column.buffers()
    values = _bits(content or b"", first, end) if pa.types.is_boolean(column.type) else \
        np.frombuffer(content or b"", column.type.to_pandas_dtype())[first:end]
    return np.where(_bits(validity, first, end), values, values.dtype.type(value)) if column.null_count else values


def _bits(buffer: pa.Buffer, first: int, end: int) -> np.ndarray:
    packed = np.frombuffer(buffer, np.uint8)[first // 8:-(-end // 8)]
    return np.unpackbits(packed, bitorder="little")[first % 8:first % 8 + end - first].view(bool)
