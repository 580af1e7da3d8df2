"""Delimited text and Parquet read by Arrow, whatever it finds wrong in our words; and what its types have in common."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from clickwise.errors import DataError

BLOCK_BYTES = 1 << 16  # read at a time, at least


def text_batches(path: Path, delimiter: str, columns: list[str], has_header: bool, types: dict[str, pa.DataType],
                 rows: int) -> Iterator[pa.RecordBatch]:
    """The columns of `types` of a file of text that has `columns`, at most `rows` rows at a time."""
    block = max(BLOCK_BYTES, min(rows * 8 * len(columns), 1 << 26))  # bytes: about 8 for a value
    read = pa_csv.ReadOptions(use_threads=False, column_names=columns, skip_rows=int(has_header), block_size=block)
    parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    convert = pa_csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=False)
    try:
        with pa.input_stream(str(path), compression="detect") as stream, \
                pa_csv.open_csv(stream, read, parse, convert) as reader:
            for batch in reader:
                for start in range(0, len(batch), rows):
                    yield batch.slice(start, rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise _explained(path, columns, str(error)) from None


_ARROW_ERROR = re.compile(r"(In CSV column #(?P<column>\d+)|CSV parse error): (Row #(?P<row>\d+): )?(?P<what>.*)", re.S)
_BAD_VALUE = re.compile(r"CSV conversion error to (?P<kind>\w+): invalid value '(?P<value>.*)'", re.S)
_BAD_LENGTH = re.compile(r"Expected \d+ columns, got (?P<fields>\d+)(: (?P<line>.*))?", re.S)


def _explained(path: Path, columns: list[str], text: str) -> DataError:
    """Arrow's error with the name of the column and the line of the file."""
    parts = _ARROW_ERROR.match(text)
    if parts is None:
        return DataError(path, found=text.splitlines()[0], expected="rows of " + ", ".join(columns[:8]))
    where, what = str(path), parts["what"]
    if parts["column"] is not None:
        where += f", column {columns[int(parts['column'])]!r}"
    if parts["row"] is not None:
        where += f", line {_line_of_row(path, int(parts['row']))}"
    if bad := _BAD_VALUE.match(what):
        kind = {"int64": "an integer (int64), no decimal point", "double": "a number"}.get(bad["kind"], bad["kind"])
        return DataError(where, found=repr(bad["value"][:40]), expected=kind,
                         do="correct it; texts are encoded to ids first, with 0 for what is missing")
    if bad := _BAD_LENGTH.match(what):
        return DataError(where, found=f"{bad['fields']} field(s): {(bad['line'] or '')[:60]!r}",
                         expected=f"{len(columns)}: {', '.join(columns[:8])}" + (", …" if len(columns) > 8 else ""))
    return DataError(where, found=what.splitlines()[0], expected="rows of " + ", ".join(columns[:8]))


def _line_of_row(path: Path, row: int) -> int:
    """The line, from 1 on, of Arrow's row number, which counts from 1 too, the header as well, but no empty lines."""
    with pa.input_stream(str(path), compression="detect") as stream:
        for number, line in enumerate(io.BufferedReader(stream), 1):
            row -= bool(line.rstrip(b"\r\n"))
            if row == 0:
                return number
    return number


def first_fields(path: Path, delimiter: str = ",") -> list[str]:
    """The fields of the first line: the names of the columns, where the file has a header. Raises DataError."""
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            line = stream.read(1 << 16).split(b"\n", 1)[0].decode("utf-8-sig").rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, found=f"no text: {error}", expected="a csv file") from None
    if not line:
        raise DataError(f"{path}, line 1", found="an empty file" if path.stat().st_size == 0 else "an empty line",
                        expected="rows, or a header and rows")
    return [field.strip() for field in next(csv.reader([line], delimiter=delimiter))]


@contextlib.contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """The opened file; whatever Arrow finds wrong with it, then or while it is read, becomes a DataError."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        with open(path, "rb") as file:
            start, whole = file.read(4), path.stat().st_size >= 12
            file.seek(-4, 2) if whole else None
            whole = whole and file.read(4) == b"PAR1"
        found = f"damaged content: {str(error).splitlines()[0].rstrip(': ')}" if whole else \
            "a Parquet file without its end (PAR1)" if start == b"PAR1" else "no Parquet file"
        raise DataError(path, found=found, expected="a Parquet file that can be read",
                        do="it is damaged or cut off: write or copy it again") from None


def is_list(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def is_text(type_: pa.DataType) -> bool:
    """Whether values of the type are texts, or bytes that are read as UTF-8."""
    return any(is_it(type_) for is_it in (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
        pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def plain(column: pa.Array) -> pa.Array:
    """The values themselves where a dictionary holds them, and all texts as Arrow's plain type of them."""
    if isinstance(column, pa.DictionaryArray):
        return plain(column.dictionary).take(column.indices)
    return column.cast(pa.string()) if is_text(column.type) or pa.types.is_null(column.type) else column
