"""What a column of raw values goes through until it is a feature: every operation, its three forms side by side.

`bulk` is an Ibis expression, `one` takes a Python value, `many` an array. They give the same bits from the same values.
Numbers are float64, of `many` with NaN for missing ones; ids and hashes are integers; all other values are as their raw
type has them (`raw_types`), with None for missing ones.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import hashlib
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickwise.arrow_arrays import filled, of_numbers, to_numpy
from clickwise.encoding.vocabulary_file import VocabularyFile

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from clickwise.encoding.raw_types import ParseHex

OPERATIONS: dict[str, type[Operation]] = {}


@dataclasses.dataclass(frozen=True)
class Operation:
    """`do` is how encoding.json calls it; its fields stand there beside it. It takes so many `operands`."""

    do: ClassVar[str]
    operands: ClassVar[int] = 1

    def __init_subclass__(cls, do: str, operands: int = 1) -> None:
        cls.do, cls.operands = do, operands
        OPERATIONS[do] = cls

    def bulk(self, x: ir.Value, parse_hex: ParseHex) -> ir.Value:
        raise NotImplementedError

    def one(self, x: Any) -> Any:
        raise NotImplementedError

    def many(self, x: Any) -> Any:
        raise NotImplementedError


# ---- numbers


def _ln(x: np.ndarray) -> np.ndarray:
    """ln as DuckDB and Python have it: numpy's differs in last bits."""
    return to_numpy(pc.ln(of_numbers(x)))


@dataclasses.dataclass(frozen=True)
class LogShifted(Operation, do="log_shifted"):
    """ln(x + shift); 0 where x is missing or the logarithm does not exist."""

    shift: float

    def bulk(self, x, parse_hex=None):
        import ibis

        shifted = x.cast("float64") + self.shift
        return ibis.cases((shifted > 0, shifted.ln()), else_=0.0)

    def one(self, x):
        return 0.0 if x is None or x + self.shift <= 0 else math.log(x + self.shift)

    def many(self, x):
        shifted, y = x + self.shift, np.zeros(len(x))
        exists = shifted > 0
        y[exists] = _ln(shifted[exists])
        return y


@dataclasses.dataclass(frozen=True)
class SignedLog(Operation, do="signed_log"):
    """sign(x) · ln(1 + |x|): a heavy tail on either side drawn in."""

    def bulk(self, x, parse_hex=None):
        x = x.cast("float64")
        return x.sign() * (x.abs() + 1).ln()

    def one(self, x):
        return None if x is None else ((x > 0) - (x < 0)) * math.log(abs(x) + 1)

    def many(self, x):
        return np.sign(x) * _ln(np.abs(x) + 1)


@dataclasses.dataclass(frozen=True)
class LogPlusOne(Operation, do="log_plus_one"):
    """ln(1 + x); 0 for what is not positive, missing for what is missing."""

    def bulk(self, x, parse_hex=None):
        import ibis

        x = x.cast("float64")
        return ibis.cases((x > 0, (x + 1).ln()), (x <= 0, 0.0), else_=ibis.null("float64"))

    def one(self, x):
        return None if x is None else math.log(x + 1.0) if x > 0 else 0.0

    def many(self, x):
        x = _floats(x)
        y = np.where(np.isnan(x), np.nan, 0.0)
        y[x > 0] = _ln(x[x > 0] + 1)
        return y


@dataclasses.dataclass(frozen=True)
class DividedBy(Operation, do="divided_by"):
    """x / by."""

    by: float

    def bulk(self, x, parse_hex=None):
        return x.cast("float64") / self.by

    def one(self, x):
        return None if x is None else x / self.by

    def many(self, x):
        return _floats(x) / self.by


@dataclasses.dataclass(frozen=True)
class LogitRate(Operation, do="logit_rate", operands=2):
    """The log odds of the rate of clicks among impressions, drawn towards `prior` as by `weight` more impressions."""

    prior: float
    weight: float

    def bulk(self, impressions, clicks, parse_hex=None):
        prior, weight = self.prior, self.weight
        return ((clicks + weight * prior) / (impressions - clicks + weight * (1 - prior))).ln()

    def one(self, impressions, clicks):
        if impressions is None or clicks is None:
            return None
        return math.log((clicks + self.weight * self.prior) / (impressions - clicks + self.weight * (1 - self.prior)))

    def many(self, impressions, clicks):
        impressions, clicks = _floats(impressions), _floats(clicks)
        return _ln((clicks + self.weight * self.prior) / (impressions - clicks + self.weight * (1 - self.prior)))


def _floats(x: pa.Array | np.ndarray) -> np.ndarray:
    """float64, NaN where x is missing."""
    return x if isinstance(x, np.ndarray) else to_numpy(x.cast(pa.float64(), safe=False))


