"""SIM: Pi et al., *Search-based User Interest Modeling with Lifelong Sequential Behavior Data*, 2020.

    target ──┬────────────────┬───────────────┬──────────────────────────────────┐
    long history ── search: k items ── attention ── lasting interest ──────────── concat ── top MLP ── logit [B]
             └── Σ by the search's weights ── search MLP ── search loss          │ │
    short history ── DIEN ── evolved interest ────────────────────────────────────┘ │
             └── which item came next? ── auxiliary loss                            │
    user, context ──────────────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import nn

from clickwise.batch import Batch
from clickwise.embedding import Embeddings
from clickwise.errors import RecipeError, nearest
from clickwise.feature_spec import LIST_OF, FeatureSpec
from clickwise.layers import search
from clickwise.layers.activation import Activation
from clickwise.layers.attention import MultiHeadTargetAttention, attend, masked_softmax
from clickwise.layers.scorer import Scorer
from clickwise.models.ctr_model import log_loss, require_shares, require_sizes
from clickwise.models.histories import (
    HistoryFeatures,
    HistoryModel,
    HistoryRows,
    build_evolution,
    fill_from_preset,
    in_faster_type,
    longest_first,
    require_from_zero,
    require_positive,
)
from clickwise.recipe import require

PRESETS = {
    "default": {"pooling": "multihead", "augru": "paper", "mask_padding": True, "loss_weight": 1.0,
                "search_loss_weight": 0.0, "auxiliary_loss_weight": 0.0, "auxiliary_over": "real"},
    "compat": {"pooling": "dot", "augru": "compat", "mask_padding": False, "loss_weight": 0.5,
               "search_loss_weight": 0.5, "auxiliary_loss_weight": 1.0, "auxiliary_over": "compat"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SIMConfig:
    """Settings that are null get the preset's value; the output layer (→ 1) is added to every MLP.

    preset                  compat: formula for formula what NVIDIA's TensorFlow 2 code computes
    short_length            the latest positions of the history, which DIEN reads; the search sees all before them
    search                  soft: largest inner products · hard: the latest of the target's category · simhash: most
                            equal signs of random projections · sdim: all that collide with the target, no k
    k                       how many items the search finds at most
    category                of hard search: the feature of the target item; null: the last that the history has too
    hash_bits, hash_group   of simhash (null: 2 · the width of an item) and sdim (null: 48 groups); signs per group
    pooling                 multihead: attention with `heads` of `head_dim` · dot: softmax of the inner products, and
                            the mean, as in compat
    heads, head_dim         of multihead pooling
    search_mlp              widths of the hidden layers of the search's own score
    gru_size                H of DIEN; null: 6 · embedding_dim
    augru, attention, mask_padding, auxiliary_over   as in DIEN
    loss_weight             of the log loss
    search_loss_weight      of the log loss of the search's own score; soft search only, 0: none
    auxiliary_loss_weight   0: no auxiliary loss, and no negative history is needed
    activation, dropout     of search and top MLP; dropout before their output layers
    embedding_dropout       on the values of the rows
    """

    preset: Literal["default", "compat"] = "default"
    embedding_dim: int = 16
    short_length: int = 10
    search: Literal["soft", "hard", "simhash", "sdim"] = "soft"
    k: int = 50
    category: str | None = None
    hash_bits: int | None = None
    hash_group: int = 3
    pooling: Literal["multihead", "dot"] | None = None
    heads: int = 4
    head_dim: int = 16
    gru_size: int | None = None
    augru: Literal["paper", "compat"] | None = None
    attention: Literal["unit", "bilinear"] = "unit"
    mask_padding: bool | None = None
    search_mlp: tuple[int, ...] = (200,)
    auxiliary_mlp: tuple[int, ...] = (100, 50)
    top_mlp: tuple[int, ...] = (200, 80)
    activation: Activation = "prelu"
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    loss_weight: float | None = None
    search_loss_weight: float | None = None
    auxiliary_loss_weight: float | None = None
    auxiliary_over: Literal["real", "compat"] | None = None

    def __post_init__(self) -> None:
        if self.search != "soft" and self.search_loss_weight is None:
            object.__setattr__(self, "search_loss_weight", 0.0)
        fill_from_preset(self, PRESETS)
        require_positive(self, "embedding_dim", "short_length", "k", "hash_bits", "hash_group", "heads", "head_dim",
                         "gru_size", "loss_weight")
        require_from_zero(self, "search_loss_weight", "auxiliary_loss_weight")
        require(self.search == "soft" or self.search_loss_weight == 0, "search_loss_weight",
                found=self.search_loss_weight, expected=f"0: {self.search} search has no score to learn")
        require(self.category is None or self.search == "hard", "category", found=self.category,
                expected="no category, or search: hard, which uses it")
        require(self.hash_bits is None or self.hash_bits % self.hash_group == 0 or self.search != "sdim", "hash_bits",
                found=self.hash_bits, expected=f"a multiple of hash_group={self.hash_group}")
        require_sizes(self, "search_mlp", "auxiliary_mlp", "top_mlp")
        require_shares(self, "dropout", "embedding_dropout")


class SIM(HistoryModel):
    """Logits from what a search in a long history finds for the target, and from how the latest interests evolved."""

    Config = SIMConfig

    def __init__(self, spec: FeatureSpec, embeddings: Embeddings, config: SIMConfig) -> None:
        super().__init__(spec, embeddings, config)
        features = self.features
        self.long = LongInterest(spec, features, config)
        self.evolution, self.auxiliary, width = build_evolution(features, config)
        rest = features.target_width + features.context_width
        self.search_top = Scorer(rest + features.item_width, config.search_mlp, config.activation,
                                 dropout=config.dropout) if config.search_loss_weight else None
        self.top = Scorer(self.long.outputs + width + rest, config.top_mlp, config.activation, dropout=config.dropout)

    def positions(self) -> tuple[int | None, int | None]:
        return None, self.config.short_length + self.config.k + 1  # so that a search has to choose

    @in_faster_type
    def forward(self, batch: Batch) -> torch.Tensor:
        return self._run(batch, self.rows(batch, self.config.short_length, earlier=True))["logit"]

    def _run(self, batch: Batch, rows: HistoryRows, *, with_search: bool = False) -> dict[str, torch.Tensor]:
        lasting_BE, searched_BE = self.long(batch, rows.target_BE[:, :self.features.matched], rows.earlier_BLE,
                                            rows.earlier_BL, with_search=with_search)
        evolved_BH, interest_LBH = self.evolution(rows.target_BE, rows.items_BLE, rows.mask_BL)
        found = {"interest_LBH": interest_LBH}
        if with_search:
            found["search_logit"] = self.search_top(torch.cat([rows.target_BE, searched_BE, rows.context_BU], dim=1))
        found["logit"] = self.top(torch.cat([lasting_BE, rows.target_BE, evolved_BH, rows.context_BU], dim=1))
        return found

    @in_faster_type
    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        config = self.config
        if config.mask_padding:
            batch = longest_first(batch, config.short_length)
        rows = self.rows(batch, config.short_length, earlier=True,
                         negatives=config.short_length if self.auxiliary is not None else 0)
        found = self._run(batch, rows, with_search=self.search_top is not None)
        losses = {"log_loss": config.loss_weight * self.click_loss(found["logit"], batch.label)}
        if self.search_top is not None:
            losses["search_loss"] = config.search_loss_weight * log_loss(found["search_logit"], batch.label)
        if self.auxiliary is not None:
            losses["auxiliary_loss"] = config.auxiliary_loss_weight * self.auxiliary(
                found["interest_LBH"], rows.items_BLE[..., :self.features.negative_width], rows.negatives_BSE,
                rows.mask_BL)
        return losses


class LongInterest(nn.Module):
    """(What a search finds in the long history [B, `outputs`], and on demand the sum by the search's own weights)."""

    def __init__(self, spec: FeatureSpec, features: HistoryFeatures, config: SIMConfig) -> None:
        super().__init__()
        self.search, self.k, self.hash_group, self.width = config.search, config.k, config.hash_group, features.matched
        if config.search == "hard":
            self.category = _category(spec, config.category)
        if config.search in ("simhash", "sdim"):
            bits = config.hash_bits or (2 * features.matched if config.search == "simhash" else 48 * config.hash_group)
            self.register_buffer("planes_EM", torch.randn(features.matched, bits))
        self.attention = None
        self.outputs = features.item_width
        if config.search != "sdim":
            if config.pooling == "multihead":
                self.attention = MultiHeadTargetAttention(features.matched, features.item_width, heads=config.heads,
                                                          head_dim=config.head_dim)
                self.outputs = self.attention.outputs
            else:
                self.outputs = 2 * features.item_width

    def forward(self, batch: Batch, target_BE: torch.Tensor, items_BLE: torch.Tensor, mask_BL: torch.Tensor, *,
                with_search: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
        if torch.compiler.is_compiling() and items_BLE.shape[1] == 0:  # a graph cannot look for the largest of nothing
            return tuple(items_BLE.new_zeros(items_BLE.shape[0], width) for width in (self.outputs, items_BLE.shape[2]))
        if self.search == "sdim":
            return search.sdim(target_BE, items_BLE, mask_BL, self.planes_EM, self.hash_group), None
        heads = 0 if self.attention is None else self.attention.heads
        queries = [] if heads == 0 else [self.attention.queries(target_BE)]
        if self.search == "soft" or heads == 0:
            # Items may hold more than the target: the search compares what both have.
            queries.append(nn.functional.pad(target_BE, (0, items_BLE.shape[2] - self.width)).float().unsqueeze(1))

        # Soft search finds nothing only where all is padding: weights that are all alike sum zeros there.
        empty = "uniform" if self.search == "soft" else "zeros"
        chosen_BL = self._chosen(batch, target_BE, items_BLE[..., :self.width], mask_BL)

        def weights_of(score_CQL: torch.Tensor, here: slice) -> torch.Tensor:
            score_CL, mask_CL = score_CQL[:, -1], mask_BL[here]
            chosen_CL = search.top_k(score_CL.detach(), mask_CL, self.k) if chosen_BL is None else chosen_BL[here]
            if heads:
                weights = [masked_softmax(score_CQL[:, :heads], chosen_CL.unsqueeze(1), empty=empty)]
            else:
                mean_CL = chosen_CL / (chosen_CL.sum(1, keepdim=True) + 1)
                weights = [torch.stack([masked_softmax(score_CL, chosen_CL, empty=empty), mean_CL], dim=1)]
            if with_search:
                weights.append(masked_softmax(score_CL, mask_CL, empty="uniform").unsqueeze(1))
            return torch.cat(weights, dim=1)

        sums_BKE = attend(torch.cat(queries, dim=1), items_BLE, weights_of)
        searched_BE = sums_BKE[:, -1] if with_search else None
        found_BKE = sums_BKE[:, :-1] if with_search else sums_BKE
        return (found_BKE.flatten(1) if self.attention is None else self.attention.values(found_BKE)), searched_BE

    def _chosen(self, batch: Batch, target_BE: torch.Tensor, items_BLE: torch.Tensor,
                mask_BL: torch.Tensor) -> torch.Tensor | None:
        """What the search finds; None where it goes by the inner products, which attention computes as well."""
        if self.search == "soft":
            return None
        if self.search == "simhash":
            return search.simhash_search(target_BE, items_BLE, mask_BL, self.k, self.planes_EM)
        category_BL = batch.history[self.category][:, :mask_BL.shape[1]]
        return search.hard_search(batch.target_item[self.category], category_BL, mask_BL, self.k)


def _category(spec: FeatureSpec, name: str | None) -> int:
    """The index of the category among the features that target and history have in common."""
    matched = [target.name for target, _ in zip(spec.channel("target_item"), spec.channel("history"), strict=False)]
    firsts = [target.name for target in spec.channel("target_item") if LIST_OF not in target.extra]
    if name is None:
        return matched.index([first for first in firsts if first in matched][-1])
    if name not in matched:
        raise RecipeError("recipe.model.category", found=repr(name), do=nearest(name, matched),
                          expected="a feature of the target item that the history has too")
    return matched.index(name)
