"""Attributes by key, frozen: a user's age, a video's tags."""

from __future__ import annotations

import dataclasses

from clickwise.encoding.states.keyed_table import take
from clickwise.encoding.states.state import State


@dataclasses.dataclass(frozen=True)
class Lookup(State):
    """`gives` are the columns of the table; missing where its key is not there."""

    kind = "lookup"

    def look_up(self, values):
        rows = self.table.find_all([values[name] for name in self.by])
        return {name: take(self.table.values[name], rows) for name in self.gives}

    def look_up_one(self, values):
        keys = [values[name] for name in self.by]
        row = 0 if None in keys else self.table.find(keys)
        return {name: self.table.values[name][row - 1].as_py() if row else None for name in self.gives}
