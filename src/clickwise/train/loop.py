"""The training loop. It knows no model and no dataset: a step to call, batches to iterate, metrics to ask for."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch

from clickwise import checkpoint
from clickwise.batch import Batch
from clickwise.errors import TrainError
from clickwise.progress import Progress
from clickwise.recipe import require
from clickwise.train.evaluate import is_better
from clickwise.train.log import RunLog
from clickwise.train.step import Precision, TrainStep


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The `train` section of a recipe.

    batch_size            samples in a step, over all devices
    epochs, steps         where training ends; with both, at the earlier
    evaluate_every        steps (an integer), or a fraction of an epoch (below 1); null: once per epoch
    checkpoint_every      steps between checkpoints besides those at evaluations; null: none
    metric                decides which checkpoint is the best, and when to stop
    stop_at               stop once the metric reaches this value
    patience              stop after so many evaluations without improvement
    log_every             steps between two lines of log.jsonl; a loss that is not finite is found then
    threads               CPU threads; null: torch's choice. Results are bit-identical for one number of threads
    """

    batch_size: int = 65536
    evaluation_batch_size: int | None = None
    epochs: int | None = 1
    steps: int | None = None
    precision: Precision = "fp32"
    device: str = "auto"
    seed: int = 0
    evaluate_every: int | float | None = None
    checkpoint_every: int | None = None
    metric: str = "auc"
    stop_at: float | None = None
    patience: int | None = None
    log_every: int = 100
    threads: int | None = None

    def __post_init__(self) -> None:
        for key in ("batch_size", "evaluation_batch_size", "epochs", "steps", "evaluate_every", "checkpoint_every",
                    "patience", "log_every", "threads"):
            value = getattr(self, key)
            require(value is None or value > 0, key, found=value, expected="a number above 0")
        require(self.epochs is not None or self.steps is not None, "epochs", found=None,
                expected="epochs or steps: something must end the training")
        every = self.evaluate_every
        require(every is None or every < 1 or float(every).is_integer(), "evaluate_every", found=every,
                expected="a number of steps, or a fraction of an epoch below 1")


class EpochBatches(Protocol):
    """A loader as the loop sees it."""

    def __len__(self) -> int: ...
    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]: ...


