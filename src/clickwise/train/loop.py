"""The training loop. It knows no model and no dataset: a step to call, batches to iterate, metrics to ask for."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch

from clickwise import checkpoint, processes
from clickwise.batch import Batch
from clickwise.errors import TrainError
from clickwise.progress import Progress
from clickwise.recipe import require
from clickwise.train.evaluate import EXTREME, greatest_number, is_better
from clickwise.train.latest import LatestPredictions
from clickwise.train.log import NoLog, RunLog
from clickwise.train.step import Precision, TrainStep


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The `train` section of a recipe.

    batch_size            samples in a step, over all devices
    evaluation_batch_size   samples at a time in evaluation and prediction; null: as in training
    precision             fp32 · tf32 (fp32 whose products a GPU rounds) · bf16 · fp16 with a loss scale
    loss_scale            of fp16: always this one (65536, say); null: one that finds itself, halved at an overflow and
                          doubled after 2,000 steps without one
    device                auto: the GPU where there is one · cpu · cuda · cuda:1
    epochs, steps         where training ends; with both, at the earlier
    evaluate_every        500: every so many steps; 0.25: every quarter of an epoch; null: once per epoch
    evaluate_after        no evaluation before so many steps (2000), or epochs (0.5, 2.0), but the one at the end; null:
                          none is left out
    checkpoint_every      steps between checkpoints besides those at evaluations; null: none
    metric                decides which checkpoint is the best, and when to stop
    stop_at               stop once the metric reaches this value
    patience              stop after so many evaluations without improvement
    log_every             steps between two lines of log.jsonl; a loss that is not finite is found then
    measure_latest        the log tells `train_auc` and `train_log_loss` of so many of the latest training samples, by
                          the predictions made before each was learned from; null: not
    threads               CPU threads; null: torch's choice. Results are bit-identical for one number of threads
    checksums             checkpoints are summed as they are written and verified before they are loaded, about 2 GB/s;
                          false spares that where tables are huge
    """

    batch_size: int = 65536
    evaluation_batch_size: int | None = None
    epochs: int | None = 1
    steps: int | None = None
    precision: Precision = "fp32"
    loss_scale: float | None = None
    device: str = "auto"
    seed: int = 0
    evaluate_every: int | float | None = None
    evaluate_after: int | float | None = None
    checkpoint_every: int | None = None
    metric: str = "auc"
    stop_at: float | None = None
    patience: int | None = None
    log_every: int = 100
    measure_latest: int | None = None
    threads: int | None = None
    checksums: bool = True

    def __post_init__(self) -> None:
        for key in ("batch_size", "evaluation_batch_size", "epochs", "steps", "evaluate_every", "evaluate_after",
                    "checkpoint_every", "patience", "log_every", "measure_latest", "threads"):
            value = getattr(self, key)
            require(value is None or value > 0, key, found=value, expected="a number above 0")
        require(0 <= self.seed < 2**64, "seed", found=self.seed, expected="0 or more, 64 bits")
        require(self.threads is None or self.threads <= 1024, "threads", found=self.threads, expected="at most 1024")
        scale = self.loss_scale
        require(scale is None or self.precision == "fp16", "loss_scale", found=scale,
                expected=f"no loss_scale: {self.precision} does not use it", do="remove it, or set precision: fp16")
        require(scale is None or 1 <= scale <= 2.0**127, "loss_scale", found=scale,
                expected="a number from 1 to 2^127; powers of two round nothing")
        require(self.epochs is not None or self.steps is not None, "epochs", found=None,
                expected="epochs or steps: something must end the training")
        require((self.evaluate_after or 0) < math.inf, "evaluate_after", found=self.evaluate_after,
                expected="a number of steps, or of epochs",
                do="set evaluate_every to more steps than there are, for an evaluation at the end alone")
        every = self.evaluate_every
        require(not isinstance(every, float) or every <= 1, "evaluate_every", found=every,
                expected="an integer (steps), or a fraction of an epoch (at most 1.0)")

    def first_evaluation(self, steps_per_epoch: int) -> int:
        """The step from which on evaluations are due."""
        after = self.evaluate_after or 0
        return math.ceil(after * steps_per_epoch - 1e-9) if isinstance(after, float) else after

    def total_steps(self, steps_per_epoch: int) -> int:
        """The step that training ends with, unless it stops early."""
        epochs = math.inf if self.epochs is None else self.epochs * steps_per_epoch
        return int(min(epochs, math.inf if self.steps is None else self.steps))


