"""Raw rows in Criteo's format, a straightforward preparation of them in plain Python, and readers of the output."""

from __future__ import annotations

import gzip
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np

from clickwise.feature_spec import FeatureSpec


def line(label=0, numbers=None, values=None) -> str:
    """One raw row; `numbers` and `values` map a position to its text, everything else is missing."""
    fields = [str(label)] + [""] * 39
    for index, text in (numbers or {}).items():
        fields[1 + index] = str(text)
    for index, text in (values or {}).items():
        fields[14 + index] = text
    return "\t".join(fields)


def random_lines(rows: int, seed: int, values: int = 30) -> list[str]:
    rng = random.Random(seed)
    result = []
    for _ in range(rows):
        numbers = ["" if rng.random() < 0.2 else str(rng.choice([-5, -3, -2, -1, 0, 1, 7, 1000, 2**20]))
                   for _ in range(13)]
        hexes = ["" if rng.random() < 0.1 else f"{int(values * rng.random() ** 3) * 0x9E3779B9 % 2**32:08x}"
                 for _ in range(26)]
        result.append("\t".join([str(rng.randint(0, 1)), *numbers, *hexes]))
    return result


def write_raw(path: Path, lines: list[str]) -> str:
    text = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


def reference(fit: list[str], lines: list[str], limit: int) -> dict[str, np.ndarray]:
    """What preparation must give for `lines`, unshuffled, with vocabularies fitted on `fit`."""
    fit, lines = [row.split("\t") for row in fit], [row.split("\t") for row in lines]
    columns = {"label": np.array([int(row[0]) for row in lines])}
    columns["numerical"] = np.array([
        [np.float32(math.log(int(x) + 3)) if x and int(x) > -3 else 0.0 for x in row[1:14]] for row in lines
    ], np.float16).reshape(-1, 13)
    for index in range(26):
        count = Counter(row[14 + index] for row in fit if row[14 + index])
        kept = sorted((-n, value) for value, n in count.items() if n >= limit)
        ids = {value: i for i, (_, value) in enumerate(kept, 1)}
        columns[f"cat_{index}"] = np.array([ids.get(row[14 + index], 0) for row in lines])
    return columns


def read(out: Path, mapping: str) -> dict[str, np.ndarray]:
    """The columns of a mapping by feature name, the numericals as one block, read as the spec describes them."""
    spec = FeatureSpec.load(out)
    columns = {}
    for chunk in spec.chunks(mapping):
        dtype = np.dtype(spec.features[chunk.features[0]].dtype)
        data = np.fromfile(out / chunk.files[0], dtype)
        if len(chunk.features) > 1:
            columns["numerical"] = data.reshape(-1, len(chunk.features))
        else:
            columns[chunk.features[0]] = data
    return columns


def equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return found.keys() == expected.keys() and all(np.array_equal(found[key], expected[key]) for key in expected)


def rows_of(columns: dict[str, np.ndarray]) -> np.ndarray:
    """[rows, columns] as float64, rows sorted: two shuffles of the same rows give the same."""
    table = np.column_stack([columns[name].astype(np.float64) for name in sorted(columns)])
    return table[np.lexsort(table.T)]
