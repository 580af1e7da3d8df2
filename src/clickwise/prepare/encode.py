"""The bulk forms of an encoding: raw tables to columns by expressions and joins, for many rows in an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ibis
import ibis.expr.types as ir

from clickwise.encoding import Column, Encoding, RawColumn
from clickwise.encoding.operations import Hash60, Vocabulary
from clickwise.encoding.raw_types import Hex32
from clickwise.feature_spec import Feature, FeatureSpec
from clickwise.prepare import steps, write
from clickwise.prepare.engine import Engine
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.written import looked_at, vocabulary_of


def read(table: ir.Table, raw: Mapping[str, RawColumn], engine: Engine) -> dict[str, ir.Column]:
    """The columns of `table` as their raw types read them."""
    return {name: read_column(table[name], column, engine) for name, column in raw.items()}


def read_column(column: ir.Column, raw: RawColumn, engine: Engine) -> ir.Column:
    if raw.list is None:
        return raw.type.bulk(column, engine.parse_hex) if isinstance(raw.type, Hex32) else raw.type.bulk(column)
    if not column.type().is_array():
        column = column.cast("string").split(raw.list)
    return column.map(raw.type.bulk).filter(lambda value: value.notnull())


def encode(engine: Engine, table: ir.Table, columns: Mapping[str, Column]) -> ir.Table:
    """`row` and `columns`, of a table with `row` and raw columns as `read` gives them. The rows may come back in any
    order. Vocabularies are in the engine as `vocabulary_<state>`; a column of lists stands alone."""
    if len(columns) == 1:
        ((name, column),) = columns.items()
        if column.most is not None:
            return _encode_lists(engine, table, name, column)
    ids = {name: step for name, column in columns.items() if (step := vocabulary_of(column))}
    joined = table
    for index, (name, step) in enumerate(ids.items()):  # joins without a selection between them are fast to compile
        vocabulary = engine.table(f"vocabulary_{step.state}")
        joined = joined.left_join(vocabulary.select(**{f"__value_{index}": "value", f"__{name}": "id"}),
                                  [(columns[name].of, f"__value_{index}")])

    def encoded(name: str, column: Column) -> ir.Value:
        if name in ids:
            return ibis.coalesce(joined[f"__{name}"], _unknown(engine, ids[name])(joined[column.of]))
        value = through(column, joined[column.of], engine)
        return value.cast(column.number) if column.number else value

    return joined.select("row", **{name: encoded(name, column) for name, column in columns.items()})


def through(column: Column, value: ir.Value, engine: Engine) -> ir.Value:
    """What a raw type reads through a column's steps, before it is rounded as it is stored."""
    for step in column.steps:
        value = step.bulk(value, engine.parse_hex)
    return value


def _encode_lists(engine: Engine, table: ir.Table, name: str, column: Column) -> ir.Table:
    (step,) = column.steps  # a chain of ids is the vocabulary alone
    return engine.materialise(steps.encode_list(
        table.select("row", **{name: table[column.of]}), name, engine.table(f"vocabulary_{step.state}"),
        drop_unknown=True, unknown=_unknown(engine, step)), "list_ids")


def _unknown(engine: Engine, step: Vocabulary) -> Callable[[ir.Value], ir.Value]:
    """The id of a value that is missing or not in the vocabulary: 0, or of a present one that of its bucket."""
    none = ibis.literal(0, "int32")
    if not step.hash_buckets:
        return lambda value: none
    first = engine.count(engine.table(f"vocabulary_{step.state}")) + 1
    return lambda value: ibis.cases((value.notnull(), (Hash60().bulk(value, engine.parse_hex) % step.hash_buckets
                                                       + first).cast("int32")), else_=none)


def write_encoded(folder: PreparationFolder, encoding: Encoding, rows_of: Callable[[str, Sequence[str]], ir.Table], *,
                  features: Mapping[str, Feature], channels: Mapping[str, Sequence[str]], rows: Mapping[str, int],
                  shuffle_seed: int | None) -> tuple[FeatureSpec, dict[str, dict[str, float]]]:
    """Writes every mapping as `write.write_dataset` does and looks at what was written; its Feature Spec, and the
    shares of `count_unseen`. `rows_of(mapping, names)` gives `row` and raw columns, read as their types say."""
    def columns(mapping: str, names: tuple[str, ...]) -> ir.Table:
        return encode(folder.engine, rows_of(mapping, encoding.needs(names)),
                      {name: encoding.columns[name] for name in names})

    spec = write.write_dataset(folder, columns, features=features, channels=channels, rows=rows,
                               shuffle_seed=shuffle_seed, one_pass=True)
    return spec, looked_at(folder, spec, Encoding.load(folder.preparation), rows)
