"""Attention of a target item to the items of a history.

Padding is where `mask_BL` is false, and gets the weight 0, exactly. Scores and softmax are float32 under autocast too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from clickwise.kernels import gpu
from clickwise.layers.activation import Activation
from clickwise.layers.scorer import Linear, Scorer


def may_wait(tensor: torch.Tensor) -> bool:
    """Whether the next operations may depend on the tensor's values: a GPU would be waited for, a graph cannot."""
    if torch.compiler.is_compiling():  # first: there a size is no number
        return False
    return tensor.device.type == "cpu" and not gpu.runs_on(tensor.device) and tensor.numel() > 0


def masked_softmax(score_BL: torch.Tensor, mask_BL: torch.Tensor, *, dim: int = -1,
                   empty: Literal["zeros", "uniform"] = "zeros") -> torch.Tensor:
    """Softmax over the positions of the mask, float32; where it has none, zeros, or the same for every position."""
    # Adding a number that swallows every score: faster than filling, whose gradient would have to be filled, too.
    away_BL = torch.zeros_like(mask_BL, dtype=torch.float32).masked_fill_(~mask_BL, torch.finfo(torch.float32).min)
    weight_BL = (score_BL.float() + away_BL).softmax(dim)
    return weight_BL if empty == "uniform" else weight_BL * mask_BL.any(dim, keepdim=True)


def dots(query_BE: torch.Tensor, keys_BLE: torch.Tensor) -> torch.Tensor:
    """Inner product of every key with its sample's query, float32 [B, L] even under autocast: a ranking by products
    of bf16 would be full of ties."""
    with torch.autocast(keys_BLE.device.type, enabled=False):
        return torch.bmm(keys_BLE.float(), query_BE.float().unsqueeze(2)).squeeze(2)


def weighted_sum(weight_BL: torch.Tensor, values_BLE: torch.Tensor) -> torch.Tensor:
    """Σ over L of weight · value, [B, E]; weights [B, K, L] give K sums [B, K, E]."""
    with torch.autocast(values_BLE.device.type, enabled=False):
        weight_BKL = weight_BL if weight_BL.dim() == 3 else weight_BL.unsqueeze(1)
        sum_BKE = torch.bmm(weight_BKL.to(values_BLE.dtype), values_BLE)
    return sum_BKE if weight_BL.dim() == 3 else sum_BKE.squeeze(1)


def attend(query_BQE: torch.Tensor, items_BLE: torch.Tensor,
           weights_of: Callable[[torch.Tensor, slice], torch.Tensor]) -> torch.Tensor:
    """K weighted sums of a sample's items [B, K, E]; float32, under autocast too.

    `weights_of` makes weights [C, K, L] of the inner products of every query with every item [C, Q, L], for the samples
    that its second argument names. It has no parameters: none would learn.
    The same as two products with autograd between; but the items, by far the largest here, are read once for all
    queries and sums, on a CPU while they lie in its cache, and their gradient is written once.
    """
    with torch.autocast(items_BLE.device.type, enabled=False):
        query_BQE, items_BLE = query_BQE.float(), items_BLE.float()
        if torch.compiler.is_compiling():  # a graph holds for any number of samples
            weight_BKL = weights_of(torch.bmm(query_BQE, items_BLE.transpose(1, 2)), slice(None))
            return torch.bmm(weight_BKL, items_BLE)
        # Inside of the function gradients are always off, and `needs_input_grad` is true under `no_grad` too.
        return _Attend.apply(query_BQE, items_BLE, weights_of, torch.is_grad_enabled())


AT_ONCE = 128  # samples that a CPU's thread takes at a time
WHOLE = 8  # rows: where L is summed over, a CPU's products are slower of fewer


