"""What is fitted of numbers beside their scale: bins, and whether their tail is so heavy that a logarithm comes first.

Quantile bins are what trees see in a number, as ids for an embedding. Each holds about the same number of rows; a value
that many rows share, such as a zero, has one of its own, and so has every value where there are few. Ten rows
0 0 0 0 0 0 1 2 5 7 in three bins: 0 0 0 0 0 0 | 1 2 | 5 7, edges 0, 1, 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from clickwise.arrow_arrays import of_numbers, of_texts, to_numpy
from clickwise.files import file_stem
from clickwise.prepare.engine import Engine
from clickwise.prepare.folder import PreparationFolder

HEAVY = 5.0  # the skewness of a log-normal number whose logarithm has a standard deviation of 0.9


def fit_numbers(counts: Callable[[str], tuple[np.ndarray, np.ndarray]], names: Sequence[str],
                most: int) -> dict[str, dict[str, Any]]:
    """Column → `edges`: where its bins begin, ascending, at most `most` of them, none for less than two values; `log`:
    whether its tail is heavy; `middle`: the ends of its middle 98 %. `counts(column)` are its different values,
    ascending, and how many rows have each."""
    found = {}
    for name in names:
        value_U, count_U = counts(name)
        edges = edges_of(value_U, count_U, most)
        found[name] = {"edges": edges if len(edges) > 1 else [], "log": has_heavy_tail(value_U, count_U),
                       "middle": middle_of(value_U, count_U)}
    return found


def number_counts(engine: Engine, table: ir.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The different numbers of a column, float64 [U], ascending, and how many rows have each, int64 [U]."""
    x = table.select(x=table[name].cast("float64"))
    counts = x.filter(x.x.notnull()).group_by("x").aggregate(n=lambda rows: rows.count())
    batches = list(engine.batches(counts))
    value_U, count_U = (np.concatenate([to_numpy(batch.column(index)) for batch in batches])
                        if batches else np.empty(0) for index in (0, 1))
    order = np.argsort(value_U)
    return value_U[order] + 0.0, count_U[order].astype(np.int64)  # + 0.0: never the zero with a minus


def has_heavy_tail(value_U: np.ndarray, count_U: np.ndarray) -> bool:
    """Whether the skewness is beyond `HEAVY`, and sign(x) · ln(1 + |x|) at least halves it."""
    skewness = _skewness(value_U, count_U)
    return abs(skewness) > HEAVY and abs(_skewness(np.sign(value_U) * np.log1p(np.abs(value_U)), count_U)) < \
        abs(skewness) / 2


def _skewness(value_U: np.ndarray, count_U: np.ndarray) -> float:
    if len(value_U) < 2:
        return 0.0
    value_U = value_U / np.abs(value_U).max()  # powers of any number stay finite
    apart_U = value_U - np.average(value_U, weights=count_U)
    variance, third = (np.average(apart_U**power, weights=count_U) for power in (2, 3))
    return float(third / variance**1.5) if variance > 0 else 0.0


def edges_of(value_U: np.ndarray, count_U: np.ndarray, most: int) -> list[float]:
    """The least value of each bin. A bin takes values until it has its share of the rows that are left."""
    rows_to_U = np.concatenate([[0], np.cumsum(count_U)])
    edges, first = [], 0
    for left in range(most, 0, -1):
        if first == len(value_U):
            break
        edges.append(float(value_U[first]))
        share = (rows_to_U[-1] - rows_to_U[first]) / left
        end = max(first + 1, int(rows_to_U.searchsorted(rows_to_U[first] + share)))
        first = end - 1 if end - 1 > first and count_U[end - 1] >= share else end  # a frequent value stands alone
    return edges


def middle_of(value_U: np.ndarray, count_U: np.ndarray) -> list[float]:
    """The least and the greatest value once a hundredth of the rows, at least one, is left out at either end; [] where
    that leaves none."""
    rows_to_U = np.cumsum(count_U)
    rows = int(rows_to_U[-1]) if len(rows_to_U) else 0
    out = max(1, rows // 100)
    return [] if rows <= 2 * out else [float(value_U[rows_to_U.searchsorted(row, side="right")])
                                       for row in (out, rows - 1 - out)]


def write_names(folder: PreparationFolder, bins: Mapping[str, Sequence[float]]) -> None:
    """Writes what each bin is called, where vocabularies have the names of their values; `bins` by feature."""
    for feature, edges in bins.items():
        names = [f"{first:g} …" if index + 1 == len(edges) else f"{first:g} … < {edges[index + 1]:g}"
                 for index, first in enumerate(edges)]
        path = folder.preparation / "vocabularies" / f"{file_stem(feature)}.parquet"
        path.parent.mkdir(exist_ok=True)
        ids = of_numbers(np.arange(1, len(edges) + 1, dtype=np.int32))
        parquet.write_table(pa.table({"value": of_texts(names), "id": ids}), path)
