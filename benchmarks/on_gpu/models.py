"""Models of shipped recipes with batches and first values made on the device: neither files nor the host take part."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from unittest import mock

import torch
from on_gpu.machine import Card, Rehearsal
from on_gpu.sizes import Sizes

from clickwise.batch import Batch
from clickwise.data.synthetic.generate import CRITEO_NUMERICALS, VARIANTS, click_spec
from clickwise.embedding.table import Table
from clickwise.feature_spec import Feature, FeatureSpec, narrowest_id_dtype
from clickwise.models.ctr_model import CTRModel
from clickwise.train.step import TrainStep
from clickwise.training_recipe import Recipe, load_recipe
from clickwise.wiring import build_model, engines_of, parts_of

RECIPES = {"dlrm": "criteo/dlrm", "dcnv2": "criteo/dcnv2", "wide_deep": "outbrain/wide_deep", "din": "amazon_books/din",
           "dien": "amazon_books/dien", "sim": "amazon_books/sim"}
LOSSES = {"dien": ("model.auxiliary_loss_weight=1",),  # all that a model has: so they were predicted and published
          "sim": ("model.search_loss_weight=1", "model.auxiliary_loss_weight=1")}
OUTBRAIN_FEATURES = ("document_id", "platform", "document_id_promo", "source_id", "publisher_id", "geo_location",
                     "geo_location_country", "geo_location_state", "ad_id", "advertiser_id", "source_id_promo",
                     "publisher_id_promo", "campaign_id")
TORCH_TYPES = {"int8": torch.int8, "int16": torch.int16, "int32": torch.int32, "int64": torch.int64}


@dataclasses.dataclass(frozen=True)
class Ready:
    """A model, its training step and batches, all on the device."""

    recipe: Recipe
    model: CTRModel
    step: TrainStep
    batches: list[Batch]


def recipe_of(model: str, batch: int, settings: tuple[str, ...], precision: str = "bf16") -> Recipe:
    return load_recipe(RECIPES[model], [f"train.batch_size={batch}", f"train.precision={precision}",
                                        *LOSSES.get(model, ()), *settings])


def spec_of(model: str, sizes: Sizes) -> FeatureSpec:
    """The features that a model's recipe is for, at the sizes asked for."""
    if model in ("dlrm", "dcnv2"):
        return criteo_spec(sizes)
    if model == "wide_deep":
        spec = click_spec(CRITEO_NUMERICALS, (), ())
        features = {name: Feature(name, narrowest_id_dtype(rows), rows)
                    for name, rows in zip(OUTBRAIN_FEATURES, sizes.outbrain, strict=True)}
        return dataclasses.replace(spec, features={**spec.features, **features},
                                   channels={**spec.channels, "categorical": OUTBRAIN_FEATURES})
    return _history_spec(sizes)


def criteo_spec(sizes: Sizes, mappings: tuple[str, ...] = ()) -> FeatureSpec:
    rows = VARIANTS[sizes.criteo] if isinstance(sizes.criteo, str) else sizes.criteo
    return click_spec(CRITEO_NUMERICALS, rows, mappings)


def _history_spec(sizes: Sizes) -> FeatureSpec:
    of = sizes.histories
    rows = {"user": of.users, "item": of.items, "category": of.categories}
    channels = {"user": ("user",), "target_item": ("item", "category"), "label": ("label",)}
    features = {name: Feature(name, narrowest_id_dtype(size), size) for name, size in rows.items()}
    for channel, ending in (("history", "_history"), ("negative_history", "_negatives")):
        channels[channel] = (f"item{ending}", f"category{ending}")
        features |= {name + ending: Feature(name + ending, narrowest_id_dtype(rows[name]), rows[name],
                                            dimensions=(of.length,)) for name in ("item", "category")}
    return FeatureSpec({**features, "label": Feature("label", "bool")}, {}, channels)


