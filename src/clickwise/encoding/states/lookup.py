"""Attributes by key, frozen: a user's age, a video's tags, what a document is about."""

from __future__ import annotations

import dataclasses

import pyarrow as pa

from clickwise.encoding.states.keyed_table import take
from clickwise.encoding.states.state import State
from clickwise.errors import DataError


@dataclasses.dataclass(frozen=True)
class Lookup(State):
    """`gives` are the columns of the table; missing where its key is not there."""

    kind = "lookup"

    def look_up(self, values):
        rows = self.table.find_all([values[name] for name in self.by])
        return {name: take(self.table.values[name], rows) for name in self.gives}

    def given_one(self, values, stored):
        return dict.fromkeys(self.gives) if stored is None else stored


@dataclasses.dataclass(frozen=True)
class ListLookup(Lookup):
    """`gives` are lists, without missing values in them: a column with `list` is one of several values, any other is
    for operations that take lists whole."""

    kind = "list_lookup"

    @property
    def stored(self):
        return {name: pa.list_(column.type.arrow) for name, column in self.gives.items()}

    def load(self, folder):
        found = super().load(folder)
        for name in self.gives:
            if any(chunk.flatten().null_count for chunk in found.table.values[name].chunks):
                raise DataError(folder, found=f"a list with missing values in {name}",
                                expected="a state as preparation wrote it", do="prepare the dataset again")
        return found
