"""A run's model beside baselines on the same rows, and what is suspicious about it: baselines.json of the run folder.

    {"mapping": "test", "rows": 6591, "of": 6591, "train_rows": 22700, "of_train": 22700,
     "results": {"model": {"auc": 0.93, "log_loss": 0.28}, "constant": {…}, "logistic_regression": {…}, …},
     "not_measured": {"boosted_trees": "scikit-learn is not installed (pip install scikit-learn)"},
     "warnings": ["…"]}

`rows` of the mapping's rows (`of`) are measured, the model's too; `train_rows` are what baselines learn from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from clickwise import files, processes
from clickwise.baselines import BASELINES
from clickwise.baselines.rows import BLOCK_ROWS, Rows, Unable, blocks_of, flat_features, read_rows, spread
from clickwise.baselines.single_columns import telling_columns
from clickwise.data.columns import Columns
from clickwise.data.loader import Loader
from clickwise.encoding.document import FILE as ENCODING_FILE
from clickwise.metrics import MetricSet, build_metrics, log_loss, measure
from clickwise.run.session import Session
from clickwise.run.whole_model import ENCODING, own_encoding
from clickwise.train.evaluate import evaluate

FILE = "baselines.json"
METRICS = ("auc", "log_loss")


def measure_baselines(folder: Path, session: Session, names: Iterable[str],
                      metrics: dict[str, float | None]) -> dict[str, Any]:
    """What baselines.json then holds: the session's model, whose `metrics` on the recipe's test mapping are these, the
    constant, and the baselines `names`; of several processes the first measures, and the others get {}."""
    spec, data, reads = session.dataset.spec, session.recipe.data, session.reads
    columns, train_columns = session.evaluation_loader(data.test).columns, session.train_loader().columns
    train = read_rows(train_columns, spec, reads)
    rows = train if data.test == data.train and data.subset is None else read_rows(columns, spec, reads)
    is_whole = len(rows) == columns.rows and all(name in metrics for name in METRICS)
    of_model = {name: metrics[name] for name in METRICS} if is_whole else _of_model(session, columns)
    if not processes.is_first():  # what follows needs no tables, which lie with all of them
        return {}
    results = {"model": of_model,
               "constant": _of_constant(_click_rate(train_columns, spec.channels["label"][0]), rows)}
    not_measured = {}
    for name in names:
        try:
            results[name] = _of(rows, BASELINES[name](train, session.recipe.train.seed)(rows))
        except Unable as reason:
            not_measured[name] = str(reason)
    content = {"mapping": data.test, "rows": len(rows), "of": columns.rows, "train_rows": len(train),
               "of_train": train_columns.rows, "results": results, "not_measured": not_measured,
               "warnings": [*_worse_than_constant(data.test, results), *_leaks(folder, session, train, rows)]}
    files.write_json(folder / FILE, content)
    return content


def _of_model(session: Session, columns: Columns) -> dict[str, float]:
    """The model on those rows that `read_rows` gives."""
    spec, reads = session.dataset.spec, session.reads
    loader = Loader(columns, spec, batch_size=BLOCK_ROWS, prefetch=0, channels=reads)
    found = evaluate(session.model, spread(loader, blocks_of(spec, reads)), MetricSet(build_metrics(METRICS)),
                     precision=session.recipe.train.precision, device=session.device)
    return {name: found[name] for name in METRICS}


def _of(rows: Rows, logit_B: np.ndarray) -> dict[str, float]:
    found = measure(rows.label_B, logit_B.astype(np.float32), metrics=METRICS)
    return {name: found[name] for name in METRICS}


def _of_constant(rate: float, rows: Rows) -> dict[str, float]:
    return {"auc": 0.5 if 0 < rows.label_B.mean() < 1 else math.nan,
            "log_loss": log_loss(rows.label_B, np.full(len(rows), rate))}


def _click_rate(columns: Columns, label: str) -> float:
    """Of all rows, a part at a time: they may be billions."""
    label_B, step = columns.arrays[label], 1 << 24
    return sum(int(np.count_nonzero(label_B[start : start + step])) for start in range(0, columns.rows, step)) / \
        columns.rows


def _worse_than_constant(mapping: str, results: dict[str, dict[str, float | None]]) -> list[str]:
    model, constant = results["model"]["log_loss"], results["constant"]["log_loss"]
    if model is None or constant is None or not model > constant:
        return []
    return [f"the model is worse than a constant: its log loss on {mapping} is {model:.5f}, that of the click rate of "
            f"the training rows {constant:.5f}. Train less or with a lower rate (train.epochs, optimizer.lr, "
            "embedding.optimizer.lr), or look whether the rows of training and of measuring are alike"]


def _leaks(folder: Path, session: Session, train: Rows, rows: Rows) -> list[str]:
    numbers, _ = flat_features(session.dataset.spec, session.reads)
    found = telling_columns(train, rows, [feature.name for feature in numbers])
    raw = {}
    if found and (folder / ENCODING / ENCODING_FILE).exists():  # several columns may be made of one
        raw = {name: column.of for name, column in own_encoding(folder).columns.items()}
    best: dict[str, float] = {}
    for column, auc in found.items():
        name = raw.get(column, column)
        best[name] = max(auc, best.get(name, 0.0))
    return [f"the column {name!r} alone ranks the rows of {session.recipe.data.test} with an AUC of {auc:.4f}: is the "
            f"label among the features, or what is known only after it? Leave it out: clickwise spec infer with "
            f"--ignore {name}, clickwise.fit with ignore=[{name!r}]" for name, auc in best.items()]
