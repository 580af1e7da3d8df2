"""What an embedding table is, and how its rows are updated: descriptions only, no tensors but the first values."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Literal

import torch

from clickwise.errors import EngineError, nearest
from clickwise.recipe import require, require_no_idle

POOLINGS = ("sum", "mean")
INITS = ("uniform", "zeros")
OPTIMIZERS = ("sgd", "adagrad", "rowwise_adagrad", "adam")
PART = 2**24  # values drawn at a time: 64 MB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """One embedding table.

    rows       ids run over 0 … rows − 1
    features   the features looked up in it, usually one; several share the table
    pooling    how the rows of one bag become one: `sum` or `mean`; an empty bag gives zeros
    init       `uniform`: U(−√(1/rows), +√(1/rows)), or `zeros`
    modulo     ids may be any integers, and id i means row i mod rows (from 0, for negative ids too)
    trainable  False: the rows stay as they are, and the optimizer has no state for them
    """

    name: str
    rows: int
    dim: int
    features: tuple[str, ...]
    pooling: str = "sum"
    init: str = "uniform"
    modulo: bool = False
    trainable: bool = True

    def __post_init__(self) -> None:
        where = f"table {self.name!r}"
        if not self.name:
            raise EngineError(where, found="no name", expected="a name")
        for key in ("rows", "dim"):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise EngineError(where, found=f"{key} {value!r}", expected=f"{key} ≥ 1")
        for key, choices in (("pooling", POOLINGS), ("init", INITS)):
            if getattr(self, key) not in choices:
                value = getattr(self, key)
                raise EngineError(where, found=f"{key} {value!r}", expected=f"{key} of {', '.join(choices)}",
                                  do=nearest(value, choices))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptimizer:
    """How rows are updated; g is the sum of a row's gradients over the batch, plus `weight_decay` · row.

    sgd              row −= lr · g
    adagrad          a += g²          row −= lr · g / (√a + eps)
    rowwise_adagrad  a += mean(g²)    row −= lr · g / (√a + eps), one a per row
    adam             m += (1 − beta1)(g − m)   v += (1 − beta2)(g² − v)   in step t, counted over all rows alike:
                     row −= lr · m̂ / (√v̂ + eps) with m̂ = m / (1 − beta1^t), v̂ = v / (1 − beta2^t)
    eps_hat          of adam: row −= lr · √(1 − beta2^t) / (1 − beta1^t) · m / (√v + eps), the "ε̂" of Kingma & Ba
                     (before section 2.1), which Keras uses; the default is their algorithm 1, as in torch
    lazy             of adam: true steps the rows that a batch touched; false all rows, with g = 0 where there is no
                     gradient, as a dense table under `torch.optim.Adam` (every step reads and writes whole tables)

    NOTE[DIFF] but for adam with `lazy: false`, rows that a batch does not touch keep their state as it is (LazyAdam),
    and weight decay reaches touched rows only: a dense optimizer would change every row in every step.
    """

    name: Literal["sgd", "adagrad", "rowwise_adagrad", "adam"] = "sgd"
    lr: float = 0.01
    eps: float = 1e-8
    beta1: float = 0.9
    beta2: float = 0.999
    eps_hat: bool = False
    lazy: bool = True
    initial_accumulator: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require(self.name in OPTIMIZERS, "name", found=self.name, expected=f"one of {', '.join(OPTIMIZERS)}",
                do=nearest(self.name, OPTIMIZERS))
        for key in ("lr", "eps", "initial_accumulator", "weight_decay"):
            require(getattr(self, key) >= 0, key, found=getattr(self, key), expected="a number from 0")
        for key in ("beta1", "beta2"):
            require(0 <= getattr(self, key) < 1, key, found=getattr(self, key), expected="a number from 0 to below 1")
        of_adam = ("beta1", "beta2", "eps_hat", "lazy")
        used = {"sgd": (), "adam": ("eps", *of_adam)}.get(self.name, ("eps", "initial_accumulator"))
        require_no_idle(self, ("eps", *of_adam, "initial_accumulator"), used)
        require(self.lazy or self.eps > 0, "eps", found=self.eps, expected="a number above 0 with lazy: false",
                do="rows never looked up have m = v = 0, and 0 / 0 is no number")

    def states(self) -> dict[str, tuple[bool, float]]:
        """State name → (one value per row instead of one per element, first value)."""
        return {
            "sgd": {},
            "adagrad": {"accumulator": (False, self.initial_accumulator)},
            "rowwise_adagrad": {"accumulator": (True, self.initial_accumulator)},
            "adam": {"first_moment": (False, 0.0), "second_moment": (False, 0.0)},
        }[self.name]


def fill_first_values(rows_RD: torch.Tensor, table: Table, seed: int) -> None:
    """Writes the first values of `table` into `rows_RD` [rows, dim].

    The stream of random numbers depends on the seed and the table's name alone, not on the other tables nor on the
    device: it is drawn on the CPU, and for another device a part of the rows at a time.
    """
    if table.init == "zeros":
        rows_RD.zero_()
        return
    digest = hashlib.sha256(f"{seed}/{table.name}".encode()).digest()
    generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    bound = math.sqrt(1.0 / table.rows)
    for part_RD in rows_RD.split(max(1, PART // rows_RD.shape[1])):
        if rows_RD.device.type == "cpu":
            part_RD.uniform_(-bound, bound, generator=generator)
        else:
            part_RD.copy_(torch.empty(part_RD.shape).uniform_(-bound, bound, generator=generator))
