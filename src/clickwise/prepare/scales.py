"""Mean and standard deviation of columns, the same to the last bit whatever the order of the rows.

Sums of floats depend on their order, and so on the number of threads. Here every column is brought to a size of at most
1 by a power of two, which changes no digit and keeps squares of any numbers finite; every value becomes a whole number
of 2^-k, with k such that the largest needs 60 bits, and whole numbers sum exactly: an error of 2^-61 of the largest
value is all there is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import ibis.expr.types as ir

from clickwise.prepare.engine import Engine

BITS = 60
SMALLEST = -960  # 2^960 is the greatest factor: it brings any number to at least 2^-114


def fit_scales(engine: Engine, table: ir.Table, columns: Sequence[str]) -> dict[str, dict[str, float]]:
    """Column → `mean` and `std` (of the whole population) over what is not missing: the fields of `Standardize`. A
    column without spread has the std 1, one without values the mean 0 as well."""
    x = {name: table[name].cast("float64") for name in columns}
    found = engine.row(table.aggregate(**{f"n_{i}": x[name].count() for i, name in enumerate(columns)},
                                       **{f"low_{i}": x[name].min() for i, name in enumerate(columns)},
                                       **{f"high_{i}": x[name].max() for i, name in enumerate(columns)}))
    counts = {name: found[f"n_{i}"] for i, name in enumerate(columns)}
    low, high = ({name: found[f"{end}_{i}"] or 0.0 for i, name in enumerate(columns)} for end in ("low", "high"))
    power = {name: max(math.frexp(max(high[name], -low[name]))[1], SMALLEST) for name in columns}
    low, high = ({name: math.ldexp(end[name], -power[name]) for name in columns} for end in (low, high))
    x = {name: x[name] * math.ldexp(1.0, -power[name]) for name in columns}
    mean = _means(engine, table, x, counts, {name: max(high[name], -low[name]) for name in columns})
    squares = {name: (x[name] - mean[name]) * (x[name] - mean[name]) for name in columns}
    variance = _means(engine, table, squares, counts, {
        name: max(high[name] - mean[name], mean[name] - low[name]) ** 2 for name in columns})
    return {name: {"mean": math.ldexp(mean[name], power[name]),
                   "std": math.ldexp(math.sqrt(variance[name]), power[name]) or 1.0} for name in columns}


def _means(engine: Engine, table: ir.Table, x: Mapping[str, ir.FloatingColumn], counts: Mapping[str, int],
           most: Mapping[str, float]) -> dict[str, float]:
    """Exact means of columns whose values are at most `most` in size."""
    bits = {name: BITS - math.frexp(most[name])[1] if most[name] else 0 for name in x}
    sums = engine.row(table.aggregate(**{
        f"sum_{i}": (x[name] * math.ldexp(1.0, bits[name])).cast("int64").sum() for i, name in enumerate(x)}))
    return {name: float(Fraction(int(sums[f"sum_{i}"] or 0), counts[name] or 1) / Fraction(2) ** bits[name])
            for i, name in enumerate(x)}
