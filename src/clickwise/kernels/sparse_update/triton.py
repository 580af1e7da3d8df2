"""`sparse_update` on a GPU: one sort, then gradient and optimizer in one pass, without atomics and without waiting.

The rows looked up are sorted, so that equal ones stand in runs. A program takes CHUNK sorted positions, whatever stands
there: it loads their gradients and sums equal rows by a product of matrices, sums = (key_i = key_j) · gradients, which
the matrix units take exactly as they are (0 and 1 times the gradients, accumulated in float32; gradients of float32 in
three parts of bfloat16, which together have all their bits). Rows whose whole run lies in the chunk are stepped at
once, all side by side. The first and the last run may go on in a neighbour: their sums become the entries of a list,
sorted as well and CHUNK / 2 times as short, and the same kernel is applied to that list, until one chunk holds it. So a
row that fills half of the batch costs as many bytes as any other positions, spread over all multiprocessors, and the
number of launches follows from the number of ids alone.

Launches, sizes and the order of every sum depend on shapes only: the whole can be captured in a CUDA graph. Rate, step
and loss scale then come from the device (`now`), as does whether the step is skipped (`skip`).
"""

from __future__ import annotations

import math
import types

import torch
import triton
import triton.language as tl

from clickwise.kernels.gpu import FLOATS, multiplies_bfloat16, require_close
from clickwise.kernels.sparse_update import reference

STATES = {  # which states of a rule are the kernels' first and second
    "sgd": (None, None), "adagrad": ("accumulator", None), "rowwise_adagrad": ("accumulator", None),
    "adam": ("first_moment", "second_moment"), "rmsprop": ("second_moment", "last_step"),
    "ftrl": ("accumulator", "linear"),
}
WHOLE_ROWS = ("rowwise_adagrad", "rmsprop")  # they keep one number per row: one program steps all of a row
WIDEST = 128  # columns of rows that a program sums and steps, where it need not have whole rows


@triton.jit
def _narrowed(value, weight_ptr, at, seed):
    """The value in the type of the rows. To bfloat16 at random, up or down, so that its mean is right: steps too small
    to show would be lost otherwise. The chance follows from position and step alone."""
    if weight_ptr.dtype.element_ty == tl.bfloat16:
        chance = (at ^ (at >> 32)).to(tl.uint32) * 0x9E3779B1 + seed.to(tl.uint32) * 0x85EBCA77
        chance = (chance ^ (chance >> 16)) * 0x7FEB352D
        chance = (chance ^ (chance >> 15)) * 0x846CA68B
        bits = value.to(tl.uint32, bitcast=True) + ((chance ^ (chance >> 16)) & 0xFFFF)
        rounded = (bits & 0xFFFF0000).to(tl.float32, bitcast=True)
        value = tl.where(tl.abs(value) < float("inf"), rounded, value)
    return value.to(weight_ptr.dtype.element_ty)


@triton.jit
def _step_rows(weight_ptr, first_ptr, second_ptr, count_ptr, key, d, mask, grad, lr, first_bias, second_bias, eps, step,
               beta1, beta2, rho, l1, l2, beta, base_lr, decay, minibatch_l2, RULE: tl.constexpr,
               DECOUPLED: tl.constexpr, DIM: tl.constexpr):
    """One optimizer step on the rows `key` [C], columns `d`, where `mask` [C]; `grad` [C, D] is theirs. Without counts
    there is no mini-batch aware L2."""
    at = key.to(tl.int64)[:, None] * DIM + d[None, :]
    on = mask[:, None] & (d < DIM)[None, :]
    weight = tl.load(weight_ptr + at, mask=on, other=0.0).to(tl.float32)
    if not DECOUPLED:
        grad += decay * weight
    if count_ptr is not None:
        grad += (minibatch_l2 / tl.load(count_ptr + key, mask=mask, other=1.0))[:, None] * weight
    if DECOUPLED:
        weight -= lr * decay * weight
    if RULE == "sgd":
        weight -= lr * grad
    elif RULE == "adagrad":
        total = tl.load(first_ptr + at, mask=on, other=0.0) + grad * grad
        tl.store(first_ptr + at, total, mask=on)
        weight -= lr * (grad / (tl.sqrt_rn(total) + eps))
    elif RULE == "rowwise_adagrad":
        squares = tl.sum(tl.where((d < DIM)[None, :], grad * grad, 0.0), axis=1) / DIM
        total = tl.load(first_ptr + key, mask=mask, other=0.0) + squares
        tl.store(first_ptr + key, total, mask=mask)
        weight -= lr * (grad / (tl.sqrt_rn(total) + eps)[:, None])
    elif RULE == "adam":
        first = tl.load(first_ptr + at, mask=on, other=0.0)
        first += (1.0 - beta1) * (grad - first)
        tl.store(first_ptr + at, first, mask=on)
        second = tl.load(second_ptr + at, mask=on, other=0.0)
        second = beta2 * second + (1.0 - beta2) * grad * grad
        tl.store(second_ptr + at, second, mask=on)
        weight -= lr * (first / first_bias / (tl.sqrt_rn(second / second_bias) + eps))
    elif RULE == "rmsprop":
        missed = step - tl.load(second_ptr + key, mask=mask, other=0)  # 1 where the last step touched the row
        tl.store(second_ptr + key, tl.zeros_like(missed) + step, mask=mask)
        kept = tl.exp2(missed.to(tl.float32) * tl.log2(rho))
        moment = kept[:, None] * tl.load(first_ptr + at, mask=on, other=0.0) + (1.0 - rho) * grad * grad
        tl.store(first_ptr + at, moment, mask=on)
        weight -= lr * (grad / (tl.sqrt_rn(moment) + eps))
    else:
        before = tl.load(first_ptr + at, mask=on, other=1.0)  # not 0, which nothing can be divided by
        after = before + grad * grad
        tl.store(first_ptr + at, after, mask=on)
        root = tl.sqrt_rn(after)
        linear = tl.load(second_ptr + at, mask=on, other=0.0)
        linear += lr / base_lr * grad - (root - tl.sqrt_rn(before)) / base_lr * weight
        tl.store(second_ptr + at, linear, mask=on)
        best = (tl.where(linear > 0, l1, -l1) - linear) / ((beta + root) / base_lr + l2)
        weight = tl.where(tl.abs(linear) > l1, best, 0.0)
    tl.store(weight_ptr + at, _narrowed(weight, weight_ptr, at, step), mask=on)


