"""`clickwise export`: everything that scores raw rows, in one folder that has shown that it does.

    model.onnx (model.pt2)   the graph; its tables lie beside it
    encoding/                raw rows to ids and numbers, as in the run
    feature_spec.yaml        features and channels
    signature.json           what a client sends, with an example and its scores
    MODEL_CARD.md            what the model is, how good, on which data
    manifest.json            bytes and CRC-32 of all these
"""

from __future__ import annotations

import dataclasses
import datetime
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickwise.encoding import Encoder, Encoding
from clickwise.encoding.document import FILE as ENCODING_FILE
from clickwise.encoding.replay import Replay
from clickwise.errors import ClickwiseError, DataError
from clickwise.export.check import auc_of_test, check_scores, examples_of
from clickwise.export.model_card import model_card
from clickwise.export.onnx_file import write_onnx
from clickwise.export.triton_repository import Backend, Device, write_repository
from clickwise.files import check_new_folder, whole_folder, write_text
from clickwise.manifest import write_manifest
from clickwise.run import folder as runs
from clickwise.run.scores import scores
from clickwise.run.session import Session
from clickwise.run.whole_model import ENCODING, inputs, model_columns, own_encoding, own_spec
from clickwise.serve.exported import ExportedModel
from clickwise.serve.inputs import GraphInput
from clickwise.serve.requests import request_of
from clickwise.serve.signature import RawInput, Signature

Format = Literal["onnx", "pt2", "triton"]
Rows = Literal["fp32", "bf16", "int8"]
GRAPHS = {"onnx": "model.onnx", "pt2": "model.pt2"}
CARD = "MODEL_CARD.md"
EXAMPLE_ROWS = 3
# By how much a probability may differ from that of `clickwise predict`: sums in another order; a model that is measured
# in bf16 or fp16 is exported in fp32; rounded rows.
TOLERANCE = {"fp32": 1e-6, "tf32": 1e-3, "bf16": 2e-2, "fp16": 5e-3}
ROWS_TOLERANCE = {"fp32": 0.0, "bf16": 2e-2, "int8": 3e-2}


def export(run: str | Path, out: str | Path, *, format: Format = "onnx", backend: Backend = "onnxruntime",
           device: Device = "cpu", **options: Any) -> dict[str, Any]:
    """Writes the export `out` of a run as `format` says, with the `options` of `export_folder`; of triton it is a model
    repository, to which a version is added, with the names of its `models`."""
    if format != "triton":
        return export_folder(run, out, format=format, **options)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:  # so that links can be made
        found = export_folder(run, Path(temporary) / "export", **options)
        models = write_repository(Path(temporary) / "export", out, backend=backend, device=device)
    return {**found, "out": str(out), "models": models}


def export_folder(run: str | Path, out: str | Path, *, name: str | None = None, version: str = "1",
                  format: Literal["onnx", "pt2"] = "onnx", rows: Rows = "fp32", encoding: bool = True,
                  allow_imports: Collection[str] = (), trust_paths: bool = False) -> dict[str, Any]:
    """Writes the export `out` of a run; `out`, its `name`, and how it was checked: how many `rows`, the
    `largest_difference` of a probability, and with rounded rows `auc` beside `auc_of_the_run` on the test mapping,
    where its columns are still there.

    encoding    false: what the export scores are ids and numbers
    rows        how tables are stored: bf16 and int8 take a half and a quarter of the memory

    Raises UsageError for a folder that has things in it, DataError for a run without an encoding, and EngineError where
    the export scores otherwise than the run.
    """
    run, out = Path(run), Path(out)
    check_new_folder(out, f"--out {out}")
    session, _, step = runs.open_run(run, allow_imports=allow_imports, spec=own_spec(run), trust_paths=trust_paths)
    if encoding and not (run / ENCODING / ENCODING_FILE).exists():
        raise DataError(run, found="no encoding of raw rows", expected="a run on data that clickwise prepared from raw "
                        "rows", do="--without-encoding: the export then takes ids and numbers")
    kept = own_encoding(run) if encoding else None
    if kept is not None:
        kept.check_for_new_rows()
    spec, names = session.dataset.spec, inputs(session.reads)
    with whole_folder(out) as temporary:
        taken = _write_graph(session, temporary / GRAPHS[format], format, rows)
        dataclasses.replace(spec, mappings={}).save(temporary)
        if kept is not None:
            kept.copy_to(temporary / ENCODING)
        signature = Signature(
            name=name or run.resolve().parent.name, version=version, model=session.recipe.model_name,
            run=run.resolve().name, created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            graph=GRAPHS[format], rows=rows, tolerance=TOLERANCE[session.recipe.train.precision] + ROWS_TOLERANCE[rows],
            inputs=taken, ids={each: size for each in names if (size := spec.features[each].cardinality) is not None},
            **({"raw": {}} if kept is None else _raw(kept, session, run)))
        signature.save(temporary)
        write_text(temporary / CARD, model_card(run, session, signature, step, kept))
        write_manifest(temporary)
        exported = ExportedModel(temporary)
        found = check_scores(exported, session, run)
        if rows != "fp32":
            found |= auc_of_test(exported, session)
    return {"out": str(out), "name": signature.name, **found}


def _write_graph(session: Session, path: Path, format: Format, rows: Rows) -> tuple[GraphInput, ...]:
    stored = None if rows == "fp32" else rows
    if format == "onnx":
        return write_onnx(session, path, rows=stored)
    from clickwise.export.pt2_file import write_pt2

    return write_pt2(session, path, rows=stored)


def _raw(kept: Encoding, session: Session, run: Path) -> dict[str, Any]:
    """What signature.json says of raw rows, as they come where states go on with events."""
    names = inputs(session.reads)
    encoder = Replay(kept, names).encoder if kept.goes_on else Encoder(kept, names, alone=True)
    examples, raw = examples_of(run), {}
    first = [] if examples is None else examples.slice(0, 1).to_pylist()
    for of in encoder.needs:
        column = kept.raw_column(of)
        raw[of] = RawInput(column.type.name, column.list, all(_can_lack(encoder, row, of) for row in first))
    return {"raw": raw, "goes_on": kept.goes_on, "example": _example(encoder, examples, raw, session)}


def _can_lack(encoder: Encoder, row: Mapping[str, Any], of: str) -> bool:
    """Whether the row can be encoded without a value of the column."""
    try:
        encoder.row({**row, of: None})
    except ClickwiseError:
        return False
    return True


def _example(encoder: Encoder, examples: pa.Table | None, raw: Mapping[str, RawInput],
             session: Session) -> dict[str, Any] | None:
    """A request, and the scores that the run's examples have for its rows: the first ones; of a whole display where
    that is an input, and where states go on those that nothing came before."""
    if examples is None or not set(encoder.needs) <= set(examples.column_names):
        return None
    rows = examples.slice(0, EXAMPLE_ROWS)
    if encoder.group is not None:
        display = examples[encoder.group]
        rows = examples.filter(pc.equal(display, display[0]))
    columns = model_columns(session.dataset.spec, encoder.columns(rows).arrays, len(rows))
    expected = rows["probability"].to_numpy()
    is_same = np.abs(scores(session, session.dataset.spec, columns)["probability"] - expected) <= 1e-6
    count = len(rows) if is_same.all() else int(np.argmin(is_same))
    return {"request": request_of(rows.slice(0, count).to_pylist(), raw),
            "expected_scores": expected[:count].tolist()} if count else None
