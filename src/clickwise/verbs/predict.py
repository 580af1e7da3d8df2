"""`clickwise predict`: a file of encoded rows in, a file of probabilities out, a block of rows at a time."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import torch

from clickwise.data.arrays import Array, RaggedArray
from clickwise.data.check import check_block
from clickwise.data.columns import Columns, side_by_side, stream_chunk
from clickwise.data.csv import first_fields
from clickwise.data.loader import Loader
from clickwise.data.parquet import open_parquet
from clickwise.errors import DataError, UsageError, nearest
from clickwise.feature_spec import CHANNELS, Chunk, FeatureSpec
from clickwise.files import whole_file
from clickwise.progress import Progress
from clickwise.run import folder as runs
from clickwise.run.session import Session
from clickwise.train.evaluate import predictions

Reads = dict[str, tuple[str, ...]]  # channel → features
FORMATS = {".parquet": "parquet", ".csv": "csv"}
SCORES = ("logit", "probability")
BLOCK_ROWS = 1 << 18  # rows in memory at a time, about


def predict(folder: Path, *, source: Path, out: Path, overrides: list[str] = (), carry: tuple[str, ...] = (),
            allow_imports: Collection[str] = ()) -> int:
    """The number of rows for which `out` (Parquet or CSV, by its ending) now holds `logit` and `probability`.

    `source` is a Parquet or CSV file with one named column for each input feature, ids encoded as the Feature Spec of
    the run says, or the name of a mapping of that Feature Spec. Rows keep their order. Beside them stand, where the
    source has them, the display, the features of `target_item` and of channels that are the user's own, and `carry`:
    further columns of the file, or features of the mapping. Values are held against the spec as before training:
    raises SpecError or DataError with file and row.
    """
    if out.suffix not in FORMATS:
        raise UsageError(f"--out {out}", found=f"the ending {out.suffix!r}",
                         expected="a name that ends in .parquet or .csv")
    session, _, _ = runs.open_run(folder, overrides=overrides, allow_imports=allow_imports)
    spec = session.dataset.spec
    if str(source) in spec.mappings:
        columns = session.dataset.columns(str(source))
        carried = _carried(spec, spec.features.keys() & {*columns.arrays, *spec.channels.get("numerical", ())}, carry,
                           f"a feature of the mapping {str(source)!r}")
        blocks, total = _blocks_of_mapping(spec, columns, carried), columns.rows
    else:
        names = _columns_of(spec, source)
        carried = _carried(spec, names, carry, f"a column of {source}")
        spec = _spec_of_file(spec, source, session.reads, carried)
        blocks, total = _blocks_of_file(spec, session.reads, carried), _rows_of(source)
    rows = 0
    with Progress("predicting", total=total, unit="rows") as bar, whole_file(out) as temporary, \
            contextlib.ExitStack() as stack:
        writer = None
        for columns, beside in blocks:
            if out.suffix == ".csv":
                beside = {name: _as_text(name, column) for name, column in beside.items()}
            table = pa.table({**beside, **_scores(session, spec, columns)})
            if writer is None:
                writer_of = pa.csv.CSVWriter if out.suffix == ".csv" else pa.parquet.ParquetWriter
                writer = stack.enter_context(writer_of(temporary, table.schema))
            writer.write_table(table)
            rows += columns.rows
            bar.advance(columns.rows)
    return rows


def _scores(session: Session, spec: FeatureSpec, columns: Columns) -> dict[str, np.ndarray]:
    loader = Loader(columns, spec, batch_size=session.evaluation_batch_size, channels=session.reads)
    logit_B = torch.cat([logit_B.cpu() for logit_B, _ in predictions(
        session.model, loader.epoch(0), precision=session.recipe.train.precision, device=session.device)])
    return dict(zip(SCORES, (logit_B.numpy(), logit_B.double().sigmoid().numpy().astype(np.float32)), strict=True))


def _carried(spec: FeatureSpec, available: list[str] | set[str], asked: tuple[str, ...], what: str) -> tuple[str, ...]:
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


def _blocks_of_mapping(spec: FeatureSpec, columns: Columns,
                       carried: tuple[str, ...]) -> Iterator[tuple[Columns, dict[str, pa.Array]]]:
    numerical = spec.channels.get("numerical", ())
    for start in range(0, columns.rows, BLOCK_ROWS):
        block = columns.part(slice(start, start + BLOCK_ROWS))
        yield block, {name: _arrow(block.arrays[name] if name in block.arrays
                                   else block.numerical[:, numerical.index(name)]) for name in carried}


def _arrow(array: Array) -> pa.Array:
    if isinstance(array, RaggedArray):
        return pa.LargeListArray.from_arrays(pa.array(array.offsets), pa.array(array.values))
    if array.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])
    return pa.array(array)


def _blocks_of_file(spec: FeatureSpec, reads: Reads,
                    carried: tuple[str, ...]) -> Iterator[tuple[Columns, dict[str, pa.Array]]]:
    (chunk,) = spec.chunks("input")
    names = [name for features in reads.values() for name in features]
    for block in stream_chunk(spec, chunk, names, BLOCK_ROWS, wide_ids=True, carry=carried):
        check_block(spec, block)
        yield side_by_side(spec, block.arrays, len(block)), block.carried


def _spec_of_file(spec: FeatureSpec, source: Path, reads: Reads, carried: tuple[str, ...]) -> FeatureSpec:
    """The run's Feature Spec with `source` as its only mapping, of what the model reads; no label is needed."""
    inputs = {name for names in reads.values() for name in names}
    channels = dict(reads)
    channels["carried along"] = tuple(name for name in carried if name in spec.features and name not in inputs)
    names = tuple(feature for features in channels.values() for feature in features)
    type_ = FORMATS[source.suffix]
    chunk = Chunk(type=type_, features=names, files=(str(source.resolve()),),
                  options={"header": True} if type_ == "csv" else {})
    return dataclasses.replace(spec, features={name: spec.features[name] for name in names}, channels=channels,
                               mappings={"input": (chunk,)})


def _columns_of(spec: FeatureSpec, source: Path) -> list[str]:
    """The names of the columns of a Parquet or CSV file."""
    if not source.exists():
        raise UsageError(f"--input {source}", found="no such file",
                         expected=f"a .parquet or .csv file, or one of the mappings {', '.join(spec.mappings)}")
    if source.suffix not in FORMATS:
        raise UsageError(f"--input {source}", found=f"the ending {source.suffix!r}",
                         expected="a file that ends in .parquet or .csv")
    if source.suffix == ".csv":
        return first_fields(source)
    with open_parquet(source) as file:
        return file.schema_arrow.names


def _rows_of(source: Path) -> int | None:
    """The rows of a Parquet file; None for a CSV file, which has to be read to know."""
    if source.suffix == ".csv":
        return None
    with open_parquet(source) as file:
        return file.metadata.num_rows


def _as_text(name: str, column: pa.Array) -> pa.Array:
    """What a CSV file can hold: lists become texts such as 3|17|4. Raises DataError for what no text stands for."""
    kind = column.type
    try:
        if pa.types.is_nested(kind):
            return pc.binary_join(pc.cast(column, pa.large_list(pa.string())), "|")
        return column if pa.types.is_primitive(kind) else pc.cast(column, pa.string())
    except (pa.ArrowException, KeyError):
        raise DataError(f"column {name!r}", found=f"values of the type {kind}", expected="what a csv file can hold",
                        do="write to a name that ends in .parquet") from None
