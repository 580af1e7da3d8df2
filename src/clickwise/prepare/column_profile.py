"""What the columns of raw CSV, Parquet and JSON lines files hold, learned block by block in bounded memory."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickwise.arrow_arrays import of_texts
from clickwise.arrow_files import is_list, text_batches
from clickwise.errors import DataError, UsageError
from clickwise.feature_spec import MISSING_NUMBERS
from clickwise.given_files import no_file
from clickwise.json_lines import is_json_lines, look
from clickwise.prepare.date_formats import formats_of, those_of_all
from clickwise.prepare.parquet_kinds import kind_of, widest_kind
from clickwise.progress import Progress, say
from clickwise.text_files import TextLayout, find_layout, first_row, plain_text, rows_of

DISTINCT_LIMIT = 100_000  # values of a column that are remembered; a million texts would take 100 MB
BLOCK_BYTES = 1 << 22
SAMPLE = 8  # texts
LIST_DELIMITERS = "|;,"
_MISSING = of_texts(MISSING_NUMBERS)
_TIME = r"^\d{4}-\d\d?-\d\d?([T ]\d\d?:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?$"


@dataclass
class ColumnProfile:
    """What is known of a column after `add` has seen all of it.

    kind      integer, number, truth, text, time, or empty (no value at all); `unknown` says which values there are that
              none of these describes, or types of several files that none holds
    typed     the distinct values of typed columns, `floats` those of floats, and `texts` those of texts: all of them
              unless `more`
    low, high of numbers; `has_parts`: not all of them are whole
    longest   the most values in a row, of list columns; `parts` is the profile of the lists' values
    line_ends how many different texts hold a line end
    formats   of texts the formats of dates that hold all of them, of `date_formats`, or of the one given
    split     delimiter -> the rows with it, the most parts of a row, and the profile of the parts; texts are split at
              `delimiter`, or where there is none at each of LIST_DELIMITERS
    """

    rows: int = 0
    missing: int = 0
    kind: str = "empty"
    unknown: str = ""
    typed: set[object] = field(default_factory=set)
    floats: pa.Array = field(default_factory=lambda: pa.array([], pa.float64()))
    texts: set[str] = field(default_factory=set)
    more: bool = False
    stands_for_missing: int = 0
    low: float | None = None
    high: float | None = None
    has_parts: bool = False
    has_leading_zeros: bool = False
    longest: int | None = None
    parts: ColumnProfile | None = None
    line_ends: int = 0
    split: dict[str, Split] = field(default_factory=dict)
    delimiter: str | None = None
    formats: list[str] | None = None
    kinds: dict[str, str] = field(default_factory=dict)

    @property
    def known(self) -> int:
        return self.rows - self.missing - (self.stands_for_missing if self.is_number else 0)

    @property
    def is_number(self) -> bool:
        return self.kind in ("integer", "number")

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers, however they are stored or written."""
        return self.is_number and not self.has_parts

    @functools.cached_property
    def values(self) -> set[str]:
        """The distinct values as text."""
        if not self.typed and not len(self.floats):
            return self.texts
        return self.texts.union(map(self._spelled, self.typed), map(self._spelled, self.floats.to_pylist()))

    @functools.cached_property
    def distinct(self) -> int:
        """How many values there are; 7 and 7.0 are one, as Python has it too."""
        if not self.texts and self.is_number:
            return len(self.typed.union(self.floats.to_pylist())) if self.typed else len(self.floats)
        if not self.is_number:
            return len(self.values)
        known = self.values.difference(MISSING_NUMBERS)
        if self.kind == "integer":
            return len(known)
        numbers = pc.add(pa.array(known, pa.string()).cast(pa.float64()), 0.0)  # of -0 and 0 one
        return pc.count_distinct(numbers).as_py()

    def add(self, column: pa.Array) -> None:
        """Takes in the next rows."""
        for derived in ("values", "distinct"):
            self.__dict__.pop(derived, None)
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        type_ = column.type
        if not pa.types.is_null(type_):
            kind = kind_of(type_)
            self.kinds.setdefault(kind, str(type_))
            if widest_kind(set(self.kinds)) is None:
                self.unknown = f"values of the type {' and '.join(self.kinds.values())}"
        if is_list(type_):
            self.rows += len(column)
            self.missing += column.null_count
            self.parts = self.parts or ColumnProfile()
            self.longest = max(self.longest or 0, pc.max(pc.list_value_length(column)).as_py() or 0)
            self.parts.add(column.flatten())
        elif pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
            self._add_texts(pc.utf8_trim_whitespace(column.cast(pa.string())))
        elif pa.types.is_temporal(type_):
            self._add_typed(column, "time")
        elif pa.types.is_boolean(type_):
            self._add_typed(column, "truth")
        elif pa.types.is_integer(type_):
            self._add_typed(column, "integer")
        elif pa.types.is_floating(type_) or pa.types.is_decimal(type_):
            self._add_typed(column.cast(pa.float64()), "number")
        else:
            self.rows += len(column)
            self.missing += column.null_count
            if not pa.types.is_null(type_):
                self.unknown = self.unknown or f"values of the type {type_}"

    def _add_typed(self, column: pa.Array, kind: str) -> None:
        self.rows += len(column)
        if kind == "number":
            column = pc.if_else(pc.is_nan(column), None, column)
        self.missing += column.null_count
        unique = pc.unique(column.drop_null())
        if not len(unique):
            return
        self.kind = self._joined(kind)
        if kind in ("integer", "number"):
            self._stretch(unique)
        if not self.more:
            if kind == "number":
                self.floats = pc.unique(pa.concat_arrays([self.floats, unique]))
            else:
                self.typed.update(unique.to_pylist())
            self._stop_at_the_limit()

    def _joined(self, other: str) -> str:
        """The kind that also holds typed values of the kind `other`, as preparation reads them."""
        kinds = {self.kind, other} - {"empty"}
        if len(kinds) == 1:
            return other
        numbers = {"integer", "number"} if "string" in self.kinds else {"integer", "number", "truth"}
        return "text" if kinds - numbers else "number" if "number" in kinds else "integer"

    def _spelled(self, value: object) -> str:
        """A typed value as text: 7 and 7.0 are one value, and so are true and 1 among numbers."""
        if isinstance(value, bool):
            return str(int(value)) if self.is_number else str(value).lower()
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    def _add_texts(self, texts: pa.StringArray) -> None:
        self.rows += len(texts)
        counts = pc.value_counts(texts.drop_null())
        unique, counts = counts.field(0), counts.field(1)
        self.missing += texts.null_count
        if (empty := pc.index(unique, "").as_py()) >= 0:
            self.missing += counts[empty].as_py()
            is_known = pc.not_equal(unique, "")
            unique, counts = unique.filter(is_known), counts.filter(is_known)
        known, for_missing = unique, pc.is_in(unique, value_set=_MISSING)
        if pc.any(for_missing).as_py():
            self.stands_for_missing += pc.sum(counts.filter(for_missing)).as_py()
            known = unique.filter(pc.invert(for_missing))
        if len(known):
            if self.formats is None:
                self.formats = formats_of(known[0].as_py()) if self.kind == "empty" else []
            self.formats = those_of_all(self.formats, known)
        self._narrow(known)
        if not self.more:
            self.texts.update(unique.to_pylist())
            self._stop_at_the_limit()
        if self.kind == "text":
            self.line_ends += pc.sum(pc.match_substring(unique, "\n")).as_py() or 0
        for delimiter in self.delimiter and [self.delimiter] or (LIST_DELIMITERS if self.kind == "text" else ()):
            self._add_parts(delimiter, unique, counts)

    def _stop_at_the_limit(self) -> None:
        self.more = len(self.typed) + len(self.floats) + len(self.texts) > DISTINCT_LIMIT

    def _stretch(self, numbers: pa.Array) -> None:
        ends = pc.min_max(numbers).as_py()
        self.low = ends["min"] if self.low is None else min(self.low, ends["min"])
        self.high = ends["max"] if self.high is None else max(self.high, ends["max"])
        if pa.types.is_floating(numbers.type) and not self.has_parts:
            self.has_parts = pc.any(pc.not_equal(pc.floor(numbers), numbers)).as_py() or not math.isfinite(
                self.high - self.low)

    def _narrow(self, unique: pa.StringArray) -> None:
        """Finds the kind that also holds the texts `unique`: integer, number, truth, time, else text."""
        if not len(unique) or self.kind == "text":
            return
        if self.kind in ("empty", "integer", "number"):
            self.has_leading_zeros |= pc.any(pc.match_substring_regex(unique, r"^[+-]?0\d")).as_py()
            for kind, type_ in (("integer", pa.int64()), ("number", pa.float64())):
                if self.has_leading_zeros or (kind, self.kind) == ("integer", "number"):
                    continue
                try:
                    pc.cast(unique[:SAMPLE], type_)  # where one fails, Arrow words an error for each
                    numbers = pc.cast(unique, type_)
                except pa.ArrowInvalid:
                    continue
                self.kind = kind
                self._stretch(numbers)
                return
        for kind, holds in (("truth", _are_truths), ("time", _are_times)):
            if self.kind in ("empty", kind) and holds(unique):
                self.kind = kind
                return
        self.kind = "text"

    def _add_parts(self, delimiter: str, unique: pa.StringArray, counts: pa.Array) -> None:
        has = pc.match_substring(unique, delimiter)
        rows = pc.sum(counts.filter(has)).as_py() or 0
        if delimiter not in self.split:
            if not rows and delimiter != self.delimiter:
                return
            self.split[delimiter] = Split()
            if not self.more:
                unique = pa.array(sorted(self.texts), pa.string())  # those before, none of which had it, are parts too
        split = self.split[delimiter]
        split.rows += rows
        split.longest = max(split.longest, 1 + (pc.max(pc.count_substring(unique, delimiter)).as_py() or 0))
        split.parts.add(pc.split_pattern(unique, delimiter).flatten())


