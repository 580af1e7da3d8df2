"""`recurrence` at CPU speed: a cacheful of samples at a time through all positions, and back by hand.

What autograd would do one small operation after another is here a few in place. Only what a state needs from the one
before goes position by position: inputs are projected, and the weights' gradients summed, several positions at a time,
so that a small batch makes few products and a large one still has in the cache what they are made of. To that end the
rows of all positions, samples that have begun alone, stand one after another: what is padded in front is not there.
Products are in the type of an enclosing autocast; states and gates are float32.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import torch

from clickwise.kernels.autocast import compute_type
from clickwise.kernels.cpu_products import add_product_, add_product_of_columns_, product

CHUNK = 2**17  # values of a state taken at a time by a thread: 512 KB; measured: 2**16 is 5 % slower, 2**15 20 %
SPAN = 1024  # rows of several positions that are projected, or summed over, at once

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

    Back, the gradient of a state goes to n, z, r and U h by factors that do not depend on it.

    R counts the rows of a chunk, position after position. A row of `gates_RQ` holds n, z, r and what r meets: in gru
    and paper U h, in compat r ⊙ h. So the input's part is its first three quarters, and that of the state in gru and
    paper its last three: one product each. Gradients (before tanh and σ) stand in the same order.
    """
    # h = 0.5, n = -1, z = 0.25, a = 0.8:
    #   gru      0.25 · 0.5 + 0.75 · (-1) = -0.625
    #   paper    moves by a z = 0.2:               0.8 · 0.5 + 0.2 · (-1) = 0.2
    #   compat   moves back by (1 - a) z = 0.05:   0.05 · 0.5 + 0.95 · (-1) = -0.925
    # Gradients of the paper's form, for 1 of the new state: h has 0.8, n has 0.2, the share 0.2 has n - h = -1.5; of
    # that z has a · (-1.5) = -1.2, and a has z · (-1.5) = -0.375.

    @staticmethod
    def forward(ctx, x_LBE, input_GE, bias_G, weight_GH, inner_bias_H, attention_LB, mask_LB, form, every_state):
        (length, samples, inputs), width = x_LBE.shape, weight_GH.shape[1]
        ctx.dtypes = [None if given is None else given.dtype
                      for given in (x_LBE, input_GE, bias_G, weight_GH, inner_bias_H, attention_LB)]
        dtype = compute_type(x_LBE)
        of_x, weight = input_GE.view(3, width, -1).roll(1, 0).to(dtype), weight_GH.to(dtype)
        # tanh x = 2 σ(2 x) − 1, and torch's σ is several times faster; twice a weight is exact.
        from_x, bias_3H = of_x.clone(), bias_G.view(3, width).roll(1, 0).to(dtype, copy=True)
        from_x[0].mul_(2), bias_3H[0].mul_(2)
        from_x, bias, to_n = from_x.view(3 * width, -1), bias_3H.view(-1), weight[2 * width:] * 2
        scale_LB, padding_LB, minus_one = _scale(form, attention_LB, mask_LB), None, torch.tensor(-1.0)
        if mask_LB is not None and form != "paper":
            padding_LB = ~mask_LB
        out = None if every_state else torch.zeros(samples, width)
        ctx.chunks, saved = list(_chunks(mask_LB, length, samples, width)), []
        for chunk in ctx.chunks:
            rows_T, last = chunk.rows_T, len(chunk.rows_T) - 1
            x_RE, scale_R, padding_R = (chunk.packed(tensor) for tensor in (x_LBE.to(dtype), scale_LB, padding_LB))
            gates_RQ = torch.empty(chunk.rows, 4 * width)
            states_RH = torch.empty(chunk.rows + rows_T[-1], width)  # before every position, and after the last
            saved += [x_RE, scale_R, gates_RQ, states_RH]
            h_T = states_RH.split_with_sizes([*rows_T, rows_T[-1]])
            h_T[0].zero_()
            n_T, z_T, r_T, inner_T = _quarters(gates_RQ, rows_T)
            zr_T, of_h_T = (gates_RQ[:, width:end].split_with_sizes(rows_T) for end in (3 * width, 4 * width))
            scale_T = None if scale_R is None else scale_R.unsqueeze(1).split_with_sizes(rows_T)
            padding_T = None if padding_R is None or not bool(padding_R.any()) else \
                padding_R.unsqueeze(1).split_with_sizes(rows_T)
            for positions, here in chunk.spans():
                product(x_RE[here], from_x, bias, out=gates_RQ[here, :3 * width])
                if form != "compat":
                    gates_RQ[here, 3 * width:] = 0.0 if inner_bias_H is None else inner_bias_H
                for t in positions:
                    h, n, z, r, inner, zr, rows = h_T[t], n_T[t], z_T[t], r_T[t], inner_T[t], zr_T[t], rows_T[t]
                    if t and rows_T[t - 1] < rows:
                        h[rows_T[t - 1]:] = 0.0
                    if t:
                        if form == "compat":
                            add_product_(zr, h, weight[:2 * width])
                        else:
                            add_product_(of_h_T[t], h, weight)
                    zr.sigmoid_()
                    if form != "compat":
                        n.addcmul_(r, inner, value=2)
                    else:
                        torch.mul(r, h, out=inner)
                        if t:
                            add_product_(n, inner, to_n)
                    torch.add(minus_one, n.sigmoid_(), alpha=2, out=n)
                    if padding_T is not None:
                        z.masked_fill_(padding_T[t], 1.0)
                    share = z if scale_T is None else z * scale_T[t]
                    after = h_T[t + 1] if t == last or rows_T[t + 1] == rows else h_T[t + 1][:rows]
                    torch.lerp(*((h, n) if form == "paper" else (n, h)), share, out=after)
            if every_state:
                out = chunk.unpacked(_after(h_T, rows_T, states_RH), out, (length, samples))
            else:
                out[chunk.first:chunk.first + rows_T[-1]] = h_T[-1]
        ctx.form, ctx.every_state, ctx.shape = form, every_state, (length, samples, inputs, width)
        ctx.save_for_backward(of_x, weight, mask_LB, *saved)
        return torch.zeros(length, samples, width) if out is None else out

    @staticmethod
    def backward(ctx, grad):
        of_x, weight, mask_LB, *saved = ctx.saved_tensors
        form, (length, samples, inputs, width) = ctx.form, ctx.shape
        grad_x_LBE = grad_scale_LB = None
        grad_input, grad_weight = torch.zeros(of_x.view(3 * width, -1).shape), torch.zeros(weight.shape)
        grad_bias = torch.zeros(4 * width)
        to_x, to_h = of_x.view(3 * width, -1).t(), weight.t()
        from_z_r, from_n = to_h[:, :2 * width], to_h[:, 2 * width:]
        of_4 = 3 * width if form == "compat" else 4 * width  # columns that are gradients
        for number, chunk in enumerate(ctx.chunks):
            rows_T = chunk.rows_T
            x_RE, scale_R, gates_RQ, states_RH = saved[4 * number:4 * number + 4]
            grad_scale_R = None if scale_R is None else torch.empty(chunk.rows)
            grad_x_RE = torch.empty(chunk.rows, inputs) if ctx.needs_input_grad[0] else None
            grad_T = chunk.packed(grad).split_with_sizes(rows_T) if ctx.every_state else None
            grad_h = grad_T[-1] if grad_T else grad[chunk.first:chunk.first + rows_T[-1]]
            for positions, here in reversed(list(chunk.spans())):
                # All but the gradient of the state is known of all positions: it has yet to be multiplied by that.
                h, (n, z, r, inner) = states_RH[here], gates_RQ[here].chunk(4, dim=1)
                scale = None if scale_R is None else scale_R[here].unsqueeze(1)
                of_RQ = torch.empty(here.stop - here.start, 4 * width)
                of_n, of_z, of_r, of_inner = of_RQ.chunk(4, dim=1)
                way = n - h if form == "paper" else h - n
                share = z if scale is None else z * scale
                rest = 1 - share
                to_end, keep = (share, rest) if form == "paper" else (rest, share)
                _tanh_backward_(to_end, n, grad_input=of_n)
                _sigmoid_backward_(way if scale is None else way * scale, z, grad_input=of_z)
                if form == "compat":  # r stands before the weights, in what they are given
                    _sigmoid_backward_(h, r, grad_input=of_r)
                else:
                    _sigmoid_backward_(of_n * inner, r, grad_input=of_r)
                    torch.mul(of_n, r, out=of_inner)
                rows_here = rows_T[positions.start:positions.stop]
                of_n_T, of_4_T, of_next_T, keep_T, r_T = (part.split_with_sizes(rows_here) for part in (
                    of_n, of_RQ.view(-1, 4, width), of_RQ[:, width:of_4], keep, r))
                grads = []  # of the states, backwards
                for t in reversed(positions):
                    at, grad_C1H = t - positions.start, grad_h.unsqueeze(1)
                    grads.append(grad_h)
                    if form == "compat":
                        of_4_T[at][:, :2].mul_(grad_C1H)
                        grad_reset = product(of_n_T[at].to(weight.dtype), from_n).float()
                        of_4_T[at][:, 2].mul_(grad_reset)
                    else:
                        of_4_T[at].mul_(grad_C1H)
                    if t == 0:
                        break
                    kept, of_before, before = keep_T[at], of_next_T[at], rows_T[t - 1]
                    if before < rows_T[t]:
                        grad_h, kept, of_before = grad_h[:before], kept[:before], of_before[:before]
                    grad_h = torch.addcmul(grad_T[t - 1], grad_h, kept) if grad_T else grad_h * kept
                    if form == "compat":
                        grad_h.addcmul_(grad_reset[:before], r_T[at][:before])
                    add_product_(grad_h, of_before, from_z_r if form == "compat" else to_h)
                if scale is not None:
                    torch.linalg.vecdot(way.mul_(z), torch.cat(grads[::-1]), out=grad_scale_R[here])
                h_RH = states_RH[here].to(weight.dtype)
                if form == "compat":
                    add_product_of_columns_(grad_weight[:2 * width], of_RQ[:, width:3 * width], h_RH)
                    add_product_of_columns_(grad_weight[2 * width:], of_RQ[:, :width],
                                            gates_RQ[here, 3 * width:].to(weight.dtype))
                else:
                    add_product_of_columns_(grad_weight, of_RQ[:, width:], h_RH)
                add_product_of_columns_(grad_input, of_RQ[:, :3 * width], x_RE[here])
                grad_bias[:of_4] += of_RQ[:, :of_4].sum(0)
                if grad_x_RE is not None:
                    product(of_RQ[:, :3 * width].to(weight.dtype), to_x, out=grad_x_RE[here])
            if grad_x_RE is not None:
                grad_x_LBE = chunk.unpacked(grad_x_RE, grad_x_LBE, (length, samples))
            if grad_scale_R is not None:
                grad_scale_LB = chunk.unpacked(grad_scale_R, grad_scale_LB, (length, samples))
        if not ctx.chunks:  # no sample begins
            grad_x_LBE = torch.zeros(length, samples, inputs)
            grad_scale_LB = None if ctx.dtypes[5] is None else torch.zeros(length, samples)
        if grad_scale_LB is not None:
            grad_scale_LB = grad_scale_LB if form == "paper" else grad_scale_LB.neg_()
            grad_scale_LB = grad_scale_LB if mask_LB is None else grad_scale_LB.mul_(mask_LB)
        grad_bias_3H, grad_inner_bias = grad_bias[:3 * width].view(3, width), grad_bias[3 * width:]
        grads = (grad_x_LBE, grad_input.view(3, width, -1).roll(-1, 0).view(3 * width, -1),
                 grad_bias_3H.roll(-1, 0).view(-1), grad_weight, grad_inner_bias, grad_scale_LB)
        return *(None if found is None or of is None else found.to(of)
                 for found, of in zip(grads, ctx.dtypes, strict=True)), None, None, None


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """Samples from `first` on, taken through all positions at once; of each position only those that have begun.

    rows_T   at every position where a sample has begun: how many of the chunk's, its first
    index_R  the row of [L, B] that each row is; None: all, in their order
    """

    first: int
    rows_T: tuple[int, ...]
    index_R: torch.Tensor | None

    @property
    def rows(self) -> int:
        return sum(self.rows_T)

    def packed(self, of_LB: torch.Tensor | None) -> torch.Tensor | None:
        """[R, …] of [L, B, …]."""
        if of_LB is None:
            return None
        of_V = of_LB.flatten(0, 1)
        return of_V if self.index_R is None else of_V.index_select(0, self.index_R)

    def unpacked(self, of_R: torch.Tensor, out_LB: torch.Tensor | None, shape: tuple[int, int]) -> torch.Tensor:
        """[L, B, …] with these rows: `out`, None: all others 0; or where they are all, themselves."""
        if self.index_R is None:
            return of_R.view(*shape, *of_R.shape[1:])
        out_LB = of_R.new_zeros(*shape, *of_R.shape[1:]) if out_LB is None else out_LB
        out_LB.flatten(0, 1).index_copy_(0, self.index_R, of_R)
        return out_LB

    def spans(self) -> Iterator[tuple[range, slice]]:
        """(positions, their rows): as many positions as `SPAN` rows have, one at least."""
        end_T, at, first = [0, *itertools.accumulate(self.rows_T)], 0, 0
        while at < len(self.rows_T):
            to = at + 1
            while to < len(self.rows_T) and end_T[to + 1] - first <= SPAN:
                to += 1
            yield range(at, to), slice(first, end_T[to])
            at, first = to, end_T[to]


