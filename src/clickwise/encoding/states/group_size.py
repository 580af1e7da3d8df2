"""How many rows of a request have the same key: the ads of a display. Nothing lies on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickwise.encoding.states.state import State
from clickwise.errors import DataError


@dataclasses.dataclass(frozen=True)
class GroupSize(State):
    """`gives` one column. A row whose key is missing stands alone."""

    kind = "group_size"

    @property
    def stored(self):
        return ()

    @property
    def files(self):
        return []

    def load(self, folder):
        return self

    def look_up(self, values):
        return WholeRequest(self, [values[self.by[0]]]).look_up(values)

    def look_up_one(self, values):
        return dict.fromkeys(self.gives, 1)

    def check(self, values: dict[str, pa.Array], sizes: pa.Array, where: str) -> None:
        """Raises DataError where rows are alone with their key."""
        if alone := int(pc.sum(pc.equal(sizes, 1)).as_py() or 0):
            key = values[self.by[0]][pc.index(sizes, 1).as_py()].as_py()
            found = f"{alone:,} row{'s' * (alone > 1)} alone with their {self.by[0]}, {key} for example"
            raise DataError(where, found=found,
                            expected=f"all rows of every {self.by[0]} together: how many there are is an input",
                            do="give them all, or say that they are alone: --alone, in Python alone=True")


class WholeRequest:
    """The same where the rows come in parts: `columns` are the keys of all of them."""

    def __init__(self, state: GroupSize, columns: Iterable[pa.Array]) -> None:
        self.state = state
        counts = pa.chunked_array(list(columns) or [pa.nulls(0)]).drop_null().value_counts()
        self.keys, self.counts = (counts.field(name) for name in ("values", "counts"))

    @property
    def alone(self) -> int:
        """How many of the keys have one row."""
        return int(pc.sum(pc.equal(self.counts, 1)).as_py() or 0)

    def look_up(self, values):
        rows = pc.index_in(values[self.state.by[0]], self.keys, skip_nulls=True)
        found = self.counts.take(rows).fill_null(1) if len(self.keys) else pa.array(np.ones(len(rows), np.int64))
        return dict.fromkeys(self.state.gives, found)
