"""Ids become rows: one interface, several engines.

An engine owns the tables and their optimizer: in training it updates the touched rows at the end of backward, so
that the loop sees one dense optimizer and no table gradient. `reference` is plain torch and is the meaning; every
engine passes `tests/contracts/test_embedding_contract.py`.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from clickwise import processes, registry
from clickwise.batch import Column
from clickwise.checkpoint import Rows
from clickwise.embedding.lookup import bags_of, shapes_of
from clickwise.embedding.placement import ROWS_DEALT, Sharding, common_rows
from clickwise.embedding.table import Table, TableOptimizer
from clickwise.errors import EngineError, nearest
from clickwise.kernels import gpu

log = logging.getLogger(__name__)

WIDEST = 1024  # dim that the engine `fused` takes

__all__ = ["Embeddings", "Table", "TableOptimizer", "build_embeddings"]


class Embeddings(nn.Module, abc.ABC):
    """The interface: `rows = embeddings(columns)`, or `x0 = embeddings(columns, before=x)` for rows behind something
    else; for histories `embeddings.lookup_groups({"item": ids_BL, "category": ids_BL}, …)`.

    tables     the tables, in the order given
    features   the features, in channel order: one column of a batch and one slice of the rows each
    dims       per feature the width of its slice (of one position, where its column is [B, L])
    trainable  whether any table is: where none is, backward ends at the rows
    counted    the features whose ids `set_counts` must be told of: all of trained tables, for `optimizer.minibatch_l2`
    lr_factor  multiplies `optimizer.lr`; the loop sets it from its schedule before every step
    step       how many steps were taken

    In train mode, with gradients on, one backward is one optimizer step, taken as backward ends: a row that occurs
    several times, in one call or in several, gets the sum of its gradients once; rows that do not occur stay as they
    are, unless `optimizer.lazy` is false. A backward that fails changes no row and leaves nothing behind.
    """

    spans_processes = False  # whether the tables lie over all processes that train together

    def __init__(self, tables: Sequence[Table], features: Sequence[str], optimizer: TableOptimizer) -> None:
        super().__init__()
        self.tables, self.features, self.optimizer = tuple(tables), tuple(features), optimizer
        self.table_of = _tables_by_feature(self.tables, self.features)
        self.dims = tuple(self.table_of[feature].dim for feature in self.features)
        self.trainable = any(table.trainable for table in self.tables)
        self.counted = tuple(feature for feature in self.features
                             if self.optimizer.minibatch_l2 and self.table_of[feature].trainable)
        self.lr_factor, self.step = 1.0, 0

    @abc.abstractmethod
    def forward(self, columns: Sequence[Column], *, before: torch.Tensor | None = None) -> torch.Tensor:
        """Rows [B, sum of dims], contiguous, in the order of `features`.

        before   [B, N], of any float type: the first N columns of the result, which then is N wider. What a layer
                 reads beside the rows is so laid beside them in one pass; it gets its gradient as from `torch.cat`.

        A column holds ids [B] of any integer type, or is Ragged: then the bag's rows are pooled as its table says, and
        an empty bag gives zeros. Or it holds ids [B, L], a history: then L rows of its table stand side by side (its
        slice is L · dim wide), and a negative id there is padding: zeros, and no row that could be touched.
        float32, or the type of an enclosing `torch.autocast`. Without features [0, 0], or `before` alone.
        """

    def lookup_groups(self, *blocks: Mapping[str, Column]) -> tuple[torch.Tensor, ...]:
        """Rows of some features, a tensor per block, and one step for all of them.

        A block's columns are those of `forward`, by feature; its features' rows stand side by side, [B, sum of dims].
        Where its columns are histories, ids [B, L] of one L, they stand so position by position: [B, L, sum of dims].
        Features may be missing, and one with a history may be in several blocks. An empty block gives [B, 0].
        """
        samples, lengths, device = shapes_of(blocks)
        given = {feature: [block[feature] for block in blocks if feature in block] for feature in self.features}
        nothing = torch.zeros(samples, 0, dtype=torch.int32, device=device)
        rows = self([torch.cat(parts, dim=1) if len(parts) > 1 else parts[0] if parts else nothing
                     for parts in given.values()])
        widths = [dim * sum(map(bags_of, parts)) for dim, parts in zip(self.dims, given.values(), strict=True)]
        left, found = dict(zip(given, rows.split(widths, dim=1), strict=True)), []
        for block, length in zip(blocks, lengths, strict=True):
            parts = []
            for feature in block:
                dim = self.table_of[feature].dim
                part, left[feature] = left[feature].tensor_split([dim if length is None else dim * length], dim=1)
                parts.append(part if length is None else part.reshape(samples, length, dim))
            found.append(torch.cat(parts, dim=-1) if parts else rows.new_zeros(samples, 0))
        return tuple(found)

    def ask(self, columns: Sequence[Column]) -> None:
        """Told the columns of the next step while one is under way: `forward` will get these very objects. An engine
        whose rows lie elsewhere sends for them; here there is nothing to do."""

    @abc.abstractmethod
    def defer_updates(self, on: bool) -> None:
        """From now on backward keeps its gradients until `apply_updates` (fp16 loss scaling)."""

    @abc.abstractmethod
    def apply_updates(self, scale: float | torch.Tensor = 1.0, skip: torch.Tensor | None = None) -> None:
        """One optimizer step with the kept gradients, summed over the backwards since the last and times `scale`.

        Where `skip`, of one element, is not 0, there is no step and the gradients are forgotten. The engine `fused`
        waits for neither, where both are on its device.
        """

    @abc.abstractmethod
    def pending_gradients_finite(self) -> torch.Tensor:
        """Whether every kept gradient is finite, a bool on the device: what loss scaling makes `skip` from."""

    @abc.abstractmethod
    def pending_gradients(self) -> dict[str, torch.Tensor]:
        """The kept gradients, summed, as `apply_updates` will step with them (before its scale): by trained table a
        sparse tensor [rows, dim], float32, coalesced. For research: to log, to clip by looking, to test."""

    # State: by table, so that it goes from any engine to any other ----------------------------------------------------

    @abc.abstractmethod
    def _held(self, table: str, state: str = "weight") -> torch.Tensor:
        """The rows of a table that this process holds, [held, dim], or a state of their optimizer, [held, …], in the
        order of `held_rows`: no copy, but what the engine trains with. EngineError for a table it does not have."""

    def held_rows(self, table: str) -> range:
        """Which rows of a table this process holds: all, unless its engine deals them to several processes.

        What is loaded are whole tables, of which the process reads its rows alone. What is saved are its rows: the
        state dicts of all processes, each written to its `held_rows`, are the checkpoint that any engine loads.
        """
        return range(next(each.rows for each in self.tables if each.name == table))

    def rows_to_save(self, table: str) -> range:
        """The rows of a table that this process saves: those it holds, unless another holds and saves them too."""
        return self.held_rows(table)

    def rows_of(self, table: str) -> torch.Tensor:
        """A copy of the rows of one table that are held, [held, dim]."""
        return self._held(table).clone()

    def set_rows(self, table: str, rows_RD: torch.Tensor | Rows) -> None:
        """Gives the table these rows, [rows, dim], or parts of them; its optimizer's state stays."""
        self._take(table, "weight", rows_RD)

    @torch.no_grad()
    def _take(self, table: str, state: str, whole: torch.Tensor | Rows) -> None:
        """Copies, of the values for a whole table, those of the rows that are held."""
        mine, held = self._held(table, state), self.held_rows(table)
        for rows, values in whole.parts if isinstance(whole, Rows) else [(range(len(whole)), whole)]:
            here, there = common_rows(held, rows)
            mine[here].copy_(values[there])

    def set_counts(self, counts: Mapping[str, np.ndarray]) -> None:
        """Takes how often every id of a feature occurs in all training samples, int64 [ids], before the first step.

        A row's count is the sum over the features and ids that mean it, and 1 where it never occurs. From then on it is
        part of the optimizer's state. Without `optimizer.minibatch_l2` nothing is taken. EngineError for a feature that
        is `counted` and has no counts, and for ids that are no rows.
        """
        for feature in self.counted:
            if feature not in counts:
                raise EngineError(f"feature {feature!r}", found="no counts of its ids",
                                  expected="counts for each of " + ", ".join(self.counted))
        for table in self.tables if self.counted else ():
            if table.trainable:
                self._take(table.name, "count", _counts_of_rows(table, counts).clamp_(min=1))

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        for table in self.tables:
            destination[f"{prefix}tables.{table.name}.weight"] = self._held(table.name)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                              error_msgs) -> None:
        expected = {f"{prefix}tables.{table.name}.weight": table for table in self.tables}
        for key, table in expected.items():
            if key not in state_dict:
                missing_keys.append(key)
            elif state_dict[key].shape != (table.rows, table.dim):
                error_msgs.append(f"{key}: found {tuple(state_dict[key].shape)}, expected {(table.rows, table.dim)}")
            else:
                self.set_rows(table.name, state_dict[key])
        unexpected_keys.extend(key for key in state_dict if key.startswith(prefix) and key not in expected)

    def optimizer_state_dict(self) -> dict:
        """The same from any engine: `{"optimizer": name, "step": steps, "tables": {table: {state: [rows, ...]}}}`."""
        tables = {table.name: {state: self._held(table.name, state) for state in self.optimizer.states()}
                  if table.trainable else {} for table in self.tables}
        return {"optimizer": self.optimizer.name, "step": self.step, "tables": tables}

    def load_optimizer_state_dict(self, state: dict) -> None:
        """Takes what `optimizer_state_dict` of any engine gave; EngineError if optimizer, tables or shapes differ."""
        if state["optimizer"] != self.optimizer.name:
            raise EngineError("embedding optimizer state", found=f"state of {state['optimizer']!r}",
                              expected=f"state of {self.optimizer.name!r}")
        expected = {table.name: {name: kind.shape(table.rows, table.dim)
                                 for name, kind in self.optimizer.states().items() if table.trainable}
                    for table in self.tables}
        frozen = {table.name for table in self.tables if not table.trainable}
        found = {table: {name: tuple(value.shape) for name, value in states.items() if table not in frozen}
                 for table, states in state["tables"].items()}
        if found != expected:
            table = next(name for name in {**expected, **found} if found.get(name) != expected.get(name))
            raise EngineError(f"embedding optimizer state of table {table!r}", found=str(found.get(table, "nothing")),
                              expected=str(expected.get(table, "nothing")))
        for table, states in expected.items():
            for name in states:
                self._take(table, name, state["tables"][table][name])
        self.step = int(state["step"])

    def extra_repr(self) -> str:
        rows = sum(table.rows for table in self.tables)
        frozen = sum(not table.trainable for table in self.tables)
        return f"{len(self.tables)} tables, {rows:,} rows, {self.optimizer.name}" + f", {frozen} frozen" * bool(frozen)


