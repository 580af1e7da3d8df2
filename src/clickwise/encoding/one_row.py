"""One raw row to the values that a model reads, in Python's own values: planned once, without arrays."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clickwise.encoding.raw_types import Unreadable
from clickwise.errors import DataError

if TYPE_CHECKING:
    from clickwise.encoding.by_key import ByKey
    from clickwise.encoding.document import Column, Encoding


class OneRow:
    """The columns `names` of a row, of the raw columns `needs` and of what states give, and those that stand in
    `by_key`."""

    def __init__(self, encoding: Encoding, names: Sequence[str], needs: Sequence[str],
                 by_key: Sequence[ByKey] = ()) -> None:
        self.encoding = encoding
        self._by_key = [(table.key, table.one) for table in by_key]
        self._reads = [(of, None if encoding.is_of_lists(of) else encoding.raw_column(of).type.one) for of in needs]
        self._lists: list[tuple[str, Column, bool]] = []
        self._values: list[tuple[str, str, tuple[Callable, ...]]] = []
        self._of_several: list[tuple[str, tuple[str, ...], Callable, tuple[Callable, ...]]] = []
        floats: dict[tuple[str, str], list[str]] = {}
        for name in names:
            column = encoding.columns[name]
            steps = tuple(step.one for step in column.steps)
            if encoding.is_of_lists(column.sources[0]):
                self._lists.append((name, column, encoding.gives_lists(column.sources[0])))
                continue
            if len(column.sources) == 1:
                self._values.append((name, column.sources[0], steps))
            else:
                self._of_several.append((name, column.sources, steps[0], steps[1:]))
            if column.number:
                floats.setdefault((column.number, column.dtype), []).append(name)
        self._floats = [([_rounding(kind, len(names)) for kind in dict.fromkeys((first, dtype))], names)
                        for (first, dtype), names in floats.items()]

    def __call__(self, row: Mapping[str, Any], look_up: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """The values by column, floats rounded as they are stored; a list for lists of ids. `row` has all columns;
        `look_up` adds what states give to what was read of them. Raises DataError for a value that cannot be read."""
        found, encoded = {}, {}
        for of, read in self._reads:
            try:
                found[of] = row[of] if read is None else read(row[of])
            except Unreadable as error:
                raise unreadable(f"column {of!r}", error) from None
        look_up(found)
        try:
            for name, of, steps in self._values:
                value = found[of]
                for step in steps:
                    value = step(value)
                encoded[name] = value
            for name, sources, first, steps in self._of_several:
                value = first(*[found[of] for of in sources])
                for step in steps:
                    value = step(value)
                encoded[name] = value
            for name, column, is_encoded in self._lists:
                of = column.sources[0]
                encoded[name] = found[of] if is_encoded else self._list(column, found[of])
        except Unreadable as error:
            raise unreadable(f"column {of!r}", error) from None
        for roundings, names in self._floats:
            values = [encoded[name] for name in names]
            try:
                for rounding in roundings:
                    values = rounding.unpack(rounding.pack(*values))
            except (struct.error, OverflowError):  # no number, or one that is too large
                values = [_rounded(value, roundings) for value in values]
            if not all(map(math.isfinite, values)):
                of = self.encoding.columns[names[[*map(math.isfinite, values)].index(False)]].sources[0]
                raise DataError(f"column {of!r}", found=repr(row.get(of)), expected="a finite number")
            encoded.update(zip(names, values, strict=True))
        for of, values_of in self._by_key:
            encoded |= values_of(found[of])
        return encoded

    def _list(self, column: Column, value: Any) -> list[int]:
        raw = self.encoding.raw_column(column.of)
        if isinstance(value, str):
            value = value.split(raw.list)
        elif value is None or isinstance(value, float):
            value = ()
        values = [read for part in value if (read := raw.type.one(part)) is not None]
        if column.most is not None and len(values) > column.most:
            raise DataError(f"column {column.of!r}", found=f"{len(values)} values", expected=f"at most {column.most}")
        for step in column.steps:
            values = [step.one(part) for part in values]
        return [id_ for id_ in values if id_]


def _rounding(dtype: str, values: int) -> struct.Struct:
    """Rounds so many numbers as numpy does: each to the nearest, of two the even one."""
    return struct.Struct(f"<{values}{np.dtype(dtype).char}")


def _rounded(value: Any, roundings: Sequence[struct.Struct]) -> float:
    try:
        for rounding in roundings:
            (value,) = struct.unpack(f"<{rounding.format[-1]}", struct.pack(f"<{rounding.format[-1]}", value))
        return value
    except (struct.error, OverflowError):
        return math.nan


def unreadable(where: str, error: Unreadable) -> DataError:
    """The error of a value that its raw type cannot read."""
    return DataError(where, found=repr(error.value)[:80], expected=error.expected,
                     do="correct it, or leave it empty where the value is not known")
