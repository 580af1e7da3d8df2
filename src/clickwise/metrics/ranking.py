"""MAP, NDCG, MRR and hit rate: how near the top of its display a click stands. docs/metrics.md has the formulas.

All are means over the displays that have a click, each with the same weight. Beside them stand the means over the
contested displays alone, those with a click and a non-click: where all items were clicked every order has the value 1.

Ties, equal scores inside a display, are never left to the order of the rows:

    average      the expected value over all orders of the tied rows, as AUC counts a tie one half
    pessimistic  clicks below the others
    optimistic   clicks above the others

Every formula is in closed form per run of tied rows, and only runs with a click are looked at. In a run of m rows, c of
them clicks, with a rows above (A of them clicks) and in random order, position a + j holds a click with probability
c/m; and if it does, (j−1)(c−1)/(m−1) clicks are expected among the run's j−1 rows before it. Positions after k do not
count: j runs to J = min(m, k − a).
"""

from __future__ import annotations

import abc
import math

import numpy as np

from clickwise.metrics.displays import TIES, ByDisplay, ClickRanks
from clickwise.metrics.kept_rows import ranges


class RankingMetric(ByDisplay):
    """The mean over displays with a click of what `of_runs` adds up to; k None is the whole display.

    Results: the metric's name, e.g. `map_at_12` or `map_at_12_pessimistic` (NaN without a click), and with `_contested`
    the mean over contested displays; how many `displays` there are, of which `displays_without_click` (in no mean),
    `displays_of_one_item` and `displays_contested`.
    """

    measure: str

    def __init__(self, k: int | None = None, ties: str = "average") -> None:
        if (k is not None and k < 1) or ties not in TIES:
            raise ValueError(f"k must be 1 or more and ties one of {', '.join(TIES)}, not {k} and {ties}")
        self.k, self.ties = math.inf if k is None else k, ties
        self.name = self.measure + ("" if k is None else f"_at_{k}") + ("" if ties == "average" else f"_{ties}")
        super().__init__()

    @abc.abstractmethod
    def of_runs(self, ranks: ClickRanks) -> tuple[np.ndarray, np.ndarray]:
        """What each run of tied rows that holds a click (or each position in it) adds to its display, and which that
        is."""

    def tally(self, ranks: ClickRanks) -> list[float]:
        items_G, clicks_G = ranks.items_G, ranks.clicks_G
        counts = [np.count_nonzero(some_G) for some_G in (clicks_G == 0, items_G == 1, clicks_G == items_G)]
        return [self.of_runs(ranks.broken(self.ties))[0].sum(), len(items_G), *counts]

    def of_displays(self, ranks: ClickRanks) -> np.ndarray:
        gained, display = self.of_runs(ranks.broken(self.ties))
        gained_G = np.bincount(display, weights=gained, minlength=len(ranks.items_G))
        return np.where(ranks.clicks_G > 0, gained_G, math.nan)

    def results(self, total: np.ndarray) -> dict[str, float]:
        gained, displays, without_click, of_one, all_clicked = total.tolist() if total.ndim else [0] * 5
        clicked = displays - without_click
        contested = clicked - all_clicked
        return {self.name: gained / clicked if clicked else math.nan,
                f"{self.name}_contested": (gained - all_clicked) / contested if contested else math.nan,
                "displays": int(displays), "displays_without_click": int(without_click),
                "displays_of_one_item": int(of_one), "displays_contested": int(contested)}

    def reach(self, ranks: ClickRanks) -> np.ndarray:
        """How many positions of each run are among the first k: J."""
        return np.clip(self.k - ranks.above_R, 0, ranks.rows_R).astype(np.int64)

    def best_clicks(self, ranks: ClickRanks) -> np.ndarray:
        """How many clicks the first k positions of each run's display can hold."""
        return np.minimum(ranks.clicks_G, self.k).astype(np.int64)[ranks.display_R]


