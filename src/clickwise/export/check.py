"""Whether an export scores as its run does: on the run's examples, or on rows drawn at random."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet

from clickwise.batch import Batch, Ragged
from clickwise.data.dataset import Dataset
from clickwise.encoding import Encoder
from clickwise.encoding.replay import Replay
from clickwise.errors import EngineError
from clickwise.feature_spec import FILE_NAME, history_length, is_time_gap
from clickwise.kernels.prepacked import PackedWeights
from clickwise.manifest import of_run
from clickwise.metrics.arrays import auc
from clickwise.run.scores import scores
from clickwise.run.session import Session
from clickwise.run.whole_model import EXAMPLES, inputs, model_columns
from clickwise.serve.exported import ExportedModel, Tensors
from clickwise.serve.inputs import PADDING, tensors
from clickwise.train.evaluate import predictions

CHECK_ROWS = 1000  # drawn where a run has no examples


def examples_of(run: Path) -> pa.Table | None:
    """Raw rows with the scores of the run, if it keeps any."""
    path = of_run(run).verified(EXAMPLES)
    return parquet.read_table(path) if path.exists() else None


def check_scores(exported: ExportedModel, session: Session, run: Path) -> dict[str, Any]:
    """Scores rows by the export and by the run: how many, and the largest difference of a probability. Raises
    EngineError where it is larger than the signature allows."""
    examples = None if exported.encoding is None else examples_of(run)
    given, expected = _random_rows(exported, session) if examples is None else \
        _example_rows(exported, session, examples)
    found = exported.run(given)
    difference = float(np.abs(found.astype(np.float64) - expected).max())
    tolerance = exported.signature.tolerance
    if not difference <= tolerance:
        row = int(np.argmax(np.abs(found - expected)))
        raise EngineError(exported.signature.graph, found=f"the score {found[row]:.7f} of row {row}, which "
                          f"clickwise predict gives {expected[row]:.7f}", expected=f"scores within {tolerance:g}")
    return {"rows": len(expected), "largest_difference": difference, "tolerance": tolerance}


def _example_rows(exported: ExportedModel, session: Session, examples: pa.Table) -> tuple[Tensors, np.ndarray]:
    """The run's examples through the export's own encoding, with the scores that the run gave them."""
    names, kept = inputs(session.reads), exported.encoding
    encoded = Replay(kept, names).rows(examples) if kept.goes_on else Encoder(kept, names, alone=True).columns(examples)
    return tensors(exported.signature.inputs, encoded.arrays, len(examples)), examples["probability"].to_numpy()


def _random_rows(exported: ExportedModel, session: Session) -> tuple[Tensors, np.ndarray]:
    """Rows of numbers and ids drawn at random, and their scores by the run."""
    spec, dice = session.dataset.spec, np.random.default_rng(0)
    arrays, events = {}, _offsets(dice, history_length(spec) or 1)
    for channel, names in session.reads.items():
        for name in names:
            feature = spec.features[name]
            if channel == "history" or feature.is_multi_hot:
                offsets = events if channel == "history" else _offsets(dice, feature.max_hotness)
                ids = dice.integers(1, feature.cardinality, offsets[-1])
                arrays[name] = (-ids if is_time_gap(feature) else ids, offsets)
            elif feature.cardinality is None:
                arrays[name] = dice.standard_normal(CHECK_ROWS).astype(np.float32)
            else:
                arrays[name] = dice.integers(0, feature.cardinality, CHECK_ROWS)
    columns = model_columns(spec, arrays, CHECK_ROWS)
    return tensors(exported.signature.inputs, arrays, CHECK_ROWS), scores(session, spec, columns)["probability"]


def _offsets(dice: np.random.Generator, longest: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(dice.integers(0, longest + 1, CHECK_ROWS))])


def auc_of_test(exported: ExportedModel, session: Session) -> dict[str, float | None]:
    """The AUC on the test mapping by the export and by the run; None where its columns are gone."""
    data = session.recipe.data
    if data.path is None or not (Path(data.path) / FILE_NAME).exists():
        return {"auc": None, "auc_of_the_run": None}
    session = dataclasses.replace(session, dataset=Dataset(data))
    labels, by_export, by_run = [], [], []
    for logit_B, batch in predictions(session.model, session.evaluation_loader(data.test).epoch(0),
                                      precision=session.recipe.train.precision, device=session.device,
                                      weights=PackedWeights()):
        labels.append(batch.label.cpu().numpy().copy())
        by_run.append(logit_B.cpu().numpy())
        by_export.append(exported.run(_tensors_of(batch.to("cpu"), session.reads, exported)))
    label = np.concatenate(labels)
    return {"auc": auc(label, np.concatenate(by_export)), "auc_of_the_run": auc(label, np.concatenate(by_run))}


def _tensors_of(batch: Batch, reads: dict[str, tuple[str, ...]], exported: ExportedModel) -> Tensors:
    """The tensors that the graph takes of a batch of the loader."""
    columns = {name: column for channel, names in reads.items() if channel != "numerical"
               for name, column in zip(names, getattr(batch, channel), strict=True)}
    found = {}
    for given in exported.signature.inputs:
        if given.kind == "numerical":
            found[given.name] = batch.numerical.float().numpy()
        elif given.kind == "bag":
            found[given.name] = _padded(columns[given.features[0]])
        else:
            one = [columns[name].long() for name in given.features]
            found[given.name] = (torch.stack(one, 1) if given.kind == "ids" else one[0]).numpy()
    return found


def _padded(bag: Ragged) -> np.ndarray:
    lengths = bag.lengths_B()
    longest = max(1, int(lengths.max()))
    out = torch.full((len(bag), longest), PADDING, dtype=torch.int64)
    out[torch.arange(longest) < lengths[:, None]] = bag.values_V[:bag.offsets[-1]].long()
    return out.numpy()
