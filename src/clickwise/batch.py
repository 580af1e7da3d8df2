"""What flows from a loader into a model.

Shape letters of the whole package: B samples · N numerical features · F categorical features · D embedding dim ·
L history length · V ids in a batch · P feature pairs · H hidden width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

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


Column = torch.Tensor | Ragged


@dataclasses.dataclass(frozen=True)
class Part:
    """What one of several processes has of a batch: `samples` of all `of`. One without samples, in the last batch of an
    evaluation, holds a row of another's to compute with."""

    samples: int
    of: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors by channel, in the order of the channel.

    numerical    [B, N] in its stored float type, or None where a dataset has no numerical feature
    categorical  one column per feature: ids [B] in their stored integer type, or Ragged for multi-hot
    user, target_item   columns like `categorical`
    history      one tensor of ids [B, L] per feature (item, category, …), position by position of the same events, the
                 latest last; 0 is padding, and a position is padding in every feature or in none
    negative_history    as `history`: at every position an event that did not happen; perhaps of fewer positions, the
                 latest, and of fewer features, the first
    label        [B], 0 or 1, in its stored type; None where only a prediction is wanted
    display      [B] group ids (a display, a user-day), for GAUC and MAP@k
    part         where several processes share a batch, what part this one is; None: the whole
    """

    numerical: torch.Tensor | None = None
    categorical: tuple[Column, ...] = ()
    user: tuple[Column, ...] = ()
    target_item: tuple[Column, ...] = ()
    history: tuple[torch.Tensor, ...] = ()
    negative_history: tuple[torch.Tensor, ...] = ()
    label: torch.Tensor | None = None
    display: torch.Tensor | None = None
    part: Part | None = None

    def __len__(self) -> int:
        for column in (self.label, self.numerical, *self.categorical, *self.user, *self.target_item, *self.history,
                       self.display):
            if column is not None:
                return len(column)
        return 0

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """A batch with `function` applied to every tensor."""

        def each(column):
            if column is None or isinstance(column, Part):
                return column
            return column.map(function) if isinstance(column, Ragged) else function(column)

        return Batch(**{name: tuple(map(each, value)) if isinstance(value, tuple) else each(value)
                        for name, value in vars(self).items()})

    def _tensors(self) -> Iterator[torch.Tensor]:
        for value in vars(self).values():
            for column in value if isinstance(value, tuple) else (value,):
                if isinstance(column, torch.Tensor):
                    yield column
                elif isinstance(column, Ragged):
                    yield from (column.values_V, column.offsets)

    def to(self, device: torch.device | str) -> Batch:
        """A batch on `device`, itself if it is there; what shares one buffer, as in a loader's batch, crosses in one
        copy. From page-locked memory the copy to a GPU runs beside the computation."""
        device = torch.empty(0, device=device).device  # of "cuda", the GPU that it means
        tensors = [tensor for tensor in self._tensors() if tensor.device != device]
        if not tensors:
            return self
        # The copy to the CPU is waited for: its reader would not know when it has arrived.
        copies = _copied(tensors, lambda tensor: tensor.to(device, non_blocking=device.type != "cpu"))
        there = {id(tensor): copy for tensor, copy in zip(tensors, copies, strict=True)}
        return self.map(lambda tensor: there.get(id(tensor), tensor))


_ALIGNMENT = 64  # bytes
_SLACK = 2**16  # bytes between tensors that are not worth a copy of their own


def _copied(tensors: list[torch.Tensor], copy: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
    """A copy of each tensor, by as few calls of `copy` as sensible: tensors that lie side by side in one storage are
    views of one copy of their bytes. Where they are small parts of something large, each is copied alone."""
    in_storage: dict[tuple, list[int]] = {}
    for index, tensor in enumerate(tensors):
        if tensor.is_contiguous() and tensor.nbytes and not tensor.requires_grad:
            storage = tensor.untyped_storage()
            in_storage.setdefault((tensor.device, storage.data_ptr(), storage.nbytes()), []).append(index)
    copies: dict[int, torch.Tensor] = {}
    for indices in in_storage.values():
        starts = [tensors[index].storage_offset() * tensors[index].element_size() for index in indices]
        ends = [start + tensors[index].nbytes for start, index in zip(starts, indices, strict=True)]
        first = min(starts) // _ALIGNMENT * _ALIGNMENT
        size = max(ends) - first
        if len(indices) == 1 or size > 2 * sum(tensors[index].nbytes for index in indices) + _SLACK:
            continue
        one = tensors[indices[0]]
        raw = torch.empty(0, dtype=torch.uint8, device=one.device).set_(one.untyped_storage(), first, (size,))
        raw = copy(raw)
        for index, start, end in zip(indices, starts, ends, strict=True):
            copies[index] = raw[start - first:end - first].view(tensors[index].dtype).view(tensors[index].shape)
    return [copies[index] if index in copies else copy(tensor) for index, tensor in enumerate(tensors)]
