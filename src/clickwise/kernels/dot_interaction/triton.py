"""`dot_interaction` on a GPU: one program per sample, its rows read once, every intermediate in registers.

Both directions move far more bytes than they compute: at 26 rows of 128 in bf16 a sample is 6.9 kB in, 1 kB out and
0.3 MFLOP of padded products, a tenth of the time on the matrix units of what the memory takes. So z0 is no row of the
tile: 26 rows then fill a tile of 32, and 32 rows still do; its products are a sum over registers.

Backward needs no scatter: with S the gradient of the dot products in both triangles, the gradient of the rows is
S · rows + s0 ⊗ z0, where s0 is what flows into the pairs with z0.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from clickwise.kernels.autocast import compute_type
from clickwise.kernels.dot_interaction import reference
from clickwise.kernels.gpu import FLOATS, dot_precision, require_same_gradients

MOST_ROWS = 128
WIDEST_TILE = 256  # bytes of every row that a program holds at a time


@triton.jit
def _forward(z0_ptr, rows_ptr, out_ptr, z0_stride, row_stride, sample_stride, out_stride,
             ROWS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, USED: tl.constexpr,
             TILE: tl.constexpr, TILE_D: tl.constexpr, PADDING: tl.constexpr, PRECISION: tl.constexpr):
    sample = tl.program_id(0).to(tl.int64)
    z0_ptr += sample * z0_stride
    rows_ptr += sample * sample_stride
    out_ptr += sample * out_stride
    compute = out_ptr.dtype.element_ty
    f = tl.arange(0, TILE)
    dots = tl.zeros((TILE, TILE), tl.float32)
    with_z0 = tl.zeros((TILE,), tl.float32)
    for first in range(0, DIM, TILE_D):
        d = first + tl.arange(0, TILE_D)
        z0 = tl.load(z0_ptr + d, mask=d < DIM, other=0.0).to(compute)
        rows = tl.load(rows_ptr + f[:, None] * row_stride + d[None, :],
                       mask=(f < ROWS)[:, None] & (d < DIM)[None, :], other=0.0).to(compute)
        dots = tl.dot(rows, tl.trans(rows), dots, input_precision=PRECISION)
        with_z0 += tl.sum(rows.to(tl.float32) * z0.to(tl.float32)[None, :], axis=1)
        tl.store(out_ptr + d, z0, mask=d < DIM)
    pair = f * (f + 1) // 2  # row f is vector f + 1: its pairs begin here, that with z0 first
    tl.store(out_ptr + DIM + pair, with_z0.to(compute), mask=f < ROWS)
    lower = (f[None, :] < f[:, None]) & (f < ROWS)[:, None]
    tl.store(out_ptr + DIM + 1 + pair[:, None] + f[None, :], dots.to(compute), mask=lower)
    if WIDTH > USED:
        at = USED + tl.arange(0, PADDING)
        tl.store(out_ptr + at, tl.zeros((PADDING,), compute), mask=at < WIDTH)


@triton.jit
def _backward(grad_ptr, z0_ptr, rows_ptr, grad_z0_ptr, grad_rows_ptr, grad_stride, z0_stride, row_stride, sample_stride,
              ROWS: tl.constexpr, DIM: tl.constexpr, TILE: tl.constexpr, TILE_D: tl.constexpr,
              PRECISION: tl.constexpr):
    sample = tl.program_id(0).to(tl.int64)
    grad_ptr += sample * grad_stride
    z0_ptr += sample * z0_stride
    rows_ptr += sample * sample_stride
    grad_z0_ptr += sample * DIM
    grad_rows_ptr += sample * (ROWS * DIM)
    compute = grad_ptr.dtype.element_ty
    f = tl.arange(0, TILE)
    later, earlier = tl.maximum(f[:, None], f[None, :]), tl.minimum(f[:, None], f[None, :])
    s = tl.load(grad_ptr + DIM + 1 + later * (later + 1) // 2 + earlier,
                mask=(later < ROWS) & (f[:, None] != f[None, :]), other=0.0)
    s0 = tl.load(grad_ptr + DIM + f * (f + 1) // 2, mask=f < ROWS, other=0.0).to(tl.float32)
    for first in range(0, DIM, TILE_D):
        d = first + tl.arange(0, TILE_D)
        inside = (f < ROWS)[:, None] & (d < DIM)[None, :]
        z0 = tl.load(z0_ptr + d, mask=d < DIM, other=0.0).to(compute).to(tl.float32)
        rows = tl.load(rows_ptr + f[:, None] * row_stride + d[None, :], mask=inside, other=0.0).to(compute)
        grad_rows = tl.dot(s, rows, s0[:, None] * z0[None, :], input_precision=PRECISION)
        grad_z0 = tl.load(grad_ptr + d, mask=d < DIM, other=0.0).to(tl.float32)
        grad_z0 += tl.sum(rows.to(tl.float32) * s0[:, None], axis=0)
        tl.store(grad_rows_ptr + f[:, None] * DIM + d[None, :], grad_rows.to(grad_rows_ptr.dtype.element_ty),
                 mask=inside)
        tl.store(grad_z0_ptr + d, grad_z0.to(grad_z0_ptr.dtype.element_ty), mask=d < DIM)


def supports(z0_BD: torch.Tensor, rows_BFD: torch.Tensor) -> bool:
    """Whether the kernels are made for these: any D, 1 to 128 rows, and 64 where float32 has to be exact."""
    most = MOST_ROWS
    if rows_BFD.dtype == torch.float32 and dot_precision(rows_BFD.device) != "tf32":
        most //= 2  # the parts of float32 numbers need registers
    return 0 < rows_BFD.shape[1] <= most and z0_BD.dtype in FLOATS and rows_BFD.dtype in FLOATS


def self_test(device: torch.device) -> None:
    """Raises where value or gradients on `device` are not those of the reference."""
    z0_and_rows = torch.randn(3, 20, device=device), torch.randn(3, 5, 20, device=device)
    require_same_gradients(dot_interaction, reference.dot_interaction, z0_and_rows)


def dot_interaction(z0_BD: torch.Tensor, rows_BFD: torch.Tensor, pad_to: int = 8) -> torch.Tensor:
    """As `clickwise.kernels.dot_interaction.dot_interaction`; needs z0 and from 1 to 128 rows."""
    return _DotInteraction.apply(z0_BD, rows_BFD, pad_to, compute_type(rows_BFD))


class _DotInteraction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z0, rows, pad_to, dtype):
        z0, rows = (tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in (z0, rows))
        samples, features, dim = rows.shape
        used = dim + features * (features + 1) // 2
        out = torch.empty(samples, used + -used % pad_to, dtype=dtype, device=rows.device)
        if samples:
            tiles = _tiles(features, dim, rows.element_size())
            _forward[(samples,)](z0, rows, out, z0.stride(0), rows.stride(1), rows.stride(0), out.stride(0),
                                 ROWS=features, DIM=dim, WIDTH=out.shape[1], USED=used,
                                 PADDING=triton.next_power_of_2(max(1, out.shape[1] - used)),
                                 PRECISION=dot_precision(rows.device), **tiles)
        ctx.save_for_backward(z0, rows)
        return out

    @staticmethod
    def backward(ctx, grad):
        z0, rows = ctx.saved_tensors
        samples, features, dim = rows.shape
        grad = grad if grad.stride(-1) == 1 else grad.contiguous()
        grad_z0 = torch.empty(z0.shape, dtype=z0.dtype, device=z0.device)
        grad_rows = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
        if samples:
            tiles = _tiles(features, dim, rows.element_size())
            _backward[(samples,)](grad, z0, rows, grad_z0, grad_rows, grad.stride(0), z0.stride(0), rows.stride(1),
                                  rows.stride(0), ROWS=features, DIM=dim, PRECISION=dot_precision(rows.device),
                                  **tiles)
        return grad_z0, grad_rows, None, None


def _tiles(features: int, dim: int, bytes_each: int) -> dict[str, int]:
    """The tile of a program, its warps, and how many tiles it loads ahead: nothing spills, and 100 kB of shared memory
    suffice (seen in the code compiled for sm_80 and sm_90)."""
    tile = max(16, triton.next_power_of_2(features))
    widest = WIDEST_TILE // bytes_each if bytes_each < 4 or tile < 64 else 32
    tile_d = min(widest, max(16, triton.next_power_of_2(dim)))
    size = tile * tile_d * bytes_each
    return {"TILE": tile, "TILE_D": tile_d, "num_warps": 1 if size <= 2048 else 2 if size <= 4096 else
            4 if size <= 8192 else 8, "num_stages": 2 if tile <= 32 else 1}
