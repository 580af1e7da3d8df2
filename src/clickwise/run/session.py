"""A model with its data and its training step: what a training, a measurement or a prediction works with."""

from __future__ import annotations

import dataclasses
import functools
import gc
import logging
import sys
from collections.abc import Iterable
from typing import Any

import torch

from clickwise import processes
from clickwise.batch import Batch
from clickwise.checkpoint import CheckpointFolder, Rows
from clickwise.data.dataset import Dataset
from clickwise.data.loader import Loader
from clickwise.embedding import Embeddings
from clickwise.errors import CheckpointError, RecipeError, SpecError
from clickwise.feature_spec import FeatureSpec
from clickwise.kernels.cpu_products import bf16_instructions
from clickwise.kernels.prepacked import PackedWeights
from clickwise.metrics import MetricSet, build_metrics
from clickwise.model_memory import check_training
from clickwise.models.ctr_model import CTRModel
from clickwise.progress import warn
from clickwise.train.evaluate import evaluate, is_defined
from clickwise.train.log import NoLog, RunLog
from clickwise.train.loop import Loop
from clickwise.train.step import TrainStep, set_matmul_precision
from clickwise.training_recipe import Recipe
from clickwise.wiring import build_model, engines_of, find_device, parts_of

log = logging.getLogger(__name__)
LABELS = 1 << 16  # looked at at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """Everything that a recipe describes, live: its data, its model on a device, the step that trains it."""

    recipe: Recipe
    dataset: Dataset
    model: CTRModel
    step: TrainStep
    device: torch.device

    def __repr__(self) -> str:
        recipe = self.recipe
        return f"<Session: {recipe.model_name} on {recipe.data.name}, {recipe.train.precision} on {self.device}>"

    @property
    def evaluation_batch_size(self) -> int:
        return self.recipe.train.evaluation_batch_size or self.recipe.train.batch_size

    @property
    def reads(self) -> dict[str, tuple[str, ...]]:
        """What a prediction of the model takes, feature by feature."""
        return self.model.reads(self.dataset.spec, self.recipe.model)

    def check_data(self) -> None:
        """Raises the error of a mapping that is missing, damaged or too small, before any training."""
        self.train_loader()
        self._check_channel("label", (self.recipe.data.train, *self._measured()), "training and metrics")
        groups = [name for name, metric in build_metrics(self.recipe.metrics).items() if metric.needs_display]
        if groups:
            self._check_channel("display", self._measured(), f"the metric {groups[0]!r}")
        self._tell_of_undefined_metric()
        check_training(self.recipe, self.model, self.device)

    def check_warmup(self) -> None:
        """Raises RecipeError for a warm-up that is not over when training ends: the rate would never be the recipe's.
        """
        steps_per_epoch = len(self.train_loader())
        total = self.recipe.train.total_steps(steps_per_epoch)
        for name, part in self.step.parts.items():
            warmup = part.schedule.warmup(steps_per_epoch)
            if warmup > total:
                own = name in self.recipe.parts and self.recipe.parts[name].schedule is not None
                section = f"parts.{name}.schedule" if own else "schedule"
                key = "warmup_steps" if part.schedule.warmup_steps else "warmup_epochs"
                raise RecipeError(f"{section}.{key}", expected="a warm-up that ends before the training does",
                                  found=f"a warm-up of {warmup:,.0f} steps, in a training of {total:,}",
                                  do=f"tell it in epochs, which fit any length of data: {section}.warmup_steps=0 "
                                     f"{section}.warmup_epochs=0.1")

    def _tell_of_undefined_metric(self) -> None:
        """Says where the metric that guides training has no value on the mapping that it is measured on."""
        metric, mapping = self.recipe.train.metric, self.recipe.data.validation or self.recipe.data.test
        arrays, spec = self.dataset.columns(mapping).arrays, self.dataset.spec
        label, display = (next((arrays[feature.name] for feature in spec.channel(channel) if feature.name in arrays),
                               None) for channel in ("label", "display"))
        batches = (Batch(label=torch.tensor(label[part]),
                         display=None if display is None else torch.tensor(display[part]))
                   for part in (slice(start, start + LABELS) for start in range(0, len(label), LABELS)))
        if not is_defined(metric, batches):
            low, high = int(label.min()), int(label.max())
            why = f"all its labels are {low}" if low == high else "no display has a click and something else"
            warn(f"{metric} is undefined on {mapping}, the mapping that guides training: {why}. It chooses no "
                 "checkpoint and stops no training; set another train.metric, or split the rows otherwise")

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
        return _train_loader(self.dataset, self.recipe, self.model, self.device)

    def evaluation_loader(self, mapping: str) -> Loader:
        """Batches of a mapping in the order of its rows; the report follows categorical features, read or not."""
        return self.dataset.evaluation_loader(mapping, batch_size=self.evaluation_batch_size,
                                              pin_memory=self.device.type == "cuda",
                                              channels={*self.reads, "categorical"}, rank=processes.rank(),
                                              world_size=processes.count())

    def count_ids(self) -> None:
        """Tells the tables how often their ids occur in training, where an optimizer asks for it (`minibatch_l2`):
        before the first step of a training that starts, not of one that goes on."""
        engines = [engine for engine in engines_of(self.model) if engine.counted]
        if engines:
            rows: dict[str, int] = {}
            for engine in engines:
                for feature in engine.counted:
                    own = engine.table_of[feature].rows
                    if rows.setdefault(feature, own) != own:  # of parts, which differ: each id for itself
                        rows[feature] = sys.maxsize
            counts = self.dataset.train_counts(rows)
            for engine in engines:
                engine.set_counts(counts)

    def metrics(self) -> MetricSet:
        """Fresh metrics, those of the recipe."""
        return MetricSet(build_metrics(self.recipe.metrics))

    def evaluate(self, mapping: str, watch=lambda logit_B, batch: None) -> dict[str, float]:
        """Metrics by name of the model as it stands, on a mapping."""
        self._check_channel("label", [mapping], "metrics")
        return evaluate(self.model, self.evaluation_loader(mapping).epoch(0), self.metrics(),
                        precision=self.recipe.train.precision, device=self.device, weights=PackedWeights(), watch=watch,
                        numerical=self.dataset.spec.channels.get("numerical", ()))

    def state(self) -> dict[str, Any]:
        """The model's part of a checkpoint; of several processes each has the rows of tables that it holds."""
        model = self.model.state_dict()
        tables = [engine.optimizer_state_dict() for engine in engines_of(self.model)]
        if processes.count() > 1:
            engines = [(path, each) for path, each in self.model.named_modules() if isinstance(each, Embeddings)]
            for (path, engine), of_engine in zip(engines, tables, strict=True):
                for table in engine.tables:
                    held, key = engine.rows_to_save(table.name), f"{path}.tables.{table.name}.weight"
                    model[key] = Rows.of(table.rows, held, model[key])
                    of_engine["tables"][table.name] = {
                        state: Rows.of(table.rows, held, values)
                        for state, values in of_engine["tables"][table.name].items()}
        return {"model": model, "tables": tables,
                "data": self.dataset.identity, "inputs": self.dataset.inputs(self.reads),
                "recipe": self.recipe.absolute().to_yaml()}

    def load_state(self, content: dict[str, Any], *, optimizer: bool = True) -> None:
        """Takes weights (and the tables' optimizer state) from a checkpoint of the same model and features."""
        if (other := self.dataset.other_input(self.reads, content["inputs"])) is not None:
            raise CheckpointError(self.dataset.spec.path, found=f"other {other} than the model was trained with",
                                  expected="the same features, order and cardinalities",
                                  do="prepare its raw rows in the encoding of the training data: clickwise prepare "
                                     "RECIPE --with RUN")
        try:
            self.model.load_state_dict(content["model"])
        except RuntimeError as error:
            raise CheckpointError("checkpoint", found=str(error).splitlines()[-1].strip(),
                                  expected="the model it was saved from",
                                  do="remove overrides of `model`, or take over `model` and the limit of table sizes "
                                     "from that run's recipe") from None
        if optimizer:
            for engine, state in zip(engines_of(self.model), content["tables"], strict=True):
                engine.load_optimizer_state_dict(state)

    def loop(self, checkpoints: CheckpointFolder, log: RunLog | NoLog) -> Loop:
        """The training loop over the recipe's mappings."""
        data = self.recipe.data
        guide = data.validation or data.test
        metrics, loader = self.metrics(), self.evaluation_loader(guide)
        numerical = self.dataset.spec.channels.get("numerical", ())

        def measure() -> dict[str, float]:
            values = evaluate(self.model, loader.epoch(0), metrics, precision=self.recipe.train.precision,
                              device=self.device, weights=PackedWeights(), numerical=numerical)
            return {"mapping": guide, **values}

        return Loop(self.recipe.train, self.step, self.train_loader(), log=log, evaluate=measure,
                    checkpoints=checkpoints, state=self.state, numerical=numerical)


