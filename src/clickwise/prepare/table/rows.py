"""Raw rows of the files of a Feature Spec as stored tables, and a look at their values."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from clickwise.encoding import RawColumn
from clickwise.encoding.raw_types import Float, Integer, Text
from clickwise.errors import PrepareError, nearest_column
from clickwise.feature_spec import LEFT_OUT, Chunk, FeatureSpec
from clickwise.json_lines import EXPECTED, look
from clickwise.prepare.encode import read_column
from clickwise.prepare.engine import BadInput, Engine
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.named_columns import parquet_schema
from clickwise.prepare.parquet_kinds import NUMBER
from clickwise.prepare.raw_files import BadRows, named
from clickwise.prepare.raw_text import RawText
from clickwise.prepare.table.parquet_types import parquet_types, widest_types
from clickwise.prepare.table.raw_columns import ENCODED, null_if_missing
from clickwise.progress import Progress, say
from clickwise.text_files import BadLine, PlainText, TextLayout, Wrong, first_row, is_encodable

if TYPE_CHECKING:
    from clickwise.prepare.table.config import TableConfig


SMALL_BYTES = 1 << 26  # of text
PACKED = {".gz": 5, ".parquet": 5}  # bytes of text in one of such a file
FILE = "__file"  # of stored rows: from which of several files


def store_rows(folder: PreparationFolder, spec: FeatureSpec, config: TableConfig,
               columns: Sequence[str]) -> dict[str, int]:
    """Stores `raw_<mapping>` with `columns` for every mapping, the rows in the order of its files. File -> its bad
    rows, which are left out."""
    engine, bad_rows = folder.engine, BadRows(config.max_bad_rows, folder.work)
    for mapping, chunks in spec.mappings.items():
        with Progress(f"reading {mapping}", unit="rows") as bar:
            reader = _Reader(engine, bad_rows, _numbers(spec, config))
            reader.store(spec, chunks, columns, f"raw_{mapping}")
            stored = engine.table(f"raw_{mapping}")
            rows = engine.count(stored)
            bar.advance(rows)
        if reader.quoted and reader.lines > rows:
            _say_line_ends(engine, stored, mapping)
    return bad_rows.found


def _say_line_ends(engine: Engine, stored: ir.Table, mapping: str) -> None:
    """Says how many rows have a line end in a text: a quote that was never meant as one joins lines."""
    texts = [stored[name] for name in stored.columns if stored[name].type().is_string()]
    if not texts:
        return
    joined = ibis.array(texts).join("")  # thousands of conditions would be too deep for a query
    if count := engine.count(stored.filter(joined.contains("\n"))):
        say(f"{mapping}: {count:,} rows have fields with line ends inside quotes; if quotes are letters there, set "
            "quote: '' in the chunk of the Feature Spec")


def _numbers(spec: FeatureSpec, config: TableConfig) -> list[str]:
    """The columns whose values are amounts: one that the split goes by, and no feature, is a time."""
    label = spec.channels["label"] if config.label_above is not None else ()
    used = {name for channel, names in spec.channels.items() if channel != LEFT_OUT for name in names}
    return [*spec.channels.get("numerical", ()), *label, *{config.order_by} - used - {None}]


class _Reader:
    """Reads chunks; `bad_rows` are the lines of text that cannot be read, over all of them. `numbers` are the columns
    that are read as numbers."""

    def __init__(self, engine: Engine, bad_rows: BadRows, numbers: Sequence[str]) -> None:
        self.engine, self.bad_rows, self.numbers = engine, bad_rows, numbers
        self.quoted, self.lines = False, 0  # whether there are quotes, how many lines but headers

    def store(self, spec: FeatureSpec, chunks: Sequence[Chunk], columns: Sequence[str], name: str) -> None:
        with contextlib.ExitStack() as stack:
            if any(chunk.type == "jsonl" for chunk in chunks):
                self.bad_rows.work.mkdir(parents=True, exist_ok=True)
                copies = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self.bad_rows.work)))
                names = [columns if len(chunks) == 1 else [name for name in columns if name in chunk.features]
                         for chunk in chunks]
                chunks = [self._as_parquet(spec.folder, chunk, names[index], copies / str(index))
                          if chunk.type == "jsonl" else chunk for index, chunk in enumerate(chunks)]
            self._store_chunks(spec, chunks, columns, name)

    def _as_parquet(self, folder: Path, chunk: Chunk, columns: Sequence[str], copies: Path) -> Chunk:
        """Of a chunk of JSON lines a copy of these columns as Parquet."""
        files = [folder / file for file in chunk.files]
        found = look(files, {file: self._bad(file, EXPECTED) for file in files})
        copies.mkdir()
        for index, file in enumerate(files):
            found.write_parquet(file, columns, copies / f"{index}.parquet")
        return dataclasses.replace(chunk, type="parquet", files=tuple(
            str((copies / f"{index}.parquet").resolve()) for index in range(len(files))))

    def _bad(self, file: Path, expected: str) -> BadLine:
        return lambda number, reason: self.bad_rows.add(file, number, reason, expected)

    def _store_chunks(self, spec: FeatureSpec, chunks: Sequence[Chunk], columns: Sequence[str], name: str) -> None:
        left, stored = list(columns), []
        for index, chunk in enumerate(chunks):
            files = [spec.folder / file for file in chunk.files]
            layouts = {file: _layout(file, chunk) for file in files}
            headers = {file: _header(file, chunk, layouts[file]) for file in files}
            everywhere = set(left).intersection(*headers.values())
            wanted = [column for column in left if column in everywhere]
            for column in (column for column in chunk.features if column in left and column not in everywhere):
                file, header = next((file, header) for file, header in headers.items() if column not in header)
                raise PrepareError(file, found=f"no column {column!r}", expected="a column for every feature",
                                   do=nearest_column(column, header))
            left = [column for column in left if column not in everywhere]
            if wanted:
                self._store(chunk, headers, layouts, wanted, f"{name}_{index}" if len(chunks) > 1 else name)
                stored.append(f"{name}_{index}")
        if left and (missing := [column for column in left if column not in spec.features]):
            raise PrepareError(f"{spec.folder / chunks[0].files[0]}", found=f"no column {missing[0]!r}",
                               expected="the column that the split goes by",
                               do=nearest_column(missing[0], headers[files[0]]))
        if left:
            raise PrepareError(f"{spec.path}: source_spec", found=f"no chunk with {left[0]!r} for {name[4:]!r}",
                               expected="every feature in every mapping")
        if len(chunks) > 1:
            self._side_by_side(stored, columns, name)

    def _side_by_side(self, parts: Sequence[str], columns: Sequence[str], name: str) -> None:
        engine = self.engine
        tables = [engine.numbered(engine.table(part)) for part in parts]
        counts = [engine.count(table) for table in tables]
        if len(set(counts)) > 1:
            raise PrepareError(name, found=f"chunks of {' and '.join(f'{count:,}' for count in counts)} rows",
                               expected="columns of the same rows")
        joined = tables[0]
        for table in tables[1:]:
            joined = joined.join(table, "row")
        engine.materialise(joined.order_by("row").select(*columns), name)
        for part in parts:
            engine.drop(part)

    def _store(self, chunk: Chunk, headers: Mapping[Path, list[str]], layouts: Mapping[Path, TextLayout],
               columns: Sequence[str], name: str) -> None:
        is_small = sum(file.stat().st_size * PACKED.get(file.suffix, 1) for file in headers) <= SMALL_BYTES

        def load(files: Sequence[PlainText]) -> None:
            self._materialise(chunk, dict(zip(files, headers.values(), strict=True)), columns, name, is_small)

        if chunk.type == "parquet":
            expected = "values of the types that the files say"
            try:
                load([PlainText(file, TextLayout(), 0) for file in headers])
            except BadInput as error:
                raise PrepareError(named(headers), found=str(error), expected=expected) from None
            return
        some = next(iter(layouts.values()))
        expected = f"{len(next(iter(headers.values())))} fields with {some.delimiter!r} between them"

        def wrong(header: Sequence[str]) -> Wrong:
            index_of = {column: index for index, column in reversed(list(enumerate(header)))}
            fields_of = [(index_of[column], column) for column in columns]
            return lambda fields: next((f"{fields[index][:40]!r} in {column!r}, bytes that are not of the encoding"
                                        for index, column in fields_of if not is_encodable(fields[index])), None)

        _, read = self.bad_rows.read_text(name[4:], [RawText(
            file, layout, len(headers[file]), wrong(headers[file]), (layout.quote.encode(),) if layout.quote else ())
            for file, layout in layouts.items()], load, expected)
        self.quoted = self.quoted or any(plain.marked for plain in read)
        self.lines += sum(plain.lines - bool(plain.layout.header) for plain in read)

    def _materialise(self, chunk: Chunk, headers: Mapping[PlainText, list[str]], columns: Sequence[str],
                     name: str, is_small: bool) -> None:
        tables, groups = [], []
        originals = [plain.path for plain in headers]
        types: dict[str, str] = widest_types(originals, columns, self.numbers) if chunk.type == "parquet" else {}
        for plain, header in headers.items():  # files with the same columns are read at once
            kind = (header, parquet_types(plain.path, columns) if types else plain.layout)
            if groups and groups[-1][0] == kind:
                groups[-1][2].append(plain.path)
            else:
                groups.append((kind, header, [plain.path]))
        longest = max(plain.longest for plain in headers)
        of_file = FILE if len(headers) > 1 else None
        kept = [*columns, of_file] if of_file else columns
        first = 0
        for (_, layout), header, files in groups:
            if chunk.type == "parquet":
                table = self.engine.read_parquet(files, of_file)
            else:
                fields = {name or f"__{index}": "string" for index, name in enumerate(header)}
                table = self.engine.read_text(files, fields, delimiter=layout.delimiter, quote=layout.quote,
                                              header=bool(layout.header), longest=longest, file_column=of_file)
            tables.append(table.mutate(**{FILE: (table[FILE] + first).cast("int32")}) if of_file and first else table)
            first += len(files)
        if len(tables) == 1:
            self.engine.materialise(tables[0].select(*kept), name, is_small=is_small)
            return
        # Stored as they are before any value is looked at: by the statistics of Parquet files, which engines trust, no
        # value is NaN. And a union keeps no order.
        parts = [self.engine.materialise(table.select(*kept), f"{name}_part_{index}")
                 for index, table in enumerate(tables)]
        for column in (column for column in types if column not in self.numbers):
            types[column] = self._exact_type(types[column], {
                named(files): part[column] for (_, _, files), part in zip(groups, parts, strict=True)})
        parts = [self.engine.numbered(part).select(
            "row", __part=ibis.literal(index, "int32"),
            **{column: _as_type(part[column], types.get(column)) for column in kept})
            for index, part in enumerate(parts)]
        self.engine.materialise(ibis.union(*parts).order_by("__part", "row").select(*kept), name)
        for index in range(len(tables)):
            self.engine.drop(f"{name}_part_{index}")

    def _exact_type(self, type_: str, columns: Mapping[str, ir.Column]) -> str:
        """`type_`, or in place of `NUMBER` what holds the numbers of all `columns`, which go by the names of their
        files. Raises PrepareError for whole numbers in a float that may stand for several."""
        found = set()
        for files, column in columns.items():
            values = column.name("x").as_table()
            values = values.unnest("x") if values.x.type().is_array() else values
            type_of_file = values.x.type()
            if not type_of_file.is_floating() and (NUMBER not in type_ or not type_of_file.is_numeric()):
                continue
            number, is_known = values.x.cast("float64"), Text().bulk(values.x).notnull()
            is_large = is_known & (number.abs() > _exact_up_to(type_of_file))
            counts = self.engine.row(values.aggregate(
                parts=values.count(where=is_known & (number % 1 != 0)), large=values.count(where=is_large),
                others=values.count(where=is_known & Integer().bulk(values.x).isnull())))
            if type_of_file.is_floating() and counts["large"] and not counts["parts"]:
                raise PrepareError(f"{files}, column {column.get_name()!r}", expected=_exact_numbers(type_of_file),
                                   found=repr(self.engine.row(values.filter(is_large))["x"]),
                                   do="write that column as integers, or as texts")
            found |= {kind for kind, count in counts.items() if count}
        exact = "int64" if "others" not in found else "string" if "large" in found else "float64"
        return type_.replace(NUMBER, exact)


def exact_up_to(bits: int) -> int:
    """Up to where numbers in so many bits are known to the last digit; beyond that a float stands for several."""
    return 2**24 if bits < 64 else 2**53


def _exact_up_to(type_: dt.DataType) -> int:
    return exact_up_to(8 * type_.nbytes if type_.is_floating() else 64)


def _exact_numbers(type_: dt.Floating) -> str:
    power = _exact_up_to(type_).bit_length() - 1
    return f"whole numbers up to 2^{power}, beyond which a float stands for several"


def _as_type(column: ir.Column, type_: str | None) -> ir.Column:
    """As text, or an exact whole number, where that is `type_`; lists value by value."""
    if type_ is None or str(column.type()) == type_:
        return column
    if type_.startswith("array<") and column.type().is_array():
        return column.map(lambda value: _as_type(value, type_[6:-1]))
    read = {"string": Text().bulk, "int64": Integer().bulk}.get(type_)
    return column.cast(type_) if read is None else read(column)


def _layout(file: Path, chunk: Chunk) -> TextLayout:
    """How the file is written, as its chunk says; whether it has a header may be seen in it."""
    layout = TextLayout.of(chunk.options)
    if chunk.type == "csv" and layout.header is None:
        layout = dataclasses.replace(layout, header=set(chunk.features) <= set(first_row(file, layout)))
    return layout


def _header(file: Path, chunk: Chunk, layout: TextLayout) -> list[str]:
    """The names of a file's columns."""
    if chunk.type == "parquet":
        return parquet_schema(file, expected="a Parquet file, the type of its chunk").names
    fields = first_row(file, layout)
    if not layout.header:
        if len(fields) != len(chunk.features):
            raise PrepareError(f"{file}, line 1", found=f"{len(fields)} fields", expected=f"{len(chunk.features)}, the "
                               "features of its chunk", do="correct delimiter, header or features of the chunk")
        return list(chunk.features)
    for name, count in Counter(fields).items():
        if name and count > 1:
            raise PrepareError(f"{file}, line 1", found=f"two columns named {name!r}", expected="every name once")
    return fields


