"""Specs, batches and models for the tests of models."""

from __future__ import annotations

from pathlib import Path

import torch

from clickwise.batch import Batch, Ragged
from clickwise.embedding.table import TableOptimizer
from clickwise.feature_spec import Feature, FeatureSpec
from clickwise.models.ctr_model import CTRModel
from clickwise.wiring import build_engines


def spec_of(numerical: int, cardinalities, max_hotness=()) -> FeatureSpec:
    hotness = max_hotness or [None] * len(cardinalities)
    numericals = {f"n{i}": Feature(f"n{i}", "float16") for i in range(numerical)}
    categoricals = {f"c{i}": Feature(f"c{i}", "int32", cardinality=rows, max_hotness=hot)
                    for i, (rows, hot) in enumerate(zip(cardinalities, hotness, strict=True))}
    channels = {"numerical": tuple(numericals), "categorical": tuple(categoricals), "label": ("label",)}
    return FeatureSpec(features={**numericals, **categoricals, "label": Feature("label", "bool")}, mappings={},
                       channels=channels, metadata={}, folder=Path())


def history_spec(users, targets, histories, *, gaps=(), negatives: bool = True, length: int = 10,
                 beside: FeatureSpec | None = None) -> FeatureSpec:
    """A spec with the cardinalities of these channels (of `gaps`: time gaps, which are history too), and everything of
    `beside`."""
    cardinalities = {"user": users, "target_item": targets, "history": [*histories, *gaps],
                     "negative_history": histories if negatives else []}
    short = {"user": "user", "target_item": "target", "history": "seen", "negative_history": "unseen"}
    features, channels = {"label": Feature("label", "bool")}, {"label": ("label",)}
    for channel, rows in cardinalities.items():
        numbers = [""] if channel == "user" and len(rows) == 1 else range(len(rows))
        channels[channel] = tuple(f"{short[channel]}{number}" for number in numbers)
        features |= {name: Feature(name, "int32", count, dimensions=(length,) if "history" in channel else None,
                                   extra={"time_gap": 1} if index >= len(histories) and channel == "history" else {})
                     for index, (name, count) in enumerate(zip(channels[channel], rows, strict=True))}
    if beside is not None:
        features, channels = {**beside.features, **features}, {**beside.channels, **channels}
    return FeatureSpec(features=features, mappings={}, channels=channels, metadata={}, folder=Path())


def model_of(model_class: type[CTRModel], spec: FeatureSpec, *, optimizer: TableOptimizer | None = None,
             **settings) -> CTRModel:
    torch.manual_seed(0)
    config = model_class.Config(**settings)
    tables = model_class.tables(spec, config)
    optimizer = optimizer or TableOptimizer(lr=0.1)
    embeddings = build_engines(model_class, tables, lambda part: optimizer, engine="reference")
    return model_class(spec, embeddings, config)


def batch_of(spec: FeatureSpec, rows: int, seed: int = 0) -> Batch:
    """Random columns for every channel of ids; histories of every length from none, padded on the left."""
    generator = torch.Generator().manual_seed(seed)

    def ids(feature: Feature, *shape: int, first: int = 0) -> torch.Tensor:
        return torch.randint(first, feature.cardinality, shape, generator=generator, dtype=torch.int32)

    def column(feature: Feature) -> torch.Tensor | Ragged:
        if not feature.is_multi_hot:
            return ids(feature, rows)
        lengths = torch.randint(0, feature.max_hotness + 1, (rows,), generator=generator)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        return Ragged(ids(feature, int(offsets[-1])).long(), offsets)

    columns = {channel: tuple(map(column, spec.channel(channel))) for channel in ("categorical", "user", "target_item")}
    if spec.channel("history"):
        (length,) = spec.channel("history")[0].dimensions
        lengths_B = torch.arange(rows, 0, -1)[:, None] * 5 % (length + 1)
        real_BL = torch.arange(length) >= length - lengths_B
        for channel in ("history", "negative_history"):
            columns[channel] = tuple(ids(feature, rows, length, first=1) * real_BL for feature in spec.channel(channel))
    numericals = len(spec.channel("numerical"))
    return Batch(numerical=torch.rand(rows, numericals, generator=generator).half() if numericals else None,
                 **columns, label=torch.rand(rows, generator=generator) < 0.5)


def dense_parameters(model: CTRModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())  # engines keep their tables in buffers
