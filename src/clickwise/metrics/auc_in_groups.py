"""GAUC: how well a model ranks within a user, a display, a session."""

from __future__ import annotations

import math

import numpy as np

from clickwise.metrics.displays import ByDisplay, ClickRanks


class GAUC(ByDisplay):
    """The AUC of every group, averaged with the group's impressions as weights; exact, ties count one half.

    Groups whose labels are all the same have no AUC: they are left out and counted. Results: `gauc` (NaN if every group
    is left out), `gauc_groups` (averaged over), `gauc_groups_skipped`.

    Source: Zhu et al., Optimized cost per click in Taobao display advertising, KDD 2017, section 5.1.
    """

    name = "gauc"

    def of_displays(self, ranks: ClickRanks) -> np.ndarray:
        return aucs(ranks)

    def tally(self, ranks: ClickRanks) -> list[float]:
        auc_G = aucs(ranks)
        has_auc_G = ~np.isnan(auc_G)
        items_G = ranks.items_G[has_auc_G]
        return [auc_G[has_auc_G] @ items_G, items_G.sum(), len(items_G), len(auc_G) - len(items_G)]

    def results(self, total: np.ndarray) -> dict[str, float]:
        weighted, rows, groups, skipped = total.tolist() if total.ndim else [0] * 4
        return {"gauc": weighted / rows if rows else math.nan, "gauc_groups": int(groups),
                "gauc_groups_skipped": int(skipped)}


def aucs(ranks: ClickRanks) -> np.ndarray:
    """The AUC of every display, float64, NaN for one class: a click beats all non-clicks below it, half of its ties."""
    others_G = ranks.items_G - ranks.clicks_G
    above_R = ranks.above_R - ranks.clicks_above_R
    tied_R = ranks.rows_R - ranks.clicks_R
    beaten_R = ranks.clicks_R * (others_G[ranks.display_R] - above_R - tied_R / 2)
    beaten_G = np.bincount(ranks.display_R, weights=beaten_R, minlength=len(others_G))
    pairs_G = (ranks.clicks_G * others_G).astype(np.float64)
    return np.divide(beaten_G, pairs_G, out=np.full(len(pairs_G), math.nan), where=pairs_G > 0)