@dataclasses.dataclass
class Position:
    """Where training stands; all of it is in every checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float | None = None
    best_step: int = 0
    rounds_without_gain: int = 0
    evaluated_step: int = 0
    stopped: str = ""
    loss_sums: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    loss_steps: int = 0


class Loop:
    """`run()` trains until the recipe's end, an early stop or an error; the last checkpoint is always a good one.

    `evaluate` returns metrics by name for the mapping that guides training, and may be None. `state` gives the rest
    of a checkpoint (model, tables' optimizers, fingerprints), beside what the loop itself keeps.
    """

    def __init__(self, config: TrainConfig, step: TrainStep, batches: EpochBatches, *, log: RunLog,
                 evaluate: Callable[[], dict[str, float]] | None, checkpoints: checkpoint.CheckpointFolder,
                 state: Callable[[], dict[str, Any]]) -> None:
        self.config, self.step, self.batches, self.log = config, step, batches, log
        self.evaluate, self.checkpoints, self.state = evaluate, checkpoints, state
        self.at = Position()
        self.samples, self.train_samples, self.train_seconds = 0, 0, 0.0
        epochs = math.inf if config.epochs is None else config.epochs * len(batches)
        self.total_steps = int(min(epochs, math.inf if config.steps is None else config.steps))

    def run(self) -> Position:
        at = self.at
        self._window_started = time.perf_counter()
        with Progress("training", total=self.total_steps * self.config.batch_size, unit="samples") as bar:
            bar.skip(at.step * self.config.batch_size)
            while at.step < self.total_steps and not at.stopped:
                for batch in self.batches.epoch(at.epoch, start_batch=at.batch):
                    self._train_on(batch)
                    bar.advance(self.config.batch_size)
                    if at.step % self.config.log_every == 0:
                        bar.note = f"loss {self._log_losses():.5f}"
                    if self._evaluation_is_due():
                        with self._clock_stopped():
                            self._evaluate_and_keep()
                    elif self.config.checkpoint_every and at.step % self.config.checkpoint_every == 0:
                        with self._clock_stopped():
                            self._save()
                    if at.stopped or at.step == self.total_steps:
                        break
                else:
                    at.epoch, at.batch = at.epoch + 1, 0
        if at.evaluated_step != at.step:
            self._evaluate_and_keep()
        self._close_window()
        return at

    def _train_on(self, batch: Batch) -> None:
        losses = self.step(batch)
        for name, loss in losses.items():
            self.at.loss_sums[name] = self.at.loss_sums[name] + loss if name in self.at.loss_sums else loss
        self.at.loss_steps += 1
        self.at.step += 1
        self.at.batch += 1
        self.samples += len(batch)

    def _log_losses(self) -> float:
        """The mean loss since the last line of the log, which is written; raises TrainError if it is not finite."""
        means = self._check_losses()
        total = sum(means.values())
        rate = self._close_window()
        self.log.write("train", step=self.at.step, epoch=self.epoch, loss=total, **means, lr=self.step.lr,
                       samples_per_s=round(rate, 1))
        self.at.loss_sums, self.at.loss_steps = {}, 0
        return total

    def _close_window(self) -> float:
        """Samples per second since the last line of the log: waiting for data counts, evaluations do not."""
        now = time.perf_counter()
        seconds, samples = now - self._window_started, self.samples
        self.train_seconds, self.train_samples = self.train_seconds + seconds, self.train_samples + samples
        self._window_started, self.samples = now, 0
        return samples / seconds if seconds else 0.0

    @contextlib.contextmanager
    def _clock_stopped(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._window_started += time.perf_counter() - started

    def _check_losses(self) -> dict[str, float]:
        means = {name: float(value) / self.at.loss_steps for name, value in self.at.loss_sums.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise TrainError(f"step {self.at.step}, {name}", found=str(value), expected="a finite loss",
                                 do="lower optimizer.lr and embedding.optimizer.lr, or lengthen schedule.warmup_steps;"
                                    f" {self._last_good()}")
        return means

    def _last_good(self) -> str:
        last = self.checkpoints.last
        return f"the last good checkpoint is {last}" if last.exists() else "no checkpoint was due before it"

    @property
    def epoch(self) -> float:
        """Epochs done, as a fraction."""
        return self.at.step / len(self.batches)

    def _evaluation_is_due(self) -> bool:
        every, at, length = self.config.evaluate_every, self.at, len(self.batches)
        if at.step == self.total_steps:
            return True
        if every is None:
            return at.batch == length
        if every < 1:
            return math.floor(at.batch / length / every + 1e-9) > math.floor((at.batch - 1) / length / every + 1e-9)
        return at.step % int(every) == 0

    def _evaluate_and_keep(self) -> None:
        """Measures, logs, decides about best and stop, and only then saves: what stops the run is never lost."""
        at, config = self.at, self.config
        self._check_losses()
        at.evaluated_step = at.step
        better = False
        if self.evaluate is not None:
            metrics = self.evaluate()
            self.log.write("eval", step=at.step, epoch=self.epoch, **metrics)
            value = metrics[config.metric]
            better = is_better(config.metric, value, at.best)
            at.rounds_without_gain = 0 if better else at.rounds_without_gain + 1
            if better:
                at.best, at.best_step = value, at.step
            if config.stop_at is not None and not is_better(config.metric, config.stop_at, value):
                at.stopped = f"{config.metric} reached {value:.6f}"
            elif config.patience is not None and at.rounds_without_gain >= config.patience:
                at.stopped = f"no better {config.metric} in {config.patience} evaluations"
        self._save()
        if better:
            self.checkpoints.mark_last_as_best()

    def _save(self) -> None:
        self._check_losses()
        self.checkpoints.save_last({
            **self.state(),
            "step": self.step.state_dict(),
            "position": dataclasses.asdict(self.at),
            "random": checkpoint.random_state(),
        })

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Puts the loop where `content`, a loaded checkpoint, was saved."""
        self.step.load_state_dict(content["step"])
        self.at = Position(**content["position"])
        checkpoint.set_random_state(content["random"])
