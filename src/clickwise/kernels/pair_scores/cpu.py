"""`pair_scores` at CPU speed: a cacheful of rows at a time through all layers, and back by hand.

Of every hidden layer one matrix is written and read again: after a sigmoid or ReLU, before a PReLU. ReLU is torch's,
which keeps NaN: a network that has diverged must not look healthy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from clickwise.kernels.autocast import compute_type
from clickwise.kernels.cpu_products import add_product_, add_product_of_columns_, product
from clickwise.kernels.prelu import cpu as prelu

CHUNK = 2048  # rows taken at a time by a thread

_aten = torch.ops.aten


def pair_scores(a_VA, b_SVC, weights, biases, activation, slopes=(), *, with_product=False,
                rows_S=None) -> torch.Tensor:
    """As `clickwise.kernels.pair_scores.pair_scores`."""
    rows_S = [len(a_VA)] * len(b_SVC) if rows_S is None else rows_S
    return _PairScores.apply(a_VA, b_SVC, activation, with_product, rows_S, len(weights), *weights, *biases, *slopes)


class _PairScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a_VA, b_SVC, activation, with_product, rows_S, layers, *parameters):
        dtype = compute_type(a_VA)
        ctx.dtypes = [tensor.dtype for tensor in (a_VA, b_SVC, *parameters)]
        a_VA, b_SVC, *given = (tensor.to(dtype) for tensor in (a_VA, b_SVC, *parameters))
        weights, biases, slopes = given[:layers], given[layers:2 * layers], given[2 * layers:]
        weight_a, weight_b, weight_product = _parts(weights[0], a_VA, b_SVC, with_product)
        score_SV, hidden = torch.zeros(b_SVC.shape[:2]), []
        for block in _blocks(rows_S):
            a_RA, b_NC = a_VA[block.rows], block.of(b_SVC)
            y_NH = b_NC.new_empty(len(b_NC), len(weight_b))
            block.by_s(y_NH).copy_(product(a_RA, weight_a, biases[0]))
            add_product_(y_NH, b_NC, weight_b)
            if with_product:
                add_product_(y_NH, block.with_each(b_NC, a_RA), weight_product)
            for layer in range(layers - 1):
                x_NH = _activated(y_NH, activation, slopes, layer)
                hidden.append(y_NH)
                if layer < layers - 2:
                    y_NH = product(x_NH, weights[layer + 1], biases[layer + 1])
            block.put(torch.addmv(biases[-1], x_NH, weights[-1][0]), score_SV)
        ctx.activation, ctx.with_product, ctx.rows_S, ctx.layers = activation, with_product, rows_S, layers
        ctx.save_for_backward(a_VA, b_SVC, *given, *hidden)
        return score_SV

    @staticmethod
    def backward(ctx, grad_SV):
        a_VA, b_SVC, *saved = ctx.saved_tensors
        layers, activation, rest = ctx.layers, ctx.activation, len(ctx.dtypes) - 2
        weights, biases, slopes = saved[:layers], saved[layers:2 * layers], saved[2 * layers:rest]
        hidden = iter(saved[rest:])
        weight_a, weight_b, weight_product = _parts(weights[0], a_VA, b_SVC, ctx.with_product)
        grad_weights, grad_biases, grad_slopes = ([torch.zeros(tensor.shape) for tensor in tensors]
                                                  for tensors in (weights, biases, slopes))
        grad_weight_a, grad_weight_b, grad_weight_product = (
            torch.zeros(part.shape) for part in (weight_a, weight_b, weight_product))
        grad_a_VA, grad_b_SVC = torch.zeros(a_VA.shape), torch.zeros(b_SVC.shape)
        grad_first_VH = torch.zeros(len(a_VA), len(weight_a))
        for block in _blocks(ctx.rows_S):
            kept = [next(hidden) for _ in range(layers - 1)]
            a_RA, b_NC = a_VA[block.rows], block.of(b_SVC)
            grad_N = block.real(grad_SV).to(a_RA.dtype)
            grad = grad_N[:, None] * weights[-1]
            grad_biases[-1] += grad_N.sum()
            for layer in reversed(range(layers - 1)):
                x_NH = _activated(kept[layer], activation, slopes, layer, again=True)
                if layer == layers - 2:
                    grad_weights[-1][0] += x_NH.t() @ grad_N
                else:
                    add_product_of_columns_(grad_weights[layer + 1], grad, x_NH)
                    grad_biases[layer + 1] += grad.sum(0)
                    grad = product(grad, weights[layer + 1].t())
                grad = _before_activation(grad, kept[layer], activation, slopes, grad_slopes, layer)
            grad_first_VH[block.rows] += block.by_s(grad).sum(0)
            add_product_of_columns_(grad_weight_b, grad, b_NC)
            grad_b_NC = product(grad, weight_b.t(), out=torch.empty(b_NC.shape))
            if ctx.with_product:
                add_product_of_columns_(grad_weight_product, grad, block.with_each(b_NC, a_RA))
                grad_product_NC = product(grad, weight_product.t())
                block.by_s(grad_b_NC).addcmul_(block.by_s(grad_product_NC), a_RA)
                grad_a_VA[block.rows] += grad_product_NC.mul_(b_NC).view(-1, *a_RA.shape).sum(0)
            grad_b_SVC[block.which, block.rows] = block.by_s(grad_b_NC)
        grad_first_VH = grad_first_VH.to(a_VA.dtype)
        add_product_of_columns_(grad_weight_a, grad_first_VH, a_VA)
        grad_biases[0] += grad_first_VH.sum(0)
        add_product_(grad_a_VA, grad_first_VH, weight_a.t())
        grad_weights[0] = torch.cat([grad_weight_a, grad_weight_b, grad_weight_product], dim=1)
        found = (grad_a_VA, grad_b_SVC, *grad_weights, *grad_biases, *grad_slopes)
        grad_a, grad_b, *rest = (tensor.to(dtype) for tensor, dtype in zip(found, ctx.dtypes, strict=True))
        return grad_a, grad_b, None, None, None, None, *rest


class _Block(NamedTuple):
    """The same `rows` of several S, N in all; `real_S` are how many of them each shall have a score for, None: all."""

    which: slice
    rows: slice
    real_S: tuple[int, ...] | None

    def of(self, of_SVX: torch.Tensor) -> torch.Tensor:
        """[N, X]."""
        return of_SVX[self.which, self.rows].flatten(0, 1)

    def by_s(self, of_NX: torch.Tensor) -> torch.Tensor:
        return of_NX.view(self.which.stop - self.which.start, self.rows.stop - self.rows.start, -1)

    def with_each(self, b_NC: torch.Tensor, a_RA: torch.Tensor) -> torch.Tensor:
        """b ⊙ a, [N, C]."""
        return (self.by_s(b_NC) * a_RA).flatten(0, 1)

    def real(self, of_SV: torch.Tensor) -> torch.Tensor:
        """[N], 0 where there is no score."""
        of_SR = of_SV[self.which, self.rows]
        return (of_SR if self.real_S is None else of_SR * self._is_real()).flatten()

    def put(self, of_N: torch.Tensor, out_SV: torch.Tensor) -> None:
        of_SR = self.by_s(of_N).squeeze(2)
        out_SV[self.which, self.rows] = of_SR if self.real_S is None else of_SR.where(self._is_real(), 0.0)

    def _is_real(self) -> torch.Tensor:
        return torch.arange(self.rows.stop - self.rows.start) < torch.tensor(self.real_S)[:, None]


def _blocks(rows_S: Sequence[int]) -> Iterator[_Block]:
    """Blocks of about as many rows as shall be taken at a time: parts of one of S, or several that are short, up to
    the most rows that any of them has."""
    at_once, s = CHUNK * torch.get_num_threads(), 0
    while s < len(rows_S):
        most, last = rows_S[s], s + 1
        while last < len(rows_S) and (last + 1 - s) * max(most, rows_S[last]) <= at_once:
            most, last = max(most, rows_S[last]), last + 1
        for at in range(0, most, at_once):
            end = min(at + at_once, most)
            real_S = None if min(rows_S[s:last]) >= end else tuple(rows_S[s:last])
            yield _Block(slice(s, last), slice(at, end), real_S)
        s = last


def _parts(weight, a_VA, b_SVC, with_product: bool) -> list[torch.Tensor]:
    """The first layer's weights of a, of b and of their product (0 columns where it is not seen), each dense."""
    widths = [a_VA.shape[1], b_SVC.shape[2], b_SVC.shape[2] if with_product else 0]
    return [part.contiguous() for part in weight.split(widths, dim=1)]


def _activated(kept, activation, slopes, layer: int, *, again: bool = False) -> torch.Tensor:
    """The layer's output; `kept` becomes what backward needs, from which it comes `again`."""
    if activation == "prelu":
        return torch.prelu(kept, slopes[layer])
    if again:
        return kept
    return kept.sigmoid_() if activation == "sigmoid" else kept.relu_()


def _before_activation(grad, kept, activation, slopes, grad_slopes, layer: int) -> torch.Tensor:
    """The gradient of what the activation was given, in the place of that of its output where possible."""
    if activation == "sigmoid":
        return _aten.sigmoid_backward.grad_input(grad, kept, grad_input=grad)
    if activation == "relu":
        return _aten.threshold_backward.grad_input(grad, kept, 0.0, grad_input=grad)
    grad, grad_slope = prelu.backward(grad, kept, slopes[layer])
    grad_slopes[layer] += grad_slope.sum(0)
    return grad
