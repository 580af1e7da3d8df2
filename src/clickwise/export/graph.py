"""A trained model as a graph: the model itself, with tables that are looked up in plain torch.

Nothing in it depends on the values of its inputs, so that one graph holds for any rows.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from clickwise.batch import Batch
from clickwise.embedding import Embeddings
from clickwise.export.tables import JointTable, RowType, joint_tables
from clickwise.run.session import Session
from clickwise.serve.inputs import GraphInput, graph_inputs
from clickwise.wiring import engines_of


class Graph(nn.Module):
    """The model of a session on a CPU, in float32, its tables stored as `rows` says (see `JointTable.rows_as`).

    inputs   the tensors that `forward` takes, in this order

    Without `any_length` histories have the length that the model reads, where they could have others too.
    Without `values` the tables hold no memory, and whoever writes a file fills them in, from `tensors_of_tables`.
    The session's own model stays as it is.
    """

    def __init__(self, session: Session, *, rows: RowType | None = None, values: bool = True,
                 any_length: bool = True) -> None:
        super().__init__()
        self.inputs = inputs_of(session, any_length=any_length)
        self.reads = session.reads
        engines = engines_of(session.model)
        graphs: list[GraphEmbeddings] = []
        for engine in engines:
            tables = joint_tables(engine, rows, first=1 + sum(len(graph.tables) for graph in graphs))
            graphs.append(GraphEmbeddings(engine, tables, values=values))
        # A copy in which every engine is replaced, wherever the model holds it.
        memo = {id(engine): graph for engine, graph in zip(engines, graphs, strict=True)}
        self.model = copy.deepcopy(session.model, memo).to("cpu").eval()
        self.requires_grad_(False)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(logit, probability), float32 [B] each."""
        columns: dict[str, torch.Tensor | Bag] = {}
        numerical = None
        histories = [tensor for input_, tensor in zip(self.inputs, tensors, strict=True) if input_.kind == "history"]
        for tensor in histories[1:]:
            tensor.eq(histories[0])  # which says that they are equally long; the graph drops it
        for input_, tensor in zip(self.inputs, tensors, strict=True):
            if input_.kind == "numerical":
                numerical = tensor
            elif input_.kind == "ids":
                columns |= {name: _column_of(tensor, index) for index, name in enumerate(input_.features)}
            else:
                columns[input_.features[0]] = Bag(tensor) if input_.kind == "bag" else tensor
        logit_B = self.model(Batch(numerical=numerical, **{
            channel: tuple(columns[name] for name in names) for channel, names in self.reads.items()
            if channel != "numerical"}))
        return logit_B, torch.sigmoid(logit_B)

    def tensors_of_tables(self) -> dict[str, Iterator[torch.Tensor]]:
        """Every tensor of a table that `forward` has read, by its path in the graph: some of its rows at a time."""
        return {f"{path}.{name}": joint.parts(name) for path, module in self.named_modules()
                if isinstance(module, GraphEmbeddings) for joint in module.tables if joint.name in module.read
                for name in joint.tensors(values=False)}


def inputs_of(session: Session, *, any_length: bool = True) -> tuple[GraphInput, ...]:
    """The tensors that the graph of a session's model takes; `any_length` as in `Graph`."""
    spec = session.dataset.spec
    if not session.reads.get("history"):
        return graph_inputs(spec, session.reads)
    most, least = session.model.positions()
    there, _ = session.recipe.data.histories.lengths(spec)
    return graph_inputs(spec, session.reads, most=min(most or there, there), least=least if any_length else None)


class Bag:
    """A column of lists of ids: ids [B, H], and less than 0 where there is none."""

    def __init__(self, ids_BH: torch.Tensor) -> None:
        self.ids_BH = ids_BH


def _samples(column: torch.Tensor | Bag) -> int:
    """How many there are; `len` would make a number of what is free in a graph."""
    return (column.ids_BH if isinstance(column, Bag) else column).shape[0]


def _column_of(ids_BF: torch.Tensor, index: int) -> torch.Tensor:
    """One column of ids, which knows where it comes from: columns that lie side by side are looked up at once."""
    column = ids_BF[:, index]
    column.lies_in = (ids_BF, index)
    return column


def _side_by_side(columns: Sequence[torch.Tensor]) -> torch.Tensor:
    """Columns [B] as one tensor [B, F]."""
    sources = [getattr(column, "lies_in", None) for column in columns]
    if None not in sources:
        source, first = sources[0]
        if all(other[0] is source and other[1] == first + at for at, other in enumerate(sources)):
            return source[:, first:first + len(columns)]
    return torch.stack(list(columns), dim=-1)


