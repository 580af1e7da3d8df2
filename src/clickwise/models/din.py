"""DIN: Zhou et al., *Deep Interest Network for Click-Through Rate Prediction*, 2018.

    target ──────────────┬──────────────────────────┐
    history ── weights by the target ── Σ ── interest ┴─ concat ── top MLP ── logit [B]
    user, context ─────────────────────────────────────┘
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch

from clickwise.batch import Batch
from clickwise.embedding import Embeddings
from clickwise.feature_spec import FeatureSpec
from clickwise.layers.activation import Activation
from clickwise.layers.attention import TargetAttention
from clickwise.layers.scorer import Scorer
from clickwise.models.ctr_model import require_shares, require_sizes
from clickwise.models.histories import HistoryModel, fill_from_preset, in_faster_type, require_positive

PRESETS = {
    "default": {"scores": "unit", "weights": "none", "unit_activation": "prelu"},
    "compat": {"scores": "dot", "weights": "softmax", "unit_activation": "sigmoid"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DINConfig:
    """Settings that are null get the preset's value; the output layer (→ 1) is added to `top_mlp`.

    preset            compat: formula for formula what NVIDIA's TensorFlow 2 code computes
    history_length    of the history, the latest positions only; null: all
    scores            unit: an MLP on item and target (`unit_mlp`) · dot: inner product
    weights           softmax over the history · none: the scores themselves
    unit_mlp          widths of the activation unit's hidden layers
    unit_activation   of the activation unit
    activation        of the top MLP; `unit_activation` of the activation unit
    dropout           before the output layer; `embedding_dropout` on the values of the rows
    """

    preset: Literal["default", "compat"] = "default"
    embedding_dim: int = 16
    history_length: int | None = None
    scores: Literal["unit", "dot"] | None = None
    weights: Literal["softmax", "none"] | None = None
    unit_mlp: tuple[int, ...] = (80, 40)
    unit_activation: Activation | None = None
    top_mlp: tuple[int, ...] = (200, 80)
    activation: Activation = "prelu"
    dropout: float = 0.0
    embedding_dropout: float = 0.0

    def __post_init__(self) -> None:
        fill_from_preset(self, PRESETS)
        require_positive(self, "embedding_dim", "history_length")
        require_sizes(self, "unit_mlp", "top_mlp")
        require_shares(self, "dropout", "embedding_dropout")


class DIN(HistoryModel):
    """Logits from the part of a user's history that matters for the target."""

    Config = DINConfig

    def __init__(self, spec: FeatureSpec, embeddings: Embeddings, config: DINConfig) -> None:
        super().__init__(spec, embeddings, config)
        features = self.features
        self.attention = TargetAttention(features.matched, scores=config.scores, weights=config.weights,
                                         sizes=config.unit_mlp, act=config.unit_activation)
        self.top = Scorer(features.target_width + features.item_width + features.context_width, config.top_mlp,
                          config.activation, dropout=config.dropout)

    def positions(self) -> tuple[int | None, int | None]:
        return self.config.history_length, None if self.config.history_length else 1

    @in_faster_type
    def forward(self, batch: Batch) -> torch.Tensor:
        rows = self.rows(batch, self.config.history_length)
        interest_BE, _ = self.attention(rows.target_BE[:, :self.features.matched], rows.items_BLE, rows.mask_BL)
        return self.top(torch.cat([rows.target_BE, interest_BE, rows.context_BU], dim=1))
