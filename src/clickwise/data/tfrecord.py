"""TFRecords of tf.train.Example without TensorFlow: a feature of the Feature Spec by its name in each record.

A record may hold one row, or many (a prebatch): a feature with one value a row says how many, and lists of ids then
have the same length in every row of the record, filled up with -1.

Example: label [0, 1], ad_id [7, 8] and topics [3, -1, 4, 5] are two rows: (0, 7, [3]) and (1, 8, [4, 5]).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from clickwise.data.arrays import Array, Block, column_file
from clickwise.data.examples import Values, read_example, read_features
from clickwise.data.parquet import to_array
from clickwise.data.tfrecord_file import Records, read_records
from clickwise.errors import DataError, SpecError, nearest
from clickwise.feature_spec import Chunk, Feature, FeatureSpec

FILL = -1  # in lists of ids that are shorter than others of their record


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
            rows = values[single[0]].counts if single else np.ones(len(records), np.int64)
            if single:
                _require(rows > 0, records, values, single[0], "at least one value: a row")
            block = {name: _column(spec, records, values, name, rows, first, wide_ids) for name in names}
            never -= {name for name in names if len(values[name].flat)}
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
                    expected=expected, do=_other_name(records.data(index), name) if count == 0 else "")


def _other_name(data: bytes, name: str) -> str:
    """Whether the record has another name like it."""
    names = sorted(key.decode(errors="replace") for key in read_example(data))
    return "" if name in names else nearest(name, names)
