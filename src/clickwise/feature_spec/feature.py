"""The words of a Feature Spec: a feature, a chunk of columns, the channels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clickwise import text_files

ID_CHANNELS = ("categorical", "user", "target_item", "history", "negative_history")
CHANNELS = ("numerical", *ID_CHANNELS, "display", "label")
LEFT_OUT = "left_out"  # a channel of columns that stand in files without a header and that nobody wants
CHUNK_KEYS = ("type", "features", "files")
CSV_KEYS = (*text_files.KEYS, "list_delimiter")
EVENTS_KEYS = ("negatives",)
RAW_CHUNKS = ("csv", "parquet", "jsonl")  # whose values may be texts
CHUNK_TYPES = ("split_binary", *RAW_CHUNKS, "events", "tfrecord", "split_tfrecords")
RAW_TEXT = "str"  # the dtype of values that `prepare` encodes; only in RAW_CHUNKS
MISSING_NUMBERS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "\\N", "?")  # in a raw column of numbers
AUTO = "auto"  # a cardinality that `transcode` will find
UNKNOWN_IDS = ("error", "zero", "modulo")  # what becomes of an id outside 0 … cardinality−1


@dataclass(frozen=True)
class Feature:
    """One feature: `dtype` is numpy's name of the stored type, `dimensions` the shape of one row's value,
    `unknown_ids` (one of UNKNOWN_IDS; None is error) what becomes of ids outside 0 … cardinality−1 that come in,
    `list_delimiter` what lies between the values of a list in text, where it is not that of the chunk, `time_format`
    (the key `format` of raw text) how its dates and times are written."""

    name: str
    dtype: str
    cardinality: int | str | None = None
    max_hotness: int | None = None
    dimensions: tuple[int, ...] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    unknown_ids: str | None = None
    list_delimiter: str | None = None
    time_format: str | None = None

    @property
    def is_raw_text(self) -> bool:
        return self.dtype == RAW_TEXT

    @property
    def is_multi_hot(self) -> bool:
        return self.max_hotness is not None and self.max_hotness > 1


@dataclass(frozen=True)
class Chunk:
    """Columns of a mapping that lie together. Several files are rows one after another, except that a multi-hot
    `split_binary` chunk has two (values and offsets), and an `events` chunk the files of a log and of positions in it.
    `options` are further keys: CSV_KEYS of a csv chunk, EVENTS_KEYS of an events chunk."""

    type: str
    features: tuple[str, ...]
    files: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


def narrowest_id_dtype(cardinality: int) -> str:
    """The signed integer type in which a column of ids 0 … cardinality−1 is stored.

    NOTE[DIFF] the format ends at int32; int64 is given beyond it instead of an error.
    """
    for limit, dtype in ((127, "int8"), (32767, "int16"), (2147483647, "int32")):
        if cardinality < limit:
            return dtype
    return "int64"
