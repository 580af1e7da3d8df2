"""Rows by one or several keys, on disk: values in Arrow, found by vocabularies of their keys, all mapped into memory.

    states/user_tab/key_0.vocabulary   user_id → its number, 1, 2, …
    states/user_tab/key_1.vocabulary   tab → its number
    states/user_tab/keys.vocabulary    both numbers as one → the row, 1, 2, …
    states/user_tab/values.arrow       row 1, row 2, …: impressions, clicks

With one key, keys.vocabulary alone leads from it to the row. Row 0 stands for keys that are not there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickwise.encoding.vocabulary_file import VocabularyFile, write_vocabulary
from clickwise.errors import DataError

KEYS, VALUES = "keys.vocabulary", "values.arrow"


def files_of(keys: int) -> list[str]:
    """The names of the files of a table with so many keys."""
    return [KEYS, VALUES, *(f"key_{index}.vocabulary" for index in range(keys) if keys > 1)]


class KeyedTable:
    """An open table. `values` is an Arrow table with `size` rows, in the order of their numbers."""

    def __init__(self, folder: Path, keys: int, columns: Mapping[str, pa.DataType | None]) -> None:
        """Raises DataError for files that are damaged, or hold something else than `columns`, of these types where
        there is one."""
        self.parts = [VocabularyFile(folder / f"key_{index}.vocabulary") for index in range(keys) if keys > 1]
        self.keys = VocabularyFile(folder / KEYS)
        try:
            with pa.memory_map(str(folder / VALUES)) as file:
                self.values = pa.ipc.open_file(file).read_all()
            self.values.validate(full=True)
            found = self.values.select(list(columns))
            for name, type_ in columns.items():
                if type_ not in (None, found.schema.field(name).type):
                    raise KeyError(f"{name}: {found.schema.field(name).type}")
        except (pa.ArrowException, OSError, KeyError) as error:
            raise DataError(folder / VALUES, found=f"a file that cannot be read ({str(error).splitlines()[0][:80]})",
                            expected="a state as preparation wrote it",
                            do="prepare the dataset again, or copy the file again") from None
        self.values, self.size = found, self.keys.size
        if len(found) != self.size:
            raise DataError(folder / VALUES, found=f"{len(found):,} rows", expected=f"{self.size:,}, one for each key",
                            do="prepare the dataset again, or copy the file again")

    def find(self, keys: Sequence[Any]) -> int:
        """The row of keys, none of them missing; 0 where there is none."""
        if not self.parts:
            return self.keys.find(keys[0])
        number = 0
        for part, key in zip(self.parts, keys, strict=True):
            id_ = part.find(key)
            if not id_:
                return 0
            number = number * (part.size + 1) + id_
        return self.keys.find(number)

    @functools.cached_property
    def value(self) -> dict[str, Callable[[int], Any]]:
        """By column what gives the value of one row, Python's own, None where it is missing."""
        return {name: _value_of(self.values[name]) for name in self.values.column_names}

    def find_all(self, keys: Sequence[pa.Array]) -> np.ndarray:
        """The rows of many keys, int32; 0 where there is none, or a key is missing."""
        if not self.parts:
            return _ids(self.keys, keys[0])
        number, is_known = _numbers(self.parts, keys)
        return np.where(is_known, self.keys.find_all(pa.array(number)), np.int32(0))


def _numbers(parts: Sequence[VocabularyFile], keys: Sequence[pa.Array]) -> tuple[np.ndarray, np.ndarray]:
    """The ids of several keys as one number, int64, and where all of them are known."""
    number, is_known = np.zeros(len(keys[0]), np.int64), np.ones(len(keys[0]), bool)
    for part, column in zip(parts, keys, strict=True):
        ids = _ids(part, column)
        number = number * (part.size + 1) + ids
        is_known &= ids > 0
    return number, is_known


def _ids(file: VocabularyFile, column: pa.Array) -> np.ndarray:
    if column.null_count < len(column) and pa.types.is_string(column.type) != (file.kind == "text"):
        return np.zeros(len(column), np.int32)
    if pa.types.is_string(column.type):  # few different ones
        codes = column.dictionary_encode()
        ids = np.append(file.find_all(codes.dictionary), np.int32(0))
        return ids[codes.indices.fill_null(len(ids) - 1).to_numpy(zero_copy_only=False)]
    if not column.null_count:
        return file.find_all(column)
    ids = file.find_all(column.fill_null(0))
    ids[~column.is_valid().to_numpy(zero_copy_only=False)] = 0
    return ids