class GraphEmbeddings(nn.Module):
    """What models know of embeddings (see `clickwise.embedding.Embeddings`), in torch that can be traced.

    An id that is no row of its table is looked up behind the end of all rows, so that whoever runs the graph says so.
    """

    def __init__(self, engine: Embeddings, tables: Sequence[JointTable], *, values: bool) -> None:
        super().__init__()
        self.features, self.dims, self.table_of = engine.features, engine.dims, engine.table_of
        self.tables, self.read = tuple(tables), set()
        self.joint_of = {name: joint for joint in tables for name in joint.first_row}
        for joint in tables:
            for name, tensor in joint.tensors(values).items():
                self.register_buffer(name, tensor)

    def forward(self, columns: Sequence[torch.Tensor | Bag], *, before: torch.Tensor | None = None) -> torch.Tensor:
        rows = self._rows(dict(zip(self.features, columns, strict=True)))
        parts = [*([] if before is None else [before]), *rows]
        if not parts:
            return torch.zeros(0, 0)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def lookup_groups(self, *blocks: Mapping[str, torch.Tensor | Bag]) -> tuple[torch.Tensor, ...]:
        samples = next(_samples(column) for block in blocks for column in block.values())
        found = []
        for block in blocks:
            rows = self._rows(block)
            found.append(torch.cat(rows, dim=-1) if len(rows) > 1 else rows[0] if rows else
                         torch.zeros(samples, 0))
        return tuple(found)

    def _rows(self, columns: Mapping[str, torch.Tensor | Bag]) -> list[torch.Tensor]:
        """Rows of these features in their order, [B, dims side by side] or of histories [B, L, dims side by side]: a
        tensor for as many features as can be looked up at once."""
        def kind(feature: str):
            table = self.table_of[feature]
            alone = feature if isinstance(columns[feature], Bag) else ""
            return self.joint_of[table.name].name, table.modulo, alone

        return [self._pooled(features[0], columns[features[0]]) if alone else self._side_by_side(features, columns)
                for (_, _, alone), features in ((key, list(group)) for key, group in
                                                itertools.groupby(columns, key=kind))]

    def _side_by_side(self, features: list[str], columns: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if columns[features[0]].dim() == 2:
            # First by feature: arithmetic on rows of a few numbers each is slow.
            ids_FBL = torch.stack([columns[feature] for feature in features])
            return self._looked_up(features, ids_FBL, feature_dim=0, lowest=-1).flatten(-2)
        ids_BF = _side_by_side([columns[feature] for feature in features])
        return self._looked_up(features, ids_BF, feature_dim=1, lowest=0).flatten(-2)

    def _pooled(self, feature: str, bag: Bag) -> torch.Tensor:
        there_BH = bag.ids_BH >= 0
        ids_FBH = torch.where(there_BH, bag.ids_BH, -1).unsqueeze(0)
        rows_BD = self._looked_up([feature], ids_FBH, feature_dim=0, lowest=-1).squeeze(2).sum(1)
        if self.table_of[feature].pooling == "mean":
            return rows_BD / there_BH.sum(1, keepdim=True).clamp(min=1)
        return rows_BD

    def _looked_up(self, features: list[str], ids: torch.Tensor, *, feature_dim: int, lowest: int) -> torch.Tensor:
        """Rows [..., F, D] of ids whose features are distinguished by one of their dimensions; of −1, where that is the
        `lowest` that there may be, zeros."""
        tables = [self.table_of[feature] for feature in features]
        joint = self.joint_of[tables[0].name]
        shape = [-1 if dim == feature_dim else 1 for dim in range(ids.dim())]
        starts = torch.tensor([joint.first_row[table.name] for table in tables]).view(shape)
        ends = torch.tensor([table.rows for table in tables]).view(shape)
        if tables[0].modulo:
            remainder = ids.remainder(ends)
            rows = (remainder if lowest == 0 else torch.where(ids < 0, ids, remainder)) + starts
        else:
            is_row = ids < ends if lowest < 0 else (ids >= 0) & (ids < ends)
            rows = torch.where(is_row, ids + starts, joint.rows)
        return self._values(joint, rows.movedim(feature_dim, -1))

    def _values(self, joint: JointTable, rows: torch.Tensor) -> torch.Tensor:
        self.read.add(joint.name)
        found = F.embedding(rows, self.get_buffer(joint.name)).float()
        if joint.scales is None:
            return found
        return found * F.embedding(rows, self.get_buffer(joint.scales))
