"""`sparse_update` at CPU speed: sort once, then sum runs of equal rows and step them, a cacheful at a time.

Where Adam steps all rows, torch's fused Adam goes once through a cacheful of rows and of both moments.

Summing runs is what an embedding bag does: the gradients are its table, a run of equal rows is one bag. Row-wise
`index_add_` with an index [U] goes through the rows one by one; with the index expanded to [U, D] `scatter_add_`
takes a parallel path that is several times faster (`benchmarks/results` has the figures).
"""

from __future__ import annotations

import functools
import math

import torch
from torch.optim.adam import adam

from clickwise.kernels.cpu_rows import numbers, rows_at
from clickwise.kernels.sparse_update.ftrl import ftrl_

CHUNK = 2**18  # elements of the tables stepped at a time: 1 MB per temporary
# torch sorts integers by radix from RADIX on where it was built with FBGEMM, and several times slower below: from
# PAD_FROM on it is faster to fill up to RADIX (measured: 26,624 ids 1.35 ms, filled up 0.15 ms; 8,192: 0.34, 0.14).
RADIX, PAD_FROM = 32768, 8192


def sparse_update(weight_RD, states, rows_V, grad_GD, rule, *, lr, step, bag_V=None, weight_V=None, scale=1.0) -> None:
    """As `clickwise.kernels.sparse_update.sparse_update`."""
    # rows_V = 5, 2, 5 with the gradients g0, g1, g2: sorted_V = 2, 5, 5 and order_V = 1, 0, 2; touched_U = 2, 5 and
    # starts_U = 0, 1. Row 2 is the bag (g1), row 5 the bag (g0, g2): their sums are g1 and g0 + g2, each is one step.
    # Stable: equal rows stay in the order of the batch, so that the sums are the same bits every time.
    sorted_V, order_V = stable_sort(rows_V)
    touched_U, counts_U = torch.unique_consecutive(sorted_V, return_counts=True)
    touched_U, ends_U = touched_U.long(), torch.cumsum(counts_U, 0)
    starts_U = ends_U - counts_U
    bag_sorted_V = order_V if bag_V is None else bag_V.index_select(0, order_V).long()
    grad_GD = grad_GD.contiguous()

    # Plain SGD needs no row but the one it adds to: −lr goes into the factors of the sum.
    plain = rule.name == "sgd" and not rule.weight_decay and not rule.minibatch_l2
    factor = -lr * scale if plain else scale
    factor_V = None
    if weight_V is not None:
        factor_V = weight_V.index_select(0, order_V).mul_(factor)
    elif factor != 1.0:
        factor_V = torch.full((len(order_V),), factor)

    def summed(first: int, last: int) -> torch.Tensor:
        """The gradients of `touched_U[first:last]`, the mini-batch aware L2 of these rows among them."""
        here_V = slice(int(ends_U[first - 1]) if first else 0, int(ends_U[last - 1]))
        factor_C = None if factor_V is None else factor_V[here_V]
        gradients_XD, bag_C = grad_GD, bag_sorted_V[here_V]
        if grad_GD.dtype != torch.float32:  # these few in float32, not all
            gradients_XD, bag_C = rows_at(grad_GD, bag_C).float(), numbers(len(bag_C))
        grad_CD = torch.embedding_bag(gradients_XD, bag_C, starts_U[first:last] - here_V.start, False, 0, False,
                                      factor_C, False)[0]
        if rule.minibatch_l2:
            touched_C = touched_U[first:last]
            l2_C = rule.minibatch_l2 / states["count"].index_select(0, touched_C)
            grad_CD.addcmul_(_rows(weight_RD, touched_C), l2_C[:, None])
        return grad_CD

    rows_at_once = max(1, CHUNK // weight_RD.shape[1])
    if not rule.lazy:
        return _step_all_rows(weight_RD, states, touched_U, summed, rule, lr, step, rows_at_once)
    for first in range(0, len(touched_U), rows_at_once):
        touched_C = touched_U[first:first + rows_at_once]
        grad_CD = summed(first, first + len(touched_C))
        if rule.name == "ftrl":
            _ftrl_rows(weight_RD, states, touched_C, grad_CD, rule, lr, step)
            continue
        change_CD = grad_CD if plain else _change(weight_RD, states, touched_C, grad_CD, rule, step).mul_(-lr)
        if rule.decoupled_weight_decay:
            change_CD.add_(_rows(weight_RD, touched_C), alpha=-lr * rule.weight_decay)
        if weight_RD.dtype == torch.float32:
            weight_RD.scatter_add_(0, touched_C[:, None].expand(-1, weight_RD.shape[1]), change_CD)
        else:
            _write(weight_RD, touched_C, change_CD.add_(_rows(weight_RD, touched_C)), step)


def _rows(weight_RD: torch.Tensor, touched_C: torch.Tensor) -> torch.Tensor:
    """A copy of these rows, float32."""
    return rows_at(weight_RD, touched_C).float()


def _write(weight_RD: torch.Tensor, touched_C: torch.Tensor, row_CD: torch.Tensor, step: int) -> None:
    """Writes float32 rows in the type of the table's: to bfloat16 rounded by the reference's chance, whose integers of
    32 bits are here such, so that what lies above them is lost by itself."""
    if weight_RD.dtype == torch.bfloat16:
        dim = weight_RD.shape[1]
        at_CD = (touched_C * dim)[:, None] + numbers(dim)
        chance_CD = at_CD.bitwise_xor_(at_CD >> 32).int().mul_(_signed(0x9E3779B1)).add_(_signed(step * 0x85EBCA77))
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
            chance_CD.bitwise_xor_((chance_CD >> shift).bitwise_and_(2 ** (32 - shift) - 1)).mul_(_signed(factor))
        bits_CD = chance_CD.bitwise_and_(0xFFFF).add_(row_CD.view(torch.int32)).bitwise_and_(-0x10000)
        row_CD = torch.where(row_CD.isfinite(), bits_CD.view(torch.float32), row_CD).bfloat16()
    weight_RD.index_copy_(0, touched_C, row_CD)


def _signed(number: int) -> int:
    """The integer of 32 bits, with a sign, that has the lowest 32 bits of `number`."""
    return (number + 2**31) % 2**32 - 2**31


def stable_sort(rows_V: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows in ascending order, where each stood); equal rows keep their order."""
    rows = len(rows_V)
    if not PAD_FROM <= rows < RADIX or "fbgemm" not in torch.backends.quantized.supported_engines:
        return torch.sort(rows_V, stable=True)
    full_V = rows_V.new_full((RADIX,), torch.iinfo(rows_V.dtype).max)
    full_V[:rows] = rows_V
    sorted_V, order_V = torch.sort(full_V, stable=True)
    return sorted_V[:rows], order_V[:rows]


def _change(weight_RD, states, touched_C, grad_CD, rule, step) -> torch.Tensor:
    """What lr multiplies, [C, D], in the place of `grad_CD` or of a state's rows; steps the states."""
    if rule.weight_decay and not rule.decoupled_weight_decay:
        grad_CD.add_(_rows(weight_RD, touched_C), alpha=rule.weight_decay)
    if rule.name == "sgd":
        return grad_CD
    if rule.name == "adagrad":
        sum_CD = states["accumulator"].index_select(0, touched_C).addcmul_(grad_CD, grad_CD)
        states["accumulator"].index_copy_(0, touched_C, sum_CD)
        return grad_CD.div_(sum_CD.sqrt_().add_(rule.eps))
    if rule.name == "rowwise_adagrad":
        sum_C = states["accumulator"].index_select(0, touched_C).add_(grad_CD.square().mean(1))
        states["accumulator"].index_copy_(0, touched_C, sum_C)
        return grad_CD.div_(sum_C.sqrt_().add_(rule.eps)[:, None])
    if rule.name == "rmsprop":
        missed_C = step - states["last_step"].index_select(0, touched_C)  # 1 where the last step touched the row
        states["last_step"].index_fill_(0, touched_C, step)
        kept_C = torch.pow(rule.rho, missed_C.float())
        second_CD = states["second_moment"].index_select(0, touched_C).mul_(kept_C[:, None])
        second_CD.addcmul_(grad_CD, grad_CD, value=1 - rule.rho)
        states["second_moment"].index_copy_(0, touched_C, second_CD)
        return grad_CD.div_(second_CD.sqrt_().add_(rule.eps))
    first_CD = states["first_moment"].index_select(0, touched_C).lerp_(grad_CD, 1 - rule.beta1)
    second_CD = states["second_moment"].index_select(0, touched_C).mul_(rule.beta2)
    second_CD.addcmul_(grad_CD, grad_CD, value=1 - rule.beta2)
    states["first_moment"].index_copy_(0, touched_C, first_CD)
    states["second_moment"].index_copy_(0, touched_C, second_CD)
    second_CD.div_(1 - rule.beta2**step).sqrt_().add_(_eps(rule, step))
    return first_CD.div_(second_CD).div_(1 - rule.beta1**step)


def _ftrl_rows(weight_RD, states, touched_C, grad_CD, rule, lr, step) -> None:
    """FTRL on the rows `touched_C`."""
    whole = (weight_RD, states["accumulator"], states["linear"])
    rows = [_rows(of_all_RD, touched_C) for of_all_RD in whole]
    ftrl_(*rows, grad_CD, lr=lr, base_lr=rule.lr, l1=rule.l1, l2=rule.l2, beta=rule.beta)
    for of_all_RD, of_these_CD in zip(whole, rows, strict=True):
        _write(of_all_RD, touched_C, of_these_CD, step)


def _step_all_rows(weight_RD, states, touched_U, summed, rule, lr, step, rows_at_once) -> None:
    """Adam on every row; rows that are not in `touched_U` have the gradient 0."""
    dense_CD = weight_RD.new_zeros(min(rows_at_once, len(weight_RD)), weight_RD.shape[1])
    begins = range(0, len(weight_RD), rows_at_once)
    cuts = [*torch.searchsorted(touched_U, torch.tensor(begins)).tolist(), len(touched_U)]
    for begin, first, last in zip(begins, cuts, cuts[1:], strict=False):
        weight_CD, *moments = (whole_RD[begin:begin + rows_at_once] for whole_RD in
                               (weight_RD, states["first_moment"], states["second_moment"]))
        touched_C = touched_U[first:last] - begin
        if last > first:
            dense_CD.index_copy_(0, touched_C, summed(first, last))
        decay = rule.weight_decay
        if rule.decoupled_weight_decay:
            weight_CD.mul_(1 - lr * decay)
            decay = 0.0
        step_adam = _adam_at_once if _adam_goes_at_once() else _adam_by_steps
        step_adam(weight_CD, dense_CD[:len(weight_CD)], *moments, step, lr=lr, beta1=rule.beta1, beta2=rule.beta2,
                  weight_decay=decay, eps=_eps(rule, step))
        dense_CD.index_fill_(0, touched_C, 0.0)


def _adam_at_once(weight_CD, grad_CD, first_CD, second_CD, step: int, **settings: float) -> None:
    """A step of Adam in one pass, `settings` as `torch.optim.adam.adam` has them."""
    torch._fused_adam_([weight_CD], [grad_CD], [first_CD], [second_CD], [], [torch.tensor(float(step))], amsgrad=False,
                       maximize=False, **settings)


def _adam_by_steps(weight_CD, grad_CD, first_CD, second_CD, step: int, **settings: float) -> None:
    """The same by public functions, in many passes; torch counts the step itself."""
    adam([weight_CD], [grad_CD], [first_CD], [second_CD], [], [torch.tensor(step - 1.0)], foreach=False, fused=False,
         amsgrad=False, maximize=False, **settings)


@functools.cache
def _adam_goes_at_once() -> bool:
    """Whether torch's Adam in one pass (no public function) is there and right."""
    def stepped(step_adam) -> torch.Tensor:
        state_4D = torch.tensor([[1.0, -2.0], [0.5, -0.25], [0.5, 3.0], [0.25, 4.0]])  # weight, gradient, both moments
        step_adam(*state_4D, step=3, lr=0.5, beta1=0.75, beta2=0.875, weight_decay=0.25, eps=0.125)
        return state_4D

    try:
        return torch.allclose(stepped(_adam_at_once), stepped(_adam_by_steps))
    except (AttributeError, RuntimeError, TypeError):
        return False


def _eps(rule, step: int) -> float:
    """What is added to √v̂: `eps_hat` stands beside √v, which is smaller by the factor of the bias."""
    return rule.eps / math.sqrt(1 - rule.beta2**step) if rule.eps_hat else rule.eps
