"""Delimited text and Parquet read by Arrow, whatever it finds wrong in our words; and what its types have in common."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from clickwise.errors import DataError
from clickwise.text_files import PlainText

BLOCK_BYTES = 1 << 16  # read at a time, at least
LONGEST_LINE = (1 << 31) - 1


def text_batches(plain: PlainText, columns: list[str], types: dict[str, pa.DataType], *, rows: int | None = None,
                 block_bytes: int = BLOCK_BYTES, named: Path | None = None) -> Iterator[pa.RecordBatch]:
    """The columns of `types` of plain text that has `columns`, at most `rows` rows at a time; errors name the file
    `named`, of which it may be a copy."""
    if rows is not None:
        block_bytes = max(block_bytes, min(rows * 8 * len(columns), 1 << 26))  # about 8 for a value
    layout, done = plain.layout, 0
    parse = pa_csv.ParseOptions(delimiter=layout.delimiter, quote_char=layout.quote or False,
                                newlines_in_values=bool(layout.quote))
    convert = pa_csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=False)
    while True:
        read = pa_csv.ReadOptions(use_threads=False, column_names=columns, skip_rows=int(bool(layout.header)),
                                  block_size=block_bytes)
        first = 0
        try:
            with pa.input_stream(str(plain.path), compression="detect") as stream, \
                    pa_csv.open_csv(stream, read, parse, convert) as reader:
                for batch in reader:
                    new = batch.slice(max(done - first, 0))
                    first += len(batch)
                    done = max(done, first)
                    for start in range(0, len(new), rows or max(len(new), 1)):
                        yield new.slice(start, rows)
            return
        except (pa.ArrowInvalid, OSError) as error:
            if "straddling" not in str(error) or block_bytes >= LONGEST_LINE:
                raise _explained(plain.path, columns, str(error), named or plain.path) from None
            block_bytes = min(16 * block_bytes, LONGEST_LINE)  # a line is longer than a block: once more from the start


_ARROW_ERROR = re.compile(r"(In CSV column #(?P<column>\d+)|CSV parse error): (Row #(?P<row>\d+): )?(?P<what>.*)", re.S)
_BAD_VALUE = re.compile(r"CSV conversion error to (?P<kind>\w+): invalid value '(?P<value>.*)'", re.S)
_BAD_LENGTH = re.compile(r"Expected \d+ columns, got (?P<fields>\d+)(: (?P<line>.*))?", re.S)


def _explained(path: Path, columns: list[str], text: str, named: Path) -> DataError:
    """Arrow's error with the name of the column and the line of the file."""
    parts = _ARROW_ERROR.match(text)
    if parts is None:
        return DataError(named, found=text.splitlines()[0][:160], expected="rows of " + ", ".join(columns[:8]))
    where, what = str(named), parts["what"]
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
