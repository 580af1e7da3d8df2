"""How often every id occurs in the samples of a mapping: what mini-batch aware regularization divides by."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from clickwise.data.arrays import RaggedArray
from clickwise.data.columns import Columns
from clickwise.data.events_windows import HistoryReader
from clickwise.errors import DataError
from clickwise.feature_spec import ID_CHANNELS, Feature, FeatureSpec
from clickwise.progress import Progress

STEP = 1 << 20  # values at a time, or as many as there are ids

WeightedIds = tuple[np.ndarray, np.ndarray | None]  # ids, and how often each of them counts (None: once)


def id_counts(columns: Columns, spec: FeatureSpec, names: Iterable[str],
              rows: Mapping[str, int]) -> dict[str, np.ndarray]:
    """How often every id of these features occurs, int64 [cardinality] for each; DataError for one that has no ids.
    Of a feature in `rows` that has more ids than `rows` says, ids modulo that number are counted, int64 [rows]: its
    table has no more of them.

    Counted is what the batches of one epoch hold, in bags and windows too. Padding (where the first feature of the
    history is 0) is no id, and of a negative history those beside padding are none.
    NOTE[DIFF] What is drawn for a sample, negatives and targets that did not come, is not counted: it may be another in
    every epoch. Zhou et al. 2018 count the occurrences of an id "in all samples", and draw nothing.
    """
    of_spec = {feature.name: (channel, index, feature) for channel in ID_CHANNELS
               for index, feature in enumerate(spec.channel(channel))}
    names = list(names)
    for name in names:
        if name not in of_spec:
            raise DataError(f"feature {name!r}", found=f"no column of its ids in {spec.path}",
                            expected="features of the data, where ids are counted for minibatch_l2",
                            do="set minibatch_l2=0 for its tables: ids that a model makes itself, as of a cross, are "
                               "not counted")
    log, counts = None if columns.events is None else CountedLog(columns, spec), {}
    with Progress("counting ids", total=len(names), unit="features") as bar:
        for name in names:
            channel, index, feature = of_spec[name]
            if (size := rows.get(name, feature.cardinality)) < feature.cardinality:
                feature = dataclasses.replace(feature, cardinality=size)
            parts = _parts_of_column(columns, spec, log, channel, feature) if name in columns.arrays \
                else log.parts(channel, index, feature)
            counts[name] = _count(parts, feature.cardinality, is_modulo=name in rows)
            bar.advance(1, name)
    return counts


def _count(parts: Iterator[WeightedIds], cardinality: int, is_modulo: bool) -> np.ndarray:
    counts = np.zeros(cardinality, np.int64)
    for ids, times in parts:  # bincount adds up weights in float64: integers, exact to 2^53
        if is_modulo and len(ids) and ids.max() >= cardinality:
            ids = ids % ids.dtype.type(cardinality)
        counts += np.bincount(ids, times, minlength=cardinality).astype(np.int64, copy=False)
    return counts


def _slices(length: int, cardinality: int, width: int = 1) -> Iterator[slice]:
    """All of `length` rows of so many values, in steps for which going through `cardinality` counters costs little."""
    step = max(1, max(STEP, cardinality) // width)
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def _parts_of_column(columns: Columns, spec: FeatureSpec, log: CountedLog | None, channel: str,
                     feature: Feature) -> Iterator[WeightedIds]:
    array = columns.arrays[feature.name]
    if channel not in ("history", "negative_history"):
        values = array.values if isinstance(array, RaggedArray) else array
        yield from ((values[part], None) for part in _slices(len(values), feature.cardinality))
        return
    for rows in _slices(columns.rows, feature.cardinality, array.shape[1]):
        known_BL = log.known(rows) if log else columns.arrays[spec.channel("history")[0].name][rows] != 0
        width = min(known_BL.shape[1], array.shape[1])
        yield array[rows, -width:][known_BL[:, -width:]], None


class CountedLog:
    """What the samples of `columns` see of their log of events, counted by event and not by window: an event is in the
    windows of all samples that come after it, up to a window's length, so that only where windows start and end is
    looked at, sample by sample."""

    def __init__(self, columns: Columns, spec: FeatureSpec) -> None:
        self.columns, self.spec, self.samples = columns, spec, columns.events
        self.log, self.reader = columns.events.log, HistoryReader(columns.events, spec)
        self.length, self.negative_length = columns.events.histories.lengths(spec)
        self._windows_that_hold = functools.cache(self._windows_that_hold)  # asked for by every feature

    def parts(self, channel: str, index: int, feature: Feature) -> Iterator[WeightedIds]:
        """Ids of the feature, number `index` of its channel, and how often each of them counts."""
        if channel == "target_item":
            values, times = self.reader.features[index][0], self._came
        elif channel == "history" and self.reader.features[index][1] is not None:
            yield from self._time_gaps(index, feature)
            return
        elif feature.name in self.log.features:
            values, times = self.log.features[feature.name], self._windows_that_hold(
                self.length if channel == "history" else self.negative_length)
        else:  # drawn
            return
        for part in _slices(len(values), feature.cardinality):
            yield values[part], times[part]

    def known(self, rows: slice) -> np.ndarray:
        """Where the windows of some rows hold an event that is known, bool [B, L]."""
        sampled = self._sampled(rows)
        return self.reader.known(self.reader.ids(0, self.reader.ends(sampled), sampled), sampled)

    def _sampled(self, rows: slice) -> list[np.ndarray]:
        return [column[rows] for column in self.samples.columns()]

    def _time_gaps(self, index: int, feature: Feature) -> Iterator[WeightedIds]:
        """The one feature that differs from window to window."""
        for rows in _slices(len(self.samples), feature.cardinality, self.length):
            sampled = self._sampled(rows)
            yield self.reader.ids(index, self.reader.ends(sampled), sampled)[self.known(rows)], None

    def _windows_that_hold(self, length: int) -> np.ndarray:
        """In how many windows of the last `length` events each event is, int64 [events]; 0 for those not known."""
        windows = np.zeros(len(self.log) + 1, np.int64)  # how many more than hold the event before
        for rows in _slices(len(self.samples), 0):
            sampled = self._sampled(rows)
            end_B = self.reader.ends(sampled)
            np.add.at(windows, end_B - np.minimum(sampled[1], length), 1)
            np.subtract.at(windows, end_B, 1)
        windows = np.cumsum(windows[:-1])
        windows[np.asarray(self.reader.features[0][0]) == 0] = 0
        return windows

    @functools.cached_property
    def _came(self) -> np.ndarray:
        """Of how many samples each event is the target that came, int64 [events]."""
        came = np.zeros(len(self.log), np.int64)
        label = self.columns.arrays[self.spec.channel("label")[0].name]
        for rows in _slices(len(self.samples), 0):
            end_B = self.reader.ends(self._sampled(rows))[label[rows].astype(bool)]
            np.add.at(came, np.minimum(end_B, len(came) - 1), 1)
        return came