# One sample with the items (1, 0) and (0, 2), the query (1, 1), and weights that are the scores as they are:
#   forward      scores (1·1 + 1·0, 1·0 + 1·2) = (1, 2); the sum is 1·(1, 0) + 2·(0, 2) = (1, 4)
#   backward     for a gradient (1, 1) of the sum: of each weight (1, 1)·item, so (1, 2), and of each score the same
#   the query    1·(1, 0) + 2·(0, 2) = (1, 4)
#   the items    what comes through the score and through the weight: 1·(1, 1) + 1·(1, 1) = (2, 2), and (4, 4)
# Of 300 samples one thread takes 0 to 127, then 128 to 255, then 256 to 299.
class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query_BQE, items_BLE, weights_of, with_grad):
        learns = with_grad and any(ctx.needs_input_grad)
        sums, ctx.between = [], []
        for here in _parts(items_BLE):
            items_CLE = items_BLE[here]
            score_CQL = torch.bmm(query_BQE[here], items_CLE.transpose(1, 2))
            with torch.set_grad_enabled(learns):
                weight_CKL = weights_of(score_CQL.requires_grad_(learns), here)
            sums.append(torch.bmm(_whole(weight_CKL.detach()), items_CLE)[:, :weight_CKL.shape[1]])
            if learns:
                ctx.between.append((here, score_CQL, weight_CKL))  # a graph of their own
        ctx.save_for_backward(query_BQE, items_BLE)
        return torch.cat(sums)

    @staticmethod
    def backward(ctx, grad_BKE):
        query_BQE, items_BLE = ctx.saved_tensors
        grad_query_BQE, grad_items_BLE = torch.empty_like(query_BQE), torch.empty_like(items_BLE)
        for here, score_CQL, weight_CKL in ctx.between:
            items_CLE = items_BLE[here]
            grad_weight_CKL = torch.bmm(grad_BKE[here], items_CLE.transpose(1, 2))
            grad_score_CQL, = torch.autograd.grad(weight_CKL, score_CQL, grad_weight_CKL, retain_graph=True)
            grad_query_BQE[here] = torch.bmm(_whole(grad_score_CQL), items_CLE)[:, :score_CQL.shape[1]]
            given = torch.cat([grad_score_CQL, weight_CKL.detach()], 1)
            by = torch.cat([query_BQE[here], grad_BKE[here]], 1)
            torch.bmm(given.transpose(1, 2), by, out=grad_items_BLE[here])
        return grad_query_BQE, grad_items_BLE, None, None


def _parts(items_BLE: torch.Tensor) -> list[slice]:
    samples = len(items_BLE)
    at_once = AT_ONCE * torch.get_num_threads() if items_BLE.device.type == "cpu" else max(1, samples)
    return [slice(at, at + at_once) for at in range(0, max(1, samples), at_once)]


def _whole(rows_BQE: torch.Tensor) -> torch.Tensor:
    """With rows of zeros behind, so that a CPU gets a multiple of `WHOLE`."""
    missing = -rows_BQE.shape[1] % WHOLE
    if missing == 0 or rows_BQE.device.type != "cpu":
        return rows_BQE
    return nn.functional.pad(rows_BQE, (0, 0, 0, missing))


class ActivationUnit(nn.Module):
    """Scores [...] from an MLP over [query, key, query − key, query ⊙ key], all [..., E].

    query and keys may broadcast. Source: the code of "Deep Interest Network" and "Deep Interest Evolution Network".
    NOTE[DIFF] The paper's unit has the outer product and no difference; product and difference are what its authors
    and all others compute. The four parts are three: W1 q + W2 k + W3 (q − k) + W4 (q ⊙ k) is (W1 + W3) q, which keys
    [L, B, E] of queries [B, E] share, and (W2 − W3) k + W4 (q ⊙ k).
    """

    def __init__(self, width: int, sizes: Sequence[int] = (80, 40), act: Activation = "sigmoid") -> None:
        super().__init__()
        self.scorer = Scorer(4 * width, sizes, act)

    def forward(self, query: torch.Tensor, keys: torch.Tensor, rows_L: Sequence[int] | None = None,
                mask_LB: torch.Tensor | None = None) -> torch.Tensor:
        """With keys [L, B, E] of queries [B, E], only the first `rows_L` samples of each position need a score, or
        those where `mask_LB` is true."""
        of_query, of_key, of_difference, of_product = self.scorer.layers[0].weight.chunk(4, dim=1)
        weight = torch.cat([of_query + of_difference, of_key - of_difference, of_product], dim=1)
        query_VE, keys_SVE = query, keys
        if keys.dim() != 3 or query.shape != keys.shape[1:]:
            query, keys = torch.broadcast_tensors(query, keys)
            query_VE, keys_SVE, rows_L = query.flatten(0, -2), keys.flatten(0, -2).unsqueeze(0), None
        score_SV = self.scorer.of_pairs(query_VE, keys_SVE, weight, with_product=True, rows_S=rows_L, mask_SV=mask_LB)
        return score_SV.view(keys.shape[:-1])