def _tables_by_feature(tables: tuple[Table, ...], features: tuple[str, ...]) -> dict[str, Table]:
    """Feature → its table; EngineError unless every feature has exactly one table and every table is used."""
    table_of: dict[str, Table] = {}
    names: set[str] = set()
    for table in tables:
        if table.name in names:
            raise EngineError("embedding tables", found=f"two tables named {table.name!r}", expected="different names")
        names.add(table.name)
        if not table.features:
            raise EngineError(f"table {table.name!r}", found="no feature looked up in it", expected="at least one")
        for feature in table.features:
            if feature in table_of:
                raise EngineError(f"feature {feature!r}", expected="one table per feature",
                                  found=f"it is in the tables {table_of[feature].name!r} and {table.name!r}")
            if feature not in features:
                raise EngineError(f"table {table.name!r}", found=f"the feature {feature!r}",
                                  expected="features of the model", do=nearest(feature, features))
            table_of[feature] = table
    if len(set(features)) != len(features):
        twice = next(feature for feature in features if features.count(feature) > 1)
        raise EngineError("embedding features", found=f"{twice!r} twice", expected="different names")
    for feature in features:
        if feature not in table_of:
            raise EngineError(f"feature {feature!r}", found="no table for it", expected="one table per feature",
                              do=nearest(feature, table_of))
    return table_of


