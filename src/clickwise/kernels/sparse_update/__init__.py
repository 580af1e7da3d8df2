"""One optimizer step on the rows that a batch touched, or on all; repeated rows are summed first."""

from __future__ import annotations

from typing import Protocol

import torch

from clickwise.kernels import gpu
from clickwise.kernels.sparse_update import cpu, reference


class UpdateRule(Protocol):
    """sgd | adagrad | rowwise_adagrad | adam | rmsprop | ftrl, and its constants, the rate before any schedule among
    them; see `clickwise.embedding.TableOptimizer`."""

    name: str
    lr: float
    eps: float
    beta1: float
    beta2: float
    eps_hat: bool
    lazy: bool
    rho: float
    l1: float
    l2: float
    beta: float
    weight_decay: float
    decoupled_weight_decay: bool
    minibatch_l2: float


def sparse_update(weight_RD: torch.Tensor, states: dict[str, torch.Tensor], rows_V: torch.Tensor, grad_GD: torch.Tensor,
                  rule: UpdateRule, *, lr: float, step: int, bag_V: torch.Tensor | None = None,
                  weight_V: torch.Tensor | None = None, scale: float = 1.0) -> None:
    """Changes `weight_RD` and `states` in place; the same on every device up to the order of summation.

    Rows that are not in `rows_V` stay as they are, unless the rule is not lazy: then their gradient is 0. Rows of
    bfloat16 are rounded up or down by chance, which position and step decide.

    rows_V   the rows looked up, int32 or int64, in any order and with repeats
    grad_GD  the gradient of each bag, of any float type; sums are in float32
    bag_V    the bag of each row looked up; None: V = G and row v belongs to bag v
    weight_V what the row's value was multiplied by when its bag was pooled; None: 1
    states   `accumulator` [R, D] (adagrad, ftrl) or [R] (rowwise_adagrad), `first_moment` and `second_moment` [R, D]
             (adam), `second_moment` [R, D] and `last_step` [R] (rmsprop), `linear` [R, D] (ftrl); with
             `rule.minibatch_l2` also `count` [R], float32 above 0: to the summed and scaled gradient of a row in
             `rows_V`, and of no other, comes minibatch_l2 / count · row
    lr       this step's rate
    step     this step's number from 1, for Adam's bias correction and the decay that RMSProp makes up for
    scale    multiplies every gradient
    """
    if len(rows_V) == 0 and rule.lazy:
        return
    takes = weight_RD.dtype == torch.float32 or (weight_RD.dtype == torch.bfloat16 and rule.lazy)
    update = cpu.sparse_update if weight_RD.device.type == "cpu" and takes else reference.sparse_update
    if (on_gpu := gpu.kernels_for(weight_RD, "sparse_update")) and on_gpu.supports(weight_RD, grad_GD):
        update = on_gpu.sparse_update
    update(weight_RD, states, rows_V, grad_GD, rule, lr=lr, step=step, bag_V=bag_V, weight_V=weight_V, scale=scale)
