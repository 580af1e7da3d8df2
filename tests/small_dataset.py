"""Small datasets for the tests of the data station."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clickwise.data.arrays import RaggedArray
from clickwise.data.columns import Columns
from clickwise.feature_spec import Feature, FeatureSpec, split_binary_chunks

FEATURES = {
    "label": Feature("label", "bool"),
    "n0": Feature("n0", "float16"),
    "n1": Feature("n1", "float16"),
    "small": Feature("small", "int8", 100),
    "large": Feature("large", "int32", 1_000_000),
    "tags": Feature("tags", "int16", 5000, max_hotness=4),
    "display": Feature("display", "int64"),
}
CHANNELS = {"label": ("label",), "numerical": ("n1", "n0"), "categorical": ("large", "tags", "small"),
            "display": ("display",)}


def small_spec(folder: Path = Path("."), mappings: tuple[str, ...] = ("train",)) -> FeatureSpec:
    chunks = {mapping: split_binary_chunks(FEATURES, CHANNELS, mapping) for mapping in mappings}
    return FeatureSpec(FEATURES, chunks, CHANNELS, {}, folder)


def small_columns(rows: int, seed: int = 0) -> Columns:
    """Columns of FEATURES; the display is the number of the row, and `large` follows from it."""
    random = np.random.default_rng(seed)
    row = np.arange(rows)
    lengths = random.integers(0, 5, rows)
    tags = RaggedArray(random.integers(0, 5000, lengths.sum()).astype("int16"),
                       np.concatenate([[0], np.cumsum(lengths)]).astype("int64"))
    arrays = {"label": random.random(rows) < 0.3, "small": random.integers(0, 100, rows).astype("int8"),
              "large": (row * 7919 % 1_000_000).astype("int32"), "tags": tags, "display": row.astype("int64")}
    return Columns(rows, arrays, random.random((rows, 2)).astype("float16"))


def write(spec: FeatureSpec, columns: Columns, mapping: str = "train") -> FeatureSpec:
    """Writes the columns and the spec to `spec.folder`."""
    (spec.folder / mapping).mkdir(parents=True, exist_ok=True)
    for chunk in spec.mappings[mapping]:
        files = [spec.folder / name for name in chunk.files]
        if chunk.features == spec.channels["numerical"]:
            columns.numerical.tofile(files[0])
            continue
        array = columns.arrays[chunk.features[0]]
        if isinstance(array, RaggedArray):
            array.values.tofile(files[0])
            array.offsets.tofile(files[1])
        else:
            array.tofile(files[0])
    spec.save(spec.folder)
    return FeatureSpec.load(spec.folder)
