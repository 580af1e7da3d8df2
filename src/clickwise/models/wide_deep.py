"""Wide & Deep: Cheng et al., *Wide & Deep Learning for Recommender Systems*, 2016.

    ids, crosses ── a weight each ──┐
    numerical [B, N] ── a weight each ┴─ sum ─── wide [B] ──┐
                                                            + ── logit [B]
    numerical [B, N] ───────────┬─ concat ── MLP ─ deep [B] ┘
    ids (F columns) ── embeddings ┘
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from clickwise.batch import Batch, Column
from clickwise.embedding import Embeddings
from clickwise.embedding.table import Table
from clickwise.errors import RecipeError, nearest
from clickwise.feature_spec import Feature, FeatureSpec
from clickwise.given_files import read_given_json
from clickwise.layers.cross_ids import cross_ids
from clickwise.layers.mlp import MLP, glorot_uniform
from clickwise.models.ctr_model import CTRModel, concat_inputs_and_rows, require_shares, require_sizes
from clickwise.recipe import Invalid, require

DEFAULT_DIM = 64
MOST_ONE_HOT = 1024  # inputs of the deep network that one feature may take
INITS = {  # first values of the wide tables, and of the deep ones
    "clickwise": ("zeros", "uniform"),
    "tf2": ("zeros", "glorot_normal"),
    "tf2_2021": ("keras_uniform", "glorot_normal"),
    "tf1": ("zeros", "inverse_sqrt_dim"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WideDeepConfig:
    """The output layer (→ 1) is added to `deep_hidden`.

    deep_hidden      widths of the hidden layers of the deep part
    cross_buckets    rows of a cross's table
    model_type       which of the two parts there are
    embedding_sizes  feature → dim of its embedding in the deep part, 0: it enters one-hot; or the JSON file of such a
                     mapping, which is read when the recipe is
    embedding_dim    of features that `embedding_sizes` lacks; null: it must have all of them, or none, which means 64
    combiner         how the rows of a multi-hot feature are pooled in the deep part; in the wide part they are summed
    dropout, embedding_dropout   behind every hidden layer; on the values of the rows
    crosses          lists of one-hot features whose values together have a weight in the wide part, each cross a table
                     of `cross_buckets` rows
    init             first values: ours, or those of NVIDIA's TensorFlow systems
    """

    model_type: Literal["wide", "deep", "wide_deep"] = "wide_deep"
    embedding_dim: int | None = None
    embedding_sizes: dict[str, int] | str = dataclasses.field(default_factory=dict)
    combiner: Literal["sum", "mean"] = "sum"
    deep_hidden: tuple[int, ...] = (1024,) * 5
    dropout: float = 0.1
    embedding_dropout: float = 0.0
    crosses: tuple[tuple[str, ...], ...] = ()
    cross_buckets: int = 100_000
    init: Literal["clickwise", "tf2", "tf2_2021", "tf1"] = "clickwise"

    def __post_init__(self) -> None:
        if isinstance(self.embedding_sizes, str):
            object.__setattr__(self, "embedding_sizes", _read_sizes(self.embedding_sizes))
        for feature, size in self.embedding_sizes.items():
            require(size >= 0, f"embedding_sizes.{feature}", found=size, expected="a positive integer, or 0: one-hot")
        require(self.embedding_dim is None or self.embedding_dim > 0, "embedding_dim", found=self.embedding_dim,
                expected="a positive integer")
        require_sizes(self, "deep_hidden")
        require_shares(self, "dropout", "embedding_dropout")
        require(self.cross_buckets > 0, "cross_buckets", found=self.cross_buckets, expected="a number above 0")
        for cross in self.crosses:
            require(len(set(cross)) == len(cross) >= 2, "crosses", found=list(cross), expected="two or more features")
        require(not self.crosses or self.model_type != "deep", "crosses", found=[list(cross) for cross in self.crosses],
                expected="no crosses with model_type: deep", do="they are inputs of the wide part")


def _read_sizes(file: str) -> dict[str, int]:
    """The mapping in a JSON file."""
    expected = 'a JSON file {"feature": dim, …}'
    try:
        sizes = read_given_json(Path(file))
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise Invalid("embedding_sizes", found=f"{file}: {reason}", expected=expected,
                      do="the path is relative to the folder you are in") from None
    if not isinstance(sizes, dict) or not all(type(size) is int for size in sizes.values()):
        wrong = sizes if not isinstance(sizes, dict) else \
            next(f"{name}: {size!r}" for name, size in sizes.items() if type(size) is not int)
        raise Invalid("embedding_sizes", found=f"{file}: {wrong}", expected=expected)
    return sizes


class WideDeep(CTRModel):
    """Logits from the sum of a linear model and a deep network, each with its own tables of all features.

    NOTE[DIFF] The references put the deep network's inputs in the order of their names, numericals between embeddings;
    here numericals come first, and then the rows in the order of the channel.
    """

    Config = WideDeepConfig
    parts = ("wide", "deep")
    channels = ("numerical", "categorical")

    @staticmethod
    def tables(spec: FeatureSpec, config: WideDeepConfig) -> tuple[Table, ...]:
        features = spec.channel("categorical")
        wide_init, deep_init = INITS[config.init]
        tables = []
        if config.model_type != "deep":
            rows = {feature.name: feature.cardinality for feature in features}
            rows |= {"*".join(cross): config.cross_buckets for cross in _checked_crosses(spec, config)}
            tables += [Table(name=name, rows=rows_of, dim=1, features=(name,), init=wide_init, part="wide")
                       for name, rows_of in rows.items()]
        if config.model_type != "wide":
            sizes = embedding_sizes(spec, config)
            tables += [Table(name=feature.name, rows=feature.cardinality, dim=sizes[feature.name], init=deep_init,
                             features=(feature.name,), pooling=config.combiner, part="deep")
                       for feature in features if sizes[feature.name]]
        return tuple(tables)

    def __init__(self, spec: FeatureSpec, embeddings: dict[str, Embeddings], config: WideDeepConfig) -> None:
        super().__init__()
        self.wide = None if config.model_type == "deep" else Wide(spec, embeddings["wide"], config)
        self.deep = None if config.model_type == "wide" else Deep(spec, embeddings["deep"], config)

    def ask_ahead(self, batch: Batch) -> None:
        if self.deep is not None:
            self.deep.embeddings.ask(self.deep.columns(batch))

    def forward(self, batch: Batch) -> torch.Tensor:
        if self.wide is None:
            return self.deep(batch)
        return self.wide(batch) if self.deep is None else self.wide(batch) + self.deep(batch)


class Wide(nn.Module):
    """A linear model of ids, crosses and numericals, float32 [B] whatever autocast says."""

    def __init__(self, spec: FeatureSpec, embeddings: Embeddings, config: WideDeepConfig) -> None:
        super().__init__()
        self.embeddings = embeddings
        numericals = len(spec.channel("numerical"))
        index_of = {feature.name: index for index, feature in enumerate(spec.channel("categorical"))}
        self.crosses = [tuple(index_of[name] for name in cross) for cross in config.crosses]
        self.cross_buckets = config.cross_buckets
        self.weight_N = nn.Parameter(torch.zeros(numericals)) if numericals else None
        self.bias = nn.Parameter(torch.zeros(1))
        if config.init == "tf2_2021" and numericals:
            bound = (6 / (numericals + 1)) ** 0.5
            nn.init.uniform_(self.weight_N, -bound, bound)

    def forward(self, batch: Batch) -> torch.Tensor:
        with torch.autocast(self.bias.device.type, enabled=False):
            parts = [self.bias]
            if self.weight_N is not None:
                parts.append(batch.numerical.float() @ self.weight_N)
            if batch.categorical:
                crossed = [cross_ids([batch.categorical[index] for index in cross], self.cross_buckets)
                           for cross in self.crosses]
                parts.append(self.embeddings((*batch.categorical, *crossed)).sum(1))
            return sum(parts[1:], start=parts[0])


class Deep(nn.Module):
    """A deep network of numericals, one-hot features and embeddings, float32 [B]."""

    def __init__(self, spec: FeatureSpec, embeddings: Embeddings, config: WideDeepConfig) -> None:
        super().__init__()
        self.embeddings = embeddings
        features, sizes = spec.channel("categorical"), embedding_sizes(spec, config)
        self.embedded = [index for index, feature in enumerate(features) if sizes[feature.name]]
        self.one_hot = [(index, feature.cardinality) for index, feature in enumerate(features)
                        if not sizes[feature.name]]
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        width = len(spec.channel("numerical")) + sum(rows for _, rows in self.one_hot) + sum(embeddings.dims)
        self.hidden = MLP(width, config.deep_hidden, dropout=config.dropout)
        self.output = nn.Linear(self.hidden.outputs, 1)
        for layer in (*self.hidden, self.output):
            glorot_uniform(layer)

    def columns(self, batch: Batch) -> list[Column]:
        """Those that are embedded."""
        return [batch.categorical[index] for index in self.embedded]

    def forward(self, batch: Batch) -> torch.Tensor:
        padding = self.hidden.padding(self.output.weight.device)
        parts = [self.output.weight.new_zeros(len(batch), padding)] if padding else []
        parts += [] if batch.numerical is None else [batch.numerical.float()]  # autocast joins no float16 in bfloat16
        parts += [nn.functional.one_hot(batch.categorical[index].long(), cardinality).float()
                  for index, cardinality in self.one_hot]
        before_BN = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0] if parts else None
        x_BK = concat_inputs_and_rows(before_BN, self.embeddings, self.columns(batch), self.embedding_dropout)
        return self.output(self.hidden(x_BK)).squeeze(1).float()


def embedding_sizes(spec: FeatureSpec, config: WideDeepConfig) -> dict[str, int]:
    """Categorical feature → dim of its embedding in the deep part, 0: one-hot; RecipeError where one has none."""
    features = spec.channel("categorical")
    names, where = [feature.name for feature in features], "recipe.model.embedding_sizes"
    for name in config.embedding_sizes:
        if name not in names:
            raise RecipeError(f"{where}.{name}", found="no such categorical feature",
                              expected=f"features of {spec.path}", do=nearest(name, names))
    default = config.embedding_dim or (None if config.embedding_sizes else DEFAULT_DIM)
    for feature in features:
        size = config.embedding_sizes.get(feature.name, default)
        if size is None:
            raise RecipeError(where, found=f"no size for the feature {feature.name!r}",
                              expected="one for every categorical feature",
                              do="add it, or set model.embedding_dim for those that are not listed")
        if size == 0 and (feature.is_multi_hot or feature.cardinality > MOST_ONE_HOT):
            found = "a multi-hot feature" if feature.is_multi_hot else f"{feature.cardinality:,} ids"
            raise RecipeError(f"{where}.{feature.name}", found=f"0 (one-hot) for {found}",
                              expected=f"a feature of one id per sample and at most {MOST_ONE_HOT} ids",
                              do="give it an embedding: a size above 0")
    return {name: config.embedding_sizes.get(name, default) for name in names}


def _checked_crosses(spec: FeatureSpec, config: WideDeepConfig) -> tuple[tuple[str, ...], ...]:
    """The config's crosses; RecipeError unless they are of one-hot features that there are."""
    features: dict[str, Feature] = {feature.name: feature for feature in spec.channel("categorical")}
    for cross in config.crosses:
        for name in cross:
            if name not in features:
                raise RecipeError("recipe.model.crosses", found=f"no categorical feature {name!r}",
                                  expected=f"features of {spec.path}", do=nearest(name, features))
            if features[name].is_multi_hot:
                raise RecipeError("recipe.model.crosses", found=f"the multi-hot feature {name!r}",
                                  expected="one-hot features", do="leave it out: a bag of ids has no single cross")
    return config.crosses
