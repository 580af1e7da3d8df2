"""Columns of a mapping: memory-mapped from `split_binary`, read into memory from parquet and csv."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clickwise.data.arrays import Array, Block, RaggedArray, SomeColumns, column_file, join
from clickwise.data.events import Samples, map_events, samples_of_lists
from clickwise.errors import DataError, SpecError
from clickwise.feature_spec import AUTO, Chunk, FeatureSpec


@dataclass(frozen=True)
class Columns:
    """Rows of a dataset, column by column, in the types they are stored in.

    arrays     feature -> ids [rows], lists of fixed length [rows, L], or RaggedArray (multi-hot); no numericals
    numerical  [rows, N] in the order of the channel, an array of which rows can be taken, or None
    events     the rows as positions in a log of events, of which the loader makes the features that are not in `arrays`
    """

    rows: int
    arrays: dict[str, Array] = field(default_factory=dict)
    numerical: np.ndarray | SomeColumns | None = None
    events: Samples | None = None

    def part(self, rows: slice) -> Columns:
        """Some of the rows."""
        start, stop, _ = rows.indices(self.rows)
        return Columns(stop - start, {name: array[rows] for name, array in self.arrays.items()},
                       None if self.numerical is None else self.numerical[rows],
                       None if self.events is None else self.events.part(rows))


def read_columns(spec: FeatureSpec, mapping: str, channels: Iterable[str] | None = None,
                 wide_ids: bool = False) -> Columns:
    """The columns of a mapping, of the channels asked for (by default all).

    `split_binary` stays on disk and is mapped; ids keep their stored type, those of csv and parquet get the type that
    the spec says (`wide_ids`: int64, in which an id that is too large is still seen as one). What can be seen without
    reading is checked here: raises DataError for a file that is missing or cannot be read, SpecError for sizes that
    contradict the spec.
    """
    wanted = {name for channel in (spec.channels if channels is None else channels)
              for name in spec.channels.get(channel, ())}
    arrays: dict[str, Array] = {}
    rows_of: list[tuple[Path, int]] = []
    events = None
    for chunk in spec.chunks(mapping):
        names = [name for name in chunk.features if name in wanted]
        if not names:
            continue
        if chunk.type == "events":
            events = map_events(spec, chunk)
            rows_of.append((spec.folder / chunk.files[0], len(events)))
            continue
        if chunk.type == "split_binary":
            found = map_chunk(spec, chunk)
        else:
            blocks = [block.arrays for block in stream_chunk(spec, chunk, names, wide_ids=wide_ids)]
            found = {name: join([block[name] for block in blocks]) for name in names}
        arrays |= found
        rows_of.append((spec.folder / chunk.files[-1], len(found[names[0]])))
    return side_by_side(spec, arrays, agreed_rows(rows_of), events)


def side_by_side(spec: FeatureSpec, arrays: dict[str, Array], rows: int, events: Samples | None = None) -> Columns:
    """Columns of features by name, the numericals joined in the order of their channel, histories that are lists of any
    length as events."""
    order, numerical = spec.channels.get("numerical", ()), None
    if order and order[0] in arrays:
        numerical = arrays[order[0]] if arrays[order[0]].ndim == 2 else np.stack([arrays[n] for n in order], axis=1)
    lists = [name for channel in ("history", "negative_history") for name in spec.channels.get(channel, ())
             if isinstance(arrays.get(name), RaggedArray)]
    if lists:
        events = samples_of_lists(lists, arrays, spec.path)
    return Columns(rows, {name: array for name, array in arrays.items() if name not in order and name not in lists},
                   numerical, events)


def check_loadable(spec: FeatureSpec) -> None:
    """Raises SpecError where the cardinality of a feature is still `auto`."""
    for feature in spec.features.values():
        if feature.cardinality == AUTO:
            raise SpecError(f"{spec.path}: feature_spec.{feature.name}.cardinality", found=AUTO,
                            expected="an integer, before data can be loaded", do="clickwise transcode finds it")


def map_chunk(spec: FeatureSpec, chunk: Chunk) -> dict[str, Array]:
    """The arrays of a split_binary chunk, mapped; every numerical gives the same block [rows, N]."""
    feature = spec.features[chunk.features[0]]
    dtype = np.dtype(feature.dtype)
    if feature.is_multi_hot:
        return {feature.name: _map_lists(spec, chunk, dtype)}
    is_numerical = feature.name in spec.channels.get("numerical", ())
    shape = (len(chunk.features),) if is_numerical else tuple(feature.dimensions or ())
    parts = [_map_file(column_file(spec, name), dtype, shape) for name in chunk.files]
    # Several files are joined in memory: our own writers give one file a column, and NVIDIA's format allows no more.
    array = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return {name: array for name in chunk.features}


def _map_file(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """[rows, *shape], read-only; rows follow from the size of the file."""
    size, row = path.stat().st_size, dtype.itemsize * math.prod(shape)
    if size == 0:
        raise SpecError(path, found="an empty file", expected=f"at least one row ({row} bytes)")
    if size % row:
        values = f"{math.prod(shape)} × {dtype.name}" if shape else dtype.name
        raise SpecError(path, found=f"{size} bytes, {size / row:.2f} rows", expected=f"a multiple of {row} ({values})",
                        do="the file is cut off, or its features have another dtype")
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=(size // row, *shape)))


def _map_lists(spec: FeatureSpec, chunk: Chunk, dtype: np.dtype) -> RaggedArray:
    values_path, offsets_path = (column_file(spec, name) for name in chunk.files)
    size = offsets_path.stat().st_size
    if size % 8 or size < 16:
        raise SpecError(offsets_path, found=f"{size} bytes", expected="rows + 1 offsets of 8 bytes (int64)",
                        do="a multi-hot chunk lists its values file first, its offsets file second")
    offsets = _map_file(offsets_path, np.dtype("int64"), ())
    empty = values_path.stat().st_size == 0
    values = np.empty(0, dtype) if empty else _map_file(values_path, dtype, ())
    if offsets[0] != 0 or offsets[-1] != len(values):
        raise SpecError(offsets_path, found=f"offsets from {offsets[0]} to {offsets[-1]}",
                        expected=f"from 0 to {len(values)}, the number of values in {values_path.name}",
                        do="one of the two files is cut off, or the feature has another dtype")
    return RaggedArray(values, offsets)


def stream_chunk(spec: FeatureSpec, chunk: Chunk, names: list[str], rows: int = 1 << 20,
                 wide_ids: bool = False, carry: tuple[str, ...] = ()) -> Iterator[Block]:
    """Blocks of at most about `rows` rows of a csv or parquet chunk, unknown ids as their features say; `wide_ids`
    gives ids in int64, `carry` names further columns of the files."""
    if chunk.type == "parquet":
        from clickwise.data.parquet import stream_parquet as stream
    elif chunk.type == "csv":
        from clickwise.data.csv import stream_csv as stream
    else:
        raise DataError(f"{spec.path}: source_spec", found=f"a chunk of the type {chunk.type!r}",
                        expected="split_binary, parquet or csv",
                        do="clickwise transcode writes columns of it" if chunk.type == "tfrecord" else
                        "only these can be read as columns; a loader makes windows of events")
    return stream(spec, chunk, names, rows, wide_ids, carry)


def agreed_rows(rows_of: list[tuple[Path, int]]) -> int:
    """The number of rows that all chunks have; the file blamed is the one that differs from most others."""
    if not rows_of:
        return 0
    rows = Counter(count for _, count in rows_of).most_common(1)[0][0]
    for path, count in rows_of:
        if count != rows:
            like = next(path for path, count in rows_of if count == rows)
            raise SpecError(path, found=f"{count:,} rows", expected=f"{rows:,} rows, as in {like.name}",
                            do="the file is cut off, or belongs to another mapping, or its dtype is another")
    return rows
