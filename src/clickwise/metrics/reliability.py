"""Calibration: do the predicted probabilities add up to the clicks that came?"""

from __future__ import annotations

import torch

from clickwise.metrics.bins import shift_to
from clickwise.metrics.losses import ratio
from clickwise.metrics.metric import Scored, Sums


class Calibration(Sums):
    """Sum of predicted probabilities over number of clicks: above 1 the model promises too much. Result: `calibration`.

    By bin of the logit (`bins.edges(bins)`) it keeps rows, clicks and the sum of predictions; the report draws the
    reliability plot, the ROC and the histogram of scores from them. No clicks at all give inf.
    """

    def __init__(self, bins: int = 1024) -> None:
        self.bins, self.shift = bins, shift_to(bins)
        super().__init__()

    def zeros(self) -> dict[str, torch.Tensor]:
        return {"rows": torch.zeros(self.bins, dtype=torch.int64), "clicks": torch.zeros(self.bins, dtype=torch.int64),
                "predicted": torch.zeros(self.bins, dtype=torch.float64)}

    def add(self, scored: Scored) -> None:
        bin_B = scored.bin_B >> self.shift
        sums = self.on(bin_B.device)
        sums["rows"].scatter_add_(0, bin_B, torch.ones_like(bin_B))
        sums["clicks"].scatter_add_(0, bin_B, scored.label_B.long())
        sums["predicted"].scatter_add_(0, bin_B, scored.probability_B)

    def result(self) -> dict[str, float]:
        return {"calibration": ratio(self.sums["predicted"].sum(), self.sums["clicks"].sum())}
