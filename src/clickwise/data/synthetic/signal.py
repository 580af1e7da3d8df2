"""Planted signals: the click probability of every row is known, and so is the best AUC that any model can reach.

A signal is anything with `logit(columns) -> float32 [rows]`. Its hidden weights are a pure function of (seed, feature,
id), so that a table of 300 M rows needs no memory and train and test, written apart, share one truth.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np

from clickwise.data.arrays import RaggedArray
from clickwise.data.columns import Columns
from clickwise.data.synthetic.power_law import PowerLaw, power_law
from clickwise.errors import DataError, nearest
from clickwise.feature_spec import Feature, FeatureSpec
from clickwise.recipe import require

HEAD = 1 << 16  # ids below are looked up, ids above are computed
BALANCED = 4096  # ids of a pair's feature whose codes are balanced one by one


SEQUENCE_KINDS = ("category_in_history", "order", "far_back")


class Signal(Protocol):
    def logit(self, columns: Columns) -> np.ndarray:
        """The log-odds of a click of every row, float32 [rows], from the columns as they are stored."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalConfig:
    """What decides the label.

    kind       additive: every id and every numerical has a weight (what a linear model can learn);
               pair: only the interaction of two features counts, each alone tells nothing;
               category_in_history, order, far_back: the history decides (see `sequence.SequenceSignal`);
               none: a coin, the best AUC is 0.5
    strength   additive: standard deviation of the logit; others: the logit is ± strength (best AUC = sigmoid(strength))
    bias       added to every logit: −3.4 gives the 3 % clicks of a real log
    features   which features carry it; empty: the kind chooses some whose ids are frequent enough to be learnt
    recent     far_back: so many of the latest events tell nothing
    """

    kind: Literal["additive", "pair", "category_in_history", "order", "far_back", "none"] = "additive"
    strength: float = 1.5
    bias: float = 0.0
    features: tuple[str, ...] = ()
    recent: int = 10

    def __post_init__(self) -> None:
        require(self.recent >= 0, "recent", found=self.recent, expected="0 or more")
        require(0 <= self.strength <= 16, "strength", found=self.strength, expected="a number from 0 to 16")
        require(-16 <= self.bias <= 16, "bias", found=self.bias, expected="a number from -16 to 16")


def build_signal(config: SignalConfig, spec: FeatureSpec, *, seed: int, alpha: float) -> Signal:
    kinds = {"additive": AdditiveSignal, "pair": PairSignal, "none": NoSignal}
    return kinds[config.kind](config, spec, seed=seed, alpha=alpha)


class NoSignal:
    def __init__(self, config: SignalConfig, spec: FeatureSpec, *, seed: int, alpha: float) -> None:
        self.bias = config.bias

    def logit(self, columns: Columns) -> np.ndarray:
        return np.full(columns.rows, self.bias, np.float32)


class AdditiveSignal:
    """logit = bias + sum of a weight per id + sum of a weight times each numerical; every term has variance s²/terms.

    By default tables of more than 65,536 rows are left out: most of their ids are too rare to learn a weight from, so
    that no model could come near the best AUC.
    """

    def __init__(self, config: SignalConfig, spec: FeatureSpec, *, seed: int, alpha: float) -> None:
        numericals, categoricals = spec.channel("numerical"), spec.channel("categorical")
        if config.features:
            chosen = _chosen(config.features, (*numericals, *categoricals))
        else:
            chosen = (*numericals, *(feature for feature in categoricals if feature.cardinality <= HEAD))
        scale = config.strength / np.sqrt(max(len(chosen), 1))
        self.bias = config.bias
        self.weights = {feature.name: hidden_weights(seed, feature, scale, alpha)
                        for feature in chosen if feature.cardinality is not None}
        # Numericals are uniform on [0, 1): mean 1/2, variance 1/12. Their weights are ± 1 before scaling.
        names = {feature.name for feature in chosen}
        slope = [hidden_sign(seed, feature.name, np.zeros(1, np.int64))[0] * (feature.name in names)
                 for feature in numericals]
        self.slope_N = (np.array(slope, np.float32) * np.float32(np.sqrt(12) * scale)).astype(np.float32)

    def logit(self, columns: Columns) -> np.ndarray:
        logit = np.full(columns.rows, self.bias, np.float32)
        if np.any(self.slope_N):
            logit += (columns.numerical.astype(np.float32) - np.float32(0.5)) @ self.slope_N
        for name, weights in self.weights.items():
            column = columns.arrays[name]
            if isinstance(column, RaggedArray):
                logit += bag_sums(weights(column.values), column.offsets)
            else:
                logit += weights(column)
        return logit