@dataclasses.dataclass(frozen=True)
class Standardize(Operation, do="standardize"):
    """(x − mean) / std; 0, the mean, where x is missing.

    Where numbers lie so far apart that x − mean may be beyond float64, a quarter of each stands for it, which changes
    no digit.
    """

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not self.std:
            raise ValueError("standardize: std 0")

    @functools.cached_property
    def _is_wide(self) -> bool:
        return self.std > 2.0**1000

    def bulk(self, x, parse_hex=None):
        x, mean, std = x.cast("float64"), self.mean, self.std
        if self._is_wide:
            x, mean, std = x * 0.25, mean * 0.25, std * 0.25
        return ((x - mean) / std).fill_null(0.0)

    def one(self, x):
        if x is None:
            return 0.0
        return (x * 0.25 - self.mean * 0.25) / (self.std * 0.25) if self._is_wide else (x - self.mean) / self.std

    def many(self, x):
        x, mean, std = (x * 0.25, self.mean * 0.25, self.std * 0.25) if self._is_wide else (x, self.mean, self.std)
        with np.errstate(over="ignore"):
            return _zero_for_nan((x - mean) / std)


def _zero_for_nan(x: np.ndarray) -> np.ndarray:
    """As `np.nan_to_num` with infinities kept, at a third of its cost for a few rows."""
    return np.where(np.isnan(x), 0.0, x)


@dataclasses.dataclass(frozen=True)
class OrZero(Operation, do="or_zero"):
    """x; 0 where it is missing."""

    def bulk(self, x, parse_hex=None):
        return x.fill_null(0)

    def one(self, x):
        return 0 if x is None else x

    def many(self, x):
        return _zero_for_nan(x) if isinstance(x, np.ndarray) else _integers(x)


@dataclasses.dataclass(frozen=True)
class OrLeast(Operation, do="or_least"):
    """x, a whole number; the least number of the integer type `dtype` where it is missing. Rows without a display have
    it: metrics of rankings leave them out."""

    dtype: str

    @property
    def least(self) -> int:
        return int(np.iinfo(self.dtype).min)

    def bulk(self, x, parse_hex=None):
        import ibis

        return ibis.coalesce(x.cast("int64"), ibis.literal(self.least, "int64"))

    def one(self, x):
        return self.least if x is None else x

    def many(self, x):
        return _integers(x, self.least)


def _integers(x: pa.Array, missing: int = 0) -> np.ndarray:
    """int64; `missing` where x is."""
    return filled(x.cast(pa.int64()), missing)


# ---- whole numbers


