"""What tables ask of several processes that train together: which bytes each holds, and which it sends in a step.

Arithmetic on descriptions: nothing is allocated, and neither the processes nor the data need be there.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from clickwise.embedding.placement import Place, Sharding, places
from clickwise.embedding.table import Table

WIRE_BYTES = {"float32": 4, "bfloat16": 2}  # of a value of a row between processes
ID_BYTES = 4
SUMMED_BYTES = 4  # of a value of a gradient that all processes have


@dataclasses.dataclass(frozen=True)
class Bytes:
    """Of tables: their `rows`, and what the `optimizer` keeps beside them."""

    rows: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.rows + self.optimizer

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.rows + other.rows, self.optimizer + other.optimizer)

    def part(self, share: int, of: int) -> Bytes:
        """Of `share` of the table's rows, where it has `of`."""
        return Bytes(self.rows * share // of, self.optimizer * share // of)


@dataclasses.dataclass(frozen=True)
class Placed:
    """A table, where it lies among `processes`, and the bytes of all of it; `first` process gets its first row, where
    it is dealt."""

    table: Table
    place: Place
    processes: int
    whole: Bytes
    first: int = 0

    def rows_at(self, process: int) -> int:
        """How many rows a process holds."""
        return len(self.place.held(self.table.rows, process, self.processes, self.first))

    def bytes_at(self, process: int) -> Bytes:
        """Of the rows that a process holds."""
        return self.whole.part(self.rows_at(process), self.table.rows)


def place_tables(tables: Sequence[Table], sharding: Sharding, processes: int,
                 bytes_of: Callable[[Table], Bytes]) -> list[Placed]:
    """Where the tables of a model lie. Each of its parts has an engine, which places its tables for itself, and deals
    those of one width on from one to the next, so that no process gets a row more of each."""
    found: dict[str, Place] = {}
    for part in dict.fromkeys(table.part for table in tables):
        mine = [table for table in tables if table.part == part]
        of_part = {table.name: Place("whole") for table in mine} if processes == 1 else \
            places(mine, sharding, processes, lambda table: bytes_of(table).total)
        found |= {table.path: of_part[table.name] for table in mine}
    placed, dealt = [], collections.Counter[tuple]()
    for table in tables:
        place, kind = found[table.path], (table.part, table.dim, table.trainable)
        placed.append(Placed(table, place, processes, bytes_of(table), dealt[kind] % processes))
        dealt[kind] += table.rows if place.kind == "dealt" else 0
    return placed


def reason(place: Place, sharding: Sharding, processes: int) -> str:
    """Why a table lies so."""
    if processes == 1:
        return "there is one process"
    return {"copied": f"on every process, up to embedding.sharding.copied_rows={sharding.copied_rows} rows: summed "
                      "gradients are less to send than rows",
            "dealt": "row by row in turn, so that rows looked up often lie on all (embedding.sharding.by=rows)",
            "whole": "on one process, the largest first, each where least lay so far (embedding.sharding.by=tables)"
            }[place.kind]


@dataclasses.dataclass(frozen=True)
class Sent:
    """Bytes that a process sends in a step; it receives about as many.

    ids         of rows that it asks other processes for, each once
    rows        that other processes asked it for
    gradients   of rows that other processes hold, each summed over the process's samples
    copied      gradients of copied tables, whole and with which rows were looked up, as a ring sums them over all
    dense       gradients of everything that is no table, likewise
    """

    ids: float = 0.0
    rows: float = 0.0
    gradients: float = 0.0
    copied: float = 0.0
    dense: float = 0.0

    @property
    def total(self) -> float:
        return sum(dataclasses.astuple(self))


def sent(placed: Sequence[Placed], different: Mapping[str, float], process: int, processes: int, *, table_dtype: str,
         wire: str, dense_values: int) -> Sent:
    """What a process sends, where each process looks up `different` rows of a table (by its path) in a step, evenly
    over the rows; `dense_values` are trained beside the tables."""
    row_bytes, gradient_bytes = min(WIRE_BYTES[wire], WIRE_BYTES[table_dtype]), WIRE_BYTES[wire]
    around = 2 * (processes - 1) / processes * SUMMED_BYTES  # a ring passes every value on so often
    ids = rows = gradients = copied = 0.0
    for each in placed:
        table = each.table
        if each.place.kind == "copied":
            copied += around * table.rows * (table.dim + 1) * table.trainable
            continue
        here = each.rows_at(process) / table.rows
        asked = different[table.path] * (1 - here)
        ids += asked * ID_BYTES
        rows += different[table.path] * here * (processes - 1) * table.dim * row_bytes
        gradients += asked * table.dim * gradient_bytes * table.trainable
    return Sent(ids, rows, gradients, copied, around * dense_values)
