"""tf.train.Example in many records at once: the numbers of a feature, by its name.

An Example is a protocol buffer: a map of names to lists of bytes, floats or int64. Writers lay it out in one way as a
rule: the name before the list, all numbers of a list in one piece (packed). Records of that layout are read side by
side in numpy, one entry of the map of all of them in a step, whatever the order of the entries. Any other record is
read by itself in Python, which takes some ten times as long.

Example: 0a 0d · 0a 0b · 0a 02 'a' 'd' · 12 05 · 1a 03 · 0a 01 07 is the features (13 bytes), an entry (11 bytes), its
name `ad`, its list (5 bytes), of int64 (3 bytes), packed (1 byte): 7.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clickwise.data.tfrecord_file import Records
from clickwise.errors import DataError

BYTES, FLOAT, INT64 = 1, 2, 3  # kinds of lists, by their numbers in the protocol buffer; 0 stands for none
NAMES = {BYTES: "bytes (texts)", FLOAT: "float", INT64: "int64"}
PADDING = 32  # bytes behind the records, so that a damaged one is read no further
_FIRST, _SECOND = 0x0A, 0x12  # tags of fields 1 and 2 whose length follows
_MESSAGE, _VARINT, _FIXED32, _FIXED64 = 2, 0, 5, 1  # types on the wire
Span = tuple[int, int]  # where something begins and ends in a record


@dataclass(frozen=True)
class Values:
    """A feature in some records: `flat` float32 or int64, and of each record how many values, `counts`."""

    flat: np.ndarray
    counts: np.ndarray


def read_features(records: Records, names: Sequence[str]) -> dict[str, Values]:
    """The values of some features; a record may lack one. Raises DataError for what is no tf.train.Example, for texts,
    and for a feature whose kind changes."""
    keys = {name.encode(): index for index, name in enumerate(names)}
    kinds, starts, ends, odd = _find_lists(records, keys)
    apart = {int(index): _read_apart(records, int(index), keys) for index in np.flatnonzero(odd)}
    found = {}
    for key, name in enumerate(names):
        spans = zip(starts[key].tolist(), ends[key].tolist(), strict=True)
        parts = [records.content[start:end] for start, end in spans]
        for index, lists in apart.items():
            kinds[key, index], parts[index] = lists.get(key, (0, b""))
        found[name] = _values(parts, _one_kind(records, name, kinds[key]))
    return found


def _one_kind(records: Records, name: str, kinds: np.ndarray) -> int:
    """FLOAT or INT64, of all records that have the feature; INT64 where none has."""
    there = np.flatnonzero(kinds)
    if not len(there):
        return INT64
    first = int(kinds[there[0]])
    for wrong, expected in ((kinds == BYTES, "numbers: int64 or float"),
                            ((kinds != first) & (kinds != 0), f"{NAMES[first]}, as in the records before")):
        if wrong.any():
            index = int(np.flatnonzero(wrong)[0])
            raise DataError(records.where(index), found=f"{NAMES[int(kinds[index])]} values of {name!r}",
                            expected=expected, do="write texts as Parquet, and encode them: clickwise prepare "
                            "table/prepare" if kinds[index] == BYTES else "")
    return first


def _find_lists(records: Records, keys: Mapping[bytes, int]) -> tuple[np.ndarray, ...]:
    """Of each wanted list of each record, [keys, records]: its kind, where its packed numbers start and end in
    `content`; and which records have another layout, [records]."""
    data = np.concatenate([np.frombuffer(records.content, np.uint8), np.zeros(PADDING, np.uint8)])
    begins, ends = records.begins, records.ends
    kinds, starts, stops = (np.zeros((len(keys), len(begins)), dtype) for dtype in (np.int8, np.int64, np.int64))
    is_good, at = _enter(data, begins, _FIRST, ends)
    is_good |= begins == ends  # an Example without features
    odd, at = ~is_good, at.copy()
    active = np.flatnonzero(is_good & (begins < ends))
    while len(active := active[at[active] < ends[active]]):
        size, entry = _varints(data, at[active] + 1)
        stop = entry + size
        length, name = _varints(data, entry + 1)
        good = (data[at[active]] == _FIRST) & (stop <= ends[active]) & (_at(data, entry) == _FIRST) & \
            (length >= 0) & (name + length < stop)
        inside, feature = _enter(data, name + length, _SECOND, stop)
        empty = feature == stop
        tag = _at(data, feature)
        kind = tag >> 3
        of_kind, packed = _enter(data, feature, kind << 3 | _MESSAGE, stop)
        empty |= of_kind & (packed == stop)
        in_one_piece, first = _enter(data, packed, _FIRST, stop)
        key = np.full(len(active), -1)
        key[good] = _keys_of(data, name[good], length[good], keys)
        numbers = np.where(kind == FLOAT, (stop - first) % 4 == 0, _at(data, stop - 1) < 0x80)
        good &= inside & ((key < 0) | empty | (of_kind & in_one_piece & numbers & ((kind == FLOAT) | (kind == INT64))))
        taken = good & (key >= 0)
        place = key[taken], active[taken]
        has_values = ~empty[taken]
        kinds[place], starts[place], stops[place] = (np.where(has_values, values[taken], 0)
                                                     for values in (kind, first, stop))
        odd[active[~good]] = True
        at[active] = stop
        active = active[good]
    return kinds, starts, stops, odd


def _enter(data: np.ndarray, at: np.ndarray, tag: np.ndarray | int, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether a field of that tag lies at `at` and fills all up to `ends`, and where its content begins."""
    size, inside = _varints(data, at + 1)
    return (_at(data, at) == tag) & (inside + size == ends), inside


