"""`pair_scores` at CPU speed: a cacheful of rows at a time through all layers, and back by hand.

Of every hidden layer one matrix is written and read again: after a sigmoid or ReLU, before a PReLU. ReLU is torch's,
which keeps NaN: a network that has diverged must not look healthy.
"""

from __future__ import annotations

import torch

from clickwise.kernels.autocast import compute_type
from clickwise.kernels.cpu_products import add_products_, add_products_of_columns_, product
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
        of_a, of_b, of_product = _parts(weights[0], a_VA, b_SVC, with_product)
        hidden = [b_SVC.new_empty(*b_SVC.shape[:2], len(weight)) for weight in weights[:-1]]
        score_SV = torch.zeros(b_SVC.shape[:2])
        at_once = CHUNK * torch.get_num_threads()
        for at in range(0, max(rows_S), at_once):
            first_C = product(a_VA[at:at + at_once], of_a, biases[0])
            for s, here in _parts_of(rows_S, at, at_once):
                a, b, first = a_VA[here], b_SVC[s, here], first_C[:here.stop - at]
                x = hidden[0][s, here].copy_(first)
                add_products_(x, b[None], of_b[None])
                if with_product:
                    add_products_(x, (a * b)[None], of_product[None])
                for layer in range(layers - 1):
                    x = _activated(hidden[layer][s, here], activation, slopes, layer)
                    if layer < layers - 2:
                        product(x, weights[layer + 1], biases[layer + 1], out=hidden[layer + 1][s, here])
                score_SV[s, here] = torch.addmv(biases[-1], x, weights[-1][0])
        ctx.activation, ctx.with_product, ctx.rows_S, ctx.layers = activation, with_product, rows_S, layers
        ctx.save_for_backward(a_VA, b_SVC, *given, *hidden)
        return score_SV

    @staticmethod
    def backward(ctx, grad_SV):
        a_VA, b_SVC, *saved = ctx.saved_tensors
        layers, activation = ctx.layers, ctx.activation
        weights, biases = saved[:layers], saved[layers:2 * layers]
        slopes, hidden = saved[2 * layers:1 - layers], saved[1 - layers:]
        of_a, of_b, of_product = _parts(weights[0], a_VA, b_SVC, ctx.with_product)
        of_weights, of_biases, of_slopes = ([torch.zeros(tensor.shape) for tensor in tensors]
                                            for tensors in (weights, biases, slopes))
        into_a, into_b, into_product = (torch.zeros(part.shape) for part in (of_a, of_b, of_product))
        grad_a_VA, grad_b_SVC = torch.zeros(a_VA.shape), torch.empty(b_SVC.shape)
        for s, rows in enumerate(ctx.rows_S):
            grad_b_SVC[s, rows:] = 0.0
        at_once = CHUNK * torch.get_num_threads()
        for at in range(0, max(ctx.rows_S), at_once):
            all_of_a = a_VA[at:at + at_once]
            of_first = torch.zeros(len(all_of_a), len(of_a))
            for s, here in _parts_of(ctx.rows_S, at, at_once):
                a, b, grad_a = a_VA[here], b_SVC[s, here], grad_a_VA[here]
                grad_C = grad_SV[s, here].to(a.dtype)
                grad = grad_C[:, None] * weights[-1]
                of_biases[-1] += grad_C.sum()
                for layer in reversed(range(layers - 1)):
                    kept = hidden[layer][s, here]
                    x = _activated(kept, activation, slopes, layer, again=True)
                    if layer == layers - 2:
                        of_weights[-1][0] += x.t() @ grad_C
                    else:
                        add_products_of_columns_(of_weights[layer + 1][None], grad[None], x)
                        of_biases[layer + 1] += grad.sum(0)
                        grad = product(grad, weights[layer + 1].t())
                    grad = _before_activation(grad, kept, activation, slopes, of_slopes, layer)
                of_first[:len(grad)] += grad
                add_products_of_columns_(into_b[None], grad[None], b)
                grad_b = product(grad, of_b.t(), out=grad_b_SVC[s, here])
                if ctx.with_product:
                    add_products_of_columns_(into_product[None], grad[None], a * b)
                    of_both = product(grad, of_product.t())
                    grad_b.addcmul_(of_both, a)
                    grad_a.addcmul_(of_both, b)
            add_products_of_columns_(into_a[None], of_first[None], all_of_a)
            of_biases[0] += of_first.sum(0)
            add_products_(grad_a_VA[at:at + at_once], of_first[None], of_a.t()[None])
        of_weights[0] = torch.cat([into_a, into_b, into_product], dim=1)
        found = (grad_a_VA, grad_b_SVC, *of_weights, *of_biases, *of_slopes)
        of_a, of_b, *rest = (tensor.to(dtype) for tensor, dtype in zip(found, ctx.dtypes, strict=True))
        return of_a, of_b, None, None, None, None, *rest


def _parts_of(rows_S, at: int, at_once: int) -> list[tuple[int, slice]]:
    """(s, which of its rows are scored) of the chunk that begins at row `at`."""
    return [(s, slice(at, min(at + at_once, rows))) for s, rows in enumerate(rows_S) if rows > at]


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


def _before_activation(grad, kept, activation, slopes, of_slopes, layer: int) -> torch.Tensor:
    """The gradient of what the activation was given, in the place of that of its output where possible."""
    if activation == "sigmoid":
        return _aten.sigmoid_backward.grad_input(grad, kept, grad_input=grad)
    if activation == "relu":
        return _aten.threshold_backward.grad_input(grad, kept, 0.0, grad_input=grad)
    grad, of_slope = prelu.backward(grad, kept, slopes[layer])
    of_slopes[layer] += of_slope.sum(0)
    return grad
