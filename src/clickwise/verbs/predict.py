"""`clickwise predict`: a file of encoded rows in, a file of probabilities out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch

from clickwise.data.check import check_values
from clickwise.data.columns import read_columns
from clickwise.data.csv import first_fields
from clickwise.data.loader import Loader
from clickwise.errors import DataError, UsageError
from clickwise.files import whole_file
from clickwise.progress import Progress
from clickwise.spec import Chunk, FeatureSpec
from clickwise.train.evaluate import predictions
from clickwise.verbs import runs

FORMATS = {".parquet": "parquet", ".csv": "csv"}


def predict(folder: Path, *, source: Path, out: Path, overrides: list[str] = ()) -> int:
    """The number of rows for which `out` (Parquet or CSV, by its ending) now holds `logit` and `probability`.

    `source` is a Parquet or CSV file with one named column for each input feature, ids encoded as the Feature Spec of
    the run says, or the name of a mapping of that Feature Spec. Rows keep their order; the display, where there is
    one, stands beside them under its name. Values are held against the spec as before training: raises SpecError or
    DataError with file and row.
    """
    if out.suffix not in FORMATS:
        raise UsageError(f"--out {out}", found=f"the ending {out.suffix!r}",
                         expected="a name that ends in .parquet or .csv")
    trainer, _, _ = runs.open_run(folder, overrides=overrides)
    spec = trainer.dataset.spec
    if str(source) in spec.mappings:
        columns = trainer.dataset.columns(str(source))
    else:
        spec = _spec_of_file(spec, source)
        columns = read_columns(spec, "input", wide_ids=True)
        check_values(spec, columns, dict.fromkeys(spec.features, str(source)), "checking the input")
    loader = Loader(columns, spec, batch_size=trainer.evaluation_batch_size)
    logits = []
    with Progress("predicting", total=columns.rows, unit="rows") as bar:
        for logit_B, _ in predictions(trainer.model, loader.epoch(0), precision=trainer.recipe.train.precision,
                                      device=trainer.device):
            logits.append(logit_B.cpu())
            bar.advance(len(logit_B))
    logit_B = torch.cat(logits) if logits else torch.empty(0)
    displays = {name: columns.arrays[name] for name in spec.channels.get("display", ()) if name in columns.arrays}
    probability_B = logit_B.double().sigmoid().numpy().astype(np.float32)
    arrays = {**displays, "logit": logit_B.numpy(), "probability": probability_B}
    with whole_file(out) as temporary:
        write = pa.csv.write_csv if out.suffix == ".csv" else pa.parquet.write_table
        write(pa.table(arrays), temporary)
    return columns.rows


def _spec_of_file(spec: FeatureSpec, source: Path) -> FeatureSpec:
    """The run's Feature Spec with `source` as its only mapping; no label is needed."""
    if not source.exists():
        raise UsageError(f"--input {source}", found="no such file",
                         expected=f"a .parquet or .csv file, or one of the mappings {', '.join(spec.mappings)}")
    if source.suffix not in FORMATS:
        raise UsageError(f"--input {source}", found=f"the ending {source.suffix!r}",
                         expected="a file that ends in .parquet or .csv")
    type_ = FORMATS[source.suffix]
    channels = {name: features for name, features in spec.channels.items() if name in ("numerical", "categorical")}
    if set(spec.channels.get("display", ())) & set(_columns_of(source)):
        channels["display"] = spec.channels["display"]
    names = tuple(dict.fromkeys(feature for features in channels.values() for feature in features))
    chunk = Chunk(type=type_, features=names, files=(str(source.resolve()),),
                  options={"header": True} if type_ == "csv" else {})
    return dataclasses.replace(spec, features={name: spec.features[name] for name in names}, channels=channels,
                               mappings={"input": (chunk,)})


def _columns_of(source: Path) -> list[str]:
    """The names of the columns of a Parquet or CSV file."""
    if source.suffix == ".csv":
        return first_fields(source)
    try:
        return pyarrow.parquet.read_schema(source).names
    except (pa.ArrowInvalid, OSError) as slip:
        raise DataError(source, found=str(slip).splitlines()[0], expected="a parquet file") from None
