"""`clickwise prepare RECIPE --with FOLDER`: further raw rows to columns, in an encoding that was fitted before."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import parquet

from clickwise.encoding import Encoded, Encoding, ValueCounts
from clickwise.encoding.document import FILE
from clickwise.encoding.encoder import described
from clickwise.errors import PrepareError
from clickwise.feature_spec import Chunk, FeatureSpec, is_time_gap, split_binary_chunks
from clickwise.files import write_array
from clickwise.latest_run import latest_run
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.further_rows import FurtherRows, Source
from clickwise.prepare.raw_files import named
from clickwise.prepare.written import EXAMPLE_ROWS, EXAMPLES
from clickwise.progress import Progress, say

HISTORY = "history"  # a channel, and the folder of its files in that of a mapping
OF_EVENTS, MOMENT = ("user", "position", "offsets"), "time"  # files of an `events` chunk


@dataclass(frozen=True)
class Given:
    """What an earlier preparation, or a run on it, hands on."""

    folder: Path
    encoding: Encoding
    spec: FeatureSpec

    @classmethod
    def load(cls, folder: Path) -> Given:
        """Of a prepared folder or a run; raises PrepareError, SpecError or DataError."""
        folder = latest_run(folder)
        inside = next((folder / name for name in ("preparation", "encoding") if (folder / name / FILE).exists()), None)
        if inside is None:
            raise PrepareError(f"--with {folder}", found=f"no {FILE}" if folder.exists() else "no such folder",
                               expected="a folder that clickwise prepare wrote, or a run on one",
                               do="prepare its raw data again with this version; docs/raw_rows.md says which data "
                                  "have no encoding")
        return cls(folder, Encoding.load(inside), FeatureSpec.load(folder))


def write_further(folder: PreparationFolder, given: Given, sources: Mapping[str, Source]) -> dict[str, Any]:
    """Writes every mapping of `sources`, its rows in the order of the files, the label only where they have it; what
    there is to tell."""
    spec = given.spec
    found = {mapping: folder.stage(f"{mapping} written", lambda mapping=mapping, source=source: _write_mapping(
        folder, given, mapping, source)) for mapping, source in sources.items()}
    mappings = {mapping: _chunks(spec, mapping, facts["features"]) for mapping, facts in found.items()}
    written = {name for facts in found.values() for name in facts["features"]}
    channels = {channel: kept for channel, names in spec.channels.items()
                if (kept := tuple(name for name in names if name in written))}
    FeatureSpec({name: feature for name, feature in spec.features.items() if name in written}, mappings, channels,
                folder=folder.dataset).save(folder.dataset)
    given.encoding.copy_to(folder.preparation)
    if (names := given.encoding.folder / "vocabularies").exists():
        shutil.copytree(names, folder.preparation / "vocabularies", dirs_exist_ok=True)
    for mapping, facts in found.items():
        for kind in ("missing", "unseen"):
            if facts[kind]:
                say(f"{mapping}, {kind} values: {described(facts[kind])}")
        if facts["unlabelled"]:
            say(f"{mapping}: {facts['unlabelled']:,} rows without a label are left out")
        if facts["repeats"]:
            say(f"{mapping}: {facts['repeats']:,} rows repeat another one ({', '.join(given.encoding.events.same)}): "
                "each event counts once, with a click if one of its rows has it")
    return {"rows": {mapping: facts["rows"] for mapping, facts in found.items()}, "with": str(given.folder),
            **{key: {mapping: facts[key] for mapping, facts in found.items()}
               for key in ("unlabelled", "repeats", "missing", "unseen")}}


def _chunks(spec: FeatureSpec, mapping: str, names: Collection[str]) -> tuple[Chunk, ...]:
    """The chunks of a mapping with these features; of its histories the events that each row sees."""
    channels = {channel: tuple(name for name in features if name in names)
                for channel, features in spec.channels.items()}
    history = channels.pop(HISTORY, ())
    chunks = split_binary_chunks(spec.features, channels, mapping)
    if not history:
        return chunks
    has_gaps = any(is_time_gap(spec.features[name]) for name in history)
    return (*chunks, Chunk("events", history, tuple(f"{mapping}/{HISTORY}/{name}.bin" for name in (
        *OF_EVENTS, *history, *([MOMENT] if has_gaps else [])))))


def _write_mapping(folder: PreparationFolder, given: Given, mapping: str, source: Source) -> dict[str, Any]:
    """Writes the columns of a mapping; `rows`, `features`, `unlabelled` rows, `repeats`, shares of `missing`, `unseen`
    values."""
    encoding, spec = given.encoding, given.spec
    (label,) = spec.channels.get("label") or (None,)
    rows = FurtherRows(encoding, [name for name in encoding.columns if name in spec.features and name != label], label,
                       mapping, source)
    chunks = _chunks(spec, mapping, rows.names)
    (folder.dataset / mapping / HISTORY if chunks[-1].type == "events" else folder.dataset / mapping).mkdir(
        parents=True, exist_ok=True)
    counts, ends = ValueCounts(), Counter()
    with Progress(f"writing {mapping}", total=rows.total, unit="rows") as bar, contextlib.ExitStack() as stack:
        out = {name: stack.enter_context(open(folder.dataset / name, "wb")) for chunk in chunks for name in chunk.files}
        for raw, encoded, read in rows.blocks():
            _append(out, chunks, encoded, ends, counts.rows, len(raw))
            if mapping == "test" and not counts.rows:
                parquet.write_table(raw.slice(0, EXAMPLE_ROWS), folder.preparation / EXAMPLES)
            counts.add(len(raw), encoded)
            bar.advance(read)
    if not counts.rows:
        raise PrepareError(named(source.files), found="no rows", expected="at least one")
    return {"rows": counts.rows, "unlabelled": rows.unlabelled, "repeats": rows.repeats, **counts.shares(),
            "features": rows.names}


def _append(out: Mapping[str, Any], chunks: Sequence[Chunk], encoded: Encoded, ends: Counter[str], first: int,
            rows: int) -> None:
    """Appends a block of `rows` rows, from the row `first` on; `ends` are the numbers of values in lists so far."""
    for chunk in chunks if rows else ():
        arrays, (name, *_) = [encoded.arrays[name] for name in chunk.features], chunk.features
        if not isinstance(arrays[0], tuple):
            write_array(out[chunk.files[0]], np.stack(arrays, axis=1) if len(arrays) > 1 else arrays[0])
            continue
        offsets, values = arrays[0][1], [values for values, _ in arrays]
        shifted = offsets[int(name in ends):] + ends[name]
        ends[name] += int(offsets[-1])
        if chunk.type == "events":  # every row is a user of its own, whose events all came before
            user = np.arange(first, first + rows, dtype=np.int32)
            columns = [user, np.diff(offsets).astype(np.int32), shifted, *values, np.zeros(rows, np.int64)]
        else:
            columns = [*values, shifted]
        for file, column in zip(chunk.files, columns, strict=False):
            write_array(out[file], column)
