"""What every model here has in common: logits for a batch, and named losses for the training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from clickwise.batch import Batch, Column
from clickwise.embedding import Embeddings
from clickwise.feature_spec import FeatureSpec
from clickwise.recipe import require


class CTRModel(nn.Module):
    """A model that ranks by the probability of a click.

    A subclass has a frozen dataclass `Config` (its recipe section), says with `tables(spec, config)` which embedding
    tables it needs, and is built with `(spec, embeddings, config)`. It never learns which engine serves its rows.

    A model with `parts` can have an optimizer and a schedule for each. Its tables name the part they belong to,
    `embeddings` maps part → engine, and a part `x` is the module `self.x`, its engine `self.x.embeddings`.

    channels   what a prediction takes of a batch
    watch      what `click_loss` tells its predictions and their labels, if somebody asks for them
    """

    parts: tuple[str, ...] = ()
    channels: tuple[str, ...] = ("numerical", "categorical", "user", "target_item", "history")
    watch: Callable[[torch.Tensor, torch.Tensor], None] | None = None

    @classmethod
    def reads(cls, spec: FeatureSpec, config: Any, *, training: bool = False) -> dict[str, tuple[str, ...]]:
        """Channel → names of its features, () where the spec has none, for all that a prediction takes, or a training
        step besides the label. A batch need not have anything else, and a file of rows to score no other column."""
        negatives = ("negative_history",) if training and "history" in cls.channels else ()
        return {channel: spec.channels.get(channel, ()) for channel in (*cls.channels, *negatives)}

    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits, float32 [B]; needs no label, so that the same function is trained, evaluated and served."""
        raise NotImplementedError

    def ask_ahead(self, batch: Batch) -> None:
        """Told the batch of the next step while one is under way: has engines send for its rows, where a model knows
        which columns it will look up (`Embeddings.ask`)."""

    def positions(self) -> tuple[int | None, int | None]:
        """(How many positions of a history a prediction reads, the latest; None: all. From how many on it may be given
        fewer, where the rest is padding: scores are then the same, and no constant in `forward` follows from how many
        they are; None: it needs them all.)"""
        return None, None

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Scalar losses by name; the loop minimises their sum. Here: mean binary cross-entropy over the batch."""
        return {"log_loss": self.click_loss(self(batch), batch.label)}

    def click_loss(self, logit_B: torch.Tensor, label_B: torch.Tensor) -> torch.Tensor:
        """`log_loss` of the predictions that the model is there for, not of those of a part of it."""
        if self.watch is not None:
            self.watch(logit_B, label_B)
        return log_loss(logit_B, label_B)


def concat_inputs_and_rows(before_BN: torch.Tensor | None, embeddings: Embeddings, columns: Sequence[Column],
                dropout: nn.Dropout) -> torch.Tensor:
    """[before, rows], [B, N + sum of dims]; dropout, in training, acts on the values of the rows alone."""
    if before_BN is None:
        return dropout(embeddings(columns))
    if not (columns and dropout.training and dropout.p):
        return embeddings(columns, before=before_BN)
    rows = dropout(embeddings(columns))
    return torch.cat([before_BN.to(rows.dtype), rows], dim=1)


def log_loss(logit_B: torch.Tensor, label_B: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy over the batch, a scalar."""
    return nn.functional.binary_cross_entropy_with_logits(logit_B, label_B.to(logit_B.dtype))


def require_sizes(config: object, *keys: str) -> None:
    """Raises unless each of these settings holds positive sizes of layers; for `__post_init__` of a model's Config."""
    for key in keys:
        require(all(size > 0 for size in getattr(config, key)), key, found=list(getattr(config, key)),
                expected="positive sizes")


def require_shares(config: object, *keys: str) -> None:
    """Raises unless each of these settings is a share of values to drop."""
    for key in keys:
        require(0 <= getattr(config, key) < 1, key, found=getattr(config, key), expected="a share from 0 to below 1")
