"""`sparse_update` at CPU speed: sort, sum runs of equal rows, one pass over the touched rows."""

from __future__ import annotations

import torch


def sparse_update(weight_RD, states, rows_V, grad_GD, rule, *, lr, step, bag_V=None, weight_V=None, scale=1.0) -> None:
    """As `clickwise.kernels.sparse_update.sparse_update`."""
    sorted_V, order_V = torch.sort(rows_V, stable=True)
    touched_U, counts_U = torch.unique_consecutive(sorted_V, return_counts=True)
    starts_U = torch.cumsum(counts_U, 0) - counts_U
    bag_sorted_V = order_V if bag_V is None else bag_V[order_V]
    factor_V = None if weight_V is None else weight_V[order_V] * scale
    if factor_V is None and scale != 1.0:
        factor_V = torch.full((len(order_V),), scale)
    grad_UD = torch.embedding_bag(grad_GD.float(), bag_sorted_V, starts_U, False, 0, False, factor_V, False)[0]
    _step_rows(weight_RD, states, touched_U.long(), grad_UD, rule, lr, step)


def _step_rows(weight_RD, states, touched_U, grad_UD, rule, lr, step) -> None:
    index_UD = touched_U[:, None].expand(-1, weight_RD.shape[1])
    if rule.weight_decay:
        grad_UD = grad_UD.add_(weight_RD.index_select(0, touched_U), alpha=rule.weight_decay)
    if rule.name == "sgd":
        change_UD = grad_UD
    elif rule.name == "adagrad":
        sum_UD = states["accumulator"].index_select(0, touched_U).addcmul_(grad_UD, grad_UD)
        states["accumulator"].index_copy_(0, touched_U, sum_UD)
        change_UD = grad_UD.div_(sum_UD.sqrt_().add_(rule.eps))
    elif rule.name == "rowwise_adagrad":
        sum_U = states["accumulator"].index_select(0, touched_U).add_(grad_UD.square().mean(1))
        states["accumulator"].index_copy_(0, touched_U, sum_U)
        change_UD = grad_UD.div_(sum_U.sqrt_().add_(rule.eps)[:, None])
    else:
        first_UD = states["first_moment"].index_select(0, touched_U).lerp_(grad_UD, 1 - rule.beta1)
        second_UD = states["second_moment"].index_select(0, touched_U).mul_(rule.beta2)
        second_UD.addcmul_(grad_UD, grad_UD, value=1 - rule.beta2)
        states["first_moment"].index_copy_(0, touched_U, first_UD)
        states["second_moment"].index_copy_(0, touched_U, second_UD)
        correction = 1 - rule.beta2**step
        change_UD = first_UD.div_(second_UD.div_(correction).sqrt_().add_(rule.eps)).div_(1 - rule.beta1**step)
    weight_RD.scatter_add_(0, index_UD, change_UD.mul_(-lr))
