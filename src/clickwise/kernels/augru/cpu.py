"""`recurrence` at CPU speed: a cacheful of samples at a time through all positions, and back by hand.

What autograd would do one small operation after another is here a few in place, on gates that are matrices of their
own: parts of a wide one are slower to pass over. Inputs are projected, and the weights' gradients summed, where what
they are made of lies in the cache. Products are in the type of an enclosing autocast; states and gates are float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clickwise.kernels.autocast import compute_type
from clickwise.kernels.cpu_products import add_products_, add_products_of_columns_, add_products_of_one_

CHUNK = 2**17  # values of a state taken at a time by a thread: 512 KB; measured: 2**16 is 5 % slower, 2**15 20 %

_sigmoid_backward_ = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward_ = torch.ops.aten.tanh_backward.grad_input


def recurrence(x_LBE, input_GE, bias_G, weight_GH, inner_bias_H, form, *, attention_LB=None, mask_LB=None,
               every_state=True) -> torch.Tensor:
    """As `clickwise.kernels.augru.recurrence`."""
    if mask_LB is not None and bool(mask_LB.all()):
        mask_LB = None
    return _Recurrence.apply(x_LBE, input_GE, bias_G, weight_GH, inner_bias_H, attention_LB, mask_LB, form, every_state)


class _Recurrence(torch.autograd.Function):
    """Every form moves a state from one end to the other, by a share that is z, scaled by attention:

        paper   from h to n by a z        gru, compat   from n to h by z or (1 − a) z

    At padding the state has to stay h, all bits of it: the scale a is 0 there, or z is 1 with the scale 1.
    """
    # h = 0.5, n = -1, z = 0.25, a = 0.8:
    #   gru      0.25 · 0.5 + 0.75 · (-1) = -0.625
    #   paper    moves by a z = 0.2:               0.8 · 0.5 + 0.2 · (-1) = 0.2
    #   compat   moves back by (1 - a) z = 0.05:   0.05 · 0.5 + 0.95 · (-1) = -0.925
    # Gradients of the paper's form, for 1 of the new state: h has 0.8, n has 0.2, the share 0.2 has n - h = -1.5; of
    # that z has a · (-1.5) = -1.2, and a has z · (-1.5) = -0.375.

    @staticmethod
    def forward(ctx, x_LBE, input_GE, bias_G, weight_GH, inner_bias_H, attention_LB, mask_LB, form, every_state):
        (length, samples, _), width = x_LBE.shape, weight_GH.shape[1]
        ctx.dtypes = [None if given is None else given.dtype
                      for given in (x_LBE, input_GE, bias_G, weight_GH, inner_bias_H, attention_LB)]
        dtype = compute_type(x_LBE)
        x_LBE = x_LBE.to(dtype)
        of_input, weight = input_GE.view(3, width, -1).to(dtype), weight_GH.view(3, width, -1).to(dtype)
        padding_LB1 = None if mask_LB is None else ~mask_LB[..., None]
        scale_LB1 = _scale(form, attention_LB, mask_LB)
        # tanh x = 2 σ(2 x) − 1, and torch's σ is several times faster; twice a weight is exact.
        from_x, bias = of_input.clone(), bias_G.view(3, width).to(dtype, copy=True)
        from_x[2].mul_(2), bias[2].mul_(2)
        to_inner = (weight[2:] * 2, None) if form == "compat" else (weight[2:], _row(inner_bias_H, width, dtype))
        minus_one = torch.tensor(-1.0)
        states_LBH = torch.empty(length, samples, width)
        gates_3LBH = torch.empty(3, length, samples, width)
        inner_LBH = None if form == "compat" else torch.empty(length, samples, width)
        ctx.begun = [_begun(mask_LB, length, here) for here in _chunks(samples, width)]
        for first, last, ends_L in ctx.begun:
            x_L, states_L, gates_L = _by_position(first, last, x_LBE, states_LBH, gates_3LBH.transpose(0, 1))
            inner_L, padding_L, scale_L = _by_position(first, last, inner_LBH, padding_LB1, scale_LB1)
            before_L = [torch.zeros_like(states_L[0]), *states_L]
            for t, end in enumerate(ends_L):
                rows = end - first
                if end < last:
                    states_L[t][rows:] = 0.0
                    if rows == 0:
                        continue
                x_CE, h_CH, gates_3CH = x_L[t][:rows], before_L[t][:rows], gates_L[t][:, :rows]
                zr_2CH, n_1CH = gates_3CH.split((2, 1))
                z_CH, r_CH, n_CH = gates_3CH.unbind()
                add_products_of_one_(gates_3CH, x_CE, from_x, bias)
                if t:
                    add_products_of_one_(zr_2CH, h_CH, weight[:2])
                zr_2CH.sigmoid_()
                if form != "compat":
                    inner_1CH = inner_L[t][:rows].unsqueeze(0)
                    if t:
                        add_products_of_one_(inner_1CH, h_CH, *to_inner)
                    else:
                        inner_1CH.copy_(to_inner[1])
                    n_1CH.addcmul_(r_CH, inner_1CH, value=2)
                elif t:
                    add_products_of_one_(n_1CH, r_CH * h_CH, to_inner[0])
                torch.add(minus_one, n_CH.sigmoid_(), alpha=2, out=n_CH)
                if padding_L and form != "paper":
                    z_CH.masked_fill_(padding_L[t][:rows], 1.0)
                share_CH = z_CH * scale_L[t][:rows] if scale_L else z_CH
                torch.lerp(*((h_CH, n_CH) if form == "paper" else (n_CH, h_CH)), share_CH, out=states_L[t][:rows])
        ctx.form, ctx.every_state = form, every_state
        ctx.save_for_backward(x_LBE, of_input, weight, scale_LB1, mask_LB, states_LBH, gates_3LBH, inner_LBH)
        return states_LBH if every_state else states_LBH[-1].clone()

    @staticmethod
    def backward(ctx, grad):
        x_LBE, of_input, weight, scale_LB1, mask_LB, states_LBH, gates_3LBH, inner_LBH = ctx.saved_tensors
        form, dtype = ctx.form, weight.dtype
        length, samples, width = states_LBH.shape
        grad_x_LBE = torch.zeros(x_LBE.shape) if ctx.needs_input_grad[0] else None
        grad_input, grad_weight = torch.zeros(of_input.shape), torch.zeros(weight.shape)
        grad_bias, grad_inner_bias = torch.zeros(3, width), torch.zeros(width)
        grad_scale_LB = None if scale_LB1 is None else torch.zeros(length, samples)
        to_x, to_h = of_input.roll(1, 0).transpose(1, 2), weight.transpose(1, 2)  # to_x: n, z, r
        for first, last, ends_L in ctx.begun:
            x_L, states_L, gates_L = _by_position(first, last, x_LBE, states_LBH, gates_3LBH.transpose(0, 1))
            inner_L, scale_L, grad_scale_L = _by_position(first, last, inner_LBH, scale_LB1, grad_scale_LB)
            grad_x_L, grad_L = _by_position(first, last, grad_x_LBE, grad if ctx.every_state else None)
            grad_h_CH = torch.zeros_like(states_L[0]) if ctx.every_state else grad[first:last].clone()
            before_L = [torch.zeros_like(grad_h_CH), *states_L]
            # Gradients of n, z and r before tanh and σ, and of what the recurrent weights gave to n: r is between.
            room_4CH = torch.empty(4, *grad_h_CH.shape)
            for t in range(length - 1, -1, -1):
                rows = ends_L[t] - first
                if rows == 0:
                    break
                x_CE, h_CH, gates_3CH = x_L[t][:rows], before_L[t][:rows], gates_L[t][:, :rows]
                of_4CH, grad_h_CH = room_4CH[:, :rows], grad_h_CH[:rows]
                of_n_CH, of_z_CH, of_r_CH, of_inner_CH = of_4CH.unbind()
                of_x_3CH, of_h_3CH = of_4CH[:3], of_4CH[1:]
                if grad_L:
                    grad_h_CH.add_(grad_L[t][:rows])
                z_CH, r_CH, n_CH = gates_3CH.unbind()
                start_CH, end_CH = (h_CH, n_CH) if form == "paper" else (n_CH, h_CH)
                grad_share_CH = (end_CH - start_CH).mul_(grad_h_CH)
                if scale_L:
                    scale_C1 = scale_L[t][:rows]
                    torch.linalg.vecdot(grad_share_CH, z_CH, out=grad_scale_L[t][:rows])
                    grad_share_CH.mul_(scale_C1)
                    of_end_CH = (z_CH * scale_C1).mul_(grad_h_CH)
                else:
                    of_end_CH = grad_h_CH * z_CH
                _sigmoid_backward_(grad_share_CH, z_CH, grad_input=of_z_CH)
                of_start_CH = grad_h_CH.sub_(of_end_CH)
                grad_h_CH, grad_n_CH = (of_start_CH, of_end_CH) if form == "paper" else (of_end_CH, of_start_CH)
                _tanh_backward_(grad_n_CH, n_CH, grad_input=of_n_CH)
                if form == "compat":  # r stands before the weights, in what they are given
                    grad_reset_CH = add_products_(grad_n_CH.zero_(), of_4CH[:1], to_h[2:])
                    _sigmoid_backward_(grad_reset_CH * h_CH, r_CH, grad_input=of_r_CH)
                    if t:
                        grad_h_CH.addcmul_(grad_reset_CH, r_CH)
                        add_products_(grad_h_CH, of_4CH[1:3], to_h[:2])
                        add_products_of_columns_(grad_weight[:2], of_4CH[1:3], h_CH.to(dtype))
                        add_products_of_columns_(grad_weight[2:], of_4CH[:1], (r_CH * h_CH).to(dtype))
                else:
                    _sigmoid_backward_(of_n_CH * inner_L[t][:rows], r_CH, grad_input=of_r_CH)
                    torch.mul(of_n_CH, r_CH, out=of_inner_CH)
                    grad_inner_bias += of_inner_CH.sum(0)
                    if t:
                        add_products_(grad_h_CH, of_h_3CH, to_h)
                        add_products_of_columns_(grad_weight, of_h_3CH, h_CH.to(dtype))
                add_products_of_columns_(grad_input, of_x_3CH, x_CE)
                grad_bias += of_x_3CH.sum(1)
                if grad_x_L:
                    add_products_(grad_x_L[t][:rows], of_x_3CH, to_x)
        grad_input, grad_bias = grad_input.roll(-1, 0), grad_bias.roll(-1, 0)
        grad_a_LB = grad_scale_LB
        if grad_a_LB is not None:
            grad_a_LB = grad_a_LB if form == "paper" else grad_a_LB.neg_()
            grad_a_LB = grad_a_LB if mask_LB is None else grad_a_LB.mul_(mask_LB)
        grads = (grad_x_LBE, grad_input.view(3 * width, -1), grad_bias.view(-1), grad_weight.view(3 * width, -1),
                 grad_inner_bias, grad_a_LB)
        return *(None if found is None or of is None else found.to(of)
                 for found, of in zip(grads, ctx.dtypes, strict=True)), None, None, None


def _scale(form: str, attention_LB, mask_LB) -> torch.Tensor | None:
    """What z is multiplied by, [L, B, 1]; None: nothing."""
    if attention_LB is None:
        return None
    a_LB = attention_LB.float() if mask_LB is None else attention_LB.float() * mask_LB
    return (a_LB if form == "paper" else 1 - a_LB)[..., None]


def _row(bias_H: torch.Tensor | None, width: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(1, width, dtype=dtype) if bias_H is None else bias_H.to(dtype).unsqueeze(0)


def _begun(mask_LB: torch.Tensor | None, length: int, here: slice) -> tuple[int, int, list[int]]:
    """(first, last, by position the end of those samples of a part of the batch whose history has begun): the state of
    all after them is 0. Where long histories come first, what is padded in front costs nothing."""
    if mask_LB is None:
        return here.start, here.stop, [here.stop] * length
    begun_LC = mask_LB[:, here].cummax(0).values
    end_L = (begun_LC * torch.arange(1, begun_LC.shape[1] + 1)).amax(1)
    return here.start, here.stop, (end_L + here.start).tolist()


def _by_position(first: int, last: int, *tensors: torch.Tensor | None) -> list[Sequence[torch.Tensor]]:
    """Of every tensor [L, (any,) B, any] the samples from `first` to before `last`, a view for each position; nothing
    for None. One call in place of one at each position: with small batches these count."""
    return [() if of_LB is None else of_LB.narrow(-2 if of_LB.dim() > 2 else 1, first, last - first).unbind()
            for of_LB in tensors]


def _chunks(samples: int, width: int) -> list[slice]:
    """Parts of the samples, about equally large."""
    parts = max(1, -(-samples * width // (CHUNK * torch.get_num_threads())))
    step = max(1, -(-samples // parts))
    return [slice(first, min(first + step, samples)) for first in range(0, samples, step)]
