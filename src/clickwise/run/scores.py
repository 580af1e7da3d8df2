"""What a model says of rows: logits and probabilities."""

from __future__ import annotations

import numpy as np
import torch

from clickwise.data.columns import Columns
from clickwise.data.loader import Loader
from clickwise.errors import DataError
from clickwise.feature_spec import FeatureSpec
from clickwise.kernels.prepacked import PackedWeights
from clickwise.run.session import Session
from clickwise.train.evaluate import predictions

SCORES = ("logit", "probability")
BLOCK_ROWS = 1 << 18  # rows that are scored at a time: the same rows in the same batches, wherever they come from


def scores(session: Session, spec: FeatureSpec, columns: Columns,
           weights: PackedWeights | None = None) -> dict[str, np.ndarray]:
    """`logit` and `probability` of every row, float32, in batches of the evaluation's size. `weights` are kept by
    who scores again with the same model. Raises DataError for a row of which a model makes no number."""
    batch_size = session.evaluation_batch_size
    loader = Loader(session.dataset.as_evaluated(columns), spec, batch_size=batch_size, channels=session.reads,
                    prefetch=0 if columns.rows <= batch_size else 2)  # a thread costs a millisecond
    logit_B = torch.cat([logit_B.cpu() for logit_B, _ in predictions(
        session.model, loader.epoch(0), precision=session.recipe.train.precision, device=session.device,
        weights=PackedWeights() if weights is None else weights)])
    if (bad := logit_B.isnan()).any():
        raise _no_number(spec, columns, int(bad.nonzero()[0]))
    return dict(zip(SCORES, (logit_B.numpy(), logit_B.double().sigmoid().numpy().astype(np.float32)), strict=True))


def _no_number(spec: FeatureSpec, columns: Columns, row: int) -> DataError:
    found = "a row whose logit is no number"
    if columns.numerical is not None and columns.numerical.size:
        column = int(np.argmax(np.abs(columns.numerical[row])))
        name = spec.channels["numerical"][column]
        found += f"; {name!r} reaches the model as {columns.numerical[row][column]:g}"
    return DataError("predictions", found=found, expected="numbers of the scale that the model was trained on",
                     do="correct that number, or leave it empty")
