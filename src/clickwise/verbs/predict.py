"""`clickwise predict`: rows in, a file of probabilities out, a block of rows at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from clickwise import json_lines
from clickwise.errors import DataError, SpecError, UsageError
from clickwise.files import remove_left_over, whole_file
from clickwise.given_files import no_file
from clickwise.kernels.prepacked import PackedWeights
from clickwise.progress import Progress
from clickwise.run import folder as runs
from clickwise.run.scores import scores
from clickwise.run.whole_model import own_spec
from clickwise.verbs.predict_rows import Rows, rows_of_encoded_file, rows_of_log, rows_of_mapping, rows_of_raw_file

FORMATS = {".parquet": "parquet", ".csv": "csv"}
ENDINGS = (".parquet", ".csv", ".tsv", ".txt", ".gz", *json_lines.ENDINGS)


def predict(folder: Path, *, source: Path | None = None, replay: Path | None = None, out: Path | None = None,
            overrides: list[str] = (), carry: tuple[str, ...] = (), encoded: bool = False, alone: bool = False,
            allow_imports: Collection[str] = (), trust_paths: bool = False) -> dict[str, Any]:
    """`rows`: how many now have `logit` and `probability` in the file `out` (Parquet or CSV, by its ending), by default
    RUN/predictions/<source>.parquet; of a raw file also `missing` and `unseen`, shares of its values.

    `source` is a file of raw rows, which the run's encoding reads, or with `encoded` one of ids and numbers as the
    Feature Spec of the run says; or a mapping of the data that the run was trained on, `test` where nothing is given.
    `replay` is a log of raw rows with labels, in the order of time: the states of the encoding go on with it, then
    `source` is scored; without `source` the rows of the log, each before it happened. Where a model reads how many rows
    a display has, the file holds whole displays; rows may be `alone` with theirs. Rows keep their order. Beside them
    stand, where the source has them, the display, the features of `target_item` and of channels that are the
    user's own, and `carry`: further columns of the file, or features of the mapping. Raises UsageError, SpecError or
    DataError, with file and row.
    """
    if out is not None and out.suffix not in FORMATS:
        raise UsageError(f"--out {out}", found=f"the ending {out.suffix!r}",
                         expected="a name that ends in .parquet or .csv")
    given = source or replay or Path("test")
    how = (overrides, carry, encoded, alone, allow_imports, trust_paths)
    rows = _rows(folder, given, *how) if replay is None else _rows_after(folder, replay, source, *how)
    out = _default_out(folder, given) if out is None else out
    remove_left_over(out)
    count, weights = 0, PackedWeights()
    with Progress("predicting", total=rows.total, unit="rows") as bar, whole_file(out) as temporary, \
            contextlib.ExitStack() as stack:
        writer = None
        for columns, beside in rows.blocks:
            if out.suffix == ".csv":
                beside = {name: _as_text(name, column) for name, column in beside.items()}
            table = pa.table({**beside, **scores(rows.session, rows.spec, columns, weights)})
            if writer is None:
                writer_of = pa.csv.CSVWriter if out.suffix == ".csv" else pa.parquet.ParquetWriter
                writer = stack.enter_context(writer_of(temporary, table.schema))
            writer.write_table(table)
            count += columns.rows
            bar.advance(columns.rows)
        if writer is None:
            raise DataError(given, found="no rows", expected="at least one row")
    shares = rows.values.shares() if rows.values.rows else {}
    return {"rows": count, "out": str(out), **shares}


def _rows(folder: Path, source: Path, overrides: list[str], carry: tuple[str, ...], encoded: bool, alone: bool,
          allow_imports: Collection[str], trust_paths: bool) -> Rows:
    """What `source` names: a file, or a mapping of the data."""
    def opened(spec=None):
        return runs.open_run(folder, overrides=overrides, allow_imports=allow_imports, spec=spec,
                             trust_paths=trust_paths)[0]

    session = None
    if not source.name.endswith(ENDINGS):
        try:
            session = opened()
        except SpecError:
            if no_file(source):
                raise
        else:
            if str(source) in session.dataset.stored.mappings:
                return rows_of_mapping(session, str(source), carry)
    if found := no_file(source):
        mappings = f", or one of the mappings {', '.join(session.dataset.stored.mappings)}" if session else ""
        raise UsageError(f"--input {source}", found=found,
                         expected=f"a .parquet, .csv, .tsv or .jsonl file{mappings}")
    if encoded and source.suffix not in FORMATS:
        raise UsageError(f"--input {source}", found=f"the ending {source.suffix!r}",
                         expected="a file of encoded rows that ends in .parquet or .csv")
    if not encoded:
        return rows_of_raw_file(opened(own_spec(folder)), folder, source, carry, alone=alone)
    try:
        session = session or opened()
    except SpecError:  # the data is gone
        if (spec := own_spec(folder)) is None:
            raise
        session = opened(spec)
    return rows_of_encoded_file(session, source, FORMATS[source.suffix], carry)


def _rows_after(folder: Path, log: Path, source: Path | None, overrides: list[str], carry: tuple[str, ...],
                encoded: bool, alone: bool, allow_imports: Collection[str], trust_paths: bool) -> Rows:
    """The rows of a log, or of a file of raw rows after it."""
    for option, path in (("--replay", log), ("--input", source)):
        if path is not None and (found := no_file(path)):
            raise UsageError(f"{option} {path}", found=found, expected="a .parquet, .csv, .tsv or .jsonl file")
    if encoded:
        raise UsageError("--encoded", found="rows that are encoded, with --replay", expected="raw rows")
    session = runs.open_run(folder, overrides=overrides, allow_imports=allow_imports, spec=own_spec(folder),
                            trust_paths=trust_paths)[0]
    return rows_of_log(session, folder, log, carry) if source is None else \
        rows_of_raw_file(session, folder, source, carry, log, alone)


def _default_out(folder: Path, source: Path) -> Path:
    out = folder / "predictions"
    try:
        out.mkdir(exist_ok=True)
    except OSError:
        pass
    if not os.access(out, os.W_OK):
        raise UsageError("--out", found=f"nothing, and {folder} is read-only", expected="a file to write")
    return out / f"{source.name}.parquet"


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
