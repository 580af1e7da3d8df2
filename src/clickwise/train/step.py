"""One training step: forward, backward (in which the tables update themselves), dense optimizer."""

from __future__ import annotations

import contextlib
import copy
from typing import Any, Literal, Protocol

import torch
from torch import nn

from clickwise.batch import Batch
from clickwise.errors import EngineError
from clickwise.optim.schedule import Schedule

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


class TableUpdates(Protocol):
    """What a step needs to know of an embedding engine."""

    lr_factor: float

    def defer_updates(self, on: bool) -> None: ...
    def pending_gradients_finite(self) -> bool: ...
    def apply_updates(self, scale: float = 1.0) -> None: ...
    def discard_updates(self) -> None: ...


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


class LossScale:
    """The factor that keeps fp16 gradients representable: halved on overflow, doubled after `patience` good steps."""

    def __init__(self, *, initial: float = 65536.0, patience: int = 2000) -> None:
        self.value, self.patience, self.good_steps = initial, patience, 0

    def update(self, finite: bool) -> None:
        if not finite:
            self.value, self.good_steps = max(self.value / 2, 1.0), 0
            return
        self.good_steps += 1
        if self.good_steps == self.patience:
            self.value, self.good_steps = self.value * 2, 0


class TrainStep:
    """Calls of `step(batch)` train the model; they count from 1 and carry the schedule.

    An embedding engine updates its tables inside backward, so what is left is one dense optimizer. Under fp16 both
    wait until every gradient is known to be finite.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, tables: list[TableUpdates], *,
                 schedule: Schedule, precision: Precision, device: torch.device) -> None:
        self.model, self.optimizer, self.tables = model, optimizer, tables
        self.schedule, self.precision, self.device = schedule, precision, device
        self.steps = 0
        self.skipped = 0
        self.scale = LossScale() if precision == "fp16" else None
        self._base_lr = [group["lr"] for group in optimizer.param_groups]
        for engine in tables:
            engine.defer_updates(self.scale is not None)

    @property
    def lr(self) -> float:
        """The dense learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The losses of the batch by name, detached, on the device."""
        self.steps += 1
        factor = self.schedule.factor(self.steps)
        for group, lr in zip(self.optimizer.param_groups, self._base_lr, strict=True):
            group["lr"] = lr * factor
        for engine in self.tables:
            engine.lr_factor = factor

        self.optimizer.zero_grad(set_to_none=True)
        with compute_in(self.precision, self.device):
            losses = self.model.losses(batch.to(self.device))
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        if self.scale is None:
            total.backward()
            self.optimizer.step()
        else:
            self._scaled_update(total)
        return {name: loss.detach() for name, loss in losses.items()}

    def _scaled_update(self, total: torch.Tensor) -> None:
        scale = self.scale.value
        (total * scale).backward()
        grads = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        if grads:  # none where only tables are trained
            torch._foreach_mul_(grads, 1.0 / scale)
        finite = (not grads or bool(torch.stack([grad.isfinite().all() for grad in grads]).all())) \
            and all(engine.pending_gradients_finite() for engine in self.tables)
        if finite:
            self.optimizer.step()
        for engine in self.tables:
            engine.apply_updates(1.0 / scale) if finite else engine.discard_updates()
        self.skipped += not finite
        self.scale.update(finite)

    def facts(self) -> dict[str, float]:
        """What the log should tell of the steps so far besides losses."""
        return {} if self.scale is None else {"loss_scale": self.scale.value, "skipped_steps": self.skipped}

    def state_dict(self) -> dict[str, Any]:
        scale = None if self.scale is None else [self.scale.value, self.scale.good_steps]
        return {"steps": self.steps, "skipped": self.skipped, "optimizer": self.optimizer.state_dict(), "scale": scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.skipped = state["steps"], state["skipped"]
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        if self.scale is not None and state["scale"] is not None:
            self.scale.value, self.scale.good_steps = state["scale"]