@dataclass
class Split:
    """A text column split at a delimiter."""

    rows: int = 0
    longest: int = 1
    parts: ColumnProfile = field(default_factory=ColumnProfile)


def _are_truths(unique: pa.StringArray) -> bool:
    return pc.all(pc.is_in(pc.utf8_lower(unique), value_set=pa.array(["true", "false"]))).as_py()


def _are_times(unique: pa.StringArray) -> bool:
    return pc.all(pc.match_substring_regex(unique, _TIME)).as_py()


# ---- the columns of files


@dataclass(frozen=True)
class TableProfile:
    """Columns by name of files that hold rows of the same columns; `layout` of delimited text."""

    type: str
    files: dict[Path, int]
    columns: dict[str, ColumnProfile]
    layout: TextLayout = TextLayout(header=True)

    @property
    def rows(self) -> int:
        return sum(self.files.values())

    @property
    def has_header(self) -> bool:
        return bool(self.layout.header)


def read_table(files: Sequence[Path], *, delimiter: str | None = None, header: bool | None = None,
               quote: str | None = None, lists: Mapping[str, str] | None = None,
               formats: Mapping[str, str] | None = None) -> TableProfile:
    """Reads every row once. `delimiter`, `header` and `quote` (None: looked for) say how text is written; `lists` names
    columns with what lies between the values of a row, `formats` columns with how their dates are written.

    Columns without a header are called column_1, column_2, … Raises DataError for a file that is missing, empty,
    unreadable or unlike the others, and for names that occur twice; UsageError for mixed types.
    """
    types = {type_of(file) for file in map(_checked, files)}
    if len(types) > 1:
        raise UsageError("FILE", found=f"{' and '.join(sorted(types))} at once", expected="files of one type")
    (type_,) = types
    if type_ == "jsonl":
        return _read_json_lines(files, lists or {}, formats or {})
    layout = find_layout(files[0], delimiter=delimiter, header=header, quote=quote) if type_ == "csv" else \
        TextLayout(header=True)
    if layout.encoding not in ("utf-8", "utf-8-sig"):
        say(f"{files[0]}: read as {layout.encoding}, since it is no UTF-8")
    names = _names(files[0], type_, layout)
    for name, count in Counter(names).items():
        if name and count > 1:
            raise DataError(files[0], found=f"two columns named {name!r}", do="rename one of them",
                            expected="a name of its own for every column")
    columns = _profiles(names, lists or {}, formats or {})
    rows: dict[Path, int] = {}
    if "" in names:
        say("a column without a name is left out")
    try:
        with Progress("reading", unit="rows") as bar:
            for file in files:
                other = _names(file, type_, layout)
                if set(other) != set(names) or (type_ == "csv" and len(other) != len(names)):
                    raise DataError(file, found=f"the columns {', '.join(other[:8])}", do="describe each kind in a run",
                                    expected=f"those of {files[0]}: {', '.join(names[:8])}")
                rows[file] = 0
                for batch in _blocks(file, type_, layout, other):
                    rows[file] += _add(columns, batch, bar, file)
                _check_rows(file, rows[file])
    except DataError:
        if quote is None and type_ == "csv" and layout.quote and _has_rows_by_line(files, layout):
            return read_table(files, delimiter=layout.delimiter, header=layout.header, quote="", lists=lists,
                              formats=formats)
        raise
    line_ends = sum(profile.line_ends for profile in columns.values())
    if line_ends and quote is None and _has_rows_by_line(files, layout):
        say(f"{files[0]}: without quotes all lines have as many fields: they are read so, quotes being letters")
        return read_table(files, delimiter=layout.delimiter, header=layout.header, quote="", lists=lists,
                              formats=formats)
    if line_ends:
        say(f"{line_ends:,} different values hold line ends, inside quotes")
    return TableProfile(type_, rows, columns, layout)