def _chunks(mask_LB: torch.Tensor | None, length: int, samples: int, width: int) -> Iterator[_Chunk]:
    """Parts of the samples, about equally large; none of those of which no sample begins.

    What stands before a part's last sample that has begun counts as begun too: in any order right, and cheap where long
    histories come first. For 4 samples and the mask [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]] rows_T is (1, 2, 3).
    """
    parts = max(1, -(-samples * width // (CHUNK * torch.get_num_threads())))
    step = max(1, -(-samples // parts))
    for first in range(0, samples, step):
        last = min(first + step, samples)
        if mask_LB is None:
            index_LC = None if step >= samples else torch.arange(length * samples).view(length, samples)[:, first:last]
            yield _Chunk(first, (last - first,) * length, None if index_LC is None else index_LC.flatten())
            continue
        begun_LC = mask_LB[:, first:last].cummax(0).values
        rows_L = (begun_LC * torch.arange(1, last - first + 1)).amax(1)
        rows_T = tuple(rows for rows in rows_L.tolist() if rows)
        if rows_T:
            is_row_LB = torch.zeros_like(mask_LB)
            is_row_LB[:, first:last] = torch.arange(last - first) < rows_L[:, None]
            yield _Chunk(first, rows_T, is_row_LB.flatten().nonzero().squeeze(1))


def _quarters(of_RQ: torch.Tensor, rows_T) -> list[tuple[torch.Tensor, ...]]:
    """The four parts of the columns, each position by position."""
    return [part_RH.split_with_sizes(rows_T) for part_RH in of_RQ.chunk(4, dim=1)]


def _after(h_T, rows_T, states_RH: torch.Tensor) -> torch.Tensor:
    """The states after every position [R, H]."""
    if rows_T[0] == rows_T[-1]:
        return states_RH[rows_T[0]:]
    return torch.cat([h[:rows] for h, rows in zip(h_T[1:], rows_T, strict=True)])


def _scale(form: str, attention_LB, mask_LB) -> torch.Tensor | None:
    """What z is multiplied by, [L, B]; None: nothing."""
    if attention_LB is None:
        return None
    a_LB = attention_LB.float() if mask_LB is None else attention_LB.float() * mask_LB
    return a_LB if form == "paper" else 1 - a_LB
