"""A vocabulary on disk: value → id in a hash table that is mapped into memory, for one value or for many at a time.

The file holds, little-endian: a header of 64 bytes; the slots of the hash table, int32 (the id of a value, 0: empty);
then the values in the order of their ids, as int64, or as int64 offsets into UTF-8 bytes. A search begins at the slot
that the value's hash says and goes on from slot to slot until the value is found, or one is empty.

With 4 slots and the values 5 (id 1, slot 2) and 9 (id 2, slot 2, which is taken, so 3) the slots are 0, 0, 1, 2; 7,
whose slot is 3, is compared with 9, then slot 0 is empty: 7 is not there.
"""

from __future__ import annotations

import functools
import mmap
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from clickwise.arrow_arrays import of_numbers, to_numpy
from clickwise.errors import DataError
from clickwise.files import write_array

_HEADER = struct.Struct("<8s8sQQQ24x")  # magic, kind, values, bits of the number of slots, bytes of text
_MAGIC = b"CWVOCAB1"
IN_MEMORY = 16_384  # values
FEW_TEXTS = 256  # where a dictionary of Python answers
FEW = 32  # values are looked up one by one: arrays cost 200 µs in all
MOST_DENSE, SPREAD = 2**16, 4  # values; so many times as many numbers, 1 MB
_PRIME = 2**61 - 1
_FACTOR = 0x9E3779B97F4A7C15
_ALL = 2**64 - 1
_SHORT = 64  # bytes: longer texts are looked up one by one


