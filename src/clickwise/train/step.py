"""One training step: forward, backward (in which the tables update themselves), dense optimizer."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import nn

from clickwise.batch import Batch
from clickwise.errors import EngineError
from clickwise.optim.dense import reads_skip, step_unless
from clickwise.optim.schedule import Schedule
from clickwise.train.dense_gradients import DenseGradients

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


class TableUpdates(Protocol):
    """What a step needs to know of an embedding engine."""

    lr_factor: float

    def defer_updates(self, on: bool) -> None: ...
    def pending_gradients_finite(self) -> torch.Tensor: ...
    def apply_updates(self, scale: float | torch.Tensor = 1.0, skip: torch.Tensor | None = None) -> None: ...


@dataclasses.dataclass(frozen=True)
class OptimizerGroup:
    """What of a model has an optimizer of its own: parameters, the tables' engines, and one schedule for both."""

    optimizer: torch.optim.Optimizer
    tables: Sequence[TableUpdates] = ()
    schedule: Schedule = Schedule()


def compute_in(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager:
    """The context in which forward passes run: autocast for bf16 and fp16, nothing for the others."""
    if precision in ("bf16", "fp16"):
        return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)
    return contextlib.nullcontext()


def set_matmul_precision(precision: Precision, device: torch.device) -> None:
    """Lets float32 matrix products use TF32 where the recipe asks for it, and only there."""
    if precision == "tf32" and device.type != "cuda":
        raise EngineError("train.precision", found=f"tf32 on {device.type}", expected="fp32 or bf16 on a CPU",
                          do="TF32 is a mode of NVIDIA GPUs: set train.precision=bf16 or fp32")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def multiply_(grads: list[torch.Tensor], factor: torch.Tensor) -> torch.Tensor:
    """Multiplies gradients, of one device, in place; float32 of one element: 1 where one was not finite, else 0."""
    overflow = torch.zeros_like(factor)
    if grads and _multiplies_all_at_once(factor.device):
        torch._amp_foreach_non_finite_check_and_unscale_(grads, overflow, factor)
        return overflow
    for grad in grads:
        overflow = torch.where(grad.isfinite().all(), overflow, 1.0)
        grad.mul_(factor)
    return overflow


@functools.cache
def _multiplies_all_at_once(device: torch.device) -> bool:
    """Whether torch's way to do so in one pass (no public function) is there and right."""
    found = []
    try:
        for value in (6.0, math.inf, math.nan):
            grads = [torch.tensor(values, device=device) for values in ([2.0, 4.0], [value])]
            overflow, half = (torch.tensor(number, device=device) for number in (0.0, 0.5))
            torch._amp_foreach_non_finite_check_and_unscale_(grads, overflow, half)
            found.append((grads[0].tolist(), float(overflow)))
        return found == [([1.0, 2.0], 0.0), ([1.0, 2.0], 1.0), ([1.0, 2.0], 1.0)] and grads[1].isnan().all().item()
    except (AttributeError, RuntimeError, TypeError):
        return False


class LossScale:
    """The factor that keeps fp16 gradients representable: halved on overflow, doubled after `patience` good steps; or
    `fixed`, always the same.

    All of it are numbers on the device, so that no step waits to know whether the last one overflowed.
    """

    def __init__(self, device: torch.device, *, fixed: float | None = None, initial: float = 65536.0,
                 patience: int = 2000) -> None:
        self.value, self.is_fixed = torch.tensor(initial if fixed is None else fixed, device=device), fixed is not None
        self.patience = patience
        self.good_steps, self.skipped = (torch.zeros((), dtype=torch.int32, device=device) for _ in range(2))

    def update(self, overflow: torch.Tensor) -> None:
        """`overflow`: float32 of one element, 1 where a gradient was not finite, else 0."""
        overflows = overflow > 0
        self.skipped += overflows
        if self.is_fixed:
            return
        self.good_steps.add_(1).masked_fill_(overflows, 0)
        enough = self.good_steps == self.patience
        self.good_steps.masked_fill_(enough, 0)
        self.value.mul_(torch.where(overflows, 0.5, 1.0 + enough)).clamp_(1.0, 2.0**127)

    def state_dict(self) -> list[float]:
        return [float(self.value), int(self.good_steps)]

    def load_state_dict(self, state: list[float], skipped: int) -> None:
        for number, value in zip((self.value, self.good_steps, self.skipped), (*state, skipped), strict=True):
            number.fill_(value)


