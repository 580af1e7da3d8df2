"""Labels of raw rows, and which row belongs to which mapping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import ibis
import ibis.expr.types as ir

from clickwise.encoding import Encoding
from clickwise.encoding.operations import Hash60
from clickwise.encoding.raw_types import Float, Text, Time
from clickwise.errors import PrepareError
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare.encode import read_column, through
from clickwise.prepare.engine import Engine
from clickwise.prepare.table.raw_columns import null_if_missing
from clickwise.prepare.table.row_counts import files_of, spans_of
from clickwise.prepare.table.rows import FILE
from clickwise.prepare.written import mapping_of_examples
from clickwise.progress import Progress, say

if TYPE_CHECKING:
    from clickwise.prepare.table.config import TableConfig
    from clickwise.prepare.table.in_engine import RowsInEngine
    from clickwise.prepare.table.in_memory import RowsInMemory


class Split(NamedTuple):
    """Mapping → its rows, and by the column `order_by` its first and last moment; rows left out for want of a label;
    what `row_counts.files_of` finds in the mappings of several files."""

    rows: dict[str, int]
    unlabelled: int
    spans: dict[str, tuple[str, str]]
    files: dict[str, dict[str, dict[str, Any]]]


def split(rows: RowsInEngine | RowsInMemory, engine: Engine, spec: FeatureSpec, config: TableConfig,
          encoding: Encoding, where: str) -> Split:
    """Has `rows` keep the rows of every mapping, each value read once. The first rows of test, or else of validation,
    go to preparation/examples.parquet as they are."""
    counts: dict[str, tuple[int, int]] = {}
    spans: dict[str, tuple[str, str]] = {}
    files: dict[str, dict[str, dict[str, Any]]] = {}
    unlabelled = 0
    (label,) = spec.channels["label"]
    time = Time(spec.features[config.order_by].time_format if config.order_by in spec.features else None)
    check_label(engine, spec, config, encoding, where)
    rows.examples = mapping_of_examples({*spec.mappings, *shares_of(spec, config)})
    with Progress("splitting", unit="rows") as bar:
        for mapping in spec.mappings:
            table = rows.to_split(mapping, [name for name in {label, config.split_by, config.order_by} if name])
            table = table.mutate(__label=_label(table, label, encoding, engine))
            shares = shares_of(spec, config) if mapping == "train" else {}
            part = part_of(engine, table.filter(table["__label"].notnull()), table, shares, config, where, time)
            if config.order_by is not None:
                spans |= spans_of(engine, table, part, [mapping, *shares], config.order_by, time)
            if FILE in table.columns:
                names = spec.mappings[mapping][0].files
                files[mapping] = files_of(engine, table, names, config.order_by, time)
            counts |= rows.assign(mapping, [mapping, *shares], table, part, encoding)
            unlabelled += counts.pop("")[0]
            for name in (mapping, *shares):
                bar.advance(counts[name][0])
                if not counts[name][0]:
                    cause = f"{config.order_by} has too few values" if config.order_by else "too few rows"
                    raise PrepareError(where, found=f"no rows for the mapping {name!r} ({cause})",
                                       expected="at least one in every mapping",
                                       do="change test_share, validation_share, or what the split goes by")
    train, positive = counts["train"]
    if positive in (0, train):
        raise PrepareError(where, found=f"{positive:,} positive labels in {train:,} training rows",
                           expected="labels of both kinds", do="correct label_is or label_above")
    if unlabelled:
        say(f"{unlabelled:,} rows without a label are left out")
    order = [name for name in ("train", "validation", "test") if name in counts]
    order += [name for name in counts if name not in order]
    return Split({name: counts[name][0] for name in order}, unlabelled,
                 {name: spans[name] for name in order if name in spans}, files)


def _label(table: ir.Table, label: str, encoding: Encoding, engine: Engine) -> ir.Value:
    """1 for the positive label, 0 for any other, missing where there is none."""
    return through(encoding.columns[label], read_column(table[label], encoding.raw[label], engine), engine)


def check_label(engine: Engine, spec: FeatureSpec, config: TableConfig, encoding: Encoding, where: str) -> None:
    """Raises PrepareError where values of the label do not fit `label_is`, or are neither 0 nor 1 without it."""
    if config.label_above is not None:
        return
    (name,) = spec.channels["label"]
    raw, type_ = engine.table("raw_train"), encoding.raw[name].type
    values = raw.select(value=Text().bulk(raw[name]), read=type_.bulk(raw[name]))
    if not spec.features[name].is_raw_text:
        values = values.filter(null_if_missing(values.value, config.missing).notnull())
    counts = values.filter(values.value.notnull()).group_by("value", "read").aggregate(rows=lambda t: t.count())
    counts = engine.materialise(counts, "label_values")
    most = engine.rows(counts.order_by([ibis.desc("rows"), "value"]).limit(7))
    if not most and config.label_is is None:
        raise PrepareError(where, found=f"no label: {name!r} has no value in any row",
                           expected="0 or 1, or true or false", do="name another column as the label")
    shown = ", ".join(f"{row['value']!r} ({row['rows']:,} rows)" for row in most[:6])
    shown += ", …" * (len(most) > 6) if most else "no value at all"
    for value in config.positives:
        wanted = type_.one(value)
        if wanted is None or not engine.count(counts.filter(counts.read == wanted)):
            raise PrepareError(f"{where}.label_is", found=f"{_shown(value)!r}, which {name!r} never is",
                               expected=f"one of its values: {shown}")
    if not config.positives and engine.count(counts.filter(counts.read.isnull())):
        numbers = spec.features[name].dtype.startswith(("float", "int"))
        raise PrepareError(f"{where}.label_is", found=f"nothing, and {name!r} holds {shown}",
                           expected="the positive value, unless the label is 0 or 1, true or false",
                           do="dataset.label_is=VALUE" + (", or dataset.label_above=NUMBER" if numbers else ""))


def _shown(value: str | float | bool) -> str:
    """A value of `label_is` as it would stand in a file."""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def shares_of(spec: FeatureSpec, config: TableConfig) -> dict[str, float]:
    """What is split off `train`: the mappings that the spec does not have."""
    shares = {"validation": config.validation_share, "test": config.test_share}
    return {name: share for name, share in shares.items() if name not in spec.mappings and share > 0}


def part_of(engine: Engine, labelled: ir.Table, table: ir.Table, shares: dict[str, float], config: TableConfig,
            where: str, time: Time) -> ir.IntegerValue:
    """0 for rows of `table` that stay, 1, 2 for those of the first and of the second of `shares`, which are shares of
    the rows of `labelled`; `time` is how the column `order_by` writes times."""
    if not shares:
        return ibis.literal(0, "int8")
    if config.order_by is not None:
        key, firsts = order_of(engine, labelled, table, shares, config, where, time)
        return sum(((key >= first).cast("int8") for first in firsts[1:]), (key >= firsts[0]).cast("int8"))
    by = config.split_by
    key = table["row"].cast("string") if by is None else ibis.coalesce(Text().bulk(table[by]), "")
    hashed = Hash60().bulk(ibis.literal(f"{config.seed}:") + key, engine.parse_hex)
    ends, end = [], 0
    for share in reversed(shares.values()):  # from 0 on lie the test rows, then validation, then train
        end += int(share * 2**60)
        ends.append(end)
    return sum(((hashed < end).cast("int8") for end in ends[1:]), (hashed < ends[0]).cast("int8"))


def order_of(engine: Engine, labelled: ir.Table, table: ir.Table, shares: dict[str, float], config: TableConfig,
             where: str, time: Time) -> tuple[ir.Column, list]:
    """The column `order_by`, numbers or times, and from which value on the rows belong to each of `shares`."""
    written = Text().bulk(labelled[config.order_by])
    number, is_word = Float().bulk(written), Float().unread(written)
    is_time = time.bulk(written).notnull()
    counts = engine.row(labelled.aggregate(rows=labelled.count(), words=labelled.count(where=is_word),
                                           without=labelled.count(where=number.isnull() & ~is_word),
                                           others=labelled.count(where=written.notnull() & ~is_time)))
    if counts["without"]:
        raise PrepareError(f"{where}.order_by", found=f"{counts['without']:,} rows without {config.order_by!r}",
                           expected="a value in every row", do="drop those rows, or order by another column")
    if counts["words"] and counts["others"]:  # the order of letters is none of time: 2/1/2024 comes before 9/1/2023
        odd = engine.row(labelled.filter(written.notnull() & ~is_time).select(x=written).order_by("x"))["x"]
        raise PrepareError(f"{where}.order_by", found=f"{odd!r} in {config.order_by!r}",
                           expected="numbers, or times as YYYY-MM-DD HH:MM:SS",
                           do="say in the Feature Spec how it is written (format: '%d/%m/%Y', say, beside dtype: str), "
                           "or split by another column")

    def key(rows: ir.Table) -> ir.Column:
        value = Text().bulk(rows[config.order_by])
        return time.bulk(value) if counts["words"] else Float().bulk(value)

    firsts, left = [], counts["rows"]
    ordered = labelled.select(key=key(labelled))
    for share in reversed(shares.values()):
        left -= round(share * counts["rows"])
        firsts.append(engine.row(ordered.order_by("key").limit(1, offset=max(left, 0)))["key"])
    return key(table), firsts[::-1]
