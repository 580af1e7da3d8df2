"""DIEN's layers: interests from a history, their evolution towards a target, and the loss that supervises them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from clickwise import processes
from clickwise.kernels.augru import Form
from clickwise.layers.activation import PReLU
from clickwise.layers.attention import ActivationUnit, masked_softmax, may_wait
from clickwise.layers.gru import AUGRU, GRU
from clickwise.layers.scorer import Linear, Scorer


class InterestEvolution(nn.Module):
    """(What the interests in a history have become with respect to a target [B, H], the interests [L, B, H]).

    A GRU over the items gives an interest after each; attention of the target to the interests drives an AUGRU over
    them, whose last state is the result: zeros for an empty history.
    attention      unit: the activation unit on (q, h) with q = PReLU(W t + b) · bilinear: h · W t, as in the paper
    mask_padding   false: padding (zeros) goes through the recurrences as if it were items, and an empty history
                   attends to all of it alike, as the reference does
    Source: Zhou et al. 2019, "Deep Interest Evolution Network", sections 4.2 and 4.3.
    """

    def __init__(self, target_width: int, item_width: int, width: int, *, augru: Form,
                 attention: Literal["unit", "bilinear"] = "unit", mask_padding: bool = True) -> None:
        super().__init__()
        self.width, self.mask_padding = width, mask_padding
        self.gru = GRU(item_width, width)
        self.query = Linear(target_width, width, bias=attention == "unit")
        self.query_activation = PReLU(width) if attention == "unit" else None
        self.unit = ActivationUnit(width) if attention == "unit" else None
        self.augru = AUGRU(width, width, augru)

    def forward(self, target_BE: torch.Tensor, items_BLE: torch.Tensor,
                mask_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mask_LB = mask_BL.t().contiguous()
        mask_of_recurrence_LB = mask_LB if self.mask_padding else None
        interest_LBH = self.gru(items_BLE.transpose(0, 1).contiguous(), mask_of_recurrence_LB)
        score_LB = self._scores(target_BE, interest_LBH, mask_LB)
        attention_LB = masked_softmax(score_LB, mask_LB, dim=0, empty="zeros" if self.mask_padding else "uniform")
        return self.augru(interest_LBH, attention_LB, mask_of_recurrence_LB), interest_LBH

    def _scores(self, target_BE: torch.Tensor, interest_LBH: torch.Tensor, mask_LB: torch.Tensor) -> torch.Tensor:
        query_BH = self.query(target_BE)
        if self.unit is None:
            return (query_BH * interest_LBH).sum(-1)
        rows_L = None
        if self.mask_padding and may_wait(mask_LB):
            rows_L = (mask_LB * torch.arange(1, mask_LB.shape[1] + 1)).amax(1).tolist()  # up to the last real one
        return self.unit(self.query_activation(query_BH), interest_LBH, rows_L)


class NextItemLoss(nn.Module):
    """How badly interests tell the item that came next from one that did not: a scalar, the auxiliary loss.

    At each position t < L: −log σ(score(h_t, e_t+1)) − log σ(−score(h_t, negative_t+1)), by an MLP on both.
    over   real: the mean over positions with a real item at t and at t + 1 (0 if there is none)
           compat: as in the references, real items at t + 1 only, over all B (L − 1) positions, and 1e-6 is added to
           both probabilities. NOTE[DIFF] there 1 − p − 1e-6 below 0 makes NaN; here it ends at 1e-7.
    NOTE[DIFF] The paper's score is an inner product; the MLP is that of its authors' code.
    """

    def __init__(self, interest_width: int, item_width: int, sizes: Sequence[int], *,
                 over: Literal["real", "compat"] = "real") -> None:
        super().__init__()
        self.scorer = Scorer(interest_width + item_width, sizes, "sigmoid")
        self.over = over

    def scores(self, interest_LBH: torch.Tensor, items_BLE: torch.Tensor,
               negatives_BLE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the items that came next and of those that did not, [L − 1, B] each."""
        next_2VE = _next(items_BLE, negatives_BLE)
        score_2V = self.scorer.of_pairs(interest_LBH[:-1].flatten(0, 1), next_2VE)
        came_LB, not_LB = score_2V.unflatten(1, (-1, interest_LBH.shape[1]))
        return came_LB, not_LB

    def forward(self, interest_LBH: torch.Tensor, items_BLE: torch.Tensor, negatives_BLE: torch.Tensor,
                mask_BL: torch.Tensor) -> torch.Tensor:
        if len(interest_LBH) < 2:
            return interest_LBH.new_zeros(())
        mask_LB = mask_BL.t()
        if self.over == "compat":
            came_LB, not_LB = self.scores(interest_LBH, items_BLE, negatives_BLE)
            loss_came_LB = -torch.log(torch.sigmoid(came_LB) + 1e-6)
            loss_not_LB = -torch.log((1 - torch.sigmoid(not_LB) - 1e-6).clamp(min=1e-7))
            return ((loss_came_LB + loss_not_LB) * mask_LB[1:]).mean()
        real_V, next_2VE = (mask_LB[1:] & mask_LB[:-1]).flatten(), _next(items_BLE, negatives_BLE)
        interest_VH = interest_LBH[:-1].flatten(0, 1)
        if may_wait(real_V) and not bool(real_V.all()):  # padding is not scored
            chosen_C = real_V.nonzero().squeeze(1)
            real_V, interest_VH = real_V.index_select(0, chosen_C), interest_VH.index_select(0, chosen_C)
            next_2VE = next_2VE.index_select(1, chosen_C)
        came_V, not_V = self.scorer.of_pairs(interest_VH, next_2VE)
        loss_V = -nn.functional.logsigmoid(came_V) - nn.functional.logsigmoid(-not_V)
        loss, real, samples = (loss_V * real_V).sum(), real_V.sum(), len(mask_BL)
        if processes.count() > 1:
            # Each gives its part of the mean over all positions; a step weighs it by samples / samples of all.
            of_all = processes.sum_over_all(torch.stack([real, torch.full_like(real, samples)]))
            loss, real = loss * (of_all[1] / samples), of_all[0]
        return loss / real.clamp(min=1)


def _next(items_BLE: torch.Tensor, negatives_BLE: torch.Tensor) -> torch.Tensor:
    """From the second position on, time first, the items that came and those that did not, [2, (L − 1) · B, E]."""
    return torch.stack([items_BLE[:, 1:].transpose(0, 1), negatives_BLE[:, 1:].transpose(0, 1)]).flatten(1, 2)
