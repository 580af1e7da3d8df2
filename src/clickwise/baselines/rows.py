"""Rows of a mapping in memory, as baselines take them: numbers and ids, without histories."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from clickwise.batch import Batch, Column, Ragged
from clickwise.data.columns import Columns
from clickwise.data.loader import Loader
from clickwise.feature_spec import Feature, FeatureSpec

CHANNELS = ("numerical", "categorical", "user", "target_item")
BLOCK_ROWS, BLOCKS = 4096, 48  # at most 196,608 rows, in stretches: single rows would each read a page of the disk
MOST_VALUES = 10_000_000  # of all columns: wide tables have fewer rows
MOST_IDS = 1 << 16  # of a feature; further ones share these, id modulo their number


class Unable(Exception):
    """Why a baseline cannot be fitted, in words."""


@dataclasses.dataclass(frozen=True)
class Ids:
    """A feature of ids, int64. `row_V` is None where every row has one, else the row that each id stands in."""

    name: str
    cardinality: int
    id_V: np.ndarray
    row_V: np.ndarray | None = None

    def sums(self, of_id: np.ndarray, rows: int) -> np.ndarray:
        """The sum of a value per id, over the ids of each row, float64 [rows]."""
        value_V = of_id[self.id_V]
        return value_V if self.row_V is None else np.bincount(self.row_V, value_V, minlength=rows)

    def by_id(self, of_row: np.ndarray) -> np.ndarray:
        """The sum of a value per row, over the rows of each id, float64 [cardinality]."""
        return np.bincount(self.id_V, of_row if self.row_V is None else of_row[self.row_V], minlength=self.cardinality)

    def counts(self) -> np.ndarray:
        return np.bincount(self.id_V, minlength=self.cardinality)

    def lengths(self, rows: int) -> np.ndarray:
        """How many ids each row has."""
        return np.ones(rows, np.int64) if self.row_V is None else np.bincount(self.row_V, minlength=rows)

    def every(self, step: int, first: int) -> Ids:
        if self.row_V is None:
            return dataclasses.replace(self, id_V=self.id_V[first::step])
        kept_V = self.row_V % step == first
        return dataclasses.replace(self, id_V=self.id_V[kept_V], row_V=self.row_V[kept_V] // step)


@dataclasses.dataclass(frozen=True)
class Rows:
    """label_B bool · numerical_BN float64, finite · ids by feature"""

    label_B: np.ndarray
    numerical_BN: np.ndarray
    ids: tuple[Ids, ...]

    def __len__(self) -> int:
        return len(self.label_B)

    def every(self, step: int, first: int = 0) -> Rows:
        """The rows first, first + step, …"""
        return Rows(self.label_B[first::step], self.numerical_BN[first::step],
                    tuple(column.every(step, first) for column in self.ids))


def flat_features(spec: FeatureSpec, channels: Collection[str]) -> tuple[list[Feature], list[Feature]]:
    """The numbers, and the features of ids, among those channels that a baseline can read."""
    return ([*spec.channel("numerical")] if "numerical" in channels else [],
            [feature for channel in CHANNELS[1:] if channel in channels for feature in spec.channel(channel)])


def blocks_of(spec: FeatureSpec, channels: Collection[str]) -> int:
    """How many blocks of rows are read: fewer where rows are wide."""
    width = max(1, sum(map(len, flat_features(spec, channels))))
    return max(1, min(BLOCKS, MOST_VALUES // (width * BLOCK_ROWS)))


def spread(loader: Loader, blocks: int) -> Iterator[Batch]:
    """The batches of an epoch; of more than `blocks` so many full ones, spread evenly over it."""
    if len(loader) <= blocks:
        yield from loader.epoch(0)
        return
    for number in np.linspace(0, len(loader) - 2, blocks).astype(int).tolist():
        yield next(loader.epoch(0, start_batch=number))


def read_rows(columns: Columns, spec: FeatureSpec, channels: Collection[str]) -> Rows:
    """The rows of a mapping, or where they are many some of them, spread evenly."""
    loader = Loader(columns, spec, batch_size=BLOCK_ROWS, prefetch=0, channels={*CHANNELS} & {*channels})
    _, features = flat_features(spec, channels)
    labels, numbers, parts = [], [], []
    for batch in spread(loader, blocks_of(spec, channels)):  # copies: the loader uses its memory again
        labels.append(batch.label.numpy() != 0)
        if batch.numerical is not None:
            numbers.append(np.nan_to_num(batch.numerical.float().numpy()).astype(np.float64))
        parts.append([_ids(column) for column in (*batch.categorical, *batch.user, *batch.target_item)])
    label_B = np.concatenate(labels)
    starts = np.cumsum([0, *map(len, labels)])
    return Rows(label_B, np.concatenate(numbers) if numbers else np.zeros((len(label_B), 0)),
                tuple(_joined(feature, of_blocks, starts)
                      for feature, of_blocks in zip(features, zip(*parts, strict=True), strict=True)))


def _ids(column: Column) -> tuple[np.ndarray, np.ndarray | None]:
    """The ids of a batch, and of lists the row that each stands in."""
    if not isinstance(column, Ragged):
        return column.numpy().astype(np.int64), None
    offsets = column.offsets.numpy()
    return (column.values_V.numpy()[: offsets[-1]].astype(np.int64),
            np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)))


def _joined(feature: Feature, blocks: Sequence[tuple[np.ndarray, np.ndarray | None]], starts: np.ndarray) -> Ids:
    id_V, row_V = np.concatenate([ids for ids, _ in blocks]), None
    if blocks[0][1] is not None:
        row_V = np.concatenate([rows + start for (_, rows), start in zip(blocks, starts, strict=False)])
    if feature.cardinality > MOST_IDS:
        id_V %= MOST_IDS
    return Ids(feature.name, min(feature.cardinality, MOST_IDS), id_V, row_V)
