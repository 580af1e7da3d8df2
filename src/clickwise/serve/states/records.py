"""What a state stores of one key, as bytes: its columns one after the other, little-endian. Columns of an event log are
lists, all of one length.

    counts    impressions, clicks, when, late_impressions, late_clicks: 40 bytes
    a log     time …, item …, outcome …: 8 + 4 + 1 bytes an event
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clickwise.arrow_arrays import dtype_of
from clickwise.encoding.states import State
from clickwise.encoding.states.keyed_table import TableInMemory
from clickwise.errors import StoreError


class RecordFormat:
    """The records of one state, by its name."""

    def __init__(self, name: str, state: State) -> None:
        self.name, self.state = name, state
        columns = {of: state.table.values[of].combine_chunks() for of in state.stored}
        types = {of: array.type.value_type if state.is_of_lists else array.type for of, array in columns.items()}
        self._dtypes = {of: dtype_of(type_).newbyteorder("<") for of, type_ in types.items()}
        self._size = sum(dtype.itemsize for dtype in self._dtypes.values())
        if not state.is_of_lists:
            self._struct = struct.Struct(f"<{len(columns)}q")
            self._columns = [memoryview(array.to_numpy()) for array in columns.values()]

    def of_row(self, row: int) -> bytes:
        """The record of a row of the state's own table."""
        if not self.state.is_of_lists:
            return self._struct.pack(*(column[row - 1] for column in self._columns))
        lists = self.state.stored_of(row)
        return b"".join(lists[name].astype(dtype).tobytes() for name, dtype in self._dtypes.items())

    def one(self, record: bytes) -> dict[str, Any]:
        """What `State.stored_of` gives. Raises StoreError for bytes that are no record."""
        self._check(record)
        if not self.state.is_of_lists:
            return dict(zip(self._dtypes, self._struct.unpack(record), strict=True))
        events, at, found = len(record) // self._size, 0, {}
        for name, dtype in self._dtypes.items():
            found[name] = np.frombuffer(record, dtype, events, at)
            at += events * dtype.itemsize
        return found

    def table(self, keys: Sequence[tuple], records: Sequence[bytes]) -> TableInMemory:
        """A table of these rows."""
        if not self.state.is_of_lists:
            for record in records:
                self._check(record)
            numbers = np.frombuffer(b"".join(records), "<i8").reshape(-1, len(self._dtypes))
            return TableInMemory(keys, pa.table({name: numbers[:, index] for index, name in enumerate(self._dtypes)}))
        ones, columns = [self.one(record) for record in records], {}
        offsets = pa.array(np.cumsum([0, *(len(record) // self._size for record in records)], dtype=np.int64))
        for name, dtype in self._dtypes.items():
            values = np.concatenate([np.zeros(0, dtype), *(one[name] for one in ones)])
            columns[name] = pa.LargeListArray.from_arrays(offsets, pa.array(values))
        return TableInMemory(keys, pa.table(columns))

    def all(self, stored: Mapping[str, pa.Array]) -> list[bytes]:
        """The records of what `GoingOn.stored` gives."""
        if not self.state.is_of_lists:
            columns = [stored[name].to_pylist() for name in self._dtypes]
            return [self._struct.pack(*row) for row in zip(*columns, strict=True)]
        values = {name: stored[name].values.to_numpy().astype(dtype) for name, dtype in self._dtypes.items()}
        offsets = next(iter(stored.values())).offsets.tolist()
        return [b"".join(column[first:end].tobytes() for column in values.values())
                for first, end in zip(offsets, offsets[1:], strict=False)]

    def _check(self, record: bytes) -> None:
        if len(record) % self._size or (not self.state.is_of_lists and len(record) != self._size):
            raise StoreError(f"the state {self.name}", found=f"a record of {len(record)} bytes",
                             expected=f"{self._size} bytes" + " for each event" * self.state.is_of_lists,
                             do="keep other data out of the store")
