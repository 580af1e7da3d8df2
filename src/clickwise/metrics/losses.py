"""Log loss and what is derived from it or from the predicted class."""

from __future__ import annotations

import math

import torch

from clickwise.metrics.metric import Scored, Sums


class LogLoss(Sums):
    """Mean of −ln p(label), in nats; inf if a logit of ±inf meets the other label. Result: `log_loss`."""

    ideal = 0.0

    def zeros(self) -> dict[str, torch.Tensor]:
        return {"loss": torch.zeros((), dtype=torch.float64), "clicks": torch.zeros((), dtype=torch.int64),
                "rows": torch.zeros((), dtype=torch.int64)}

    def add(self, scored: Scored) -> None:
        sums = self.on(scored.logit_B.device)
        sums["loss"] += scored.loss_B.sum()
        sums["clicks"] += scored.label_B.sum()
        sums["rows"] += len(scored)

    def result(self) -> dict[str, float]:
        return {"log_loss": ratio(self.sums["loss"], self.sums["rows"])}


class NormalizedEntropy(LogLoss):
    """Log loss over the entropy of the base rate: the best constant reaches 1, lower is better; NaN for one class.

    Source: He et al., Practical lessons from predicting clicks on ads at Facebook, ADKDD 2014, equation 1.
    Result: `normalized_entropy`.
    """

    def result(self) -> dict[str, float]:
        rate = ratio(self.sums["clicks"], self.sums["rows"])
        if not 0 < rate < 1:
            return {"normalized_entropy": math.nan}
        entropy = -rate * math.log(rate) - (1 - rate) * math.log1p(-rate)
        return {"normalized_entropy": ratio(self.sums["loss"], self.sums["rows"]) / entropy}


class Accuracy(Sums):
    """Share of rows whose label is the more probable one (p > ½ predicts a click). Result: `accuracy`."""

    def zeros(self) -> dict[str, torch.Tensor]:
        return {name: torch.zeros((), dtype=torch.int64) for name in ("right", "rows")}

    def add(self, scored: Scored) -> None:
        sums = self.on(scored.logit_B.device)
        sums["right"] += ((scored.logit_B > 0) == scored.label_B).sum()
        sums["rows"] += len(scored)

    def result(self) -> dict[str, float]:
        return {"accuracy": ratio(self.sums["right"], self.sums["rows"])}


class Counts(Sums):
    """How much was measured. Results: `rows` and `base_rate` (clicks / rows)."""

    def zeros(self) -> dict[str, torch.Tensor]:
        return {name: torch.zeros((), dtype=torch.int64) for name in ("clicks", "rows")}

    def add(self, scored: Scored) -> None:
        sums = self.on(scored.logit_B.device)
        sums["clicks"] += scored.label_B.sum()
        sums["rows"] += len(scored)

    def result(self) -> dict[str, float]:
        return {"rows": self.sums["rows"].item(), "base_rate": ratio(self.sums["clicks"], self.sums["rows"])}


def ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> float:
    """The quotient as a float, NaN for 0/0 and inf for x/0."""
    return (numerator.double() / denominator.double()).item()
