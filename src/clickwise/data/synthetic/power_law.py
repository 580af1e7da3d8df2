"""Ids that follow a power law: a few very frequent, a long tail, as in click logs."""

from __future__ import annotations

import functools

import numpy as np

from clickwise.errors import DataError

BUCKETS = 1 << 16


class PowerLaw:
    """Ids 0 … size−1 with P(id ≤ k) = (1 − (k+2)^γ) / (1 − (size+1)^γ), γ = 1 − alpha; id 0 is the most frequent.

    This is the law of NVIDIA's synthetic Criteo data (alpha 1.45): a density x^−alpha on [1, size+1), rounded down.
    alpha = 0 is the uniform law; alpha = 1 is the limit γ → 0, P(id ≤ k) = ln(k+2) / ln(size+1).
    """

    def __init__(self, size: int, alpha: float) -> None:
        if size < 1 or not 0 <= alpha < 64:
            raise DataError("power law", found=f"size {size}, alpha {alpha}", expected="size ≥ 1 and 0 ≤ alpha < 64")
        self.size, self.alpha = size, alpha
        self.gamma = 0.0 if abs(1 - alpha) < 1e-9 else 1.0 - alpha
        self.guide = self._guide()

    def quantile(self, beyond: np.ndarray) -> np.ndarray:
        """The id below which a share `beyond` in [0, 1] of the mass does *not* lie, int64.

        Counted from the far end because floats are densest near 0, where the tail of a large table needs them: with
        u = 1 − beyond this is ⌊(u·((size+1)^γ − 1) + 1)^(1/γ)⌋ − 1.
        """
        if self.gamma == 0.0:
            x = np.exp((1 - beyond) * np.log1p(self.size))
        else:
            far = float(self.size + 1) ** self.gamma
            x = (far + beyond * (1 - far)) ** (1 / self.gamma)
        return np.minimum(x.astype(np.int64) - 1, self.size - 1)

    def at_most(self, ids: np.ndarray | int) -> np.ndarray:
        """P(id ≤ ids), float64; the exact law, not a sample."""
        return self._mass_below(np.asarray(ids, np.float64) + 2)

    def probability(self, ids: np.ndarray | int) -> np.ndarray:
        """P(id = ids), float64."""
        ids = np.asarray(ids, np.float64)
        return self._mass_below(ids + 2) - self._mass_below(ids + 1)

    def different(self, draws: float) -> float:
        """How many different ids so many draws are expected to give.

        Each of the first 65,536 ids for itself; beyond them ids are taken together, each as probable as the mean of
        those beside it.
        """
        own = np.arange(min(self.size, BUCKETS) + 1, dtype=np.float64)
        rest = np.geomspace(BUCKETS, self.size, BUCKETS)[1:] if self.size > BUCKETS else []
        ends = np.concatenate([own, rest])
        ids = np.diff(ends)
        missed = np.log1p(-np.minimum(np.diff(self._mass_below(ends + 1)) / ids, 1 - 2**-53))
        return float((ids * -np.expm1(draws * missed)).sum())

    def _mass_below(self, x: np.ndarray) -> np.ndarray:
        if self.gamma == 0.0:
            return np.log(x) / np.log1p(self.size)
        return np.expm1(self.gamma * np.log(x)) / np.expm1(self.gamma * np.log1p(self.size))

    def _guide(self) -> np.ndarray:
        """For each of 65,536 equal parts of [0, 1): the one id it gives, or −1 where its two ends give different ids.

        94 % of the parts (at any size, alpha 1.45) give one id, so that most draws are one look-up in a table that
        stays in the cache, and only the rest evaluate a power.
        """
        ends = self.quantile(np.arange(BUCKETS + 1) / BUCKETS)
        dtype = np.int8 if self.size < 127 else np.int16 if self.size < 32767 else np.int32
        return np.where(ends[:-1] == ends[1:], ends[:-1], -1).astype(dtype if self.size < 2**31 else np.int64)

    def draw(self, generator: np.random.Generator, rows: int) -> np.ndarray:
        """`rows` independent ids, in the narrowest signed integer type that `prepare` would store them in.

        16 bits choose a part of the guide; where it is ambiguous 53 more choose within it, so that every id of a
        table of 300 M rows can occur.
        """
        part = generator.integers(0, 2**64, -(-rows // 4), dtype=np.uint64).view(np.uint16)[:rows]
        ids = self.guide.take(part, mode="wrap")
        ambiguous = np.flatnonzero(ids < 0)
        beyond = (part[ambiguous] + generator.random(len(ambiguous))) * (1 / BUCKETS)
        ids[ambiguous] = self.quantile(beyond)
        return ids


@functools.lru_cache(maxsize=256)
def power_law(size: int, alpha: float) -> PowerLaw:
    return PowerLaw(size, alpha)


def power_law_ids(generator: np.random.Generator, rows: int, size: int, alpha: float) -> np.ndarray:
    """`rows` ids in 0 … size−1 that follow `PowerLaw(size, alpha)`, in the narrowest signed integer type."""
    return power_law(size, float(alpha)).draw(generator, rows)