# ---- values that are not what the spec says


def check(engine: Engine, spec: FeatureSpec, config: TableConfig, raw: Mapping[str, RawColumn], mapping: str) -> None:
    """Raises PrepareError for the first value of `raw_<mapping>` that is no number, or list that is too long."""
    table = engine.numbered(engine.table(f"raw_{mapping}"))
    if engine.count(table) == 0:
        raise PrepareError(f"{spec.path}: source_spec.{mapping}", found="no rows", expected="at least one")
    faults: list[tuple[str, ir.BooleanColumn, str]] = []
    for name in (name for name in table.columns if name in raw):
        feature, column, type_ = spec.features[name], table[name], raw[name].type
        stored = column.type().value_type if column.type().is_array() else column.type()
        if isinstance(type_, Integer) and stored.is_floating():
            def is_large(value: ir.Value, most: int = _exact_up_to(stored)) -> ir.BooleanValue:
                return (value.abs() > most) & ~value.isnan()

            large = column.filter(is_large).length() > 0 if column.type().is_array() else is_large(column)
            faults.append((name, large, _exact_numbers(stored)))
        if feature.is_multi_hot:
            parts = column if column.type().is_array() else column.cast("string").split(raw[name].list)
            known, most = read_column(parts, raw[name], engine), feature.max_hotness
            too_long = ibis.cases((parts.length() > most, known.length() > most), else_=False)  # few are read
            faults.append((name, too_long, f"at most {most} values (max_hotness)"))
        elif column.type().is_array():
            raise PrepareError(f"{spec.path}: feature_spec.{name}", found="a list column", expected="max_hotness",
                               do="name the length of the longest list: clickwise spec infer finds it")
        elif isinstance(type_, Float):
            unread, finite = type_.unread(column), name in spec.channels.get("numerical", ()) + spec.channels["label"]
            faults.append((name, unread | type_.bulk(column).isinf() if finite else unread,
                           f"a {'finite ' * finite}number, or a text of dataset.missing"))
        elif isinstance(type_, Integer) and not is_id(spec, name):
            known = null_if_missing(Text().bulk(column), config.missing).notnull()
            faults.append((name, type_.bulk(column).isnull() & known, "a whole number, or a text of dataset.missing"))
    if not faults:
        return
    counts = engine.row(table.aggregate(**{
        str(index): table.count(where=fault) for index, (_, fault, _) in enumerate(faults)}))
    for (name, fault, expected), count in zip(faults, counts.values(), strict=True):
        if count:
            bad = table.filter(fault)
            first = engine.row(bad.select("row", value=bad[name]).order_by("row"))
            more = f" ({count:,} such rows)" if count > 1 else ""
            raise PrepareError(f"{spec.folder / spec.mappings[mapping][0].files[0]}, column {name!r}, row "
                               f"{first['row']:,}", found=repr(first["value"])[:80] + more, expected=expected,
                               do=f"correct it, or the entry of {name} in {spec.path}")


def is_id(spec: FeatureSpec, name: str) -> bool:
    return any(name in spec.channels.get(channel, ()) for channel in ("label", *ENCODED))