def batch_of(spec: FeatureSpec, samples: int, alpha: float, generator: torch.Generator) -> Batch:
    """Random columns on the generator's device, ids by the power law of `PowerLaw`; histories of any length from a
    tenth of the longest on."""
    device = generator.device

    def ids(feature: Feature, *shape: int, first: int = 0) -> torch.Tensor:
        size, beyond = feature.cardinality - first, torch.rand(shape, dtype=torch.float64, device=device,
                                                               generator=generator)
        far = float(size + 1) ** (1 - alpha)
        found = ((far + beyond * (1 - far)) ** (1 / (1 - alpha))).long().clamp_(1, size) - 1 + first
        return found.to(TORCH_TYPES[feature.dtype])

    columns = {channel: tuple(ids(feature, samples) for feature in spec.channel(channel))
               for channel in ("categorical", "user", "target_item")}
    if histories := spec.channel("history"):
        length, = histories[0].dimensions
        lengths_B = torch.randint(max(1, length // 10), length + 1, (samples, 1), device=device, generator=generator)
        real_BL = torch.arange(length, device=device) >= length - lengths_B
        for channel in ("history", "negative_history"):
            columns[channel] = tuple(ids(feature, samples, length, first=1) * real_BL
                                     for feature in spec.channel(channel))
    numericals = len(spec.channel("numerical"))
    numerical = torch.randn(samples, numericals, device=device, generator=generator).half() if numericals else None
    label = torch.rand(samples, device=device, generator=generator) < 0.25
    return Batch(numerical=numerical, label=label, **columns)


def ready(recipe: Recipe, sizes: Sizes, machine: Card | Rehearsal, *, batches: int | None = None) -> Ready:
    """The model with the same first values every time, its step, and the same batches every time."""
    spec = spec_of(recipe.model_name, sizes)
    with first_values_on_the_device():
        model = build_model(recipe, spec, machine.device)
    step = TrainStep(model, parts_of(model, recipe), precision=recipe.train.precision, device=machine.device,
                     steps_per_epoch=lambda: 1000)
    generator = torch.Generator(machine.device).manual_seed(1)
    held = [batch_of(spec, recipe.train.batch_size, sizes.alpha, generator)
            for _ in range(batches or sizes.held_batches)]
    return Ready(recipe, model, step, held)


@contextlib.contextmanager
def first_values_on_the_device() -> Iterator[None]:
    """Tables get uniform first values where they are: drawn on the host, as a training does it to have the same values
    on every device, the 4.2 G of Criteo's take 11 to 14 s a process."""
    def fill(rows_RD: torch.Tensor, table: Table, seed: int, held: range) -> None:
        generator = torch.Generator(rows_RD.device).manual_seed(sum(map(ord, table.name)))
        bound = 0.0 if table.init == "zeros" else math.sqrt(1 / table.rows)
        for part in rows_RD.split(2**22):
            part.uniform_(-bound, bound, generator=generator)

    with mock.patch("clickwise.embedding.tables.fill_first_values", fill):
        yield


@contextlib.contextmanager
def without_dropout(model: CTRModel) -> Iterator[None]:
    """For steps that are compared: each variant has random bits of its own."""
    kept = [(module, name, getattr(module, name)) for module in model.modules() for name in ("p", "dropout")
            if isinstance(getattr(module, name, None), float)]
    for module, name, _ in kept:
        setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, share in kept:
            setattr(module, name, share)


def compile_model(model: CTRModel, backend: str) -> None:
    """From now on the model runs under torch.compile, all but its tables, whose steps are no part of any graph."""
    for engine in engines_of(model):
        for name in ("forward", "lookup_groups"):
            setattr(engine, name, torch.compiler.disable(getattr(engine, name)))
    model.forward = torch.compile(model.forward, backend=backend, dynamic=False)


def distinct_share(batch: Batch) -> float:
    """How many different rows of tables a batch touches, as a share of its ids."""
    columns = [*batch.categorical, *batch.user, *batch.target_item, *batch.history, *batch.negative_history]
    return sum(len(torch.unique(ids)) for ids in columns) / sum(ids.numel() for ids in columns)