class PairSignal:
    """logit = bias + strength · code(id of one feature) · code(id of the other), codes ± 1 with mean 0 under the law.

    Because each code is balanced, one feature alone leaves the click probability where it was: a model without
    interactions stays at AUC 0.5. Two one-hot features of few ids are the default, so that every id is seen often.
    """

    def __init__(self, config: SignalConfig, spec: FeatureSpec, *, seed: int, alpha: float) -> None:
        one_hot = tuple(feature for feature in spec.channel("categorical") if not feature.is_multi_hot)
        if config.features:
            pair = _chosen(config.features, one_hot)
        else:
            # Fewer than 16 ids cannot be balanced well (the first alone has up to half the mass).
            small_first = sorted(one_hot, key=lambda feature: (feature.cardinality < 16, feature.cardinality))
            pair = tuple(small_first[:2])
        if len(pair) != 2:
            raise DataError("signal: pair", found=f"{len(pair)} features", expected="two one-hot categorical features",
                            do="name two in signal.features, or use the additive signal")
        self.bias = np.float32(config.bias)
        self.names = tuple(feature.name for feature in pair)
        self.codes = [balanced_codes(seed, feature, power_law(feature.cardinality, alpha)) for feature in pair]
        self.strength = np.float32(config.strength)

    def logit(self, columns: Columns) -> np.ndarray:
        left, right = (code(columns.arrays[name]) for code, name in zip(self.codes, self.names, strict=True))
        return self.strength * left * right + self.bias


def _chosen(names: tuple[str, ...], features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    by_name = {feature.name: feature for feature in features}
    for name in names:
        if name not in by_name:
            raise DataError("signal.features", found=f"{name!r}", expected="a feature that this signal can use",
                            do=nearest(name, by_name))
    return tuple(by_name[name] for name in dict.fromkeys(names))


def splitmix64(x: np.ndarray) -> np.ndarray:
    """64 well-mixed bits per element, the same on every machine (Steele, Lea, Flood 2014); uint64 in and out."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hidden_bits(seed: int, feature: str, ids: np.ndarray) -> np.ndarray:
    """64 bits per id that depend on (seed, feature, id) and nothing else, uint64."""
    key = hashlib.blake2b(f"{seed}/{feature}".encode(), digest_size=8).digest()
    return splitmix64(ids.astype(np.uint64) ^ np.frombuffer(key, "<u8"))


def hidden_sign(seed: int, feature: str, ids: np.ndarray) -> np.ndarray:
    return (hidden_bits(seed, feature, ids) >> np.uint64(63)).astype(np.float32) * 2 - 1


def hidden_weights(seed: int, feature: Feature, scale: float, alpha: float) -> Callable[[np.ndarray], np.ndarray]:
    """A function from ids to weights, float32, of standard deviation `scale` and mean 0 under the power law."""
    bags = max(feature.max_hotness or 1, 1) if feature.is_multi_hot else 1
    scale = scale / np.sqrt(bags / 2) if bags > 1 else scale  # a bag holds max_hotness / 2 ids on average

    def weight(ids: np.ndarray) -> np.ndarray:
        unit = (hidden_bits(seed, feature.name, ids) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return (2 * unit - 1) * np.sqrt(3)

    frequent = np.arange(min(feature.cardinality, HEAD))
    probability = power_law(feature.cardinality, alpha).probability(frequent)
    mean = float(weight(frequent) @ probability)
    # The spread under the law differs from 1 where one id has most of the mass.
    spread = max(float(np.sqrt(((weight(frequent) - mean) ** 2) @ probability)), 1e-3)
    return lookup(lambda ids: ((weight(ids) - mean) * (scale / spread)).astype(np.float32), feature.cardinality)


def balanced_codes(seed: int, feature: Feature, law: PowerLaw) -> Callable[[np.ndarray], np.ndarray]:
    """A function from ids to ± 1, float32, whose mean under `law` is 0 to within the mass of a rare id.

    The frequent ids, heaviest first, each take the sign that brings the sum nearer to 0; the rest are coins.
    """
    frequent = np.arange(min(law.size, BALANCED))
    first = float(hidden_sign(seed, feature.name, frequent[:1])[0])
    codes, total = np.empty(len(frequent), np.float32), 0.0
    for index, mass in enumerate(law.probability(frequent)):
        codes[index] = -np.sign(total) if total else first
        total += codes[index] * mass

    def code(ids: np.ndarray) -> np.ndarray:
        head = codes.take(ids, mode="clip")
        return np.where(ids < len(codes), head, hidden_sign(seed, feature.name, ids))

    return lookup(code, law.size)


def lookup(function: Callable[[np.ndarray], np.ndarray], size: int) -> Callable[[np.ndarray], np.ndarray]:
    """`function` of ids below `size`, remembered for the 65,536 most frequent ones."""
    head = function(np.arange(min(size, HEAD)))

    def remembered(ids: np.ndarray) -> np.ndarray:
        values = head.take(ids, mode="clip")
        if size > HEAD:
            rare = np.flatnonzero(ids >= HEAD)
            values[rare] = function(ids[rare])
        return values

    return remembered


def bag_sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The sum of every bag, float32; 0 for an empty one."""
    running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return (running[offsets[1:]] - running[offsets[:-1]]).astype(np.float32)
