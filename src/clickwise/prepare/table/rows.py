"""Raw rows of the files of a Feature Spec as stored tables, and the readings of their columns: text, number, list."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from clickwise.errors import PrepareError, nearest
from clickwise.feature_spec import ID_CHANNELS, Chunk, FeatureSpec
from clickwise.prepare.engine import Engine
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.named_columns import bad_line, first_fields, parquet_schema
from clickwise.prepare.raw_files import BadRows
from clickwise.progress import Progress

if TYPE_CHECKING:
    from clickwise.prepare.table.config import TableConfig

ENCODED = tuple(channel for channel in ID_CHANNELS if "history" not in channel)


def list_delimiter(spec: FeatureSpec, name: str, mapping: str) -> str:
    """What lies between the values of a multi-hot text column; rows cut off `train` come from its chunks."""
    chunks = spec.mappings.get(mapping, spec.mappings["train"])
    return next((chunk.options.get("list_delimiter", "|") for chunk in chunks if name in chunk.features), "|")


def text(column: ir.Column) -> ir.StringColumn:
    """The value as text without space around it; missing where nothing is left."""
    return column.cast("string").strip().nullif("")


def number(column: ir.Column, missing: Sequence[str]) -> ir.FloatingColumn:
    """The value in float64; missing for NaN and the texts of `missing`, and for what is no number (see `check`)."""
    if column.type().is_string():
        column = _known_digits(column, missing).try_cast("float64")
    column = column.cast("float64")
    return column.isnan().ifelse(ibis.null("float64"), column)


def integer(column: ir.Column, missing: Sequence[str]) -> ir.IntegerColumn:
    """The value in int64, likewise."""
    if column.type().is_string():
        return _known_digits(column, missing).try_cast("int64")
    return column.cast("int64")


def _known_digits(column: ir.StringColumn, missing: Sequence[str]) -> ir.StringColumn:
    """`column` without those texts of `missing` that read as numbers (-1, say); the others become missing by a cast."""
    digits = [word for word in missing if any(letter.isdigit() for letter in word)]
    return null_if_missing(text(column), digits) if digits else column


def null_if_missing(column: ir.StringColumn, missing: Sequence[str]) -> ir.StringColumn:
    """`column`, missing where it is one of `missing`. An engine makes a slow join of `isin` with many texts."""
    if not missing:
        return column
    is_missing = column.re_search(f"^({'|'.join(map(re.escape, missing))})$")
    return ibis.cases((is_missing, ibis.null("string")), else_=column)


def list_of_texts(column: ir.Column, delimiter: str) -> ir.ArrayColumn:
    """The values of a list column, or of a text cut at `delimiter`; those without any letter are left out."""
    if column.type().is_array():
        return column.map(lambda value: value.cast("string").strip()).filter(
            lambda value: value.notnull() & (value != ""))
    return column.cast("string").split(delimiter).map(lambda part: part.strip()).filter(lambda part: part != "")


def store_rows(folder: PreparationFolder, spec: FeatureSpec, config: TableConfig,
               columns: Sequence[str]) -> dict[str, int]:
    """Stores `raw_<mapping>` with `columns` for every mapping, the rows in the order of its files, values checked.
    File -> bad rows that were left out."""
    engine, bad_rows = folder.engine, BadRows(config.max_bad_rows, folder.work)
    for mapping, chunks in spec.mappings.items():
        with Progress(f"reading {mapping}", unit="rows") as bar:
            _Reader(engine, bad_rows).store(spec, chunks, columns, f"raw_{mapping}")
            bar.advance(engine.count(engine.table(f"raw_{mapping}")))
        check(engine, spec, config, mapping)
    return bad_rows.found


class _Reader:
    """Reads chunks; `bad_rows` are the lines of CSV that cannot be read, over all of them."""

    def __init__(self, engine: Engine, bad_rows: BadRows) -> None:
        self.engine, self.bad_rows = engine, bad_rows

    def store(self, spec: FeatureSpec, chunks: Sequence[Chunk], columns: Sequence[str], name: str) -> None:
        left, stored = list(columns), []
        for index, chunk in enumerate(chunks):
            files = [spec.folder / file for file in chunk.files]
            headers = {file: _header(file, chunk) for file in files}
            wanted = [column for column in left if all(column in header for header in headers.values())]
            for column in (column for column in chunk.features if column in left and column not in wanted):
                file, header = next((file, header) for file, header in headers.items() if column not in header)
                raise PrepareError(file, found=f"no column {column!r}", expected="a column for every feature",
                                   do=nearest(column, header))
            left = [column for column in left if column not in wanted]
            if wanted:
                self._store(chunk, headers, wanted, f"{name}_{index}" if len(chunks) > 1 else name)
                stored.append(f"{name}_{index}")
        if left and (missing := [column for column in left if column not in spec.features]):
            raise PrepareError(f"{spec.folder / chunks[0].files[0]}", found=f"no column {missing[0]!r}",
                               expected="the column that the split goes by", do=nearest(missing[0], headers[files[0]]))
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

    def _store(self, chunk: Chunk, headers: Mapping[Path, list[str]], columns: Sequence[str], name: str) -> None:
        delimiter = chunk.options.get("delimiter", ",")

        def reason(file: Path) -> Callable[[bytes], str | None]:
            return lambda line: bad_line(line, headers[file], delimiter=delimiter)

        def load(files: list[Path]) -> None:
            self._materialise(chunk, dict(zip(files, headers.values(), strict=True)), columns, name)

        self.bad_rows.read(name[4:], list(headers), load, reason,
                           f"{len(next(iter(headers.values())))} fields with {delimiter!r} between them")

    def _materialise(self, chunk: Chunk, headers: Mapping[Path, list[str]], columns: Sequence[str], name: str) -> None:
        tables, groups = [], []
        for file, header in headers.items():  # files with the same columns are read at once
            if groups and groups[-1][0] == header:
                groups[-1][1].append(file)
            else:
                groups.append((header, [file]))
        for header, files in groups:
            if chunk.type == "parquet":
                table = self.engine.read_parquet(files)
            else:
                fields = {name or f"__{index}": "string" for index, name in enumerate(header)}
                table = self.engine.read_text(files, fields, delimiter=chunk.options.get("delimiter", ","), quote='"',
                                              header=_has_header(files[0], chunk))
            tables.append(table.select(*columns))
        if len(tables) == 1:
            self.engine.materialise(tables[0], name)
            return
        parts = []  # a union keeps no order
        for index, table in enumerate(tables):
            stored = self.engine.materialise(table, f"{name}_part_{index}")
            parts.append(self.engine.numbered(stored).mutate(__part=ibis.literal(index, "int32")))
        self.engine.materialise(ibis.union(*parts).order_by("__part", "row").select(*columns), name)
        for index in range(len(tables)):
            self.engine.drop(f"{name}_part_{index}")


def _has_header(file: Path, chunk: Chunk) -> bool:
    fields = first_fields(file, chunk.options.get("delimiter", ","))
    return chunk.options.get("header", set(chunk.features) <= set(fields))


def _header(file: Path, chunk: Chunk) -> list[str]:
    """The names of a file's columns."""
    if chunk.type == "parquet":
        return parquet_schema(file, expected="a Parquet file, the type of its chunk").names
    fields = first_fields(file, chunk.options.get("delimiter", ","))
    if not _has_header(file, chunk):
        if len(fields) != len(chunk.features):
            raise PrepareError(f"{file}, line 1", found=f"{len(fields)} fields", expected=f"{len(chunk.features)}, the "
                               "features of its chunk", do="correct delimiter, header or features of the chunk")
        return list(chunk.features)
    for name in fields:
        if name and fields.count(name) > 1:
            raise PrepareError(f"{file}, line 1", found=f"two columns named {name!r}", expected="every name once")
    return fields


