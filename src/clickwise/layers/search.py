"""Which events of a long history matter for a target: masks [B, L] of at most k real positions.

The mask stands for a selection: attention under it costs one pass over the history and no gathered copy. A choice has
no gradient; what is chosen has.
"""

from __future__ import annotations

import torch


@torch.no_grad()
def top_k(score_BL: torch.Tensor, mask_BL: torch.Tensor, k: int) -> torch.Tensor:
    """The k real positions of the highest scores, all where there are no more; among equals no matter which.

    Of inner products with the target it is the soft search of SIM, section 3.2.2.
    """
    if score_BL.shape[1] <= k:
        return mask_BL
    score_BL = score_BL.masked_fill(~mask_BL, -torch.inf)
    index_BK = score_BL.topk(k, dim=1, sorted=False).indices
    return torch.zeros_like(mask_BL).scatter_(1, index_BK, True) & mask_BL


@torch.no_grad()
def hard_search(target_B: torch.Tensor, category_BL: torch.Tensor, mask_BL: torch.Tensor, k: int) -> torch.Tensor:
    """The k latest items of the target's category; 0 is a missing one, which nothing shares. Source: SIM, section
    3.2.1."""
    found_BL = mask_BL & (category_BL == target_B[:, None]) & (target_B != 0)[:, None]
    newer_BL = found_BL.flip(1).cumsum(1).flip(1)  # found ones from here to the end
    return found_BL & (newer_BL <= k)


@torch.no_grad()
def simhash_search(target_BE: torch.Tensor, items_BLE: torch.Tensor, mask_BL: torch.Tensor, k: int,
                   planes_EM: torch.Tensor) -> torch.Tensor:
    """The k items whose M signs of random projections agree with the target's in most; the later of equals.

    Source: Chen et al. 2021, "End-to-End User Behavior Retrieval" (ETA): the hashes are those of the rows as they
    stand, so that there is no index to keep.
    """
    agree_BL = sign_bits(items_BLE, planes_EM).eq(sign_bits(target_BE, planes_EM)[:, None]).sum(-1)
    length = items_BLE.shape[1]
    later_L = torch.arange(length, device=items_BLE.device)
    return top_k((agree_BL * length + later_L).float(), mask_BL, k)


def sign_bits(x_BE: torch.Tensor, planes_EM: torch.Tensor) -> torch.Tensor:
    """On which side of each plane through 0 a vector lies, [..., M]."""
    with torch.autocast(x_BE.device.type, enabled=False):
        return x_BE.float() @ planes_EM > 0


def sdim(target_BE: torch.Tensor, items_BLE: torch.Tensor, mask_BL: torch.Tensor, planes_EM: torch.Tensor,
         group: int) -> torch.Tensor:
    """The sum of items that collide with the target, hash by hash made a unit vector, averaged over hashes; [B, E].

    A hash is a group of `group` signs. There is no k, and the expected weight of an item falls with its angle to the
    target as in an attention. Source: Cao et al. 2022, "Sampling Is All You Need on Modeling Long-Term User Behaviors
    for CTR Prediction" (SDIM), equations 8-10.
    """
    width = len(planes_EM)
    with torch.no_grad():
        same_BLM = sign_bits(items_BLE[..., :width], planes_EM).eq(sign_bits(target_BE, planes_EM)[:, None])
        collide_BLS = same_BLM.unflatten(2, (-1, group)).all(-1) & mask_BL[..., None]
    with torch.autocast(items_BLE.device.type, enabled=False):
        sum_BSE = torch.bmm(collide_BLS.transpose(1, 2).float(), items_BLE.float())
        return torch.nn.functional.normalize(sum_BSE, dim=-1).mean(1)
