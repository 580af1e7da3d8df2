"""TFRecords of tf.train.Example without TensorFlow: a feature of the Feature Spec by its name in each record.

An Example is a protocol buffer: a map of names to lists of bytes, floats or int64. A record may hold one row, or many
(a prebatch): a feature with one value a row says how many, and lists of ids then have the same length in every row of
the record, filled up with -1.

Example: label [0, 1], ad_id [7, 8] and topics [3, -1, 4, 5] are two rows: (0, 7, [3]) and (1, 8, [4, 5]).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clickwise.data.arrays import Array, Block, column_file
from clickwise.data.parquet import to_array
from clickwise.data.tfrecord_file import Records, read_records
from clickwise.errors import DataError, SpecError, nearest
from clickwise.feature_spec import Chunk, Feature, FeatureSpec

KINDS = {1: "bytes", 2: "float", 3: "int64"}
FILL = -1  # in lists of ids that are shorter than others of their record
Span = tuple[int, int]  # where something begins and ends in a record
_MESSAGE, _VARINT, _FIXED32, _FIXED64 = 2, 0, 5, 1  # types on the wire


def stream_tfrecord(spec: FeatureSpec, chunk: Chunk, names: list[str], wide_ids: bool = False) -> Iterator[Block]:
    """Blocks of the features `names`, some megabytes of records at a time, ids in int64 with `wide_ids`.

    Raises DataError with file, record and offset for a record that is damaged, is no Example, lacks a feature, or has
    values of another kind or number.
    """
    single = _with_one_value(spec, chunk)
    wanted = list(dict.fromkeys([*single[:1], *names]))
    rows_in_all = 0
    for path in (column_file(spec, name) for name in chunk.files):
        first, never = 0, set(names)
        for records in read_records(path):
            values = read_features(records, wanted)
            rows = values[single[0]].counts if single else np.ones(len(records.data), np.int64)
            if single:
                _require(rows > 0, records, values, single[0], "at least one value: a row")
            block = {name: _column(spec, records, values, name, rows, first, wide_ids) for name in names}
            never -= {name for name in names if values[name].kind is not None}
            yield Block(path, first, block)
            first += int(rows.sum())
        if first and never:
            raise DataError(path, found=f"no record with {min(never)!r}", expected="every feature of the chunk")
        rows_in_all += first
    if not rows_in_all:
        raise SpecError(spec.folder / chunk.files[0], found="no rows", expected="at least one row")


def _with_one_value(spec: FeatureSpec, chunk: Chunk) -> list[str]:
    """The features of a chunk with one value a row, the label first."""
    labels = spec.channels.get("label", ())
    single = [name for name in chunk.features
              if not spec.features[name].is_multi_hot and _width(spec.features[name]) == 1]
    return sorted(single, key=lambda name: name not in labels)


def _width(feature: Feature) -> int:
    return math.prod(feature.dimensions or ())


def _column(spec: FeatureSpec, records: Records, values: dict[str, Values], name: str, rows: np.ndarray, first: int,
            wide_ids: bool) -> Array:
    """The feature `name` of the `rows` of each record."""
    feature, found = spec.features[name], values[name]
    if found.kind == "bytes":
        raise DataError(records.where(0), found=f"bytes (texts) in {name!r}", expected="numbers: int64 or float",
                        do="write them as Parquet, and encode them: clickwise prepare table/prepare")
    if feature.is_multi_hot:
        _require(found.counts % rows == 0, records, values, name,
                 f"a multiple of its rows: lists of one length in a record, filled up with {FILL}", rows)
        lengths, flat = np.repeat(found.counts // rows, rows), found.flat
        if (fill := flat == FILL).any():
            kept = np.concatenate([[0], np.cumsum(~fill)])[np.concatenate([[0], np.cumsum(lengths)])]
            lengths, flat = np.diff(kept), flat[~fill]
        return to_array(spec, name, _lists(lengths, flat), records.path, first, wide_ids)
    width = _width(feature)
    _require(found.counts == width * rows, records, values, name, f"{width} for each of its rows", rows)
    column = pa.array(found.flat) if width == 1 else _lists(np.full(rows.sum(), width), found.flat)
    return to_array(spec, name, column, records.path, first, wide_ids)


def _lists(lengths: np.ndarray, flat: np.ndarray) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def _require(holds: np.ndarray, records: Records, values: dict[str, Values], name: str, expected: str,
             rows: np.ndarray | None = None) -> None:
    """Raises DataError for the first record whose number of values of `name` is not as `expected`."""
    if holds.all():
        return
    index = int(np.flatnonzero(~holds)[0])
    count = int(values[name].counts[index])
    rows_of_it = "" if rows is None else f" in a record of {rows[index]} row" + "s" * int(rows[index] != 1)
    raise DataError(records.where(index), found=f"{count or 'no'} value{'s' * (count != 1)} of {name!r}{rows_of_it}",
                    expected=expected, do=_other_name(records.data[index], name) if count == 0 else "")


def _other_name(data: bytes, name: str) -> str:
    """Whether the record has another name like it."""
    names = sorted(key.decode(errors="replace") for key in read_example(data))
    return "" if name in names else nearest(name, names)


@dataclass(frozen=True)
class Values:
    """A feature in some records: `flat` float32, int64 or texts (bytes), `counts` of each record; `kind` says which,
    None where no record has a value."""

    flat: np.ndarray | list[bytes]
    counts: np.ndarray
    kind: str | None


def read_features(records: Records, names: Sequence[str]) -> dict[str, Values]:
    """The values of some features; a record may lack one. Raises DataError for what is no tf.train.Example."""
    wanted = {name.encode(): name for name in names}
    parts: dict[str, list[list[bytes]]] = {name: [] for name in names}
    kinds: dict[str, str | None] = dict.fromkeys(names)
    for index, data in enumerate(records.data):
        try:
            found = read_example(data, wanted)
        except (ValueError, IndexError) as error:
            raise DataError(records.where(index), found=f"no tf.train.Example: {error}",
                            expected="a map of names to lists of bytes, floats or int64") from None
        for key, name in wanted.items():
            kind, values = found.get(key, (None, []))
            parts[name].append(values)
            if values and kind != kinds[name]:
                if kinds[name] is not None:
                    raise DataError(records.where(index), found=f"{kind} values of {name!r}",
                                    expected=f"{kinds[name]}, as in the records before")
                kinds[name] = kind
    return {name: _values(parts[name], kind) for name, kind in kinds.items()}


def read_example(data: bytes, wanted: dict[bytes, str] | None = None) -> dict[bytes, tuple[str, list[bytes]]]:
    """Name -> kind and pieces of its values as they lie in the record; all names where none are `wanted`. Field 1 of an
    Example are its Features, their field 1 the entries of a map: 1 is the name, 2 the Feature.

    ValueError or IndexError where `data` is no Example.
    """
    found: dict[bytes, tuple[str, list[bytes]]] = {}
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


def _read_list(data: bytes, feature: Span) -> tuple[str | None, list[bytes]]:
    """Of a Feature: its kind, and the bytes of its values. Numbers may stand one by one or packed; end to end they are
    the same bytes."""
    kind, values = None, []
    for number, span in _fields(data, feature):
        if number in KINDS:
            kind, values = KINDS[number], [data[start:end] for start, end in _parts(data, span, 1)]
    if kind == "float" and any(len(value) % 4 for value in values):
        raise ValueError("floats that are not of 4 bytes each")
    if kind == "int64" and any(value and value[-1] & 0x80 for value in values):
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


def _values(parts: list[list[bytes]], kind: str | None) -> Values:
    if kind == "bytes":
        return Values([value for values in parts for value in values], np.array([len(v) for v in parts]), kind)
    joined = np.frombuffer(b"".join(value for values in parts for value in values), np.uint8)
    sizes = np.array([sum(map(len, values)) for values in parts], np.int64)
    if kind == "float":
        return Values(joined.view("<f4"), sizes // 4, kind)
    ends = np.flatnonzero(joined < 0x80)  # the byte that ends a number
    counts = np.diff(np.searchsorted(ends, np.cumsum(sizes)), prepend=0)
    return Values(_integers(joined, ends), counts, kind)


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
