"""The meaning of `sparse_update`: one optimizer step on the rows that a batch touched, or on all, in obvious torch."""

from __future__ import annotations

import torch


def sparse_update(weight_RD, states, rows_V, grad_GD, rule, *, lr, step, bag_V=None, weight_V=None, scale=1.0) -> None:
    """As `clickwise.kernels.sparse_update.sparse_update`."""
    grad_VD = (grad_GD if bag_V is None else grad_GD[bag_V]).float() * scale
    if weight_V is not None:
        grad_VD = grad_VD * weight_V[:, None]
    if rule.lazy:
        touched_U, inverse_V = torch.unique(rows_V, return_inverse=True)
    else:
        touched_U, inverse_V = torch.arange(len(weight_RD), device=weight_RD.device), rows_V
    grad_UD = torch.zeros(len(touched_U), weight_RD.shape[1], device=weight_RD.device).index_add_(0, inverse_V, grad_VD)
    row_UD = weight_RD[touched_U].float()
    decay = 0.0 if rule.decoupled_weight_decay else rule.weight_decay
    decay_U = torch.full((len(touched_U),), decay, device=weight_RD.device)
    if rule.minibatch_l2:  # of rows looked up, repeated ones once
        decay_U[inverse_V] = decay + rule.minibatch_l2 / states["count"][rows_V]
    grad_UD = grad_UD + decay_U[:, None] * row_UD
    if rule.decoupled_weight_decay:
        row_UD = row_UD * (1 - lr * rule.weight_decay)
    if rule.name == "sgd":
        change_UD = grad_UD
    elif rule.name == "adagrad":
        states["accumulator"][touched_U] += grad_UD**2
        change_UD = grad_UD / (states["accumulator"][touched_U].sqrt() + rule.eps)
    elif rule.name == "rowwise_adagrad":
        states["accumulator"][touched_U] += (grad_UD**2).mean(1)
        change_UD = grad_UD / (states["accumulator"][touched_U].sqrt() + rule.eps)[:, None]
    elif rule.name == "rmsprop":
        decay_U = rule.rho ** (step - states["last_step"][touched_U]).float()  # of the steps that missed the row, too
        states["last_step"][touched_U] = step
        second = states["second_moment"]
        second[touched_U] = decay_U[:, None] * second[touched_U] + (1 - rule.rho) * grad_UD**2
        change_UD = grad_UD / (second[touched_U].sqrt() + rule.eps)
    elif rule.name == "ftrl":
        before_UD, after_UD = states["accumulator"][touched_U], states["accumulator"][touched_U] + grad_UD**2
        sigma_UD = (after_UD.sqrt() - before_UD.sqrt()) / rule.lr
        linear_UD = states["linear"][touched_U] + lr / rule.lr * grad_UD - sigma_UD * row_UD
        states["accumulator"][touched_U], states["linear"][touched_U] = after_UD, linear_UD
        best_UD = -(linear_UD - linear_UD.sign() * rule.l1) / ((rule.beta + after_UD.sqrt()) / rule.lr + rule.l2)
        weight_RD[touched_U] = _narrowed(torch.where(linear_UD.abs() > rule.l1, best_UD, 0.0), weight_RD, touched_U,
                                         step)
        return
    else:
        first, second = states["first_moment"], states["second_moment"]
        first[touched_U] = rule.beta1 * first[touched_U] + (1 - rule.beta1) * grad_UD
        second[touched_U] = rule.beta2 * second[touched_U] + (1 - rule.beta2) * grad_UD**2
        first_bias, second_bias = 1 - rule.beta1**step, 1 - rule.beta2**step
        if rule.eps_hat:
            change_UD = second_bias**0.5 / first_bias * first[touched_U] / (second[touched_U].sqrt() + rule.eps)
        else:
            change_UD = first[touched_U] / first_bias / ((second[touched_U] / second_bias).sqrt() + rule.eps)
    weight_RD[touched_U] = _narrowed(row_UD - lr * change_UD, weight_RD, touched_U, step)


def _narrowed(row_UD: torch.Tensor, weight_RD: torch.Tensor, touched_U: torch.Tensor, step: int) -> torch.Tensor:
    """Float32 rows in the type of the table's. To bfloat16 at random, up or down, with the right mean: most steps are
    smaller than what separates two bfloat16 numbers. The chance is a hash of the value's position and the step."""
    if weight_RD.dtype != torch.bfloat16:
        return row_UD.to(weight_RD.dtype)
    dim = weight_RD.shape[1]
    at_UD = touched_U.long()[:, None] * dim + torch.arange(dim, device=weight_RD.device)
    chance_UD = (at_UD ^ at_UD >> 32) * 0x9E3779B1 + step * 0x85EBCA77 & 0xFFFFFFFF  # 32 bits, in integers of 64
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        chance_UD = (chance_UD ^ chance_UD >> shift) * factor & 0xFFFFFFFF
    bits_UD = row_UD.view(torch.int32) + (chance_UD & 0xFFFF).int() & -0x10000
    return torch.where(row_UD.isfinite(), bits_UD.view(torch.float32), row_UD).bfloat16()
