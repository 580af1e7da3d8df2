"""What an embedding table is, and how its rows are updated: descriptions only, no tensors."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch

from clickwise.errors import EngineError, nearest
from clickwise.recipe import require, require_no_idle

POOLINGS = ("sum", "mean")
INITS = ("uniform", "zeros", "keras_uniform", "glorot_normal", "inverse_sqrt_dim")
OPTIMIZERS = ("sgd", "adagrad", "rowwise_adagrad", "adam", "rmsprop", "ftrl")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """One embedding table.

    rows       ids run over 0 … rows − 1
    features   the features looked up in it, usually one; several share the table
    pooling    how the rows of one bag become one: `sum` or `mean`; an empty bag gives zeros
    init       `uniform`: U(−√(1/rows), +√(1/rows)) · `zeros` · `keras_uniform`: U(−0.05, 0.05) · normals cut at two
               deviations: `glorot_normal` of the deviation √(2 / (rows + dim)), `inverse_sqrt_dim`: N(0, 1/dim) cut
    modulo     ids may be any integers, and id i means row i mod rows (from 0, for negative ids too)
    trainable  False: the rows stay as they are, and the optimizer has no state for them
    part       of the model that looks the rows up, where a model has parts: each has an engine of its own
    """

    name: str
    rows: int
    dim: int
    features: tuple[str, ...]
    pooling: str = "sum"
    init: str = "uniform"
    modulo: bool = False
    trainable: bool = True
    part: str = ""

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

    @property
    def engine_path(self) -> str:
        """Where the table's engine stands in the model: `embeddings`, or `wide.embeddings` for a part."""
        return f"{self.part}.embeddings" if self.part else "embeddings"

    @property
    def path(self) -> str:
        """The table's name in the model, unlike that of any other."""
        return f"{self.engine_path}.{self.name}"