# ---- values that are not what the spec says


def check(engine: Engine, spec: FeatureSpec, config: TableConfig, mapping: str) -> None:
    """Raises PrepareError for the first value of `raw_<mapping>` that is no number, or list that is too long."""
    table = engine.numbered(engine.table(f"raw_{mapping}"))
    if engine.count(table) == 0:
        raise PrepareError(f"{spec.path}: source_spec.{mapping}", found="no rows", expected="at least one")
    faults: dict[str, tuple[ir.BooleanColumn, str]] = {}
    for name in (name for name in table.columns if name in spec.features):
        feature, column = spec.features[name], table[name]
        if feature.is_multi_hot:
            length = list_of_texts(column, list_delimiter(spec, name, mapping)).length()
            faults[name] = length > feature.max_hotness, f"at most {feature.max_hotness} values (max_hotness)"
        elif column.type().is_array():
            raise PrepareError(f"{spec.path}: feature_spec.{name}", found="a list column", expected="max_hotness",
                               do="name the length of the longest list: clickwise spec infer finds it")
        elif name in spec.channels.get("numerical", ()) or (
                name in spec.channels["label"] and config.label_above is not None):
            found = number(column, config.missing)
            faults[name] = (_unread(column, found, config) | found.isinf(),
                            "a finite number, or a text of dataset.missing")
        elif _is_carried(spec, name) and not feature.is_raw_text:
            found = (number if "float" in feature.dtype else integer)(column, config.missing)
            faults[name] = _unread(column, found, config), f"a number ({feature.dtype}), or a text of dataset.missing"
    if not faults:
        return
    counts = engine.row(table.aggregate(**{name: table.count(where=fault) for name, (fault, _) in faults.items()}))
    for name, count in counts.items():
        if count:
            fault, expected = faults[name]
            bad = table.filter(fault)
            first = engine.row(bad.select("row", value=bad[name]).order_by("row"))
            more = f" ({count:,} such rows)" if count > 1 else ""
            raise PrepareError(f"{spec.folder / spec.mappings[mapping][0].files[0]}, column {name!r}, row "
                               f"{first['row']:,}", found=repr(first["value"])[:80] + more, expected=expected,
                               do=f"correct it, or the entry of {name} in {spec.path}")


def _unread(column: ir.Column, found: ir.Column, config: TableConfig) -> ir.BooleanColumn:
    if not column.type().is_string():
        return ibis.literal(False)
    return found.isnull() & null_if_missing(text(column), config.missing).notnull()


def _is_carried(spec: FeatureSpec, name: str) -> bool:
    return not any(name in spec.channels.get(channel, ()) for channel in ("numerical", "label", *ENCODED))
