"""CSV chunks: with or without a header, multi-hot as delimited text (`3|17|4`); a block of rows at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from clickwise.data.columns import Array, column_file
from clickwise.data.parquet import to_array
from clickwise.errors import DataError, SpecError, nearest
from clickwise.spec import Chunk, Feature, FeatureSpec


def stream_csv(spec: FeatureSpec, chunk: Chunk, names: list[str], rows: int = 1 << 20,
               wide_ids: bool = False) -> Iterator[dict[str, Array]]:
    """Blocks of about `rows` rows of the features `names`; the columns are the chunk's features in their order, or
    those that a header names. Options of the chunk: `delimiter` (,), `list_delimiter` (|), `header` (seen by itself).

    Raises DataError with the row for a value that is no number, a row of another length, or a wrong delimiter.
    """
    list_delimiter = chunk.options.get("list_delimiter", "|")
    for name in chunk.files:
        path = column_file(spec, name)
        columns, has_header = _columns(path, chunk)
        types = {feature: _arrow_type(spec, spec.features[feature]) for feature in names}
        first = 0
        for batch in _batches(path, chunk, columns, has_header, types, rows):
            block = {}
            for feature in names:
                column = batch.column(feature)
                if pa.types.is_string(column.type):
                    column = _split(column, list_delimiter, f"{path}, column {feature!r}", first)
                block[feature] = to_array(spec, feature, column, path, first, wide_ids)
            yield block
            first += len(batch)
        if first == 0:
            raise SpecError(path, found="no rows", expected="at least one row")


def _batches(path: Path, chunk: Chunk, columns: list[str], has_header: bool, types: dict[str, pa.DataType],
             rows: int) -> Iterator[pa.RecordBatch]:
    block = max(1 << 16, min(rows * 8 * len(columns), 1 << 26))  # bytes: about 8 for a value
    read = pa_csv.ReadOptions(use_threads=False, column_names=columns, skip_rows=int(has_header), block_size=block)
    parse = pa_csv.ParseOptions(delimiter=chunk.options.get("delimiter", ","))
    convert = pa_csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=False)
    try:
        with pa.input_stream(str(path), compression="detect") as stream, \
                pa_csv.open_csv(stream, read, parse, convert) as reader:
            for batch in reader:
                for start in range(0, len(batch), rows):
                    yield batch.slice(start, rows)
    except (pa.ArrowInvalid, OSError) as slip:
        raise DataError(path, found=str(slip).splitlines()[0], expected="rows of " + ", ".join(columns[:8])) from None


def _columns(path: Path, chunk: Chunk) -> tuple[list[str], bool]:
    """The names of the columns, and whether the first line is a header; checks the number of fields."""
    delimiter = chunk.options.get("delimiter", ",")
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            line = stream.read(1 << 16).split(b"\n", 1)[0].decode("utf-8-sig").rstrip("\r")
    except (OSError, UnicodeDecodeError) as slip:
        raise DataError(path, found=f"no text: {slip}", expected="a csv file") from None
    if not line:
        raise DataError(path, found="an empty file" if path.stat().st_size == 0 else "an empty first line",
                        expected="rows of " + ", ".join(chunk.features))
    fields = [field.strip() for field in next(csv.reader([line], delimiter=delimiter))]
    has_header = chunk.options.get("header", set(chunk.features) <= set(fields))
    if not has_header and len(fields) == len(chunk.features):
        return list(chunk.features), False
    if has_header and set(chunk.features) <= set(fields):
        return fields, True
    for other in ",\t;| ":
        parts = next(csv.reader([line], delimiter=other))
        if other != delimiter and len(parts) > 1 and len(parts) == len(chunk.features):
            raise DataError(f"{path}, line 1", found=f"{len(fields)} field(s) between {delimiter!r}",
                            expected=f"{len(chunk.features)}", do=f"set delimiter: {other!r} in the chunk")
    if has_header:
        missing = next(name for name in chunk.features if name not in fields)
        raise DataError(f"{path}, line 1", found=f"a header without {missing!r}", expected="a column for every feature",
                        do=nearest(missing, fields))
    raise DataError(f"{path}, line 1", found=f"{len(fields)} field(s) between {delimiter!r}",
                    expected=f"{len(chunk.features)}: {', '.join(chunk.features)}",
                    do="correct delimiter, or the features of the chunk")


def _arrow_type(spec: FeatureSpec, feature: Feature) -> pa.DataType:
    if feature.is_multi_hot or feature.dimensions:
        return pa.string()
    # A label may be written 1 or 1.0; what is neither 0 nor 1 is found when it becomes the declared type.
    is_float = np.dtype(feature.dtype).kind in "fb" or feature.name in spec.channels.get("label", ())
    return pa.float64() if is_float else pa.int64()


def _split(column: pa.StringArray, delimiter: str, where: str, first: int) -> pa.Array:
    """Lists of integers from texts; an empty text is an empty list."""
    texts = pc.utf8_trim_whitespace(column)
    parts = pc.split_pattern(texts, delimiter)
    is_empty = pc.equal(texts, "").to_numpy(zero_copy_only=False)
    lengths = np.where(is_empty, 0, pc.list_value_length(parts).to_numpy(zero_copy_only=False))
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    words = parts.filter(pa.array(~is_empty)).flatten()
    try:
        values = pc.cast(words, pa.int64())
    except pa.ArrowInvalid:
        place = next(i for i, word in enumerate(words.to_pylist()) if not word.strip().lstrip("+-").isdigit())
        row = int(np.searchsorted(offsets, place, side="right")) - 1
        raise DataError(f"{where}, row {first + row}", found=repr(words[place].as_py()),
                        expected=f"integers separated by {delimiter!r}") from None
    return pa.ListArray.from_arrays(pa.array(offsets), values)
