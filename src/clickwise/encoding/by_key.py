"""Columns that one raw column decides, by way of states that stand still: worked out once, for every key.

Of what is known of a user or a video nothing is left to do then but to find the row of the key. A server does so when
it opens an export; who encodes a file once has no use for it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from clickwise.encoding.lists import Lists, rows_of_lists
from clickwise.encoding.raw_types import Integer, Text
from clickwise.encoding.states.keyed_table import KeyedTable
from clickwise.errors import DataError

if TYPE_CHECKING:
    from clickwise.encoding.encoder import Encoder

MOST_KEYS = 2**18  # of larger tables only rows that are asked for are read
UNKNOWN, MISSING, FIRST = 0, 1, 2  # rows: of keys that no state knows, of no key, of the first key


class ByKey:
    """Encoded columns by the raw column `key`: `keys`, int64 or text, all different, and `arrays`, whose rows are those
    of an unknown key, of a missing one, and of `keys`. Values of a key lie side by side, so that they are read at once.
    """

    def __init__(self, key: str, keys: pa.Array, arrays: Mapping[str, np.ndarray | Lists]) -> None:
        self.key, self.names = key, tuple(arrays)
        self._row_of = dict(zip(keys.to_pylist(), itertools.count(FIRST))) | {None: MISSING}
        self._order, self._numbers = None, None
        if len(keys) and pa.types.is_integer(keys.type):
            self._order = np.argsort(keys.to_numpy())
            self._numbers = keys.to_numpy()[self._order]
        self._lists = {name: array for name, array in arrays.items() if isinstance(array, tuple)}
        of_type: dict[np.dtype, list[str]] = {}
        for name, array in arrays.items():
            if name not in self._lists:
                of_type.setdefault(array.dtype, []).append(name)
        self._blocks = [(np.stack([arrays[name] for name in names], 1), tuple(enumerate(names)))
                        for names in of_type.values()]

    def only(self, names: Iterable[str]) -> ByKey:
        """The same for those of its columns that are among `names`."""
        found, names = copy.copy(self), set(names)
        found.names = tuple(name for name in self.names if name in names)
        found._lists = {name: lists for name, lists in self._lists.items() if name in names}
        found._blocks = [(block, tuple((at, name) for at, name in columns_of_block if name in names))
                         for block, columns_of_block in self._blocks]
        return found

    def one(self, key: Any) -> dict[str, Any]:
        """The values of a key as it was read, Python's own; a list for lists of ids."""
        row, found = self._row_of.get(key, UNKNOWN), {}
        for block, columns_of_block in self._blocks:
            values = block[row].tolist()
            for at, name in columns_of_block:
                found[name] = values[at]
        for name, (values, offsets) in self._lists.items():
            found[name] = values[offsets[row]:offsets[row + 1]].tolist()
        return found

    def many(self, keys: pa.Array) -> dict[str, np.ndarray | Lists]:
        """The columns of many keys."""
        rows, found = self._rows(keys), {}
        for block, columns_of_block in self._blocks:
            values = block[rows]
            found |= {name: values[:, at] for at, name in columns_of_block}
        return found | {name: rows_of_lists(*lists, rows) for name, lists in self._lists.items()}

    def _rows(self, keys: pa.Array) -> np.ndarray:
        if self._numbers is None:
            return np.array([self._row_of.get(key, UNKNOWN) for key in keys.to_pylist()], np.int64)
        wanted = (keys.fill_null(0) if keys.null_count else keys).to_numpy()
        at = np.minimum(np.searchsorted(self._numbers, wanted), len(self._numbers) - 1)
        rows = np.where(self._numbers[at] == wanted, self._order[at] + FIRST, UNKNOWN)
        if keys.null_count:
            rows[keys.is_null().to_numpy(zero_copy_only=False)] = MISSING
        return rows


def by_key(encoder: Encoder) -> list[ByKey]:
    """All columns of an encoder that can be worked out so, for keys of at most 262,144 different values each."""
    of_key: dict[str, list[str]] = {}
    for name in encoder.names:
        if (key := _decided_by(encoder.for_columns([name], alone=True), name)) is not None:
            of_key.setdefault(key, []).append(name)
    found = []
    for key, names in of_key.items():
        alone = encoder.for_columns(names, alone=True)
        keys = _keys(alone, key)
        if keys is None:
            continue
        try:
            rows = pa.concat_arrays([pa.array([_unknown(keys), None], keys.type), keys])
            found.append(ByKey(key, keys, alone.columns({key: rows}).arrays))
        except (DataError, UnicodeDecodeError):  # of one of the keys: reported when a row with it comes
            continue
    return found


def _unknown(keys: pa.Array) -> int | str:
    """A key that is none of these."""
    known, is_text = set(keys.to_pylist()), pa.types.is_string(keys.type)
    return next(key for number in itertools.count() if (key := str(number) if is_text else number) not in known)


def _decided_by(alone: Encoder, name: str) -> str | None:
    """The raw column that decides the column `name`, which is all that an encoder makes, if there is one."""
    encoding, column = alone.encoding, alone.encoding.columns[name]
    if len(alone.needs) != 1 or alone.goes_on or not alone.looked_up:
        return None
    (key,) = alone.needs
    stand_still = all(state not in alone.going_on and isinstance(encoding.tables[state].table, KeyedTable)
                      for state in alone.looked_up)
    raw = encoding.raw_column(key)
    is_key = raw.list is None and isinstance(raw.type, (Integer, Text)) and key not in column.sources
    return key if stand_still and is_key else None


def _keys(alone: Encoder, key: str) -> pa.Array | None:
    """All keys that one of the states knows, as they are read; None where there are too many."""
    files = []
    for name in alone.looked_up:
        state = alone.encoding.tables[name]
        if key in state.by:
            files.append(state.table.parts[state.by.index(key)] if state.table.parts else state.table.keys)
    if max(file.size for file in files) > MOST_KEYS:
        return None
    keys = pa.chunked_array([file.values() for file in files]).unique()
    return keys if len(keys) <= MOST_KEYS else None
