"""DIEN: Zhou et al., *Deep Interest Evolution Network for Click-Through Rate Prediction*, 2019.

    target ────────────────────┬───────────────────┬─────────────────────────┐
    history ── GRU ── interests ┴ attention ── AUGRU ── evolved interest ── concat ── top MLP ── logit [B]
                         └── which item came next? ── auxiliary loss         │
    user, context ───────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch

from clickwise.batch import Batch
from clickwise.embedding import Embeddings
from clickwise.feature_spec import FeatureSpec
from clickwise.layers.activation import Activation
from clickwise.layers.scorer import Scorer
from clickwise.models.ctr_model import require_shares, require_sizes
from clickwise.models.histories import (
    HistoryModel,
    HistoryRows,
    build_evolution,
    fill_from_preset,
    in_faster_type,
    longest_first,
    require_from_zero,
    require_positive,
)

PRESETS = {
    "default": {"augru": "paper", "mask_padding": True, "auxiliary_loss_weight": 0.0, "auxiliary_over": "real"},
    "compat": {"augru": "compat", "mask_padding": False, "auxiliary_loss_weight": 1.0, "auxiliary_over": "compat",
               "history_length": 10},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DIENConfig:
    """Settings that are null get the preset's value; the output layer (→ 1) is added to every MLP.

    preset                  compat: formula for formula what NVIDIA's TensorFlow 2 code computes
    history_length          of the history, the latest positions only; null: all (10 in compat)
    gru_size                H; null: 6 · embedding_dim
    augru                   paper: attention 0 leaves the state · compat: it is an ordinary update
    attention               unit: an MLP on target and interest · bilinear: as in the paper
    mask_padding            false: padding goes through the recurrences as it does in compat
    auxiliary_loss_weight   0: no auxiliary loss, and no negative history is needed
    auxiliary_over          the mean of the auxiliary loss is over real positions, or over all as in compat
    activation, dropout     of the top MLP; dropout before its output layer
    embedding_dropout       on the values of the rows
    """

    preset: Literal["default", "compat"] = "default"
    embedding_dim: int = 16
    history_length: int | None = None
    gru_size: int | None = None
    augru: Literal["paper", "compat"] | None = None
    attention: Literal["unit", "bilinear"] = "unit"
    mask_padding: bool | None = None
    auxiliary_mlp: tuple[int, ...] = (100, 50)
    auxiliary_loss_weight: float | None = None
    auxiliary_over: Literal["real", "compat"] | None = None
    top_mlp: tuple[int, ...] = (200, 80)
    activation: Activation = "prelu"
    dropout: float = 0.0
    embedding_dropout: float = 0.0

    def __post_init__(self) -> None:
        fill_from_preset(self, PRESETS)
        require_positive(self, "embedding_dim", "history_length", "gru_size")
        require_from_zero(self, "auxiliary_loss_weight")
        require_sizes(self, "auxiliary_mlp", "top_mlp")
        require_shares(self, "dropout", "embedding_dropout")


class DIEN(HistoryModel):
    """Logits from how a user's interests evolved up to now with respect to the target."""

    Config = DIENConfig

    def __init__(self, spec: FeatureSpec, embeddings: Embeddings, config: DIENConfig) -> None:
        super().__init__(spec, embeddings, config)
        features = self.features
        self.evolution, self.auxiliary, width = build_evolution(features, config)
        self.top = Scorer(features.target_width + width + features.context_width, config.top_mlp, config.activation,
                          dropout=config.dropout)

    def positions(self) -> tuple[int | None, int | None]:
        return self.config.history_length, None if self.config.history_length or not self.config.mask_padding else 1

    @in_faster_type
    def forward(self, batch: Batch) -> torch.Tensor:
        return self._logit(self.rows(batch, self.config.history_length))[0]

    def _logit(self, rows: HistoryRows) -> tuple[torch.Tensor, torch.Tensor]:
        evolved_BH, interest_LBH = self.evolution(rows.target_BE, rows.items_BLE, rows.mask_BL)
        return self.top(torch.cat([rows.target_BE, evolved_BH, rows.context_BU], dim=1)), interest_LBH

    @in_faster_type
    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        config = self.config
        if config.mask_padding:
            batch = longest_first(batch, config.history_length)
        positions = batch.history[0].shape[1] if self.auxiliary is not None else 0
        rows = self.rows(batch, config.history_length, negatives=positions)
        logit_B, interest_LBH = self._logit(rows)
        losses = {"log_loss": self.click_loss(logit_B, batch.label)}
        if self.auxiliary is not None:
            losses["auxiliary_loss"] = config.auxiliary_loss_weight * self.auxiliary(
                interest_LBH, rows.items_BLE[..., :self.features.negative_width], rows.negatives_BSE, rows.mask_BL)
        return losses
