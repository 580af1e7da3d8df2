"""Where the rows of tables lie when several processes train together: descriptions only, no tensors, no communication.

    dealt    row by row in turn, as cards are: rows that are looked up often spread over all, and with them the work
    whole    on one process; the largest tables are placed first, each where least lies so far
    copied   on every process, which all take the same steps: for small tables, whose summed gradients are less to send
             than the rows that a batch asks for
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

from clickwise.embedding.table import Table
from clickwise.recipe import require

Kind = Literal["copied", "dealt", "whole"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharding:
    """The `embedding.sharding` section: how tables lie over the processes of a training, where there are several.

    by           rows: the rows of every table are dealt · tables: each table lies whole on one process
    copied_rows  tables of so many rows or fewer lie on every process
    wire         the type that rows and gradients have between processes: float32, or bfloat16, which halves them
    """

    by: Literal["rows", "tables"] = "rows"
    copied_rows: int = 256
    wire: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        require(self.copied_rows >= 0, "copied_rows", found=self.copied_rows, expected="a number from 0")


ROWS_DEALT = Sharding()


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one table lies; `owner` is the process that holds it where it is `whole`."""

    kind: Kind
    owner: int = 0

    def held(self, rows: int, process: int, processes: int, first: int) -> range:
        """Which of the table's rows a process holds; so many rows, `first`, were dealt before it."""
        if self.kind == "dealt":
            return range((process - first) % processes, rows, processes)
        return range(rows if self.kind == "copied" or self.owner == process else 0)


def places(tables: Sequence[Table], sharding: Sharding, processes: int,
           bytes_of: Callable[[Table], int]) -> dict[str, Place]:
    """By table where it lies among so many processes; `bytes_of` says how much memory a table takes, with what its
    optimizer keeps."""
    found = {table.name: Place("copied" if table.rows <= sharding.copied_rows else "dealt") for table in tables}
    if sharding.by == "tables":
        held = [0] * processes
        for table in sorted(tables, key=lambda table: (-bytes_of(table), table.name)):
            if found[table.name].kind == "dealt":
                owner = held.index(min(held))
                found[table.name] = Place("whole", owner)
                held[owner] += bytes_of(table)
    return found


def common_rows(mine: range, theirs: range) -> tuple[slice, slice]:
    """The rows that two parts of a table have in common, as a slice of each.

    Of rows 1, 4, 7, 10, 13 (process 1 of 3) and 0, 2, 4, 6, 8, 10, 12 (process 0 of 2) these are 4 and 10: every second
    of mine from the second on, every third of theirs from the third on.
    """
    step = math.lcm(mine.step, theirs.step)
    start = max(mine.start, theirs.start)
    first = next((row for row in range(start, min(start + step, mine.stop, theirs.stop))
                  if row in mine and row in theirs), None)
    if first is None:
        return slice(0, 0), slice(0, 0)
    last = min(mine.stop, theirs.stop)
    number = len(range(first, last, step))

    def of(part: range) -> slice:
        begin, every = part.index(first), step // part.step
        return slice(begin, begin + (number - 1) * every + 1, every)

    return of(mine), of(theirs)
