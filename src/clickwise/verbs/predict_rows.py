"""The rows that `clickwise predict` scores: of a mapping, of a file of encoded rows, or of raw ones, or of a log."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from clickwise.arrow_files import open_parquet
from clickwise.data.arrays import Array, RaggedArray
from clickwise.data.check import check_block
from clickwise.data.columns import Columns, side_by_side, stream_chunk
from clickwise.encoding import Encoded, Encoder, Encoding, ValueCounts
from clickwise.encoding.document import FILE
from clickwise.encoding.lists import lists_between
from clickwise.encoding.raw_file import RawFile
from clickwise.encoding.replay import Replay, count_repeats
from clickwise.errors import DataError, UsageError, nearest
from clickwise.feature_spec import CHANNELS, Chunk, FeatureSpec
from clickwise.progress import say
from clickwise.run.scores import BLOCK_ROWS, SCORES
from clickwise.run.session import Session
from clickwise.run.whole_model import ENCODING, inputs, model_columns, own_encoding
from clickwise.text_files import TextLayout, first_row

Blocks = Iterator[tuple[Columns, dict[str, pa.Array]]]


@dataclasses.dataclass
class Rows:
    """`blocks` of what the model reads, each with the columns that travel along; `total` rows, where that is known."""

    session: Session
    spec: FeatureSpec
    blocks: Blocks
    total: int | None
    values: ValueCounts = dataclasses.field(default_factory=ValueCounts)


def rows_of_mapping(session: Session, mapping: str, carry: tuple[str, ...]) -> Rows:
    spec, columns, stored = session.dataset.spec, session.dataset.columns(mapping), session.dataset.stored
    numerical = spec.channels.get("numerical", ())
    carried = _carried(stored, stored.features.keys() & {*columns.arrays, *numerical}, carry,
                       f"a feature of the mapping {mapping!r}")

    def blocks() -> Blocks:
        for start in range(0, columns.rows, BLOCK_ROWS):
            block = columns.part(slice(start, start + BLOCK_ROWS))
            yield block, {name: _arrow(block.arrays[name] if name in block.arrays
                                       else block.numerical[:, numerical.index(name)]) for name in carried}

    return Rows(session, spec, blocks(), columns.rows)


def _arrow(array: Array) -> pa.Array:
    if isinstance(array, RaggedArray):
        return pa.LargeListArray.from_arrays(pa.array(array.offsets), pa.array(array.values))
    if array.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])
    return pa.array(array)


def rows_of_encoded_file(session: Session, source: Path, type_: str, carry: tuple[str, ...]) -> Rows:
    """Of a file with one column for each input feature, encoded as the Feature Spec says. Values are checked with the
    spec as before training."""
    spec = session.dataset.spec
    names, total = _columns_of(source, type_)
    carried = _carried(spec, names, carry, f"a column of {source}")
    spec = _spec_of_file(spec, source, type_, session.reads, carried)
    (chunk,) = spec.chunks("input")

    def blocks() -> Blocks:
        for block in stream_chunk(spec, chunk, inputs(session.reads), BLOCK_ROWS, wide_ids=True, carry=carried):
            check_block(spec, block)
            yield side_by_side(spec, block.arrays, len(block)), block.carried

    return Rows(session, spec, blocks(), total)


def _spec_of_file(spec: FeatureSpec, source: Path, type_: str, reads: dict[str, tuple[str, ...]],
                  carried: tuple[str, ...]) -> FeatureSpec:
    """The run's Feature Spec with `source` as its only mapping, of what the model reads; no label is needed."""
    channels = dict(reads)
    channels["carried along"] = tuple(name for name in carried if name in spec.features and name not in inputs(reads))
    names = tuple(feature for features in channels.values() for feature in features)
    chunk = Chunk(type=type_, features=names, files=(str(source.resolve()),),
                  options={"header": True} if type_ == "csv" else {})
    return dataclasses.replace(spec, features={name: spec.features[name] for name in names}, channels=channels,
                               mappings={"input": (chunk,)})


def _columns_of(source: Path, type_: str) -> tuple[list[str], int | None]:
    """The names of a file's columns, and of Parquet how many rows it has."""
    if type_ == "csv":
        return first_row(source, TextLayout()), None
    with open_parquet(source) as file:
        return file.schema_arrow.names, file.metadata.num_rows


