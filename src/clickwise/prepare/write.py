"""Streams of rows, in whatever order an engine gives them, into raw columns in the order of the input.

Every table written here carries the column `row` (0 … rows−1). A value goes to the position its row number says, or,
for a shuffle, to the one a permutation of the row numbers says: neither the order in which an engine streams nor the
number of its threads can change a byte of the output.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from clickwise.arrow_arrays import to_numpy
from clickwise.errors import PrepareError
from clickwise.feature_spec import Chunk, Feature, FeatureSpec, split_binary_chunks
from clickwise.files import write_array
from clickwise.prepare.engine import Engine
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.scatter import RowOrder, ScatterFile, block
from clickwise.progress import Progress

if TYPE_CHECKING:
    import ibis.expr.types as ir

BUFFER_BYTES = 256 * 2**20
VALUE_BYTES = 128  # of a vocabulary in an engine's join
SIDE_BY_SIDE = 16  # files: an engine takes longer to plan a query the more of them it is to fill


class ChunkWriter(Protocol):
    """Columns that need no engine any more, as `broadcast.BroadcastByKey`."""

    def write(self, paths: Sequence[Path], features: Sequence[Feature], rows: int,
              report: Callable[[int, str], None]) -> None:
        """Writes the files of a chunk, its rows in the order of the files."""


def write_dataset(folder: PreparationFolder, columns: Callable[[str, tuple[str, ...]], ir.Table | ChunkWriter], *,
                  features: Mapping[str, Feature], channels: Mapping[str, Sequence[str]], rows: Mapping[str, int],
                  shuffle_seed: int | None, one_pass: bool = False) -> FeatureSpec:
    """The Feature Spec of the dataset in `folder`, of which every mapping of `rows` is now written.

    `columns(mapping, names)` gives the table as `write_mapping` asks for it, with `one_pass` too; with `shuffle_seed`
    the rows of `train` are permuted. A mapping that an earlier, interrupted run has written is left as it is.
    """
    def write_one(mapping: str, chunks: Sequence[Chunk]) -> None:
        with Progress(f"writing {mapping}", total=rows[mapping] * len(chunks), unit="values") as bar:
            write_mapping(folder.engine, folder.dataset, mapping, functools.partial(columns, mapping),
                          features=features, channels=channels, rows=rows[mapping],
                          shuffle_seed=shuffle_seed if mapping == "train" else None,
                          buffer_bytes=folder.buffer_bytes, spill_folder=folder.work / "spill", one_pass=one_pass,
                          report=bar.advance)

    mappings = {mapping: split_binary_chunks(features, channels, mapping) for mapping in rows}
    for mapping, chunks in mappings.items():
        folder.stage(f"{mapping} written", functools.partial(write_one, mapping, chunks))
    spec = FeatureSpec(features, mappings, channels, folder=folder.dataset)
    spec.save(folder.dataset)
    return spec


def write_mapping(engine: Engine, folder: Path, mapping: str,
                  columns: Callable[[tuple[str, ...]], ir.Table | ChunkWriter], *,
                  features: Mapping[str, Feature], channels: Mapping[str, Sequence[str]], rows: int,
                  shuffle_seed: int | None = None, buffer_bytes: int = BUFFER_BYTES, spill_folder: Path,
                  one_pass: bool = False,
                  report: Callable[[int, str], None] = lambda rows, file: None) -> tuple[Chunk, ...]:
    """The chunks of `mapping`, written under `folder` in the default layout (`spec.split_binary_chunks`).

    `columns(names)` gives the table with `row` and the columns `names`: ids for a feature with a cardinality (a list
    of ids where it is multi-hot), numbers otherwise. It is asked once per file (twice for a multi-hot one: hand out a
    stored table), so that only one vocabulary is in memory at a time; with `one_pass` once for as many files as the
    buffer holds with their vocabularies. Or it gives what writes the files itself, which knows the order of the rows.
    With `shuffle_seed` the rows are permuted; the same seed and number of rows give the same permutation everywhere. At
    most about `buffer_bytes` are held; larger files are put together from pieces in `spill_folder`. `report` is called
    with rows done and file name.
    """
    import ibis.expr.types as ir

    (folder / mapping).mkdir(parents=True, exist_ok=True)
    spill_folder.mkdir(parents=True, exist_ok=True)
    order = RowOrder(rows, shuffle_seed, spill_folder / f"{mapping}.order", buffer_bytes)
    scatter_file = functools.partial(ScatterFile, buffer_bytes=buffer_bytes, spill_folder=spill_folder)
    chunks = split_binary_chunks(features, channels, mapping)
    for group in _passes(chunks, features, rows, buffer_bytes if one_pass else 0):
        source = columns(tuple(name for chunk in group for name in chunk.features))
        parts = [[features[name] for name in chunk.features] for chunk in group]
        paths = [[folder / file for file in chunk.files] for chunk in group]
        if not isinstance(source, ir.Table):
            source.write(paths[0], parts[0], rows, report)
        elif parts[0][0].is_multi_hot:
            _write_lists(engine, source, parts[0][0], paths[0], rows, order, scatter_file, buffer_bytes, report)
        else:
            blocks = [(path, part) for (path,), part in zip(paths, parts, strict=True)]
            _write_blocks(engine, source, blocks, rows, order, scatter_file, report)
    order.remove()
    return chunks


def _passes(chunks: Sequence[Chunk], features: Mapping[str, Feature], rows: int, held_bytes: int) -> list[list[Chunk]]:
    """The chunks in groups that are written side by side: as many as take `held_bytes` together, each with a
    vocabulary; lists alone."""
    groups: list[list[Chunk]] = []
    held = 0
    for chunk in chunks:
        first = features[chunk.features[0]]
        size = rows * len(chunk.features) * np.dtype(first.dtype).itemsize + VALUE_BYTES * (first.cardinality or 0)
        held = held_bytes + 1 if first.is_multi_hot else held + size
        if not groups or held > held_bytes or len(groups[-1]) == SIDE_BY_SIDE:
            groups.append([])
            held = held_bytes if first.is_multi_hot else size
        groups[-1].append(chunk)
    return groups


def _write_blocks(engine, table, blocks, rows, order, scatter_file, report) -> None:
    """One stream of `table`, each of the `blocks` (path, features of one type) into its file."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(scatter_file(path, rows, features[0].dtype, len(features)))
                 for path, features in blocks]
        for batch in engine.batches(table.select("row", *(feature.name for _, part in blocks for feature in part))):
            positions, column = order(to_numpy(batch.column(0))), iter(batch.columns[1:])
            for file, (path, features) in zip(files, blocks, strict=True):
                file.put(positions, block([_checked(next(column), feature) for feature in features], file.dtype))
                report(len(batch), path.name)