def _train_loader(dataset: Dataset, recipe: Recipe, model: CTRModel, device: torch.device) -> Loader:
    return dataset.train_loader(batch_size=recipe.train.batch_size, seed=recipe.train.seed,
                                pin_memory=device.type == "cuda", rank=processes.rank(), world_size=processes.count(),
                                channels=model.reads(dataset.spec, recipe.model, training=True))


def build_session(recipe: Recipe, spec: FeatureSpec | None = None, *, trust_paths: bool = False) -> Session:
    """Data, model and step for a recipe; raises the error of whatever does not fit before any work is done. With
    `spec`, the Feature Spec of its data, that data need not be there; `trust_paths` as `Dataset`."""
    device = find_device(recipe.train.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    set_matmul_precision(recipe.train.precision, device)
    if (device.type, recipe.train.precision) == ("cpu", "bf16") and bf16_instructions() is None:
        log.warning("train.precision bf16: this processor has no instructions for it, fp32 is faster here")
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    dataset = Dataset(recipe.data, spec, trust_paths=trust_paths)
    model = build_model(recipe, dataset.spec, device)
    # Asked for in training only: a machine that measures or predicts need not have the training mapping.
    steps_per_epoch = functools.cache(lambda: len(_train_loader(dataset, recipe, model, device)))
    _import_optimizers()
    step = TrainStep(model, parts_of(model, recipe), precision=recipe.train.precision, device=device,
                     steps_per_epoch=steps_per_epoch, loss_scale=recipe.train.loss_scale)
    return Session(recipe=recipe, dataset=dataset, model=model, step=step, device=device)


@functools.cache
def _import_optimizers() -> None:
    """Has torch import what its first optimizer imports, once in a process, so that a session is freed when the last
    reference to it goes.

    That import (`torch._dynamo`) leaves a frame that refers to itself. It would keep all frames it was called from, and
    what their variables hold, the tables too, until Python looks for cycles, which in a training may be never.
    """
    torch.optim.SGD([torch.zeros(1)])
    gc.collect()
