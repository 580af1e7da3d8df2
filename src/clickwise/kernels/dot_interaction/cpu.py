"""`dot_interaction` at CPU speed: a few hundred samples at a time, so that all temporaries stay in cache.

Backward needs no scatter: with S the gradient of the dot products in both triangles, dX = S X, and S is one gather
from the upstream gradient.
"""

from __future__ import annotations

import functools

import torch

CHUNK = 512  # samples; measured: flat from 256 to 1,024


@functools.lru_cache(maxsize=64)
def _positions(vectors: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(position of pair p in the flat T × T matrix [P], pair of each position in it [T·T], P on the diagonal)."""
    with torch.inference_mode(False):  # they outlive it
        i_P, j_P = torch.tril_indices(vectors, vectors, offset=-1)
        pairs = len(i_P)
        pair_TT = torch.full((vectors, vectors), pairs)
        pair_TT[i_P, j_P] = pair_TT[j_P, i_P] = torch.arange(pairs)
        return i_P * vectors + j_P, pair_TT.view(-1)


def dot_interaction(z0_BD: torch.Tensor, rows_BFD: torch.Tensor, pad_to: int = 8) -> torch.Tensor:
    """As `clickwise.kernels.dot_interaction.dot_interaction`; needs z0 and at least one feature."""
    z0_BD = z0_BD.to(rows_BFD.dtype)
    if not torch.is_grad_enabled():
        return _forward(z0_BD, rows_BFD, pad_to)
    return _DotInteraction.apply(z0_BD, rows_BFD, pad_to)


def _forward(z0: torch.Tensor, rows: torch.Tensor, pad_to: int) -> torch.Tensor:
    samples, features, dim = rows.shape
    vectors, (position_P, _) = features + 1, _positions(features + 1)
    used = dim + len(position_P)
    out = rows.new_empty(samples, used + -used % pad_to)
    for at in range(0, samples, CHUNK):
        z0_c, rows_c, out_c = z0[at:at + CHUNK], rows[at:at + CHUNK], out[at:at + CHUNK]
        x = torch.cat([z0_c.unsqueeze(1), rows_c], dim=1)
        dots = torch.bmm(x, x.transpose(1, 2)).view(len(x), vectors * vectors)
        pairs = dots.gather(1, position_P.expand(len(x), -1))
        torch.cat([z0_c, pairs, pairs.new_zeros(len(x), -used % pad_to)], dim=1, out=out_c)
    return out


class _DotInteraction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z0, rows, pad_to):
        ctx.save_for_backward(z0, rows)
        return _forward(z0, rows, pad_to)

    @staticmethod
    def backward(ctx, grad):
        z0, rows = ctx.saved_tensors
        samples, features, dim = rows.shape
        vectors, (position_P, pair_TT) = features + 1, _positions(features + 1)
        grad_z0, grad_rows = torch.empty_like(z0), torch.empty_like(rows)
        for at in range(0, samples, CHUNK):
            z0_c, rows_c, grad_c = z0[at:at + CHUNK], rows[at:at + CHUNK], grad[at:at + CHUNK]
            x = torch.cat([z0_c[:, None], rows_c], dim=1)
            pairs = torch.cat([grad_c[:, dim:dim + len(position_P)], grad.new_zeros(len(x), 1)], dim=1)
            s = pairs.gather(1, pair_TT.expand(len(x), -1)).view(len(x), vectors, vectors)
            grad_x = torch.bmm(s, x)
            grad_rows[at:at + CHUNK] = grad_x[:, 1:]
            torch.add(grad_x[:, 0], grad_c[:, :dim], out=grad_z0[at:at + CHUNK])
        return grad_z0, grad_rows, None
