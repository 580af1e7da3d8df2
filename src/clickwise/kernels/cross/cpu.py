"""`cross` at CPU speed: oneDNN for every product, one pass for every element-wise step, no gradient kept twice."""

from __future__ import annotations

import torch

from clickwise.kernels.autocast import compute_type
from clickwise.kernels.cpu_products import added, product, product_of_columns

CHUNK = 2048  # samples that backward takes at a time


def cross(x0_BK: torch.Tensor, layers) -> torch.Tensor:
    """As `clickwise.kernels.cross.cross`."""
    us, vs, biases = zip(*layers, strict=True)
    return _Cross.apply(x0_BK.to(compute_type(x0_BK)), len(layers), *us, *vs, *biases)


class _Cross(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x0, layers, *parameters):
        us, vs, biases = ([None if p is None else p.to(x0.dtype) for p in parameters[part * layers:(part + 1) * layers]]
                          for part in range(3))
        xs, hs, zs = [x0], [], []  # of each layer: its input, its input times U, that times V plus the bias
        for u, v, bias in zip(us, vs, biases, strict=True):
            h = xs[-1] if u is None else product(xs[-1], u)
            z = product(h, v, bias)
            xs.append(torch.addcmul(xs[-1], x0, z))
            hs.append(None if u is None else h)
            zs.append(z)
        ctx.layers, ctx.dtypes = layers, [None if p is None else p.dtype for p in parameters]
        ctx.save_for_backward(*us, *vs, *xs[:-1], *hs, *zs)
        return xs[-1]

    @staticmethod
    def backward(ctx, grad):
        layers = ctx.layers
        us, vs, xs, hs, zs = (ctx.saved_tensors[part * layers:(part + 1) * layers] for part in range(5))
        wanted = ctx.needs_input_grad[2:]
        of: list[torch.Tensor | None] = [None] * (3 * layers)

        def add(place: int, part) -> None:
            if wanted[place]:
                of[place] = added(of[place], part(), ctx.dtypes[place])

        grad_x0 = torch.empty_like(xs[0]) if ctx.needs_input_grad[0] else None
        for at in range(0, len(grad), CHUNK):
            here = slice(at, at + CHUNK)
            x0_c, grad_c, of_x0 = xs[0][here], grad[here], None
            for layer in reversed(range(layers)):
                x_c, z_c, u = xs[layer][here], zs[layer][here], us[layer]
                h_c = x_c if u is None else hs[layer][here]
                of_z = grad_c * x0_c
                of_x0 = grad_c * z_c if of_x0 is None else of_x0.addcmul_(grad_c, z_c)
                add(layers + layer, lambda of_z=of_z, h_c=h_c: product_of_columns(of_z, h_c))
                add(2 * layers + layer, lambda of_z=of_z: of_z.sum(0))
                of_h = product(of_z, vs[layer].t())
                if u is not None:
                    add(layer, lambda of_h=of_h, x_c=x_c: product_of_columns(of_h, x_c))
                    of_h = product(of_h, u.t())
                grad_c = of_h.add_(grad_c)
            if grad_x0 is not None:
                torch.add(of_x0, grad_c, out=grad_x0[here])
        return (grad_x0, None, *of)
