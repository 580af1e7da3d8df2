"""GAUC: how well a model ranks within a user, a display, a session."""

from __future__ import annotations

import math

import numpy as np

from clickwise.errors import DataError
from clickwise.metrics.metric import Kept, Scored


class GAUC(Kept):
    """The AUC of every group, averaged with the group's impressions as weights; exact, keeps 13 bytes per row.

    Groups whose labels are all the same have no AUC: they are left out and counted. Results: `gauc` (NaN if every group
    is left out), `gauc_groups` (averaged over), `gauc_groups_skipped`. A batch without groups is a DataError.

    Source: Zhu et al., Optimized cost per click in Taobao display advertising, KDD 2017, section 5.1.
    """

    needs_groups = True
    names = ("group_B", "logit_B", "label_B")

    def add(self, scored: Scored) -> None:
        if scored.group_B is None:
            raise DataError("metrics: gauc", found="impressions without groups", expected="the channel 'display'",
                            do="name the grouping feature in channel_spec, or leave gauc out")
        self.keep(group_B=scored.group_B.long(), logit_B=scored.logit_B, label_B=scored.label_B)

    def result(self) -> dict[str, float]:
        auc_G, rows_G = group_aucs(*(self.kept(name).numpy() for name in self.names))
        has_auc_G = ~np.isnan(auc_G)
        ranked = rows_G[has_auc_G]
        gauc = float(auc_G[has_auc_G] @ ranked / ranked.sum()) if len(ranked) else math.nan
        return {"gauc": gauc, "gauc_groups": len(ranked), "gauc_groups_skipped": len(auc_G) - len(ranked)}


def group_aucs(group_B: np.ndarray, score_B: np.ndarray, label_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per group in ascending order its AUC (NaN for one class) and its number of rows; at most 2^31 groups.

    One sort does it: group, score and label are packed into 64 bits such that the order of the integers is theirs. A
    run is the rows of one group that share a score; its clicks beat all non-clicks of the group's earlier runs, and
    half of its own.
    """
    if not len(group_B):
        return np.empty(0), np.empty(0, np.int64)
    group_B = np.unique(group_B, return_inverse=True)[1].astype(np.uint64)
    score_B = score_B.astype(np.float32) + np.float32(0)  # −0 becomes 0
    bits_B = score_B.view(np.uint32)
    ascending_B = np.where(bits_B >> 31, ~bits_B, bits_B | np.uint32(1 << 31)).astype(np.uint64)
    packed_B = np.sort(group_B << np.uint64(33) | ascending_B << np.uint64(1) | label_B.astype(np.uint64))

    run_starts = starts(packed_B >> np.uint64(1))
    clicks_R = np.add.reduceat((packed_B & np.uint64(1)).astype(np.int64), run_starts)
    rows_R = np.diff(run_starts, append=len(packed_B))
    others_R = rows_R - clicks_R

    group_starts = starts(packed_B[run_starts] >> np.uint64(33))
    rows_G, clicks_G, others_G = (np.add.reduceat(x, group_starts) for x in (rows_R, clicks_R, others_R))
    earlier_R = np.cumsum(others_R) - others_R
    earlier_R -= np.repeat(earlier_R[group_starts], np.diff(group_starts, append=len(rows_R)))
    beaten_G = np.add.reduceat(clicks_R * (earlier_R + others_R / 2), group_starts)
    pairs_G = (clicks_G * others_G).astype(np.float64)
    return np.divide(beaten_G, pairs_G, out=np.full(len(pairs_G), math.nan), where=pairs_G > 0), rows_G


def starts(sorted_V: np.ndarray) -> np.ndarray:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate(([True], sorted_V[1:] != sorted_V[:-1])))
