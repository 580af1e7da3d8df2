"""The rows of Criteo's logs in raw files, a file for each column, until their vocabularies are known.

    <table>/label numbers cat_0 … cat_25 cat_0.missing …      as `criteo_text.Rows` has them, one row after another
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from clickwise.arrow_arrays import of_numbers
from clickwise.files import write_array
from clickwise.prepare.criteo_text import NUMBERS, VALUES, blocks, parse

T, U = TypeVar("T"), TypeVar("U")
BLOCK_ROWS = 1 << 20
_BUFFER = 1 << 18


class RowRange(NamedTuple):
    """Rows first … end−1 of a table."""

    table: str
    first: int
    end: int


class CriteoColumns:
    """The tables in `folder`, read and written with `threads` threads."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder, self.threads = folder, threads

    def store(self, table: str, files: Sequence[tuple[Path, int]], report: Callable[[int], None]) -> int:
        """Reads texts, each with its longest line (see `blocks`), into a table of that name and returns how many rows
        they have; raises BadInput. `report` is told of rows as they are done."""
        (self.folder / table).mkdir(parents=True, exist_ok=True)
        rows = 0
        with contextlib.ExitStack() as stack:
            names = [f"cat_{index}" for index in range(VALUES)]
            label, numbers, *columns = (
                stack.enter_context(open(self.folder / table / name, "wb", buffering=_BUFFER))
                for name in ("label", "numbers", *names, *(f"{name}.missing" for name in names)))
            for part in in_order(parse, itertools.chain.from_iterable(itertools.starmap(blocks, files)), self.threads):
                write_array(label, part.label)
                write_array(numbers, part.numbers)
                for file, column in zip(columns, (*part.values, *part.missing), strict=True):
                    write_array(file, column)
                rows += len(part.label)
                report(len(part.label))
        return rows

    def _read(self, table: str, name: str, dtype: str, first: int, end: int) -> np.ndarray:
        dtype = np.dtype(dtype)
        return np.fromfile(self.folder / table / name, dtype, end - first, offset=first * dtype.itemsize)

    def labels(self, part: RowRange) -> np.ndarray:
        """bool [R]."""
        return self._read(part.table, "label", "bool", part.first, part.end)

    def numbers(self, part: RowRange) -> np.ndarray:
        """float32 [R, 13], NaN for missing."""
        return self._read(part.table, "numbers", f"({NUMBERS},)<f4", part.first, part.end)

    def values(self, part: RowRange, name: str) -> pa.UInt32Array:
        """Of the column `name`, one of cat_0 … cat_25."""
        return of_numbers(self._read(part.table, name, "<u4", part.first, part.end),
                          self._read(part.table, f"{name}.missing", "bool", part.first, part.end))


def in_blocks(parts: Iterable[RowRange], rows: int = BLOCK_ROWS) -> Iterator[RowRange]:
    """The same rows in the same order, at most so many at a time."""
    for part in parts:
        for first in range(part.first, part.end, rows):
            yield RowRange(part.table, first, min(first + rows, part.end))


def in_order(work: Callable[[T], U], items: Iterable[T], threads: int) -> Iterator[U]:
    """`work` of each item, in their order, by so many threads."""
    if threads == 1:
        yield from map(work, items)
        return
    under_way: deque[Future[U]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) > threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
