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
    initial_accumulator     of adagrad
    weight_decay            decoupled for adam (AdamW), an L2 term in the gradient for sgd and adagrad
    """

    name: Literal["sgd", "adagrad", "adam"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    initial_accumulator: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.lr < math.inf, "lr", found=self.lr, expected="a finite number above 0")
        require(self.eps > 0, "eps", found=self.eps, expected="a number above 0")
        for key in ("beta1", "beta2"):
            require(0 <= getattr(self, key) < 1, key, found=getattr(self, key), expected="a number from 0 to below 1")
        for key in ("momentum", "initial_accumulator", "weight_decay"):
            require(getattr(self, key) >= 0, key, found=getattr(self, key), expected="0 or more")

        used = {"sgd": ("momentum",), "adagrad": ("eps", "initial_accumulator"), "adam": ("eps", "beta1", "beta2")}
        require_no_idle(self, ("momentum", "eps", "beta1", "beta2", "initial_accumulator"), used[self.name])

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimizer for these parameters."""
        parameters = list(parameters)
        if self.name == "sgd":
            return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay,
                                   fused=True)
        if self.name == "adagrad":
            return torch.optim.Adagrad(parameters, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay,
                                       initial_accumulator_value=self.initial_accumulator)
        return torch.optim.AdamW(parameters, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps,
                                 weight_decay=self.weight_decay, fused=True)