def _write_lists(engine, table, feature, paths, rows, order, scatter_file, buffer_bytes, report) -> None:
    """Two passes: the lengths become the offsets, then every list goes where its offset says."""
    values_path, offsets_path = paths
    lengths = table.select("row", length=table[feature.name].length())
    with scatter_file(offsets_path, rows + 1, "int64") as file:
        file.put(np.zeros(1, np.int64), np.zeros(1, np.int64))
        for batch in engine.batches(lengths):
            _no_missing(batch.column(1), feature)
            file.put(order(to_numpy(batch.column(0))) + 1, to_numpy(batch.column(1)))
    total, step = 0, max(1, buffer_bytes // 16)
    with open(offsets_path, "r+b") as file:
        for first in range(0, rows + 1, step):
            offsets = np.cumsum(np.fromfile(offsets_path, np.int64, min(step, rows + 1 - first), offset=8 * first))
            write_array(file, offsets + total)
            total += int(offsets[-1])
    offsets = np.memmap(offsets_path, np.int64, "r")
    with scatter_file(values_path, total, feature.dtype) as file:
        for batch in engine.batches(table.select("row", feature.name)):
            lists = batch.column(1)
            counts = np.diff(to_numpy(lists.offsets))
            target = offsets[order(to_numpy(batch.column(0)))]
            start = np.cumsum(counts) - counts
            positions = np.repeat(target - start, counts) + np.arange(counts.sum())
            file.put(positions, _checked(lists.flatten(), feature))
            report(len(batch), values_path.name)


def _no_missing(column: pa.Array, feature: Feature) -> None:
    if column.null_count:
        raise PrepareError(feature.name, found=f"{column.null_count} rows without a value",
                           expected="every missing value to have become an id or a number")


def _checked(column: pa.Array, feature: Feature) -> np.ndarray:
    """The column as numpy, after a look that its values fit what the spec says of them."""
    _no_missing(column, feature)
    values = to_numpy(column)
    dtype = np.dtype(feature.dtype)
    if not len(values) or values.dtype == bool:
        return values
    if dtype.kind == "f":
        if not np.abs(values).max() <= np.finfo(dtype).max:
            raise PrepareError(feature.name, found="a number that is not finite or too large",
                               expected=f"finite numbers within {dtype.name}", do="scale the feature, or bucket it")
        return values
    low, high = int(values.min()), int(values.max())
    end = 2 if dtype.kind == "b" else feature.cardinality or np.iinfo(dtype).max + 1
    if low < (0 if dtype.kind == "b" or feature.cardinality else np.iinfo(dtype).min) or high >= end:
        raise PrepareError(feature.name, found=f"values from {low} to {high}", expected=f"values below {end}")
    return values
