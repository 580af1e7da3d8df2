"""The rows that `clickwise predict` scores: of a mapping, of a file of encoded rows, or of a file of raw ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa

from clickwise.arrow_files import open_parquet
from clickwise.data.arrays import Array, RaggedArray
from clickwise.data.check import check_block
from clickwise.data.columns import Columns, side_by_side, stream_chunk
from clickwise.encoding import Encoder, ValueCounts
from clickwise.encoding.document import FILE
from clickwise.encoding.raw_file import RawFile
from clickwise.errors import UsageError, nearest
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
    spec, columns = session.dataset.spec, session.dataset.columns(mapping)
    numerical = spec.channels.get("numerical", ())
    carried = _carried(spec, spec.features.keys() & {*columns.arrays, *numerical}, carry,
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
    """Of a file with one column for each input feature, encoded as the Feature Spec says. Values are held against the
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


def rows_of_raw_file(session: Session, folder: Path, source: Path, carry: tuple[str, ...]) -> Rows:
    """Of a file of raw rows, in the encoding that the run keeps."""
    if not (folder / ENCODING / FILE).exists():
        raise UsageError(f"--input {source}", found=f"a file, and {folder} has no encoding that makes ids of raw rows",
                         expected="a run on data that clickwise prepared from table or criteo with this version",
                         do="a file of ids and numbers as the Feature Spec says: --encoded; raw rows: prepare and "
                            "train again (kuairand, amazon_books, outbrain and transcoded data have no encoding yet)")
    encoding, spec = own_encoding(folder), session.dataset.spec
    encoder = Encoder(encoding, inputs(session.reads))
    file = RawFile.open(source, encoder.needs, encoding.layout)
    carried = _carried(spec, file.columns, carry, f"a column of {source}")
    known = {*encoder.needs, *carried, *(column.of for column in encoding.columns.values())}
    if ignored := [name for name in file.columns if name not in known]:
        say(f"{source}: not read: {', '.join(ignored[:10])}{', …' * (len(ignored) > 10)}")
    values = ValueCounts()

    def blocks() -> Blocks:
        first = 0
        for table in file.blocks(list(dict.fromkeys([*encoder.needs, *carried])), BLOCK_ROWS):
            encoded = encoder.columns(table, str(source), first)
            values.add(len(table), encoded)
            first += len(table)
            yield model_columns(spec, encoded.arrays, len(table)), {name: _one_array(table[name]) for name in carried}

    return Rows(session, spec, blocks(), file.rows(), values)


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
