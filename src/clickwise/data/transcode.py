"""csv, parquet, tfrecord or split_binary, with its Feature Spec -> split_binary with the narrowest ids, in bounded
memory."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clickwise.data.arrays import Array, Block, RaggedArray, cast_exact, keep_known
from clickwise.data.check_values import check_finite, check_ids, check_labels
from clickwise.data.columns import agreed_rows, map_chunk, stream_chunk
from clickwise.data.tfrecord import stream_tfrecord
from clickwise.errors import SpecError, UsageError
from clickwise.feature_spec import (
    AUTO,
    FILE_NAME,
    ID_CHANNELS,
    Chunk,
    Feature,
    FeatureSpec,
    check_encoded,
    narrowest_id_dtype,
    split_binary_chunks,
)
from clickwise.files import whole_folder, write_array
from clickwise.manifest import write_manifest
from clickwise.progress import Progress, say, warn

FEW_ROWS, SPARSE = 100_000, 10  # a table of so many rows, or so many rows for each value, is not worth a word


def transcode(spec: FeatureSpec | str | Path, out: str | Path, chunk_rows: int = 1 << 18) -> FeatureSpec:
    """The spec of the dataset written to `out`, which holds the rows of every mapping of `spec` as split_binary.

    Names, channels and metadata stay. A cardinality `auto` becomes the greatest id of all mappings + 1; a declared one
    must be large enough, but where the feature's `unknown_ids` says what becomes of other ids. Labels become bool.
    Numericals keep their type, float16 or float32; where the types differ, or one is another (float64, an integer), all
    become float32. What stood in `out` is replaced at the end, whole. About `chunk_rows` rows are in memory at a time.
    Raises SpecError or DataError with file and row for values that cannot be stored.
    """
    spec = spec if isinstance(spec, FeatureSpec) else FeatureSpec.load(spec)
    check_encoded(spec)
    out = Path(out)
    _check_out(spec, out)
    if not spec.mappings:
        raise SpecError(f"{spec.path}: source_spec", found="no mapping", expected="at least one with data to transcode")
    spec = _with_padding_counted(spec)
    features = _narrow(spec, _find_cardinalities(spec, chunk_rows))
    mappings = {mapping: _layout(spec, features, mapping) for mapping in spec.mappings}
    with whole_folder(out) as folder:
        written = FeatureSpec(features, mappings, spec.channels, spec.metadata, folder)
        for mapping in spec.mappings:
            _write_mapping(spec, written, mapping, chunk_rows)
        written.save(folder)
        write_manifest(folder)
    return dataclasses.replace(written, folder=out)


def _check_out(spec: FeatureSpec, out: Path) -> None:
    """Raises UsageError where writing `out` would destroy something that is no earlier output."""
    target, source = out.resolve(), spec.folder.resolve()
    if target == source or target in source.parents:
        raise UsageError(f"--out {out}", found="the folder of the input, or one around it", expected="another folder")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}", found="a file", expected="a folder, or a name that is free")
    if out.is_dir() and any(out.iterdir()) and not (out / FILE_NAME).exists():
        raise UsageError(f"--out {out}", found=f"a folder with other files (no {FILE_NAME})",
                         expected="an earlier output, an empty folder, or a name that is free")


def _with_padding_counted(spec: FeatureSpec) -> FeatureSpec:
    """NOTE[DIFF] NVIDIA's specs of TFRecords with histories have ids 1 … cardinality, and 0 for padding, which counts
    here: ids are 0 … cardinality−1."""
    is_tfrecord = any(chunk.type == "tfrecord" for chunks in spec.mappings.values() for chunk in chunks)
    if not (is_tfrecord and spec.channel("history")):
        return spec
    say("cardinalities + 1: in TFRecords with histories, ids are 1 … cardinality, and 0 is padding")
    features = {name: dataclasses.replace(feature, cardinality=feature.cardinality + 1)
                if isinstance(feature.cardinality, int) else feature for name, feature in spec.features.items()}
    return dataclasses.replace(spec, features=features)


def _stream(spec: FeatureSpec, chunk: Chunk, names: list[str], rows: int) -> Iterator[Block]:
    """Blocks of the features `names` of any chunk, unknown ids as their features say; ids in int64 where they come
    from text, parquet or TFRecords."""
    if chunk.type == "tfrecord":
        yield from stream_tfrecord(spec, chunk, names, wide_ids=True)
        return
    if chunk.type != "split_binary":
        yield from stream_chunk(spec, chunk, names, rows, wide_ids=True)
        return
    arrays = map_chunk(spec, chunk)
    for start in range(0, len(arrays[names[0]]), rows):
        block: dict[str, Array] = {}
        for name in names:
            array, feature = arrays[name][start : start + rows], spec.features[name]
            if isinstance(array, RaggedArray):
                block[name] = RaggedArray(keep_known(array.values, feature), array.offsets)
            elif name in spec.channels.get("numerical", ()):
                block[name] = array[:, chunk.features.index(name)]
            else:
                block[name] = keep_known(array, feature)
        yield Block(spec.folder / chunk.files[0], start, block)


def _find_cardinalities(spec: FeatureSpec, rows: int) -> dict[str, int]:
    """Greatest id + 1 over all mappings, for the features whose cardinality is `auto`."""
    found: dict[str, int] = {}
    unknown = {name for name, feature in spec.features.items() if feature.cardinality == AUTO}
    looked_at = dict.fromkeys(unknown, 0)
    with Progress("finding cardinalities", unit="rows") as bar:
        for chunk in (chunk for chunks in spec.mappings.values() for chunk in chunks):
            names = [name for name in chunk.features if name in unknown]
            for block in _stream(spec, chunk, names, rows) if names else ():
                for name in names:
                    array = block.arrays[name]
                    values = array.values if isinstance(array, RaggedArray) else array
                    found[name] = max(found.get(name, 1), int(values.max(initial=0)) + 1)
                    looked_at[name] += values.size
                bar.advance(len(block))
    for name, cardinality in found.items():
        if cardinality > max(FEW_ROWS, SPARSE * looked_at[name]):
            warn(f"{name}: cardinality {cardinality:,}, the greatest id + 1, and at most {looked_at[name]:,} different "
                 "ids: raw values, of which clickwise prepare table/prepare makes ids 0, 1, 2, …?")
    return found


def _narrow(spec: FeatureSpec, found: dict[str, int]) -> dict[str, Feature]:
    """The features as they are written: cardinalities found, ids as narrow as they go."""
    features = {name: dataclasses.replace(feature, cardinality=found.get(name, feature.cardinality))
                for name, feature in spec.features.items()}
    declared = {np.dtype(feature.dtype) for feature in spec.channel("numerical")}
    dtypes = {"numerical": "float16" if declared == {np.dtype("float16")} else "float32", "label": "bool"}
    for channel in (*ID_CHANNELS, *dtypes):
        for name in spec.channels.get(channel, ()):
            dtype = dtypes.get(channel) or narrowest_id_dtype(features[name].cardinality)
            features[name] = dataclasses.replace(features[name], dtype=dtype)
    return features


def _layout(spec: FeatureSpec, features: dict[str, Feature], mapping: str) -> tuple[Chunk, ...]:
    """The default layout, without the features that this mapping does not hold (the display, say)."""
    held = {name for chunk in spec.mappings[mapping] for name in chunk.features}
    chunks = split_binary_chunks(features, spec.channels, mapping)
    return tuple(chunk for chunk in chunks if held >= set(chunk.features))


def _write_mapping(spec: FeatureSpec, written: FeatureSpec, mapping: str, chunk_rows: int) -> None:
    order = spec.channels.get("numerical", ())
    target = {name: chunk for chunk in written.mappings[mapping] for name in chunk.features}
    (written.folder / mapping).mkdir(parents=True, exist_ok=True)
    parts: list[tuple[Path, list[str]]] = []  # files with the numericals of one chunk each
    rows_of: list[tuple[Path, int]] = []
    with Progress(f"transcoding {mapping}", unit="rows") as bar:
        for index, chunk in enumerate(spec.mappings[mapping]):
            rows = 0
            with contextlib.ExitStack() as stack:
                writers = [_ColumnWriter(stack, written, target[name]) for name in chunk.features if name not in order]
                if numerical := [name for name in order if name in chunk.features]:
                    parts.append((written.folder / mapping / f".numerical.{index}", numerical))
                    writers.append(_NumericalWriter(stack, written, *parts[-1]))
                for block in _stream(spec, chunk, list(chunk.features), chunk_rows):
                    for writer in writers:
                        writer.write(block)
                    rows += len(block)
                    bar.advance(len(block))
            rows_of.append((spec.folder / chunk.files[-1], rows))
    agreed_rows(rows_of)
    if parts:
        dtype = np.dtype(written.features[order[0]].dtype)
        _zip(parts, order, written.folder / target[order[0]].files[0], dtype, chunk_rows)


class _ColumnWriter:
    """Appends the blocks of one feature, checked, to its files."""

    def __init__(self, stack: contextlib.ExitStack, spec: FeatureSpec, chunk: Chunk) -> None:
        self.feature = spec.features[chunk.features[0]]
        self.is_label = self.feature.name in spec.channels.get("label", ())
        self.files = [stack.enter_context(open(spec.folder / name, "wb")) for name in chunk.files]
        self.values = 0
        if self.feature.is_multi_hot:
            write_array(self.files[1], np.zeros(1, np.int64))

    def write(self, block: Block) -> None:
        array, dtype = block.arrays[self.feature.name], np.dtype(self.feature.dtype)
        if self.feature.cardinality is not None:
            check_ids(array, self.feature, block.path, block.first)
        if self.is_label:
            check_labels(array, block.path, block.first)
        if isinstance(array, RaggedArray):
            write_array(self.files[0], array.values.astype(dtype))
            write_array(self.files[1], array.offsets[1:] + self.values)
            self.values += len(array.values)
        else:
            write_array(self.files[0], array.astype(dtype))


class _NumericalWriter:
    """Appends the numericals of one chunk, checked and side by side in the order of the channel, to a file."""

    def __init__(self, stack: contextlib.ExitStack, spec: FeatureSpec, path: Path, names: list[str]) -> None:
        self.names, self.dtype = names, np.dtype(spec.features[names[0]].dtype)
        self.file = stack.enter_context(open(path, "wb"))

    def write(self, block: Block) -> None:
        columns = [cast_exact(block.arrays[name], self.dtype, f"{block.path}, column {name!r}",
                              lambda index: block.first + index) for name in self.names]
        matrix = np.stack(columns, axis=1)
        check_finite(matrix, block.path, tuple(self.names), block.first)
        write_array(self.file, matrix)


def _zip(parts: list[tuple[Path, list[str]]], order: tuple[str, ...], path: Path, dtype: np.dtype, rows: int) -> None:
    """Joins the numericals of several chunks, side by side in the order of the channel, into `path`."""
    if len(parts) == 1:
        parts[0][0].rename(path)
        return
    blocks = [np.memmap(part, dtype, "r").reshape(-1, len(names)) for part, names in parts]
    written = [name for _, names in parts for name in names]
    columns = [written.index(name) for name in order]
    with open(path, "wb") as file:
        for start in range(0, len(blocks[0]), rows):
            side_by_side = np.concatenate([block[start : start + rows] for block in blocks], axis=1)
            write_array(file, side_by_side[:, columns])
    for part, _ in parts:
        part.unlink()