class VocabularyFile:
    """An open vocabulary. `kind` is int or text, `size` the number of values; their ids are 1 … size, and 0 is any
    other value."""

    def __init__(self, path: Path) -> None:
        try:
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            magic, kind, self.size, bits, text_bytes = _HEADER.unpack_from(self._map)
        except FileNotFoundError:
            raise DataError(path, found="no such file", expected="a vocabulary that encoding.json names",
                            do="prepare the dataset again, or copy the whole folder") from None
        except (OSError, ValueError, struct.error):
            raise _damaged(path) from None
        self.kind = kind.rstrip(b"\0").decode(errors="replace")
        is_text = self.kind == "text"
        self._text_at = _HEADER.size + 4 * 2**min(bits, 40) + 8 * (self.size + is_text)
        end = self._text_at + (text_bytes + 8 if is_text else 0)
        if magic != _MAGIC or self.kind not in ("int", "text") or end != len(self._map):
            raise _damaged(path)
        self._shift, self._mask = 64 - bits, 2**bits - 1
        self.slots = np.frombuffer(self._map, "<i4", 2**bits, _HEADER.size)
        self.keys = np.frombuffer(self._map, "<i8", self.size + is_text, _HEADER.size + 4 * 2**bits)
        self._bytes = np.frombuffer(self._map, np.uint8, len(self._map) - self._text_at, self._text_at)
        if not self._holds_together(text_bytes):
            raise _damaged(path)
        self._slots_one, self._keys_one = memoryview(self.slots), memoryview(self.keys)
        in_file = self._find_text if is_text else self._find_int
        self.find = self._find_first if self.size <= IN_MEMORY else in_file

    def _holds_together(self, text_bytes: int) -> bool:
        """Whether every search ends, and inside of the file: it may be another's, written to harm."""
        slots, ends = self.slots, self.keys
        if int(slots.min()) < 0 or int(slots.max()) > self.size or np.count_nonzero(slots) == len(slots):
            return False
        return self.kind == "int" or (int(ends[0]) == 0 and int(ends[-1]) == text_bytes
                                      and bool((ends[1:] >= ends[:-1]).all()))

    def _find_first(self, value: int | str) -> int:
        """The first search of a small vocabulary: from now on a dictionary of Python answers, which costs a tenth."""
        in_file = self._find_text if self.kind == "text" else self._find_int
        try:
            known = dict(zip(self.values().to_pylist(), range(1, self.size + 1), strict=True))
        except UnicodeDecodeError:  # bytes that are no text of anybody's
            self.find = in_file
        else:
            self.find = lambda value: known.get(value, 0)
        return in_file(value)

    def _find_int(self, value: int) -> int:
        at = ((value & _ALL) * _FACTOR & _ALL) >> self._shift
        slots, keys, mask = self._slots_one, self._keys_one, self._mask
        while id_ := slots[at]:
            if keys[id_ - 1] == value:
                return id_
            at = at + 1 & mask
        return 0

    def _find_text(self, value: str) -> int:
        text = value.encode("utf-8", "surrogatepass")
        at = (int.from_bytes(text, "little") % _PRIME * _FACTOR & _ALL) >> self._shift
        slots, ends, mask, map_, text_at = self._slots_one, self._keys_one, self._mask, self._map, self._text_at
        while id_ := slots[at]:
            if map_[text_at + ends[id_ - 1]:text_at + ends[id_]] == text:
                return id_
            at = at + 1 & mask
        return 0

    def find_all(self, values: pa.Array) -> np.ndarray:
        """The ids of many values, none of them missing; int32."""
        if len(values) <= (FEW_TEXTS if self.kind == "text" and self.size <= IN_MEMORY else FEW):
            return np.array([self.find(value) for value in values.to_pylist()], np.int32)
        texts = _Texts.of(values) if self.kind == "text" else None
        keys = None if texts is not None else _keys(values)
        if self._dense is not None:
            low, high, ids = self._dense
            is_between = (keys >= low) & (keys <= high)
            return np.where(is_between, ids[np.where(is_between, keys - low, 0)], np.int32(0))
        at = (_hash(keys if texts is None else texts) >> np.uint64(self._shift)).astype(np.int64)
        ids = np.zeros(len(values), np.int32)
        left = np.arange(len(values))
        if texts is not None:
            long = np.flatnonzero(np.diff(texts.ends) > _SHORT)
            ids[long] = [self._find_text(values[index].as_py()) for index in long.tolist()]
            left = np.delete(left, long)
        stored = None if texts is None else _Texts(self.keys, self._bytes)
        while len(left) > FEW:
            found = self.slots[at[left]]
            left, found = left[found > 0], found[found > 0]
            same = self.keys[found - 1] == keys[left] if texts is None else texts.equal(left, stored, found - 1)
            ids[left[same]] = found[same]
            left = left[~same]
            at[left] = at[left] + 1 & self._mask
        for index in left.tolist():  # the last ones, which collide with many
            ids[index] = self._find_int(int(keys[index])) if texts is None else self._find_text(values[index].as_py())
        return ids

    @functools.cached_property
    def _dense(self) -> tuple[int, int, np.ndarray] | None:
        """Of not too many whole numbers that lie close together the least, the greatest, and the ids of all from one
        to the other: many are found at one look."""
        if self.kind != "int" or not 0 < self.size <= MOST_DENSE:
            return None
        low, high = int(self.keys.min()), int(self.keys.max())
        if high - low >= SPREAD * self.size:
            return None
        ids = np.zeros(high - low + 1, np.int32)
        ids[self.keys - low] = np.arange(1, self.size + 1)
        return low, high, ids

    def values(self) -> pa.Array:
        """All values in the order of their ids, int64 or string."""
        if self.kind == "int":
            return of_numbers(self.keys)
        texts = pa.LargeStringArray.from_buffers(self.size, pa.py_buffer(self.keys), pa.py_buffer(self._bytes))
        return texts.cast(pa.string())


