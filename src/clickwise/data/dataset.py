"""One dataset as training sees it: a Feature Spec, and columns by mapping, from disk or made on the spot."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clickwise.data.arrays import SomeColumns
from clickwise.data.check import check_columns
from clickwise.data.columns import Columns, read_columns
from clickwise.data.events import Histories
from clickwise.data.id_counts import id_counts
from clickwise.data.loader import Loader
from clickwise.data.synthetic import SyntheticConfig, synthetic_columns, synthetic_spec
from clickwise.errors import DataError, nearest
from clickwise.feature_spec import CHANNELS, ID_CHANNELS, FeatureSpec, check_encoded, check_inside, without
from clickwise.given_files import check_links
from clickwise.manifest import Manifest, Sum
from clickwise.recipe import require

PREPARATION = "preparation"  # what was fitted, beside the columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The `data` section of a recipe.

    path          folder with feature_spec.yaml and columns, relative to where the command is run
    synthetic     instead of `path`: data with a planted signal, made in memory
    train         the mapping to train on
    subset        of its rows the first so many (1_000_000), or this share of them (0.1); null: all
    validation    the mapping that guides training (best checkpoint, early stop); null: the test mapping does
    test          the mapping of the final metrics
    shuffle       none | batches (their order) | rows (inside windows of `window_rows`)
    window_rows   rows that are in memory to be shuffled; the more, the better they are mixed
    drop_last     leave out a last training batch that is not full
    prefetch      batches that a thread reads ahead
    histories     how long they are, and what is drawn for them
    ignore        inputs that the model does without: features, or channels such as user
    """

    path: str | None = None
    synthetic: SyntheticConfig | None = None
    train: str = "train"
    subset: int | float | None = None
    validation: str | None = None
    test: str = "test"
    shuffle: Literal["none", "batches", "rows"] = "rows"
    window_rows: int = 1_048_576
    drop_last: bool = False
    prefetch: int = 2
    histories: Histories = Histories()
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require((self.path is None) != (self.synthetic is None), "path", found=self.path,
                expected="either path or synthetic", do="run `clickwise prepare` and give the folder it wrote")
        is_share, subset = isinstance(self.subset, float), self.subset
        require(subset is None or (0 < subset <= 1 if is_share else subset > 0), "subset", found=subset,
                expected="how many rows, 1 or more, or a share of them above 0 to 1.0")
        require(self.window_rows > 0, "window_rows", found=self.window_rows, expected="a number above 0")
        require(self.prefetch >= 0, "prefetch", found=self.prefetch, expected="0 or more")

    def absolute(self) -> DataConfig:
        """The same, with a path that holds from any working folder."""
        return self if self.path is None else dataclasses.replace(self, path=str(Path(self.path).resolve()))

    @property
    def name(self) -> str:
        """A short name for run folders."""
        return "synthetic" if self.path is None else Path(self.path).resolve().name


