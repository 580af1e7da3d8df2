"""`recurrence` at CPU speed: a cacheful of samples at a time through all positions, and back by hand.

What autograd would do one small operation after another is here a few in place: the gates stay where they are computed,
the weights' gradient is one product over all positions. Products go through oneDNN, in the type of an enclosing
autocast; states and gates are float32.
"""

from __future__ import annotations

import torch

from clickwise.kernels.onednn import compute_type, product, product_of_columns

CHUNK = 2**16  # values of a state taken at a time: 256 KB, and 3 times that for the gates


def recurrence(x_LBG, weight_GH, bias_H, form, *, attention_LB=None, mask_LB=None, every_state=True) -> torch.Tensor:
    """As `clickwise.kernels.augru.recurrence`."""
    return _Recurrence.apply(x_LBG, weight_GH, bias_H, attention_LB, mask_LB, form, every_state)


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
    def forward(ctx, x_LBG, weight_GH, bias_H, attention_LB, mask_LB, form, every_state):
        length, samples, width = *x_LBG.shape[:2], weight_GH.shape[1]
        dtype = compute_type(x_LBG)
        weight = weight_GH.to(dtype)
        bias = None if bias_H is None else bias_H.float()
        attention = None if attention_LB is None else attention_LB.float()[..., None]
        mask = None if mask_LB is None else mask_LB[..., None]
        gates_LBG = torch.empty(x_LBG.shape)
        states_LBH = torch.empty(length, samples, width)
        # Of the forms with the reset behind the product: that product, which r multiplies.
        inner_LBH = None if form == "compat" else torch.empty(length, samples, width)
        step = max(1, CHUNK // width)
        for first in range(0, samples, step):
            here = slice(first, first + step)
            h_CH = torch.zeros(states_LBH[0, here].shape)
            for t in range(length):
                x_CG, gates_CG = x_LBG[t, here], gates_LBG[t, here]
                zr, n_CH = gates_CG[:, :2 * width], gates_CG[:, 2 * width:]
                z_CH, r_CH = gates_CG[:, :width], gates_CG[:, width:2 * width]
                if form == "compat":
                    torch.add(x_CG[:, :2 * width], product(h_CH.to(dtype), weight[:2 * width]), out=zr).sigmoid_()
                    inner_CH = product((r_CH * h_CH).to(dtype), weight[2 * width:])
                    torch.add(x_CG[:, 2 * width:], inner_CH, out=n_CH).tanh_()
                else:
                    h_CG = product(h_CH.to(dtype), weight)
                    torch.add(x_CG[:, :2 * width], h_CG[:, :2 * width], out=zr).sigmoid_()
                    inner_CH = inner_LBH[t, here]
                    if bias is None:
                        inner_CH.copy_(h_CG[:, 2 * width:])
                    else:
                        torch.add(h_CG[:, 2 * width:], bias, out=inner_CH)
                    torch.addcmul(x_CG[:, 2 * width:].float(), r_CH, inner_CH, out=n_CH).tanh_()
                keep_CH = _keep(form, z_CH, None if attention is None else attention[t, here],
                                None if mask is None else mask[t, here])
                h_CH = torch.lerp(n_CH, h_CH, keep_CH, out=states_LBH[t, here])  # exact where all is kept
        ctx.form, ctx.every_state, ctx.dtype = form, every_state, dtype
        ctx.dtypes = [None if given is None else given.dtype for given in (x_LBG, weight_GH, bias_H, attention_LB)]
        ctx.save_for_backward(weight, gates_LBG, states_LBH, inner_LBH, attention, mask)
        return states_LBH if every_state else states_LBH[-1].clone()

    @staticmethod
    def backward(ctx, grad):
        weight, gates_LBG, states_LBH, inner_LBH, attention, mask = ctx.saved_tensors
        form, dtype = ctx.form, ctx.dtype
        length, samples, width = states_LBH.shape
        grad_x_LBG = torch.empty(gates_LBG.shape, dtype=ctx.dtypes[0])
        grad_weight = torch.zeros(weight.shape)
        grad_bias = torch.zeros(width)
        grad_a_LB = None if attention is None else torch.empty(length, samples)
        columns = weight.t()  # [H, G]
        step = max(1, CHUNK // width)
        for first in range(0, samples, step):
            here = slice(first, first + step)
            grad_h_CH = torch.zeros(states_LBH[0, here].shape) if ctx.every_state else grad[here].float().clone()
            # The gradients of what the weights gave, and what they were given, of all positions below one another.
            of_product_LCG = torch.empty(length, *grad_x_LBG[0, here].shape, dtype=dtype)
            before_LCH = torch.empty(length, *grad_h_CH.shape, dtype=dtype)
            reset_LCH = torch.empty_like(before_LCH) if form == "compat" else None
            for t in range(length - 1, -1, -1):
                if ctx.every_state:
                    grad_h_CH.add_(grad[t, here])
                z_CH, r_CH, n_CH = gates_LBG[t, here].split(width, dim=1)
                h_CH = states_LBH[t - 1, here] if t else torch.zeros(grad_h_CH.shape)
                a_C1 = None if attention is None else attention[t, here]
                mask_C1 = None if mask is None else mask[t, here]
                keep_CH = _keep(form, z_CH, a_C1, mask_C1)
                grad_keep_CH = (h_CH - n_CH).mul_(grad_h_CH)
                if mask_C1 is not None:
                    grad_keep_CH.mul_(mask_C1)
                grad_n_CH = torch.addcmul(grad_h_CH, grad_h_CH, keep_CH, value=-1)
                grad_h_CH.mul_(keep_CH)
                of_product_CG = of_product_LCG[t]
                before_LCH[t].copy_(h_CH)
                if form != "gru":
                    grad_a_LB[t, here] = -torch.linalg.vecdot(grad_keep_CH, z_CH)
                    grad_keep_CH.mul_(-a_C1 if form == "paper" else 1 - a_C1)
                grad_n_CH = torch.ops.aten.tanh_backward(grad_n_CH, n_CH)
                grad_x_LBG[t, here, 2 * width:] = grad_n_CH
                grad_z_CH = torch.ops.aten.sigmoid_backward(grad_keep_CH, z_CH)
                of_product_CG[:, :width] = grad_z_CH
                if form == "compat":
                    of_product_CG[:, 2 * width:] = grad_n_CH
                    torch.mul(r_CH, h_CH, out=(reset_CH := torch.empty_like(h_CH)))
                    reset_LCH[t].copy_(reset_CH)
                    grad_reset_CH = product(of_product_CG[:, 2 * width:].contiguous(), columns[:, 2 * width:]).float()
                    grad_r_CH = torch.ops.aten.sigmoid_backward(grad_reset_CH * h_CH, r_CH)
                    of_product_CG[:, width:2 * width] = grad_r_CH
                    grad_x_LBG[t, here, :2 * width] = of_product_CG[:, :2 * width]
                    if t:
                        grad_h_CH.addcmul_(grad_reset_CH, r_CH)
                        grad_h_CH.add_(product(of_product_CG[:, :2 * width].contiguous(), columns[:, :2 * width]))
                else:
                    grad_r_CH = torch.ops.aten.sigmoid_backward(grad_n_CH * inner_LBH[t, here], r_CH)
                    of_product_CG[:, width:2 * width] = grad_r_CH
                    grad_x_LBG[t, here, :2 * width] = of_product_CG[:, :2 * width]
                    torch.mul(grad_n_CH, r_CH, out=grad_n_CH)
                    of_product_CG[:, 2 * width:] = grad_n_CH
                    grad_bias.add_(grad_n_CH.sum(0))
                    if t:
                        grad_h_CH.add_(product(of_product_CG, columns))
            of_product_VG, before_VH = of_product_LCG.flatten(0, 1), before_LCH.flatten(0, 1)
            if form == "compat":
                grad_weight[:2 * width] += product_of_columns(of_product_VG[:, :2 * width], before_VH)
                grad_weight[2 * width:] += product_of_columns(of_product_VG[:, 2 * width:], reset_LCH.flatten(0, 1))
            else:
                grad_weight += product_of_columns(of_product_VG, before_VH)
        of_x, of_weight, of_bias, of_attention = ctx.dtypes
        return (grad_x_LBG, grad_weight.to(of_weight), None if of_bias is None else grad_bias.to(of_bias),
                None if of_attention is None else grad_a_LB.to(of_attention), None, None, None)
