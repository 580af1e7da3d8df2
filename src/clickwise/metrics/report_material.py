"""What a report draws of one mapping (train, validation, test), gathered while the mapping is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from clickwise.metrics.bins import edges
from clickwise.metrics.metric import Flaws, Scored, blocks, column
from clickwise.metrics.reliability import Calibration
from clickwise.metrics.slices import OTHER, Slices


class ReportMaterial:
    """Counts by score, and by value of the features in `follow`: one-hot feature name -> ids (see `Slices`).

        material = ReportMaterial({"tab": range(15)})
        material.update(logit_B, label_B, {"tab": tab_B})      # per batch
        np.savez_compressed(file, **material.arrays("test"))   # the run folder's scores.npz; arrays of several mappings
    """

    def __init__(self, follow: Mapping[str, Sequence[int]] | None = None) -> None:
        self.scores = Calibration()
        self.slices = {feature: Slices(ids) for feature, ids in (follow or {}).items()}
        self.flaws = Flaws()

    def update(self, logit_B: torch.Tensor, label_B: torch.Tensor,
               columns: Mapping[str, torch.Tensor] | None = None) -> None:
        """Adds B impressions; `columns` holds the ids [B] of at least the followed features."""
        logit_B = column("logits", logit_B)
        ids = [column(feature, (columns or {})[feature], len(logit_B)) for feature in self.slices]
        labels = column("labels", label_B, len(logit_B))
        for logit_block, label_block, *id_blocks in blocks(logit_B, labels, *ids):
            self.flaws.note(logit_block, label_block)
            scored = Scored(logit_block, label_block)
            self.scores.add(scored)
            for slices, scored.display_B in zip(self.slices.values(), id_blocks, strict=True):
                slices.add(scored)

    def merge(self, other: ReportMaterial) -> None:
        self.scores.merge(other.scores)
        for feature, slices in self.slices.items():
            slices.merge(other.slices[feature])

    def arrays(self, mapping: str, names: Mapping[str, Mapping[int, str]] | None = None) -> dict[str, np.ndarray]:
        """The arrays of `scores.npz` for this mapping; `names` gives ids the text to show (feature -> id -> text).

        `<mapping>/edges`       [bins + 1] logits between the bins, float64, from −inf to inf
        `<mapping>/rows`        [bins] impressions per bin of the logit, int64
        `<mapping>/clicks`      [bins] clicks per bin, int64
        `<mapping>/predicted`   [bins] sums of the predicted probability, float64
        `<mapping>/slices/<column>`  one entry per slice: `feature` and `value` (text), `rows`, `clicks`, `predicted`
                                and `loss` (sums, nats), `auc` (NaN for one class)
        """
        self.flaws.raise_if_any()
        arrays = {"edges": edges(self.scores.bins)}
        arrays |= {name: tensor.cpu().numpy() for name, tensor in self.scores.sums.items()}
        arrays |= {f"slices/{name}": values for name, values in self._slice_columns(names or {}).items()}
        return {f"{mapping}/{name}": np.asarray(values) for name, values in arrays.items()}

    def _slice_columns(self, names: Mapping[str, Mapping[int, str]]) -> dict[str, np.ndarray]:
        parts = []
        for feature, slices in self.slices.items():
            table = slices.compute()
            known = {OTHER: "all others", **names.get(feature, {})}
            table["value"] = np.array([str(known.get(id, id)) for id in table.pop("id").tolist()], dtype=np.str_)
            parts.append({"feature": np.full(len(table["rows"]), feature), **table})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
