"""The Criteo click logs (1 label, 13 numbers, 26 hexadecimal values a line) to columns on disk.

The path: raw text → staged tables (hex as 32-bit integers) → one vocabulary per column → encoding → columns.
docs/data_path.md tells the whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from pyarrow import parquet

from clickwise.encoding import Column, Encoding, RawColumn
from clickwise.encoding.operations import LogShifted, Vocabulary
from clickwise.encoding.raw_types import Boolean, Float, Hex32, Unreadable
from clickwise.errors import PrepareError, nearest
from clickwise.feature_spec import Feature, FeatureSpec, narrowest_id_dtype
from clickwise.files import whole_file, write_text
from clickwise.prepare import steps
from clickwise.prepare.encode import EXAMPLE_ROWS, EXAMPLES, save_encoding, write_encoded
from clickwise.prepare.engine import BadInput, Engine
from clickwise.prepare.further_rows import Source
from clickwise.prepare.preparation import Preparation
from clickwise.prepare.raw_files import BadRows, estimate_rows, find_files, named
from clickwise.prepare.raw_text import RawText
from clickwise.prepare.section import Section
from clickwise.prepare.vocabularies import store_vocabularies
from clickwise.progress import Progress
from clickwise.recipe import require, to_yaml
from clickwise.text_files import PlainText, TextLayout

LABEL = "label"
NUMERICAL = tuple(f"num_{i}" for i in range(13))
CATEGORICAL = tuple(f"cat_{i}" for i in range(26))
CHANNELS = {"numerical": NUMERICAL, "categorical": CATEGORICAL, "label": (LABEL,)}
RAW = {LABEL: RawColumn(Boolean()), **dict.fromkeys(NUMERICAL, RawColumn(Float(bits=32, strict=True))),
       **dict.fromkeys(CATEGORICAL, RawColumn(Hex32()))}
LAYOUT = TextLayout("\t", quote="", encoding="utf-8-sig", header=False)
MARKS = (b" ", b"\v", b"\f", b"_", b"+", b"n", b"N")  # in all that an engine takes for a number though it is none
NO_LABEL = 2
STAGED_ROW_BYTES = 170
LOG_SHIFT = 3.0  # ln(x + 3): missing and x <= -3 become 0
EXPECTED = "40 fields with tabs between them: a label 0 or 1, 13 numbers, 26 hexadecimal values of up to 8 digits"


@dataclass(frozen=True, kw_only=True)
class CriteoConfig(Section):
    """The section `dataset` of a recipe for `name: criteo`. Files are paths or globs, plain or .gz.

    train, test, validation   files and patterns of the mappings
    fraction         of fraction_last
    split            files: `train`, `test` and `validation` as listed · halve_last: the last file of `train` is divided
                     in line order, its first floor(n/2) lines are the test rows, the rest validation (as the reference
                     does with day_23) · fraction_last: the last `fraction` of that file's lines are the test rows
    frequency_limit  a value keeps an id of its own if it occurs at least so often; `frequency_limits` overrides it by
                     column (cat_0 … cat_25)
    fit_on           what the vocabularies are counted on. NOTE[DIFF] the reference counts all days, the test day
                     included; that leak is `all`
    shuffle          permute the training rows, by `seed`; test and validation keep the order of their lines
    max_bad_rows     so many rows that cannot be read are skipped and counted before preparation gives up
    input            with --with FOLDER: files of further raw rows, which become the mapping `input`
    """

    train: list[str] = field(default=())
    test: list[str] = field(default=())
    validation: list[str] = field(default=())
    split: Literal["files", "halve_last", "fraction_last"] = "files"
    fraction: float = 0.1
    frequency_limit: int = 15
    frequency_limits: dict[str, int] = field(default_factory=dict)
    fit_on: Literal["train", "all"] = "train"
    shuffle: bool = True
    seed: int = 0
    max_bad_rows: int = 0
    input: list[str] = field(default=())

    def __post_init__(self) -> None:
        require(bool(self.train or self.input), "train", found=self.train, expected="at least one file")
        for key in ("test", "validation"):
            files = getattr(self, key)
            require(self.split == "files" or not files, key, found=files, expected=f"no files with split: {self.split}",
                    do="the last file of train is divided; name files here only with split: files")
        require(0 < self.fraction < 1, "fraction", found=self.fraction, expected="a number between 0 and 1")
        for column in self.frequency_limits:
            require(column in CATEGORICAL, "frequency_limits", found=column, expected="cat_0 … cat_25",
                    do=nearest(column, CATEGORICAL))
        self.require_at_least(0, "frequency_limit", "seed", "max_bad_rows", "frequency_limits")


class RowRange(NamedTuple):
    """Rows first … end−1 of a staged table."""

    table: str
    first: int
    end: int


class Criteo(Preparation):
    """`split_binary` columns; mappings train, test and validation, as far as the split gives them."""

    Config = CriteoConfig
    file_keys = ("train", "test", "validation")
    trained_by, trained_by_if_small = "criteo/dlrm", "criteo/dlrm_small"

    def raw_files(self) -> dict[str, list[Path]]:
        """Staged table -> its raw files. The file that is divided has a table of its own, `last`."""
        groups = {key: find_files(getattr(self.config, key), f"{self.where}.{key}") for key in self.file_keys}
        if self.config.split != "files":
            groups["last"] = [groups["train"].pop()]
            if self.config.split == "halve_last" and not groups["train"]:
                raise PrepareError(f"{self.where}.train: {groups['last'][0]}",
                                   found="one file, which split: halve_last divides into test and validation",
                                   expected="files before it to train on", do="add files, or use split: fraction_last")
        seen: dict[Path, str] = {}
        for group, files in groups.items():
            for file in files:
                if seen.setdefault(file.resolve(), group) != group:
                    key, other = ("train" if name == "last" else name for name in (group, seen[file.resolve()]))
                    raise PrepareError(f"{self.where}.{key}: {file}", found=f"a file that is in {other} too",
                                       expected="every file once", do="test rows in train make every metric a lie")
        return {group: files for group, files in groups.items() if files}

    def further(self) -> dict[str, Source]:
        keys = ("input",) if self.config.input else self.file_keys
        if self.config.split != "files" and not self.config.input:
            raise PrepareError(f"{self.where}.split", found=f"{self.config.split} with --with",
                               expected="split: files, or files in dataset.input")
        return {key: Source(find_files(files, f"{self.where}.{key}")) for key in keys
                if (files := getattr(self.config, key))}

    def tables_bytes(self, files: Mapping[str, Sequence[Path]]) -> int | None:
        rows = [estimate_rows(group) for group in files.values()]
        return None if None in rows else STAGED_ROW_BYTES * sum(rows)

    def store(self, files: Mapping[str, Sequence[Path]]) -> None:
        self.read = self.folder.stage("raw files read", lambda: self._read(files))
        self.parts = _split(self.config, self.read["rows"], self.where)

    def _read(self, groups: Mapping[str, Sequence[Path]]) -> dict:
        """Reads every raw file once: rows by table and bad rows by file; the tables lie in the engine."""
        rows = {}
        bad_rows = BadRows(self.config.max_bad_rows, self.folder.work, threads=self.folder.engine_config.threads)
        for group, files in groups.items():
            with Progress(f"reading {group}", total=estimate_rows(files)) as bar:
                with self.engine.watched(bar, bad_rows.share):
                    texts = [RawText(file, LAYOUT, len(RAW), wrong_in, MARKS, unmarked_first=True) for file in files]
                    rows[group], _ = bad_rows.read_text(group, texts, lambda plain, name=group: _stage_files(
                        self.engine, name, plain), EXPECTED)
                bar.total = rows[group]
                bar.advance(rows[group] - bar.done)
            if rows[group] == 0:
                raise PrepareError(named(files), found="no rows", expected=EXPECTED)
        return {"rows": rows, "bad_rows": bad_rows.found}

    def fit(self) -> None:
        parts = self.parts["train"] if self.config.fit_on == "train" else \
            [part for each in self.parts.values() for part in each]
        tables = {column: _rows(self.engine, parts, [column]) for column in CATEGORICAL}
        self.sizes = self.folder.stage("vocabularies", lambda: store_vocabularies(
            self.folder, tables, self.config.limit))
        self.features = {name: Feature(name, "float16") for name in NUMERICAL}
        self.features |= {name: Feature(name, narrowest_id_dtype(size), cardinality=size)
                          for name, size in self.sizes.items()}
        self.features[LABEL] = Feature(LABEL, "bool")
        steps = {**dict.fromkeys(NUMERICAL, (LogShifted(LOG_SHIFT),)),
                 **{name: (Vocabulary(name),) for name in CATEGORICAL}, LABEL: ()}
        self.encoding = Encoding(RAW, {name: Column(name, steps[name], self.features[name].dtype) for name in RAW},
                                 layout={"delimiter": "\t", "columns": list(RAW), "label": LABEL})
        self.folder.stage("encoding", self._save_encoding)

    def _save_encoding(self) -> None:
        save_encoding(self.folder, self.encoding)
        if "test" in self.parts:
            rows = _rows(self.engine, self.parts["test"], list(RAW)).order_by("row").limit(EXAMPLE_ROWS)
            (batch,) = pa.Table.from_batches(self.engine.batches(rows.drop("row"))).combine_chunks().to_batches()
            texts = {name: pa.array([None if value is None else f"{value:08x}" for value in batch[name].to_pylist()])
                     for name in CATEGORICAL}
            with whole_file(self.folder.preparation / EXAMPLES) as temporary:
                parquet.write_table(pa.table({name: texts.get(name, batch[name]) for name in RAW}), temporary)

    def write(self) -> None:
        written, self.values = write_encoded(
            self.folder, self.encoding, lambda mapping, names: _rows(self.engine, self.parts[mapping], names),
            features=self.features, channels=CHANNELS, rows=self.rows,
            shuffle_seed=self.config.seed if self.config.shuffle else None)
        if set(self.parts) > {"train", "test"}:  # NVIDIA's loaders refuse a spec with any other mapping
            two = {mapping: written.mappings[mapping] for mapping in ("train", "test")}
            spec = FeatureSpec(self.features, two, CHANNELS, folder=self.folder.dataset)
            write_text(self.folder.dataset / "feature_spec_train_test.yaml", to_yaml(spec.to_dict()))

    @property
    def rows(self) -> dict[str, int]:
        return {mapping: sum(part.end - part.first for part in parts) for mapping, parts in self.parts.items()}

    def summary(self) -> dict[str, Any]:
        return {"rows": self.rows, "bad_rows_skipped": self.read["bad_rows"], "cardinalities": self.sizes,
                "without_an_id": self.values, "numerical": f"ln(x + {LOG_SHIFT})",
                "vocabulary_values": "the hexadecimal text as an unsigned integer"}


DATASET = Criteo


# ---- raw text -> staged tables


def _stage_files(engine: Engine, name: str, files: Sequence[PlainText]) -> int:
    """Stores the rows of `files` as the table `name` and returns how many; raises BadInput."""
    marked = any(file.marked for file in files)
    types = dict.fromkeys(RAW, "string") | dict.fromkeys(NUMERICAL, "string" if marked else "float32")
    raw = engine.read_text([file.path for file in files], types, longest=max(file.longest for file in files))
    label = ibis.cases((raw[LABEL] == "0", ibis.literal(0, "int8")), (raw[LABEL] == "1", ibis.literal(1, "int8")),
                       else_=ibis.literal(NO_LABEL, "int8"))
    numbers = {column: engine.parse_number(raw[column], RAW[column].type) if marked else raw[column]
               for column in NUMERICAL}
    table = engine.materialise(raw.select(**{
        LABEL: label, **numbers, **{column: engine.parse_hex(raw[column]) for column in CATEGORICAL}}), name)
    found = engine.row(table.aggregate(
        rows=table.count(), label=table[LABEL].max(),
        **{column: table[column].cast("float64").sum() for column in NUMERICAL}))  # shows infinity
    if found["rows"] and found["label"] == NO_LABEL:
        raise BadInput("a label that is neither 0 nor 1")
    for column in NUMERICAL:
        if not math.isfinite(found[column] or 0.0):
            raise BadInput(f"a value of {column} that is no finite number")
    return found["rows"]


# Nearly all rows are such: the others are looked at field by field, which takes ten times as long.
_is_ordinary = re.compile(r"[01](?:\t(?:-?[0-9]{1,18})?){13}(?:\t[0-9a-f]{0,8}){26}").fullmatch


def wrong_in(fields: Sequence[str]) -> str | None:
    """What is wrong with a raw row; None for a good one."""
    if _is_ordinary("\t".join(fields)):
        return None
    if fields[0] not in ("0", "1"):
        return f"the label {fields[0][:40]!r}"
    for (name, column), text in zip(RAW.items(), fields, strict=True):
        try:
            column.type.one(text)
        except Unreadable as error:
            return f"{text[:40]!r} in {name}, which is not {error.expected}"
    return None


# ---- which rows belong to which mapping


def _split(config: CriteoConfig, rows: Mapping[str, int], where: str) -> dict[str, list[RowRange]]:
    """Mapping -> the parts of staged tables that it consists of, in order."""
    parts = {group: [RowRange(group, 0, count)] for group, count in rows.items() if group != "last"}
    if config.split != "files":
        last = rows["last"]
        if config.split == "halve_last":
            divided = {"test": RowRange("last", 0, last // 2), "validation": RowRange("last", last // 2, last)}
        else:
            first = last - round(last * config.fraction)
            divided = {"train": RowRange("last", 0, first), "test": RowRange("last", first, last)}
        for mapping, part in divided.items():
            if part.end == part.first:
                raise PrepareError(f"{where}.split",
                                   found=f"no row for {mapping} in a last file of {last} rows",
                                   expected="at least one row in every part", do="choose another fraction or file")
            parts.setdefault(mapping, []).append(part)
    return parts


def _rows(engine: Engine, parts: Sequence[RowRange], columns: Sequence[str]) -> ir.Table:
    """`row` (0, 1, … through the parts) and `columns` of the rows of `parts`."""
    tables, start = [], 0
    for part in parts:
        table = engine.numbered(engine.table(part.table), *columns)
        tables.append(table if (part.first, start) == (0, 0) and len(parts) == 1 and part.table != "last"
                      else steps.rows_between(table, part.first, part.end, start=start))
        start += part.end - part.first
    return tables[0] if len(tables) == 1 else ibis.union(*tables)
