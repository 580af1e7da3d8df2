"""Raw tables whose columns have names: CSV with a header (plain or gz) and Parquet, one file or many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from pyarrow import parquet

from clickwise.encoding.raw_types import Float, Integer, Unreadable
from clickwise.errors import PrepareError, nearest_column
from clickwise.prepare.engine import BadInput
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.raw_files import BadRows, named
from clickwise.prepare.raw_text import RawText
from clickwise.progress import Progress
from clickwise.text_files import PlainText, TextLayout, Wrong, is_encodable, rows_of

_TYPES = {"int64": Integer(), "float64": Float(missing=("nan", "NaN"), strict=True)}


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """What is wanted of a raw table.

    columns   name -> type: int64, float64 or string; the files may hold others
    required  columns with a value in every row; elsewhere a field of `missing` and NaN are missing values
    within    the least and the greatest number that columns may hold
    missing   the texts in CSV that stand for a missing value
    """

    name: str
    columns: Mapping[str, str]
    required: Sequence[str] = ()
    within: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    missing: Sequence[str] = ("",)

    def described(self) -> str:
        return ", ".join(f"{name} ({'0 or 1' if self._is_binary(name) else type_})"
                         for name, type_ in self.columns.items())

    def wrong(self, header: Sequence[str]) -> Wrong:
        """What is wrong with the fields of a row; None for a good one."""
        columns = [(header.index(name), name, type_, _TYPES.get(type_)) for name, type_ in self.columns.items()]

        def wrong(fields: list[str]) -> str | None:
            for index, name, type_, reads in columns:
                text = fields[index]
                if text in self.missing:
                    if name in self.required:
                        return f"no value of {name}"
                elif reads is None:
                    if not is_encodable(text):
                        return f"{text[:40]!r} in {name}, which is no UTF-8"
                elif (value := _number(reads, text)) is None:
                    if name in self.required or not isinstance(reads, Float) or text not in reads.missing:
                        return f"{text[:40]!r} in {name}, which is no {type_}"
                elif name in self.within and not self.within[name][0] <= value <= self.within[name][1]:
                    return f"{text[:40]} in {name}, which is {self._outside(name)}"
            return None

        return wrong

    def _is_binary(self, name: str) -> bool:
        return self.columns[name] == "int64" and self.within.get(name) == (0, 1)

    def _outside(self, name: str) -> str:
        low, high = self.within[name]
        return "neither 0 nor 1" if self._is_binary(name) else f"not between {low} and {high}"

    def faults(self, table: ir.Table) -> dict[str, ir.BooleanColumn]:
        """What is wrong -> the rows of a table with `columns` in which it is."""
        found = {f"without {column}": table[column].isnull() for column in self.required}
        return found | {f"whose {column} is {self._outside(column)}": ~table[column].between(low, high)
                        for column, (low, high) in self.within.items() if column in self.columns}


def _number(type_: Integer | Float, text: str) -> float | None:
    try:
        return type_.one(text)
    except Unreadable:
        return None


class Reader:
    """Stores raw tables in the engine of a preparation. Over all of them up to `max_bad_rows` lines of CSV that cannot
    be read are left out; `bad_rows.found` counts them by file."""

    def __init__(self, folder: PreparationFolder, max_bad_rows: int) -> None:
        self.engine = folder.engine
        self.bad_rows = BadRows(max_bad_rows, folder.work, threads=folder.engine_config.threads)

    def headers(self, raw: RawTable, files: Sequence[Path]) -> dict[Path, list[str]]:
        """The columns of every file; raises PrepareError where one of `raw.columns` is not among them."""
        headers = {file: _columns_of(file) for file in files}
        for file, header in headers.items():
            for column in header:
                if column and header.count(column) > 1:
                    raise PrepareError(f"{file}, line 1", found=f"two columns named {column!r}",
                                       expected="every name once")
            for column in raw.columns:
                if column not in header:
                    raise PrepareError(file, found=f"no column {column!r} among {len(header)}",
                                       expected=f"the columns {', '.join(raw.columns)}",
                                       do=nearest_column(column, header))
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

        `of` says what of a table to store that is too large to be stored whole; its rows may be none. No condition of
        it may be on the columns of that table alone: an engine could drop rows before they were looked at.
        """
        headers = self.headers(raw, files)

        def load(plains: list[PlainText]) -> ir.Table:
            tables = [self._open(raw, plain, headers[file]) for plain, file in zip(plains, files, strict=True)]
            table = tables[0] if len(tables) == 1 else ibis.union(*tables)
            return self._checked(raw, table, files) if of is None else \
                self._store_part(raw, of(_looked_at(raw, table)), files)

        texts = [RawText(file, _layout(file), len(headers[file]), raw.wrong(headers[file])) for file in files]
        table, _ = self.bad_rows.read_text(raw.name, texts, load, raw.described())
        return table

    def _checked(self, raw: RawTable, table: ir.Table, files: Sequence[Path]) -> ir.Table:
        with Progress(f"reading {raw.name}", unit="rows") as bar:
            table = self.engine.materialise(table, raw.name)
            faults = raw.faults(table)
            found = self.engine.row(table.aggregate(
                rows=table.count(), **{name: table.count(where=fault) for name, fault in faults.items()}))
            bar.advance(found["rows"])
        if found["rows"] == 0:
            raise PrepareError(named(files), found="no rows", expected="at least one")
        for fault in faults:
            if found[fault]:
                raise BadInput(f"{found[fault]} rows {fault}")
        return table

    def _store_part(self, raw: RawTable, part: ir.Table, files: Sequence[Path]) -> ir.Table:
        read = sum(file.stat().st_size for file in files) / 1e6
        with Progress(f"reading {raw.name}", total=int(read), unit="MB") as bar:
            with self.engine.watched(bar, self.bad_rows.share):
                table = self.engine.materialise(part, raw.name)
            bar.advance(int(read) - bar.done)
        return table

    def _open(self, raw: RawTable, plain: PlainText, header: Sequence[str]) -> ir.Table:
        if plain.path.suffix == ".parquet":
            table = self.engine.read_parquet([plain.path])
        else:
            names = [name or f"__{index}" for index, name in enumerate(header)]
            table = self.engine.read_text([plain.path], dict.fromkeys(names, "string"), delimiter=",", header=True,
                                          quote='"', missing=raw.missing, longest=plain.longest)
        return table.select(**{name: self._value(table[name], type_) for name, type_ in raw.columns.items()})

    def _value(self, column: ir.Column, type_: str) -> ir.Column:
        return self.engine.parse_number(column, _TYPES[type_]) if type_ in _TYPES else column.cast(type_)


