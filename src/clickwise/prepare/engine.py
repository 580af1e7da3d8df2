"""Where Ibis expressions run: opening raw files, storing tables, streaming results. DuckDB is the embedded default.

`Engine` is all that a dataset may ask of an engine; everything else is said in Ibis (`steps`). Ibis and the engine are
imported where one is opened, which takes half a second.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import decimal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clickwise.errors import PrepareError
from clickwise.machine import usable_cores
from clickwise.memory_limits import parse_bytes
from clickwise.progress import Progress
from clickwise.recipe import require

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

    from clickwise.encoding.raw_types import Float, Integer

BATCH_ROWS = 1 << 17
LONG_LINE = 1_900_000  # bytes; longer ones DuckDB has to be told of, since its buffers are many times that
PYTHON_BYTES = 250 * 10**6  # of Python and the libraries


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """The section `engine` of a recipe.

    name          duckdb
    memory_limit  bounds the whole process; what does not fit goes to disk
    threads       null: one per core that the process may use
    tables        where tables lie between two steps: disk (a run that was stopped can resume) · memory (a quarter
                  faster; spilled where they do not fit) · auto: memory where they are known to fit, disk otherwise
    """

    name: str = "duckdb"
    memory_limit: str = "4GB"
    threads: int | None = None
    tables: Literal["auto", "memory", "disk"] = "auto"

    def __post_init__(self) -> None:
        require(self.name == "duckdb", "name", found=self.name, expected="duckdb")
        require(parse_bytes(self.memory_limit) is not None, "memory_limit", found=self.memory_limit,
                expected="a size such as 4GB or 800MB")
        require(parse_bytes(self.memory_limit) >= 600 * 10**6, "memory_limit", found=self.memory_limit,
                expected="at least 600MB")
        require(self.threads is None or self.threads >= 1, "threads", found=self.threads, expected="at least 1")

    @property
    def memory_bytes(self) -> int:
        return parse_bytes(self.memory_limit)

    @property
    def _own_bytes(self) -> int:
        """What the engine itself gets: 70 % of what Python and the libraries leave."""
        return int(0.7 * (self.memory_bytes - PYTHON_BYTES))

    def holds_in_memory(self, tables_bytes: int | None) -> bool:
        """Whether tables of that size (None: nobody knows it) are to lie in memory."""
        fits = tables_bytes is not None and tables_bytes <= 0.7 * self._own_bytes
        return self.tables == "memory" or (self.tables == "auto" and fits)

    def open(self, spill_folder: Path, database: Path | None) -> Engine:
        """The engine, which keeps its tables in the file `database` (None: in memory)."""
        from clickwise.prepare.duckdb_engine import DuckDBEngine

        return DuckDBEngine(memory_limit=f"{self._own_bytes // 10**6}MB", threads=self.threads or usable_cores(),
                            spill_folder=spill_folder, database=database)


class CutShort(PrepareError):
    """Memory or disk did not suffice, or another process was there: the same preparation can be resumed later."""


class BadInput(Exception):
    """The engine could not read a raw file as it should be; its message is a line of the engine's."""


class Engine(abc.ABC):
    """The interface to an engine. A stored table remembers the order of the expression that made it: its rows are
    numbered 0, 1, … by `numbered`. Streams promise no order."""

    @abc.abstractmethod
    def read_text(self, files: Sequence[Path], columns: Mapping[str, str], *, delimiter: str = "\t",
                  header: bool = False, quote: str = "", missing: Sequence[str] = ("",),
                  longest: int = 0, file_column: str | None = None) -> ir.Table:
        """Delimited text, plain or gz, the files one after another; `columns` maps name -> Ibis type, `missing` are
        the texts that stand for a missing value, `longest` is how long a line may be (bytes), where any is long. The
        column `file_column`, int32, says which of the files a row is from."""

    @abc.abstractmethod
    def read_parquet(self, files: Sequence[Path], file_column: str | None = None) -> ir.Table:
        """Parquet files one after another; bytes without a type are text in UTF-8, and BadInput where they are none."""

    @abc.abstractmethod
    def read_json_lines(self, files: Sequence[Path], columns: Mapping[str, str]) -> ir.Table:
        """One JSON object a line, plain or gz; `columns` maps key -> Ibis type, a key that is absent is missing."""

    @abc.abstractmethod
    def parse_hex(self, column: ir.StringColumn, type_: str = "uint32") -> ir.IntegerColumn:
        """Hexadecimal digits, up to 8 as uint32 and 15 as int64; missing stays missing, anything else (of 8 digits; 15
        come from a hash) is BadInput when executed."""

    def parse_number(self, column: ir.Column, type_: Integer | Float) -> ir.NumericColumn:
        """What `type_` reads, as int64 or a float of its bits; what it cannot read is BadInput when executed."""
        import ibis

        name = "int64" if type_.name == "integer" else f"float{type_.bits}"
        refused = ("no number: " + column.cast("string")).cast(name)  # a cast that fails
        return ibis.cases((type_.unread(column), refused), else_=type_.bulk(column).cast(name))

    @abc.abstractmethod
    def materialise(self, expression: ir.Table, name: str, *, is_small: bool = False) -> ir.Table:
        """Stores the rows of `expression`, in its order, as the table `name` (replacing one of that name). What
        `is_small` is no work to divide among threads."""

    @abc.abstractmethod
    def numbered(self, table: ir.Table, *columns: str) -> ir.Table:
        """A stored table, or `columns` of it, with the column `row`, int64: 0, 1, … in the order in which it was
        stored."""

    @abc.abstractmethod
    def batches(self, expression: ir.Table, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The result in pieces, in no promised order."""

    @abc.abstractmethod
    def in_memory(self, name: str) -> pa.Table:
        """The rows of the stored table `name`, in their order."""

    @abc.abstractmethod
    def table(self, name: str) -> ir.Table:
        """The stored table `name`."""

    @abc.abstractmethod
    def drop(self, name: str) -> None:
        """Forgets the stored table `name`, if there is one."""

    @abc.abstractmethod
    def write_parquet(self, expression: ir.Table, path: Path) -> None:
        """Writes the result to one Parquet file, in the order of `expression`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the engine; stored tables of a database on disk stay there."""

    @contextlib.contextmanager
    def watched(self, bar: Progress, share: Callable[[], float | None] = lambda: None) -> Iterator[None]:
        """Moves `bar` with the statement that runs in the block, if it has a total: by what `share` says of it, 0 … 1,
        and where that is None by what the engine does."""
        yield

    def count(self, table: ir.Table) -> int:
        return int(self.row(table.aggregate(n=table.count()))["n"])

    def row(self, expression: ir.Table) -> dict[str, Any]:
        """The first row of the result, as plain Python values."""
        rows = self.rows(expression.limit(1))
        return rows[0] if rows else {}

    def rows(self, expression: ir.Table) -> list[dict[str, Any]]:
        """Every row of a small result, as plain Python values."""
        return [{name: _plain(value) for name, value in row.items()}
                for batch in self.batches(expression) for row in batch.to_pylist()]


def _plain(value: Any) -> Any:
    """Integers beyond 64 bits, as DuckDB's sums of integers are, come as decimals."""
    return int(value) if isinstance(value, decimal.Decimal) and value == value.to_integral_value() else value
