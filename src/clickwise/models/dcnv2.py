"""DCNv2: Wang et al., *DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank
Systems*, 2021.

    numerical [B, N] ── bottom MLP ──┬─ concat: x0 [B, K] ── cross network ── x [B, K] ── top MLP ── logit [B]   stacked
    ids (F columns) ── embeddings ───┘
                                       x0 ──┬─ cross network ─ concat ── logit [B]                              parallel
                                            └─ top MLP ────────┘
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import nn

from clickwise.batch import Batch
from clickwise.embedding import Embeddings
from clickwise.embedding.table import Table
from clickwise.errors import RecipeError, nearest
from clickwise.feature_spec import FeatureSpec
from clickwise.layers.cross import CrossNetwork
from clickwise.layers.mlp import MLP, fill
from clickwise.models.ctr_model import CTRModel, concat_inputs_and_rows, require_shares, require_sizes
from clickwise.recipe import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCNv2Config:
    """The output layer (→ 1) is added to `top_mlp`.

    embedding_dims   feature → its own dim, where it is not `embedding_dim`
    cross_layers     0: no cross network
    cross_rank       of the layers' matrices, which are then two factors; null: full matrices
    structure        stacked: the top MLP reads the cross network; parallel: both read x0 and the output layer both
    dropout, embedding_dropout   behind every hidden layer of the top MLP; on the values of the rows
    """

    embedding_dim: int = 128
    embedding_dims: dict[str, int] = dataclasses.field(default_factory=dict)
    bottom_mlp: tuple[int, ...] = (512, 256, 128)
    cross_layers: int = 3
    cross_rank: int | None = 512
    top_mlp: tuple[int, ...] = (1024, 1024, 512, 256)
    structure: Literal["stacked", "parallel"] = "stacked"
    dropout: float = 0.0
    embedding_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, dim in {"embedding_dim": self.embedding_dim,
                          **{f"embedding_dims.{feature}": dim for feature, dim in self.embedding_dims.items()}}.items():
            require(dim > 0, name, found=dim, expected="a positive integer")
        require(self.cross_layers >= 0, "cross_layers", found=self.cross_layers, expected="0 or more")
        require(self.cross_rank is None or self.cross_rank > 0, "cross_rank", found=self.cross_rank,
                expected="a positive integer, or null for full matrices")
        require_sizes(self, "bottom_mlp", "top_mlp")
        require_shares(self, "dropout", "embedding_dropout")


class DCNv2(CTRModel):
    """Logits from explicit crosses of all features' values and a deep network.

    x0 holds the bottom MLP's output (the numericals themselves where `bottom_mlp` is empty) and then the rows, in the
    order of the channel. First values as in NVIDIA's TensorFlow 2 reference, the output layer included.
    NOTE[DIFF] its numericals are padded from 13 to 16 with zeros, which gives the first layer 1,536 dead weights.
    """

    Config = DCNv2Config
    channels = ("numerical", "categorical")

    @staticmethod
    def tables(spec: FeatureSpec, config: DCNv2Config) -> tuple[Table, ...]:
        features = spec.channel("categorical")
        names = [feature.name for feature in features]
        for name in config.embedding_dims:
            if name not in names:
                raise RecipeError(f"recipe.model.embedding_dims.{name}", found="no such categorical feature",
                                  expected=f"features of {spec.path}", do=nearest(name, names))
        return tuple(Table(name=feature.name, rows=feature.cardinality, features=(feature.name,),
                           dim=config.embedding_dims.get(feature.name, config.embedding_dim)) for feature in features)

    def __init__(self, spec: FeatureSpec, embeddings: Embeddings, config: DCNv2Config) -> None:
        super().__init__()
        self.embeddings = embeddings
        numericals = len(spec.channel("numerical"))
        self.bottom = MLP(numericals, config.bottom_mlp, truncated=True) if numericals else None
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        width = sum(embeddings.dims) + (self.bottom.outputs if numericals else 0)
        self.cross = CrossNetwork(width, layers=config.cross_layers, rank=config.cross_rank)
        self.top = MLP(width, config.top_mlp, dropout=config.dropout, truncated=True)
        self.is_parallel = config.structure == "parallel"
        self.output = fill(nn.Linear(self.top.outputs + width * self.is_parallel, 1), truncated=True)

    def ask_ahead(self, batch: Batch) -> None:
        self.embeddings.ask(batch.categorical)

    def forward(self, batch: Batch) -> torch.Tensor:
        bottom_BH = None if self.bottom is None else self.bottom(batch.numerical.float())
        x0_BK = concat_inputs_and_rows(bottom_BH, self.embeddings, batch.categorical, self.embedding_dropout)
        x_BK = self.cross(x0_BK)
        top_BH = torch.cat([x_BK, self.top(x0_BK)], dim=1) if self.is_parallel else self.top(x_BK)
        return self.output(top_BH).squeeze(1).float()