def _value_of(column: pa.ChunkedArray) -> Callable[[int], Any]:
    """What gives the value in a row, numbered from 1 on. Numbers and texts without missing ones are read from the
    mapped memory, which is several times as fast as by way of Arrow's scalars."""
    array = column.chunk(0) if column.num_chunks == 1 else column
    if column.num_chunks == 1 and not column.null_count and not array.offset:
        if _is_number(array.type):
            numbers = memoryview(array.to_numpy())
            return lambda row: numbers[row - 1]
        if pa.types.is_string(array.type):
            _, ends, data = array.buffers()
            ends, data = memoryview(ends).cast("i"), memoryview(data or b"")
            return lambda row: str(data[ends[row - 1]:ends[row]], "utf-8")
    return lambda row: array[row - 1].as_py()


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_float64(type_)


def take(values: pa.ChunkedArray | pa.Array, rows: np.ndarray) -> pa.Array:
    """The values of rows numbered from 1 on; missing for 0."""
    if not values.null_count and _is_number(values.type) and len(values) and (
            isinstance(values, pa.Array) or values.num_chunks == 1):  # several times as fast as by way of Arrow
        array = values if isinstance(values, pa.Array) else values.chunk(0)
        is_missing = rows == 0
        found = array.to_numpy()[np.maximum(rows, 1) - 1]
        return pa.array(found, array.type, mask=is_missing if is_missing.any() else None, from_pandas=False)
    found = values.take(pa.array(np.maximum(rows.astype(np.int64) - 1, 0), mask=rows == 0))
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def write_keyed_table(folder: Path, keys: Mapping[str, pa.Array], values: Mapping[str, pa.Array]) -> None:
    """Writes a table: `keys` together are different in every row, and none is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = list(keys.values())
    if len(columns) == 1:
        write_vocabulary(folder / KEYS, columns)
    else:
        combinations = 1
        for index, column in enumerate(columns):
            path = folder / f"key_{index}.vocabulary"
            write_vocabulary(path, [pc.unique(column)])
            combinations *= VocabularyFile(path).size + 1
        if combinations >= 2**63:
            raise DataError(folder, found=f"{combinations:,} combinations of keys", expected="less than 2^63")
        number, _ = _numbers([VocabularyFile(folder / f"key_{index}.vocabulary") for index in range(len(columns))],
                             columns)
        write_vocabulary(folder / KEYS, [pa.array(number)])
    table = pa.table(dict(values))
    with pa.OSFile(str(folder / VALUES), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


class TableInMemory:
    """A few rows, as a table of them: `keys`, a tuple each, all different and nothing missing, and `values`."""

    def __init__(self, keys: Sequence[tuple], values: pa.Table) -> None:
        self.rows = {key: row for row, key in enumerate(keys, 1)}
        self.values, self.size = values, len(keys)

    def find_all(self, keys: Sequence[pa.Array]) -> np.ndarray:
        """As of a `KeyedTable`."""
        keys = zip(*(column.to_pylist() for column in keys), strict=True)
        return np.array([self.rows.get(key, 0) for key in keys], np.int32)


class GrowingKeys:
    """The keys of a table, and further ones: their rows go on behind its last."""

    def __init__(self, table: KeyedTable | TableInMemory) -> None:
        self.table, self.further = table, {}

    @property
    def size(self) -> int:
        return self.table.size + len(self.further)

    def find_all(self, keys: Sequence[pa.Array], add: bool = False) -> np.ndarray:
        """The rows of many keys, int64; 0 where a key is missing, or, unless they are to be added, is not there."""
        rows = self.table.find_all(keys).astype(np.int64)
        unknown = rows == 0
        for column in keys:
            if column.null_count:
                unknown &= column.is_valid().to_numpy(zero_copy_only=False)
        where = np.flatnonzero(unknown)
        if not len(where) or not (add or self.further):
            return rows
        at = pa.array(where)
        further, first = self.further, self.table.size + 1
        values = zip(*(column.take(at).to_pylist() for column in keys), strict=True)
        if add:
            rows[where] = [further.setdefault(value, first + len(further)) for value in values]
        else:
            rows[where] = [further.get(value, 0) for value in values]
        return rows
