"""JSON lines, one object a line, as Arrow tables: what its keys hold is found first, over all files, then read as that.

    table = look([path])                        # table.types: key → its Arrow type
    for batch in table.batches(path, columns):  # or table.write_parquet(path, columns, copy)
        …

Python reads the lines: no number is rounded, no text becomes a date. A key that a row leaves out is missing there, as
null and NaN are. A key whose values are of several types has the type that holds them all, as text in the end ("7" and
7.0 are then "7" and "7.0"); objects, and lists in lists or of unlike values, no column holds.
"""

from __future__ import annotations

import io
import itertools
import json
import types as python_types
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clickwise.errors import DataError, nearest
from clickwise.progress import Progress
from clickwise.text_files import NO_GZIP, BadLine, open_bytes

ENDINGS = (".jsonl", ".ndjson", ".json")
BLOCK_LETTERS, BLOCK_ROWS = 1 << 22, 1 << 14  # of lines that are read at a time
EXPECTED = "one JSON object a line (of a list of objects, jq -c '.[]' makes such lines)"
_INT64, _EXACT = 2**63, 2**53  # float64 holds every whole number up to 2^53
_NOTHING = python_types.NoneType
_FAMILIES = {str: "text", int: "number", float: "number", bool: "truth"}


def is_json_lines(path: Path) -> bool:
    """Whether the name says so: .jsonl, .ndjson or .json, with or without .gz."""
    return path.name.lower().removesuffix(".gz").endswith(ENDINGS)


@dataclass(frozen=True)
class JsonTable:
    """What files of JSON lines hold together.

    rows      file → how many it has
    names     the keys in the order in which they first stand somewhere
    types     key → the type that holds all its values
    refused   key, of the others → where the first value stands that no column holds, and what it is
    """

    rows: dict[Path, int]
    names: list[str]
    types: dict[str, pa.DataType]
    refused: dict[str, tuple[str, str]]

    def check(self, columns: Collection[str]) -> None:
        """Raises DataError for a column that is not there or cannot be read."""
        for name in columns:
            if name in self.refused:
                where, found = self.refused[name]
                raise DataError(where, found=found, expected="texts, numbers, true and false, or lists of one of these",
                                do="write its parts as keys of their own, or leave that key out")
            if name not in self.types:
                raise DataError(", ".join(map(str, self.rows)), found=f"no row with the key {name!r}",
                                expected="it in one row at least, if only as null", do=nearest(name, self.names))

    def batches(self, path: Path, columns: Sequence[str], rows: int = BLOCK_ROWS) -> Iterator[pa.RecordBatch]:
        """`columns` of a file, at most `rows` rows at a time. Lines that are bad are left out."""
        self.check(columns)
        schema = pa.schema([(name, self.types[name]) for name in columns])
        for block in _blocks(path, lambda number, reason: None, rows):
            yield pa.record_batch([_array([row.get(name) for _, row in block], type_)
                                   for name, type_ in zip(schema.names, schema.types, strict=True)], schema=schema)

    def write_parquet(self, path: Path, columns: Sequence[str], out: Path) -> None:
        """Writes `columns` of a file to the Parquet file `out`."""
        self.check(columns)
        with pq.ParquetWriter(out, pa.schema([(name, self.types[name]) for name in columns])) as writer:
            for batch in self.batches(path, columns):
                writer.write_batch(batch)


def look(files: Sequence[Path], bad: dict[Path, BadLine] | None = None) -> JsonTable:
    """Reads all files once for their keys and types. `bad` of a file is told of every line that is no object; without
    it they raise DataError."""
    keys: dict[str, _Key] = {}
    rows = {}
    with Progress("looking at keys", unit="rows") as bar:
        for path in files:
            rows[path] = 0
            for block in _blocks(path, bad[path] if bad else _refuse(path)):
                for name in dict.fromkeys(itertools.chain.from_iterable(row for _, row in block)):
                    keys.setdefault(name, _Key()).add(path, name, block)
                rows[path] += len(block)
                bar.advance(len(block), path.name)
    return JsonTable(rows, list(keys), {name: key.type for name, key in keys.items() if not key.refused},
                     {name: key.refused for name, key in keys.items() if key.refused})


def _refuse(path: Path) -> BadLine:
    def refuse(number: int, reason: str) -> None:
        raise DataError(f"{path}, line {number}", found=reason, expected=EXPECTED, do="correct the file")

    return refuse


# ---- lines


Block = list[tuple[int, dict[str, Any]]]  # (number of the line, its object)


