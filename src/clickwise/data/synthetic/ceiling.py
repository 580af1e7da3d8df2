"""The best that any model can reach on rows whose click probability is known."""

from __future__ import annotations

import dataclasses

import numpy as np

BINS, LARGEST = 1 << 16, 16.0


def best_auc(probability: np.ndarray, count: np.ndarray | None = None) -> float:
    """The expected AUC of ranking rows by their true click probability; no model has a higher one.

    `count` says how many rows share each probability (default 1). A pair of equal probabilities counts one half, a
    row is not paired with itself. nan where no row could be a click, or none could be another.
    """
    count = np.ones(len(probability)) if count is None else count
    order = np.argsort(probability, kind="stable")
    p, n = np.asarray(probability, np.float64)[order], np.asarray(count, np.float64)[order]
    clicks, others = p * n, (1 - p) * n
    first_of_tie = np.flatnonzero(np.diff(p, prepend=-1.0))
    if len(first_of_tie) == 0:
        return float("nan")
    tied_clicks, tied_others = np.add.reduceat(clicks, first_of_tie), np.add.reduceat(others, first_of_tie)
    won = tied_clicks @ (np.cumsum(tied_others) - tied_others / 2)
    with_itself = float(clicks @ (1 - p))
    pairs = clicks.sum() * others.sum() - with_itself
    return float((won - with_itself / 2) / pairs) if pairs > 0 else float("nan")


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """Counts of rows by their true logit (65,536 steps of 1/2048 from −16 to 16) and label; ceilings add up."""

    count: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((BINS, 2), np.int64))

    @classmethod
    def of(cls, logit: np.ndarray, label: np.ndarray) -> Ceiling:
        step = np.clip((logit + LARGEST) * (BINS / (2 * LARGEST)), 0, BINS - 1).astype(np.int32)
        return cls(np.bincount(step * 2 + label, minlength=2 * BINS).reshape(BINS, 2))

    def __add__(self, other: Ceiling) -> Ceiling:
        return Ceiling(self.count + other.count)

    @property
    def rows(self) -> int:
        return int(self.count.sum())

    @property
    def click_rate(self) -> float:
        return float(self.count[:, 1].sum() / max(self.rows, 1))

    @property
    def best_auc(self) -> float:
        """Expected AUC of the true probabilities, to within 1e-4 of `best_auc` on the rows themselves."""
        return best_auc(self._probability(), self.count.sum(axis=1))

    @property
    def realised_auc(self) -> float:
        """AUC of the true probabilities with the labels that were drawn."""
        others, clicks = self.count[:, 0].astype(np.float64), self.count[:, 1].astype(np.float64)
        pairs = clicks.sum() * others.sum()
        return float(clicks @ (np.cumsum(others) - others / 2) / pairs) if pairs else float("nan")

    @property
    def best_log_loss(self) -> float:
        """Mean entropy of the labels in nats; no model has a lower expected log loss."""
        p = self._probability()
        entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p))
        return float(self.count.sum(axis=1) @ entropy / max(self.rows, 1))

    def figures(self) -> dict[str, float | int]:
        """What is worth printing and saving, rounded to what is exact."""
        return {"rows": self.rows, "click_rate": round(self.click_rate, 6), "best_auc": round(self.best_auc, 5),
                "realised_auc": round(self.realised_auc, 5), "best_log_loss": round(self.best_log_loss, 5)}

    @staticmethod
    def _probability() -> np.ndarray:
        logit = (np.arange(BINS) + 0.5) * (2 * LARGEST / BINS) - LARGEST
        return 1 / (1 + np.exp(-logit))