@triton.jit
def _now(now_ptr, lr, scale, first_bias, second_bias, eps, step):
    """What changes from step to step: as given, or as `now` keeps it on the device, which the scale multiplies."""
    if now_ptr is not None:
        lr, first_bias, second_bias = tl.load(now_ptr), tl.load(now_ptr + 2), tl.load(now_ptr + 3)
        eps, step = tl.load(now_ptr + 4), tl.load(now_ptr + 5).to(tl.int32)
        scale *= tl.load(now_ptr + 1)
    return lr, scale, first_bias, second_bias, eps, step


@triton.jit(do_not_specialize=["step"])
def _sum_and_step(weight_ptr, first_ptr, second_ptr, count_ptr, key_ptr, order_ptr, at_ptr, factor_ptr, grad_ptr,
                  next_key_ptr, next_sum_ptr, now_ptr, skip_ptr, entries, rows,
                  lr, scale, first_bias, second_bias, eps, step, beta1, beta2, rho, l1, l2, beta, base_lr, decay,
                  minibatch_l2, RULE: tl.constexpr, DECOUPLED: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr,
                  CHUNK: tl.constexpr, UNIT: tl.constexpr, SPLIT: tl.constexpr):
    if skip_ptr is not None:
        if tl.load(skip_ptr) != 0:
            return
    lr, scale, first_bias, second_bias, eps, step = _now(now_ptr, lr, scale, first_bias, second_bias, eps, step)
    begin = tl.program_id(0) * CHUNK
    i = begin + tl.arange(0, CHUNK)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    last = tl.minimum(begin + CHUNK, entries) - 1
    key = tl.load(key_ptr + i, mask=i < entries, other=-1)
    previous = tl.load(key_ptr + i - 1, mask=(i > begin) & (i < entries), other=-1)
    first_key, last_key = tl.load(key_ptr + begin), tl.load(key_ptr + last)
    comes = (tl.load(key_ptr + begin - 1, mask=begin > 0, other=-1) == first_key) & (first_key >= 0)
    goes_on = (tl.load(key_ptr + last + 1, mask=last + 1 < entries, other=-1) == last_key) & (last_key >= 0)

    real = (key >= 0) & (key < rows)
    entry = i
    if order_ptr is not None:
        entry = tl.load(order_ptr + i, mask=real, other=0)
    at = entry.to(tl.int64) * DIM
    if at_ptr is not None:
        at = tl.load(at_ptr + entry, mask=real, other=0).to(tl.int64) * UNIT
    inside = real[:, None] & (d < DIM)[None, :]
    grad = tl.load(grad_ptr + at[:, None] + d[None, :], mask=inside, other=0.0)
    if factor_ptr is not None:
        grad = grad.to(tl.float32) * tl.load(factor_ptr + entry, mask=real, other=0.0)[:, None]
    # 0 times what is not finite is not 0: such gradients are left out, and then spoil their own row alone.
    spoilt = (tl.abs(grad.to(tl.float32)) < float("inf")) == 0
    grad = tl.where(spoilt, 0.0, grad).to(grad.dtype)
    same = (key[:, None] == key[None, :]) & real[None, :]
    if grad.dtype == tl.float32 and SPLIT:
        total = tl.zeros((CHUNK, BLOCK_D), tl.float32)
        for _ in tl.static_range(3):
            part = grad.to(tl.bfloat16)
            total = tl.dot(same.to(tl.bfloat16), part, total)
            grad -= part.to(tl.float32)
    else:
        total = tl.dot(same.to(grad.dtype), grad, input_precision="ieee")
    if tl.max(tl.max(spoilt.to(tl.int32), axis=1), axis=0) != 0:
        total = tl.where(tl.dot(same.to(tl.float16), spoilt.to(tl.float16)) > 0, float("nan"), total)
    if order_ptr is not None:  # entries of a list are scaled already
        total *= scale

    is_open = (comes & (key == first_key)) | (goes_on & (key == last_key))
    if next_key_ptr is not None:
        pair = tl.program_id(0) * 2
        tl.store(next_key_ptr + pair, tl.where(comes, first_key, -1))
        tl.store(next_key_ptr + pair + 1, tl.where(goes_on, last_key, -1))
        to = next_sum_ptr + pair.to(tl.int64) * DIM + tl.zeros_like(i)[:, None] + d[None, :]
        columns = (d < DIM)[None, :]
        tl.store(to, total, mask=((i == begin) & comes)[:, None] & columns)
        # One run that fills the chunk and comes from the left is one entry; its second is nothing more.
        is_counted = comes & (first_key == last_key)
        tl.store(to + DIM, tl.where(is_counted, 0.0, total), mask=((i == last) & goes_on)[:, None] & columns)
    _step_rows(weight_ptr, first_ptr, second_ptr, count_ptr, key, d, real & (key != previous) & (is_open == 0), total,
               lr, first_bias, second_bias, eps, step, beta1, beta2, rho, l1, l2, beta, base_lr, decay, minibatch_l2,
               RULE, DECOUPLED, DIM)


