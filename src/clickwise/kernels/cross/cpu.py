"""`cross` at CPU speed: oneDNN for every product, one pass for every element-wise step, no gradient kept twice."""

from __future__ import annotations

import itertools

import torch

from clickwise.kernels import prepacked
from clickwise.kernels.autocast import compute_type
from clickwise.kernels.cpu_products import added, product, product_of_columns
from clickwise.kernels.cpu_rows import sum_of_rows

CHUNK = 2048  # samples that backward takes at a time


def cross(x0_BK: torch.Tensor, layers) -> torch.Tensor:
    """As `clickwise.kernels.cross.cross`."""
    x_BK = x0_BK = x0_BK.to(compute_type(x0_BK))
    if (packed := prepacked.active()) is not None:
        for u_RK, v_KR, bias_K in layers:
            h_BR = x_BK if u_RK is None else packed.product(x_BK, u_RK)
            x_BK = torch.addcmul(x_BK, x0_BK, packed.product(h_BR, v_KR, bias_K))
        return x_BK
    return _Cross.apply(x0_BK, *itertools.chain.from_iterable(layers))


class _Cross(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x0, *parameters):
        x, saved = x0, []
        for first in range(0, len(parameters), 3):
            u, v, bias = (None if p is None else p.to(x0.dtype) for p in parameters[first:first + 3])
            h = x if u is None else product(x, u)
            z = product(h, v, bias)
            saved += u, v, x, None if u is None else h, z
            x = torch.addcmul(x, x0, z)
        ctx.dtypes = [None if p is None else p.dtype for p in parameters]
        ctx.save_for_backward(*saved)
        return x

    @staticmethod
    def backward(ctx, grad):
        saved, wanted = ctx.saved_tensors, ctx.needs_input_grad[1:]
        layers = [saved[at:at + 5] for at in range(0, len(saved), 5)]
        x0, grads = layers[0][2], [None] * (3 * len(layers))

        def add(index: int, part) -> None:
            if wanted[index]:
                grads[index] = added(grads[index], part(), ctx.dtypes[index])

        grad_x0 = torch.empty_like(x0) if ctx.needs_input_grad[0] else None
        for at in range(0, len(grad), CHUNK):
            here = slice(at, at + CHUNK)
            x0_c, grad_c, grad_x0_c = x0[here], grad[here], None
            for layer in reversed(range(len(layers))):
                u, v, x, h, z = layers[layer]
                x_c, z_c = x[here], z[here]
                h_c = x_c if u is None else h[here]
                grad_z = grad_c * x0_c
                grad_x0_c = grad_c * z_c if grad_x0_c is None else grad_x0_c.addcmul_(grad_c, z_c)
                add(3 * layer + 1, lambda grad_z=grad_z, h_c=h_c: product_of_columns(grad_z, h_c))
                add(3 * layer + 2, lambda grad_z=grad_z: sum_of_rows(grad_z))
                grad_h = product(grad_z, v.t())
                if u is not None:
                    add(3 * layer, lambda grad_h=grad_h, x_c=x_c: product_of_columns(grad_h, x_c))
                    grad_h = product(grad_h, u.t())
                grad_c = grad_h.add_(grad_c)
            if grad_x0 is not None:
                torch.add(grad_x0_c, grad_c, out=grad_x0[here])
        return (grad_x0, *grads)