def _at(data: np.ndarray, at: np.ndarray) -> np.ndarray:
    return data[np.clip(at, 0, len(data) - 1)]


def _varints(data: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers at `at`, seven bits a byte, the lowest first, and where they end."""
    at = np.clip(at, 0, len(data) - PADDING // 2)
    byte = data[at]
    values, at = (byte & 0x7F).astype(np.int64), at + 1
    more = np.flatnonzero(byte >= 0x80)
    for shift in range(7, 63, 7):
        if not len(more):
            break
        byte = data[at[more]]
        values[more] |= (byte & 0x7F).astype(np.int64) << shift
        at[more] += 1
        more = more[byte >= 0x80]
    return values, at


def _keys_of(data: np.ndarray, at: np.ndarray, length: np.ndarray, keys: Mapping[bytes, int]) -> np.ndarray:
    """The number of each name, −1 for one that is not wanted. Names are compared with the first that is left over,
    which as a rule is that of all."""
    found, left = np.full(len(at), -1), np.arange(len(at))
    while len(left):
        name = data[at[left[0]] : at[left[0]] + length[left[0]]]
        same = length[left] == len(name)
        same[same] = (data[at[left[same]][:, None] + np.arange(len(name))] == name).all(axis=1)
        found[left[same]] = keys.get(name.tobytes(), -1)
        left = left[~same]
    return found


def _values(parts: list[bytes], kind: int) -> Values:
    joined = np.frombuffer(b"".join(parts), np.uint8)
    sizes = np.fromiter(map(len, parts), np.int64, len(parts))
    if kind == FLOAT:
        return Values(joined.view("<f4"), sizes // 4)
    ends = np.flatnonzero(joined < 0x80)  # the byte that ends a number
    counts = np.diff(np.searchsorted(ends, np.cumsum(sizes)), prepend=0)
    return Values(_integers(joined, ends), counts)


def _integers(encoded: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """int64 from bytes of seven bits each, the lowest first, and where each number ends.

    Example: 0x96 0x01 is 0x16 + (0x01 << 7) = 150.
    """
    if len(ends) == len(encoded):
        return encoded.astype(np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    values = (encoded[starts] & 0x7F).astype(np.int64)
    for byte in range(1, min(10, int(lengths.max()))):
        longer = np.flatnonzero(lengths > byte)
        values[longer] |= (encoded[starts[longer] + byte] & 0x7F).astype(np.int64) << (7 * byte)
    return values


def _read_apart(records: Records, index: int, keys: Mapping[bytes, int]) -> dict[int, tuple[int, bytes]]:
    """Of one record: key -> kind and numbers, end to end, of its wanted lists that are not empty."""
    try:
        found = read_example(records.data(index), keys)
    except (ValueError, IndexError) as error:
        raise DataError(records.where(index), found=f"no tf.train.Example: {error}",
                        expected="a map of names to lists of bytes, floats or int64") from None
    return {keys[name]: (kind, b"".join(values)) for name, (kind, values) in found.items() if values}


def read_example(data: bytes, wanted: Collection[bytes] | None = None) -> dict[bytes, tuple[int, list[bytes]]]:
    """Name -> kind and pieces of its values as they lie in the record, of the `wanted` names or of all. Field 1 of an
    Example are its Features, their field 1 the entries of a map: 1 is the name, 2 the Feature. ValueError or IndexError
    where `data` is no Example."""
    found: dict[bytes, tuple[int, list[bytes]]] = {}
    for features in _parts(data, (0, len(data)), 1):
        for entry in _parts(data, features, 1):
            key, feature = b"", (0, 0)
            for number, span in _fields(data, entry):
                if number == 1:
                    key = data[slice(*span)]
                elif number == 2:
                    feature = span
            if wanted is None or key in wanted:
                found[key] = _read_list(data, feature)
    return found


def _read_list(data: bytes, feature: Span) -> tuple[int, list[bytes]]:
    """Of a Feature: its kind, and the bytes of its values. Numbers may stand one by one or packed; end to end they are
    the same bytes."""
    kind, values = 0, []
    for number, span in _fields(data, feature):
        if number in NAMES:
            kind, values = number, [data[start:end] for start, end in _parts(data, span, 1)]
    if kind == FLOAT and any(len(value) % 4 for value in values):
        raise ValueError("floats that are not of 4 bytes each")
    if kind == INT64 and any(value and value[-1] & 0x80 for value in values):
        raise ValueError("an integer that does not end")
    return kind, values


def _parts(data: bytes, message: Span, wanted: int) -> list[Span]:
    return [span for number, span in _fields(data, message) if number == wanted]


def _fields(data: bytes, message: Span) -> Iterator[tuple[int, Span]]:
    """The number of each field of a message, and where its content lies."""
    at, end = message
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _MESSAGE:
            size, at = _varint(data, at)
        elif kind == _VARINT:
            size = _varint(data, at)[1] - at
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field of the type {kind}")
        if at + size > end:
            raise ValueError("a field that is longer than what it lies in")
        yield tag >> 3, (at, at + size)
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number, seven bits a byte, and where it ends."""
    value, shift = data[at] & 0x7F, 7
    while data[at] & 0x80:
        at += 1
        value |= (data[at] & 0x7F) << shift
        shift += 7
    return value, at + 1
