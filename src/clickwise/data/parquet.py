"""Parquet chunks: columns by name, list columns as multi-hot; a block of rows at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickwise.arrow_files import open_parquet
from clickwise.data.arrays import Array, Block, RaggedArray, cast_exact, chunk_files, keep_known
from clickwise.errors import DataError, SpecError, nearest_column
from clickwise.feature_spec import ID_CHANNELS, Chunk, Feature, FeatureSpec


def stream_parquet(spec: FeatureSpec, chunk: Chunk, names: list[str], rows: int = 1 << 20,
                   wide_ids: bool = False, carry: tuple[str, ...] = ()) -> Iterator[Block]:
    """Blocks of at most `rows` rows of the features `names`, one row group in memory at a time; the columns `carry`
    travel along.

    Raises DataError for a file that is no parquet, misses a column or holds values of another type.
    """
    wanted = list(dict.fromkeys([*names, *carry]))
    for path in chunk_files(spec, chunk):
        with open_parquet(path) as file:
            columns = file.schema_arrow.names
            for feature in names:
                count = columns.count(feature)
                if count != 1:
                    raise DataError(path, found=f"{count} times the column {feature!r}" if count else
                                    f"no column {feature!r}", expected="one column for every feature",
                                    do="" if count else nearest_column(feature, columns))
            first = 0
            for batch in file.iter_batches(batch_size=rows, columns=wanted, use_threads=False):
                arrays = {feature: to_array(spec, feature, batch.column(feature), path, first, wide_ids)
                          for feature in names}
                yield Block(path, first, arrays, {name: batch.column(name) for name in carry})
                first += len(batch)
        if first == 0:
            raise SpecError(path, found="no rows", expected="at least one row")


def to_array(spec: FeatureSpec, name: str, column: pa.Array, path: Path, first: int, wide_ids: bool = False) -> Array:
    """The arrow `column` as the feature declares it; `first` is its first row's number, for messages."""
    feature = spec.features[name]
    is_id = any(name in spec.channels.get(channel, ()) for channel in ID_CHANNELS)
    dtype = np.dtype("int64") if is_id and wide_ids else np.dtype(feature.dtype)
    where = f"{path}, column {name!r}"
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    of_integers = dtype.kind in "iu" and name not in spec.channels.get("label", ())
    if not is_list and not pa.types.is_fixed_size_list(column.type):
        array = _numbers(column, feature, dtype, of_integers, where, lambda index: first + index)
        if feature.is_multi_hot:
            return RaggedArray(array, np.arange(len(array) + 1))
        return array.reshape(-1, *feature.dimensions) if feature.dimensions == (1,) else array
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    values = _numbers(column.flatten(), feature, dtype, of_integers, where,
                      lambda index: first + int(np.searchsorted(offsets, index, side="right")) - 1)
    if feature.is_multi_hot:
        return RaggedArray(values, offsets)
    shape = feature.dimensions or ()
    wrong = np.flatnonzero(lengths != math.prod(shape))
    if len(wrong):
        raise DataError(f"{where}, row {first + wrong[0]}", found=f"a list of {lengths[wrong[0]]}",
                        expected=_expected_list(feature), do="a list of any length needs max_hotness in feature_spec")
    return values.reshape(-1, *shape)


def _expected_list(feature: Feature) -> str:
    return f"a list of {math.prod(feature.dimensions)} (dimensions)" if feature.dimensions else "one value"


def _numbers(column: pa.Array, feature: Feature, dtype: np.dtype, of_integers: bool, where: str,
             row_of: Callable[[int], int]) -> np.ndarray:
    """A writable numpy array of `dtype`, unknown ids as the feature says; a value that `dtype` cannot hold is an
    error, never wrapped or cut."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(where, found=f"values of the type {kind}", expected=f"numbers ({dtype.name})",
                        do="encode texts to ids first: clickwise prepare")
    if column.null_count:
        index = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(f"{where}, row {row_of(index)}", found="a missing value", expected=f"a number ({dtype.name})",
                        do="fill it (an id with 0, which means missing)")
    values = column.to_numpy(zero_copy_only=False)
    if of_integers:
        _check_integers(values, feature, where, row_of)
    return cast_exact(keep_known(values, feature), dtype, where, row_of)


def _check_integers(values: np.ndarray, feature: Feature, where: str, row_of: Callable[[int], int]) -> None:
    """Raises DataError for floats, where integers belong: 3.0 is refused as 1.5 is."""
    if values.dtype.kind == "f" and len(values):
        index = int((values != np.floor(values)).argmax())  # the first that is not whole, else the first
        ids = f", ids 0 … {feature.cardinality - 1}" if isinstance(feature.cardinality, int) else ""
        raise DataError(f"{where}, row {row_of(index)}", found=f"{values[index]}, in a column of {values.dtype.name}",
                        expected=f"a column of integers{ids}", do="store it as integers, 0 for what is missing")
