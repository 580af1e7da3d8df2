"""Numerical features: what is stored of a row, and the curve and scale that are applied when it is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import ibis
import ibis.expr.types as ir

from clickwise.prepare.engine import Engine
from clickwise.prepare.steps import sum_as_int64

CURVES: dict[str, Callable] = {
    "same": lambda x: x,
    "ln": lambda x: (x + 1).ln(),                      # ln(1 + x)
    "log2": lambda x: (x + 1).ln() / math.log(2),      # log2(1 + x)
    "log2_of_thousands": lambda x: (x * 1000 + 1).ln() / math.log(2),
}


@dataclass(frozen=True, kw_only=True)
class Number:
    """A numerical feature.

    level    display, ad (in the training rows that its rates are counted on) or example: what has the value
    of       its value in a row of that level's table, before curve and scale
    curve    one of CURVES; what is negative counts as 0
    scale    none · min_max: to [0, 1] by the least and greatest value of all rows, test included, as published ·
             mean_std: mean 0 and standard deviation 1 (of a sample) over the training rows
    missing  what stands for a missing value: zero, the median of the training rows, or the mean, which is 0 once scaled
    """

    level: Literal["display", "ad", "example"]
    of: Callable[[ir.Table], ir.NumericColumn]
    curve: str = "same"
    scale: Literal["none", "min_max", "mean_std"] = "none"
    missing: Literal["zero", "median", "mean"] = "zero"


def fit(engine: Engine, levels: Mapping[str, ir.Table], numbers: Mapping[str, Number]) -> dict[str, dict[str, float]]:
    """Name -> `fill` (what stands for missing), `shift`, `width`: as `apply` takes them. `levels` has the values of a
    level under their names, each standing for as many training rows as the column `train_rows` says."""
    fitted: dict[str, dict[str, float]] = {}
    for level, rows in levels.items():
        fitted |= _fit(engine, rows, {name: number for name, number in numbers.items() if number.level == level})
    return {name: fitted[name] for name in numbers}


def _fit(engine: Engine, rows: ir.Table, numbers: Mapping[str, Number]) -> dict[str, dict[str, float]]:
    train = rows.filter(rows.train_rows > 0)
    fills = {name: _median(engine, train, name) if number.missing == "median" else 0.0
             for name, number in numbers.items()}
    ends, scaled = {}, {}
    for name, number in numbers.items():
        if number.scale == "min_max":
            x = _curved(rows[name], number, fills[name])
            ends |= {f"{name}__low": x.min(), f"{name}__high": x.max()}
        elif number.scale == "mean_std":
            scaled[name] = _curved(train[name], number, None if number.missing == "mean" else fills[name])
    found = engine.row(rows.aggregate(**ends)) if ends else {}
    moments = _moments(engine, train, scaled) if scaled else {}
    fitted = {}
    for name, number in numbers.items():
        shift, width = 0.0, 1.0
        if number.scale == "min_max":
            shift, width = found[f"{name}__low"], found[f"{name}__high"] - found[f"{name}__low"]
        elif number.scale == "mean_std":
            shift, width = moments[name]
        fitted[name] = {"fill": fills[name], "shift": shift, "width": width if width > 1e-12 else 1.0}
    return fitted


def _moments(engine: Engine, train: ir.Table,
             columns: Mapping[str, ir.FloatingColumn]) -> dict[str, tuple[float, float]]:
    """Name -> mean and standard deviation (of a sample) of what is not missing, by training rows; 0 where there is
    none. The deviations are from the mean itself, so that a column of one value has none."""
    weight = train.train_rows
    known = {name: x.notnull().ifelse(weight, 0).sum() for name, x in columns.items()}
    sums = engine.row(train.aggregate(**{f"{name}__n": n for name, n in known.items()},
                                      **{f"{name}__sum": (x * weight).sum() for name, x in columns.items()}))
    means = {name: (sums[f"{name}__sum"] or 0.0) / max(int(sums[f"{name}__n"]), 1) for name in columns}
    squares = engine.row(train.aggregate(**{
        name: ((x - means[name]) * (x - means[name]) * weight).sum() for name, x in columns.items()}))
    return {name: (means[name], math.sqrt((squares[name] or 0.0) / max(int(sums[f"{name}__n"]) - 1, 1)))
            for name in columns}


def apply(column: ir.NumericColumn, number: Number, fill: float, shift: float, width: float) -> ir.FloatingColumn:
    """(curve(column) − shift) / width in float32."""
    if number.missing == "mean":
        return ibis.coalesce((_curved(column, number, None) - shift) / width, 0.0).cast("float32")
    return ((_curved(column, number, fill) - shift) / width).cast("float32")


def _curved(column: ir.NumericColumn, number: Number, fill: float | None) -> ir.FloatingColumn:
    x = column.cast("float64")
    x = x if fill is None else ibis.coalesce(x, fill)
    return x if number.curve == "same" else CURVES[number.curve]((x < 0).ifelse(0.0, x))


def _median(engine: Engine, rows: ir.Table, name: str) -> float:
    """The median of a column of few different values, exact (NOTE[DIFF] the reference takes an approximate one)."""
    known = rows.filter(rows[name].notnull())
    counts = [(row["value"], row["n"]) for row in engine.rows(
        known.group_by(value=known[name]).aggregate(n=sum_as_int64(known.train_rows.sum())).order_by("value"))]
    total, below, middle = sum(n for _, n in counts), 0, []
    for value, n in counts:
        middle += [value] * sum(below <= index < below + n for index in {(total - 1) // 2, total // 2})
        below += n
    return sum(middle) / len(middle) if middle else 0.0
