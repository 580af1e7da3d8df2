"""Operations on texts, moments, counts and pairs of documents; `operations` says what every one has."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickwise.arrow_arrays import to_numpy
from clickwise.encoding.operations import LogitRate, Operation, Vocabulary
from clickwise.errors import DataError

if TYPE_CHECKING:
    import ibis.expr.types as ir

DAY_MS = 86_400_000
FINE = 2.0**40  # products of weights are whole numbers of this part of 1, so that their sum has no order


# ---- texts


@dataclasses.dataclass(frozen=True)
class FirstCharacters(Operation, do="first_characters"):
    """The first `length` characters of a text."""

    length: int

    def bulk(self, x, parse_hex=None):
        return x.substr(0, self.length)

    def one(self, x):
        return None if x is None else x[:self.length]

    def many(self, x):
        return pc.utf8_slice_codeunits(x, 0, self.length)


@dataclasses.dataclass(frozen=True)
class MissingIf(Operation, do="missing_if"):
    """x; missing where it is the text."""

    text: str

    def bulk(self, x, parse_hex=None):
        return x.nullif(self.text)

    def one(self, x):
        return None if x == self.text else x

    def many(self, x):
        return pc.if_else(pc.equal(x, self.text), pa.scalar(None, x.type), x)


# ---- whole numbers


@dataclasses.dataclass(frozen=True)
class Plus(Operation, do="plus"):
    """x + number."""

    number: int

    def bulk(self, x, parse_hex=None):
        return x + self.number

    def one(self, x):
        return None if x is None else x + self.number

    def many(self, x):
        return pc.add(x, self.number)


@dataclasses.dataclass(frozen=True)
class Remainder(Operation, do="remainder"):
    """What is left of x divided by `by`, with the sign of x."""

    by: int

    def bulk(self, x, parse_hex=None):
        return x % self.by

    def one(self, x):
        return None if x is None else abs(x) % self.by * (1 if x >= 0 else -1)

    def many(self, x):
        left = np.fmod(to_numpy(x.fill_null(0)), self.by)
        return pa.array(left, mask=~to_numpy(x.is_valid()))


@dataclasses.dataclass(frozen=True)
class DaysSince(Operation, do="days_since", operands=2):
    """Whole days from `then` (seconds since 1970) to `at` (ms since `first_ms`); 0 beyond 0 … `most` days, missing
    where one of them is."""

    first_ms: int
    most: int

    def bulk(self, at, then, parse_hex=None):
        import ibis

        days = ((at + self.first_ms - then * 1000) / DAY_MS).floor().cast("int64")
        return ibis.cases((days.between(0, self.most), days), (days.notnull(), 0), else_=ibis.null("int64"))

    def one(self, at, then):
        if at is None or then is None:
            return None
        days = (at + self.first_ms - then * 1000) // DAY_MS
        return days if 0 <= days <= self.most else 0

    def many(self, at, then):
        gap = pc.subtract(pc.add(at, self.first_ms), pc.multiply(then, 1000))
        days = to_numpy(gap.fill_null(0)) // DAY_MS
        return pa.array(np.where((days >= 0) & (days <= self.most), days, 0),
                        mask=~to_numpy(gap.is_valid()))


# ---- numbers


@dataclasses.dataclass(frozen=True)
class AsFloat32(Operation, do="as_float32"):
    """x rounded to the nearest float32."""

    def bulk(self, x, parse_hex=None):
        return x.cast("float32")

    def one(self, x):
        return None if x is None else float(np.float32(x))

    def many(self, x):
        return _floats(x).astype(np.float32).astype(np.float64)


@dataclasses.dataclass(frozen=True)
class IsKnown(Operation, do="is_known"):
    """1 where there is a value, else 0."""

    def bulk(self, x, parse_hex=None):
        return x.notnull().cast("int8")

    def one(self, x):
        return int(x is not None)

    def many(self, x):
        known = ~np.isnan(x) if isinstance(x, np.ndarray) else to_numpy(x.is_valid())
        return known.astype(np.float64)


@dataclasses.dataclass(frozen=True)
class LogitRateOrPrior(LogitRate, do="logit_rate_or_prior", operands=2):
    """`logit_rate`; counts that are missing are 0, so that the prior is left."""

    def bulk(self, impressions, clicks, parse_hex=None):
        return super().bulk(impressions.fill_null(0), clicks.fill_null(0))

    def one(self, impressions, clicks):
        return super().one(impressions or 0, clicks or 0)

    def many(self, impressions, clicks):
        return super().many(impressions.fill_null(0), clicks.fill_null(0))


def _floats(x: pa.Array | np.ndarray) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else to_numpy(x.cast(pa.float64(), safe=False))


# ---- pairs of documents


def fine(product: ir.FloatingValue) -> ir.IntegerValue:
    """Products as whole numbers of 2^-40, which have the same sum in any order."""
    return (product * FINE + 0.5).floor().cast("int64")


@dataclasses.dataclass(frozen=True)
class SparseProduct(Operation, do="sparse_product", operands=4):
    """The inner product of two sparse vectors, each as lists of indices and of weights at them; 0 where one is missing.
    Every index is in a vector once. In bulk it is a join: `fine` is its sum."""

    def one(self, indices, weights, other_indices, other_weights):
        if indices is None or other_indices is None:
            return 0.0
        if len(indices) != len(weights) or len(other_indices) != len(other_weights):
            raise _no_vector()
        there = dict(zip(other_indices, other_weights, strict=True))
        return sum(math.floor(weight * there[index] * FINE + 0.5)
                   for index, weight in zip(indices, weights, strict=True) if index in there) / FINE

    def many(self, indices, weights, other_indices, other_weights):
        row, index, weight = _entries(indices, weights)
        other_row, other_index, other_weight = _entries(other_indices, other_weights)
        codes = np.unique(np.concatenate([index, other_index]), return_inverse=True)[1].reshape(-1)
        width = len(index) + len(other_index) + 1
        key, other_key = row * width + codes[:len(index)], other_row * width + codes[len(index):]
        _, at, other_at = np.intersect1d(key, other_key, assume_unique=True, return_indices=True)
        products = np.floor(weight[at] * other_weight[other_at] * FINE + 0.5)
        return np.bincount(row[at], products, minlength=len(indices)) / FINE


def _entries(indices: pa.Array, weights: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, index and weight of every entry."""
    lengths, others = (to_numpy(pc.list_value_length(lists).fill_null(0)) for lists in (indices, weights))
    if (lengths != others).any():
        raise _no_vector()
    rows = np.repeat(np.arange(len(indices), dtype=np.int64), lengths)
    return rows, _flat(indices).astype(np.int64), _flat(weights)


def _no_vector() -> DataError:
    return DataError("a sparse vector", found="another number of weights than of indices", expected="one for each",
                     do="prepare the dataset again, or copy the whole folder again")


def _flat(lists: pa.Array) -> np.ndarray:
    return to_numpy(lists.flatten())


# ---- ids


@dataclasses.dataclass(frozen=True)
class RareVocabulary(Vocabulary, do="rare_vocabulary"):
    """The id of x in the vocabulary `state`, 2 … size + 1; 1 for any other value, 0 for a missing one."""

    def is_unseen(self, ids):
        return ids <= 1

    def one(self, x):
        return 0 if x is None else self.file.find(x) + 1

    def many(self, x: Any):
        ids = super().many(x) + np.int32(1)
        if x.null_count:
            ids[~to_numpy(x.is_valid())] = 0
        return ids
