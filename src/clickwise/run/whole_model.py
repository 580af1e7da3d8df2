"""What makes a run folder a whole model: its Feature Spec, the encoding of its data, and example rows with scores.

    feature_spec.yaml   features and channels; no columns
    encoding/           encoding.json and states, read-only: raw rows to what the model reads
    columns.json        what each column of a table is taken for, and why
    examples.parquet    raw rows of the test mapping, else of validation, or of the log that states go on with, with
                        `logit` and `probability` as this model scores them
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from clickwise import processes
from clickwise.data.arrays import RaggedArray
from clickwise.data.columns import Columns, side_by_side
from clickwise.data.dataset import PREPARATION
from clickwise.encoding import Encoder, Encoding
from clickwise.encoding.document import FILE
from clickwise.encoding.lists import Lists
from clickwise.encoding.replay import Replay
from clickwise.feature_spec import FILE_NAME, FeatureSpec, is_time_gap
from clickwise.files import whole_file, write_text
from clickwise.manifest import of_run
from clickwise.run.scores import SCORES, scores
from clickwise.run.session import Session

ENCODING, EXAMPLES, COLUMNS = "encoding", "examples.parquet", "columns.json"


def keep_preparation(folder: Path, session: Session) -> None:
    """Copies Feature Spec and encoding of the session's data into the run folder, where they are not there yet."""
    spec = session.dataset.stored  # what the recipe leaves out of it, it does again
    if not (folder / FILE_NAME).exists():
        dataclasses.replace(spec, mappings={}, folder=folder, name=FILE_NAME).save(folder)
    source = spec.folder / PREPARATION
    if session.recipe.data.path is not None and (source / FILE).exists() and not (folder / ENCODING / FILE).exists():
        known = session.dataset.manifest
        encoding = Encoding.load(source)
        known.verified(f"{PREPARATION}/{FILE}")
        encoding.copy_to(folder / ENCODING)
        if (source / COLUMNS).exists():
            write_text(folder / COLUMNS, known.verified(f"{PREPARATION}/{COLUMNS}").read_text(encoding="utf-8"))


def own_spec(folder: Path) -> FeatureSpec | None:
    """The Feature Spec that a run keeps; None where an older version wrote the run."""
    return FeatureSpec.load(of_run(folder).verified(FILE_NAME)) if (folder / FILE_NAME).exists() else None


def own_encoding(folder: Path) -> Encoding:
    """The encoding of raw rows that a run keeps."""
    encoding = Encoding.load(folder / ENCODING)  # first: what it says of a damaged file is more exact
    of_run(folder).verified(f"{ENCODING}/{FILE}")
    return encoding


def save_examples(folder: Path, session: Session) -> None:
    """Writes examples.parquet: as many raw rows as the recipe wants, if their preparation kept any."""
    source = session.dataset.spec.folder / PREPARATION / EXAMPLES
    if not session.recipe.examples or not (folder / ENCODING / FILE).exists() or not source.exists():
        return
    examples = parquet.read_table(session.dataset.manifest.verified(f"{PREPARATION}/{EXAMPLES}")).slice(
        0, session.recipe.examples)
    encoding, names = own_encoding(folder), inputs(session.reads)
    encoder = Encoder(encoding, names, alone=True)
    encoded = Replay(encoding, names).rows(examples, str(source)) if encoder.goes_on else \
        encoder.columns(examples, str(source))
    columns = model_columns(session.dataset.spec, encoded.arrays, len(examples))
    found = scores(session, session.dataset.spec, columns)  # by all processes: each asks the others for rows
    if not processes.is_first():
        return
    with whole_file(folder / EXAMPLES) as temporary:
        kept = {name: examples[name] for name in examples.column_names if name not in SCORES}
        parquet.write_table(pa.table({**kept, **found}), temporary)


def inputs(reads: Mapping[str, Collection[str]]) -> list[str]:
    return [name for names in reads.values() for name in names]


def model_columns(spec: FeatureSpec, arrays: Mapping[str, np.ndarray | Lists], rows: int) -> Columns:
    """What an encoder gave, as a loader takes it."""
    arrays = {name: array if isinstance(array, np.ndarray) else RaggedArray(*array) for name, array in arrays.items()}
    columns = side_by_side(spec, arrays, rows)
    if columns.events is None or not any(map(is_time_gap, spec.channel("history"))):
        return columns
    # An event log gives times as how far they lie before the row's own, which is 0 then.
    return dataclasses.replace(columns, events=dataclasses.replace(columns.events, time=np.zeros(rows, np.int64)))
