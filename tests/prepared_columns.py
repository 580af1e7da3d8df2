"""The columns of a prepared dataset, read without the loaders of the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clickwise.feature_spec import FeatureSpec


def read(out: Path, mapping: str) -> dict:
    """The columns of a mapping by feature name; a multi-hot one as a list of lists."""
    spec, columns = FeatureSpec.load(out), {}
    for chunk in spec.chunks(mapping):
        feature = spec.features[chunk.features[0]]
        data = np.fromfile(out / chunk.files[0], feature.dtype)
        if feature.is_multi_hot:
            offsets = np.fromfile(out / chunk.files[1], np.int64)
            columns[feature.name] = [data[a:b].tolist() for a, b in zip(offsets, offsets[1:], strict=False)]
        elif len(chunk.features) > 1:
            columns |= dict(zip(chunk.features, data.reshape(-1, len(chunk.features)).T, strict=True))
        else:
            columns[feature.name] = data
    return columns