def _is_power_of_2(number: int) -> bool:
    return number & (number - 1) == 0


def _all_finite(weight: torch.Tensor) -> bool:
    if not (weight.is_floating_point() and weight.numel()):
        return True
    low, high = torch.aminmax(weight)
    return math.isfinite(float(high) - float(low))


def _with_first(sums: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Sums of all processes, so that they are counted once: the first has them, the others zeros."""
    return sums if processes.is_first() else {name: torch.zeros_like(value) for name, value in sums.items()}


def with_following(batches: Iterator[Batch]) -> Iterator[tuple[Batch, Batch | None]]:
    """Each batch, and the one behind it where several processes can make use of knowing it."""
    if processes.count() == 1:
        yield from ((batch, None) for batch in batches)
        return
    batch = next(batches, None)
    while batch is not None:
        following = next(batches, None)
        yield batch, following
        batch = following


class EpochBatches(Protocol):
    """A loader as the loop sees it; `samples` are those of an epoch, in which only the last batch may not be full."""

    samples: int

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
    stopped: str = ""
    loss_sums: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    loss_steps: int = 0


@dataclasses.dataclass
class Effort:
    """What was spent on training alone: waiting for data counts, evaluations and checkpoints do not."""

    samples: int = 0
    seconds: float = 0.0

    @property
    def samples_per_s(self) -> float | None:
        return round(self.samples / self.seconds, 1) if self.seconds else None


class Loop:
    """`run()` trains until the recipe's end, an early stop or an error; the last checkpoint is always a good one.

    `evaluate` returns metrics by name for the mapping that guides training, and may be None. `state` gives the rest
    of a checkpoint (model, tables' optimizers, fingerprints), beside what the loop itself keeps. `numerical` are the
    names of the batches' numbers, for messages.
    """

    def __init__(self, config: TrainConfig, step: TrainStep, batches: EpochBatches, *, log: RunLog | NoLog,
                 evaluate: Callable[[], dict[str, float]] | None, checkpoints: checkpoint.CheckpointFolder,
                 state: Callable[[], dict[str, Any]], numerical: Sequence[str] = ()) -> None:
        self.config, self.step, self.batches, self.log = config, step, batches, log
        self.evaluate, self.checkpoints, self.state = evaluate, checkpoints, state
        self.numerical = numerical
        self.at, self.effort, self._window = Position(), Effort(), Effort()
        self.total_steps = config.total_steps(len(batches))
        self._latest = None if config.measure_latest is None else LatestPredictions(config.measure_latest, step.device)
        self._first_evaluation = config.first_evaluation(len(batches))

    def run(self) -> Position:
        """Where training ended; `stopped` says why, if it ended early."""
        at = self.at
        self._window_started = time.perf_counter()
        if self._latest is not None:
            self.step.watch(self._latest.add)
        samples, start = self._samples_until(self.total_steps), at.step
        with Progress("training", total=samples, unit="samples", first_s=0.0) as bar:
            bar.skip(self._samples_until(at.step))
            loss, logged = "", False  # until the log has one, a few are looked at, for which a GPU is waited for
            while at.step < self.total_steps and not at.stopped:
                for batch, following in with_following(self.batches.epoch(at.epoch, start_batch=at.batch)):
                    self._train_on(batch, following)
                    if _is_power_of_2(at.step - start) and not logged and processes.count() == 1:
                        loss = f", loss {sum(map(float, self.at.loss_sums.values())) / self.at.loss_steps:.5f}"
                    bar.advance(self._samples_until(at.step) - bar.done, self._place() + loss + self._best_so_far())
                    if at.step % self.config.log_every == 0 or at.step == self.total_steps:
                        loss, logged = f", loss {self._log_losses():.5f}", True
                    measure, every = self._evaluation_is_due(), self.config.checkpoint_every
                    if measure or (every and at.step % every == 0):
                        self._save(measure)
                    if at.stopped or at.step == self.total_steps:
                        break
                else:
                    at.epoch, at.batch = at.epoch + 1, 0
        if self._latest is not None:
            self.step.watch(None)
        self._close_window()
        return at

    def _samples_until(self, step: int) -> int:
        """How many samples were trained on when so many steps are done, over all devices."""
        epochs, batches = divmod(step, len(self.batches))
        return epochs * self.batches.samples + min(batches * self.config.batch_size, self.batches.samples)

    def _place(self) -> str:
        """Of the last step, for a person."""
        epoch, epochs = (-(-step // len(self.batches)) for step in (self.at.step, self.total_steps))
        return f"step {self.at.step:,} of {self.total_steps:,}, epoch {epoch} of {epochs}"

    def _best_so_far(self) -> str:
        return "" if self.at.best is None else f", best {self.config.metric} {self.at.best:.5f}"

    def _train_on(self, batch: Batch, following: Batch | None) -> None:
        losses = self.step(batch, following)
        for name, loss in losses.items():
            self.at.loss_sums[name] = self.at.loss_sums[name] + loss if name in self.at.loss_sums else loss
        self.at.loss_steps += 1
        self.at.step += 1
        self.at.batch += 1
        samples = len(batch) if batch.part is None else batch.part.of
        self._window.samples += samples
        if self._latest is not None:
            self._latest.end_batch(samples)

    def _log_losses(self) -> float:
        """The mean loss since the last line of the log, which is written; raises TrainError if it is not finite."""
        means = self._mean_losses()
        total = sum(means.values())
        with self._clock_stopped():
            latest = {} if self._latest is None else self._latest.measure()
        self.log.write("train", step=self.at.step, epoch=self.epochs_done, values={
            **means, "loss": total, **latest, **self.step.rates(), **self.step.facts(),
            "samples_per_s": self._close_window()})
        self.at.loss_sums, self.at.loss_steps = {}, 0
        return total

    def _close_window(self) -> float | None:
        """Samples per second since the last line of the log."""
        now = time.perf_counter()
        window, self._window = self._window, Effort()
        window.seconds, self._window_started = now - self._window_started, now
        self.effort.samples += window.samples
        self.effort.seconds += window.seconds
        return window.samples_per_s

    @contextlib.contextmanager
    def _clock_stopped(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._window_started += time.perf_counter() - started

    def _mean_losses(self) -> dict[str, float]:
        """Means since the last line of the log, for which a GPU is waited for; TrainError for one not finite.

        Of several processes the first then has the sums of all.
        """
        sums = {name: processes.sum_over_all(value.clone()) for name, value in self.at.loss_sums.items()}
        self.at.loss_sums = _with_first(sums)
        means = {name: float(value) / self.at.loss_steps for name, value in sums.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise self._diverged(name, value)
        return means

    def _check_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Raises TrainError, in every process, for weights that are not finite: a loss shows them one step late, or not
        at all."""
        wrong = (name for name, weight in weights.items() if not _all_finite(getattr(weight, "mine", weight)))
        for name in processes.from_each(next(wrong, None)):
            if name is not None:
                raise self._diverged(name, float("nan"))

    def _diverged(self, what: str, value: float) -> TrainError:
        last = self.checkpoints.last
        good = f"the last good checkpoint is {last}" if last.exists() else "no checkpoint was due before it"
        name, greatest = max(processes.from_each(greatest_number(self._latest_batches(), self.numerical)),
                             key=lambda found: found[1])
        if greatest > EXTREME:
            return TrainError(f"step {self.at.step}, {what}", expected="numbers of one scale, and finite losses",
                              found=f"{value}, and {name} = {greatest:g} in the batches before",
                              do="correct that number, or bring the column to one scale, as clickwise prepare "
                                 f"table/prepare does; {good}")
        return TrainError(f"step {self.at.step}, {what}", found=str(value), expected="finite numbers",
                          do="lower optimizer.lr and embedding.optimizer.lr, or lengthen schedule.warmup_steps; "
                             + good)

    def _latest_batches(self) -> Iterator[Batch]:
        """Once more those since the last line of the log."""
        at, left = self.at, self.at.loss_steps or self.config.log_every
        here = min(left, at.batch)
        if left > here and at.epoch:
            yield from self.batches.epoch(at.epoch - 1, start_batch=max(0, len(self.batches) - (left - here)))
        yield from itertools.islice(self.batches.epoch(at.epoch, start_batch=at.batch - here), here)

    @property
    def epochs_done(self) -> float:
        """A fraction: 1.5 in the middle of the second epoch."""
        return self.at.step / len(self.batches)

    def _evaluation_is_due(self) -> bool:
        every, at, length = self.config.evaluate_every, self.at, len(self.batches)
        if at.step == self.total_steps:
            return True
        if at.step < self._first_evaluation:
            return False
        if every is None:
            return at.batch == length
        if isinstance(every, float):
            return math.floor(at.batch / length / every + 1e-9) > math.floor((at.batch - 1) / length / every + 1e-9)
        return at.step % every == 0

    def _save(self, measure: bool) -> None:
        """Measures if asked to, and only then saves: what stops the run is never lost, what is not finite never kept.

        A kill between the checkpoint and the mark of the best is made up for by `load_state_dict`.
        """
        self._mean_losses()  # on a GPU this waits for the steps, whose time the clock must still count
        if measure and self.config.loss_scale is not None and self.step.skipped == self.at.step:
            raise TrainError(f"step {self.at.step}, train.loss_scale={self.config.loss_scale:g}",
                             found="an overflow in every step so far, so that none was taken",
                             expected="a scale at which gradients fit into fp16",
                             do="lower it, or leave it out: the scale then finds itself")
        with self._clock_stopped():
            content = self.state()
            self._check_weights(content["model"])
            better = measure and self.evaluate is not None and self._evaluate()
            self.log.sync()
            self.checkpoints.save_last({
                **content,
                "step": self.step.state_dict(),
                "position": dataclasses.asdict(self.at),
                "effort": dataclasses.asdict(self.effort),
                "random": checkpoint.random_state(self.step.device),
                **({} if self._latest is None else {"latest": self._latest.state_dict()}),
            })
            if better:
                self.checkpoints.mark_last_as_best()

    def _evaluate(self) -> bool:
        """Whether the model is the best so far; logs its metrics, and sets `stopped` where it is time to stop."""
        at, config = self.at, self.config
        metrics = self.evaluate()
        self.log.write("eval", step=at.step, epoch=self.epochs_done, values=metrics)
        value = metrics[config.metric]
        better = is_better(config.metric, value, at.best)
        if better:
            at.rounds_without_gain = 0
        elif math.isfinite(value):  # what the data leave undefined is no worse
            at.rounds_without_gain += 1
        if better:
            at.best, at.best_step = value, at.step
        if config.stop_at is not None and (value == config.stop_at or is_better(config.metric, value, config.stop_at)):
            at.stopped = f"{config.metric} reached {value:.6f}"
        elif config.patience is not None and at.rounds_without_gain >= config.patience:
            at.stopped = f"no better {config.metric} in {config.patience} evaluations"
        return better

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Puts the loop where `content`, the loaded `last.pt`, was saved."""
        self.step.load_state_dict(content["step"])
        self.at, self.effort = Position(**content["position"]), Effort(**content["effort"])
        self.at.loss_sums = _with_first({name: value.clone() for name, value in self.at.loss_sums.items()})
        checkpoint.set_random_state(content["random"], self.step.device)
        if self._latest is not None:
            self._latest.load_state_dict(content["latest"])
        if self.at.best_step == self.at.step:
            self.checkpoints.mark_last_as_best()
