"""The steps of preparation as pure Ibis expressions: the same meaning on every engine.

Nothing here is executed, and nothing depends on one engine: no engine hash, no seeded sample, lists are put in order
by sorting structs. An expression over an expression is computed again at every use, so a dataset stores a table
between two steps (`engine.materialise`).

Ids are int32, 1 … K by how often a value occurs; 0 stands for missing, rare and unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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


def encode(table: ir.Table, column: str, vocabulary: ir.Table) -> ir.Table:
    """`table` with `column` replaced by its ids; 0 where the value is missing or not in `vocabulary`.

    The rows may come back in any order: carry a row number where the order matters.
    """
    joined = look_up(table, vocabulary, {column: "value"}, {"__id": "id"})
    kept = [joined[name] for name in table.columns if name != column]
    return joined.select(*kept, ibis.coalesce(joined["__id"], ibis.literal(0, "int32")).name(column))


def explode(table: ir.Table, column: str) -> ir.Table:
    """One row per value of the list `column`, which keeps its name; rows with an empty or missing list vanish."""
    return table.unnest(column)


def encode_list(table: ir.Table, column: str, vocabulary: ir.Table, *, row: str = "row",
                drop_unknown: bool = False) -> ir.Table:
    """Columns `row` and `column`: for every row the list of ids in the order of the values.

    `row` names a column that is unique per row. Values that are missing or not in `vocabulary` become 0, or are left
    out with `drop_unknown`. A missing list is an empty one.
    """
    values = table.select(row, column).unnest(column, offset="__position")
    ids = encode(values, column, vocabulary)
    if drop_unknown:
        ids = ids.filter(ids[column] > 0)
    pair = ibis.struct({"position": ids["__position"], "id": ids[column]})
    lists = ids.group_by(row).aggregate(__ids=pair.collect())
    lists = lists.mutate(__ids=lists["__ids"].sort().map(lambda pair: pair["id"]))
    joined = look_up(table.select(row), lists, {row: row}, {"__ids": "__ids"})
    return joined.select(row, ibis.coalesce(joined["__ids"], ibis.literal([], "array<int32>")).name(column))


def log_shifted(column: ir.NumericColumn, shift: float) -> ir.FloatingColumn:
    """`ln(column + shift)` in float32; 0.0 where the value is missing or the logarithm does not exist."""
    shifted = column.cast("float64") + shift
    return ibis.cases((shifted > 0, shifted.ln()), else_=0.0).cast("float32")


def bucket(column: ir.NumericColumn, boundaries: Sequence[float]) -> ir.IntegerColumn:
    """Ids by ranges: 1 below the first boundary, k + 1 from the k-th boundary on, 0 where the value is missing.

    `boundaries` ascend; the cardinality is `len(boundaries) + 2`.
    """
    id_ = ibis.literal(1, "int32")
    for boundary in boundaries:
        id_ = id_ + (column >= boundary).cast("int32")
    return ibis.coalesce(id_, 0).cast("int32")


def moments(table: ir.Table, columns: Sequence[str]) -> ir.Table:
    """One row with `<column>__mean` and `<column>__std` (of the whole population) over what is not missing."""
    return table.aggregate(**{
        f"{name}__{key}": statistic
        for name in columns
        for key, statistic in (("mean", table[name].cast("float64").mean()),
                               ("std", table[name].cast("float64").std(how="pop")))
    })


def scales(fitted: dict[str, float | None]) -> dict[str, dict[str, float]]:
    """Column -> {mean, std}, from the row that `moments` gives; a column without spread or values gets std 1."""
    names = [name.removesuffix("__mean") for name in fitted if name.endswith("__mean")]
    return {name: {"mean": fitted[f"{name}__mean"] or 0.0, "std": fitted[f"{name}__std"] or 1.0} for name in names}


def scale(column: ir.NumericColumn, mean: float, std: float) -> ir.FloatingColumn:
    """`(column − mean) / std` in float32; 0.0, the mean, where the value is missing."""
    return ibis.coalesce((column.cast("float64") - mean) / std, 0.0).cast("float32")


def rows_between(table: ir.Table, first: int, end: int, *, row: str = "row", start: int = 0) -> ir.Table:
    """The rows numbered first … end−1, numbered anew from `start`: a split in the order of the input."""
    part = table.filter((table[row] >= first) & (table[row] < end))
    return part.mutate(**{row: part[row] - first + start})


ParseHex = Callable[[ir.StringColumn, str], ir.IntegerColumn]  # `engine.parse_hex`


def hash60(column: ir.StringColumn, parse_hex: ParseHex) -> ir.IntegerColumn:
    """The first 60 bits of the MD5 sum of the UTF-8 text, as int64: `int(md5(text).hexdigest()[:15], 16)`.

    The same number on every engine, and in any other program; missing stays missing.
    """
    return parse_hex(column.hexdigest("md5").substr(0, 15), "int64")


def hash_bucket(column: ir.StringColumn, buckets: int, parse_hex: ParseHex) -> ir.IntegerColumn:
    """`hash60(column)` modulo `buckets`: 0 … buckets−1, int64."""
    return hash60(column, parse_hex) % buckets


def hashed_vocabulary(vocabulary: ir.Table, values: ir.Table, column: str, buckets: int, first_id: int,
                      parse_hex: ParseHex) -> ir.Table:
    """`vocabulary` (value, id), and the other values of the text column `column` with ids of their own after it:
    first_id … first_id + buckets − 1, by `hash_bucket`.

    Ids of values that neither has seen follow from the text alone: an encoder that meets one later finds the same id.
    """
    others = values.select(value=values[column]).filter(lambda t: t.value.notnull()).distinct()
    others = others.anti_join(vocabulary, others["value"] == vocabulary["value"])
    ids = (hash_bucket(others["value"], buckets, parse_hex) + first_id).cast("int32")
    return vocabulary.select("value", "id").union(others.select("value", id=ids))


def signed_log(column: ir.NumericColumn) -> ir.FloatingColumn:
    """`sign(column) · ln(1 + |column|)` in float64: a heavy tail on either side drawn in; missing stays missing."""
    column = column.cast("float64")
    return column.sign() * (column.abs() + 1).ln()
