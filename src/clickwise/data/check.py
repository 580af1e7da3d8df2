"""Columns checked against their Feature Spec, once per dataset: what would else end in a CUDA assert or a NaN loss."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from clickwise.data.arrays import Block, column_file
from clickwise.data.check_values import check_finite, check_ids, check_labels
from clickwise.data.columns import agreed_rows, check_loadable, map_chunk, read_columns, stream_chunk
from clickwise.data.events import map_events
from clickwise.data.events_check import check_events
from clickwise.feature_spec import ID_CHANNELS, FeatureSpec
from clickwise.files import write_json
from clickwise.given_files import read_given_json
from clickwise.manifest import Manifest, Sum, sum_of_file
from clickwise.progress import Progress

MEMORY = ".checked.json"  # beside feature_spec.yaml


def check_columns(spec: FeatureSpec, mapping: str, manifest: Manifest | None = None) -> dict[str, Sum]:
    """The files of a mapping with bytes and CRC-32. Raises SpecError or DataError where its columns contradict the
    spec, naming file and row, or are not what the dataset's manifest says.

    Looked at: sizes of files, 0 <= id < cardinality, offsets that rise to the number of values, lists no longer than
    max_hotness, numericals that are finite, labels 0 or 1. What was found good is remembered in the dataset's folder,
    if that can be written to: the next call then reads no column. Files are recognised by their size, the time of their
    content, and the time of any change to them (ctime), which nobody can set: what is remembered of a dataset that was
    copied or comes from somebody else is not believed.
    """
    check_loadable(spec)
    manifest = Manifest(spec.folder) if manifest is None else manifest
    seen = {name: column_file(spec, name).stat() for chunk in spec.chunks(mapping) for name in chunk.files}
    times = {name: [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for name, stat in seen.items()}
    remembered = _remembered(spec.folder / MEMORY)
    sums = _sums_in(remembered.get(mapping), spec.fingerprint(), times)
    is_new = sums is None
    if sums is None:
        sums = _summed(spec, mapping, list(seen))
    for name, found in sums.items():
        manifest.check(name, found)
    if is_new:
        _scan(spec, mapping)
        state = {"fingerprint": spec.fingerprint(), "files": times,
                 "crc32": {name: crc32 for name, (_, crc32) in sums.items()}}
        with contextlib.suppress(OSError):  # a folder that only others may write to
            write_json(spec.folder / MEMORY, {**remembered, mapping: state})
    return sums


def _remembered(path: Path) -> dict[str, Any]:
    try:
        content = read_given_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _sums_in(state: Any, fingerprint: str, times: dict[str, list[int]]) -> dict[str, Sum] | None:
    """What is remembered of exactly these files, None where it is of others."""
    try:
        if (state["fingerprint"], state["files"]) == (fingerprint, times):
            return {name: (size, int(state["crc32"][name])) for name, (size, _, _) in times.items()}
    except (LookupError, TypeError, ValueError):
        pass
    return None


def _summed(spec: FeatureSpec, mapping: str, names: list[str]) -> dict[str, Sum]:
    sums = {}
    with Progress(f"summing {mapping}", total=len(names), unit="files") as bar:
        for name in names:
            sums[name] = sum_of_file(spec.folder / name)
            bar.advance(1, name)
    return sums


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
