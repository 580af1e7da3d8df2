"""The Criteo click logs (1 label, 13 numbers, 26 hexadecimal values a line) to columns on disk.

The path: raw text → a file per column (`criteo_columns`) → one vocabulary per column → encoding → columns, without an
engine: reading the text with one takes as long as all of this. docs/data_path.md tells the whole.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from clickwise.arrow_arrays import filled, of_numbers, of_texts
from clickwise.encoding import Column, Encoding, RawColumn
from clickwise.encoding.operations import LogShifted, Vocabulary
from clickwise.encoding.raw_types import Boolean, Unreadable
from clickwise.errors import PrepareError, nearest
from clickwise.feature_spec import Chunk, Feature, FeatureSpec, narrowest_id_dtype, split_binary_chunks
from clickwise.files import whole_file, write_text
from clickwise.machine import usable_cores
from clickwise.memory import keep_freed_memory
from clickwise.prepare.criteo_columns import BLOCK_ROWS, CriteoColumns, RowRange, in_blocks, in_order
from clickwise.prepare.criteo_text import NUMBER, NUMBERS, VALUE, VALUES
from clickwise.prepare.further_rows import Source
from clickwise.prepare.preparation import Preparation
from clickwise.prepare.raw_files import BadRows, estimate_rows, find_files, named
from clickwise.prepare.raw_text import RawText
from clickwise.prepare.scatter import RowOrder, ScatterFile
from clickwise.prepare.section import Section
from clickwise.prepare.value_counts import BYTES, count_values
from clickwise.prepare.vocabularies import read_vocabulary, write_counted
from clickwise.prepare.written import EXAMPLE_ROWS, EXAMPLES, looked_at, save_encoding
from clickwise.progress import Progress
from clickwise.recipe import require, to_yaml
from clickwise.text_files import PlainText, TextLayout

LABEL = "label"
NUMERICAL = tuple(f"num_{i}" for i in range(NUMBERS))
CATEGORICAL = tuple(f"cat_{i}" for i in range(VALUES))
CHANNELS = {"numerical": NUMERICAL, "categorical": CATEGORICAL, "label": (LABEL,)}
RAW = {LABEL: RawColumn(Boolean()), **dict.fromkeys(NUMERICAL, RawColumn(NUMBER)),
       **dict.fromkeys(CATEGORICAL, RawColumn(VALUE))}
LAYOUT = TextLayout("\t", quote="", encoding="utf-8-sig", header=False)
SMALL = 4096
LONGEST_LINE = 1 << 26  # bytes
COUNTED_ROWS = 1 << 22  # together: the different values of two blocks have to be put together
STAGED_ROW_BYTES = 1 + 4 * NUMBERS + 5 * VALUES
LOG = LogShifted(3.0)  # ln(x + 3): missing and x <= -3 become 0
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
        """Reads every raw file once: rows by table and bad rows by file."""
        keep_freed_memory()  # pages that every block takes anew cost as much as its arithmetic
        rows = {}
        bad_rows = BadRows(self.config.max_bad_rows, self.folder.work, threads=self.folder.engine_config.threads)
        for group, files in groups.items():
            with Progress(f"reading {group}", total=estimate_rows(files)) as bar:
                texts = [RawText(file, LAYOUT, len(RAW), wrong_in) for file in files]
                rows[group], _ = bad_rows.read_text(group, texts, functools.partial(
                    self._store_texts, group, files, bar.advance), EXPECTED)
                bar.total = rows[group]
                bar.advance(rows[group] - bar.done)
            if rows[group] == 0:
                raise PrepareError(named(files), found="no rows", expected=EXPECTED)
        return {"rows": rows, "bad_rows": bad_rows.found}

    def _store_texts(self, group: str, files: Sequence[Path], report: Callable[[int], None],
                     plain: Sequence[PlainText]) -> int:
        """Long lines are rows only in copies, from which all that are none have been left out. Those that are too long
        to be looked at are refused: no number and no value needs as many characters."""
        for text in plain:
            if text.path in files and text.longest > LONGEST_LINE:
                raise PrepareError(str(text.path), found=f"a line of {text.longest:,} bytes", expected=EXPECTED,
                                   do=f"correct or remove it: lines are read up to {LONGEST_LINE:,} bytes")
        return self.columns.store(
            group, [(text.path, 0 if text.path in files else text.longest) for text in plain], report)

    @functools.cached_property
    def columns(self) -> CriteoColumns:
        return CriteoColumns(self.folder.tables, self.threads)

    @property
    def threads(self) -> int:
        return self.folder.engine_config.threads or usable_cores()

    def fit(self) -> None:
        self.sizes = self.folder.stage("vocabularies", self._store_vocabularies)
        self.features = {name: Feature(name, "float16") for name in NUMERICAL}
        self.features |= {name: Feature(name, narrowest_id_dtype(size), cardinality=size)
                          for name, size in self.sizes.items()}
        self.features[LABEL] = Feature(LABEL, "bool")
        steps = {**dict.fromkeys(NUMERICAL, (LOG,)), **{name: (Vocabulary(name),) for name in CATEGORICAL}, LABEL: ()}
        self.encoding = Encoding(RAW, {name: Column(name, steps[name], self.features[name].dtype) for name in RAW},
                                 layout={"delimiter": "\t", "columns": list(RAW), "label": LABEL})
        self.folder.stage("encoding", self._save_encoding)

    def _store_vocabularies(self) -> dict[str, int]:
        """Feature -> cardinality."""
        parts = self.parts["train"] if self.config.fit_on == "train" else \
            [part for each in self.parts.values() for part in each]
        most = self.folder.engine_config.memory_bytes // (4 * BYTES * self.threads)

        def fit(name: str) -> int:
            return 1 + write_counted(self.folder, name, *count_values(
                lambda: (self.columns.values(part, name) for part in in_blocks(parts, min(most, COUNTED_ROWS))),
                self.config.limit(name), most))

        sizes = {}
        with Progress("counting values", total=len(CATEGORICAL), unit="features") as bar:
            for name, size in zip(CATEGORICAL, in_order(fit, CATEGORICAL, self.threads), strict=True):
                sizes[name] = size
                bar.advance(1, name)
        return sizes

    def _save_encoding(self) -> None:
        save_encoding(self.folder, self.encoding)
        if "test" in self.parts:
            part = next(in_blocks(self.parts["test"], EXAMPLE_ROWS))
            columns = {LABEL: of_numbers(self.columns.labels(part).astype(np.int32))}
            columns |= {name: of_numbers(column, np.isnan(column))
                        for name, column in zip(NUMERICAL, self.columns.numbers(part).T.copy(), strict=True)}
            for name in CATEGORICAL:
                values = self.columns.values(part, name).to_pylist()
                columns[name] = of_texts([None if value is None else f"{value:08x}" for value in values])
            with whole_file(self.folder.preparation / EXAMPLES) as temporary:
                parquet.write_table(pa.table(columns), temporary)

    def write(self) -> None:
        mappings = {mapping: split_binary_chunks(self.features, CHANNELS, mapping) for mapping in self.parts}
        for mapping, chunks in mappings.items():
            self.folder.stage(f"{mapping} written", functools.partial(self._write_mapping, mapping, chunks))
        written = FeatureSpec(self.features, mappings, CHANNELS, folder=self.folder.dataset)
        written.save(self.folder.dataset)
        self.values = looked_at(self.folder, written, Encoding.load(self.folder.preparation), self.rows)
        if set(self.parts) > {"train", "test"}:  # NVIDIA's loaders refuse a spec with any other mapping
            two = {mapping: written.mappings[mapping] for mapping in ("train", "test")}
            spec = FeatureSpec(self.features, two, CHANNELS, folder=self.folder.dataset)
            write_text(self.folder.dataset / "feature_spec_train_test.yaml", to_yaml(spec.to_dict()))

    def _write_mapping(self, mapping: str, chunks: Sequence[Chunk]) -> None:
        """Writes the files of a mapping, as many at once as there are threads."""
        rows, seed = self.rows[mapping], self.config.seed if self.config.shuffle and mapping == "train" else None
        spill = self.folder.work / "spill"
        spill.mkdir(exist_ok=True)
        (self.folder.dataset / mapping).mkdir(parents=True, exist_ok=True)
        order = RowOrder(rows, seed, spill / f"{mapping}.order", self.folder.buffer_bytes)

        def write_chunk(chunk: Chunk) -> str:
            name = chunk.features[0]
            with ScatterFile(self.folder.dataset / chunk.files[0], rows, self.features[name].dtype,
                             len(chunk.features), buffer_bytes=2 * self.folder.buffer_bytes // self.threads,
                             spill_folder=spill) as file:
                done = 0
                for part, values in self._encoded(self.parts[mapping], name):
                    end = done + part.end - part.first
                    file.put(order.between(done, end), values)
                    done = end
            return chunk.files[0]

        with Progress(f"writing {mapping}", total=rows * len(chunks), unit="values") as bar:
            for file in in_order(write_chunk, chunks, self.threads):
                bar.advance(rows, file)
        order.remove()

    def _encoded(self, parts: Sequence[RowRange], name: str) -> Iterator[tuple[RowRange, np.ndarray]]:
        """Blocks of rows, with what is written of the column `name` or, of numbers, of all columns."""
        if name == LABEL:
            yield from ((part, self.columns.labels(part)) for part in in_blocks(parts))
        elif name in NUMERICAL:
            for part in in_blocks(parts, BLOCK_ROWS // len(NUMERICAL)):
                yield part, logarithms(self.columns.numbers(part))
        else:
            known = read_vocabulary(self.folder, name)
            for part in in_blocks(parts, max(BLOCK_ROWS, 2 * len(known))):  # a hash table is built for each block
                yield part, filled(pc.index_in(self.columns.values(part, name), known), -1) + np.int32(1)

    @property
    def rows(self) -> dict[str, int]:
        return {mapping: sum(part.end - part.first for part in parts) for mapping, parts in self.parts.items()}

    def summary(self) -> dict[str, Any]:
        return {"rows": self.rows, "bad_rows_skipped": self.read["bad_rows"], "cardinalities": self.sizes,
                "without_an_id": self.values, "numerical": f"ln(x + {LOG.shift})",
                "vocabulary_values": "the hexadecimal text as an unsigned integer"}


DATASET = Criteo


# ---- rows that cannot be read


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


# ---- numbers


def logarithms(x: np.ndarray) -> np.ndarray:
    """`LOG` of float32, as float16; NaN is missing. Most are small whole numbers, which are looked up."""
    with np.errstate(invalid="ignore"):
        whole = x.astype(np.int32)
    y = _small_logarithms().take(whole, mode="clip")
    others = (whole != x) | (whole.view(np.uint32) >= SMALL)
    y[others] = _logarithms(x[others])
    return y


@functools.cache
def _small_logarithms() -> np.ndarray:
    return _logarithms(np.arange(SMALL, dtype=np.float32))


def _logarithms(x: np.ndarray) -> np.ndarray:
    return LOG.many(x.astype(np.float64)).astype(np.float32).astype(np.float16)


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