@dataclasses.dataclass(frozen=True)
class State:
    """What an optimizer keeps beside a table: one value per row or per element, the first of them, and their type."""

    per_row: bool = False
    first: float = 0.0
    dtype: torch.dtype = torch.float32

    def shape(self, rows: int, dim: int) -> tuple[int, ...]:
        return (rows,) if self.per_row else (rows, dim)

    def beside(self, weight_RD: torch.Tensor) -> torch.Tensor:
        """The state of these rows before the first step."""
        return torch.full(self.shape(*weight_RD.shape), self.first, dtype=self.dtype, device=weight_RD.device)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptimizer:
    """How rows are updated; g is the sum of a row's gradients over the batch, plus `weight_decay` · row unless that is
    decoupled, plus `minibatch_l2` / n · row where the batch looks the row up (once, however often it does).

    name             the rule, one of the following
    sgd              row −= lr · g
    adagrad          a += g²          row −= lr · g / (√a + eps)
    rowwise_adagrad  a += mean(g²)    row −= lr · g / (√a + eps), one a per row
    adam             m += (1 − beta1)(g − m)   v += (1 − beta2)(g² − v)   in step t, counted over all rows alike:
                     row −= lr · m̂ / (√v̂ + eps) with m̂ = m / (1 − beta1^t), v̂ = v / (1 − beta2^t)
    eps_hat          of adam: row −= lr · √(1 − beta2^t) / (1 − beta1^t) · m / (√v + eps), the "ε̂" of Kingma & Ba
                     (before section 2.1), which Keras uses; the default is their algorithm 1, as in torch
    rmsprop          v = rho · v + (1 − rho) · g²   row −= lr · g / (√v + eps)
    ftrl             σ = (√(a + g²) − √a) / lr   z += f · g − σ · row   a += g²
                     row = −(z − sign(z) · l1) / ((beta + √a) / lr + l2) where |z| > l1, else 0
                     with f what the schedule makes of lr: without penalties that is adagrad, at f = 0 nothing moves
    minibatch_l2     λ of the mini-batch aware regularization of Zhou et al. 2018, "Deep Interest Network", section 5.1,
                     equations 4 to 6: g = mean over the batch of ∂L/∂row + λ · α / n · row, where α is 1 for rows that
                     the batch holds, else 0, and n how often the row's ids occur in all training samples (`count`, at
                     least 1, which the engine is told by `Embeddings.set_counts`)
    weight_decay     of the rows that are stepped: a term of g, or decoupled
    decoupled_weight_decay   of adagrad, rowwise_adagrad, adam and rmsprop: row −= lr · weight_decay · row beside the
                     rule, which knows nothing of it, as in Loshchilov & Hutter 2019 (AdamW); with sgd both are the same
    eps              of adagrad, rowwise_adagrad, adam, rmsprop: keeps a denominator from 0
    beta1, beta2     of adam: how much of its means a step keeps
    rho              of rmsprop: how much of its mean square a step keeps
    l1, l2, beta     of ftrl: its penalties, and what is added to √a
    initial_accumulator   of adagrad, rowwise_adagrad and ftrl: a before the first step
    lazy             of adam: true steps the rows that a batch touched; false all rows, with g = 0 where there is no
                     gradient, as a dense table under `torch.optim.Adam` (every step reads and writes whole tables)

    Rows that a batch does not touch are not stepped. For rmsprop that is exact: v is multiplied at the next touch by
    rho to the power of the steps since the last, as if it had decayed in every step (with momentum untouched rows
    would move, so there is none). For ftrl too, where first values are zeros: a row is what z makes it, and its first
    touch forgets a first value (Keras does the same).
    NOTE[DIFF] adam without `lazy: false` keeps the state of untouched rows as it is (LazyAdam), and weight decay of
    either kind reaches touched rows only: a dense optimizer would change every row in every step. With `lazy: false`
    all rows decay in every step, as under `torch.optim.Adam` and `torch.optim.AdamW`.
    NOTE[DIFF] ftrl takes its penalties as McMahan et al. 2013, "Ad click prediction: a view from the trenches" (Keras
    counts l2 twice), but gradients here are means over a batch, for which its beta = 1 is about 1 / batch size: hence
    the smaller default. With a rate that changes, the paper's formula would scale the rows by the ratio of the rates,
    to nothing where it ends at 0; here a schedule scales gradients, and lr is what it is for penalties.
    """

    name: Literal["sgd", "adagrad", "rowwise_adagrad", "adam", "rmsprop", "ftrl"] = "sgd"
    lr: float = 0.01
    eps: float = 1e-8
    beta1: float = 0.9
    beta2: float = 0.999
    eps_hat: bool = False
    lazy: bool = True
    rho: float = 0.9
    l1: float = 0.0
    l2: float = 0.0
    beta: float = 1e-3
    initial_accumulator: float = 0.0
    weight_decay: float = 0.0
    decoupled_weight_decay: bool = False
    minibatch_l2: float = 0.0

    def __post_init__(self) -> None:
        require(self.name in OPTIMIZERS, "name", found=self.name, expected=f"one of {', '.join(OPTIMIZERS)}",
                do=nearest(self.name, OPTIMIZERS))
        for key in ("lr", "eps", "l1", "l2", "beta", "initial_accumulator", "weight_decay", "minibatch_l2"):
            require(getattr(self, key) >= 0, key, found=getattr(self, key), expected="a number from 0")
        for key in ("beta1", "beta2", "rho"):
            require(0 <= getattr(self, key) < 1, key, found=getattr(self, key), expected="a number from 0 to below 1")
        require_no_idle(self, {key for keys in USED.values() for key in keys}, USED[self.name])
        require(self.weight_decay > 0 or not self.decoupled_weight_decay, "decoupled_weight_decay",
                found=self.decoupled_weight_decay, expected="a weight_decay above 0 beside it")
        if self.name == "ftrl":
            require(self.lr > 0, "lr", found=self.lr, expected="a number above 0: ftrl divides by it")
            require(self.beta + self.initial_accumulator > 0, "beta", found=self.beta,
                    expected="beta or initial_accumulator above 0, or tiny first gradients make steps of any size")
        require(self.lazy or self.eps > 0, "eps", found=self.eps, expected="a number above 0 with lazy: false",
                do="rows never looked up have m = v = 0, and 0 / 0 is no number")

    def states(self) -> dict[str, State]:
        """What is kept beside the rows, by name."""
        states = {
            "sgd": {},
            "adagrad": {"accumulator": State(first=self.initial_accumulator)},
            "rowwise_adagrad": {"accumulator": State(per_row=True, first=self.initial_accumulator)},
            "adam": {"first_moment": State(), "second_moment": State()},
            "rmsprop": {"second_moment": State(), "last_step": State(per_row=True, dtype=torch.int32)},
            "ftrl": {"accumulator": State(first=self.initial_accumulator), "linear": State()},
        }[self.name]
        # float32, which holds any number of samples, as exactly as what is divided by it needs.
        return states | ({"count": State(per_row=True, first=1.0)} if self.minibatch_l2 else {})


DECAYS = ("weight_decay", "decoupled_weight_decay", "minibatch_l2")
USED = {  # settings besides name and lr, by optimizer
    "sgd": ("weight_decay", "minibatch_l2"),
    "adagrad": ("eps", "initial_accumulator", *DECAYS),
    "rowwise_adagrad": ("eps", "initial_accumulator", *DECAYS),
    "adam": ("eps", "beta1", "beta2", "eps_hat", "lazy", *DECAYS),
    "rmsprop": ("eps", "rho", *DECAYS),
    "ftrl": ("l1", "l2", "beta", "initial_accumulator"),
}
