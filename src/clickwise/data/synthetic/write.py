"""Synthetic data on disk: `split_binary` columns and feature_spec.yaml, streamed in bounded memory."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from clickwise import recipe
from clickwise.data.columns import Columns
from clickwise.data.synthetic.ceiling import Ceiling
from clickwise.data.synthetic.generate import (
    Synthesizer,
    SyntheticConfig,
    chunk_sizes,
    synthetic_spec,
    with_mappings,
)
from clickwise.data.synthetic.signal import SignalConfig
from clickwise.errors import DataError
from clickwise.feature_spec import Chunk, FeatureSpec
from clickwise.files import holds_something, whole_folder
from clickwise.machine import usable_cores
from clickwise.manifest import write_manifest
from clickwise.progress import Progress

Figures = dict[str, float | int]
Job, Result = TypeVar("Job"), TypeVar("Result")


def synthesize(spec_or_variant: FeatureSpec | str, rows: dict[str, int], out_folder: str | Path, *, seed: int = 1,
               alpha: float = 1.45, signal: SignalConfig | str = "additive",
               threads: int | None = None) -> dict[str, Figures]:
    """Writes a dataset with a planted signal and returns, by mapping, its rows and the best that a model can reach.

    spec_or_variant  criteo_t15 | criteo_t3 | criteo_t0, the path of a feature_spec.yaml, or a FeatureSpec
    rows             rows of every mapping, {"train": 4_000_000, "test": 100_000} for example
    threads          change the time it takes, never a byte of what is written; None: every core

    The folder appears when all of it is there. Raises RecipeError for values out of range,
    DataError where the folder exists already or the disk is full.
    """
    given = None if isinstance(spec_or_variant, FeatureSpec) else str(spec_or_variant)
    config = checked(spec=given, rows=rows, seed=seed, alpha=alpha, signal=signal)
    spec = with_mappings(spec_or_variant, tuple(rows)) if given is None else synthetic_spec(config)
    synthesizer = Synthesizer(spec, seed=seed, alpha=alpha, signal=config.signal)
    ceilings = {}
    with new_folder(out_folder) as folder, Progress("synthesizing", total=sum(rows.values())) as bar:
        for mapping, mapping_rows in rows.items():
            ceilings[mapping] = Ceiling()
            with contextlib.ExitStack() as stack:
                files = [[stack.enter_context(open(_path_in(folder, spec, name), "wb")) for name in chunk.files]
                         for chunk in spec.mappings[mapping]]
                writers = [ChunkWriter(spec, chunk, opened)
                           for chunk, opened in zip(spec.mappings[mapping], files, strict=True)]
                jobs = [(mapping, index, size) for index, size in chunk_sizes(mapping_rows)]
                for columns, ceiling in in_order(lambda job: synthesizer.chunk(*job), jobs, threads):
                    for writer in writers:
                        writer.write(columns)
                    ceilings[mapping] += ceiling
                    bar.advance(columns.rows)
        figures = {mapping: ceiling.figures() for mapping, ceiling in ceilings.items()}
        about = {"seed": seed, "alpha": alpha, "signal": recipe.to_dict(config.signal), **figures}
        dataclasses.replace(spec, metadata={**spec.metadata, "synthetic": about}).save(folder)
        write_manifest(folder)
    return figures


def checked(*, signal: SignalConfig | str, **values: object) -> SyntheticConfig:
    """The values as a SyntheticConfig; raises RecipeError for one that cannot be."""
    signal = {"kind": signal} if isinstance(signal, str) else recipe.to_dict(signal)
    return recipe.parse(SyntheticConfig, {**values, "signal": signal}, "synthetic data")


class ChunkWriter:
    """Appends the columns of one chunk of the Feature Spec to its file, or to its values and offsets."""

    def __init__(self, spec: FeatureSpec, chunk: Chunk, files: list[BinaryIO]) -> None:
        self.name, self.files, self.values = chunk.features[0], files, 0
        self.is_numerical = self.name in spec.channels.get("numerical", ())
        if spec.features[self.name].is_multi_hot:
            files[1].write(np.zeros(1, "<i8").tobytes())

    def write(self, columns: Columns) -> None:
        column = columns.numerical if self.is_numerical else columns.arrays[self.name]
        if isinstance(column, np.ndarray):
            self.files[0].write(column.data)
            return
        self.files[0].write(column.values.data)
        self.files[1].write((column.offsets[1:] + self.values).data)
        self.values += len(column.values)


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path` at the end; raises DataError where `path` holds something."""
    path = Path(path)
    if holds_something(path):
        raise DataError(path, found="a folder that is not empty" if path.is_dir() else "a file",
                        expected="a folder that does not exist yet", do="choose another, or remove this one first")
    try:
        with whole_folder(path) as folder:
            yield folder
    except OSError as error:
        raise DataError(path, found=error.strerror or str(error), expected="a disk that holds the data",
                        do="free some space, choose fewer rows or another folder; nothing was left behind") from error


def in_order(function: Callable[[Job], Result], jobs: Iterable[Job], threads: int | None) -> Iterator[Result]:
    """`function(job)` of every job, in the order of the jobs, at most 2 · threads of them under way or waiting."""
    threads = threads or usable_cores()
    if threads == 1:
        yield from map(function, jobs)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque = collections.deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(function, job))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _path_in(folder: Path, spec: FeatureSpec, name: str) -> Path:
    """Where a file of the spec goes; raises DataError for one that would lie outside the folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError(f"{spec.path}: source_spec", found=f"the file {name!r}",
                        expected="a path inside the folder that is written")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