def rows_of_raw_file(session: Session, folder: Path, source: Path, carry: tuple[str, ...],
                     log: Path | None = None, alone: bool = False) -> Rows:
    """Of a file of raw rows, in the encoding that the run keeps; its states first go on with the events of `log`. A row
    may be `alone` with its display."""
    encoding, spec = _encoding_of(folder, source), session.dataset.spec
    names = inputs(session.reads)
    encoder = Encoder(encoding, names, alone=alone) if log is None else _replayed(encoding, names, log)[0].encoder
    file = RawFile.open(source, encoder.required, encoding.layout)
    encoder.check_carried(file.columns, source)
    carried = _carried(spec, file.columns, carry, f"a column of {source}")
    same = [] if encoding.events is None else [of for of in encoding.events.same if of in file.columns]
    _tell_ignored(encoding, source, file.columns, [*encoder.needs, *carried])
    values = ValueCounts()
    encoder = encoder.in_parts(file.blocks([encoder.group], BLOCK_ROWS), str(source))

    def blocks() -> Blocks:
        first, repeats = 0, 0
        for table in file.blocks(list(dict.fromkeys([*file.having(encoder.needs), *carried, *same])), BLOCK_ROWS):
            encoded = encoder.columns(table, str(source), first)
            values.add(len(table), encoded)
            first += len(table)
            if same and len(same) == len(encoding.events.same):
                repeats += count_repeats(table, same)
            yield model_columns(spec, encoded.arrays, len(table)), {name: _one_array(table[name]) for name in carried}
        _tell_repeats(source, repeats, same, "preparation merges them, here each has a score")

    return Rows(session, spec, blocks(), file.rows(), values)


def rows_of_log(session: Session, folder: Path, log: Path, carry: tuple[str, ...]) -> Rows:
    """Of a log of raw rows with labels: each as the states of the run's encoding knew things before its moment."""
    encoding, spec, names = _encoding_of(folder, log), session.dataset.spec, inputs(session.reads)
    replay, table, encoded = _replayed(encoding, names, log, carry)
    carried = _carried(spec, table.column_names, carry, f"a column of {log}")
    values = ValueCounts()
    values.add(len(table), encoded)

    def blocks() -> Blocks:
        for first in range(0, len(table), BLOCK_ROWS):
            part = table.slice(first, BLOCK_ROWS)
            rows = slice(first, first + len(part))
            arrays = {name: array[rows] if isinstance(array, np.ndarray) else lists_between(array, first, rows.stop)
                      for name, array in encoded.arrays.items()}
            yield model_columns(spec, arrays, len(part)), {name: _one_array(part[name]) for name in carried}

    return Rows(session, spec, blocks(), len(table), values)


def _encoding_of(folder: Path, source: Path) -> Encoding:
    if not (folder / ENCODING / FILE).exists():
        raise UsageError(f"--input {source}", found=f"a file, and {folder} has no encoding that makes ids of raw rows",
                         expected="a run on data that clickwise prepared from raw rows with this version",
                         do="a file of ids and numbers as the Feature Spec says: --encoded; raw rows: prepare and "
                            "train again (transcoded data have no encoding)")
    return own_encoding(folder)


def _replayed(encoding: Encoding, names: list[str], log: Path, carry: tuple[str, ...] = ()
              ) -> tuple[Replay, pa.Table, Encoded]:
    """The states after all events of a log, its rows, and what they were encoded to. It is read whole."""
    replay = Replay(encoding, names)
    file = RawFile.open(log, replay.required, encoding.layout)
    kept = list(dict.fromkeys(file.having([*replay.needs, *carry])))
    _tell_ignored(encoding, log, file.columns, kept)
    tables = list(file.blocks(kept, BLOCK_ROWS))
    if not tables:
        raise DataError(log, found="no rows", expected="at least one row")
    table = pa.concat_tables(tables, promote_options="permissive")
    encoded = replay.rows(table, str(log))
    _tell_repeats(log, replay.repeats, encoding.events.same, "they count once, with a click if one of them has it")
    return replay, table, encoded


def _tell_ignored(encoding: Encoding, source: Path, columns: Collection[str], read: Collection[str]) -> None:
    known = {*read, *(of for column in encoding.columns.values() for of in column.sources)}
    if ignored := [name for name in columns if name not in known]:
        say(f"{source}: not read: {', '.join(ignored[:10])}{', …' * (len(ignored) > 10)}")


def _tell_repeats(source: Path, repeats: int, same: Collection[str], what: str) -> None:
    if repeats:
        say(f"{source}: {repeats:,} rows repeat another one ({', '.join(same)}): {what}")


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return found.chunk(0) if isinstance(found, pa.ChunkedArray) else found


def _carried(spec: FeatureSpec, available: Collection[str], asked: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The names of the columns that travel along, those asked for last. Raises UsageError for one that is not there."""
    for name in asked:
        if name not in available:
            raise UsageError(f"--carry {name}", found="no such column", expected=what, do=nearest(name, available))
        if name in SCORES:
            raise UsageError(f"--carry {name}", found="the name of a column that predict writes",
                             expected="another name", do="rename the column")
    channels = ("display", "target_item", *(name for name in spec.channels if name not in CHANNELS))
    always = [name for channel in channels for name in spec.channels.get(channel, ())]
    return tuple(dict.fromkeys([*(name for name in always if name in available and name not in SCORES), *asked]))