class TrainStep:
    """Calls of `step(batch)` train the model; they count from 1 and carry the schedule.

    An embedding engine updates its tables inside backward, so what is left is a dense optimizer per part (one part, ""
    by name, for most models). Under fp16 all of them skip a step in which any gradient is not finite.
    Of several processes each has a part of the batch, and its losses count by its samples: the step is that of one
    process with the whole batch.
    `steps_per_epoch` is asked for where a schedule counts epochs; `loss_scale` is the one of fp16, None: one that finds
    itself.
    """

    def __init__(self, model: nn.Module, parts: Mapping[str, OptimizerGroup], *, precision: Precision,
                 device: torch.device, steps_per_epoch: Callable[[], int] = lambda: 0,
                 loss_scale: float | None = None) -> None:
        self.model, self.parts = model, dict(parts)
        self.precision, self.device, self.steps_per_epoch = precision, device, steps_per_epoch
        self.steps = 0
        self._following: tuple[Batch | None, Batch | None] = (None, None)  # as it was given, and on the device
        self.scale = LossScale(device, fixed=loss_scale) if precision == "fp16" else None
        self.engines = [engine for part in self.parts.values() for engine in part.tables]
        self._dense = DenseGradients([p for part in self.parts.values() for group in part.optimizer.param_groups
                                      for p in group["params"]])
        self._base_lr = {name: [group["lr"] for group in part.optimizer.param_groups]
                         for name, part in self.parts.items()}
        for engine in self.engines:
            engine.defer_updates(self.scale is not None)
        if self.scale is not None:  # asked now, so that no step waits for an answer
            _multiplies_all_at_once(self.scale.value.device)
            for part in self.parts.values():
                reads_skip(part.optimizer)

    def watch(self, function: Callable[[torch.Tensor, torch.Tensor], None] | None) -> None:
        """From now on it is told the predictions of every step and their labels; None: nobody is."""
        self.model.watch = function

    def rates(self) -> dict[str, float]:
        """The dense learning rate of the last step: `lr`, or `lr_<part>` of each of several parts."""
        return {"lr" if len(self.parts) == 1 else f"lr_{name}": part.optimizer.param_groups[0]["lr"]
                for name, part in self.parts.items()}

    def __call__(self, batch: Batch, following: Batch | None = None) -> dict[str, torch.Tensor]:
        """The losses of the batch by name, detached, on the device; of a part of a batch what they add to those of the
        whole. `following` is the batch of the next call, where the caller knows it."""
        self.steps += 1
        self._set_rates()
        for part in self.parts.values():
            part.optimizer.zero_grad(set_to_none=True)
        given, there = self._following
        here = there if given is batch else batch.to(self.device)
        with compute_in(self.precision, self.device):
            losses = self.model.losses(here)
        there = None if following is None else following.to(self.device)
        self._following = following, there
        if there is not None:
            self.model.ask_ahead(there)
        if batch.part is not None:
            losses = {name: loss * (batch.part.samples / batch.part.of) for name, loss in losses.items()}
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        if self.scale is None:
            total.backward()
            self._dense.sum()
            for part in self.parts.values():
                part.optimizer.step()
        else:
            self._scaled_update(total)
        return {name: loss.detach() for name, loss in losses.items()}

    def _set_rates(self) -> None:
        for name, part in self.parts.items():
            steps_per_epoch = self.steps_per_epoch() if part.schedule.counts_epochs else 0
            factor = part.schedule.factor(self.steps, steps_per_epoch)
            for group, lr in zip(part.optimizer.param_groups, self._base_lr[name], strict=True):
                group["lr"] = lr * factor
            for engine in part.tables:
                engine.lr_factor = factor

    def _scaled_update(self, total: torch.Tensor) -> None:
        (total * self.scale.value).backward()
        self._dense.sum()
        grads = [p.grad for part in self.parts.values() for group in part.optimizer.param_groups
                 for p in group["params"] if p.grad is not None]
        unscale = self.scale.value.reciprocal()
        overflow = multiply_(grads, unscale)
        for engine in self.engines:
            overflow = torch.where(engine.pending_gradients_finite().to(overflow.device), overflow, 1.0)
        for part in self.parts.values():
            step_unless(part.optimizer, overflow)
        for engine in self.engines:
            engine.apply_updates(unscale, skip=overflow)
        self.scale.update(overflow)

    @property
    def skipped(self) -> int:
        """Steps that fp16 skipped; asking waits for a GPU."""
        return 0 if self.scale is None else int(self.scale.skipped)

    def facts(self) -> dict[str, float]:
        """What the log should tell of the steps so far besides losses."""
        return {} if self.scale is None else {"loss_scale": float(self.scale.value), "skipped_steps": self.skipped}

    def state_dict(self) -> dict[str, Any]:
        scale = None if self.scale is None else self.scale.state_dict()
        optimizers = {name: part.optimizer.state_dict() for name, part in self.parts.items()}
        return {"steps": self.steps, "skipped": self.skipped, "optimizers": optimizers, "scale": scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name, part in self.parts.items():
            part.optimizer.load_state_dict(copy.deepcopy(state["optimizers"][name]))
        if self.scale is not None and state["scale"] is not None:
            self.scale.load_state_dict(state["scale"], state["skipped"])