def _blocks(path: Path, bad: BadLine, rows: int = BLOCK_ROWS) -> Iterator[Block]:
    block: Block = []
    number = letters = 0
    try:
        with open_bytes(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape") as text:
            for number, line in enumerate(text, 1):
                if line.isspace():
                    continue
                found = _object_of(line)
                if isinstance(found, str):
                    bad(number, found)
                    continue
                block.append((number, found))
                letters += len(line)
                if len(block) >= rows or letters >= BLOCK_LETTERS:
                    yield block
                    block, letters = [], 0
    except NO_GZIP as error:
        if number == 0:
            raise DataError(f"{path}, line 1", found=f"no gzip data ({error})", expected=EXPECTED,
                            do="copy or write it again") from None
        bad(number + 1, "the compressed file is cut off or damaged from here on")
    if block:
        yield block


def _object_of(line: str) -> dict[str, Any] | str:
    """The object of a line, or what is wrong with it."""
    shown = repr(line.strip()[:80])
    try:
        found = json.loads(line)
        if not line.isascii():
            line.encode()
        if "\\ud" in line or "\\uD" in line:  # perhaps half a letter, which no text has
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return f"bytes that are no UTF-8: {shown}"
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", str(error))
        return f"no JSON ({reason}): {shown}"
    return found if isinstance(found, dict) else f"no object: {shown}"


# ---- keys


@dataclass
class _Key:
    """What the values of a key are, of its lists or of its rows: `types` of Python's, the ends of the whole numbers,
    and whether floats have parts or stand for several whole numbers."""

    types: set[type] = field(default_factory=set)
    low: int = 0
    high: int = 0
    has_parts: bool = False
    is_list: bool | None = None
    refused: tuple[str, str] | None = None

    @property
    def type(self) -> pa.DataType:
        if not self.types:
            return pa.list_(pa.string()) if self.is_list else pa.null()
        return pa.list_(self._value_type()) if self.is_list else self._value_type()

    def _value_type(self) -> pa.DataType:
        if str in self.types or self.low < -_INT64 or self.high >= _INT64:
            return pa.string()
        if float not in self.types:
            return pa.bool_() if self.types == {bool} else pa.int64()
        if self.types == {float}:
            return pa.float64()
        if not self.has_parts:
            return pa.int64()
        return pa.float64() if max(-self.low, self.high) <= _EXACT else pa.string()

    def add(self, path: Path, name: str, block: Block) -> None:
        if self.refused:
            return
        values = [value for _, row in block if (value := row.get(name)) is not None]
        kinds = set(map(type, values))
        lists = [value for value in values if type(value) is list] if list in kinds else []
        parts = [part for part in itertools.chain.from_iterable(lists) if part is not None]
        if self._has_odd(kinds, values, lists, parts):
            self._find_odd(path, name, block)
        if values and not self.refused:
            self.is_list = bool(lists)
            self._take(parts if lists else values)

    def _has_odd(self, kinds: set[type], values: list, lists: list[list], parts: list) -> bool:
        """Whether some of the values may be one that no column holds: then each is looked at."""
        if dict in kinds or (values and len({self.is_list, *(kind is list for kind in kinds)} - {None}) > 1):
            return True
        families = {_FAMILIES.get(kind) for kind in set(map(type, parts))}
        return (len(families) > 1 or None in families) and any(map(_is_odd, lists))

    def _find_odd(self, path: Path, name: str, block: Block) -> None:
        for number, row in block:
            value = row.get(name)
            if value is None:
                continue
            is_list = type(value) is list
            odd = "an object" if type(value) is dict else _is_odd(value) if is_list else ""
            if not odd and self.is_list not in (None, is_list):
                odd = "a list, where other rows have one value" if is_list else "one value, where other rows have lists"
            if odd:
                self.refused = (f"{path}, line {number}, key {name!r}", f"{odd}: {json.dumps(value)[:80]}")
                return
            self.is_list = is_list

    def _take(self, values: list) -> None:
        found = set(map(type, values))
        self.types |= found
        if int in found:
            whole = values if found == {int} else [value for value in values if type(value) is int]
            self.low, self.high = min(self.low, min(whole)), max(self.high, max(whole))
        if float in found and not self.has_parts:
            self.has_parts = any(not value.is_integer() or abs(value) > _EXACT for value in values
                                 if type(value) is float and value == value)


def _is_odd(values: list) -> str:
    """What is wrong with a list; "" where a column can hold it."""
    families = {_FAMILIES.get(type(value)) for value in values if value is not None}
    return "an object or a list in a list" if None in families else "a list of unlike values" \
        if len(families) > 1 else ""


# ---- values


def _array(values: list, type_: pa.DataType) -> pa.Array:
    if pa.types.is_list(type_):
        parts = _converted([part for value in values if value for part in value], type_.value_type)
        if parts is not None:
            left = iter(parts)
            values = [value and list(itertools.islice(left, len(value))) for value in values]
        return pa.array(values, type_)
    converted = _converted(values, type_)
    return pa.array(values if converted is None else converted, type_)


def _converted(values: list, type_: pa.DataType) -> list | None:
    """The values as the type has them; None where they all are so already."""
    found = set(map(type, values)) - {_NOTHING}
    if pa.types.is_string(type_):
        return None if found <= {str} else list(map(_text, values))
    if pa.types.is_int64(type_):
        return None if found <= {int} else [None if value is None or value != value else int(value) for value in values]
    if pa.types.is_float64(type_) and bool in found:
        return [None if value is None else float(value) for value in values]
    return None


def _text(value: Any) -> str | None:
    if value is None or value != value:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)
