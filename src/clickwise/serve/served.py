"""A version of a model that is being served: raw columns as a request brings them, to tensors, to probabilities."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clickwise.encoding import Encoder
from clickwise.encoding.by_key import by_key
from clickwise.encoding.raw_types import Unreadable
from clickwise.errors import DataError
from clickwise.serve.exported import ExportedModel, Tensors
from clickwise.serve.given_ids import id_limits
from clickwise.serve.inputs import PADDING, tensors_of_rows
from clickwise.serve.shares import Shares
from clickwise.serve.signature import RawInput
from clickwise.serve.states import LiveStates
from clickwise.serve.states.memory import MemoryStore
from clickwise.serve.states.sqlite import SqliteStore

Columns = Mapping[str, "Sequence[Any] | np.ndarray"]
ONE_BY_ONE = 32  # rows: more are encoded column by column, which costs some milliseconds for a start


class Served:
    """`name` and `version` are those by which clients call it. `states` are those that go on with events, None
    where there are none, or rows bring along what they would give. `encoder` is that of new rows, None where the export
    takes ids alone; `raw` are the columns that it needs. `waits`: what it looks up is on another machine."""

    def __init__(self, model: ExportedModel, name: str, version: str, states: LiveStates | None = None) -> None:
        self.model, self.name, self.version, self.states = model, name, version, states
        self.signature = model.signature
        self.encoder = _quick(model.encoder) if states is None else states.encoder
        self.waits = states is not None and not isinstance(states.store, (MemoryStore, SqliteStore))
        self.ids = id_limits(self.signature)
        self.raw = {} if self.encoder is None else _raw(self.encoder)
        self.shares = Shares(self.raw, self.signature.inputs, self.encoder)
        self._kinds = {input_.name: input_.kind for input_ in self.signature.inputs}

    @property
    def path(self) -> str:
        return f"/v2/models/{self.name}/versions/{self.version}"

    def encode(self, columns: Columns, rows: int, where: str = "the request") -> Tensors:
        """The tensors of raw rows. Raises DataError for a column that is absent, and for a value that cannot be
        read."""
        encoder = self.encoder
        if rows <= ONE_BY_ONE and encoder.takes_ones and encoder.group is None:
            names = list(columns)
            lists = [values if type(values) is list else values.tolist() for values in columns.values()]
            return tensors_of_rows(self.signature.inputs, [encoder.row(dict(zip(names, row, strict=True)))
                                                           for row in zip(*lists, strict=True)])
        return self.model.encode_by(encoder, self.arrays(columns), where)

    def warm_up(self) -> None:
        """Scores the example of the export, one row and many, so that no request waits for what is done once."""
        example = self.signature.example
        if self.encoder is None or example is None:
            return
        columns = {tensor["name"]: tensor["data"][:1] for tensor in example["request"]["inputs"]}
        with contextlib.suppress(DataError):  # states that the server has not
            for rows in (1, ONE_BY_ONE + 1):
                self.score(self.encode({name: values * rows for name, values in columns.items()}, rows))

    def arrays(self, columns: Columns) -> dict[str, pa.Array]:
        """Raw columns as Arrow has them; of several types, 7 and "7", as their raw type reads them."""
        return {of: self.array(of, columns[of]) for of in self.encoder.needs if of in columns}

    def array(self, of: str, values: Any) -> pa.Array:
        """A raw column as Arrow has it. Raises DataError for a value that cannot be read."""
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError):
            pass
        column = self.encoder.encoding.raw_column(of)
        try:
            if column.list is None:
                return pa.array([column.type.one(value) for value in values], column.type.arrow)
            rows = [value.split(column.list) if isinstance(value, str) else value or [] for value in values]
            return pa.array([[column.type.one(part) for part in row] for row in rows], pa.list_(column.type.arrow))
        except Unreadable as error:
            raise DataError(f"column {of!r}", found=repr(error.value)[:80], expected=error.expected) from None

    def score(self, tensors: Tensors) -> np.ndarray:
        """The probability of a click of every row, float32."""
        return self.model.run(tensors)

    def joined(self, several: Sequence[Tensors]) -> Tensors:
        """The rows of several requests as one."""
        return {name: np.concatenate(_padded([tensors[name] for tensors in several], kind)) if
                kind in ("bag", "history") else np.concatenate([tensors[name] for tensors in several])
                for name, kind in self._kinds.items()}


def _quick(encoder: Encoder | None) -> Encoder | None:
    """The same, with what is known of keys worked out."""
    return None if encoder is None else Encoder(encoder.encoding, encoder.names, encoder.going_on,
                                                alone=encoder.alone, by_key=by_key(encoder))


def _raw(encoder: Encoder) -> dict[str, RawInput]:
    columns = {of: encoder.encoding.raw_column(of) for of in encoder.needs}
    return {of: RawInput(column.type.name, column.list) for of, column in columns.items()}


def _padded(lists: list[np.ndarray], kind: str) -> list[np.ndarray]:
    """All as wide as the widest: bags are padded behind, histories before."""
    width = max(array.shape[1] for array in lists)
    found = []
    for array in lists:
        if array.shape[1] < width:
            more = np.full((len(array), width - array.shape[1]), PADDING if kind == "bag" else 0, np.int64)
            array = np.concatenate([array, more] if kind == "bag" else [more, array], axis=1)
        found.append(array)
    return found