def _counts_of_rows(table: Table, counts: Mapping[str, np.ndarray]) -> torch.Tensor:
    """How often the ids of each row occur, int64 [rows]."""
    counts_R = torch.zeros(table.rows, dtype=torch.int64)
    for feature in table.features:
        of_ids = torch.from_numpy(counts[feature])
        if len(of_ids) > table.rows and not table.modulo:
            raise EngineError(f"feature {feature!r}", found=f"counts of {len(of_ids)} ids",
                              expected=f"at most {table.rows}, the rows of table {table.name!r}")
        counts_R.index_add_(0, torch.arange(len(of_ids)) % table.rows, of_ids)
    return counts_R


def _fastest(tables: Sequence[Table], device: torch.device) -> str:
    """The fastest engine for these tables on `device`; the log says so where a GPU gets another one than `fused`.
    Several processes that train together have one that spans them."""
    if processes.count() > 1:
        return "sharded"
    if not gpu.runs_on(device) or not tables:
        return "reference"
    missing = None
    if not gpu.triton_is_there():
        missing = "Triton is not installed"
    elif any(table.dim > WIDEST for table in tables):
        missing = f"a table is wider than {WIDEST}"
    elif not all(gpu.kernels_for(torch.empty(0, device=device), name) for name in ("embedding_bag", "sparse_update")):
        missing = "its kernels do not work here"
    if missing:
        log.warning("embedding engine reference instead of fused: %s", missing)
    return "reference" if missing else "fused"


def build_embeddings(engine: str, tables: Sequence[Table], features: Sequence[str], optimizer: TableOptimizer, *,
                     seed: int = 0, device: torch.device | str = "cpu", check_ids: bool = False,
                     table_dtype: str = "float32", sharding: Sharding = ROWS_DEALT) -> Embeddings:
    """Embeddings of the engine asked for; `auto` takes the fastest that runs on `device`, of several processes
    `sharded`, to which `sharding` says how tables lie over them.

    The first values of a table follow from `seed` and the table's name alone. `check_ids` looks at every id before
    it is used and names feature, sample and id where one is out of range. `table_dtype` is the type that rows are
    stored in: float32 or bfloat16.
    """
    known = ("auto", *registry.NAMES["engine"])
    if engine not in known and not registry.is_path(engine):
        raise EngineError("embedding engine", found=repr(engine), expected=f"one of {', '.join(known)}",
                          do=nearest(engine, known))
    name = _fastest(tables, torch.device(device)) if engine == "auto" else engine
    engine_class = registry.resolve("engine", name, "embedding.engine")
    settings = {"sharding": sharding} if engine_class.spans_processes else {}
    if processes.count() > 1 and not engine_class.spans_processes:
        raise EngineError(f"embedding engine {name!r}", found=f"{processes.count()} processes that train together",
                          expected="one process: each would train tables of its own", do="set embedding.engine=auto")
    return engine_class(tables, features, optimizer, seed=seed, device=device, check_ids=check_ids,
                        table_dtype=table_dtype, **settings)
