"""`cross` on a GPU: products by cuBLAS, but the one whose result is used element by element at once.

Where V has a low rank R, the product h Vᵀ is short: per value of the result 2 R operations, at R = 512 on an H200 a
third of the time that reading x0 and x and writing z and the next x takes at full bandwidth. Apart, matrix units and
memory wait for each other: the product, and then another pass that reads z back. So there the product is a kernel of
its own with the element-wise part behind it, in tiles small enough for two programs on a multiprocessor: one multiplies
while the other reads and writes. Triton's product reaches about three quarters of cuBLAS's rate, which the overlap
pays for; with a full matrix (R = K = 3,456) the product is all that counts, and cuBLAS takes it. MOST_RANK lies between
the two: estimated, not measured on a GPU.

Backward: per layer one pass over the values makes the gradient of z, adds to that of x0, and sums that of the bias in
parts, always in the same order; the way around the layer is added inside cuBLAS's last product.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from clickwise.kernels.autocast import compute_type
from clickwise.kernels.cross import reference
from clickwise.kernels.gpu import is_matrix, require_same_gradients

MOST_RANK = 1024
ROWS_AT_ONCE = 512  # samples whose gradients of the bias one program of backward sums
TILE = 2048  # values of each tensor that it holds at a time: of 16 bits one load of 16 bytes per thread


@triton.jit
def _forward(h_ptr, v_ptr, bias_ptr, x0_ptr, x_ptr, z_ptr, out_ptr, samples, width, rank,
             KEEP_Z: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr,
             GROUP: tl.constexpr):
    # Programs that run side by side share their parts of h and of V: GROUP blocks of samples go through all columns.
    pid = tl.program_id(0)
    blocks_b, blocks_k = tl.cdiv(samples, BLOCK_B), tl.cdiv(width, BLOCK_K)
    first = pid // (GROUP * blocks_k) * GROUP
    group = tl.minimum(blocks_b - first, GROUP)
    block_b, block_k = first + pid % (GROUP * blocks_k) % group, pid % (GROUP * blocks_k) // group
    # Positions are counted from the block's first sample: they fit in 32 bits, and addresses of 64 are one per block.
    first = block_b.to(tl.int64) * BLOCK_B
    h_ptr += first * rank
    at_block = first * width
    b, here = tl.arange(0, BLOCK_B), samples - first
    k = block_k * BLOCK_K + tl.arange(0, BLOCK_K)
    r = tl.arange(0, BLOCK_R)
    z = tl.zeros((BLOCK_B, BLOCK_K), tl.float32)
    for start in range(0, rank, BLOCK_R):
        inside = r < rank - start
        h = tl.load(h_ptr + start + b[:, None] * rank + r[None, :], mask=(b < here)[:, None] & inside[None, :],
                    other=0.0)
        v = tl.load(v_ptr + start + k[None, :] * rank + r[:, None], mask=(k < width)[None, :] & inside[:, None],
                    other=0.0)
        z = tl.dot(h, v, z)
    if bias_ptr is not None:
        z += tl.load(bias_ptr + k, mask=k < width, other=0.0).to(tl.float32)[None, :]
    at, mask = b[:, None] * width + k[None, :], (b < here)[:, None] & (k < width)[None, :]
    if KEEP_Z:
        tl.store(z_ptr + at_block + at, z.to(z_ptr.dtype.element_ty), mask=mask)
    x0 = tl.load(x0_ptr + at_block + at, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + at_block + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + at_block + at, (x0 * z + x).to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _backward(grad_ptr, x0_ptr, z_ptr, grad_z_ptr, grad_x0_ptr, grad_bias_ptr, samples, width,
              IS_FIRST: tl.constexpr, ADD_GRAD: tl.constexpr, WANTS_X0: tl.constexpr, BLOCK_B: tl.constexpr,
              BLOCK_K: tl.constexpr, ROWS: tl.constexpr):
    k = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    begin = tl.program_id(1).to(tl.int64) * ROWS
    grad_bias = tl.zeros((BLOCK_B, BLOCK_K), tl.float32)  # summed over samples behind the loop: a sum has barriers
    for start in range(0, ROWS, BLOCK_B):
        b = begin + start + tl.arange(0, BLOCK_B)
        at, mask = b[:, None] * width + k[None, :], (b < samples)[:, None] & (k < width)[None, :]
        grad = tl.load(grad_ptr + at, mask=mask, other=0.0).to(tl.float32)
        grad_z = grad * tl.load(x0_ptr + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(grad_z_ptr + at, grad_z.to(grad_z_ptr.dtype.element_ty), mask=mask)
        grad_bias += grad_z
        if WANTS_X0:
            grad_x0 = grad * tl.load(z_ptr + at, mask=mask, other=0.0).to(tl.float32)
            if ADD_GRAD:
                grad_x0 += grad
            if not IS_FIRST:
                grad_x0 += tl.load(grad_x0_ptr + at, mask=mask, other=0.0).to(tl.float32)
            tl.store(grad_x0_ptr + at, grad_x0.to(grad_x0_ptr.dtype.element_ty), mask=mask)
    tl.store(grad_bias_ptr + tl.program_id(1) * width + k, tl.sum(grad_bias, axis=0), mask=k < width)


def supports(x0_BK: torch.Tensor, layers) -> bool:
    """Whether the kernels are made for these."""
    return len(layers) > 0 and is_matrix(x0_BK)


def self_test(device: torch.device) -> None:
    """Raises where value or gradients on `device` are not those of the reference."""
    tensors = [torch.randn(shape, device=device) / shape[-1] ** 0.5 for shape in ((37, 24), (8, 24), (24, 8), (24,))]
    require_same_gradients(*(lambda x0, *layer, run=run: run(x0, [layer] * 2) for run in (cross, reference.cross)),
                           tensors)


def cross(x0_BK: torch.Tensor, layers) -> torch.Tensor:
    """As `clickwise.kernels.cross.cross`; needs at least one layer and one sample."""
    # Whether gradients are on is asked here: inside of the function they never are, and `needs_input_grad` is true of
    # parameters all the same.
    return _Cross.apply(x0_BK.to(compute_type(x0_BK)), torch.is_grad_enabled(), *itertools.chain.from_iterable(layers))


class _Cross(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x0, keep, *parameters):
        x0 = x0.contiguous()
        keep = keep and any(ctx.needs_input_grad)
        x, saved = x0, []
        with torch.autocast(x0.device.type, enabled=False):
            for first in range(0, len(parameters), 3):
                u, v, bias = (None if p is None else p.to(x0.dtype).contiguous() for p in parameters[first:first + 3])
                h = x if u is None else F.linear(x, u)
                z, out = _layer(h, v, bias, x0, x, keep)
                if keep:
                    saved += u, v, x, None if u is None else h, z
                x = out
        ctx.dtypes = [None if p is None else p.dtype for p in parameters]
        ctx.save_for_backward(*saved)
        return x

    @staticmethod
    def backward(ctx, grad):
        saved, wanted, wants_x0 = ctx.saved_tensors, ctx.needs_input_grad[2:], ctx.needs_input_grad[0]
        layers = [saved[at:at + 5] for at in range(0, len(saved), 5)]
        x0, grads = layers[0][2], [None] * (3 * len(layers))

        def give(index: int, value) -> None:
            if wanted[index]:
                grads[index] = value().to(ctx.dtypes[index])

        grad_x0, grad, is_ours = torch.empty_like(x0) if wants_x0 else None, grad.contiguous(), False
        with torch.autocast(x0.device.type, enabled=False):
            for layer in reversed(range(len(layers))):
                u, v, x, h, z = layers[layer]
                h = x if u is None else h
                grad_z, grad_bias_PK = _gradients(grad, x0, z, grad_x0, is_first=not is_ours, add_grad=layer == 0)
                give(3 * layer + 2, lambda grad_bias_PK=grad_bias_PK: grad_bias_PK.sum(0))
                give(3 * layer + 1, lambda grad_z=grad_z, h=h: grad_z.t() @ h)
                goes_on = layer > 0 or wants_x0
                if not goes_on and not wanted[3 * layer]:
                    break
                grad_x, weight = grad_z, v
                if u is not None:
                    grad_x, weight = grad_z @ v, u
                    give(3 * layer, lambda grad_h=grad_x, x=x: grad_h.t() @ x)
                if not goes_on:
                    break
                # What flows around the layer is in the sum that the product is added to, in the first layer's in
                # that of x0. The upstream gradient belongs to others, all later ones are ours to write to.
                around = grad if layer else grad_x0
                grad = around.addmm_(grad_x, weight) if is_ours or not layer else torch.addmm(around, grad_x, weight)
                is_ours = True
        return (grad if wants_x0 else None, None, *grads)


def _layer(h, v, bias, x0, x, keep: bool) -> tuple[torch.Tensor | None, torch.Tensor]:
    """(z = h vᵀ + bias where it is to be kept, x0 ⊙ z + x)."""
    (samples, width), rank = x0.shape, h.shape[1]
    if x0.dtype == torch.float32 or rank > MOST_RANK:
        z = F.linear(h, v, bias)
        return z if keep else None, torch.addcmul(x, x0, z)
    out, z = torch.empty_like(x0), torch.empty_like(x0) if keep else None
    blocks = {"BLOCK_B": 128, "BLOCK_K": 128, "BLOCK_R": min(64, max(16, triton.next_power_of_2(rank)))}
    programs = triton.cdiv(samples, blocks["BLOCK_B"]) * triton.cdiv(width, blocks["BLOCK_K"])
    _forward[(programs,)](h, v, bias, x0, x, z, out, samples, width, rank, KEEP_Z=keep, GROUP=8, **blocks,
                          num_warps=8, num_stages=3, maxnreg=128)
    return z, out


def _gradients(grad, x0, z, grad_x0, *, is_first: bool, add_grad: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(gradient of z, sums for the gradient of the bias [parts, K]); adds to `grad_x0` or, first, fills it."""
    samples, width = x0.shape
    parts = triton.cdiv(samples, ROWS_AT_ONCE)
    grad_z, grad_bias_PK = torch.empty_like(x0), torch.empty(parts, width, device=x0.device)
    block_k = min(256, max(16, triton.next_power_of_2(width)))
    block_b = min(ROWS_AT_ONCE, TILE // block_k)
    _backward[(triton.cdiv(width, block_k), parts)](
        grad, x0, z, grad_z, grad_x0, grad_bias_PK, samples, width, IS_FIRST=is_first, ADD_GRAD=add_grad,
        WANTS_X0=grad_x0 is not None, BLOCK_B=block_b, BLOCK_K=block_k, ROWS=ROWS_AT_ONCE, num_warps=8)
    return grad_z, grad_bias_PK
