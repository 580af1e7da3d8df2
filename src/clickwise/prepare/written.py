"""What preparation has written, beside its encoding: both are saved, held together and told of. Needs no engine."""

from __future__ import annotations

import dataclasses
import itertools
import mmap
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from clickwise.encoding import Column, Encoder, Encoding
from clickwise.encoding.document import STATES
from clickwise.encoding.lists import rows_of_lists
from clickwise.encoding.operations import Vocabulary
from clickwise.encoding.replay import Replay
from clickwise.encoding.vocabulary_file import write_vocabulary
from clickwise.feature_spec import Feature, FeatureSpec, split_binary_chunks
from clickwise.files import file_stem, save_array
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.scatter import RowOrder, block
from clickwise.progress import say

EXAMPLES, EXAMPLE_ROWS = "examples.parquet", 1000  # raw rows, beside encoding.json
SMALL_BYTES = 1 << 20  # of a file
SHOWN = 8  # columns of a mapping whose shares are said


def mapping_of_examples(mappings: Collection[str]) -> str | None:
    """The mapping whose first rows are kept as examples, if there is one whose rows keep their order."""
    return next((name for name in ("test", "validation") if name in mappings), None)


def vocabulary_of(column: Column) -> Vocabulary | None:
    return next((step for step in column.steps if isinstance(step, Vocabulary)), None)


def save_encoding(folder: PreparationFolder, encoding: Encoding) -> None:
    """Writes preparation/encoding.json, and the vocabularies of preparation/vocabularies once more as its states."""
    files: dict[str, str] = {}
    (folder.preparation / STATES).mkdir(exist_ok=True)
    for index, name in enumerate(step.state for step in _vocabularies(encoding).values()):
        files[name] = f"{STATES}/{index}.vocabulary"
        with parquet.ParquetFile(folder.preparation / "vocabularies" / f"{file_stem(name)}.parquet") as written:
            write_vocabulary(folder.preparation / files[name],
                             [batch.column(0) for batch in written.iter_batches(columns=["value"])]
                             or [pa.nulls(0, written.schema_arrow.field("value").type)])
    dataclasses.replace(encoding, states=files).save(folder.preparation)


def _vocabularies(encoding: Encoding) -> dict[str, Vocabulary]:
    """Column of ids → its vocabulary."""
    return {name: step for name, column in encoding.columns.items() if (step := vocabulary_of(column))}


def write_in_memory(folder: PreparationFolder, tables: Mapping[str, pa.Table], *,
                    features: Mapping[str, Feature], channels: Mapping[str, Sequence[str]], rows: Mapping[str, int],
                    shuffle_seed: int | None) -> tuple[FeatureSpec, dict[str, dict[str, float]]]:
    """The same bytes, of tables in memory: by the encoder of rows, without a query for every column."""
    encoder = Encoder(encoding := Encoding.load(folder.preparation), features)
    mappings = {mapping: split_binary_chunks(features, channels, mapping) for mapping in rows}
    for mapping, chunks in mappings.items():
        order = RowOrder(rows[mapping], shuffle_seed if mapping == "train" else None, folder.work / f"{mapping}.order",
                         folder.buffer_bytes)
        row_B = np.empty(rows[mapping], np.int64)  # of each row that is written, where it stands in its table
        row_B[order(np.arange(rows[mapping]))] = np.arange(rows[mapping])
        order.remove()
        arrays = encoder.columns(tables[mapping], mapping).arrays
        (folder.dataset / mapping).mkdir(parents=True, exist_ok=True)
        for chunk in chunks:
            paths = [os.path.join(folder.dataset, file) for file in chunk.files]
            if isinstance(lists := arrays[chunk.features[0]], tuple):
                values, offsets = rows_of_lists(*lists, row_B)
                save_array(paths[0], values)
                save_array(paths[1], offsets)
            else:
                columns = block([arrays[name] for name in chunk.features], arrays[chunk.features[0]].dtype)
                save_array(paths[0], columns[row_B])
    spec = FeatureSpec(features, mappings, channels, folder=folder.dataset)
    spec.save(folder.dataset)
    return spec, looked_at(folder, spec, encoding, rows)