@triton.jit(do_not_specialize=["step"])
def _step_untouched(weight_ptr, first_ptr, second_ptr, touched_ptr, now_ptr, skip_ptr, rows,
                    lr, first_bias, second_bias, eps, step, beta1, beta2, decay,
                    DECOUPLED: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr):
    """Adam with the gradient 0 on the rows that no id touched."""
    if skip_ptr is not None:
        if tl.load(skip_ptr) != 0:
            return
    lr, _, first_bias, second_bias, eps, step = _now(now_ptr, lr, 1.0, first_bias, second_bias, eps, step)
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    mask = row < rows
    mask = mask & (tl.load(touched_ptr + row, mask=mask, other=1) == 0)
    _step_rows(weight_ptr, first_ptr, second_ptr, None, row, d, mask, tl.zeros((BLOCK_R, BLOCK_D), tl.float32), lr,
               first_bias, second_bias, eps, step, beta1, beta2, 0.0, 0.0, 0.0, 0.0, 1.0, decay, 0.0, "adam", DECOUPLED,
               DIM)


def now(rule, *, lr: torch.Tensor, step: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
    """What of a step changes from one to the next, float32 [6] on the device of `lr`: for captured graphs.

    lr, step, scale: tensors of one element there, `step` counting from 1.
    """
    count = step.double().view(())
    second_bias = 1 - rule.beta2**count
    eps = rule.eps / second_bias.sqrt() if rule.eps_hat else torch.full_like(count, rule.eps)
    scale = torch.ones_like(count) if scale is None else scale.double().view(())
    return torch.stack([lr.double().view(()), scale, 1 - rule.beta1**count, second_bias, eps, count]).float()


def self_test(device: torch.device) -> None:
    """Raises where a step on `device` is not that of the reference."""
    rule = types.SimpleNamespace(name="adam", lr=0.1, eps=1e-3, beta1=0.8, beta2=0.9, eps_hat=False, lazy=True, rho=0.9,
                                 l1=0.0, l2=0.0, beta=1.0, weight_decay=0.1,
                                 decoupled_weight_decay=False, minibatch_l2=0.3)
    rows_V = torch.randint(0, 30, (300,), device=device) // 4 * 3
    weight, count = torch.randn(30, 20, device=device), torch.arange(1.0, 31.0, device=device)
    for dtype in (torch.float32, torch.bfloat16):
        grad_GD = torch.randn(300, 20, device=device).to(dtype)
        results = []
        for run in (sparse_update, reference.sparse_update):
            tables = [weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight)]
            states = dict(first_moment=tables[1], second_moment=tables[2], count=count)
            run(tables[0], states, rows_V, grad_GD, rule, lr=0.1, step=1)
            results.append(tables)
        require_close(*results, 1e-3)