def _looked_at(raw: RawTable, table: ir.Table) -> ir.Table:
    """`table`, of which a row with a fault is BadInput when executed, whatever becomes of the row."""
    refused = ibis.literal("a row that cannot be")  # the cast fails
    return table.filter(ibis.cases((ibis.or_(*raw.faults(table).values()), refused), else_="true").cast("boolean"))


def _columns_of(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        return parquet_schema(file, expected="a Parquet file with named columns").names
    _, header = _header(file)
    return [name.strip() for name in header]


def _header(file: Path) -> tuple[int, list[str]]:
    """The number of the first line that is not empty, and its fields."""
    def bad(number: int, reason: str) -> None:
        raise PrepareError(f"{file}, line {number}", found=reason, expected="CSV with the names of the columns")

    for found in rows_of(file, TextLayout(encoding="utf-8-sig"), bad):
        return found
    raise PrepareError(f"{file}, line 1", found="no lines", expected="CSV with the names of the columns")


def _layout(file: Path) -> TextLayout:
    if file.suffix == ".parquet":
        return TextLayout()
    number, _ = _header(file)
    return TextLayout(encoding="utf-8-sig", header=True, skip=number - 1)


def parquet_schema(file: Path, *, expected: str) -> pa.Schema:
    """Names and types of the columns of a Parquet file; raises PrepareError where it is none."""
    try:
        return parquet.read_schema(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise PrepareError(file, found=f"no Parquet file ({str(error).splitlines()[0]})", expected=expected) from None