def looked_at(folder: PreparationFolder, spec: FeatureSpec, encoding: Encoding,
               rows: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """`encoding` is the one that was saved."""
    shares = count_unseen(folder, spec, encoding, rows)
    check_examples(folder, spec, encoding)
    return shares


def check_examples(folder: PreparationFolder, spec: FeatureSpec, encoding: Encoding,
                   row_B: np.ndarray | None = None) -> None:
    """Raises AssertionError, for a mistake of ours, where the examples, encoded row by row as a server does, or
    replayed where states go on, are not what was written of their mapping. Logs of histories are not looked at.

    `row_B`: which row of the mapping each example is, −1 for none; by default they are its first ones.
    """
    path = folder.preparation / EXAMPLES
    if not path.exists():
        return
    with parquet.ParquetFile(path) as file:  # `read_table` imports pandas, where it is installed
        examples = file.read()
    ones: list[dict] = []
    if encoding.goes_on:
        encoded = Replay(encoding, encoding.columns).rows(examples, str(path)).arrays
    else:
        encoder = Encoder(encoding, alone=True)
        encoded = encoder.columns(examples, str(path)).arrays
        if encoder.group is None:
            ones = [encoder.row(row) for row in examples.slice(0, 20).to_pylist()]
    row_B = np.arange(len(examples)) if row_B is None else row_B
    here = np.flatnonzero(row_B >= 0)
    row_B = row_B[here]
    for chunk in spec.mappings[mapping_of_examples(spec.mappings)]:
        if any(name not in encoding.columns for name in chunk.features):
            continue
        written = [_mapped(os.path.join(folder.dataset, file), "uint8") for file in chunk.files]
        dtype = np.dtype(spec.features[chunk.features[0]].dtype)
        if len(written) == 2:  # the values of lists, and where each list begins
            (name,) = chunk.features
            values, ends = rows_of_lists(written[0].view(dtype), written[1].view(np.int64), row_B)
            found, their_ends = rows_of_lists(*encoded[name], here)
            assert (their_ends == ends).all() and (found == values).all(), name
            lists = [values[first:end].tolist() for first, end in itertools.pairwise(ends[:len(ones) + 1].tolist())]
            assert [row[name] for row in ones] == lists[:len(ones)], name
            continue
        columns = written[0].view(dtype).reshape(-1, len(chunk.features))[row_B].T.copy()
        for name, values in zip(chunk.features, columns, strict=True):
            assert encoded[name][here].tobytes() == values.tobytes(), name
            assert [row[name] for row in ones] == values[:len(ones)].tolist(), name


def count_unseen(folder: PreparationFolder, spec: FeatureSpec, encoding: Encoding,
                 rows: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Mapping → feature of ids → the share of its rows without an id: missing, rare or unseen. Says the greatest of
    them, and where no value is one of the vocabulary: behind it lie the ids of `hash_buckets`."""
    shares: dict[str, dict[str, float]] = {}
    vocabularies = _vocabularies(encoding)
    for mapping, chunks in spec.mappings.items():
        shares[mapping] = {}
        for chunk in chunks:
            name, feature = chunk.features[0], spec.features[chunk.features[0]]
            if name not in vocabularies:
                continue
            size = feature.cardinality - 1 - vocabularies[name].hash_buckets
            ids = _mapped(os.path.join(folder.dataset, chunk.files[0]), feature.dtype)
            known, with_id = int(np.count_nonzero((ids > 0) & (ids <= size))), int(np.count_nonzero(ids))
            if feature.is_multi_hot:
                ends = _mapped(folder.dataset / chunk.files[1], "int64")
                with_id = int(np.count_nonzero(ends[1:] > ends[:-1]))
            shares[mapping][name] = round(1 - with_id / rows[mapping], 6)
            if not size and mapping == "train" and not vocabularies[name].hash_buckets:
                say(f"warning: {name!r} has no ids: every value is missing or rarer than the frequency limit")
            elif not known and size:
                say(f"warning: {mapping}: no value of {name!r} is in the vocabulary: all are missing, rare or not in "
                    "the training rows")
        found = sorted((-share, name) for name, share in shares[mapping].items() if share)
        if found:
            more = f", and {len(found) - SHOWN} more (summary.json)" if len(found) > SHOWN else ""
            say(f"{mapping}: rows without an id (missing, rare or unseen): "
                + ", ".join(f"{name} {-100 * share:.3g} %" for share, name in found[:SHOWN]) + more)
    return shares


def say_without_display(folder: PreparationFolder, spec: FeatureSpec, name: str) -> None:
    """Says in how many rows of each mapping there is no display: they are in no group of the metrics of rankings."""
    dtype = spec.features[name].dtype
    for mapping, chunks in spec.mappings.items():
        for chunk in chunks:
            if chunk.features == (name,):
                ids = _mapped(folder.dataset / chunk.files[0], dtype)
                if without := int(np.count_nonzero(ids == np.iinfo(dtype).min)):
                    say(f"{mapping}: {without:,} of {len(ids):,} rows without {name!r} are in no group of rankings")


def _mapped(path: str | Path, dtype: str) -> np.ndarray:
    """A column on disk. What is small is read: to map thousands of files takes a second."""
    with open(path, "rb") as file:  # np.memmap takes three times as long
        if os.fstat(file.fileno()).st_size <= SMALL_BYTES:
            return np.frombuffer(file.read(), dtype)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype)
