"""Optimizers of the dense parameters (everything that is not an embedding table)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable

import torch

from clickwise import registry
from clickwise.errors import nearest
from clickwise.kernels.sparse_update.ftrl import ftrl_
from clickwise.recipe import require, require_no_idle


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseOptimizer:
    """The `optimizer` section of a recipe: one of ours, or the dotted path of a torch optimizer, which gets `lr` alone.

    name                    sgd · adagrad · adam · rmsprop · ftrl, or a dotted path
    momentum                of sgd and rmsprop
    beta1, beta2, eps       of adam (eps of adagrad and rmsprop too)
    rho                     of rmsprop: how much of its mean square a step keeps
    l1, l2, beta            of ftrl; `TableOptimizer` has its formulas
    eps_hat                 of adam: eps is added to √v before its bias is corrected, as in Keras
    initial_accumulator     of adagrad and ftrl
    weight_decay            decoupled for adam (AdamW), an L2 term in the gradient for sgd, adagrad and rmsprop
    """

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    eps_hat: bool = False
    rho: float = 0.9
    l1: float = 0.0
    l2: float = 0.0
    beta: float = 1e-3
    initial_accumulator: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require(self.name in USED or registry.is_path(self.name), "name", found=self.name,
                expected=f"one of {', '.join(USED)}, or the dotted path of a torch optimizer",
                do=nearest(self.name, USED))
        require(0 < self.lr < math.inf, "lr", found=self.lr, expected="a finite number above 0")
        require(self.eps > 0, "eps", found=self.eps, expected="a number above 0")
        for key in ("beta1", "beta2", "rho"):
            require(0 <= getattr(self, key) < 1, key, found=getattr(self, key), expected="a number from 0 to below 1")
        for key in ("momentum", "l1", "l2", "beta", "initial_accumulator", "weight_decay"):
            require(getattr(self, key) >= 0, key, found=getattr(self, key), expected="0 or more")
        require_no_idle(self, {key for keys in USED.values() for key in keys}, USED.get(self.name, ()))
        require(self.name != "ftrl" or self.beta + self.initial_accumulator > 0, "beta", found=self.beta,
                expected="beta or initial_accumulator above 0, or tiny first gradients make steps of any size")

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimizer for these parameters, none where only tables are trained."""
        parameters = [{"params": list(parameters)}]
        if self.name == "sgd":
            return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay,
                                   fused=True)
        if self.name == "adagrad":
            return torch.optim.Adagrad(parameters, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay,
                                       initial_accumulator_value=self.initial_accumulator)
        if self.name == "rmsprop":
            return torch.optim.RMSprop(parameters, lr=self.lr, alpha=self.rho, eps=self.eps, momentum=self.momentum,
                                       weight_decay=self.weight_decay)
        if self.name == "ftrl":
            return FTRL(parameters, lr=self.lr, l1=self.l1, l2=self.l2, beta=self.beta,
                        initial_accumulator=self.initial_accumulator)
        if self.name != "adam":
            return registry.resolve("optimizer", self.name, "optimizer.name")(parameters, lr=self.lr)
        adam = torch.optim.AdamW(parameters, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps,
                                 weight_decay=self.weight_decay, fused=True)
        if self.eps_hat:
            for group in adam.param_groups:  # what stands in a group is part of the optimizer's state
                group.update(eps_hat=self.eps, steps=0)
            adam.register_step_pre_hook(_eps_of_next_step)
        return adam


def step_unless(optimizer: torch.optim.Optimizer, skip: torch.Tensor) -> None:
    """One step of the optimizer, or none where `skip`, float32 of one element on the parameters' device, is 1.

    SGD and Adam look at it there, as for torch's GradScaler, and nothing waits; for others the device is waited for.
    """
    if reads_skip(optimizer):
        optimizer.grad_scale, optimizer.found_inf = None, skip
        try:
            optimizer.step()
        finally:
            del optimizer.grad_scale, optimizer.found_inf
    elif not bool(skip):
        optimizer.step()


def reads_skip(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it looks at `skip` itself, and a skipped step leaves no trace: SGD's first one would leave momentum
    without values, and the eps of `eps_hat` counts steps here."""
    if any(group.get("momentum") or "eps_hat" in group for group in optimizer.param_groups):
        return False
    devices = {parameter.device for group in optimizer.param_groups for parameter in group["params"]}
    return getattr(optimizer, "_step_supports_amp_scaling", False) and \
        all(_skips_where_told(type(optimizer), device) for device in devices)


@functools.cache
def _skips_where_told(kind: type[torch.optim.Optimizer], device: torch.device) -> bool:
    """Whether a fused optimizer of torch skips the step where its `found_inf` (no public attribute) is 1, and only
    there, and does not count it."""
    def weight_after(*skips: float) -> float:
        weight = torch.nn.Parameter(torch.ones(1, device=device))
        optimizer = kind([weight], lr=0.25, fused=True)
        for skip in skips:
            weight.grad = torch.full_like(weight, math.inf if skip else 1.0)
            optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(skip, device=device)
            optimizer.step()
        return float(weight.detach())

    try:
        return weight_after(1.0, 0.0) == weight_after(0.0) < weight_after(1.0) == 1.0
    except (AttributeError, RuntimeError, TypeError):
        return False


USED = {  # settings besides name and lr, by optimizer
    "sgd": ("momentum", "weight_decay"),
    "adagrad": ("eps", "initial_accumulator", "weight_decay"),
    "adam": ("eps", "beta1", "beta2", "eps_hat", "weight_decay"),
    "rmsprop": ("eps", "rho", "momentum", "weight_decay"),
    "ftrl": ("l1", "l2", "beta", "initial_accumulator"),
}


class FTRL(torch.optim.Optimizer):
    """FTRL-Proximal; a rate that changes later scales gradients, penalties stay those of the first one."""

    def __init__(self, parameters, *, lr: float, l1: float, l2: float, beta: float, initial_accumulator: float) -> None:
        super().__init__(parameters, dict(lr=lr, base_lr=lr, l1=l1, l2=l2, beta=beta,
                                          initial_accumulator=initial_accumulator))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            settings = {key: group[key] for key in ("lr", "base_lr", "l1", "l2", "beta")}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["accumulator"] = torch.full_like(parameter, group["initial_accumulator"])
                    state["linear"] = torch.zeros_like(parameter)
                ftrl_(parameter, state["accumulator"], state["linear"], parameter.grad, **settings)


def _eps_of_next_step(adam: torch.optim.Optimizer, args: tuple, settings: dict) -> None:
    """Sets what torch adds to √v̂ to eps / √(1 − beta2^t): beside √v that is eps itself."""
    for group in adam.param_groups:
        group["steps"] += 1
        group["eps"] = group["eps_hat"] / math.sqrt(1 - group["betas"][1] ** group["steps"])
