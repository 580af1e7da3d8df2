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
from typing import NamedTuple, Protocol

import ibis.expr.types as ir
import numpy as np

from clickwise.prepare.engine import Engine

BITS = 60
SMALLEST = -960  # 2^960 is the greatest factor: it brings any number to at least 2^-114


def fit_scales(engine: Engine, table: ir.Table, columns: Sequence[str]) -> dict[str, dict[str, float]]:
    """Column → `mean` and `std` (of the whole population) over what is not missing: the fields of `Standardize`. A
    column without spread has the std 1, one without values the mean 0 as well."""
    return _fitted(_InEngine(engine, table, columns))


def fit_scales_of(columns: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """The same of float64 [rows] by column, NaN where a value is missing."""
    return _fitted(_InMemory(columns))


class _Ends(NamedTuple):
    """How many values there are, the least and the greatest."""

    count: int
    low: float
    high: float


class _Columns(Protocol):
    """Columns of numbers; what is missing is left out."""

    def ends(self) -> dict[str, _Ends]: ...

    def sums(self, factor: Mapping[str, float], mean: Mapping[str, float] | None, bits: Mapping[str, int]
             ) -> dict[str, int]:
        """By column the exact sum of its values times `factor`, or of the squares of how far they are from `mean` then,
        each as a whole number of 2^-bits."""
        ...


def _fitted(columns: _Columns) -> dict[str, dict[str, float]]:
    ends = columns.ends()
    power = {name: max(math.frexp(max(high, -low))[1], SMALLEST) for name, (_, low, high) in ends.items()}
    factor = {name: math.ldexp(1.0, -power[name]) for name in ends}
    ends = {name: _Ends(count, low * factor[name], high * factor[name]) for name, (count, low, high) in ends.items()}
    mean = _means(columns, ends, factor, None, {name: max(high, -low) for name, (_, low, high) in ends.items()})
    variance = _means(columns, ends, factor, mean, {
        name: max(high - mean[name], mean[name] - low) ** 2 for name, (_, low, high) in ends.items()})
    return {name: {"mean": math.ldexp(mean[name], power[name]),
                   "std": math.ldexp(math.sqrt(variance[name]), power[name]) or 1.0} for name in ends}


def _means(columns: _Columns, ends: Mapping[str, _Ends], factor: Mapping[str, float],
           mean: Mapping[str, float] | None, most: Mapping[str, float]) -> dict[str, float]:
    """Exact means of `_Columns.sums`, whose values are at most `most` in size."""
    bits = {name: BITS - math.frexp(most[name])[1] if most[name] else 0 for name in ends}
    sums = columns.sums(factor, mean, bits)
    return {name: float(Fraction(sums[name], ends[name].count or 1) / Fraction(2) ** bits[name]) for name in ends}


class _InEngine:
    def __init__(self, engine: Engine, table: ir.Table, columns: Sequence[str]) -> None:
        self.engine, self.table = engine, table
        self.x = {name: table[name].cast("float64") for name in columns}

    def ends(self):
        found = self.engine.row(self.table.aggregate(**{
            f"{end}_{i}": getattr(x, end)() for i, x in enumerate(self.x.values()) for end in ("count", "min", "max")}))
        return {name: _Ends(found[f"count_{i}"], found[f"min_{i}"] or 0.0, found[f"max_{i}"] or 0.0)
                for i, name in enumerate(self.x)}

    def sums(self, factor, mean, bits):
        x = {name: x * factor[name] for name, x in self.x.items()}
        if mean is not None:
            x = {name: (x - mean[name]) * (x - mean[name]) for name, x in x.items()}
        sums = self.engine.row(self.table.aggregate(**{
            f"sum_{i}": (x[name] * math.ldexp(1.0, bits[name])).cast("int64").sum() for i, name in enumerate(x)}))
        return {name: int(sums[f"sum_{i}"] or 0) for i, name in enumerate(x)}


class _InMemory:
    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self.x = {name: x[~np.isnan(x)] for name, x in columns.items()}

    def ends(self):
        return {name: _Ends(len(x), float(x.min()), float(x.max())) if len(x) else _Ends(0, 0.0, 0.0)
                for name, x in self.x.items()}

    def sums(self, factor, mean, bits):
        return {name: _sum(x * factor[name] if mean is None else np.square(x * factor[name] - mean[name]), bits[name])
                for name, x in self.x.items()}


def _sum(x: np.ndarray, bits: int) -> int:
    """The exact sum of whole numbers of 2^-bits, rounded to the nearest as an engine does, of up to 61 bits each."""
    whole = np.rint(x * math.ldexp(1.0, bits)).astype(np.int64)
    return (int((whole >> 30).sum()) << 30) + int((whole & (1 << 30) - 1).sum())