def supports(weight_RD: torch.Tensor, grad_GD: torch.Tensor) -> bool:
    """Whether the kernels are made for these."""
    return weight_RD.dtype in FLOATS and grad_GD.dtype in FLOATS and weight_RD.is_contiguous() and \
        weight_RD.shape[1] <= 1024


def sparse_update(weight_RD, states, rows_V, grad_GD, rule, *, lr, step, bag_V=None, weight_V=None, scale=1.0) -> None:
    """As `clickwise.kernels.sparse_update.sparse_update`."""
    update(weight_RD, states, rows_V, grad_GD.contiguous(), rule, lr=lr, step=step, at_V=bag_V,
           unit=weight_RD.shape[1], factor_V=weight_V, scale=scale)


def update(weight_RD: torch.Tensor, states: dict[str, torch.Tensor], key_V: torch.Tensor, grad: torch.Tensor, rule, *,
           lr: float = 0.0, step: int = 1, at_V: torch.Tensor | None = None, unit: int = 1,
           factor_V: torch.Tensor | None = None, scale: float = 1.0, on_device: torch.Tensor | None = None,
           skip: torch.Tensor | None = None) -> None:
    """`sparse_update` of rows whose gradients stand anywhere in `grad`, contiguous.

    key_V      the rows, in any order; those that are negative, or no rows, are left out
    at_V       times `unit`: where the gradient of each begins, in elements; None: one after another
    on_device  what `now` gives, in place of `lr`, `step` and, beside `scale`, its scale
    skip       one element on the device; where it is not 0 nothing changes (fp16: some gradient is not finite)
    """
    rows, dim = weight_RD.shape
    first, second = (None if name is None else states[name] for name in STATES[rule.name])
    count = states["count"] if rule.minibatch_l2 else None
    second_bias = 1 - rule.beta2**step
    each_step = (lr, scale, 1 - rule.beta1**step, second_bias,
                 rule.eps / math.sqrt(second_bias) if rule.eps_hat else rule.eps)
    constants = tuple(map(float, (rule.beta1, rule.beta2, rule.rho, rule.l1, rule.l2, rule.beta, rule.lr,
                                  rule.weight_decay, rule.minibatch_l2)))
    each_step, step = tuple(map(float, each_step)), int(step)
    if len(key_V):
        tile = _tile(dim, rule.name)
        key, order = torch.sort(key_V, stable=True)  # equal rows stay in the order of the batch
        entries, at, factor = len(key), at_V, factor_V
        while True:
            chunks = triton.cdiv(entries, tile["CHUNK"])
            next_key = next_sum = None
            if chunks > 1:
                next_key = torch.empty(2 * chunks, dtype=key.dtype, device=key.device)
                next_sum = torch.empty(2 * chunks, dim, device=key.device)
            _sum_and_step[(chunks, triton.cdiv(dim, tile["BLOCK_D"]))](
                weight_RD, first, second, count, key, order, at, factor, grad, next_key, next_sum, on_device, skip,
                entries, rows, *each_step, step, *constants, RULE=rule.name, DECOUPLED=rule.decoupled_weight_decay,
                DIM=dim, UNIT=unit, SPLIT=multiplies_bfloat16(grad.device), **tile)
            if next_key is None:
                break
            key, grad, entries = next_key, next_sum, 2 * chunks
            order = at = factor = None
    if not rule.lazy:
        touched_R = torch.zeros(rows + 1, dtype=torch.uint8, device=weight_RD.device)
        touched_R.index_fill_(0, torch.where((key_V >= 0) & (key_V < rows), key_V, rows).long(), 1)
        block_d = min(triton.next_power_of_2(dim), 256)
        block_r = 4096 // block_d
        _step_untouched[(triton.cdiv(rows, block_r), triton.cdiv(dim, block_d))](
            weight_RD, first, second, touched_R, on_device, skip, rows, each_step[0], *each_step[2:], step,
            *constants[:2], float(rule.weight_decay), DECOUPLED=rule.decoupled_weight_decay, DIM=dim,
            BLOCK_D=block_d, BLOCK_R=block_r, num_warps=4)


def _tile(dim: int, rule: str) -> dict[str, int]:
    """Launch settings of `_sum_and_step`: the columns and sorted positions of a program's tile and its warps.

    A program mostly waits for memory (key, order, gradient, row), so tiles are so small that a multiprocessor holds
    several programs, which wait at the same time. `tl.dot` needs 16 of each.
    """
    block_d = max(16, triton.next_power_of_2(dim))
    if rule not in WHOLE_ROWS:
        block_d = min(block_d, WIDEST)
    return {"BLOCK_D": block_d, "CHUNK": 32 if block_d <= WIDEST else 16,
            "num_warps": 4 if block_d < 64 else 8 if block_d < 512 else 16}