def type_of(file: Path) -> str:
    """The type of chunk that the file is, by its name."""
    return "jsonl" if is_json_lines(file) else "parquet" if file.suffix == ".parquet" else "csv"


def _read_json_lines(files: Sequence[Path], lists: Mapping[str, str], formats: Mapping[str, str]) -> TableProfile:
    """A key stands in some row of some file. One whose values no column holds has a profile that says so."""
    found = look(files)
    columns = _profiles(found.names, lists, formats)
    if "" in found.names:
        say("a column without a name is left out")
    with Progress("reading", unit="rows") as bar:
        for file, rows in found.rows.items():
            _check_rows(file, rows)
            for batch in found.batches(file, [name for name in columns if name in found.types]):
                _add(columns, batch, bar, file)
    for name, (where, what) in found.refused.items():
        if name:
            columns[name].unknown = f"{what} ({where})"
    return TableProfile("jsonl", found.rows, columns)


def _profiles(names: Sequence[str], lists: Mapping[str, str], formats: Mapping[str, str]) -> dict[str, ColumnProfile]:
    return {name: ColumnProfile(delimiter=lists.get(name), formats=[formats[name]] if name in formats else None)
            for name in names if name}


def _add(columns: Mapping[str, ColumnProfile], batch: pa.RecordBatch, bar: Progress, file: Path) -> int:
    """Adds rows to the profiles; how many they are."""
    for name in set(batch.schema.names) & columns.keys():
        columns[name].add(batch.column(name))
    bar.advance(len(batch), file.name)
    return len(batch)


