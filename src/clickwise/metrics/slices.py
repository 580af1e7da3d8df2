"""Metrics of a part of the data: the impressions in which a categorical feature has a certain value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from clickwise.metrics.bins import shift_to
from clickwise.metrics.metric import Scored, Sums
from clickwise.metrics.roc import auc_of_counts

OTHER = -1


class Slices(Sums):
    """Rows, clicks, AUC, log loss and calibration per value of one one-hot feature, whose ids come as the groups.

    `ids` are the values to follow, e.g. `range(20)`: preparation numbers values by descending count, so the first ids
    are the frequent ones. All other ids are counted together under id −1. The AUC of a slice comes from `bins` bins of
    the logit; 64 KiB per followed id.
    """

    def __init__(self, ids: Sequence[int], bins: int = 4096) -> None:
        self.ids, self.bins, self.shift = [*ids, OTHER], bins, shift_to(bins)
        self._slot_of_id = torch.full((max(self.ids) + 2,), len(ids))  # the last entry: ids beyond the followed ones
        self._slot_of_id[list(ids)] = torch.arange(len(ids))
        super().__init__()

    def zeros(self) -> dict[str, torch.Tensor]:
        slots = len(self.ids)
        return {"counts": torch.zeros(slots * 2 * self.bins, dtype=torch.int64),  # [slot, label, bin]
                "loss": torch.zeros(slots, dtype=torch.float64), "predicted": torch.zeros(slots, dtype=torch.float64)}

    def add(self, scored: Scored) -> None:
        device = scored.logit_B.device
        sums, self._slot_of_id = self.on(device), self._slot_of_id.to(device)
        slot_B = self._slot_of_id[scored.display_B.long().clamp_(-1, len(self._slot_of_id) - 1)]
        place_B = (slot_B * 2 + scored.label_B) * self.bins + (scored.bin_B >> self.shift)
        sums["counts"].scatter_add_(0, place_B, torch.ones_like(place_B))
        sums["loss"].scatter_add_(0, slot_B, scored.loss_B)
        sums["predicted"].scatter_add_(0, slot_B, scored.probability_B)

    def result(self) -> dict[str, np.ndarray]:
        """One array per column, one entry per slice that has rows: id, rows, clicks, predicted, loss (sums), auc."""
        counts = self.sums["counts"].cpu().numpy().reshape(-1, 2, self.bins)
        rows, clicks = counts.sum((1, 2)), counts[:, 1].sum(1)
        table = {"id": np.array(self.ids), "rows": rows, "clicks": clicks,
                 "predicted": self.sums["predicted"].cpu().numpy(), "loss": self.sums["loss"].cpu().numpy(),
                 "auc": np.array([auc_of_counts(*slot)[0] for slot in counts])}
        return {name: values[rows > 0] for name, values in table.items()}
