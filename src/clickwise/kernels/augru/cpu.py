"""`recurrence` at CPU speed: a cacheful of samples at a time through all positions, and back by hand.

What autograd would do one small operation after another is here a few in place: gates stay where their product was
written, inputs are projected where they are used, the weights' gradients are one product over all positions. Products
go through oneDNN, in the type of an enclosing autocast; states and gates are float32.
"""

from __future__ import annotations

import torch

from clickwise.kernels.autocast import compute_type
from clickwise.kernels.onednn import product, product_of_columns

CHUNK = 2**16  # values of a state taken at a time: 256 KB, and 3 times that for the gates

_sigmoid_backward, _tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward


def recurrence(x_LBE, input_GE, bias_G, weight_GH, inner_bias_H, form, *, attention_LB=None, mask_LB=None,
               every_state=True) -> torch.Tensor:
    """As `clickwise.kernels.augru.recurrence`."""
    if mask_LB is not None and bool(mask_LB.all()):
        mask_LB = None
    return _Recurrence.apply(x_LBE, input_GE, bias_G, weight_GH, inner_bias_H, attention_LB, mask_LB, form, every_state)


def _tanh_(x_CH: torch.Tensor) -> torch.Tensor:
    """tanh in place by the sigmoid, which torch computes ten times faster."""
    return x_CH.mul_(2).sigmoid_().mul_(2).sub_(1)


