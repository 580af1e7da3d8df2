"""A training recipe: which sections it has, and the class that configures each."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal

from clickwise import recipe as recipes
from clickwise import registry
from clickwise.data.dataset import DataConfig
from clickwise.embedding.placement import Sharding
from clickwise.embedding.table import Table, TableOptimizer
from clickwise.errors import RecipeError, nearest
from clickwise.metrics import build_metrics
from clickwise.models.ctr_model import CTRModel
from clickwise.optim.dense import DenseOptimizer
from clickwise.optim.schedule import Schedule
from clickwise.train.loop import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """The `embedding` section: which engine holds the tables, and how their rows are updated.

    engine           reference (plain torch) · fused (Triton, one GPU) · sharded (several processes) · auto: what fits,
                     the fastest · a dotted path
    hash_indices     ids are taken modulo the rows of their table, which then may be fewer than there are ids
    max_table_size   the most rows that a table has; needs hash_indices
    table_dtype      the type that rows are stored in: float32, or bfloat16, which halves them and is slow on a CPU
    check_ids        every batch's ids are looked at before they are used (datasets are checked as a whole before that,
                     once; a GPU is waited for)
    sharding         how tables lie over several processes; docs/many_machines.md
    """

    engine: str = "auto"
    optimizer: TableOptimizer = TableOptimizer()
    hash_indices: bool = False
    max_table_size: int | None = None
    table_dtype: Literal["float32", "bfloat16"] = "float32"
    check_ids: bool = False
    sharding: Sharding = Sharding()

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
    metrics      what evaluations measure; docs/metrics.md
    examples     so many raw rows of test or validation go into the run with their scores, where the data has an
                 encoding
    baselines    what is measured beside the model, on the same rows: logistic_regression, boosted_trees (where
                 scikit-learn is installed); the best constant is always. docs/training.md
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
    examples: int = 1000
    baselines: tuple[Literal["logistic_regression", "boosted_trees"], ...] = ("logistic_regression",)
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
    """The recipe with every section checked; raises RecipeError for the first error, with where it is."""
    if "dataset" in sections and "model" not in sections:
        raise RecipeError(where, found="a recipe for preparing data (it has a `dataset` section)",
                          expected="a recipe for training (with `model` and `data`)", do=f"clickwise prepare {where}")
    model = sections.get("model")
    if not isinstance(model, dict) or "name" not in model:
        raise RecipeError(f"{where}.model", found=repr(model), expected="a mapping with `name` and its settings",
                          do=f"name: one of {', '.join(registry.NAMES['model'])}, or a dotted path such as "
                             "my_package.MyModel")
    model_class = find_model(model["name"], where)
    _refuse_settings_of_another(model, model_class, where)
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


def _refuse_settings_of_another(model: dict[str, Any], model_class: type[CTRModel], where: str) -> None:
    """RecipeError where the `model` section holds what is no setting of its model, but of another one: as a rule only
    the name of a recipe's model was changed."""
    known = {field.name for field in dataclasses.fields(model_class.Config)}
    foreign = [key for key in model if key != "name" and key not in known]
    other = next((name for name in registry.NAMES["model"] if foreign and {*foreign} <= {
        field.name for field in dataclasses.fields(find_model(name, where).Config)}), None)
    if other is not None:
        sibling = f"{where.rpartition('/')[0]}/{model['name']}"
        raise RecipeError(f"{where}.model.{foreign[0]}", found=f"settings of {other}: {', '.join(foreign)}",
                          expected=f"those of {model['name']}, the recipe's model.name",
                          do=f"take the recipe {sibling}" if sibling in recipes.shipped_recipes() and sibling != where
                          else f"leave them out, or set model.name={other}")


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a file or shipped name, overrides applied and every section checked."""
    return parse_recipe(recipes.load(name, overrides), name)


def load_foreign_recipe(file: Path, overrides: Iterable[str] = (), allow_imports: Collection[str] = ()) -> Recipe:
    """The recipe in a file that may be another's, of a run: it imports nothing but what is allowed, or what the
    overrides, which are the user's own, name."""
    registry.refuse_foreign(recipes.load(str(file)), str(file), allow_imports)
    return load_recipe(str(file), overrides)


def find_model(name: str, where: str) -> type[CTRModel]:
    """The class of a model by its short name or dotted path."""
    found = registry.resolve("model", name, f"{where}.model.name")
    if not (isinstance(found, type) and issubclass(found, CTRModel)):
        raise RecipeError(f"{where}.model.name", found=f"{name!r} is no CTRModel",
                          expected="a subclass of clickwise.models.ctr_model.CTRModel")
    if not dataclasses.is_dataclass(getattr(found, "Config", None)):
        raise RecipeError(f"{where}.model.name", found=f"{name!r} has no dataclass Config",
                          expected="the settings of its recipe section: Config = MyModelConfig")
    return found