class MAP(RankingMetric):
    """Mean average precision at k: Σ_{i ≤ k} precision(i)·label(i) / min(k, clicks), averaged over displays.

    With a + j the position, a run adds Σ_j c/m · (A + 1 + (j−1)(c−1)/(m−1)) / (a + j), in which
    Σ_j (j−1)/(a+j) = J − (a+1)·Σ_j 1/(a+j).

    NOTE[DIFF] NVIDIA's Wide & Deep cuts displays at batch borders, breaks ties by the order of the file, looks at the
    first click only, and starts its sums at 1 display of MAP 1. None of that here.
    """

    measure = "map"

    def of_runs(self, ranks: ClickRanks) -> tuple[np.ndarray, np.ndarray]:
        above_R, rows_R, clicks_R, reach_R = ranks.above_R, ranks.rows_R, ranks.clicks_R, self.reach(ranks)
        inverse_R = between(lambda rank: 1 / rank, above_R, reach_R)
        companions_R = (clicks_R - 1) / np.maximum(rows_R - 1, 1)
        precision_R = (ranks.clicks_above_R + 1) * inverse_R + companions_R * (reach_R - (above_R + 1) * inverse_R)
        return clicks_R / rows_R * precision_R / self.best_clicks(ranks), ranks.display_R


class NDCG(RankingMetric):
    """Normalised discounted cumulative gain at k: Σ_{i ≤ k} label(i)/log2(i+1) over its best value in the display.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002; with the logarithm's
    base and offset as scikit-learn's `ndcg_score` has them.
    """

    measure = "ndcg"

    def of_runs(self, ranks: ClickRanks) -> tuple[np.ndarray, np.ndarray]:
        def discount(rank: np.ndarray) -> np.ndarray:
            return 1 / np.log2(rank + 1)

        gain_R = ranks.clicks_R / ranks.rows_R * between(discount, ranks.above_R, self.reach(ranks))
        best_R = self.best_clicks(ranks)
        return gain_R / between(discount, np.zeros_like(best_R), best_R), ranks.display_R


class MRR(RankingMetric):
    """Mean reciprocal rank of a display's first click; 0 for a display whose first click comes after k."""

    measure = "mrr"

    def of_runs(self, ranks: ClickRanks) -> tuple[np.ndarray, np.ndarray]:
        rank_V, probability_V, display_V = first_click(ranks, self.reach(ranks))
        return probability_V / rank_V, display_V


class HitRate(RankingMetric):
    """Share of displays that have a click among the first k."""

    measure = "hit_rate"

    def __init__(self, k: int, ties: str = "average") -> None:
        super().__init__(k, ties)

    def of_runs(self, ranks: ClickRanks) -> tuple[np.ndarray, np.ndarray]:
        return first_click(ranks, self.reach(ranks))[1:]


def between(term, above_R: np.ndarray, reach_R: np.ndarray) -> np.ndarray:
    """Σ term(rank) over the `reach` ranks that follow the first `above` ones."""
    sums = np.zeros(int((above_R + reach_R).max(initial=0)) + 1)
    np.cumsum(term(np.arange(1, len(sums), dtype=np.float64)), out=sums[1:])
    return sums[above_R + reach_R] - sums[above_R]


def first_click(ranks: ClickRanks, reach_R: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ranks that a display's first click can have, the probability of each, and the display; V of them over all
    displays.

    The first click lies in the first run with a click. There it is at j with probability
    c/(m−j+1) · Π_{i<j} (m−c−i+1)/(m−i+1), the factors being those of drawing one non-click after another.
    """
    first = np.flatnonzero(ranks.clicks_above_R == 0)
    above_F, rows_F, clicks_F = ranks.above_R[first], ranks.rows_R[first], ranks.clicks_R[first]
    reach_F = np.minimum(reach_R[first], rows_F - clicks_F + 1)
    j_V = ranges(np.ones_like(reach_F), reach_F)
    above_V, rows_V, clicks_V = (np.repeat(x_F, reach_F) for x_F in (above_F, rows_F, clicks_F))
    # ln of the factor i = j − 1, none for j = 1; summed over all runs, from which each takes off what came before it
    missed_V = np.log(np.where(j_V > 1, (rows_V - clicks_V - j_V + 2) / (rows_V - j_V + 2), 1.0))
    so_far_V = np.cumsum(missed_V)
    before_F = so_far_V[(np.cumsum(reach_F) - reach_F)[reach_F > 0]]
    none_yet_V = np.exp(so_far_V - np.repeat(before_F, reach_F[reach_F > 0]))
    return above_V + j_V, clicks_V / (rows_V - j_V + 1) * none_yet_V, np.repeat(ranks.display_R[first], reach_F)