class Dataset:
    """`spec`, and for every mapping columns and loaders.

    stored   the Feature Spec of what lies there
    spec     the same, without what the recipe leaves out: then it has no mappings
    """

    def __init__(self, config: DataConfig, spec: FeatureSpec | None = None, *, trust_paths: bool = False) -> None:
        """`spec` stands for what lies in `config.path`, where only rows from elsewhere are to be read. `trust_paths`
        lets the Feature Spec name files, and lets links lead, outside of its folder."""
        self.config = config
        self._columns: dict[str, Columns] = {}
        self._sums: dict[str, dict[str, Sum]] = {}  # by mapping that was read
        if spec is not None:
            self.stored = spec
        elif config.path is None:
            self.stored = synthetic_spec(config.synthetic)
        else:
            self.stored = FeatureSpec.load(config.path)
            self.manifest.verified(self.stored.name)
            check_encoded(self.stored)
            if not trust_paths:
                check_inside(self.stored)
                check_links(self.stored.folder / PREPARATION)
        self.spec = without(self.stored, config.ignore) if config.ignore else self.stored

    @functools.cached_property
    def manifest(self) -> Manifest:
        """Sizes and checksums of the dataset's files, where what wrote it left them."""
        return Manifest(self.stored.folder)

    def columns(self, mapping: str) -> Columns:
        """The columns of a mapping, checked once per dataset (ids in range, files whole, no NaN)."""
        if mapping not in self.stored.mappings:
            raise DataError(self.stored.folder, found=f"no mapping {mapping!r}",
                            expected=f"one of {', '.join(self.stored.mappings)}",
                            do=nearest(mapping, self.stored.mappings))
        if mapping not in self._columns:
            self._columns[mapping] = self._read(mapping)
        return self._columns[mapping]

    def _read(self, mapping: str) -> Columns:
        if self.config.synthetic is not None:
            columns = synthetic_columns(self.config.synthetic, mapping)
        else:
            self._sums[mapping] = check_columns(self.stored, mapping, self.manifest)
            columns = read_columns(self.stored, mapping)
        stored, kept = (spec.channels.get("numerical", ()) for spec in (self.stored, self.spec))
        if columns.numerical is None or kept == stored:
            return columns
        some = SomeColumns(columns.numerical, [stored.index(name) for name in kept]) if kept else None
        return dataclasses.replace(columns, numerical=some)

    def inputs(self, reads: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """What a model that reads these channels needs to be the same in other data: features, their order and their
        cardinalities."""
        channels = {channel: list(names) for channel, names in reads.items()}
        return {**channels, "cardinalities": [self.spec.features[name].cardinality for name in _ids(channels)]}

    def other_input(self, reads: Mapping[str, Sequence[str]], saved: Mapping[str, Any]) -> str | None:
        """The first channel (or "cardinalities") in which the data is another than `saved`, the `inputs` of a
        checkpoint; None where it is none. What a checkpoint does not tell (old ones name the channels user, target_item
        and history only where there is a history) is not compared, nor what it tells of channels not read."""
        for channel, names in reads.items():
            if saved.get(channel, list(names)) != list(names):
                return channel
        sizes = dict(zip(_ids(saved), saved["cardinalities"], strict=True))
        ours = {name: self.spec.features[name].cardinality for name in _ids(reads)}
        return next(("cardinalities" for name, size in ours.items() if sizes.get(name, size) != size), None)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What must be the same for training to go on exactly: the Feature Spec, and of every file of the recipe's
        mappings its bytes and CRC-32."""
        config, found = self.config, {}
        for mapping in (config.train, config.validation, config.test) if config.path is not None else ():
            if mapping is not None:
                self.columns(mapping)
                found |= self._sums[mapping]
        return {"spec": self.stored.fingerprint(), "files": {file: list(found[file]) for file in sorted(found)}}

    def is_that_of(self, saved: Mapping[str, Any]) -> bool:
        """Whether `saved`, the `identity` in a checkpoint, is that of this data."""
        if any(isinstance(value, str) for value in saved["files"].values()):  # of an earlier version
            return saved["spec"] == self.stored.fingerprint() and all(
                (path := self.stored.folder / file).exists() and _sampled(path) == value
                for file, value in saved["files"].items())
        return saved == self.identity

    def train_loader(self, *, batch_size: int, seed: int, pin_memory: bool, channels: Collection[str] = CHANNELS,
                     rank: int = 0, world_size: int = 1) -> Loader:
        config, columns = self.config, self.train_columns()
        if batch_size > columns.rows:
            part = "" if config.subset is None else f" with data.subset={config.subset}"
            raise DataError(f"train.batch_size={batch_size}",
                            found=f"the mapping {config.train!r} has only {columns.rows:,} rows{part}",
                            expected="a batch no larger than the data",
                            do=f"set train.batch_size={columns.rows} or less" + (
                                ", or data.subset to more: 1 is one row, 1.0 all of them" if part else ""))
        last = columns.rows % batch_size
        if batch_size < world_size or (0 < last < world_size and not config.drop_last):
            found = f"batches of {batch_size}" if batch_size < world_size else f"a last batch of {last}"
            raise DataError(f"{world_size} processes", found=f"{found} samples of the mapping {config.train!r}",
                            expected="a sample for every process in every batch",
                            do="start fewer processes, or set another train.batch_size or data.drop_last=true")
        return Loader(columns, self.spec, batch_size=batch_size, shuffle=config.shuffle, seed=seed, rank=rank,
                      world_size=world_size,
                      window_rows=config.window_rows, drop_last=config.drop_last, prefetch=config.prefetch,
                      pin_memory=pin_memory, channels=channels)

    def train_counts(self, features: Iterable[str] | Mapping[str, int]) -> dict[str, np.ndarray]:
        """How often every id of these features occurs in the samples of the training mapping; see `id_counts`, to which
        a mapping says how many rows their tables have."""
        return id_counts(self.train_columns(), self.spec, features,
                         features if isinstance(features, Mapping) else {})

    def train_columns(self) -> Columns:
        """The rows that are trained on."""
        histories, columns, rows = self.config.histories, self.columns(self.config.train), self.config.subset
        if isinstance(rows, float):
            rows = max(1, int(columns.rows * rows))
        if rows is not None and rows > columns.rows:
            raise DataError(f"data.subset={rows}",
                            found=f"the mapping {self.config.train!r} has only {columns.rows:,} rows",
                            expected="no more rows than there are", do="leave data.subset out to train on all of them")
        if rows is not None:
            columns = columns.part(slice(rows))
        return _with_histories(columns, self.spec, histories, histories.negatives)

    def as_evaluated(self, columns: Columns) -> Columns:
        """Rows from anywhere with histories as long as the recipe says."""
        return _with_histories(columns, self.spec, self.config.histories, None)

    def evaluation_loader(self, mapping: str, *, batch_size: int, pin_memory: bool,
                          channels: Collection[str] = CHANNELS, rank: int = 0, world_size: int = 1) -> Loader:
        return Loader(self.as_evaluated(self.columns(mapping)), self.spec, batch_size=batch_size, shuffle="none",
                      prefetch=self.config.prefetch, pin_memory=pin_memory, channels=channels, rank=rank,
                      world_size=world_size)


def _ids(channels: Mapping[str, Sequence[str]]) -> list[str]:
    """The features of ids in the channels of `inputs`."""
    return [name for channel, names in channels.items() if channel in ID_CHANNELS for name in names]


def _with_histories(columns: Columns, spec: FeatureSpec, histories: Histories, negatives: str | None) -> Columns:
    """The same rows with histories as a recipe wants them; negatives are drawn as it says, or (None) as the dataset."""
    arrays = dict(columns.arrays)
    for channel, length in (("history", histories.length),
                            ("negative_history", histories.negative_length or histories.length)):
        for name in spec.channels.get(channel, ()) if length else ():
            if name in arrays:
                arrays[name] = arrays[name][:, -length:]
    events = columns.events
    if events is not None:
        settings = dataclasses.replace(histories, negatives=negatives or events.histories.negatives)
        events = dataclasses.replace(events, histories=settings)
    return dataclasses.replace(columns, arrays=arrays, events=events)


def _sampled(path: Path, parts: int = 32, part_bytes: int = 1 << 16) -> str:
    """What checkpoints of earlier versions hold of a file: a hash of its size and of up to 32 parts of 64 KiB."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for part in range(parts):
            file.seek(max(size - part_bytes, 0) * part // (parts - 1))
            digest.update(file.read(part_bytes))
            if size <= part_bytes:
                break
    return digest.hexdigest()
