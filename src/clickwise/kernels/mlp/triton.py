"""`mlp` on a GPU: products by torch, and everything between two of them in one pass, or in none.

Forward, bias and ReLU are part of the product, where ReLU there keeps NaN (see `_product_with_relu`). With dropout the
bias alone is, and one pass over the output in its place does ReLU, draws random bits and drops.

Backward, one pass per layer reads the gradient and the output, masks the one by the other, and sums the gradient of the
bias in parts, always in the same order. Of dropout it needs no bits: what ReLU or dropout made 0 has no gradient.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from clickwise.kernels.autocast import compute_type
from clickwise.kernels.dropout import VALUES, threshold_of
from clickwise.kernels.gpu import is_matrix, require_same_gradients
from clickwise.kernels.mlp import reference

ROWS_AT_ONCE = 256  # samples whose gradients of the bias one program sums
TILE = 4096  # values that one program of backward holds at a time
LANES = 1024  # of one program of dropout, each for eight values


@triton.jit(do_not_specialize=["layer"])
def _relu_and_drop(y_ptr, seed_ptr, layer, size, threshold, scale, LANES: tl.constexpr):
    """ReLU and dropout, in place, of 8 · LANES values; each takes 16 bits of Philox, whose counter is (which of all
    the programs' lanes, layer). 7 rounds of it are enough (Salmon et al. 2011, "Parallel random numbers")."""
    lane, program = tl.arange(0, LANES), tl.program_id(0)
    counter = program * LANES + lane
    words = tl.philox(tl.load(seed_ptr), counter, counter * 0 + layer, counter * 0, counter * 0, n_rounds=7)
    first = program.to(tl.int64) * (8 * LANES)
    y_ptr += first
    for part in tl.static_range(8):
        at = part * LANES + lane
        bits = (words[part // 2] >> (part % 2 * 16)) & 0xFFFF
        y = tl.load(y_ptr + at, mask=at < size - first, other=0.0).to(tl.float32)
        y = tl.where(y <= 0.0, 0.0, y) * tl.where(bits.to(tl.int32) < threshold, 0.0, scale)  # NaN stays
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=at < size - first)


@triton.jit
def _mask_and_sum(grad_ptr, y_ptr, out_ptr, sums_ptr, samples, width, scale, BLOCK_B: tl.constexpr,
                  BLOCK_H: tl.constexpr, ROWS: tl.constexpr):
    """The gradient in front of ReLU (and of dropout with this scale), and its sums over ROWS samples."""
    h = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    # Positions are counted from the program's first sample: they fit in 32 bits, and one address has 64.
    first = tl.program_id(1).to(tl.int64) * ROWS
    here = samples - first
    grad_ptr += first * width
    y_ptr += first * width
    out_ptr += first * width
    sums = tl.zeros((BLOCK_B, BLOCK_H), tl.float32)
    for start in range(0, ROWS, BLOCK_B):
        b = start + tl.arange(0, BLOCK_B)
        at, mask = b[:, None] * width + h[None, :], (b < here)[:, None] & (h < width)[None, :]
        grad = tl.load(grad_ptr + at, mask=mask, other=0.0).to(tl.float32)
        y = tl.load(y_ptr + at, mask=mask, other=0.0).to(tl.float32)
        grad = tl.where(y <= 0.0, 0.0, grad * scale)  # so that it passes where y is NaN, as in torch
        tl.store(out_ptr + at, grad.to(out_ptr.dtype.element_ty), mask=mask)
        sums += grad
    tl.store(sums_ptr + tl.program_id(1) * width + h, tl.sum(sums, axis=0), mask=h < width)


def supports(x_BK: torch.Tensor, dropout: float) -> bool:
    """Whether the kernels are made for these."""
    return is_matrix(x_BK) and threshold_of(dropout) < VALUES


def self_test(device: torch.device) -> None:
    """Raises where value or gradients on `device` are not those of the reference, or the share dropped is another."""
    shapes = [(37, 24), (40, 24), (40, 40), (40,), (40,)]
    tensors = [torch.randn(shape, device=device) / shape[-1] ** 0.5 for shape in shapes]
    require_same_gradients(*(lambda x, *of, run=run: run(x, of[:2], of[2:]) for run in (mlp, reference.mlp)), tensors)
    kept = None

    def dropped(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        out = mlp(x, [weight], [bias], dropout=0.5)
        kept = (out != 0).detach()
        return out

    def expected(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        whole = reference.mlp(x, [weight], [bias])
        share = float(kept[whole > 0].float().mean())
        if not 0.3 < share < 0.7:  # of some 740
            raise RuntimeError(f"dropout of 0.5 keeps {share:.2f}")
        return 2 * whole * kept

    require_same_gradients(dropped, expected, [tensors[0], tensors[1], tensors[3]])


def mlp(x_BK: torch.Tensor, weights, biases, relu_last: bool = True, dropout: float = 0.0) -> torch.Tensor:
    """As `clickwise.kernels.mlp.mlp`; needs at least one layer and one sample."""
    keep = torch.is_grad_enabled()  # a Function's `needs_input_grad` does not say so
    return _MLP.apply(x_BK.to(compute_type(x_BK)), relu_last, threshold_of(dropout), keep, *weights, *biases)


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, relu_last, threshold, keep, *parameters):
        layers = len(parameters) // 2
        weights, biases = ([p.to(x.dtype) for p in part] for part in (parameters[:layers], parameters[layers:]))
        activations, scale = [x], VALUES / (VALUES - threshold)
        seed = torch.randint(2**63 - 1, (1,), device=x.device) if threshold else None  # from torch's generator there
        with torch.autocast(x.device.type, enabled=False):
            for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                has_relu = relu_last or layer < layers - 1
                run = _product_with_relu if has_relu and not threshold else F.linear
                y = run(activations[-1], weight, bias)
                if has_relu and threshold:
                    programs = triton.cdiv(y.numel(), 8 * LANES)
                    _relu_and_drop[(programs,)](y, seed, layer, y.numel(), threshold, scale, LANES=LANES, num_warps=4)
                activations = [*activations, y] if keep else [y]
        if keep:
            ctx.relu_last, ctx.scale, ctx.dtypes = relu_last, scale, [parameter.dtype for parameter in parameters]
            ctx.save_for_backward(*weights, *activations[:layers + relu_last])
        return activations[-1]

    @staticmethod
    def backward(ctx, grad):
        layers = len(ctx.dtypes) // 2
        weights, activations = ctx.saved_tensors[:layers], ctx.saved_tensors[layers:]
        wants_x, wanted = ctx.needs_input_grad[0], ctx.needs_input_grad[4:]
        grads: list[torch.Tensor | None] = [None] * (2 * layers)
        grad, is_ours = grad.contiguous(), False  # the upstream gradient belongs to others
        with torch.autocast(grad.device.type, enabled=False):
            for layer in reversed(range(layers)):
                if ctx.relu_last or layer < layers - 1:
                    out = grad if is_ours else torch.empty_like(grad)
                    sums_PH = _in_front_of_relu(grad, activations[layer + 1], ctx.scale, out)
                    grad = out
                else:
                    sums_PH = grad
                if wanted[layers + layer]:
                    grads[layers + layer] = sums_PH.sum(0, dtype=torch.float32).to(ctx.dtypes[layers + layer])
                if wanted[layer]:
                    grads[layer] = (grad.t() @ activations[layer]).to(ctx.dtypes[layer])
                if not (wants_x or any(wanted[:layer]) or any(wanted[layers:layers + layer])):
                    return (None, None, None, None, *grads)
                grad, is_ours = grad @ weights[layer], True
        return (grad, None, None, None, *grads)


def _in_front_of_relu(grad: torch.Tensor, y: torch.Tensor, scale: float, out: torch.Tensor) -> torch.Tensor:
    """Writes to `out`, which may be `grad`, the gradient in front of ReLU and of dropout with this scale; its sums over
    parts of the samples, float32 [P, H]."""
    samples, width = y.shape
    parts = triton.cdiv(samples, ROWS_AT_ONCE)
    sums_PH = torch.empty(parts, width, device=y.device)
    block_h = min(256, max(16, triton.next_power_of_2(width)))
    _mask_and_sum[(triton.cdiv(width, block_h), parts)](
        grad, y, out, sums_PH, samples, width, scale, BLOCK_B=min(ROWS_AT_ONCE, TILE // block_h), BLOCK_H=block_h,
        ROWS=ROWS_AT_ONCE, num_warps=8)
    return sums_PH


def _product_with_relu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """ReLU(x weightᵀ + bias); nothing here has a gradient of its own."""
    if _relu_is_part_of_product(x.device, x.dtype):
        return torch._addmm_activation(bias, x, weight.t())
    return F.linear(x, weight, bias).relu_()


@functools.cache
def _relu_is_part_of_product(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch's product with ReLU inside (no public function) is there and right.

    ReLU in a product may make 0 of NaN: a network that has diverged would look healthy. Asked once per process, with
    small products of two sizes, exact in every type.
    """
    try:
        for rows, columns, inner in ((8, 8, 8), (256, 128, 64)):
            x, weight, bias = ((torch.arange(size, device=device) % 3 - 1).to(dtype) for size in
                               (rows * inner, columns * inner, columns))
            x, weight = x.view(rows, inner), weight.view(columns, inner)
            x[3], bias[5] = float("nan"), float("nan")
            found, expected = torch._addmm_activation(bias, x, weight.t()), F.linear(x, weight, bias).relu()
            if not torch.allclose(found, expected, equal_nan=True):
                return False
        return True
    except (AttributeError, RuntimeError, TypeError):
        return False