def _keep(form: str, z_CH, a_C1, mask_C1) -> torch.Tensor:
    """How much of the state stays."""
    if form == "gru":
        keep_CH = z_CH
    elif form == "paper":
        keep_CH = (a_C1 * z_CH).neg_().add_(1)
    else:
        keep_CH = (1 - a_C1) * z_CH
    return keep_CH if mask_C1 is None else keep_CH.masked_fill(~mask_C1, 1.0)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_LBE, input_GE, bias_G, weight_GH, inner_bias_H, attention_LB, mask_LB, form, every_state):
        length, samples, width = *x_LBE.shape[:2], weight_GH.shape[1]
        dtype = compute_type(x_LBE)
        x_LBE, of_input, bias, weight = (tensor.to(dtype) for tensor in (x_LBE, input_GE, bias_G, weight_GH))
        attention = None if attention_LB is None else attention_LB.float()[..., None]
        mask = None if mask_LB is None else mask_LB[..., None]
        ctx.chunks = []  # per chunk: the states before and after every position; gates and reset products by position
        for here in _chunks(samples, width):
            states_LCH = torch.zeros(length + 1, len(x_LBE[0, here]), width)
            gates, inner = [], []
            for t in range(length):
                h_CH = states_LCH[t]
                gates_CG = product(x_LBE[t, here], of_input, bias).float()
                zr, n_CH = gates_CG[:, :2 * width], gates_CG[:, 2 * width:]
                if form == "compat":
                    if t:
                        zr.add_(product(h_CH.to(dtype), weight[:2 * width]))
                    zr.sigmoid_()
                    if t:
                        n_CH.add_(product((gates_CG[:, width:2 * width] * h_CH).to(dtype), weight[2 * width:]))
                    _tanh_(n_CH)
                else:
                    h_CG = product(h_CH.to(dtype), weight) if t else torch.zeros_like(gates_CG)
                    zr.add_(h_CG[:, :2 * width]).sigmoid_()
                    inner_CH = h_CG[:, 2 * width:].float()
                    inner_CH = inner_CH.contiguous() if inner_bias_H is None else inner_CH + inner_bias_H
                    _tanh_(n_CH.addcmul_(gates_CG[:, width:2 * width], inner_CH))
                    inner.append(inner_CH)
                keep_CH = _keep(form, gates_CG[:, :width], None if attention is None else attention[t, here],
                                None if mask is None else mask[t, here])
                torch.lerp(n_CH, h_CH, keep_CH, out=states_LCH[t + 1])  # exact where all is kept
                gates.append(gates_CG)
            ctx.chunks.append((states_LCH, gates, inner))
        ctx.form, ctx.every_state = form, every_state
        ctx.dtypes = [None if given is None else given.dtype
                      for given in (x_LBE, input_GE, bias_G, weight_GH, inner_bias_H, attention_LB)]
        ctx.save_for_backward(x_LBE, of_input, weight, attention, mask)
        if every_state:
            return torch.cat([states_LCH[1:] for states_LCH, _, _ in ctx.chunks], dim=1)
        return torch.cat([states_LCH[-1] for states_LCH, _, _ in ctx.chunks])

    @staticmethod
    def backward(ctx, grad):
        x_LBE, of_input, weight, attention, mask = ctx.saved_tensors
        form, dtype = ctx.form, weight.dtype
        (length, samples, _), width = x_LBE.shape, weight.shape[1]
        grad_x_LBE = torch.empty_like(x_LBE) if ctx.needs_input_grad[0] else None
        grad_input, grad_weight = torch.zeros(of_input.shape), torch.zeros(weight.shape)
        grad_bias, grad_inner_bias = torch.zeros(3 * width), torch.zeros(width)
        grad_a_LB = None if attention is None else torch.empty(length, samples)
        gates_rows, candidate_rows = slice(2 * width), slice(2 * width, None)
        for here, (states_LCH, gates, inner) in zip(_chunks(samples, width), ctx.chunks, strict=True):
            shape = states_LCH[1:].shape
            grad_h_CH = torch.zeros(shape[1:]) if ctx.every_state else grad[here].float().clone()
            # Gradients of z, r and n before σ and tanh: what the input's weights gave. What the recurrent weights gave
            # has the same, but for n, where r stands between; in compat r stands before them, in what they were given.
            of_x_LCG = torch.empty(*shape[:2], 3 * width, dtype=dtype)
            of_h_LCG = of_x_LCG if form == "compat" else torch.empty_like(of_x_LCG)
            reset_LCH = torch.empty(shape, dtype=dtype) if form == "compat" else None
            for t in range(length - 1, -1, -1):
                if ctx.every_state:
                    grad_h_CH.add_(grad[t, here])
                z_CH, r_CH, n_CH = gates[t].split(width, dim=1)
                of_z_CH, of_r_CH, of_n_CH = of_x_LCG[t].split(width, dim=1)
                h_CH = states_LCH[t]
                a_C1 = None if attention is None else attention[t, here]
                mask_C1 = None if mask is None else mask[t, here]
                keep_CH = _keep(form, z_CH, a_C1, mask_C1)
                grad_keep_CH = (h_CH - n_CH).mul_(grad_h_CH)
                if mask_C1 is not None:
                    grad_keep_CH.mul_(mask_C1)
                if form != "gru":
                    grad_a_LB[t, here] = torch.linalg.vecdot(grad_keep_CH, z_CH).neg_()
                    grad_keep_CH.mul_(-a_C1 if form == "paper" else 1 - a_C1)
                of_z_CH.copy_(_sigmoid_backward(grad_keep_CH, z_CH))
                grad_n_CH = _tanh_backward(torch.addcmul(grad_h_CH, grad_h_CH, keep_CH, value=-1), n_CH)
                of_n_CH.copy_(grad_n_CH)
                grad_h_CH.mul_(keep_CH)
                if form == "compat":
                    reset_LCH[t] = r_CH * h_CH
                    grad_reset_CH = product(grad_n_CH.to(dtype), weight[candidate_rows].t()).float()
                    of_r_CH.copy_(_sigmoid_backward(grad_reset_CH * h_CH, r_CH))
                    if t:
                        grad_h_CH.addcmul_(grad_reset_CH, r_CH)
                        grad_h_CH.add_(product(of_x_LCG[t, :, gates_rows], weight[gates_rows].t()))
                else:
                    of_r_CH.copy_(_sigmoid_backward(grad_n_CH * inner[t], r_CH))
                    of_h_LCG[t, :, gates_rows] = of_x_LCG[t, :, gates_rows]
                    of_h_LCG[t, :, candidate_rows] = grad_n_CH.mul_(r_CH)
                    if t:
                        grad_h_CH.add_(product(of_h_LCG[t], weight.t()))
            of_x_VG, x_VE = of_x_LCG.flatten(0, 1), x_LBE[:, here].reshape(-1, x_LBE.shape[2])
            if length > 1:  # before the first position h is 0
                of_h_VG, before_VH = of_h_LCG[1:].flatten(0, 1), states_LCH[1:-1].flatten(0, 1).to(dtype)
                if form == "compat":
                    of_n_VH, reset_VH = of_h_VG[:, candidate_rows], reset_LCH[1:].flatten(0, 1)
                    grad_weight[gates_rows] += product_of_columns(of_h_VG[:, gates_rows], before_VH)
                    grad_weight[candidate_rows] += product_of_columns(of_n_VH, reset_VH)
                else:
                    grad_weight += product_of_columns(of_h_VG, before_VH)
            if inner:
                grad_inner_bias += of_h_LCG[:, :, candidate_rows].sum((0, 1))
            grad_bias += of_x_VG.sum(0)
            grad_input += product_of_columns(of_x_VG, x_VE)
            if grad_x_LBE is not None:
                grad_x_LBE[:, here] = product(of_x_VG, of_input.t()).view(*shape[:2], -1)
        grads = (grad_x_LBE, grad_input, grad_bias, grad_weight, grad_inner_bias, grad_a_LB)
        return *(None if found is None or of is None else found.to(of)
                 for found, of in zip(grads, ctx.dtypes, strict=True)), None, None, None


def _chunks(samples: int, width: int) -> list[slice]:
    step = max(1, CHUNK // width)
    return [slice(first, first + step) for first in range(0, samples, step)]
