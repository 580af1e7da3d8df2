"""The steps of preparation as pure Ibis expressions: the same meaning on every engine.

Nothing here is executed, and nothing depends on one engine: no engine hash, no seeded sample, lists are put in order
by sorting structs. An expression over an expression is computed again at every use, so a dataset stores a table
between two steps (`engine.materialise`).

Ids are int32, 1 … K by how often a value occurs; 0 stands for missing, rare and unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ibis
import ibis.expr.types as ir


def vocabulary(table: ir.Table, column: str, frequency_limit: int = 0, *, weight: str | None = None) -> ir.Table:
    """Columns value, id, count: the values of `column` that occur at least `frequency_limit` times, and at least once.

    A row counts as often as its integer column `weight` says, once without it.

    Ids are 1, 2, … by descending count; equally frequent values are put in ascending order, so that the same data
    always gives the same ids (NOTE[DIFF] the reference leaves ties to chance). Missing values get no id.
    """
    known = table.filter(table[column].notnull())
    if weight is None:
        counts = known.select(value=known[column]).group_by("value").aggregate(count=lambda t: t.count())
    else:
        weighted = known.select(value=known[column], weight=known[weight])
        counts = weighted.group_by("value").aggregate(count=sum_as_int64(weighted.weight.sum()))
    if frequency_limit > 1 or weight is not None:
        counts = counts.filter(counts["count"] >= max(frequency_limit, 1))
    order = [ibis.desc(counts["count"]), counts["value"]]
    return counts.select("value", (ibis.row_number().over(order_by=order) + 1).cast("int32").name("id"), "count")


def sum_as_int64(total: ir.NumericValue) -> ir.IntegerValue:
    """A sum of integers as int64: engines widen it (DuckDB to 128 bits), which Ibis does not see, so that it
    would leave out a cast to int64 alone."""
    return total.cast("float64").cast("int64")


def look_up(table: ir.Table, other: ir.Table, keys: Mapping[str, str], columns: Mapping[str, str]) -> ir.Table:
    """`table` with further columns, `columns`: name -> column of `other`; missing where no row of `other` has the same
    `keys`: column of `table` -> column of `other`, where they occur once."""
    found = other.select(**{f"__key_{name}": key for name, key in keys.items()}, **columns)
    joined = table.left_join(found, [(name, f"__key_{name}") for name in keys])
    return joined.drop(*(f"__key_{name}" for name in keys))


def encode(table: ir.Table, column: str, vocabulary: ir.Table,
           unknown: Callable[[ir.Column], ir.IntegerColumn] | None = None) -> ir.Table:
    """`table` with `column` replaced by its ids; 0, or what `unknown` makes of the value, where it is missing or not in
    `vocabulary`.

    The rows may come back in any order: carry a row number where the order matters.
    """
    joined = look_up(table, vocabulary, {column: "value"}, {"__id": "id"})
    kept = [joined[name] for name in table.columns if name != column]
    else_ = ibis.literal(0, "int32") if unknown is None else unknown(joined[column])
    return joined.select(*kept, ibis.coalesce(joined["__id"], else_).name(column))


def explode(table: ir.Table, column: str) -> ir.Table:
    """One row per value of the list `column`, which keeps its name; rows with an empty or missing list vanish."""
    return table.unnest(column)


def encode_list(table: ir.Table, column: str, vocabulary: ir.Table, *, row: str = "row", drop_unknown: bool = False,
                unknown: Callable[[ir.Column], ir.IntegerColumn] | None = None) -> ir.Table:
    """Columns `row` and `column`: for every row the list of ids in the order of the values.

    `row` names a column that is unique per row. Values that are missing or not in `vocabulary` become ids as in
    `encode`; those of 0 are left out with `drop_unknown`. A missing list is an empty one.
    """
    # Both lists side by side: `unnest(column, offset=…)` becomes a join, which takes ten times as long.
    values = table.select(row, **{column: table[column].unnest(),
                                  "__position": ibis.range(table[column].length()).unnest()})
    ids = encode(values, column, vocabulary, unknown)
    if drop_unknown:
        ids = ids.filter(ids[column] > 0)
    pair = ibis.struct({"position": ids["__position"], "id": ids[column]})
    lists = ids.group_by(row).aggregate(__ids=pair.collect())
    lists = lists.mutate(__ids=lists["__ids"].sort().map(lambda pair: pair["id"]))
    joined = look_up(table.select(row), lists, {row: row}, {"__ids": "__ids"})
    return joined.select(row, ibis.coalesce(joined["__ids"], ibis.literal([], "array<int32>")).name(column))


def rows_between(table: ir.Table, first: int, end: int, *, row: str = "row", start: int = 0) -> ir.Table:
    """The rows numbered first … end−1, numbered anew from `start`: a split in the order of the input."""
    part = table.filter((table[row] >= first) & (table[row] < end))
    return part.mutate(**{row: part[row] - first + start})