class TargetAttention(nn.Module):
    """What a history [B, L, E'] holds for a target [B, E]: (weighted sum of its items [B, E'], weights [B, L]).

    Scores compare the target with the first E values of every item; an item may hold more, which are summed too.
    scores    dot: inner product, without parameters · unit: the activation unit
    weights   softmax · none: the scores themselves, which keeps how strong an interest is (the paper's choice)
    """

    def __init__(self, width: int, *, scores: Literal["dot", "unit"], weights: Literal["softmax", "none"],
                 sizes: Sequence[int] = (80, 40), act: Activation = "sigmoid") -> None:
        super().__init__()
        self.width = width
        self.unit = ActivationUnit(width, sizes, act) if scores == "unit" else None
        self.is_softmax = weights == "softmax"

    def scores(self, target_BE: torch.Tensor, items_BLE: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """[B, L]; without meaning at padding."""
        items_BLE = items_BLE[..., :self.width]
        if self.unit is None:
            return dots(target_BE, items_BLE)
        if not may_wait(mask_BL):
            return self.unit(target_BE, items_BLE.transpose(0, 1), mask_LB=mask_BL.t()).t()
        sample_V, position_V = mask_BL.nonzero(as_tuple=True)  # only real positions: padding costs nothing
        score_V = self.unit(target_BE[sample_V], items_BLE[sample_V, position_V])
        return score_V.new_zeros(mask_BL.shape).index_put((sample_V, position_V), score_V)

    def forward(self, target_BE: torch.Tensor, items_BLE: torch.Tensor,
                mask_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not may_wait(mask_BL):  # padding is computed with, and must be finite: 0 · NaN is NaN
            items_BLE = items_BLE.masked_fill(~mask_BL.unsqueeze(2), 0.0)
        score_BL = self.scores(target_BE, items_BLE, mask_BL)
        weight_BL = masked_softmax(score_BL, mask_BL) if self.is_softmax else score_BL * mask_BL
        return weighted_sum(weight_BL, items_BLE), weight_BL


class MultiHeadTargetAttention(nn.Module):
    """What a history holds for a target in several respects at once: [B, heads · head_dim].

    Head h has weights softmax over L of (Q_h t) · (K_h e) / √head_dim and gives Σ weight · V_h e. Q, K and V have no
    biases: K's would change nothing, V's would be the same for every history, and an empty history gives zeros.
    Because the target is one query, no item is projected: (Q_h t) · (K_h e) = (K_hᵀ Q_h t) · e, and the sum over
    items is taken before V_h. The cost per item is that of a dot product per head.
    Source: Pi et al. 2020, "Search-based User Interest Modeling" (SIM), equation 5, and Vaswani et al. 2017.
    """

    def __init__(self, target_width: int, item_width: int, *, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim, self.outputs = heads, head_dim, heads * head_dim
        self.query = Linear(target_width, self.outputs, bias=False)
        self.key = Linear(item_width, self.outputs, bias=False)
        self.value = Linear(item_width, self.outputs, bias=False)

    def forward(self, target_BE: torch.Tensor, items_BLE: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        return self.values(attend(self.queries(target_BE), items_BLE,
                                  lambda score_CKL, here: masked_softmax(score_CKL, mask_BL[here].unsqueeze(1))))

    def queries(self, target_BE: torch.Tensor) -> torch.Tensor:
        """What the items' inner products with are the scores, float32 [B, heads, E']."""
        with torch.autocast(target_BE.device.type, enabled=False):
            query_BKH = self.query(target_BE.float()).unflatten(1, (self.heads, self.head_dim))
            keys_KHE = self.key.weight.unflatten(0, (self.heads, self.head_dim))
            return torch.einsum("bkh,khe->bke", query_BKH, keys_KHE) / self.head_dim**0.5

    def values(self, sum_BKE: torch.Tensor) -> torch.Tensor:
        """V of the weighted sums of items, [B, heads · head_dim]."""
        values_KHE = self.value.weight.unflatten(0, (self.heads, self.head_dim))
        return torch.einsum("bke,khe->bkh", sum_BKE, values_KHE.to(sum_BKE.dtype)).flatten(1)
