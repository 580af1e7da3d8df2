"""Optimizers of the dense parameters (everything that is not an embedding table)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

import torch

from clickwise.recipe import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseOptimizer:
    """`weight_decay` is decoupled for adam (AdamW) and an L2 term in the gradient for sgd and adagrad."""

    name: Literal["sgd", "adagrad", "adam"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    betas: tuple[float, ...] = (0.9, 0.999)
    eps: float = 1e-8
    initial_accumulator: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require(self.lr > 0, "lr", found=self.lr, expected="a number above 0")
        require(self.eps > 0, "eps", found=self.eps, expected="a number above 0")
        require(len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas), "betas", found=list(self.betas),
                expected="two numbers from 0 to below 1")
        for key in ("momentum", "initial_accumulator", "weight_decay"):
            require(getattr(self, key) >= 0, key, found=getattr(self, key), expected="0 or more")

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        parameters = list(parameters)
        if self.name == "sgd":
            return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay,
                                   fused=True)
        if self.name == "adagrad":
            return torch.optim.Adagrad(parameters, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay,
                                       initial_accumulator_value=self.initial_accumulator)
        return torch.optim.AdamW(parameters, lr=self.lr, betas=tuple(self.betas), eps=self.eps,
                                 weight_decay=self.weight_decay, fused=True)
