"""One dataset as training sees it: a Feature Spec, and columns by mapping, from disk or made on the spot."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from clickwise.data.check import check_columns
from clickwise.data.columns import Columns, read_columns
from clickwise.data.loader import Loader
from clickwise.data.synthetic import SyntheticConfig, synthetic_columns, synthetic_spec
from clickwise.errors import DataError, nearest
from clickwise.recipe import require
from clickwise.spec import FeatureSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The `data` section of a recipe.

    path          folder with feature_spec.yaml and columns, relative to where the command is run
    synthetic     instead of `path`: data with a planted signal, made in memory
    train         the mapping to train on
    validation    the mapping that guides training (best checkpoint, early stop); null: the test mapping does
    test          the mapping of the final metrics
    shuffle       none | batches (their order) | rows (inside windows of `window_rows`)
    drop_last     leave out a last training batch that is not full
    prefetch      batches that a thread reads ahead
    """

    path: str | None = None
    synthetic: SyntheticConfig | None = None
    train: str = "train"
    validation: str | None = None
    test: str = "test"
    shuffle: Literal["none", "batches", "rows"] = "rows"
    window_rows: int = 1_048_576
    drop_last: bool = False
    prefetch: int = 2

    def __post_init__(self) -> None:
        require((self.path is None) != (self.synthetic is None), "path", found=self.path,
                expected="either path or synthetic", do="run `clickwise prepare` and give the folder it wrote")
        require(self.window_rows > 0, "window_rows", found=self.window_rows, expected="a number above 0")
        require(self.prefetch >= 0, "prefetch", found=self.prefetch, expected="0 or more")

    @property
    def name(self) -> str:
        """A short name for run folders."""
        return "synthetic" if self.path is None else Path(self.path).resolve().name


class Dataset:
    """`spec`, and for every mapping columns and loaders."""

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        if config.path is None:
            self.spec = synthetic_spec(config.synthetic)
        else:
            self.spec = FeatureSpec.load(config.path)

    def columns(self, mapping: str) -> Columns:
        """The columns of a mapping, checked once per dataset (ids in range, files whole, no NaN)."""
        if mapping not in self.spec.mappings:
            raise DataError(self.spec.folder, found=f"no mapping {mapping!r}",
                            expected=f"one of {', '.join(self.spec.mappings)}",
                            do=nearest(mapping, self.spec.mappings))
        if self.config.synthetic is not None:
            return synthetic_columns(self.config.synthetic, mapping)
        check_columns(self.spec, mapping)
        return read_columns(self.spec, mapping)

    def train_loader(self, *, batch_size: int, seed: int, pin_memory: bool) -> Loader:
        config = self.config
        columns = self.columns(config.train)
        if batch_size > columns.rows:
            raise DataError(f"train.batch_size={batch_size}",
                            found=f"the mapping {config.train!r} has only {columns.rows:,} rows",
                            expected="a batch no larger than the data",
                            do=f"set train.batch_size={columns.rows} or less")
        return Loader(columns, self.spec, batch_size=batch_size, shuffle=config.shuffle, seed=seed,
                      window_rows=config.window_rows, drop_last=config.drop_last, prefetch=config.prefetch,
                      pin_memory=pin_memory)

    def evaluation_loader(self, mapping: str, *, batch_size: int, pin_memory: bool) -> Loader:
        return Loader(self.columns(mapping), self.spec, batch_size=batch_size, shuffle="none",
                      prefetch=self.config.prefetch, pin_memory=pin_memory)
