"""The engine `fused`: tables and rules as of the reference, on one GPU, with Triton kernels for the steps that count.

Forward is one launch for all features, whatever their widths; it casts the rows and writes them where the next layer
reads them, and leaves behind the rows it touched. The update sorts those once per width of tables, and sums and steps
them in one pass. Nothing waits for the GPU but `check_ids`.

`keep_time_on_device` makes steps ready for CUDA graphs, and for loss scaling, which decides there whether to skip one.

What it holds, when it steps and what it saves is that of `tables.py`: a state goes from either engine to the other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import torch

from clickwise.batch import Column, Ragged
from clickwise.embedding import WIDEST
from clickwise.embedding.lookup import Group, check_ids_of
from clickwise.embedding.table import Table, TableOptimizer
from clickwise.embedding.tables import Received, TablesInMemory
from clickwise.errors import EngineError
from clickwise.kernels import gpu
from clickwise.kernels.embedding_bag import FeatureLookup, Ids


@dataclasses.dataclass
class _BatchLookup:
    """One look-up: its columns until the rows are there, then what it touched, by trained group."""

    columns: tuple[Ids, ...]
    trains: bool
    touched: tuple = ()


class FusedEmbeddings(TablesInMemory):
    def __init__(self, tables: Sequence[Table], features: Sequence[str], optimizer: TableOptimizer, *,
                 device: torch.device | str = "cpu", **settings) -> None:
        where = "embedding engine 'fused'"
        if not gpu.triton_is_there():
            raise EngineError(where, found="no Triton here", expected="Triton, which torch for GPUs brings along",
                              do="set embedding.engine=reference, or see `clickwise doctor`")
        if torch.device(device).type != "cuda" and not gpu.is_interpreted():
            raise EngineError(where, found=f"the device {device}", expected="a GPU",
                              do="set embedding.engine=auto, which takes the fastest engine of a device")
        for table in tables:
            if table.dim > WIDEST:
                raise EngineError(f"table {table.name!r}", found=f"dim {table.dim}", expected=f"{WIDEST} or fewer",
                                  do="set embedding.engine=reference")
        self._on_device: tuple[torch.Tensor, torch.Tensor] | None = None  # rate and step
        super().__init__(tables, features, optimizer, device=device, **settings)
        self._trained = tuple(group for group in self._groups if group.trainable)
        self._gather, self._gathers_at = None, None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_gather": None, "_gathers_at": None}  # a copy has its tables elsewhere

    # Rate and step ----------------------------------------------------------------------------------------------------

    def keep_time_on_device(self) -> None:
        """From now on the rate and the number of the step are read from the GPU, where setting `lr_factor` writes the
        rate and every update counts: a graph that was captured once takes step after step. Asking for `step` or saving
        it then waits for the GPU."""
        if self._on_device is None and self._groups:
            device = self._weight(self._groups[0]).device
            self._on_device = (torch.tensor([self.optimizer.lr * self.lr_factor], dtype=torch.float64, device=device),
                               torch.tensor([self.step], dtype=torch.int64, device=device))

    @property
    def lr_factor(self) -> float:
        return self._lr_factor

    @lr_factor.setter
    def lr_factor(self, factor: float) -> None:
        self._lr_factor = factor
        if self.__dict__.get("_on_device") is not None:
            self._on_device[0].fill_(self.optimizer.lr * factor)

    @property
    def step(self) -> int:
        return self._step if self._on_device is None else int(self._on_device[1])

    @step.setter
    def step(self, step: int) -> None:
        self._step = step
        if self._on_device is not None:
            self._on_device[1].fill_(step)

    # Look-up and update -----------------------------------------------------------------------------------------------

    def _plan(self):
        """The look-up over the tables where they are now: they move with the module."""
        from clickwise.kernels.embedding_bag.triton import Gather

        addresses = tuple(self._weight(group).data_ptr() for group in self._groups)
        if self._gather is None or addresses != self._gathers_at:
            number = {table.name: t for t, table in enumerate(self.tables)}
            of = [self.table_of[feature] for feature in self.features]
            first_row = {name: row for group in self._trained for name, row in group.first_row.items()}
            self._gather = Gather(
                [self._held(table.name) for table in self.tables],
                [FeatureLookup(number[table.name], mean=table.pooling == "mean", modulo=table.modulo) for table in of],
                groups=[[number[table.name] for table in group.tables] for group in self._trained],
                first_row=[first_row.get(table.name) for table in self.tables])
            self._gathers_at = addresses
        return self._gather

    def _check_ids(self, columns: Mapping[str, Column]) -> None:
        bad = self._plan().first_bad(_plain(tuple(columns.values())))
        if bad is not None:
            feature = self.features[bad[1]]
            check_ids_of(feature, columns[feature], self.table_of[feature])

    def _look_up(self, columns: tuple[Column, ...], trains: bool) -> _BatchLookup:
        return _BatchLookup(_plain(columns), trains)

    def _rows(self, looked: _BatchLookup, samples: int, widths: tuple[int, ...], dtype: torch.dtype,
              before: torch.Tensor | None) -> torch.Tensor:
        out, first = None, 0
        if before is not None:
            first = before.shape[1]
            out = torch.empty(samples, first + sum(widths), dtype=dtype, device=before.device)
            out[:, :first] = before
        out, looked.touched = self._plan()(looked.columns, dtype, out=out, first=first, touched=looked.trains)
        looked.columns = ()
        return out

    def _update(self, received, scale: float | torch.Tensor = 1.0, skip: torch.Tensor | None = None) -> None:
        from clickwise.kernels.sparse_update.triton import now, update

        scale_there = scale if isinstance(scale, torch.Tensor) else None
        if scale_there is not None or skip is not None:
            self.keep_time_on_device()
        if self._on_device is None:
            self.step += 1
            time = {"lr": self.optimizer.lr * self.lr_factor, "step": self.step, "scale": scale}
        else:
            lr, step = self._on_device
            step.add_(1 if skip is None else skip.view(()) == 0)
            time = {"on_device": now(self.optimizer, lr=lr, step=step, scale=scale_there), "skip": skip,
                    "scale": scale if scale_there is None else 1.0}
        grad, touched = _joined(received)
        for group, of_group in zip(self._trained, touched, strict=True):
            update(self._weight(group), self._states(group), of_group.key_V, grad, self.optimizer,
                   at_V=of_group.at_V, unit=of_group.unit, factor_V=of_group.factor_V, **time)

    def _gradients(self, received: list[Received]) -> Iterator[tuple[Group, torch.Tensor, torch.Tensor]]:
        grad, touched = _joined(received) if received else (None, ())
        for group, of_group in zip(self._trained, touched, strict=bool(received)):
            first_V = of_group.at_V.long() * of_group.unit
            grad_VD = grad.reshape(-1)[first_V[:, None] + torch.arange(group.dim, device=grad.device)].float()
            factor_V = of_group.factor_V
            yield group, of_group.key_V, grad_VD if factor_V is None else grad_VD * factor_V[:, None]


def _plain(columns: Sequence[Column]) -> tuple[Ids, ...]:
    return tuple((c.values_V, c.offsets) if isinstance(c, Ragged) else c for c in columns)


def _joined(received) -> tuple[torch.Tensor, tuple]:
    """(the gradients of all look-ups in a row, what they touched by group, counted through)."""
    if len(received) == 1:
        looked, _, grad = received[0]
        return grad.contiguous(), looked.touched
    flat = torch.cat([grad.reshape(-1) for *_, grad in received])
    touched = []
    for parts in zip(*(looked.touched for looked, *_ in received), strict=True):
        first, at_parts, unit = 0, [], math.gcd(*(part.unit for part in parts))
        for part, (*_, grad) in zip(parts, received, strict=True):
            at_parts.append(part.at_V.long() * (part.unit // unit) + first // unit)
            first += grad.numel()
        factor_V = None
        if any(part.factor_V is not None for part in parts):
            factor_V = torch.cat([torch.ones(len(part.key_V), device=part.key_V.device) if part.factor_V is None
                                  else part.factor_V for part in parts])
        touched.append(dataclasses.replace(parts[0], key_V=torch.cat([part.key_V for part in parts]),
                                           at_V=torch.cat(at_parts), unit=unit, factor_V=factor_V))
    return flat, tuple(touched)
