"""What DIN, DIEN and SIM share: a user's history beside a target item, from Feature Spec and Batch to rows."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from clickwise.batch import Batch, Column, Ragged
from clickwise.embedding import Embeddings
from clickwise.embedding.table import Table
from clickwise.errors import SpecError
from clickwise.feature_spec import LIST_OF, Feature, FeatureSpec, first_of_list, is_time_gap
from clickwise.kernels.cpu_products import bf16_instructions
from clickwise.kernels.dropout import dropout
from clickwise.layers.interest_evolution import InterestEvolution, NextItemLoss
from clickwise.models.ctr_model import CTRModel
from clickwise.recipe import require

OF_EVENTS = ("target_item", "history", "negative_history")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HistoryRows:
    """The rows of one batch; E = D · target features, E' = D · history features, U all the rest.

    context_BU     user features, categoricals and numericals
    target_BE
    items_BLE      the history, its latest positions; padding is zeros
    mask_BL        true where there is an item
    earlier_BLE, earlier_BL   items and mask of the positions before those; None where they were not asked for
    negatives_BSE  of the last S positions, in the features of the negative history (the first of the history's);
                   None where they were not asked for
    """

    context_BU: torch.Tensor
    target_BE: torch.Tensor
    items_BLE: torch.Tensor
    mask_BL: torch.Tensor
    earlier_BLE: torch.Tensor | None
    earlier_BL: torch.Tensor | None
    negatives_BSE: torch.Tensor | None


class HistoryModel(CTRModel):
    """A model whose `features` are those of a history beside a target item."""

    @classmethod
    def tables(cls, spec: FeatureSpec, config: Any) -> tuple[Table, ...]:
        return HistoryFeatures.tables(spec, config.embedding_dim, negatives=cls.learns_from_negatives(config))

    @classmethod
    def reads(cls, spec: FeatureSpec, config: Any, *, training: bool = False) -> dict[str, tuple[str, ...]]:
        return super().reads(spec, config, training=training and cls.learns_from_negatives(config))

    @staticmethod
    def learns_from_negatives(config: Any) -> bool:
        """Whether training needs the channel negative_history, for an auxiliary loss."""
        return getattr(config, "auxiliary_loss_weight", 0) > 0

    def __init__(self, spec: FeatureSpec, embeddings: Embeddings, config: Any) -> None:
        super().__init__()
        self.embeddings, self.config = embeddings, config
        self.features = HistoryFeatures(spec, config.embedding_dim, negatives=self.learns_from_negatives(config))

    def rows(self, batch: Batch, length: int | None, **asked: Any) -> HistoryRows:
        """`HistoryFeatures.rows` with dropout in training."""
        return self.features.rows(self.embeddings, batch, length=length, **asked,
                                  share=self.config.embedding_dropout * self.training)


def in_faster_type(method: Callable[[Any, Batch], Result]) -> Callable[[Any, Batch], Result]:
    """A model's method of a batch, in float32 under an autocast to bfloat16 where that is slower: on a CPU without AMX.

    Products here have a few dozen rows and columns, position by position. Rounding what goes into them, and adding what
    comes out to float32 states, takes longer than AVX512-BF16 saves (measured on a Zen 4, see docs/models/sim.md).
    """
    @functools.wraps(method)
    def run(model: Any, batch: Batch) -> Result:
        is_slow = batch.history[0].device.type == "cpu" and torch.is_autocast_enabled("cpu") \
            and torch.get_autocast_dtype("cpu") == torch.bfloat16 and bf16_instructions() != "AMX"
        if not is_slow:
            return method(model, batch)
        _tell_of_float32(type(model).__name__)
        with torch.autocast("cpu", enabled=False):
            return method(model, batch)

    return run


@functools.cache
def _tell_of_float32(model: str) -> None:
    log.warning("train.precision bf16: %s computes in fp32 here, which is faster on a processor without AMX", model)


class HistoryFeatures:
    """Which features a model of histories looks up, in which tables, and how their rows are put together.

    The i-th feature of the history (and of the negative history) means the same as the i-th of the target and shares
    its table; time gaps, further history features and further target features have their own. Features that are further
    values of another (`list_of` in the Feature Spec) are looked up in its table, and their rows added to its own.
    `matched` is the width of what target and items have in common, the first of the values of both.
    """

    def __init__(self, spec: FeatureSpec, dim: int, *, negatives: bool) -> None:
        self.dim = dim
        self.names = {channel: tuple(feature.name for feature in spec.channel(channel))
                      for channel in ("user", "categorical", "target_item", "history", "negative_history")}
        _check(spec, negatives)
        if not negatives:
            self.names["negative_history"] = ()
        self.numericals = len(spec.channel("numerical"))
        self.further = {feature.name for channel in OF_EVENTS for feature in spec.channel(channel)
                        if LIST_OF in feature.extra}
        self.slots = {channel: _slots(spec, channel) for channel in OF_EVENTS}
        self.target_width, self.item_width, self.negative_width = (
            dim * (max(self.slots[channel], default=-1) + 1) if self.names[channel] else 0 for channel in OF_EVENTS)
        self.matched = dim * len(set(self.slots["target_item"][:_matched(spec)]))
        self.context_width = dim * (len(self.names["user"]) + len(self.names["categorical"])) + self.numericals

    @staticmethod
    def tables(spec: FeatureSpec, dim: int, *, negatives: bool) -> tuple[Table, ...]:
        """One table per meaning, named after the first feature that has it."""
        _check(spec, negatives)
        target, matched = spec.channel("target_item"), _matched(spec)
        shared = [[*pair] for pair in zip(target[:matched], spec.channel("history"), strict=False)]
        shared += [[feature] for feature in spec.channel("history")[matched:]]
        for features, negative in zip(shared, spec.channel("negative_history") if negatives else (), strict=False):
            features.append(negative)
        shared = _with_further_values(shared)
        alone = [[feature] for feature in (*spec.channel("user"), *spec.channel("categorical"), *target[matched:])]
        return tuple(Table(name=features[0].name, rows=max(feature.cardinality for feature in features), dim=dim,
                           features=tuple(feature.name for feature in features)) for features in (*alone, *shared))

    def rows(self, embeddings: Embeddings, batch: Batch, *, length: int | None = None, earlier: bool = False,
             negatives: int = 0, share: float = 0.0) -> HistoryRows:
        """All rows of a batch: of the history's last `length` positions (None: all), if asked of those before, and of
        the negative history's last `negatives` of them. Prediction asks for no negatives, and the batch needs none.
        `share` of all values is dropped."""
        positions = batch.history[0].shape[1]
        # Not by min and max, of which a graph for any length keeps every one.
        length = positions if length is None or length >= positions else length
        mask_BL = batch.history[0] != 0
        alone = dict(zip(self.names["user"], batch.user, strict=True))
        alone |= zip(self.names["categorical"], batch.categorical, strict=True)
        blocks = [alone, self._target(batch.target_item), self._window("history", batch.history, mask_BL, length, 0)]
        channels = ["", "target_item", "history"]
        if negatives:
            blocks.append(self._window("negative_history", batch.negative_history, mask_BL, min(negatives, length), 0))
            channels.append("negative_history")
        if earlier:
            blocks.append(self._window("history", batch.history, mask_BL, positions, length))
            channels.append("history")

        found = (self._lists_added(channel, rows, batch) for channel, rows in zip(
            channels, embeddings.lookup_groups(*blocks), strict=True))
        context_BU, target_BE, items_BLE, *others = (dropout(rows, share) if share else rows for rows in found)
        if self.numericals:
            context_BU = torch.cat([context_BU, batch.numerical.to(context_BU.dtype)], dim=1)
        return HistoryRows(context_BU=context_BU, target_BE=target_BE, items_BLE=items_BLE,
                           mask_BL=mask_BL[:, positions - length:], negatives_BSE=others[0] if negatives else None,
                           earlier_BLE=others[-1] if earlier else None,
                           earlier_BL=mask_BL[:, :positions - length] if earlier else None)

    def _window(self, channel: str, ids: Sequence[torch.Tensor], mask_BL: torch.Tensor, first: int,
                last: int) -> dict[str, torch.Tensor]:
        """Ids by feature from the `first` latest position to before the `last` latest, padding as −1."""
        def cut(column_BL: torch.Tensor) -> torch.Tensor:  # negatives may be of fewer positions, the latest
            there = column_BL.shape[1]
            return column_BL[:, there - first if there > first else 0:there - last]

        return {name: _padded(cut(ids_BL), cut(mask_BL & (ids_BL != 0) if name in self.further else mask_BL))
                for name, ids_BL in zip(self.names[channel], ids, strict=True)}

    def _target(self, target: Sequence[Column]) -> dict[str, Column]:
        """Ids by feature. Further values that are not there are the first once more, whose row is looked up anyway;
        `_lists_added` leaves them out."""
        names, slots = self.names["target_item"], self.slots["target_item"]
        return {name: torch.where(ids != 0, ids, target[slots.index(slot)]) if name in self.further else ids
                for name, ids, slot in zip(names, target, slots, strict=True)}

    def _lists_added(self, channel: str, rows: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Rows of one width per feature, further values added to those of their first."""
        slots = self.slots.get(channel, [])
        if len(set(slots)) == len(slots):
            return rows
        each = rows.unflatten(-1, (len(slots), self.dim))
        if channel == "target_item":  # in histories what is not there is no row
            there_BF = torch.stack([ids != 0 if name in self.further else torch.ones_like(ids, dtype=torch.bool)
                                    for name, ids in zip(self.names[channel], batch.target_item, strict=True)], dim=1)
            each = each * there_BF.unsqueeze(2)
        added = each.new_zeros(*each.shape[:-2], max(slots) + 1, self.dim)
        return added.index_add(-2, torch.tensor(slots, device=rows.device), each).flatten(-2)


def longest_first(batch: Batch, length: int | None) -> Batch:
    """The samples ordered by how many of the latest `length` positions (None: all) are real, most first: then padding
    costs recurrences nothing on a CPU. The same batch elsewhere, where nothing is padded, or where a column is Ragged.
    """
    columns = (*batch.categorical, *batch.user, *batch.target_item)
    if batch.history[0].device.type != "cpu" or any(isinstance(column, Ragged) for column in columns):
        return batch
    positions = batch.history[0].shape[1]
    mask_BL = batch.history[0][:, max(0, positions - (length or positions)):] != 0
    if bool(mask_BL.all()):
        return batch
    order_B = mask_BL.sum(1).argsort(descending=True, stable=True)
    return batch.map(lambda column: column.index_select(0, order_B))


def _slots(spec: FeatureSpec, channel: str) -> list[int]:
    """Of every feature of a channel which of the channel's vectors its row is added to."""
    firsts: dict[str, int] = {}
    return [firsts.setdefault(first_of_list(feature), len(firsts)) for feature in spec.channel(channel)]


def _with_further_values(shared: list[list[Feature]]) -> list[list[Feature]]:
    """The same lists of features of one table, those that are further values of another beside it."""
    of = {first_of_list(features[0]): [] for features in shared}
    for features in shared:
        of[first_of_list(features[0])] += features
    return [*of.values()]


def _matched(spec: FeatureSpec) -> int:
    """How many features target and history have in common, by their position."""
    stored = [feature for feature in spec.channel("history") if not is_time_gap(feature)]
    return min(len(spec.channel("target_item")), len(stored))


def _padded(ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """The ids with −1, which is no row, at padding: 0 may be a real event whose feature is missing."""
    if not ids_BL.dtype.is_signed:
        ids_BL = ids_BL.short()
    return ids_BL.masked_fill(~mask_BL, -1)


def _check(spec: FeatureSpec, negatives: bool) -> None:
    """SpecError where a channel is missing or does not fit the others."""
    for channel in ("target_item", "history"):
        if not spec.channel(channel):
            raise SpecError(f"{spec.path}: channel_spec.{channel}", found="no feature", expected="at least one",
                            do="DIN, DIEN and SIM rank a target item by the user's history; without one use dlrm or "
                               "dcnv2")
    if not _matched(spec):
        raise SpecError(f"{spec.path}: channel_spec.history", found="nothing but time gaps",
                        expected="a feature that the target item has too", do="put the items' ids first")
    if negatives and not spec.channel("negative_history"):
        raise SpecError(f"{spec.path}: channel_spec.negative_history", found="no feature",
                        expected="a twin of each feature of the history, for the auxiliary loss",
                        do="add them, or set model.auxiliary_loss_weight=0")


def fill_from_preset(config: object, presets: dict[str, dict[str, object]]) -> None:
    """For `__post_init__`: settings left at None get the value of the config's preset, so that a resolved recipe says
    what was computed."""
    for key, value in presets[config.preset].items():
        if getattr(config, key) is None:
            object.__setattr__(config, key, value)


def require_positive(config: object, *keys: str) -> None:
    """Raises unless each of these settings is above 0, or null where that is allowed."""
    for key in keys:
        value = getattr(config, key)
        require(value is None or value > 0, key, found=value, expected="a number above 0")


def require_from_zero(config: object, *keys: str) -> None:
    """Raises unless each of these settings is 0 or more."""
    for key in keys:
        require(getattr(config, key) >= 0, key, found=getattr(config, key), expected="0 or more")


def build_evolution(features: HistoryFeatures, config) -> tuple[InterestEvolution, NextItemLoss | None, int]:
    """DIEN's evolution of interests, its auxiliary loss (None for the weight 0), and H, the width of an interest, for
    the settings that DIEN and SIM have in common."""
    width = config.gru_size or 6 * config.embedding_dim
    evolution = InterestEvolution(features.target_width, features.item_width, width, augru=config.augru,
                                  attention=config.attention, mask_padding=config.mask_padding)
    auxiliary = NextItemLoss(width, features.negative_width, config.auxiliary_mlp, over=config.auxiliary_over) \
        if config.auxiliary_loss_weight > 0 else None
    return evolution, auxiliary, width
