"""What flows from a loader into a model.

Shape letters of the whole package: B samples · N numerical features · F categorical features · D embedding dim ·
L history length · V ids in a batch · P feature pairs · H hidden width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch


@dataclasses.dataclass(frozen=True)
class Ragged:
    """B lists of different lengths in two tensors: list i is `values[offsets[i]:offsets[i + 1]]`.

    `values_V` holds ids in the integer type they are stored in; `offsets` is int32 or int64 of length B + 1 and
    starts at 0. Where `values_V` is longer than `offsets[-1]` (a fixed capacity), the rest is padding.
    """

    values_V: torch.Tensor
    offsets: torch.Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths_B(self) -> torch.Tensor:
        return self.offsets[1:] - self.offsets[:-1]

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Ragged:
        return Ragged(function(self.values_V), function(self.offsets))

    def samples_V(self) -> torch.Tensor:
        """For every value the sample it belongs to, int64 of length `offsets[-1]`."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.offsets.device), self.lengths_B())


Column = torch.Tensor | Ragged


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors by channel, in the order of the channel.

    numerical    [B, N] in its stored float type, or None where a dataset has no numerical feature
    categorical  one column per feature: ids [B] in their stored integer type, or Ragged for multi-hot
    label        [B], 0 or 1, in its stored type; None where only a prediction is wanted
    display      [B] group ids (a display, a user-day), for GAUC and MAP@k
    """

    numerical: torch.Tensor | None = None
    categorical: tuple[Column, ...] = ()
    label: torch.Tensor | None = None
    display: torch.Tensor | None = None

    def __len__(self) -> int:
        for column in (self.label, self.numerical, *self.categorical, self.display):
            if column is not None:
                return len(column)
        return 0

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """A batch with `function` applied to every tensor."""

        def each(column):
            if column is None:
                return None
            return column.map(function) if isinstance(column, Ragged) else function(column)

        return Batch(numerical=each(self.numerical), categorical=tuple(map(each, self.categorical)),
                     label=each(self.label), display=each(self.display))

    def to(self, device: torch.device | str) -> Batch:
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """A batch in page-locked memory, so that the copy to a GPU runs beside the computation."""
        return self.map(torch.Tensor.pin_memory)
