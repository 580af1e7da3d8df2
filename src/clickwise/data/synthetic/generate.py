"""Columns with power-law ids and a planted signal, made chunk by chunk for any Feature Spec."""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from pathlib import Path

import numpy as np

from clickwise.data.arrays import RaggedArray, join
from clickwise.data.columns import Columns
from clickwise.data.synthetic.ceiling import Ceiling
from clickwise.data.synthetic.power_law import power_law
from clickwise.data.synthetic.sequence import SequenceSignal, sequence_features
from clickwise.data.synthetic.signal import SEQUENCE_KINDS, SignalConfig, build_signal
from clickwise.errors import DataError, UsageError, nearest
from clickwise.feature_spec import Feature, FeatureSpec, narrowest_id_dtype, split_binary_chunks
from clickwise.memory_limits import memory, shown
from clickwise.recipe import require, to_dict

CHUNK_ROWS = 1 << 17
DISPLAY_ROWS = 8  # consecutive rows that share a display

# Rows of the 26 embedding tables after Criteo 1TB was prepared with a frequency limit of 15, 3 and 0, in the order of
# Criteo's columns. NOTE[DIFF] the reference lists the latter two in the order of file names (cat_0, cat_1, cat_10, …).
VARIANTS = {
    "criteo_t15": (7912889, 33823, 17139, 7339, 20046, 4, 7105, 1382, 63, 5554114, 582469, 245828, 11, 2209, 10667, 104,
                   4, 968, 15, 8165896, 2675940, 7156453, 302516, 12022, 97, 35),
    "criteo_t3": (45833188, 36747, 17246, 7414, 20244, 4, 7115, 1442, 63, 29275261, 1572176, 345139, 11, 2209, 11268,
                  128, 4, 975, 15, 48937457, 11316796, 40094537, 452104, 12607, 105, 36),
    "criteo_t0": (227605432, 39061, 17296, 7425, 20266, 4, 7123, 1544, 64, 130229467, 3067956, 405283, 11, 2209, 11939,
                  155, 4, 977, 15, 292775614, 40790948, 187188510, 590152, 12974, 109, 37),
}
CRITEO_NUMERICALS = 13


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Data made on the spot.

    spec           criteo_t15 | criteo_t3 | criteo_t0, or the path of a Feature Spec; null: the next three describe it
    numericals     number of numerical features, uniform on [0, 1)
    cardinalities  ids of each categorical feature
    max_hotness    the longest bag of each categorical feature (lengths are uniform on 0 … max); empty: all one-hot
    rows           rows of every mapping
    alpha          exponent of the power law of the ids; 0 is uniform
    signal         what decides the label
    history_length, items, item_categories   for signals of the history: the events of its window (some rows have
                   fewer), and how many items there are, in how many categories
    """

    spec: str | None = None
    numericals: int = 4
    cardinalities: tuple[int, ...] = (40, 25, 60, 100, 8, 12, 30, 200, 16, 500)
    max_hotness: tuple[int, ...] = ()
    rows: dict[str, int] = dataclasses.field(default_factory=lambda: {"train": 200_000, "test": 50_000})
    seed: int = 1
    alpha: float = 1.45
    signal: SignalConfig = SignalConfig()
    history_length: int = 0
    items: int = 80
    item_categories: int = 20

    def __post_init__(self) -> None:
        self._check_history()
        require(self.numericals >= 0, "numericals", found=self.numericals, expected="0 or more")
        require(min(self.cardinalities, default=1) >= 1, "cardinalities", found=self.cardinalities,
                expected="numbers of at least 1")
        require(len(self.max_hotness) in (0, len(self.cardinalities)), "max_hotness", found=self.max_hotness,
                expected=f"one number for each of the {len(self.cardinalities)} cardinalities, or none")
        require(min(self.max_hotness, default=1) >= 1, "max_hotness", found=self.max_hotness,
                expected="numbers of at least 1")
        require(bool(self.rows) and min(self.rows.values(), default=0) >= 1, "rows", found=self.rows,
                expected="at least one mapping of at least one row, {train: 200000, test: 50000} for example")
        require(self.seed >= 0, "seed", found=self.seed, expected="0 or more")
        require(0 <= self.alpha < 64, "alpha", found=self.alpha, expected="0 (uniform) or more, 1.45 for example")

    def _check_history(self) -> None:
        kind, least = self.signal.kind, {"order": 2, "far_back": self.signal.recent + 1}.get(self.signal.kind, 1)
        if kind not in SEQUENCE_KINDS:
            require(self.history_length == 0, "history_length", found=self.history_length,
                    expected=f"0 with the signal {kind!r}", do=f"a signal of the history: {', '.join(SEQUENCE_KINDS)}")
            return
        require(self.spec is None, "spec", found=self.spec, expected=f"null with the signal {kind!r}")
        require(self.history_length >= least, "history_length", found=self.history_length,
                expected=f"at least {least} with the signal {kind!r}")
        require(self.item_categories >= 2, "item_categories", found=self.item_categories, expected="at least 2")
        require(self.items > 0 and self.items % (2 * self.item_categories) == 0, "items", found=self.items,
                expected=f"a multiple of {2 * self.item_categories}, twice the number of categories")


def synthetic_spec(config: SyntheticConfig) -> FeatureSpec:
    """The Feature Spec of the data that `config` describes; its metadata tells the seed and the signal."""
    if config.spec is not None:
        spec = named_spec(config.spec, tuple(config.rows))
    else:
        hotness = config.max_hotness or (1,) * len(config.cardinalities)
        spec = click_spec(config.numericals, config.cardinalities, tuple(config.rows), hotness)
        if config.history_length:
            features, channels = sequence_features(config.items, config.item_categories, config.history_length)
            features, channels = {**spec.features, **features}, {**spec.channels, **channels}
            spec = FeatureSpec(features, {mapping: split_binary_chunks(features, channels, mapping)
                                          for mapping in config.rows}, channels)
    return dataclasses.replace(spec, metadata={**spec.metadata, "synthetic": to_dict(config)})


def synthetic_columns(config: SyntheticConfig, mapping: str) -> Columns:
    """The columns of one mapping of `config`, in memory."""
    if mapping not in config.rows:
        raise DataError("synthetic.rows", found=f"no mapping {mapping!r}", expected=f"one of {', '.join(config.rows)}",
                        do=nearest(mapping, config.rows))
    return in_memory(synthetic_spec(config), config.rows[mapping], config.seed, config.signal, alpha=config.alpha,
                     mapping=mapping)[0]


def in_memory(spec: FeatureSpec, rows: int, seed: int, signal: SignalConfig | None = None, *, alpha: float = 1.45,
              mapping: str = "train") -> tuple[Columns, Ceiling]:
    """Columns of `rows` rows and the best that a model can reach on them; the values that `synthesize` writes."""
    _check_memory(spec, rows)
    synthesizer = Synthesizer(spec, seed=seed, alpha=alpha, signal=signal or SignalConfig())
    chunks, ceiling = [], Ceiling()
    for index, chunk_rows in chunk_sizes(rows):
        columns, chunk_ceiling = synthesizer.chunk(mapping, index, chunk_rows)
        chunks.append(columns)
        ceiling += chunk_ceiling
    return concatenate(chunks), ceiling


def _check_memory(spec: FeatureSpec, rows: int) -> None:
    """Raises DataError for rows that no memory of this machine holds."""
    width = sum(np.dtype(feature.dtype).itemsize * math.prod(feature.dimensions or (1,))
                for feature in spec.features.values())
    has = memory()
    if has is not None and rows * width > has.total:
        raise DataError("synthetic.rows", found=f"{rows:,} rows of {width} bytes: {shown(rows * width)}",
                        expected=f"at most {shown(has.total)}, {has.of}",
                        do="ask for fewer rows, or write them to disk: clickwise synth")


def named_spec(name: str, mappings: tuple[str, ...]) -> FeatureSpec:
    """The Feature Spec of a variant or of a YAML file, with chunks for `mappings`.

    Chunks that are `split_binary` keep their files (rows of several files go to the first); others, and mappings that
    the spec does not have, get the default layout.
    """
    if name in VARIANTS:
        return click_spec(CRITEO_NUMERICALS, VARIANTS[name], mappings)
    if not Path(name).exists():
        raise UsageError(name, found="no such file, nor a variant", expected=f"{', '.join(VARIANTS)}, or a spec",
                        do=nearest(name, VARIANTS))
    return with_mappings(FeatureSpec.load(name), mappings)


def with_mappings(spec: FeatureSpec, mappings: tuple[str, ...]) -> FeatureSpec:
    chunks = {}
    for mapping in mappings:
        own = spec.mappings.get(mapping, ())
        if own and all(chunk.type == "split_binary" for chunk in own):
            chunks[mapping] = tuple(
                chunk if spec.features[chunk.features[0]].is_multi_hot
                else dataclasses.replace(chunk, files=chunk.files[:1]) for chunk in own)
        else:
            chunks[mapping] = split_binary_chunks(spec.features, spec.channels, mapping)
    return dataclasses.replace(spec, mappings=chunks)


def click_spec(numericals: int, cardinalities: tuple[int, ...], mappings: tuple[str, ...],
               max_hotness: tuple[int, ...] = ()) -> FeatureSpec:
    """A Feature Spec with features num_0 …, cat_0 … and label."""
    features = [Feature(f"num_{index}", "float16") for index in range(numericals)]
    hotness = max_hotness or (1,) * len(cardinalities)
    features += [Feature(f"cat_{index}", narrowest_id_dtype(cardinality), cardinality, bag if bag > 1 else None)
                 for index, (cardinality, bag) in enumerate(zip(cardinalities, hotness, strict=True))]
    by_name = {feature.name: feature for feature in [*features, Feature("label", "bool")]}
    channels = {"numerical": tuple(name for name in by_name if name.startswith("num_")),
                "categorical": tuple(name for name in by_name if name.startswith("cat_")), "label": ("label",)}
    chunks = {mapping: split_binary_chunks(by_name, channels, mapping) for mapping in mappings}
    return FeatureSpec(by_name, chunks, channels)


def chunk_sizes(rows: int) -> list[tuple[int, int]]:
    """(index, rows) of the chunks that make up `rows` rows."""
    starts = range(0, rows, CHUNK_ROWS)
    return [(index, min(CHUNK_ROWS, rows - start)) for index, start in enumerate(starts)]


class Synthesizer:
    """Chunks of columns; each is a pure function of (seed, mapping, index), so that threads may make them in any order.

    Raises DataError for a spec with channels that it cannot fill.
    """

    def __init__(self, spec: FeatureSpec, *, seed: int, alpha: float, signal: SignalConfig) -> None:
        is_sequence = signal.kind in SEQUENCE_KINDS
        known = ("numerical", "categorical", "display", "label",
                 *(("target_item", "history", "negative_history") if is_sequence else ()))
        for channel, names in spec.channels.items():
            if names and channel not in known:
                raise DataError(f"{spec.path}: channel_spec.{channel}", found="a channel without a synthetic source",
                                expected=", ".join(known))
        if not spec.channel("label"):
            raise DataError(f"{spec.path}: channel_spec.label", found="no feature", expected="one feature")
        for feature in spec.channel("categorical"):
            if not isinstance(feature.cardinality, int):
                raise DataError(f"{spec.path}: feature_spec.{feature.name}.cardinality", found=str(feature.cardinality),
                                expected="an integer, so that ids can be drawn")
            if feature.dimensions:
                raise DataError(f"{spec.path}: feature_spec.{feature.name}.dimensions", found=str(feature.dimensions),
                                expected="one id a row, or max_hotness for lists")
        for feature in spec.channel("numerical"):
            if np.dtype(feature.dtype).kind != "f":
                raise DataError(f"{spec.path}: feature_spec.{feature.name}.dtype", found=feature.dtype,
                                expected="a float type, since numericals are drawn from [0, 1)")
        self.spec, self.seed = spec, seed
        self.signal = SequenceSignal(signal, spec) if is_sequence else \
            build_signal(signal, spec, seed=seed, alpha=alpha)
        self.laws = {feature.name: power_law(feature.cardinality, float(alpha))
                     for feature in spec.channel("categorical")}

    def chunk(self, mapping: str, index: int, rows: int) -> tuple[Columns, Ceiling]:
        generator = chunk_generator(self.seed, mapping, index)
        numericals = self.spec.channel("numerical")
        dtypes = [np.dtype(feature.dtype) for feature in numericals]
        block = uniform(generator, rows * len(numericals), np.result_type(*dtypes)) if numericals else None
        arrays = {feature.name: self._ids(generator, feature, rows) for feature in self.spec.channel("categorical")}
        if isinstance(self.signal, SequenceSignal):
            arrays |= self.signal.draw(generator, rows)
        if (display := self._display(index, rows)) is not None:
            arrays.setdefault(*display)
        columns = Columns(rows=rows, arrays=arrays,
                          numerical=None if block is None else block.reshape(rows, len(numericals)))
        logit = self.signal.logit(columns)
        label = draw_labels(generator, logit)
        ceiling = Ceiling.of(logit, label)
        feature = self.spec.channel("label")[0]
        arrays[feature.name] = label.astype(feature.dtype, copy=False)
        return columns, ceiling

    def _ids(self, generator: np.random.Generator, feature: Feature, rows: int) -> np.ndarray | RaggedArray:
        law = self.laws[feature.name]
        if not feature.is_multi_hot:
            return law.draw(generator, rows).astype(feature.dtype, copy=False)
        # NOTE[DIFF] the reference draws lengths from the power law on 1 … max; uniform on 0 … max exercises empty and
        # full bags alike.
        offsets = np.zeros(rows + 1, np.int64)
        np.cumsum(generator.integers(0, feature.max_hotness + 1, rows), out=offsets[1:])
        return RaggedArray(law.draw(generator, int(offsets[-1])).astype(feature.dtype, copy=False), offsets)

    def _display(self, index: int, rows: int) -> tuple[str, np.ndarray] | None:
        """Name and ids of the display: every 8 consecutive rows belong together."""
        if not self.spec.channel("display"):
            return None
        feature = self.spec.channel("display")[0]
        ids = (np.arange(rows, dtype=np.int64) + index * CHUNK_ROWS) // DISPLAY_ROWS
        ids %= min(np.iinfo(feature.dtype).max, feature.cardinality or np.iinfo(np.int64).max)
        return feature.name, ids.astype(feature.dtype)


def chunk_generator(seed: int, mapping: str, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, zlib.crc32(mapping.encode()), index])))


def draw_labels(generator: np.random.Generator, logit: np.ndarray) -> np.ndarray:
    """A click with probability sigmoid(logit), bool [rows]."""
    with np.errstate(over="ignore"):  # exp of a large number is inf, and the probability 0, as it should be
        probability = 1 / (1 + np.exp(-logit))
    return generator.random(len(logit), dtype=np.float32) < probability


@functools.cache
def _float16_steps() -> np.ndarray:
    """16 random bits to float16 on [0, 1): the 2,048 multiples of 2⁻¹¹, which float16 holds exactly."""
    return ((np.arange(1 << 16) >> 5) * 2.0**-11).astype(np.float16)


def uniform(generator: np.random.Generator, count: int, dtype: np.dtype) -> np.ndarray:
    """`count` numbers of [0, 1) in a float type."""
    if dtype == np.float16:
        bits = generator.integers(0, 2**64, -(-count // 4), dtype=np.uint64).view(np.uint16)[:count]
        return _float16_steps().take(bits, mode="wrap")
    return generator.random(count, dtype=dtype if dtype == np.float32 else np.float64).astype(dtype, copy=False)


def concatenate(chunks: list[Columns]) -> Columns:
    """The rows of all chunks, one after another."""
    numerical = None if chunks[0].numerical is None else join([chunk.numerical for chunk in chunks])
    arrays = {name: join([chunk.arrays[name] for chunk in chunks]) for name in chunks[0].arrays}
    return Columns(rows=sum(chunk.rows for chunk in chunks), arrays=arrays, numerical=numerical)
