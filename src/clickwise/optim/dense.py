"""Optimizers of the dense parameters (everything that is not an embedding table)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Literal

import torch

from clickwise.recipe import require, require_no_idle


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseOptimizer:
    """The `optimizer` section of a recipe.

    momentum                of sgd
    beta1, beta2, eps       of adam (eps of adagrad too)
    eps_hat                 of adam: eps is added to √v before its bias is corrected, as in Keras
    initial_accumulator     of adagrad
    weight_decay            decoupled for adam (AdamW), an L2 term in the gradient for sgd and adagrad
    """

    name: Literal["sgd", "adagrad", "adam"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    eps_hat: bool = False
    initial_accumulator: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.lr < math.inf, "lr", found=self.lr, expected="a finite number above 0")
        require(self.eps > 0, "eps", found=self.eps, expected="a number above 0")
        for key in ("beta1", "beta2"):
            require(0 <= getattr(self, key) < 1, key, found=getattr(self, key), expected="a number from 0 to below 1")
        for key in ("momentum", "initial_accumulator", "weight_decay"):
            require(getattr(self, key) >= 0, key, found=getattr(self, key), expected="0 or more")

        of_adam = ("beta1", "beta2", "eps_hat")
        used = {"sgd": ("momentum",), "adagrad": ("eps", "initial_accumulator"), "adam": ("eps", *of_adam)}
        require_no_idle(self, ("momentum", "eps", *of_adam, "initial_accumulator"), used[self.name])

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimizer for these parameters, none where only tables are trained."""
        parameters = [{"params": list(parameters)}]
        if self.name == "sgd":
            return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay,
                                   fused=True)
        if self.name == "adagrad":
            return torch.optim.Adagrad(parameters, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay,
                                       initial_accumulator_value=self.initial_accumulator)
        adam = torch.optim.AdamW(parameters, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps,
                                 weight_decay=self.weight_decay, fused=True)
        if self.eps_hat:
            for group in adam.param_groups:  # what stands in a group is part of the optimizer's state
                group.update(eps_hat=self.eps, steps=0)
            adam.register_step_pre_hook(_eps_of_next_step)
        return adam


def _eps_of_next_step(adam: torch.optim.Optimizer, args: tuple, settings: dict) -> None:
    """Sets what torch adds to √v̂ to eps / √(1 − beta2^t): beside √v that is eps itself."""
    for group in adam.param_groups:
        group["steps"] += 1
        group["eps"] = group["eps_hat"] / math.sqrt(1 - group["betas"][1] ** group["steps"])