def _check_rows(file: Path, rows: int) -> None:
    if not rows:
        raise DataError(file, found="no rows", expected="at least one row")


def _checked(file: Path) -> Path:
    if found := no_file(file):
        raise DataError(file, found=found, expected="a file of CSV, Parquet or JSON lines",
                        do=f"name its files: {file}/*.csv" if found == "a folder" else "")
    if file.stat().st_size == 0:
        raise DataError(file, found="an empty file", expected="at least one row")
    return file


def _names(file: Path, type_: str, layout: TextLayout) -> list[str]:
    """The names of a file's columns."""
    if type_ == "parquet":
        try:
            return pq.read_schema(file).names
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(file, found=str(error).splitlines()[0], expected="a Parquet file") from None
    first = first_row(file, layout)
    return first if layout.header else [f"column_{number}" for number in range(1, len(first) + 1)]


def _has_rows_by_line(files: Sequence[Path], layout: TextLayout) -> bool:
    """Whether all lines of the files have as many fields, quotes being letters."""
    plain = dataclasses.replace(layout, quote="")
    widths = {len(fields) for file in files for _, fields in rows_of(file, plain, lambda number, reason: None)}
    return len(widths) == 1 and widths != {1}


def _blocks(file: Path, type_: str, layout: TextLayout, names: list[str]) -> Iterator[pa.RecordBatch]:
    if type_ == "parquet":
        try:
            with pq.ParquetFile(file) as parquet:
                yield from parquet.iter_batches(batch_size=1 << 16, use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(file, found=str(error).splitlines()[0][:160], expected="a readable parquet file") from None
        return
    names = [name or f"\0{index}" for index, name in enumerate(names)]
    types = dict.fromkeys(names, pa.string())
    with plain_text(file, layout) as plain:
        block_bytes = BLOCK_BYTES * max(1, len(names) // 512)  # some thousands of bytes of each column
        yield from text_batches(plain, names, types, block_bytes=block_bytes, named=file)
