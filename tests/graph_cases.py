"""Sessions, and encoded columns for them, for the tests of exported graphs."""

from __future__ import annotations

import numpy as np
import torch

from clickwise.feature_spec import FeatureSpec, is_time_gap
from clickwise.run.scores import scores
from clickwise.run.session import Session, build_session
from clickwise.run.whole_model import model_columns
from clickwise.serve.exported import open_graph
from clickwise.serve.inputs import GraphInput, tensors
from clickwise.training_recipe import parse_recipe
from clickwise.wiring import engines_of

Arrays = dict[str, np.ndarray | tuple[np.ndarray, np.ndarray]]


def session_of(spec: FeatureSpec, name: str, *, embedding: dict | None = None, **settings) -> Session:
    """A session of a model for rows from elsewhere; every weight is random, so that none hides behind a zero."""
    session = build_session(parse_recipe({"data": {"path": "elsewhere"}, "model": {"name": name, **settings},
                                          "embedding": embedding or {}}, "test"), spec)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in session.model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
        for engine in engines_of(session.model):
            for table in engine.tables:
                engine.set_rows(table.name, torch.randn(table.rows, table.dim, generator=generator))
    return session


def arrays_of(spec: FeatureSpec, rows: int, *, seed: int = 0, as_lists: bool = True) -> Arrays:
    """Columns as an encoder gives them: ids from 0 on, lists of none to many, histories of none to more than is read,
    with events that are not known; histories as lists, or [rows, L]."""
    random = np.random.default_rng(seed)
    arrays: Arrays = {name: random.normal(size=rows).astype(np.float32) for name in spec.channels.get("numerical", ())}
    for channel in ("categorical", "user", "target_item"):
        for feature in spec.channel(channel):
            if feature.is_multi_hot:
                offsets = np.concatenate([[0], np.cumsum(random.integers(0, feature.max_hotness + 1, rows))])
                arrays[feature.name] = (random.integers(0, feature.cardinality, offsets[-1]), offsets)
            else:
                arrays[feature.name] = random.integers(0, feature.cardinality, rows).astype(feature.dtype)
                arrays[feature.name][:1] = 0
    if history := spec.channel("history"):
        (longest,) = history[0].dimensions
        lengths = np.concatenate([[0, longest, 1], random.integers(0, 2 * longest, rows)])[:rows]
        for feature in history:
            if as_lists:
                offsets = np.concatenate([[0], np.cumsum(lengths)])
                values = -random.integers(0, 99, offsets[-1]) if is_time_gap(feature) else \
                    random.integers(0, feature.cardinality, offsets[-1])
                arrays[feature.name] = (values, offsets)
            else:
                ids = random.integers(1, feature.cardinality, (rows, longest))
                arrays[feature.name] = ids * (np.arange(longest) >= longest - lengths[:, None])
    return arrays


def scored(session: Session, arrays: Arrays, rows: int) -> dict[str, np.ndarray]:
    """What the session says of these rows."""
    return scores(session, session.dataset.spec, model_columns(session.dataset.spec, arrays, rows))


def opened(path):
    return open_graph(path, 1)


def ran(file, inputs: tuple[GraphInput, ...], arrays: Arrays,
        rows: int) -> dict[str, np.ndarray]:
    """What an ONNX file says of them."""
    return dict(zip(("logit", "probability"), file.run(["logit", "probability"], tensors(inputs, arrays, rows)),
                    strict=True))
