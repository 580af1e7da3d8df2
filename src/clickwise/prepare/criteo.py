"""The Criteo click logs (1 label, 13 numbers, 26 hexadecimal values a line) to columns on disk.

The path: raw text → staged tables (hex as 32-bit integers) → one vocabulary per column → ids → raw columns. Only
`steps` says what is computed; docs/data_path.md tells the whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import ibis
import ibis.expr.types as ir
from pyarrow import parquet

from clickwise.errors import PrepareError, nearest
from clickwise.feature_spec import Feature, FeatureSpec, narrowest_id_dtype
from clickwise.files import write_text
from clickwise.prepare import steps, write
from clickwise.prepare.engine import BadInput, Engine, EngineConfig
from clickwise.prepare.output import Output, say
from clickwise.prepare.raw_files import BadRows, estimate_rows, find_files
from clickwise.progress import Progress
from clickwise.recipe import require, to_dict, to_yaml

LABEL = "label"
NUMERICAL = tuple(f"num_{i}" for i in range(13))
CATEGORICAL = tuple(f"cat_{i}" for i in range(26))
CHANNELS = {"numerical": NUMERICAL, "categorical": CATEGORICAL, "label": (LABEL,)}
RAW_TYPES = {LABEL: "int8", **dict.fromkeys(NUMERICAL, "float32"), **dict.fromkeys(CATEGORICAL, "string")}
STAGED_ROW_BYTES = 170
LOG_SHIFT = 3.0  # ln(x + 3): missing and x <= -3 become 0
EXPECTED = "40 fields with tabs between them: a label 0 or 1, 13 numbers, 26 hexadecimal values of up to 8 digits"


@dataclass(frozen=True, kw_only=True)
class CriteoConfig:
    """The section `dataset` of a recipe for `name: criteo`. Files are paths or globs, plain or .gz.

    split            files: `train`, `test` and `validation` as listed · halve_last: the last file of `train` is cut in
                     line order, its first floor(n/2) lines are the test rows, the rest validation (as the reference
                     does with day_23) · fraction_last: the last `fraction` of that file's lines are the test rows
    frequency_limit  a value keeps an id of its own if it occurs at least so often; `frequency_limits` overrides it by
                     column (cat_0 … cat_25)
    fit_on           what the vocabularies are counted on. NOTE[DIFF] the reference counts all days, the test day
                     included; that leak is `all`
    shuffle          permute the training rows, by `seed`; test and validation keep the order of their lines
    max_bad_rows     so many rows that cannot be read are skipped and counted before preparation gives up
    """

    train: list[str]
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

    def __post_init__(self) -> None:
        require(bool(self.train), "train", found=self.train, expected="at least one file")
        for key in ("test", "validation"):
            files = getattr(self, key)
            require(self.split == "files" or not files, key, found=files, expected=f"no files with split: {self.split}",
                    do="the last file of train is cut; name files here only with split: files")
        require(0 < self.fraction < 1, "fraction", found=self.fraction, expected="a number between 0 and 1")
        for column in self.frequency_limits:
            require(column in CATEGORICAL, "frequency_limits", found=column, expected="cat_0 … cat_25",
                    do=nearest(column, CATEGORICAL))
        for key, value in {"frequency_limit": self.frequency_limit, "seed": self.seed,
                           "max_bad_rows": self.max_bad_rows, **self.frequency_limits}.items():
            require(value >= 0, key, found=value, expected="0 or more")


CONFIG = CriteoConfig


class Part(NamedTuple):
    """Rows first … end−1 of a staged table."""

    table: str
    first: int
    end: int


def prepare(config: CriteoConfig, out: Path, *, engine: EngineConfig | None = None, overwrite: bool = False,
            where: str = "criteo") -> Path:
    """The folder `out` with `split_binary` columns, feature_spec.yaml and preparation/ (vocabularies, recipe, summary).

    Mappings: train, test and validation, as far as the split gives them. Raises PrepareError; then `out` is as before.
    """
    engine = engine or EngineConfig()
    groups = _files(config, where)
    recipe = {"dataset": {"name": "criteo", **to_dict(config)}}
    output = Output(out, recipe=recipe, inputs=groups, file_keys=("train", "test", "validation"), engine=engine,
                    overwrite=overwrite)
    if output.unchanged:
        say(f"{out}: already prepared from these files with this recipe")
        return output.out
    with output:
        staged = _stage(output, groups, config.max_bad_rows)
        parts = _split(config, staged["rows"], where)
        cardinalities = _vocabularies(output, config, parts)
        _write(output, config, parts, cardinalities)
        return output.finish({
            "dataset": "criteo", "rows": {mapping: _count(part) for mapping, part in parts.items()},
            "bad_rows_skipped": staged["bad_rows"], "cardinalities": cardinalities, "numerical": f"ln(x + {LOG_SHIFT})",
            "vocabulary_values": "the hexadecimal text as an unsigned integer", "ibis": ibis.__version__,
        })


def _files(config: CriteoConfig, where: str) -> dict[str, list[Path]]:
    """Staged table -> its raw files. The file that is cut has a table of its own, `last`."""
    groups = {key: find_files(getattr(config, key), f"{where}.dataset.{key}")
              for key in ("train", "test", "validation")}
    if config.split != "files":
        groups["last"] = [groups["train"].pop()]
        if config.split == "halve_last" and not groups["train"]:
            raise PrepareError(f"{where}.dataset.train: {groups['last'][0]}",
                               found="one file, which split: halve_last cuts into test and validation",
                               expected="files before it to train on", do="add files, or use split: fraction_last")
    seen: dict[Path, str] = {}
    for group, files in groups.items():
        for file in files:
            if seen.setdefault(file.resolve(), group) != group:
                key, other = ("train" if name == "last" else name for name in (group, seen[file.resolve()]))
                raise PrepareError(f"{where}.dataset.{key}: {file}", found=f"a file that is in {other} too",
                                   expected="every file once", do="test rows in train make every metric a lie")
    return {group: files for group, files in groups.items() if files}


# ---- raw text -> staged tables


def _stage(output: Output, groups: Mapping[str, Sequence[Path]], max_bad_rows: int) -> dict:
    """Reads every raw file once: rows by table and bad rows by file; the tables lie in the engine."""
    if output.done("raw files read"):
        return output.facts("raw files read")
    estimates = {group: estimate_rows(files) for group, files in groups.items()}
    known = None not in estimates.values()
    engine = output.engine(tables_bytes=STAGED_ROW_BYTES * sum(estimates.values()) if known else None)
    rows, bad_rows = {}, BadRows(bad_line, max_bad_rows, EXPECTED)
    for group, files in groups.items():
        total = estimates[group]
        with Progress(f"reading {group}", total=total) as bar:
            def report(share: float, bar=bar, total=total) -> None:
                bar.advance(max(0, int(share * (total or 0)) - bar.done))

            try:
                with engine.watched(report):
                    rows[group] = _stage_files(engine, group, files)
            except BadInput:
                say(f"reading {group}: a row cannot be read; looking at every line")
                good = bad_rows.without(files, output.work / "without_bad_rows")
                try:
                    rows[group] = _stage_files(engine, group, good)
                except BadInput as error:
                    raise PrepareError(", ".join(map(str, files)), found=str(error).splitlines()[0],
                                       expected=EXPECTED) from None
            bar.total = rows[group]
            bar.advance(rows[group] - bar.done)
        if rows[group] == 0:
            raise PrepareError(", ".join(map(str, files)), found="no rows", expected=EXPECTED)
    output.mark("raw files read", {"rows": rows, "bad_rows": bad_rows.found})
    return output.facts("raw files read")


def _stage_files(engine: Engine, name: str, files: Sequence[Path]) -> int:
    """Stores the rows of `files` as the table `name` and returns how many; raises BadInput."""
    raw = engine.read_text(files, RAW_TYPES)
    table = engine.materialise(raw.mutate(**{column: engine.parse_hex(raw[column]) for column in CATEGORICAL}), name)
    label = ibis.coalesce(table[LABEL], 2)
    found = engine.row(table.aggregate(
        rows=table.count(), low=label.min(), high=label.max(),
        **{column: table[column].cast("float64").sum() for column in NUMERICAL}))  # shows NaN and infinity
    if found["rows"] and (found["low"] < 0 or found["high"] > 1):
        raise BadInput("a label that is neither 0 nor 1")
    for column in NUMERICAL:
        if not math.isfinite(found[column] or 0.0):
            raise BadInput(f"a value of {column} that is no finite number")
    return found["rows"]


_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_HEX = re.compile(rb"[0-9a-fA-F]{0,8}")
_NUMBERS, _VALUES = (rb"(?:\t(?:%s)?)" % _NUMBER.pattern) * 13, rb"(?:\t[0-9a-fA-F]{0,8}){26}"
_GOOD_LINE = re.compile(rb"[01]" + _NUMBERS + _VALUES)


def bad_line(line: bytes) -> str | None:
    """What is wrong with a raw line; None for a good one."""
    if _GOOD_LINE.fullmatch(line):
        return None
    fields = line.split(b"\t")
    if len(fields) != 40:
        plural = "" if len(fields) == 1 else "s"
        return f"{len(fields)} field{plural}"
    if fields[0] not in (b"0", b"1"):
        return f"the label {_show(fields[0])}"
    for name, text in zip(NUMERICAL, fields[1:14], strict=True):
        if text and not _NUMBER.fullmatch(text):
            return f"{_show(text)} in {name}, which is no number"
    for name, text in zip(CATEGORICAL, fields[14:], strict=True):
        if not _HEX.fullmatch(text):
            return f"{_show(text)} in {name}, which is no hexadecimal value of up to 8 digits"
    return "a line that cannot be read"


def _show(text: bytes) -> str:
    return repr(text[:40].decode(errors="replace"))


# ---- which rows belong to which mapping


def _split(config: CriteoConfig, rows: Mapping[str, int], where: str) -> dict[str, list[Part]]:
    """Mapping -> the parts of staged tables that it consists of, in order."""
    parts = {group: [Part(group, 0, count)] for group, count in rows.items() if group != "last"}
    if config.split != "files":
        last = rows["last"]
        if config.split == "halve_last":
            cut = {"test": Part("last", 0, last // 2), "validation": Part("last", last // 2, last)}
        else:
            first = last - round(last * config.fraction)
            cut = {"train": Part("last", 0, first), "test": Part("last", first, last)}
        for mapping, part in cut.items():
            if part.end == part.first:
                raise PrepareError(f"{where}.dataset.split",
                                   found=f"no row for {mapping} in a last file of {last} rows",
                                   expected="at least one row in every part", do="choose another fraction or file")
            parts.setdefault(mapping, []).append(part)
    return parts


def _count(parts: Sequence[Part]) -> int:
    return sum(part.end - part.first for part in parts)


def _rows(engine: Engine, parts: Sequence[Part], columns: Sequence[str]) -> ir.Table:
    """`row` (0, 1, … through the parts) and `columns` of the rows of `parts`."""
    tables, start = [], 0
    for part in parts:
        table = engine.numbered(engine.table(part.table)).select("row", *columns)
        tables.append(table if (part.first, start) == (0, 0) and len(parts) == 1 and part.table != "last"
                      else steps.rows_between(table, part.first, part.end, start=start))
        start += part.end - part.first
    return tables[0] if len(tables) == 1 else ibis.union(*tables)


# ---- vocabularies, ids, columns


def _vocabularies(output: Output, config: CriteoConfig, parts: Mapping[str, Sequence[Part]]) -> dict[str, int]:
    """Fits one vocabulary per column, stores it in the engine and beside the output; column -> cardinality."""
    if output.done("vocabularies"):
        return output.facts("vocabularies")
    fitted = parts["train"] if config.fit_on == "train" else [part for each in parts.values() for part in each]
    engine, rows, cardinalities = output.engine(), _count(fitted), {}
    folder = output.preparation / "vocabularies"
    folder.mkdir(exist_ok=True)
    with Progress("counting values", total=rows * len(CATEGORICAL), unit="values") as bar:
        for column in CATEGORICAL:
            limit = config.frequency_limits.get(column, config.frequency_limit)
            vocabulary = steps.vocabulary(_rows(engine, fitted, [column]), column, limit)
            vocabulary = engine.materialise(vocabulary, f"vocabulary_{column}")
            engine.write_parquet(vocabulary.order_by("id"), folder / f"{column}.parquet")
            cardinalities[column] = parquet.read_metadata(folder / f"{column}.parquet").num_rows + 1
            bar.advance(rows, column)
    output.mark("vocabularies", cardinalities)
    return cardinalities


def _write(output: Output, config: CriteoConfig, parts: Mapping[str, Sequence[Part]],
           cardinalities: Mapping[str, int]) -> None:
    engine = output.engine()
    features = {name: Feature(name, "float16") for name in NUMERICAL}
    features |= {name: Feature(name, narrowest_id_dtype(size), cardinality=size)
                 for name, size in cardinalities.items()}
    features[LABEL] = Feature(LABEL, "bool")

    def columns(mapping: str, names: tuple[str, ...]) -> ir.Table:
        table = _rows(engine, parts[mapping], names)
        if names == NUMERICAL:
            return table.select("row", **{name: steps.log_shifted(table[name], LOG_SHIFT) for name in names})
        if names == (LABEL,):
            return table
        return steps.encode(table, names[0], engine.table(f"vocabulary_{names[0]}"))

    written = write.write_dataset(output, columns, features=features, channels=CHANNELS,
                                  rows={mapping: _count(part) for mapping, part in parts.items()},
                                  shuffle_seed=config.seed if config.shuffle else None)
    if set(parts) > {"train", "test"}:  # NVIDIA's loaders refuse a spec with any other mapping
        two = {mapping: written.mappings[mapping] for mapping in ("train", "test")}
        spec = FeatureSpec(features, two, CHANNELS, folder=output.dataset)
        write_text(output.dataset / "feature_spec_train_test.yaml", to_yaml(spec.to_dict()))
