"""Columns held against their Feature Spec, once per dataset: what would else end in a CUDA assert or a NaN loss."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clickwise.data.arrays import Array, Block, RaggedArray, column_file
from clickwise.data.columns import agreed_rows, check_loadable, map_chunk, read_columns, stream_chunk
from clickwise.data.events import map_events
from clickwise.errors import SpecError
from clickwise.files import write_json
from clickwise.progress import Progress
from clickwise.spec import ID_CHANNELS, Feature, FeatureSpec

MEMORY = ".checked.json"  # beside feature_spec.yaml
STEP = 1 << 20  # values looked at at a time: they stay in the processor's cache


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
    mapped = {place: Block(spec.folder / chunk.files[0], 0, map_chunk(spec, chunk))
              for place, chunk in enumerate(chunks) if chunk.type == "split_binary"}
    rows_of = {place: len(block) for place, block in mapped.items()}
    files = [spec.folder / chunk.files[0 if chunk.type == "events" else -1] for chunk in chunks]
    samples = {place: map_events(spec, chunk) for place, chunk in enumerate(chunks) if chunk.type == "events"}
    rows_of |= {place: len(found) for place, found in samples.items()}
    agreed_rows([(files[place], rows) for place, rows in rows_of.items()])
    total = sum(rows * len(chunks[place].features) for place, rows in rows_of.items() if place in mapped)
    known = len(mapped) + len(samples) == len(chunks)
    with Progress(f"checking {mapping}", total=total if known else None, unit="values") as bar:
        for block in mapped.values():
            check_block(spec, block, bar)
        for place, chunk in enumerate(chunks):
            if place not in mapped and place not in samples:
                rows_of[place] = 0
                for block in stream_chunk(spec, chunk, list(chunk.features), wide_ids=True):
                    check_block(spec, block, bar)
                    rows_of[place] += len(block)
    agreed_rows([(files[place], rows_of[place]) for place in range(len(chunks))])
    if samples:
        from clickwise.data.events_check import check_events

        label = read_columns(spec, mapping, ("label",)).arrays
        for place, found in samples.items():
            check_events(spec, chunks[place], found, next(iter(label.values()), None))


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


def check_ids(array: Array, feature: Feature, where: Path | str, first: int = 0) -> None:
    """Raises SpecError for the first id outside 0 … cardinality−1 or list longer than max_hotness.

    `first` is the number of the array's first row, for the message. What `unknown_ids` says was applied where the ids
    came in (csv, parquet, transcode); mapped files are not rewritten.
    """
    values = array.values if isinstance(array, RaggedArray) else array.reshape(-1)
    row_length = 1
    if isinstance(array, RaggedArray):
        check_offsets(array.offsets, where, first=first)
        _check_hotness(array.offsets, feature, where, first)
    elif len(array):
        row_length = max(1, array.size // len(array))
    for start, part in _parts(values):
        if part.min() >= 0 and part.max() < feature.cardinality:
            continue
        place = start + int(np.flatnonzero((part < 0) | (part >= feature.cardinality))[0])
        row = place // row_length
        if isinstance(array, RaggedArray):
            row = int(np.searchsorted(array.offsets, place, side="right")) - 1
        if feature.unknown_ids in (None, "error"):
            do = "raise cardinality, or set unknown_ids: zero or modulo for the feature" if values[place] >= 0 else \
                f"{values[place]} is no id here: 0 is missing, rare, unseen and padding"
        else:
            do = f"clickwise transcode applies unknown_ids: {feature.unknown_ids}; columns on disk are not rewritten"
        raise SpecError(f"{where}, row {first + row}", found=f"id {values[place]} of the feature {feature.name!r}",
                        expected=f"0 … {feature.cardinality - 1} (cardinality {feature.cardinality})", do=do)


def check_offsets(offsets: np.ndarray, where: Path | str, what: str = "row", first: int = 0) -> None:
    """Raises SpecError for the first offset that is less than the one before."""
    for start in range(0, len(offsets) - 1, STEP):
        lengths = np.diff(offsets[start : start + STEP + 1])
        if lengths.min() < 0:
            row = start + int(np.flatnonzero(lengths < 0)[0])
            raise SpecError(f"{where}, {what} {first + row}", expected="offsets that never fall",
                            found=f"an offset {offsets[row + 1]} after {offsets[row]}",
                            do="the offsets file is damaged or has another type")


def _check_hotness(offsets: np.ndarray, feature: Feature, where: Path | str, first: int) -> None:
    limit = feature.max_hotness
    for start in range(0, len(offsets) - 1, STEP) if limit is not None else ():
        lengths = np.diff(offsets[start : start + STEP + 1])
        if lengths.max() > limit:
            row = start + int(np.flatnonzero(lengths > limit)[0])
            raise SpecError(f"{where}, row {first + row}",
                            found=f"a list of {offsets[row + 1] - offsets[row]} of the feature {feature.name!r}",
                            expected=f"at most {limit} (max_hotness)")


def check_finite(numerical: np.ndarray, where: Path | str, names: tuple[str, ...], first: int = 0) -> None:
    """Raises SpecError for the first NaN or infinity in [rows, N]."""
    flat = numerical.reshape(-1)
    for start, part in _parts(flat):
        if part.dtype == np.float16:  # numpy's isfinite of float16 is many times slower than this look at the exponent
            good = int((part.view(np.uint16) & 0x7FFF).max()) < 0x7C00
        else:
            good = bool(np.isfinite(part).all())
        if not good:
            place = start + int(np.flatnonzero(~np.isfinite(part))[0])
            row, column = divmod(place, len(names))
            raise SpecError(f"{where}, row {first + row}", found=f"{flat[place]} in the feature {names[column]!r}",
                            expected="finite numbers", do="fill missing values, clip or scale large ones")


def check_labels(array: np.ndarray, where: Path | str, first: int = 0) -> None:
    """Raises SpecError for the first label that is neither 0 nor 1."""
    raw = array.view(np.uint8) if array.dtype == np.bool_ else array
    for start, part in _parts(raw):
        wrong = (part != 0) & (part != 1)
        if wrong.any():
            place = start + int(np.flatnonzero(wrong)[0])
            raise SpecError(f"{where}, row {first + place}", found=f"the label {raw[place]}", expected="0 or 1")


def _parts(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(values), STEP):
        yield start, values[start : start + STEP]