@dataclasses.dataclass(frozen=True)
class WholePart(Operation, do="whole_part"):
    """x // by, a whole number towards minus infinity: the hour of 1630 by 100."""

    by: int

    def bulk(self, x, parse_hex=None):
        return (x // self.by).cast("int64")

    def one(self, x):
        return None if x is None else x // self.by

    def many(self, x):
        return pa.array(to_numpy(x.fill_null(0)) // self.by, mask=_is_missing(x))


@dataclasses.dataclass(frozen=True)
class Weekday(Operation, do="weekday"):
    """0 (Monday) … 6 of yyyymmdd: Zeller's congruence, which every engine can do."""

    def bulk(self, x, parse_hex=None):
        year, month, day = x // 10000, x // 100 % 100, x % 100
        late = month < 3
        year, month = late.ifelse(year - 1, year), late.ifelse(month + 12, month)
        return ((day + (13 * (month + 1)) // 5 + year + year // 4 - year // 100 + year // 400 + 5) % 7).cast("int64")

    def one(self, x):
        if x is None:
            return None
        year, month, day = x // 10000, x // 100 % 100, x % 100
        if month < 3:
            year, month = year - 1, month + 12
        return (day + (13 * (month + 1)) // 5 + year + year // 4 - year // 100 + year // 400 + 5) % 7

    def many(self, x):
        codes = x.dictionary_encode()
        return pa.array([self.one(value) for value in codes.dictionary.to_pylist()], pa.int64()).take(codes.indices)


@dataclasses.dataclass(frozen=True)
class Joined(Operation, do="joined", operands=2):
    """x · factor + y: a user and a day as one number."""

    factor: int

    def bulk(self, x, y, parse_hex=None):
        return x * self.factor + y

    def one(self, x, y):
        return None if x is None or y is None else x * self.factor + y

    def many(self, x, y):
        return pc.add(pc.multiply(x, self.factor), y)


@dataclasses.dataclass(frozen=True)
class OrElse(Operation, do="or_else"):
    """x; the value where it is missing."""

    value: Any

    def bulk(self, x, parse_hex=None):
        import ibis

        return ibis.coalesce(x, self.value)

    def one(self, x):
        return self.value if x is None else x

    def many(self, x):
        return x.fill_null(self.value)


def _is_missing(x: pa.Array) -> np.ndarray:
    return ~to_numpy(x.is_valid())


# ---- ids


@dataclasses.dataclass(frozen=True)
class Bins(Operation, do="bins"):
    """The number of `edges`, which ascend, that x has reached: 1 … len(edges), below the first of them 1; 0 where x is
    missing."""

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(self.edges))

    def bulk(self, x, parse_hex=None):
        import ibis

        def found(first: int, end: int) -> ir.IntegerValue:
            """The bin, which is one of first … end − 1, by bisection."""
            if end - first == 1:
                return ibis.literal(first, "int32")
            middle = (first + end) // 2
            return (x < self.edges[middle - 1]).ifelse(found(first, middle), found(middle, end))

        return x.isnull().ifelse(ibis.literal(0, "int32"), found(1, len(self.edges) + 1))

    def one(self, x):
        return 0 if x is None else max(bisect.bisect_right(self.edges, x), 1)

    def many(self, x):
        bins = np.maximum(np.searchsorted(self.edges, x, side="right"), 1)
        return np.where(np.isnan(x), 0, bins)


@dataclasses.dataclass(frozen=True)
class Hash60(Operation, do="hash60"):
    """The first 60 bits of the MD5 sum of the UTF-8 text: the same number in any other program."""

    def bulk(self, x, parse_hex):
        return parse_hex(x.cast("string").hexdigest("md5").substr(0, 15), "int64")

    def one(self, x):
        return None if x is None else int(hashlib.md5(str(x).encode(), usedforsecurity=False).hexdigest()[:15], 16)

    def many(self, x):
        codes = x.dictionary_encode()
        return pa.array([self.one(value) for value in codes.dictionary.to_pylist()], pa.int64()).take(codes.indices)


@dataclasses.dataclass(frozen=True)
class Vocabulary(Operation, do="vocabulary"):
    """The id of x in the vocabulary `state`, 1 … size; else 0, or with `hash_buckets` one of so many ids behind the
    vocabulary's, by `Hash60`; missing is 0. In bulk it is a join: `prepare/encode.py`."""

    state: str
    hash_buckets: int = 0
    file: VocabularyFile | None = dataclasses.field(default=None, compare=False, repr=False)

    def opened(self, file: VocabularyFile) -> Vocabulary:
        return dataclasses.replace(self, file=file)

    def is_unseen(self, ids: np.ndarray) -> np.ndarray:
        """Which ids are those of no value that the vocabulary holds, missing ones too."""
        return (ids == 0) | (ids > self.file.size)

    def one(self, x):
        if x is None:
            return 0
        id_ = self.file.find(x)
        return id_ if id_ or not self.hash_buckets else self.file.size + 1 + _HASH.one(x) % self.hash_buckets

    def many(self, x):
        is_missing = to_numpy(x.is_null()) if x.null_count else None
        if self.file.kind == "text":  # most columns hold few different texts
            codes = x.dictionary_encode()
            known = np.append(self.file.find_all(codes.dictionary), np.int32(0))
            ids = known[filled(codes.indices, len(known) - 1)]
        else:
            ids = self.file.find_all(of_numbers(filled(x, 0)) if x.null_count else x)
            if is_missing is not None:
                ids[is_missing] = 0
        if self.hash_buckets:
            hashed = np.flatnonzero((ids == 0) & (True if is_missing is None else ~is_missing))
            ids[hashed] = self.file.size + 1 + _integers(_HASH.many(x.take(pa.array(hashed)))) % self.hash_buckets
        return ids


_HASH = Hash60()


# ---- labels


@dataclasses.dataclass(frozen=True)
class Is(Operation, do="is"):
    """1 where x is the value, or one of several, else 0; missing where x is."""

    value: Any

    @property
    def _values(self) -> tuple[Any, ...]:
        return self.value if isinstance(self.value, tuple) else (self.value,)

    def bulk(self, x, parse_hex=None):
        return x.isin(self._values).cast("int8")

    def one(self, x):
        return None if x is None else int(x in self._values)

    def many(self, x):
        is_one = pc.is_in(x, pa.array(self._values, x.type))
        return to_numpy(pc.if_else(x.is_null(), None, is_one.cast(pa.float64())))


@dataclasses.dataclass(frozen=True)
class Above(Operation, do="above"):
    """1 where x is greater than the bound, else 0; missing where x is."""

    bound: float

    def bulk(self, x, parse_hex=None):
        return (x > self.bound).cast("int8")

    def one(self, x):
        return None if x is None else int(x > self.bound)

    def many(self, x):
        return np.where(np.isnan(x), np.nan, x > self.bound)
