"""From a recipe to live objects: the only place where names become classes."""

from __future__ import annotations

import dataclasses
import functools
import gc
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from clickwise import recipe as recipes
from clickwise.checkpoint import CheckpointFolder
from clickwise.data.dataset import DataConfig, Dataset
from clickwise.data.loader import Loader
from clickwise.embedding import Embeddings, build_embeddings
from clickwise.embedding.table import Table, TableOptimizer
from clickwise.errors import CheckpointError, EngineError, RecipeError, SpecError, nearest
from clickwise.feature_spec import FeatureSpec
from clickwise.kernels.cpu_products import bf16_instructions
from clickwise.metrics import MetricSet, build_metrics
from clickwise.models.ctr_model import CTRModel
from clickwise.optim.dense import DenseOptimizer
from clickwise.optim.schedule import Schedule
from clickwise.train.evaluate import evaluate
from clickwise.train.freeze import freeze_parameters, frozen_tables
from clickwise.train.log import RunLog
from clickwise.train.loop import Loop, TrainConfig
from clickwise.train.step import Part, TrainStep, set_matmul_precision

log = logging.getLogger(__name__)

MODELS = {
    "dlrm": "clickwise.models.dlrm:DLRM",
    "dcnv2": "clickwise.models.dcnv2:DCNv2",
    "wide_deep": "clickwise.models.wide_deep:WideDeep",
    "din": "clickwise.models.din:DIN",
    "dien": "clickwise.models.dien:DIEN",
    "sim": "clickwise.models.sim:SIM",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """The `embedding` section: which engine holds the tables, and how their rows are updated.

    hash_indices     ids are taken modulo the rows of their table, which then may be fewer than there are ids
    max_table_size   the most rows that a table has; needs hash_indices
    table_dtype      the type that rows are stored in: float32, or bfloat16, which halves them and is slow on a CPU
    check_ids        every batch's ids are looked at before they are used (datasets are checked as a whole before that,
                     once; a GPU is waited for)
    """

    engine: str = "auto"
    optimizer: TableOptimizer = TableOptimizer()
    hash_indices: bool = False
    max_table_size: int | None = None
    table_dtype: Literal["float32", "bfloat16"] = "float32"
    check_ids: bool = False

    def __post_init__(self) -> None:
        size = self.max_table_size
        recipes.require(size is None or size > 0, "max_table_size", found=size, expected="a number above 0")
        recipes.require(size is None or self.hash_indices, "max_table_size", found=size,
                        expected="hash_indices: true beside it, which says how ids find a row in a smaller table",
                        do="set embedding.hash_indices=true, or leave max_table_size out")

    def clipped(self, table: Table) -> Table:
        """The table with no more rows than allowed."""
        if self.max_table_size is None or table.rows <= self.max_table_size:
            return table
        return dataclasses.replace(table, rows=self.max_table_size, modulo=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartConfig:
    """How one of a model's parts is trained; what is null is as in the recipe's `embedding.optimizer`, `optimizer` and
    `schedule`."""

    table_optimizer: TableOptimizer | None = None
    optimizer: DenseOptimizer | None = None
    schedule: Schedule | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training recipe; every section stands beside the class it configures.

    parts        part of the model → how it is trained, where that differs from the rest
    freeze       parts of the model that stay as they are: `top`, `top.0`, `embeddings`, `embeddings.<table>`
    start_from   a run folder whose weights (of its best checkpoint, else its last) training starts from
    """

    data: DataConfig
    model: Any
    embedding: EmbeddingConfig = EmbeddingConfig()
    optimizer: DenseOptimizer = DenseOptimizer()
    schedule: Schedule = Schedule()
    parts: dict[str, PartConfig] = dataclasses.field(default_factory=dict)
    train: TrainConfig = TrainConfig()
    metrics: tuple[str, ...] = ("auc", "log_loss", "normalized_entropy", "calibration")
    freeze: tuple[str, ...] = ()
    start_from: str | None = None
    model_name: str = dataclasses.field(default="", metadata={"hidden": True})

    def absolute(self) -> Recipe:
        """The same, with paths that hold from any working folder."""
        start_from = None if self.start_from is None else str(Path(self.start_from).resolve())
        return dataclasses.replace(self, data=self.data.absolute(), start_from=start_from)

    def part(self, name: str) -> PartConfig:
        """How a part of the model is trained, nothing left null."""
        own = self.parts.get(name, PartConfig())
        return PartConfig(table_optimizer=own.table_optimizer or self.embedding.optimizer,
                          optimizer=own.optimizer or self.optimizer, schedule=own.schedule or self.schedule)

    def to_yaml(self) -> str:
        sections = recipes.to_dict(self)
        sections.pop("model_name")
        sections["model"] = {"name": self.model_name, **sections["model"]}
        return recipes.to_yaml(sections)


def parse_recipe(sections: dict[str, Any], where: str) -> Recipe:
    """The recipe with every section checked; raises RecipeError with the place of the first slip."""
    if "dataset" in sections and "model" not in sections:
        raise RecipeError(where, found="a recipe for preparing data (it has a `dataset` section)",
                          expected="a recipe for training (with `model` and `data`)", do=f"clickwise prepare {where}")
    model = sections.get("model")
    if not isinstance(model, dict) or "name" not in model:
        raise RecipeError(f"{where}.model", found=repr(model), expected="a mapping with `name` and its settings",
                          do=f"name: one of {', '.join(MODELS)}, or a dotted path such as my_package.MyModel")
    model_class = find_model(model["name"], where)
    config = recipes.parse(model_class.Config, {key: value for key, value in model.items() if key != "name"},
                           f"{where}.model")
    if "model_name" in sections:
        raise RecipeError(f"{where}.model_name", found="the unknown key 'model_name'", expected="model: {name: …}")
    recipe = recipes.parse(Recipe, {**sections, "model": config, "model_name": model["name"]}, where)
    for part in recipe.parts:
        if part not in model_class.parts:
            parts = ", ".join(model_class.parts)
            raise RecipeError(f"{where}.parts.{part}", found=f"no part {part!r} in the model {model['name']}",
                              expected=f"one of its parts: {parts}" if parts else "no `parts`: it has only one",
                              do=nearest(part, model_class.parts) or "use embedding.optimizer, optimizer and schedule")
    build_metrics(recipe.metrics, where=f"{where}.metrics")
    if recipe.train.metric not in recipe.metrics:
        raise RecipeError(f"{where}.train.metric", found=repr(recipe.train.metric),
                          expected=f"one of the recipe's metrics: {', '.join(recipe.metrics)}",
                          do=nearest(recipe.train.metric, recipe.metrics))
    return recipe


def load_recipe(name: str, overrides: list[str]) -> Recipe:
    """The recipe of a file or shipped name, overrides applied and every section checked."""
    return parse_recipe(recipes.load(name, overrides), name)


def find_model(name: str, where: str) -> type[CTRModel]:
    """The class of a model by its short name or dotted path."""
    path = MODELS.get(name, name)
    if not all(part.isidentifier() for part in path.replace(":", ".").split(".")) or "." not in path:
        raise RecipeError(f"{where}.model.name", found=repr(name), expected=f"one of {', '.join(MODELS)}",
                          do=nearest(name, MODELS) + " A dotted path to a class of your own works too.")
    module, _, attribute = path.replace(":", ".").rpartition(".")
    if name not in MODELS and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a model of one's own stands beside one's recipes
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as slip:
        raise RecipeError(f"{where}.model.name", found=f"{name!r}: {slip}", expected="a class that can be imported",
                          do="check the path, and that its package is installed") from None
    if not (isinstance(found, type) and issubclass(found, CTRModel)):
        raise RecipeError(f"{where}.model.name", found=f"{name!r} is no CTRModel",
                          expected="a subclass of clickwise.models.ctr_model.CTRModel")
    if not dataclasses.is_dataclass(getattr(found, "Config", None)):
        raise RecipeError(f"{where}.model.name", found=f"{name!r} has no dataclass Config",
                          expected="the settings of its recipe section: Config = MyModelConfig")
    return found


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
    if not any(map(spec.channel, ("numerical", "categorical", "history"))):
        raise SpecError(spec.path, found="no numerical and no categorical feature", expected="at least one feature",
                        do="list features in channel_spec.numerical or channel_spec.categorical")
    for feature in (*spec.channel("categorical"), *spec.channel("user"), *spec.channel("target_item")):
        if feature.dimensions:
            raise SpecError(f"{spec.path}: feature_spec.{feature.name}.dimensions", found=str(list(feature.dimensions)),
                            expected="one id per sample, or with max_hotness above 1 a list of ids",
                            do="set max_hotness instead, or move the feature to the channel history")
    model_class = find_model(recipe.model_name, "recipe")
    torch.manual_seed(recipe.train.seed)
    tables = [recipe.embedding.clipped(table) for table in model_class.tables(spec, recipe.model)]
    paths = [table.path for table in tables]
    frozen = frozen_tables(recipe.freeze, paths)
    tables = [dataclasses.replace(table, trainable=False) if table.path in frozen else table for table in tables]
    embeddings = build_engines(model_class, tables, lambda part: recipe.part(part).table_optimizer,
                               engine=recipe.embedding.engine, seed=recipe.train.seed, device=device,
                               table_dtype=recipe.embedding.table_dtype, check_ids=recipe.embedding.check_ids)
    model = model_class(spec, embeddings, recipe.model).to(device)
    freeze_parameters(model, recipe.freeze, paths)
    return model


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


def parts_of(model: CTRModel, recipe: Recipe) -> dict[str, Part]:
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
            parts[name] = Part(config.optimizer.build(parameters), engines, config.schedule)
    return parts


def engines_of(model: torch.nn.Module) -> list[Embeddings]:
    """The embedding engines inside a model."""
    return [module for module in model.modules() if isinstance(module, Embeddings)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """Everything a training or a measurement of it needs, ready to run."""

    recipe: Recipe
    dataset: Dataset
    model: CTRModel
    step: TrainStep
    device: torch.device

    @property
    def evaluation_batch_size(self) -> int:
        return self.recipe.train.evaluation_batch_size or self.recipe.train.batch_size

    def check_data(self) -> None:
        """Raises the error of a mapping that is missing, damaged or too small, before any training."""
        self.train_loader()
        self._check_channel("label", (self.recipe.data.train, *self._measured()), "training and metrics")
        groups = [name for name, metric in build_metrics(self.recipe.metrics).items() if metric.needs_groups]
        if groups:
            self._check_channel("display", self._measured(), f"the metric {groups[0]!r}")

    def _measured(self) -> list[str]:
        return [mapping for mapping in (self.recipe.data.validation, self.recipe.data.test) if mapping is not None]

    def _check_channel(self, channel: str, mappings: Iterable[str], purpose: str) -> None:
        """Raises SpecError unless every mapping has the one feature of the channel."""
        spec = self.dataset.spec
        features = spec.channel(channel)
        for mapping in mappings:
            if not features or features[0].name not in self.dataset.columns(mapping).arrays:
                raise SpecError(f"{spec.path}: channel_spec.{channel}",
                                found=f"no {channel} in the mapping {mapping!r}", expected=f"a feature, for {purpose}",
                                do=f"name it in channel_spec.{channel} and in source_spec.{mapping}")

    def train_loader(self) -> Loader:
        """Shuffled batches of the training mapping."""
        return _train_loader(self.dataset, self.recipe, self.device)

    def evaluation_loader(self, mapping: str) -> Loader:
        """Batches of a mapping in the order of its rows."""
        return self.dataset.evaluation_loader(mapping, batch_size=self.evaluation_batch_size,
                                              pin_memory=self.device.type == "cuda")

    def count_ids(self) -> None:
        """Tells the tables how often their ids occur in training, where an optimizer asks for it (`minibatch_l2`):
        before the first step of a training that starts, not of one that goes on."""
        engines = [engine for engine in engines_of(self.model) if engine.counted]
        if engines:
            features = dict.fromkeys(feature for engine in engines for feature in engine.counted)
            counts = self.dataset.train_counts(features)
            for engine in engines:
                engine.set_counts(counts)

    def metrics(self) -> MetricSet:
        """Fresh metrics, those of the recipe."""
        return MetricSet(build_metrics(self.recipe.metrics))

    def evaluate(self, mapping: str, watch=lambda logit_B, batch: None) -> dict[str, float]:
        """Metrics by name of the model as it stands, on a mapping."""
        self._check_channel("label", [mapping], "metrics")
        return evaluate(self.model, self.evaluation_loader(mapping).epoch(0), self.metrics(),
                        precision=self.recipe.train.precision, device=self.device, watch=watch)

    def state(self) -> dict[str, Any]:
        """The model's part of a checkpoint."""
        return {"model": self.model.state_dict(),
                "tables": [engine.optimizer_state_dict() for engine in engines_of(self.model)],
                "data": self.dataset.identity, "inputs": self.dataset.inputs(),
                "recipe": self.recipe.absolute().to_yaml()}

    def load_state(self, content: dict[str, Any], *, optimizer: bool = True) -> None:
        """Takes weights (and the tables' optimizer state) from a checkpoint of the same model and features."""
        for key, ours in self.dataset.inputs().items():
            if content["inputs"][key] != ours:
                raise CheckpointError(self.dataset.spec.path, found=f"other {key} than the model was trained with",
                                      expected="the same features, order and cardinalities",
                                      do="use data that was prepared with the vocabularies of the training data")
        try:
            self.model.load_state_dict(content["model"])
        except RuntimeError as slip:
            raise CheckpointError("checkpoint", found=str(slip).splitlines()[-1].strip(),
                                  expected="the model it was saved from",
                                  do="remove overrides of `model`, or take over `model` and the limit of table sizes "
                                     "from that run's recipe") from None
        if optimizer:
            for engine, state in zip(engines_of(self.model), content["tables"], strict=True):
                engine.load_optimizer_state_dict(state)

    def loop(self, folder: Path, log: RunLog) -> Loop:
        """The training loop over the recipe's mappings, its checkpoints in `folder`/checkpoint."""
        data = self.recipe.data
        guide = data.validation or data.test
        metrics, loader = self.metrics(), self.evaluation_loader(guide)

        def measure() -> dict[str, float]:
            values = evaluate(self.model, loader.epoch(0), metrics, precision=self.recipe.train.precision,
                              device=self.device)
            return {"mapping": guide, **values}

        return Loop(self.recipe.train, self.step, self.train_loader(), log=log, evaluate=measure,
                    checkpoints=CheckpointFolder(folder / "checkpoint"), state=self.state)


def _train_loader(dataset: Dataset, recipe: Recipe, device: torch.device) -> Loader:
    return dataset.train_loader(batch_size=recipe.train.batch_size, seed=recipe.train.seed,
                                pin_memory=device.type == "cuda")


def build_trainer(recipe: Recipe) -> Trainer:
    """Data, model and step for a recipe; raises the error of whatever does not fit before any work is done."""
    device = find_device(recipe.train.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    set_matmul_precision(recipe.train.precision, device)
    if (device.type, recipe.train.precision) == ("cpu", "bf16") and bf16_instructions() is None:
        log.warning("train.precision bf16: this processor has no instructions for it, fp32 is faster here")
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    dataset = Dataset(recipe.data)
    model = build_model(recipe, dataset.spec, device)
    # Asked for in training only: a machine that measures or predicts need not have the training mapping.
    steps_per_epoch = functools.cache(lambda: len(_train_loader(dataset, recipe, device)))
    _import_optimizers()
    step = TrainStep(model, parts_of(model, recipe), precision=recipe.train.precision, device=device,
                     steps_per_epoch=steps_per_epoch)
    return Trainer(recipe=recipe, dataset=dataset, model=model, step=step, device=device)


@functools.cache
def _import_optimizers() -> None:
    """Has torch import what its first optimizer imports, once in a process, so that a trainer is freed when the last
    reference to it goes.

    That import (`torch._dynamo`) leaves a frame that refers to itself. It would keep all frames it was called from, and
    what their variables hold, the tables too, until Python looks for cycles, which in a training may be never.
    """
    torch.optim.SGD([torch.zeros(1)])
    gc.collect()
