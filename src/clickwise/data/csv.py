"""CSV chunks: with or without a header, multi-hot as delimited text (`3|17|4`); a block of rows at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickwise.arrow_files import text_batches
from clickwise.data.arrays import Block, chunk_files
from clickwise.data.parquet import to_array
from clickwise.errors import DataError, SpecError, nearest
from clickwise.feature_spec import Chunk, Feature, FeatureSpec
from clickwise.text_files import TextLayout, first_row, plain_text


def stream_csv(spec: FeatureSpec, chunk: Chunk, names: list[str], rows: int = 1 << 20,
               wide_ids: bool = False, carry: tuple[str, ...] = ()) -> Iterator[Block]:
    """Blocks of about `rows` rows of the features `names`; the columns are the chunk's features in their order, or
    those that a header names. Options of the chunk: those of a `TextLayout`, and `list_delimiter` (|).
    The columns `carry` travel along, as numbers where they are features of the spec, else as text.

    Raises DataError with the row for a value that is no number, a row of another length, or a wrong delimiter.
    """
    labels = spec.channels.get("label", ())
    list_delimiter = chunk.options.get("list_delimiter", "|")
    for path in chunk_files(spec, chunk):
        columns, layout = _columns(path, chunk)
        types = {name: _arrow_type(spec, spec.features[name]) if name in spec.features else pa.string()
                 for name in (*names, *carry)}
        first = 0
        for batch in _batches(path, layout, columns, types, rows):
            arrays = {}
            for feature in names:
                column, where = batch.column(feature), f"{path}, column {feature!r}"
                if feature in labels:
                    column = _truth(column, where, first)
                elif pa.types.is_string(column.type):
                    own = spec.features[feature].list_delimiter
                    column = _split(column, own or list_delimiter, where, first)
                arrays[feature] = to_array(spec, feature, column, path, first, wide_ids)
            yield Block(path, first, arrays, {name: batch.column(name) for name in carry})
            first += len(batch)
        if first == 0:
            raise SpecError(path, found="no rows", expected="at least one row")


def _batches(path: Path, layout: TextLayout, columns: list[str], types: dict[str, pa.DataType],
             rows: int) -> Iterator[pa.RecordBatch]:
    with plain_text(path, layout) as plain:
        yield from text_batches(plain, columns, types, rows=rows, named=path)


def _columns(path: Path, chunk: Chunk) -> tuple[list[str], TextLayout]:
    """The names of the columns, and how the file is written; checks the number of fields."""
    layout = TextLayout.of(chunk.options)
    delimiter, fields = layout.delimiter, first_row(path, layout)
    has_header = chunk.options.get("header", set(chunk.features) <= set(fields))
    layout = dataclasses.replace(layout, header=has_header)
    if not has_header and len(fields) == len(chunk.features):
        return list(chunk.features), layout
    if has_header and set(chunk.features) <= set(fields):
        for name in chunk.features:
            if fields.count(name) > 1:
                raise DataError(f"{path}, line 1", found=f"{fields.count(name)} times the column {name!r}",
                                expected="one column for every feature")
        return fields, layout
    for other in ",\t;| ":
        parts = first_row(path, dataclasses.replace(layout, delimiter=other))
        if other != delimiter and len(parts) > 1 and len(parts) == len(chunk.features):
            raise DataError(f"{path}, line 1", found=f"{len(fields)} field(s) between {delimiter!r}",
                            expected=f"{len(chunk.features)}", do=f"set delimiter: {other!r} in the chunk")
    if has_header:
        missing = next(name for name in chunk.features if name not in fields)
        raise DataError(f"{path}, line 1", found=f"a header without {missing!r}", expected="a column for every feature",
                        do=nearest(missing, fields) or f"add a column named {missing!r}")
    raise DataError(f"{path}, line 1", found=f"{len(fields)} field(s) between {delimiter!r}",
                    expected=f"{len(chunk.features)}: {', '.join(chunk.features)}",
                    do="correct delimiter, or the features of the chunk")


def _arrow_type(spec: FeatureSpec, feature: Feature) -> pa.DataType:
    if feature.is_multi_hot or feature.dimensions or feature.name in spec.channels.get("label", ()):
        return pa.string()
    return pa.float64() if np.dtype(feature.dtype).kind in "fb" else pa.int64()


def _truth(column: pa.StringArray, where: str, first: int) -> pa.Array:
    """Labels as numbers: 1, 1.0 and true are the same."""
    texts = pc.utf8_lower(pc.utf8_trim_whitespace(column))
    for word, digit in (("true", "1"), ("false", "0")):
        texts = pc.if_else(pc.equal(texts, word), digit, texts)
    return _cast(texts, pa.float64(), where, "0 or 1", lambda index: first + index)


def _split(column: pa.StringArray, delimiter: str, where: str, first: int) -> pa.Array:
    """Lists of integers from texts; an empty text is an empty list."""
    texts = pc.utf8_trim_whitespace(column)
    parts = pc.split_pattern(texts, delimiter)
    is_empty = pc.equal(texts, "").to_numpy(zero_copy_only=False)
    lengths = np.where(is_empty, 0, pc.list_value_length(parts).to_numpy(zero_copy_only=False))
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    words = pc.utf8_trim_whitespace(parts.filter(pa.array(~is_empty)).flatten())
    values = _cast(words, pa.int64(), where, f"integers separated by {delimiter!r}",
                   lambda index: first + int(np.searchsorted(offsets, index, side="right")) - 1)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _cast(words: pa.StringArray, type_: pa.DataType, where: str, expected: str,
          row_of: Callable[[int], int]) -> pa.Array:
    """The words as numbers; raises DataError with the row of the first that is none."""
    try:
        return pc.cast(words, type_)
    except pa.ArrowInvalid:
        first, end = 0, len(words)  # the first bad word is in [first, end)
        while end - first > 1:
            middle = (first + end) // 2
            try:
                pc.cast(words.slice(first, middle - first), type_)
                first = middle
            except pa.ArrowInvalid:
                end = middle
        raise DataError(f"{where}, row {row_of(first)}", found=repr(words[first].as_py()), expected=expected) from None
