"""From a recipe to live objects: device, model, engines, and who trains which part of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from clickwise import processes
from clickwise.embedding import Embeddings, build_embeddings
from clickwise.embedding.table import Table, TableOptimizer
from clickwise.embedding.tables import table_bytes
from clickwise.errors import EngineError, RecipeError, SpecError
from clickwise.feature_spec import FeatureSpec
from clickwise.model_memory import check_dense, check_tables, share_of
from clickwise.models.ctr_model import CTRModel
from clickwise.train.freeze import freeze_parameters, frozen_tables
from clickwise.train.step import OptimizerGroup
from clickwise.training_recipe import Recipe, find_model


def find_device(name: str) -> torch.device:
    """The device of a recipe's `train.device`: auto, cpu, cuda or cuda:N. A GPU always has its index, the first is
    meant where none is given: `torch.cuda.set_device` takes no other."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RecipeError("train.device", found=repr(name), expected="auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if device.index is None and processes.count() > 1:
            device = torch.device("cuda", processes.local_rank())
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise EngineError("train.device", found=f"{name!r}, but torch {torch.__version__} sees {count} GPUs here",
                              expected="a device that exists", do="set train.device=cpu, or see `clickwise doctor`")
        return torch.device("cuda", device.index or 0)
    if device.type != "cpu":
        raise RecipeError("train.device", found=repr(name), expected="auto, cpu, cuda or cuda:N")
    return device


def build_model(recipe: Recipe, spec: FeatureSpec, device: torch.device) -> CTRModel:
    """The model with fresh weights on `device`, a pure function of recipe and seed."""
    for feature in (*spec.channel("categorical"), *spec.channel("user"), *spec.channel("target_item")):
        if feature.dimensions:
            raise SpecError(f"{spec.path}: feature_spec.{feature.name}.dimensions", found=str(list(feature.dimensions)),
                            expected="one id per sample, or with max_hotness above 1 a list of ids",
                            do="set max_hotness instead, or move the feature to the channel history")
    model_class = find_model(recipe.model_name, "recipe")
    reads = model_class.reads(spec, recipe.model)
    if not any(reads.values()):
        raise SpecError(spec.path, found=f"no feature of the channels that {recipe.model_name} reads",
                        expected="at least one feature", do=f"list features in channel_spec: {', '.join(reads)}")
    tables = [recipe.embedding.clipped(table) for table in model_class.tables(spec, recipe.model)]
    paths = [table.path for table in tables]
    frozen = frozen_tables(recipe.freeze, paths)
    tables = [dataclasses.replace(table, trainable=False) if table.path in frozen else table for table in tables]
    _check_memory(recipe, spec, model_class, tables, device)
    torch.manual_seed(recipe.train.seed)
    embeddings = build_engines(model_class, tables, lambda part: recipe.part(part).table_optimizer,
                               engine=recipe.embedding.engine, seed=recipe.train.seed, device=device,
                               table_dtype=recipe.embedding.table_dtype, check_ids=recipe.embedding.check_ids,
                               sharding=recipe.embedding.sharding)
    model = model_class(spec, embeddings, recipe.model).to(device)
    freeze_parameters(model, recipe.freeze, paths)
    if processes.rank():  # first values are those of one process; what is drawn in training is each one's own
        torch.manual_seed(recipe.train.seed + processes.rank())
    return model


def _check_memory(recipe: Recipe, spec: FeatureSpec, model_class: type[CTRModel], tables: Sequence[Table],
                  device: torch.device) -> None:
    """Raises EngineError for a model that is larger than the memory of `device`, before anything is allocated."""
    def optimizer_of(part: str) -> TableOptimizer:
        return recipe.part(part).table_optimizer

    table_dtype = recipe.embedding.table_dtype
    sizes = {table.path: share_of(table, recipe.embedding.sharding, device)
             * table_bytes(table, optimizer_of(table.part), table_dtype) for table in tables}
    check_tables(tables, sizes, optimizer_of, table_dtype, device)
    check_dense(lambda: model_class(spec, build_engines(model_class, tables, optimizer_of, device="meta"),
                                    recipe.model), sum(sizes.values()), device)


def build_engines(model_class: type[CTRModel], tables: Sequence[Table], optimizer_of: Callable[[str], TableOptimizer],
                  *, engine: str = "auto", **settings) -> Embeddings | dict[str, Embeddings]:
    """What the model is to be given as its embeddings: an engine, or by part an engine of the part's tables."""
    for table in tables:
        if table.part not in (model_class.parts or ("",)):
            raise EngineError(f"table {table.name!r}", found=f"the part {table.part!r}",
                              expected=f"one of the parts of {model_class.__name__}: {model_class.parts}")
    engines = {}
    for part in model_class.parts or ("",):
        mine = [table for table in tables if table.part == part]
        engines[part] = build_embeddings(engine, mine, tuple(feature for table in mine for feature in table.features),
                                         optimizer_of(part), **settings)
    return engines if model_class.parts else engines[""]


def parts_of(model: CTRModel, recipe: Recipe) -> dict[str, OptimizerGroup]:
    """What of the model is trained by which optimizers: by part, and "" whatever is in none."""
    def in_part(part: str, path: str) -> bool:
        first = path.partition(".")[0]
        return first == part if part else first not in model.parts

    parts = {}
    for name in ("", *model.parts):
        parameters = [parameter for path, parameter in model.named_parameters()
                      if parameter.requires_grad and in_part(name, path)]
        engines = [engine for path, engine in model.named_modules()
                   if isinstance(engine, Embeddings) and in_part(name, path)]
        if parameters or engines or not model.parts:
            config = recipe.part(name)
            parts[name] = OptimizerGroup(config.optimizer.build(parameters), engines, config.schedule)
    return parts


def engines_of(model: torch.nn.Module) -> list[Embeddings]:
    """The embedding engines inside a model."""
    return [module for module in model.modules() if isinstance(module, Embeddings)]
