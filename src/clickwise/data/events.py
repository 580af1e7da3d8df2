"""User event logs: every event stored once, and the rows of a mapping as positions in that log.

A chunk of the type `events` has the files user, position and offsets, then one for every feature that the log stores,
in the order of the chunk's features (docs/feature_spec.md). `events_windows` makes histories of it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from clickwise.data.arrays import RaggedArray, column_file
from clickwise.errors import DataError, SpecError
from clickwise.feature_spec import Chunk, FeatureSpec, history_length, is_time_gap, stored_event_features
from clickwise.recipe import require

NUMBER = np.dtype("int32")  # of user and position
TIME = np.dtype("int64")
RULES = ("popularity", "uniform", "compat")  # for what is drawn; the first where a dataset says nothing


@dataclass(frozen=True)
class EventLog:
    """Events of all users, one user's after another's and each user's by time.

    offsets   int64 [users + 1]: user u has the events offsets[u] … offsets[u + 1] − 1
    features  name -> ids [events]; of a time gap, the time of the event in int64
    """

    offsets: np.ndarray
    features: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def counts(self) -> np.ndarray:
        """Events of every user, int64 [users]."""
        return np.diff(self.offsets)


@dataclass(frozen=True, kw_only=True)
class Histories:
    """The section `data.histories` of a recipe: how windows are cut from a log of events.

    length            events in a window; null: as many as the Feature Spec says (dimensions)
    negatives         what is drawn, in training, where something that did not happen is wanted; null: what the dataset
                      says, which holds in evaluation always. uniform: every item alike · popularity: an item as often
                      as it occurs among the events · compat: popularity over all events of all mappings, the user's
                      own items included, and never redrawn (the reference's rule)
    redraw            draw anew in every epoch
    negative_length   of so many of the latest events the window holds negatives; null: of all
    """

    length: int | None = None
    negatives: Literal["uniform", "popularity", "compat"] | None = None
    redraw: bool = True
    negative_length: int | None = None

    def __post_init__(self) -> None:
        for key in ("length", "negative_length"):
            value = getattr(self, key)
            require(value is None or value >= 1, key, found=value, expected="at least 1, or null")

    def lengths(self, spec: FeatureSpec) -> tuple[int, int]:
        """Events in a window, and of how many of the latest it holds negatives."""
        length = self.length or history_length(spec)
        return length, min(length, self.negative_length or length)


class RowNumbers:
    """first, first + 1, … as an array that takes no memory until a part of it is read."""

    dtype, shape = np.dtype("int64"), (0,)

    def __init__(self, first: int, rows: int) -> None:
        self.first, self.rows = first, rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.rows)
        return np.arange(self.first + start, self.first + stop)


@dataclass(frozen=True)
class Samples:
    """Rows of a mapping as positions in a log.

    user      [rows]: whose events
    position  [rows]: how many of the user's events came before, so that it is also the index of the event to come
    row       [rows]: their numbers in the mapping, from which their negatives follow
    time      int64 [rows], for time gaps; None: that of the event to come
    whole     all rows of the mapping, of which these are a part
    """

    log: EventLog
    user: np.ndarray
    position: np.ndarray
    row: np.ndarray | RowNumbers
    time: np.ndarray | None = None
    whole: Samples | None = None
    histories: Histories = Histories(negatives=RULES[0])

    def __len__(self) -> int:
        return len(self.position)

    def columns(self) -> list[np.ndarray | RowNumbers]:
        """What a window is made of, row by row: user, position, row and, where there is one, the time."""
        return [self.user, self.position, self.row, *([] if self.time is None else [self.time])]

    def part(self, rows: slice) -> Samples:
        """Some of the rows; what is drawn for them stays the same."""
        return dataclasses.replace(self, user=self.user[rows], position=self.position[rows], row=self.row[rows],
                                   time=None if self.time is None else self.time[rows], whole=self.whole or self)

    @functools.cached_property
    def horizon(self) -> np.ndarray:
        """Of every user, how many events come before the last row of the mapping or are its target, int64 [users]."""
        if self.whole is not None:
            return self.whole.horizon
        reach = np.zeros(len(self.log.offsets) - 1, np.int64)
        step = 1 << 20
        for start in range(0, len(self), step):
            rows = slice(start, start + step)
            np.maximum.at(reach, self.user[rows], self.position[rows].astype(np.int64) + 1)
        return np.minimum(reach, self.log.counts())


def map_events(spec: FeatureSpec, chunk: Chunk) -> Samples:
    """The samples of an `events` chunk, its files mapped. Raises SpecError for sizes that contradict each other."""
    stored = stored_event_features(spec, chunk)
    paths = [column_file(spec, name) for name in chunk.files]
    user, position = (_map(path, NUMBER) for path in paths[:2])
    if len(user) != len(position):
        raise SpecError(paths[1], found=f"{len(position):,} rows",
                        expected=f"{len(user):,} rows, as in {paths[0].name}",
                        do="one of the two files is cut off, or belongs to another mapping")
    offsets = _map(paths[2], np.dtype("int64"))
    if offsets[0] != 0 or len(offsets) < 2:
        raise SpecError(paths[2], found=f"{len(offsets)} offsets, the first {offsets[0]}",
                        expected="users + 1 offsets (int64) that start at 0")
    features = {}
    for name, path in zip(stored, paths[3:], strict=False):
        features[name] = _map(path, TIME if is_time_gap(spec.features[name]) else np.dtype(spec.features[name].dtype))
        if len(features[name]) != offsets[-1]:
            raise SpecError(path, found=f"{len(features[name]):,} events",
                            expected=f"{offsets[-1]:,} events, where {paths[2].name} ends",
                            do="one of the two files is cut off, or the feature has another dtype")
    time = _map(paths[-1], TIME) if len(paths) > 3 + len(stored) else None
    if time is not None and len(time) != len(user):
        raise SpecError(paths[-1], found=f"{len(time):,} rows", expected=f"{len(user):,} rows, as in {paths[0].name}")
    rule = chunk.options.get("negatives")
    return Samples(EventLog(offsets, features), user, position, RowNumbers(0, len(user)), time,
                   histories=Histories(negatives=rule if rule in RULES else RULES[0]))


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    size = path.stat().st_size
    if size == 0:
        raise SpecError(path, found="an empty file", expected=f"at least one value ({dtype.itemsize} bytes)")
    if size % dtype.itemsize:
        raise SpecError(path, found=f"{size} bytes", expected=f"a multiple of {dtype.itemsize} ({dtype.name})",
                        do="the file is cut off, or its feature has another dtype")
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))


def samples_of_lists(names: list[str], lists: Mapping[str, RaggedArray], where: object) -> Samples:
    """Histories that stand in every row as lists of any length, as samples: every row is a user whose events all came
    before. Raises DataError where the lists of a row differ in length."""
    offsets = lists[names[0]].offsets
    for name in names[1:]:
        other = lists[name].offsets
        if not np.array_equal(other, offsets):
            row = int(np.flatnonzero(np.diff(other) != np.diff(offsets))[0])
            raise DataError(f"{where}, row {row}", found=f"{other[row + 1] - other[row]} values of {name!r}",
                            expected=f"{offsets[row + 1] - offsets[row]}, as of {names[0]!r}: the lists are features "
                                     "of the same events")
    rows = len(offsets) - 1
    log = EventLog(offsets, {name: lists[name].values for name in names})
    return Samples(log, RowNumbers(0, rows), np.diff(offsets), RowNumbers(0, rows))
