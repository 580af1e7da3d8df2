"""DLRM: Naumov et al., *Deep Learning Recommendation Model for Personalization and Recommendation Systems*, 2019.

    numerical [B, N] ── bottom MLP ── z0 [B, D] ──┬────────────────────────┐
    ids (F columns) ── embeddings ── rows [B, F, D] ┴─ dot of every pair ── concat ── top MLP ── logit [B]

or, `interaction: cat`, with z0 and the rows side by side instead of the pairs.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import nn

from clickwise.batch import Batch
from clickwise.embedding import Embeddings
from clickwise.embedding.table import Table
from clickwise.feature_spec import FeatureSpec
from clickwise.kernels.dot_interaction import dot_interaction, dot_interaction_of, output_width, takes_joined
from clickwise.layers.mlp import MLP
from clickwise.models.ctr_model import CTRModel, concat_inputs_and_rows, require_shares, require_sizes
from clickwise.recipe import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class DLRMConfig:
    """The output layer (→ 1) is added to `top_mlp`.

    interaction      what the top MLP reads. dot: z0 and the product of every pair, for which `bottom_mlp` must end in
                     `embedding_dim` · cat: z0 and the rows themselves, side by side
    dropout, embedding_dropout   behind every hidden layer of the top MLP; on the values of the rows
    """

    embedding_dim: int = 128
    bottom_mlp: tuple[int, ...] = (512, 256, 128)
    top_mlp: tuple[int, ...] = (1024, 1024, 512, 256)
    interaction: Literal["dot", "cat"] = "dot"
    dropout: float = 0.0
    embedding_dropout: float = 0.0

    def __post_init__(self) -> None:
        require(self.embedding_dim > 0, "embedding_dim", found=self.embedding_dim, expected="a positive integer")
        require(self.interaction == "cat" or self.bottom_mlp[-1:] == (self.embedding_dim,), "bottom_mlp",
                found=list(self.bottom_mlp), expected=f"sizes that end in embedding_dim={self.embedding_dim}",
                do="change the last size, or embedding_dim: the interaction needs vectors of one length; "
                   "interaction=cat does not")
        require_sizes(self, "bottom_mlp", "top_mlp")
        require_shares(self, "dropout", "embedding_dropout")


class DLRM(CTRModel):
    """Logits from pairwise dot products of all features' vectors, or from the vectors themselves.

    The vectors stand in the order of the channel: z0 first, then the categorical features.
    NOTE[DIFF] The reference puts tables in the order of their size, so that its one-GPU and many-GPU checkpoints
    disagree; here the order never depends on sizes or on where a table lives.
    """

    Config = DLRMConfig
    channels = ("numerical", "categorical")

    @staticmethod
    def tables(spec: FeatureSpec, config: DLRMConfig) -> tuple[Table, ...]:
        return tuple(Table(name=feature.name, rows=feature.cardinality, dim=config.embedding_dim,
                           features=(feature.name,)) for feature in spec.channel("categorical"))

    def __init__(self, spec: FeatureSpec, embeddings: Embeddings, config: DLRMConfig) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.embedding_dim, self.multiplies = config.embedding_dim, config.interaction == "dot"
        numerical = len(spec.channel("numerical"))
        categorical = len(spec.channel("categorical"))
        self.bottom = MLP(numerical, config.bottom_mlp) if numerical else None
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)

        width = used = sum(embeddings.dims) + (self.bottom.outputs if numerical else 0)
        if self.multiplies:
            width, used = output_width(categorical, config.embedding_dim, z0=bool(numerical))
        self.top = MLP(width, config.top_mlp, dropout=config.dropout)
        if config.top_mlp:
            # NOTE[DIFF] The reference zeroes the last column even where it is no padding.
            self.top.zero_input_columns(slice(used, width))
        self.output = nn.Linear(self.top.outputs, 1)

    def ask_ahead(self, batch: Batch) -> None:
        self.embeddings.ask(batch.categorical)

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.output(self.top(self._interaction(batch))).squeeze(1).float()

    def _interaction(self, batch: Batch) -> torch.Tensor:
        """What the top MLP reads, [B, H]."""
        z0_BD = None if self.bottom is None else self.bottom(batch.numerical.float())
        is_joined = z0_BD is not None and bool(batch.categorical) and takes_joined(z0_BD.device)
        if is_joined or not self.multiplies:
            x_BK = concat_inputs_and_rows(z0_BD, self.embeddings, batch.categorical, self.embedding_dropout)
            return dot_interaction_of(x_BK.unflatten(1, (-1, self.embedding_dim))) if self.multiplies else x_BK
        rows_BFD = None
        if batch.categorical:
            rows_BFD = self.embeddings(batch.categorical).unflatten(1, (-1, self.embedding_dim))
            rows_BFD = self.embedding_dropout(rows_BFD)
        return dot_interaction(z0_BD, rows_BFD)
