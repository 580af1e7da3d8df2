"""Labels of raw rows, and which row belongs to which mapping."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from clickwise.errors import PrepareError
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare import steps
from clickwise.prepare.engine import Engine
from clickwise.prepare.folder import say
from clickwise.prepare.table.rows import ENCODED, null_if_missing, number, text
from clickwise.progress import Progress

if TYPE_CHECKING:
    from clickwise.prepare.table.config import TableConfig

POSITIVE, NEGATIVE = ("1", "1.0", "true"), ("0", "0.0", "false")


def split(engine: Engine, spec: FeatureSpec, config: TableConfig, where: str) -> tuple[dict[str, int], int]:
    """Mapping -> rows, which are stored as `rows_<mapping>` with the label, 0 or 1, as `__label`; and how many rows
    without a label were left out."""
    rows, unlabelled = {}, 0
    check_label(engine, spec, config, where)
    with Progress("splitting", unit="rows") as bar:
        for mapping in spec.mappings:
            raw = engine.numbered(engine.table(f"raw_{mapping}"))
            raw = raw.mutate(__label=label_of(raw, spec, config))
            shares = shares_of(spec, config) if mapping == "train" else {}
            parts = part_of(engine, raw.filter(raw["__label"].notnull()), raw, shares, config, where)
            # Values are read and parts worked out once: a filter works its expression out again for each mention.
            assigned = engine.materialise(_read(raw.mutate(__part=parts).drop("row"), spec, config), "assigned")
            engine.drop(f"raw_{mapping}")
            for index, part in enumerate([mapping, *shares]):
                wanted = assigned.filter(assigned["__label"].notnull() & (assigned["__part"] == index)).drop("__part")
                rows[part] = engine.count(engine.materialise(wanted, f"rows_{part}"))
                bar.advance(rows[part])
                if not rows[part]:
                    cause = f"{config.order_by} has too few values" if config.order_by else "too few rows"
                    raise PrepareError(where, found=f"no rows for the mapping {part!r} ({cause})",
                                       expected="at least one in every mapping",
                                       do="change test_share, validation_share, or what the split goes by")
            unlabelled += engine.count(assigned.filter(assigned["__label"].isnull()))
            engine.drop("assigned")
    train = engine.table("rows_train")
    positive = engine.row(train.aggregate(n=train["__label"].sum()))["n"]
    if positive in (0, rows["train"]):
        raise PrepareError(where, found=f"{positive:,} positive labels in {rows['train']:,} training rows",
                           expected="labels of both kinds", do="correct label_is or label_above")
    if unlabelled:
        say(f"{unlabelled:,} rows without a label are left out")
    order = [name for name in ("train", "validation", "test") if name in rows]
    rows = {name: rows[name] for name in (*order, *(name for name in rows if name not in order))}
    return rows, unlabelled


def _read(table: ir.Table, spec: FeatureSpec, config: TableConfig) -> ir.Table:
    """`table` with numbers for numericals, and texts without space around them: they are read once, here."""
    read = {name: number(table[name], config.missing) for name in spec.channels.get("numerical", ())}
    read |= {feature.name: text(table[feature.name]) for channel in ENCODED for feature in spec.channel(channel)
             if not feature.is_multi_hot}
    return table.mutate(**read) if read else table


def label_of(table: ir.Table, spec: FeatureSpec, config: TableConfig) -> ir.IntegerColumn:
    """1 for the positive label, 0 for any other, missing where there is none."""
    (name,) = spec.channels["label"]
    if config.label_above is not None:
        found = number(table[name], config.missing)
        return (found > config.label_above).cast("int8")
    found = text(table[name])
    if not spec.features[name].is_raw_text:
        found = null_if_missing(found, config.missing)
    if config.label_is is not None:
        return (found == positive_text(config)).cast("int8")
    return ibis.cases((found.lower().isin(POSITIVE), 1), (found.lower().isin(NEGATIVE), 0),
                      else_=ibis.null("int8")).cast("int8")


def positive_text(config: TableConfig) -> str:
    """`label_is` as text: YAML reads true and 1 as no text."""
    return str(config.label_is).lower() if isinstance(config.label_is, bool) else str(config.label_is).strip()


def check_label(engine: Engine, spec: FeatureSpec, config: TableConfig, where: str) -> None:
    """Raises PrepareError where values of the label do not fit `label_is`, or are neither 0 nor 1 without it."""
    if config.label_above is not None:
        return
    (name,) = spec.channels["label"]
    raw = engine.table("raw_train")
    values = raw.select(value=text(raw[name])).filter(lambda t: t.value.notnull())
    if not spec.features[name].is_raw_text:
        values = values.filter(null_if_missing(values.value, config.missing).notnull())
    counts = values.group_by("value").aggregate(rows=lambda t: t.count())
    most = engine.rows(counts.order_by([ibis.desc("rows"), "value"]).limit(7))
    shown = ", ".join(f"{row['value']!r} ({row['rows']:,} rows)" for row in most[:6])
    shown += ", …" * (len(most) > 6) if most else "no value at all"
    if config.label_is is not None:
        if not engine.count(counts.filter(counts.value == positive_text(config))):
            raise PrepareError(f"{where}.label_is", found=f"{positive_text(config)!r}, which {name!r} never is",
                               expected=f"one of its values: {shown}")
        return
    other = counts.filter(~counts.value.lower().isin(POSITIVE + NEGATIVE))
    if engine.count(other):
        numbers = spec.features[name].dtype.startswith(("float", "int"))
        raise PrepareError(f"{where}.label_is", found=f"nothing, and {name!r} holds {shown}",
                           expected="the positive value, unless the label is 0 or 1, true or false",
                           do="dataset.label_is=VALUE" + (", or dataset.label_above=NUMBER" if numbers else ""))


def shares_of(spec: FeatureSpec, config: TableConfig) -> dict[str, float]:
    """What is split off `train`: the mappings that the spec does not have."""
    shares = {"validation": config.validation_share, "test": config.test_share}
    return {name: share for name, share in shares.items() if name not in spec.mappings and share > 0}


def part_of(engine: Engine, labelled: ir.Table, table: ir.Table, shares: dict[str, float], config: TableConfig,
            where: str) -> ir.IntegerValue:
    """0 for rows of `table` that stay, 1, 2 for those of the first and of the second of `shares`, which are shares of
    the rows of `labelled`."""
    if not shares:
        return ibis.literal(0, "int8")
    if config.order_by is not None:
        key, firsts = order_of(engine, labelled, table, shares, config, where)
        return sum(((key >= first).cast("int8") for first in firsts[1:]), (key >= firsts[0]).cast("int8"))
    key = table["row"].cast("string") if config.split_by is None else ibis.coalesce(text(table[config.split_by]), "")
    hashed = steps.hash60(ibis.literal(f"{config.seed}:") + key, engine.parse_hex)
    ends, end = [], 0
    for share in reversed(shares.values()):  # from 0 on lie the test rows, then validation, then train
        end += int(share * 2**60)
        ends.append(end)
    return sum(((hashed < end).cast("int8") for end in ends[1:]), (hashed < ends[0]).cast("int8"))


def order_of(engine: Engine, labelled: ir.Table, table: ir.Table, shares: dict[str, float], config: TableConfig,
             where: str) -> tuple[ir.Column, list]:
    """The column `order_by` as numbers or texts, and from which value on the rows belong to each of `shares`."""
    written = text(labelled[config.order_by])
    counts = engine.row(labelled.aggregate(rows=labelled.count(), without=labelled.count(where=written.isnull()),
                                           words=labelled.count(where=written.try_cast("float64").isnull())))
    if counts["without"]:
        raise PrepareError(f"{where}.order_by", found=f"{counts['without']:,} rows without {config.order_by!r}",
                           expected="a value in every row", do="drop those rows, or order by another column")

    def key(rows: ir.Table) -> ir.Column:
        value = text(rows[config.order_by])
        return value if counts["words"] else value.try_cast("float64")

    firsts, left = [], counts["rows"]
    ordered = labelled.select(key=key(labelled))
    for share in reversed(shares.values()):
        left -= round(share * counts["rows"])
        firsts.append(engine.row(ordered.order_by("key").limit(1, offset=max(left, 0)))["key"])
    return key(table), firsts[::-1]
