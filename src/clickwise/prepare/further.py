"""`clickwise prepare RECIPE --with FOLDER`: further raw rows to columns, in an encoding that was fitted before."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from clickwise.encoding import Encoded, Encoder, Encoding, ValueCounts
from clickwise.encoding.document import FILE
from clickwise.encoding.encoder import described
from clickwise.encoding.raw_file import RawFile
from clickwise.errors import PrepareError
from clickwise.feature_spec import Chunk, FeatureSpec, split_binary_chunks
from clickwise.files import write_array
from clickwise.prepare.encode import EXAMPLE_ROWS, EXAMPLES
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.raw_files import named
from clickwise.progress import Progress, say

BLOCK_ROWS = 1 << 17


@dataclass(frozen=True)
class Source:
    """Raw rows of a mapping; `layout` is that of text without a header (`RawFile.open`), None: as the encoding says."""

    files: Sequence[Path]
    layout: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Given:
    """What an earlier preparation, or a run on it, hands on."""

    folder: Path
    encoding: Encoding
    spec: FeatureSpec

    @classmethod
    def load(cls, folder: Path) -> Given:
        """Of a prepared folder or a run; raises PrepareError, SpecError or DataError."""
        inside = next((folder / name for name in ("preparation", "encoding") if (folder / name / FILE).exists()), None)
        if inside is None:
            raise PrepareError(f"--with {folder}", found=f"no {FILE}" if folder.exists() else "no such folder",
                               expected="a folder that clickwise prepare wrote from table or criteo, or a run on one",
                               do="prepare its raw data again with this version")
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
    return {"rows": {mapping: facts["rows"] for mapping, facts in found.items()}, "with": str(given.folder),
            **{key: {mapping: facts[key] for mapping, facts in found.items()}
               for key in ("unlabelled", "missing", "unseen")}}


def _chunks(spec: FeatureSpec, mapping: str, names: Sequence[str]) -> tuple[Chunk, ...]:
    """The chunks of a mapping with these features."""
    channels = {channel: tuple(name for name in features if name in names)
                for channel, features in spec.channels.items()}
    return split_binary_chunks(spec.features, channels, mapping)


def _write_mapping(folder: PreparationFolder, given: Given, mapping: str, source: Source) -> dict[str, Any]:
    """Writes the columns of a mapping; `rows`, `features`, `unlabelled` rows, shares of `missing`, `unseen` values."""
    encoding, spec = given.encoding, given.spec
    (label,) = spec.channels.get("label") or (None,)
    names = [name for name in encoding.columns if name in spec.features and name != label]
    encoder = Encoder(encoding, names)
    files = [RawFile.open(path, encoder.needs, source.layout or encoding.layout) for path in source.files]
    if label is not None:
        of = encoding.columns[label].of
        having = [of in file.columns for file in files]
        if any(having) and not all(having):
            raise PrepareError(files[having.index(False)].path, found=f"no column {of!r}, which other files have",
                               expected="a label in all files of a mapping, or in none")
        if any(having):
            encoder = Encoder(encoding, [*names, label])
    chunks = _chunks(spec, mapping, encoder.names)
    (folder.dataset / mapping).mkdir(parents=True, exist_ok=True)
    counts, unlabelled = ValueCounts(), 0
    ends: Counter[str] = Counter()
    with Progress(f"writing {mapping}", total=_total(files), unit="rows") as bar, contextlib.ExitStack() as stack:
        out = {name: stack.enter_context(open(folder.dataset / name, "wb")) for chunk in chunks for name in chunk.files}
        for file in files:
            first = 0
            for table in file.blocks(list(encoder.needs), BLOCK_ROWS):
                raw = table
                if label in encoder.names:
                    raw = table.filter(pa.array(encoder.has_value(label, table, str(file.path), first)))
                    unlabelled += len(table) - len(raw)
                encoded = encoder.columns(raw, str(file.path), first)
                _append(out, chunks, encoded, ends)
                if mapping == "test" and not counts.rows:
                    parquet.write_table(raw.slice(0, EXAMPLE_ROWS), folder.preparation / EXAMPLES)
                counts.add(len(raw), encoded)
                first += len(table)
                bar.advance(len(table), file.path.name)
    if not counts.rows:
        raise PrepareError(named(source.files), found="no rows", expected="at least one")
    return {"rows": counts.rows, "unlabelled": unlabelled, **counts.shares(), "features": list(encoder.names)}


def _total(files: Sequence[RawFile]) -> int | None:
    rows = [file.rows() for file in files]
    return None if None in rows else sum(rows)


def _append(out: Mapping[str, Any], chunks: Sequence[Chunk], encoded: Encoded, ends: Counter[str]) -> None:
    """Appends a block to the files of a mapping; `ends` are the numbers of values in lists so far."""
    for chunk in chunks:
        arrays = [encoded.arrays[name] for name in chunk.features]
        if isinstance(arrays[0], tuple):
            (values, offsets), (values_file, offsets_file) = arrays[0], chunk.files
            write_array(out[values_file], values)
            write_array(out[offsets_file], offsets[int(chunk.features[0] in ends):] + ends[chunk.features[0]])
            ends[chunk.features[0]] += len(values)
        else:
            write_array(out[chunk.files[0]], np.stack(arrays, axis=1) if len(arrays) > 1 else arrays[0])
