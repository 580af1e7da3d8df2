"""The one order of every preparation: raw files, folder, tables, fit, columns, summary. A dataset fills it in."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clickwise.encoding.document import FILE
from clickwise.errors import PrepareError
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare.engine import Engine, EngineConfig
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.further import Given, write_further
from clickwise.prepare.further_rows import Source
from clickwise.prepare.raw_files import find_files
from clickwise.progress import say
from clickwise.recipe import to_dict


class Preparation(abc.ABC):
    """A dataset on its way from raw files to columns: `run` is the order, a dataset fills in the steps before it.

    Config      the dataclass of its recipe section; `config` is what a recipe says
    file_keys   keys of the section that only name raw files: another spelling of the same files is the same recipe
    trained_by  the shipped recipe that is named as the next step, with overrides that it needs behind it
    trained_by_if_small  the one that is named where an epoch of the other is too short for its batch or its warm-up

    Each step may hand on what it found as attributes. What takes long stands in `self.folder.stage(name, work)`: a run
    that was stopped resumes after the last of them. `self.engine` runs Ibis expressions and keeps tables.
    """

    Config: type
    file_keys: Sequence[str] = ()
    trained_by: str | None = None
    trained_by_if_small: str | None = None
    folder: PreparationFolder

    def __init__(self, config: Any, name: str, where: str) -> None:
        self.config, self.name, self.where = config, name, where  # `where` names the section in error messages

    @abc.abstractmethod
    def raw_files(self) -> dict[str, list[Path]]:
        """The raw files by what they are for; raises PrepareError where one is missing."""

    def tables_bytes(self, files: Mapping[str, Sequence[Path]]) -> int | None:
        """About how large the tables in the engine will be; None where nobody knows: then they lie on disk."""
        return None

    @abc.abstractmethod
    def store(self, files: Mapping[str, Sequence[Path]]) -> None:
        """Raw files -> tables, checked; and which rows belong to which mapping."""

    @abc.abstractmethod
    def fit(self) -> None:
        """What is learnt from the training rows, vocabularies and scales; all of it is written to preparation/."""

    @abc.abstractmethod
    def write(self) -> None:
        """Columns and feature_spec.yaml into `self.folder.dataset`; most datasets call `write.write_dataset`."""

    @abc.abstractmethod
    def summary(self) -> dict[str, Any]:
        """What preparation/summary.json tells; `rows` by mapping, `cardinalities` and `bad_rows_skipped` are shown."""

    def metadata(self) -> dict[str, Any]:
        """What feature_spec.yaml says of the data under `metadata`; `licence` goes on to the card of a model."""
        return {}

    def further(self) -> dict[str, Source]:
        """Raw rows by mapping that an encoding fitted before is to make columns of: the files of the key `input`, if
        there is one."""
        if not hasattr(self.config, "input"):
            raise PrepareError(f"{self.where}.name", found=f"{self.name}, which takes no further rows",
                               expected="a dataset with the key input, for --with")
        if not self.config.input:
            raise PrepareError(f"{self.where}.input", found="no files, with --with", expected="files of raw rows",
                               do="dataset.input=[FILE]; docs/raw_rows.md says what the rows must have")
        return {"input": Source(find_files(self.config.input, f"{self.where}.input"))}

    @property
    def engine(self) -> Engine:
        return self.folder.engine

    def run(self, out: Path, engine: EngineConfig, overwrite: bool = False, given: Given | None = None) -> Path:
        """The folder `out` with columns, feature_spec.yaml and preparation/; with `given` nothing is fitted, and rows
        are encoded as it says. Raises PrepareError; then `out` is as before."""
        further = None if given is None else self.further()
        files = self.raw_files() if further is None else {
            **{mapping: source.files for mapping, source in further.items()}, "with": [given.encoding.folder / FILE]}
        folder = PreparationFolder(out, recipe={"dataset": {"name": self.name, **to_dict(self.config)}}, inputs=files,
                                   file_keys=self.file_keys, engine=engine, overwrite=overwrite,
                                   tables_bytes=None if further else self.tables_bytes(files))
        if folder.unchanged:
            say(f"{out}: already prepared from these files with this recipe")
            return folder.out
        with folder:
            if further is not None:
                return folder.finish({"dataset": self.name, **write_further(folder, given, further)})
            self.folder = folder
            self.store(files)
            self.fit()
            self.write()
            if metadata := self.metadata():
                spec = FeatureSpec.load(folder.dataset)
                dataclasses.replace(spec, metadata={**spec.metadata, **metadata}).save(folder.dataset)
            return folder.finish({"dataset": self.name, **self.summary()})
