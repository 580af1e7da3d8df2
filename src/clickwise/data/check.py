"""Columns held against their Feature Spec, once per dataset: what would else end in a CUDA assert or a NaN loss."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from clickwise.data.arrays import Block, column_file
from clickwise.data.check_values import check_finite, check_ids, check_labels
from clickwise.data.columns import agreed_rows, check_loadable, map_chunk, read_columns, stream_chunk
from clickwise.data.events import map_events
from clickwise.data.events_check import check_events
from clickwise.feature_spec import ID_CHANNELS, FeatureSpec
from clickwise.files import write_json
from clickwise.progress import Progress

MEMORY = ".checked.json"  # beside feature_spec.yaml


def check_columns(spec: FeatureSpec, mapping: str) -> None:
    """Raises SpecError or DataError where the columns of a mapping contradict the spec, naming file and row.

    Looked at: sizes of files, 0 <= id < cardinality, offsets that rise to the number of values, lists no longer than
    max_hotness, numericals that are finite, labels 0 or 1. What was found good is remembered in the dataset's folder
    (sizes and times of the files), if that can be written to: the next call then reads no column.
    """
    check_loadable(spec)
    seen = {name: column_file(spec, name).stat() for chunk in spec.chunks(mapping) for name in chunk.files}
    state = {"fingerprint": spec.fingerprint(),
             "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in seen.items()}}
    remembered = _remembered(spec.folder / MEMORY)
    if remembered.get(mapping) == state:
        return
    _scan(spec, mapping)
    with contextlib.suppress(OSError):  # a folder that only others may write to
        write_json(spec.folder / MEMORY, {**remembered, mapping: state})


def _remembered(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _scan(spec: FeatureSpec, mapping: str) -> None:
    chunks = spec.chunks(mapping)
    mapped = {index: Block(spec.folder / chunk.files[0], 0, map_chunk(spec, chunk))
              for index, chunk in enumerate(chunks) if chunk.type == "split_binary"}
    files = [spec.folder / chunk.files[0 if chunk.type == "events" else -1] for chunk in chunks]
    samples = {index: map_events(spec, chunk) for index, chunk in enumerate(chunks) if chunk.type == "events"}
    rows_of = {index: len(found) for index, found in {**mapped, **samples}.items()}
    agreed_rows([(files[index], rows) for index, rows in rows_of.items()])
    total = sum(len(block) * len(chunks[index].features) for index, block in mapped.items())
    with Progress(f"checking {mapping}", total=total if len(rows_of) == len(chunks) else None, unit="values") as bar:
        for block in mapped.values():
            check_block(spec, block, bar)
        for index, chunk in enumerate(chunks):
            if index not in mapped and index not in samples:
                rows_of[index] = 0
                for block in stream_chunk(spec, chunk, list(chunk.features), wide_ids=True):
                    check_block(spec, block, bar)
                    rows_of[index] += len(block)
    agreed_rows([(files[index], rows_of[index]) for index in range(len(chunks))])
    if samples:
        label = read_columns(spec, mapping, ("label",)).arrays
        for index, found in samples.items():
            check_events(spec, chunks[index], found, next(iter(label.values()), None))


def check_block(spec: FeatureSpec, block: Block, bar: Progress | None = None) -> None:
    """Raises SpecError for the first value that the spec does not allow, with file and row; `bar` counts values."""
    channel_of = {name: channel for channel, names in spec.channels.items() if channel != "display" for name in names}
    numerical = spec.channels.get("numerical", ())
    for name, array in block.arrays.items():
        channel = channel_of.get(name)
        if channel == "numerical" and array.ndim == 1:
            check_finite(array, block.path, (name,), block.first)
        elif channel == "numerical" and name == numerical[0]:  # all of them, side by side
            check_finite(array, block.path, numerical, block.first)
        elif channel == "label":
            check_labels(array, block.path, block.first)
        elif channel in ID_CHANNELS:
            check_ids(array, spec.features[name], block.path, block.first)
        if bar is not None:
            bar.advance(len(block), name)
