"""Raw tables whose columns have names: CSV with a header (plain or gz) and Parquet, one file or many."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from pyarrow import parquet

from clickwise.errors import PrepareError, nearest
from clickwise.prepare.engine import BadInput
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.raw_files import BadRows, named, open_binary
from clickwise.progress import Progress

_PARSE = {"int64": int, "float64": float, "string": str}


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """What is wanted of a raw table.

    columns   name -> type: int64, float64 or string; the files may hold others
    required  columns with a value in every row; elsewhere a field of `missing` and NaN are missing values
    binary    columns that hold 0 or 1
    missing   the texts in CSV that stand for a missing value
    """

    name: str
    columns: Mapping[str, str]
    required: Sequence[str] = ()
    binary: Sequence[str] = ()
    missing: Sequence[str] = ("",)

    def described(self) -> str:
        return ", ".join(f"{name} ({'0 or 1' if name in self.binary else type_})"
                         for name, type_ in self.columns.items())


class Reader:
    """Stores raw tables in the engine of a preparation. Over all of them up to `max_bad_rows` lines of CSV that cannot
    be read are left out; `bad_rows.found` counts them by file."""

    def __init__(self, folder: PreparationFolder, max_bad_rows: int) -> None:
        self.engine, self.bad_rows = folder.engine, BadRows(max_bad_rows, folder.work)

    def headers(self, raw: RawTable, files: Sequence[Path]) -> dict[Path, list[str]]:
        """The columns of every file; raises PrepareError where one of `raw.columns` is not among them."""
        headers = {file: _columns_of(file) for file in files}
        for file, header in headers.items():
            for column in raw.columns:
                if column not in header:
                    raise PrepareError(file, found=f"no column {column!r} among {len(header)}",
                                       expected=f"the columns {', '.join(raw.columns)}", do=nearest(column, header))
        return headers

    def check_unique(self, table: ir.Table, key: str, files: Sequence[Path]) -> None:
        """Raises PrepareError where two rows of a table have the same `key`."""
        repeated = table.group_by(key).aggregate(rows=table.count()).filter(lambda counts: counts.rows > 1)
        if example := self.engine.row(repeated.order_by(key)):
            raise PrepareError(named(files), found=f"{key} {example[key]} in {example['rows']} rows",
                               expected=f"one row per {key}")

    def store(self, raw: RawTable, files: Sequence[Path],
              of: Callable[[ir.Table], ir.Table] | None = None) -> ir.Table:
        """The table `raw.name` with `raw.columns`, the rows of `files` in no set order.

        `of` says what of a table to store that is too large to be stored whole; its rows may be none.
        """
        headers = self.headers(raw, files)

        def load(good: list[Path]) -> ir.Table:
            tables = [self._open(raw, file, headers[original]) for file, original in zip(good, files, strict=True)]
            table = tables[0] if len(tables) == 1 else ibis.union(*tables)
            return self._checked(raw, table, files) if of is None else self._store_part(raw, of(table), files)

        def reason(file: Path) -> Callable[[bytes], str | None]:
            first = first_line(file).rstrip(b"\r\n")
            return lambda line: None if line == first else bad_line(line, headers[file], raw)

        return self.bad_rows.read(raw.name, files, load, reason, raw.described())

    def _checked(self, raw: RawTable, table: ir.Table, files: Sequence[Path]) -> ir.Table:
        with Progress(f"reading {raw.name}", unit="rows") as bar:
            table = self.engine.materialise(table, raw.name)
            faults = {f"rows without {column}": table[column].isnull() for column in raw.required}
            faults |= {f"rows whose {column} is neither 0 nor 1": ~table[column].isin((0, 1)) for column in raw.binary}
            found = self.engine.row(table.aggregate(
                rows=table.count(), **{name: table.count(where=fault) for name, fault in faults.items()}))
            bar.advance(found["rows"])
        if found["rows"] == 0:
            raise PrepareError(named(files), found="no rows", expected="at least one")
        for fault in faults:
            if found[fault]:
                raise BadInput(f"{found[fault]} {fault}")
        return table

    def _store_part(self, raw: RawTable, part: ir.Table, files: Sequence[Path]) -> ir.Table:
        read = sum(file.stat().st_size for file in files) / 1e6
        with Progress(f"reading {raw.name}", total=int(read), unit="MB") as bar:
            with self.engine.watched(bar):
                table = self.engine.materialise(part, raw.name)
            bar.advance(int(read) - bar.done)
        return table

    def _open(self, raw: RawTable, file: Path, header: Sequence[str]) -> ir.Table:
        if file.suffix == ".parquet":
            table = self.engine.read_parquet([file])
        else:
            types = {name: raw.columns.get(name, "string") for name in header}
            table = self.engine.read_text([file], types, delimiter=",", header=True, quote='"',
                                          missing=raw.missing)
        return table.select(**{name: _without_nan(table[name].cast(type_)) for name, type_ in raw.columns.items()})


def bad_line(line: bytes, header: Sequence[str], raw: RawTable | None = None, delimiter: str = ",") -> str | None:
    """What is wrong with a line of CSV, in its length or for `raw`; None for a good one."""
    try:
        fields = next(csv.reader([line.decode()], delimiter=delimiter, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        return f"a line that cannot be read ({error})"
    if len(fields) != len(header):
        return f"{len(fields)} field{'s' * (len(fields) != 1)}, where the header has {len(header)}"
    if raw is None:
        return None
    row = dict(zip(header, fields, strict=True))
    for column, type_ in raw.columns.items():
        text = row[column]
        if text in raw.missing:
            if column in raw.required:
                return f"no value of {column}"
            continue
        try:
            value = _PARSE[type_](text)
        except ValueError:
            return f"{text[:40]!r} in {column}, which is no {type_}"
        if column in raw.binary and value not in (0, 1):
            return f"{value} in {column}, which is neither 0 nor 1"
    return None


def _without_nan(column: ir.Column) -> ir.Column:
    if not column.type().is_floating():
        return column
    return ibis.cases((column.isnan(), ibis.null("float64")), else_=column)


def _columns_of(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        return parquet_schema(file, expected="a Parquet file with named columns").names
    return first_fields(file)


def first_fields(file: Path, delimiter: str = ",") -> list[str]:
    """The fields of the first line of CSV, plain or .gz."""
    try:
        fields = next(csv.reader([first_line(file).decode("utf-8-sig")], delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PrepareError(f"{file}, line 1", found=f"no text that can be read ({error})",
                           expected="CSV in UTF-8, plain or .gz, with the names of the columns") from None
    return [field.strip() for field in fields]


def parquet_schema(file: Path, *, expected: str) -> pa.Schema:
    """Names and types of the columns of a Parquet file; raises PrepareError where it is none."""
    try:
        return parquet.read_schema(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise PrepareError(file, found=f"no Parquet file ({str(error).splitlines()[0]})", expected=expected) from None


def first_line(file: Path) -> bytes:
    """The first line of a text file, plain or .gz, with its end."""
    with open_binary(file) as text:
        return text.readline()