def write_vocabulary(path: Path, chunks: Iterable[pa.Array]) -> None:
    """Writes the values of `chunks`, all different and none missing; value i has the id i + 1."""
    values = pa.concat_arrays(list(chunks))
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        texts = _Texts.of(values)
        hashes, kind, text = _hash(texts), "text", texts.data[:-8]
        keys = texts.ends.astype("<i8")
    else:
        keys, kind, text = _keys(values), "int", None
        hashes = _hash(keys)
    bits = max(2, (3 * len(values) // 2).bit_length())
    with open(path, "wb") as file:
        file.write(_HEADER.pack(_MAGIC, kind.encode(), len(values), bits, 0 if text is None else len(text)))
        write_array(file, _slots(hashes, bits))
        write_array(file, keys)
        if text is not None:
            write_array(file, text)
            file.write(bytes(8))  # words are read whole


def _keys(values: pa.Array) -> np.ndarray:
    return to_numpy(values.cast(pa.int64())).astype("<i8")


def _slots(hashes: np.ndarray, bits: int) -> np.ndarray:
    """The hash table: every round, each value that has none yet takes its slot, or looks at the next one."""
    slots = np.zeros(2**bits, "<i4")
    at, left = (hashes >> np.uint64(64 - bits)).astype(np.int64), np.arange(len(hashes))
    while len(left):
        empty = slots[at[left]] == 0
        takers = left[empty][::-1]  # of several for one slot the first takes it
        slots[at[takers]] = takers + 1
        left = left[slots[at[left]] != left + 1]
        at[left] = at[left] + 1 & 2**bits - 1
    return slots


class _Texts:
    """Text i is `data[ends[i]:ends[i + 1]]`; 8 bytes more lie behind `data`."""

    def __init__(self, ends: np.ndarray, data: np.ndarray) -> None:
        self.ends, self.data = ends, data
        self.words = np.ndarray(max(len(data) - 7, 1), "<u8", data, strides=(1,))

    @classmethod
    def of(cls, texts: pa.StringArray) -> _Texts:
        wide = pa.types.is_large_string(texts.type)
        _, ends, data = texts.buffers()
        ends = np.frombuffer(ends, np.int64 if wide else np.int32, len(texts) + 1, texts.offset * (8 if wide else 4)) \
            if len(texts) else np.zeros(1, np.int64)
        data = np.frombuffer(data, np.uint8)[ends[0]:ends[-1]] if data is not None else np.zeros(0, np.uint8)
        return cls(ends.astype(np.int64) - ends[0], np.concatenate([data, np.zeros(8, np.uint8)]))

    def lengths(self, which: np.ndarray) -> np.ndarray:
        return self.ends[1:][which] - self.ends[:-1][which]

    def word(self, index: int, which: np.ndarray) -> np.ndarray:
        """The 8 bytes from byte 8 `index` on of the texts `which`, zeros behind their ends."""
        words = self.words[np.minimum(self.ends[which] + 8 * index, len(self.words) - 1)]
        left = self.lengths(which) - 8 * index
        inside = np.uint64(_ALL) >> (8 * (8 - np.clip(left, 1, 8))).astype(np.uint64)
        return np.where(left > 0, words & inside, np.uint64(0))

    def equal(self, mine: np.ndarray, other: _Texts, theirs: np.ndarray) -> np.ndarray:
        """Whether the texts `mine` are, one by one, the texts `theirs` of `other`."""
        lengths = self.lengths(mine)
        same = lengths == other.lengths(theirs)
        for index in range(-(-int(lengths.max(initial=0)) // 8)):
            same[same] = self.word(index, mine[same]) == other.word(index, theirs[same])
        return same


def _hash(values: np.ndarray | _Texts) -> np.ndarray:
    """uint64; the same as `VocabularyFile.find` works out: a text is one number, its bytes little-endian, modulo
    2^61 − 1, and 2^64 is 8 there."""
    if not isinstance(values, _Texts):
        return values.astype(np.int64).view(np.uint64) * np.uint64(_FACTOR)
    prime, lengths = np.uint64(_PRIME), np.diff(values.ends)
    hashes = np.zeros(len(lengths), np.uint64)
    for index in reversed(range(-(-int(lengths.max(initial=0)) // 8))):
        which = np.flatnonzero(lengths > 8 * index)
        hashes[which] = (hashes[which] * np.uint64(8) % prime + values.word(index, which) % prime) % prime
    return hashes * np.uint64(_FACTOR)


def _damaged(path: Path) -> DataError:
    return DataError(path, found="a file that is cut off or damaged", expected="a vocabulary as preparation wrote it",
                     do="prepare the dataset again, or copy the file again")
