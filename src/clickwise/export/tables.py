"""The embedding tables of an exported graph: one joint table per width, in float32, bfloat16 or int8."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Literal

import torch

from clickwise.embedding import Embeddings

RowType = Literal["bf16", "int8"]
AT_ONCE = 2**24  # values that are converted at a time: 64 MB of float32


@dataclasses.dataclass(frozen=True, eq=False)
class JointTable:
    """Tables of one width, one below the other, each after a row of zeros, which stands for an id −1.

    name        of the tensor [rows, dim] of their rows
    first_row   by table where its row 0 lies
    weights     by table its rows, as the engine holds them
    rows_as     None: as they are held · bf16 · int8: each row divided by its largest value / 127 and rounded, and
                these scales, float32 [rows, 1], are the tensor `scales`
    number      of the table among all of its graph, from 1
    """

    name: str
    first_row: dict[str, int]
    weights: dict[str, torch.Tensor]
    rows_as: RowType | None
    number: int

    @property
    def rows(self) -> int:
        return sum(1 + len(weight_RD) for weight_RD in self.weights.values())

    @property
    def dim(self) -> int:
        return next(iter(self.weights.values())).shape[1]

    @property
    def scales(self) -> str | None:
        return f"{self.name}_scales" if self.rows_as == "int8" else None

    def tensors(self, values: bool) -> dict[str, torch.Tensor]:
        """The tensors by name; without `values` of the right shape and type alone, and without memory.

        Then no two tables of one graph are alike, since optimizers of graphs make one of tensors that are.
        """
        shapes = {self.name: (self.rows, self.dim), **({self.scales: (self.rows, 1)} if self.scales else {})}
        if not values:
            return {name: torch.full((1,), self.number, dtype=self.dtype_of(name)).expand(shape)
                    for name, shape in shapes.items()}
        return {name: torch.cat(list(self.parts(name))) for name in shapes}

    def dtype_of(self, name: str) -> torch.dtype:
        if name == self.scales:
            return torch.float32
        held = next(iter(self.weights.values())).dtype
        return {"int8": torch.int8, "bf16": torch.bfloat16, None: held}[self.rows_as]

    def parts(self, name: str) -> Iterator[torch.Tensor]:
        """The tensor of this name, some of its rows at a time, on a CPU."""
        dtype = self.dtype_of(name)
        for weight_RD in self.weights.values():
            yield torch.zeros(1, 1 if name == self.scales else self.dim, dtype=dtype)
            for part_RD in weight_RD.split(max(1, AT_ONCE // self.dim)):
                part_RD = part_RD.detach().cpu()
                if self.scales is None:
                    yield part_RD.to(dtype)
                    continue
                part_RD = part_RD.float()
                scale_R1 = part_RD.abs().amax(1, keepdim=True) / 127
                if name == self.scales:
                    yield scale_R1
                else:
                    yield (part_RD / torch.where(scale_R1 > 0, scale_R1, 1.0)).round().to(dtype)


def joint_tables(engine: Embeddings, rows_as: RowType | None, first: int) -> list[JointTable]:
    """The tables of an engine, those of one width together, numbered from `first` on."""
    held = {key.removeprefix("tables.").removesuffix(".weight"): weight for key, weight in engine.state_dict().items()}
    found = []
    for number, dim in enumerate(sorted({table.dim for table in engine.tables}), first):
        weights = {table.name: held[table.name] for table in engine.tables if table.dim == dim}
        starts = itertools.accumulate((1 + len(weight_RD) for weight_RD in weights.values()), initial=1)
        found.append(JointTable(f"rows_{dim}", dict(zip(weights, starts, strict=False)), weights, rows_as,
                                number))
    return found
