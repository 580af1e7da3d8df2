"""DuckDB as an engine, through Ibis."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa

from clickwise.arrow_arrays import to_numpy
from clickwise.encoding.raw_types import Float, Integer
from clickwise.errors import PrepareError
from clickwise.prepare.engine import BATCH_ROWS, LONG_LINE, BadInput, CutShort, Engine

MOST_DIGITS = 38  # of a number that is surely finite as float32


class DuckDBEngine(Engine):
    """DuckDB inside this process. `database` is a file that keeps the stored tables (None: memory); whatever does not
    fit into `memory_limit` goes to `spill_folder`."""

    def __init__(self, *, memory_limit: str = "4GB", threads: int | None = None,
                 spill_folder: str | os.PathLike | None = None, database: str | os.PathLike | None = None) -> None:
        settings: dict[str, Any] = {"memory_limit": memory_limit, "preserve_insertion_order": True}
        if threads is not None:
            settings["threads"] = threads
        if spill_folder is not None:
            Path(spill_folder).mkdir(parents=True, exist_ok=True)
            settings["temp_directory"] = str(spill_folder)
        try:
            with _translated():
                self.ibis = ibis.duckdb.connect(":memory:" if database is None else str(database), **settings)
        except CutShort as error:
            if "lock" not in error.found.lower():
                raise
            raise CutShort(database, found="another process is preparing into this folder",
                           do="wait for it to end, or choose another output folder") from None
        self.duckdb = self.ibis.con
        self._tables: dict[str, ir.Table] = {}
        with contextlib.suppress(duckdb.Error):  # in a notebook without ipywidgets it cannot be set: there is none
            self.duckdb.execute("SET enable_progress_bar=false")
        with contextlib.suppress(duckdb.Error):  # without time zones all times are in UTC already
            self.duckdb.execute("SET TimeZone='UTC'")
        self.duckdb.execute(_MACROS)

    def read_text(self, files, columns, *, delimiter="\t", header=False, quote="", missing=("",), longest=0,
                  file_column=None):
        options = {"max_line_size": longest} if longest > LONG_LINE else {}
        options = {"delim": delimiter, "header": header, "quote": quote, "escape": quote, "nullstr": list(missing),
                   "auto_detect": False, **options}
        return self._numbered_files(files, file_column, lambda names, **named: self._csv(
            names, columns, options | named))

    def _csv(self, names: Sequence[str], columns: Mapping[str, str], options: Mapping[str, Any]) -> ir.Table:
        """As `ibis.read_csv`, which takes a second for thousands of columns: it parses the type of each, and asks."""
        types = ", ".join(f"{_literal(name)}: '{_DUCKDB_TYPES[type_]}'" for name, type_ in columns.items())
        given = ", ".join(f"{key} = {_literal(value)}" for key, value in options.items())
        view = f"clickwise_text_{next(_VIEWS)}"
        self.duckdb.execute(f"CREATE TEMP VIEW {view} AS "
                            f"SELECT * FROM read_csv({_literal(names)}, columns = {{{types}}}, {given})")
        own = {options["filename"]: "string"} if "filename" in options else {}
        return ibis.table({**columns, **own}, name=view)

    def read_json_lines(self, files, columns):
        types = {name: _DUCKDB_TYPES[type_] for name, type_ in columns.items()}
        with _translated():
            return self.ibis.read_json([str(file) for file in files], columns=types, format="newline_delimited")

    def read_parquet(self, files, file_column=None):
        return self._numbered_files(files, file_column, lambda names, **named: self.ibis.read_parquet(
            names, binary_as_string=True, **named))

    def _numbered_files(self, files: Sequence[Path], file_column: str | None,
                        read: Callable[..., ir.Table]) -> ir.Table:
        names = [str(file) for file in files]
        with _translated():
            if file_column is None:
                return read(names)
            table = read(names, filename="__name")
        return table.mutate(**{file_column: ibis.array(names).index(table["__name"]).cast("int32")}).drop("__name")

    def parse_hex(self, column, type_="uint32"):
        return _hex32(column) if type_ == "uint32" else ("0x" + column).cast(type_)

    def parse_number(self, column, type_):
        exact = super().parse_number(column, type_)
        if not column.type().is_string() or (isinstance(type_, Float) and not type_.strict):
            return exact
        odd = _glob(column, "*[!0-9]*") if isinstance(type_, Integer) else \
            _glob(column, "*[!--9]*") | (column.length() > MOST_DIGITS)
        return ibis.cases((odd, exact), else_=column.cast(exact.type()))

    def materialise(self, expression, name, *, is_small=False):
        sql = f"CREATE OR REPLACE TABLE {_quoted(name)} AS {self._sql(expression)}"
        with self._one_thread() if is_small else contextlib.nullcontext():
            self._run(sql)
        self._tables.pop(name, None)
        return self.table(name)

    def numbered(self, table, *columns):
        return table.select(*(columns or table.columns), row=table.rowid().cast("int64"))

    def batches(self, expression, rows=BATCH_ROWS):
        with _translated():
            yield from self._reader(self._sql(expression), rows)

    def in_memory(self, name):
        with _translated():
            table = self._reader(f"SELECT *, rowid AS row FROM {_quoted(name)}", BATCH_ROWS).read_all()
        row_B = to_numpy(table["row"])
        if (row_B[1:] < row_B[:-1]).any():
            table = table.sort_by("row")
        return table.drop_columns("row").combine_chunks()

    def _reader(self, sql: str, rows: int) -> pa.RecordBatchReader:
        relation = self.duckdb.sql(sql)
        return relation.to_arrow_reader(rows) if hasattr(relation, "to_arrow_reader") \
            else relation.fetch_arrow_reader(rows)

    def table(self, name):
        if name not in self._tables:  # asking the database for its columns takes long
            self._tables[name] = ibis.table(self._schema(name), name=name)
        return self._tables[name]

    def _schema(self, name: str) -> ibis.Schema:
        """As `ibis.table` has it, which parses the type of every column, a second for thousands of them."""
        with _translated():
            relation = self.duckdb.sql(f"FROM {_quoted(name)}")
        types = list(map(str, relation.types))
        known = {type_: self.ibis.compiler.type_mapper.from_string(type_) for type_ in set(types)}
        return ibis.schema({column: known[type_] for column, type_ in zip(relation.columns, types, strict=True)})

    def drop(self, name):
        self._tables.pop(name, None)
        self._run(f"DROP TABLE IF EXISTS {_quoted(name)}")

    def write_parquet(self, expression, path):
        self._run(f"COPY ({self._sql(expression)}) TO {_literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")

    def close(self):
        self.ibis.disconnect()

    @contextlib.contextmanager
    def watched(self, bar, share=lambda: None):
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.5):
                done = share()
                done = self.duckdb.query_progress() / 100 if done is None else done
                bar.advance(max(0, int(min(done, 1.0) * (bar.total or 0)) - bar.done))

        thread = threading.Thread(target=watch, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives no thread: no progress is shown
            yield
            return
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextlib.contextmanager
    def _one_thread(self) -> Iterator[None]:
        """Two threads take twice as long as one for 2,000 rows of 5,000 columns, and eight of them too much memory."""
        ((threads,),) = self.duckdb.execute("SELECT current_setting('threads')").fetchall()
        self._run("SET threads = 1")
        try:
            yield
        finally:
            self._run(f"SET threads = {threads}")

    def _sql(self, expression: ir.Table) -> str:
        _make_known(self.ibis, expression)
        return self.ibis.compile(expression)

    def _run(self, sql: str) -> None:
        with _translated():
            self.duckdb.execute(sql)


def _make_known(database: ibis.BaseBackend, expression: ir.Table) -> None:
    """Makes the `ibis.memtable`s in the expression known to the database (by a function that is not public)."""
    if not hasattr(database, "_run_pre_execute_hooks"):
        raise PrepareError("ibis-framework", found=f"{ibis.__version__}, which does not store its memtables as asked",
                           expected="10 to 12", do="pip install 'ibis-framework[duckdb]==12.*'")
    database._run_pre_execute_hooks(expression)


_VIEWS = itertools.count()  # numbers for the names of raw files

_DUCKDB_TYPES = {"int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT", "float32": "FLOAT",
                 "float64": "DOUBLE", "string": "VARCHAR", "boolean": "BOOLEAN"}


# DuckDB's casts take more than numbers (2.0; tried with every byte in every place of some texts): to BIGINT 1.5, 1e3,
# 0x10, to FLOAT ` 1`, 1_000, +-1 and inf, and `'0x' || x` takes 12_3. A regular expression for every value takes as
# long as reading it does. GLOB takes a third of that, and finds the few texts that have more than digits (and - . / of
# decimals, of which the cast refuses what is no number). unhex takes digits only, BIT no empty text and UINTEGER no
# more than 4 bytes; they are faster than the cast.
_MACROS = """
CREATE OR REPLACE TEMP MACRO clickwise_glob(x, pattern) AS x GLOB pattern;
CREATE OR REPLACE TEMP MACRO clickwise_hex32(x) AS CAST(CAST(unhex(x) AS BIT) AS UINTEGER);
"""


@ibis.udf.scalar.builtin(name="clickwise_glob")
def _glob(x: dt.string, pattern: dt.string) -> dt.boolean: ...


@ibis.udf.scalar.builtin(name="clickwise_hex32")
def _hex32(x: dt.string) -> dt.uint32: ...


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """DuckDB's errors in our words."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        full = "disk" in str(error).lower() and "max_temp_directory_size" in str(error)
        raise CutShort("engine.memory_limit", found=_first_line(error),
                       do="free disk space for the spilled part" if full else
                       "raise engine.memory_limit, or lower engine.threads") from None
    except (duckdb.InvalidInputException, duckdb.ConversionException) as error:
        raise BadInput(_first_line(error)) from None
    except UnicodeDecodeError:  # unhex tells of one byte of a letter, which is no text
        raise BadInput("a text that is no hexadecimal value") from None
    except duckdb.Error as error:
        damaged = type(error) is duckdb.Error  # what a reader of Parquet says of pages that are none
        if damaged or isinstance(error, duckdb.IOException) and "GZIP" in str(error):
            raise BadInput(_first_line(error) or "damaged content") from None
        if not isinstance(error, duckdb.IOException) and not any(text in str(error) for text in _DISK):
            raise
        full = any(text in str(error) for text in _FULL)
        raise CutShort("the working folder" if full else "a file", found=_first_line(error),
                       do="free disk space and run again" if full else "") from None


# What DuckDB says of a disk, in errors of several types: IO while it writes, transaction where it commits, fatal of
# whatever follows.
_FULL = ("No space left", "not enough space", "Disk quota exceeded", "Could not write")
_DISK = (*_FULL, "File too large", "Read-only file system", "Input/output error", "Cannot open file",
         "Could not sync", "fsync failed", "Could not truncate")


def _literal(value: Any) -> str:
    """A text, number or truth value, or a list of texts, as DuckDB's SQL has it."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value).lower()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
