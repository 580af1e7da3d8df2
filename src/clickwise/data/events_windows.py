"""Histories cut from a log of events, for a whole batch at a time: windows, padding and what is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from clickwise.data.events import Samples
from clickwise.feature_spec import Feature, FeatureSpec, is_time_gap
from clickwise.feature_spec.draws import Draws, window
from clickwise.feature_spec.histories import gap_ids

CHANNELS = ("history", "negative_history", "target_item")  # those that a log of events may give
BLOCK_VALUES = 1 << 15  # values worked on at a time: they stay in the processor's cache

Shape = tuple[tuple[int, ...], np.dtype]


class HistoryReader:
    """Windows of the channel history, a block of samples at a time; `sampled` are rows of `Samples.columns()`.

    features   of every feature its ids by event, or where it is a time gap the events' times and that feature
    """

    def __init__(self, samples: Samples, spec: FeatureSpec) -> None:
        self.length, _ = samples.histories.lengths(spec)
        self.offsets = np.asarray(samples.log.offsets)
        self.features: list[tuple[np.ndarray, Feature | None]] = [
            (samples.log.features[feature.name], feature if is_time_gap(feature) else None)
            for feature in spec.channel("history")]

    def ends(self, sampled: list[np.ndarray]) -> np.ndarray:
        """Where in the log the windows end, [B]: the positions of the events to come."""
        user_B, position_B, *_ = sampled
        return self.offsets[user_B] + position_B

    def ids(self, feature: int, end_B: np.ndarray, sampled: list[np.ndarray]) -> np.ndarray:
        """What the windows hold of one feature, [B, L]; anything where no event is known."""
        values, gap = self.features[feature]
        window_BL = window(values, end_B, self.length)
        if gap is None:
            return window_BL
        time_B = sampled[3] if len(sampled) > 3 else values[np.minimum(end_B, len(values) - 1)]
        return gap_ids(time_B[:, None] - window_BL, gap.extra["time_gap"], gap.cardinality)

    def known(self, first_BL: np.ndarray, sampled: list[np.ndarray]) -> np.ndarray:
        """Where the windows hold an event that is known, bool [B, L]; `first_BL` are the ids of the first feature."""
        length_B = np.minimum(sampled[1], self.length).astype(np.int64)
        known_BL = np.arange(self.length) >= (self.length - length_B)[:, None]
        known_BL &= first_BL != 0
        return known_BL


class HistoryBatcher:
    """Makes of the rows of `samples` the features `made`, of each of CHANNELS all or none.

    A window holds the last L events before the sample, the latest last, and 0 where there are fewer. An event whose
    first feature is 0 (an item that the vocabulary does not know) is 0 in every feature, as padding is. Everything is
    a function of (seed, epoch, row), however rows are put together in batches.

    channels   the channel of every tensor that `fill` writes, in the order of the channels' features
    """

    def __init__(self, samples: Samples, spec: FeatureSpec, made: Mapping[str, Sequence[Feature]], seed: int) -> None:
        self.reader = HistoryReader(samples, spec)
        self.length, self.negative_length = samples.histories.lengths(spec)
        self.channels = [channel for channel in CHANNELS for _ in made[channel]]
        self.features = [feature for channel in CHANNELS for feature in made[channel]]
        self.history_features, self.negative_features, self.makes_targets = (len(made[channel]) for channel in CHANNELS)
        self.stored_negatives = [samples.log.features[feature.name] for feature in made["negative_history"]
                                 if feature.name in samples.log.features]
        self.draws_history = self.negative_features and not self.stored_negatives
        self.items = [values for values, gap in self.reader.features if gap is None]
        self.negatives = None
        if self.draws_history or self.makes_targets:
            self.negatives = draws_of(samples, self.items, seed, most=self.length)

    def shapes(self, rows: int) -> list[Shape]:
        """Shape and type of every tensor that `fill` writes for so many rows."""
        of = {"target_item": (rows,), "history": (rows, self.length), "negative_history": (rows, self.negative_length)}
        return [(of[channel], np.dtype(feature.dtype))
                for channel, feature in zip(self.channels, self.features, strict=True)]

    def fill(self, epoch: int, sampled: list[np.ndarray], label_B: np.ndarray | None, outs: list[np.ndarray]) -> None:
        """Writes the tensors of the rows whose `Samples.columns()` are `sampled`. `label_B` tells the targets that came
        (the event at the sample's position) from those that are drawn."""
        step = max(1, BLOCK_VALUES // self.length)
        for start in range(0, len(sampled[0]), step):
            rows = slice(start, start + step)
            self._fill(epoch, [column[rows] for column in sampled], None if label_B is None else label_B[rows],
                       [out[rows] for out in outs])

    def _fill(self, epoch, sampled, label_B, outs) -> None:
        user_B, position_B, row_B, *_ = sampled
        end_B = self.reader.ends(sampled)
        first_BL = self.reader.ids(0, end_B, sampled)
        known_BL = self.reader.known(first_BL, sampled)
        outs = iter(outs)
        for feature in range(self.history_features):
            window_BL = self.reader.ids(feature, end_B, sampled) if feature else first_BL
            np.multiply(window_BL, known_BL, out=next(outs), casting="unsafe")
        known_BL = known_BL[:, self.length - self.negative_length :]
        for values in self.stored_negatives:
            np.multiply(window(values, end_B, self.negative_length), known_BL, out=next(outs), casting="unsafe")
        if self.draws_history:
            drawn = self.negatives.draw(epoch, user_B, row_B, "history", self.negative_length)
            for drawn_BL in drawn[: self.negative_features]:
                np.multiply(drawn_BL, known_BL, out=next(outs), casting="unsafe")
        if self.makes_targets:
            came_B = label_B.astype(bool)
            drawn = self.negatives.draw_targets(epoch, user_B, position_B, row_B)
            for values, drawn_B, out in zip(self.items, drawn, outs, strict=False):
                out[:] = np.where(came_B, values[np.minimum(end_B, len(values) - 1)], drawn_B)


def draws_of(samples: Samples, items: list[np.ndarray], seed: int, most: int) -> Draws:
    """What is drawn for `samples`, as their `histories` say."""
    histories = samples.histories
    reach = samples.log.counts() if histories.negatives == "compat" else samples.horizon
    return Draws(np.asarray(samples.log.offsets), items, reach, rule=histories.negatives, seed=seed, most=most,
                 redraw=histories.redraw)
