"""Feature Spec: which features a dataset has, where their columns lie, and what they are for.

The format is NVIDIA's public "bring your own dataset" YAML: `feature_spec` (name -> dtype, cardinality, …),
`source_spec` (mapping -> chunks of type, features, files), `channel_spec` (channel -> ordered features), `metadata`.
Order comes from lists only, never from the order of keys. docs/feature_spec.md describes every key.
"""

from __future__ import annotations

import functools
import hashlib
import json
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clickwise.errors import SpecError, nearest
from clickwise.feature_spec.feature import (
    AUTO,
    CHANNELS,
    ID_CHANNELS,
    LEFT_OUT,
    MISSING_NUMBERS,
    RAW_CHUNKS,
    UNKNOWN_IDS,
    Chunk,
    Feature,
    narrowest_id_dtype,
)
from clickwise.feature_spec.histories import (
    LIST_OF,
    NEGATIVES,
    TIME_GAP,
    first_of_list,
    history_length,
    is_time_gap,
    stored_event_features,
)
from clickwise.feature_spec.ignored import without
from clickwise.feature_spec.layout import split_binary_chunks
from clickwise.feature_spec.read import ALIASES, read_parts
from clickwise.feature_spec.rules import check, check_encoded, check_inside
from clickwise.files import write_text
from clickwise.strict_yaml import dump_yaml

__all__ = ["ALIASES", "AUTO", "CHANNELS", "Chunk", "FILE_NAME", "Feature", "FeatureSpec", "ID_CHANNELS", "LEFT_OUT",
           "LIST_OF", "MISSING_NUMBERS", "NEGATIVES", "RAW_CHUNKS", "TIME_GAP", "UNKNOWN_IDS", "check_encoded",
           "check_inside", "first_of_list", "history_length", "is_time_gap", "narrowest_id_dtype",
           "split_binary_chunks", "stored_event_features", "without"]

FILE_NAME = "feature_spec.yaml"


@dataclass(frozen=True, repr=False)
class FeatureSpec:
    """A Feature Spec that holds together: whatever contradicts itself raises SpecError when it is made.

    Paths of chunks are relative to `folder`. Two specs are equal when their content is, wherever they lie.
    """

    features: dict[str, Feature]
    mappings: dict[str, tuple[Chunk, ...]]
    channels: dict[str, tuple[str, ...]]
    metadata: dict[str, Any] = field(default_factory=dict)
    folder: Path = field(default=Path("."), compare=False)
    name: str = field(default=FILE_NAME, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "folder", Path(self.folder))
        put(self, "channels", {channel: tuple(names) for channel, names in self.channels.items()})
        put(self, "mappings", {mapping: tuple(chunks) for mapping, chunks in self.mappings.items()})
        check(self)

    @functools.cached_property
    def path(self) -> Path:
        return self.folder / self.name

    @classmethod
    def load(cls, path: str | Path) -> FeatureSpec:
        """The spec in a YAML file, or in the `feature_spec.yaml` of a folder. Raises SpecError."""
        path = Path(path)
        if path.is_dir():
            path = path / FILE_NAME
            if not path.exists():
                raise SpecError(path.parent, found=f"a folder without {FILE_NAME}", expected="a Feature Spec",
                                do="give the YAML file, or the folder that holds it")
        return cls(*read_parts(path), path.parent, path.name)

    @classmethod
    def of(cls, numerical: Sequence[str] = (), cardinalities: Mapping[str, int] | None = None, *,
           label: str = "label") -> FeatureSpec:
        """A spec in memory, of rows that are nowhere yet: numericals, and features of ids 0 … cardinality−1."""
        ids = {name: Feature(name, narrowest_id_dtype(size), size) for name, size in (cardinalities or {}).items()}
        features = {**{name: Feature(name, "float32") for name in numerical}, **ids, label: Feature(label, "bool")}
        return cls(features, {}, {"numerical": tuple(numerical), "categorical": tuple(ids), "label": (label,)})

    def __repr__(self) -> str:
        channels = ", ".join(f"{channel} {len(names)}" for channel, names in self.channels.items())
        return f"<FeatureSpec {self.path}: {channels}; mappings {', '.join(self.mappings) or 'none'}>"

    def save(self, folder: str | Path) -> Path:
        """Writes `feature_spec.yaml` into `folder` and returns its path; loading it gives an equal spec."""
        path = Path(folder) / FILE_NAME
        check(self)
        write_text(path, dump_yaml(self.to_dict()))
        return path

    def to_dict(self) -> dict[str, Any]:
        """The four sections as plain dicts, lists and numbers, the way they stand in the YAML file."""
        return _plain({
            "feature_spec": {name: _feature_dict(feature) for name, feature in self.features.items()},
            "source_spec": {mapping: [{"type": chunk.type, "features": chunk.features, "files": chunk.files,
                                       **chunk.options} for chunk in chunks]
                            for mapping, chunks in self.mappings.items()},
            "channel_spec": self.channels,
            "metadata": self.metadata,
        })

    def fingerprint(self) -> str:
        """sha256 (hex) of the content; the order of keys and the folder do not enter."""
        content = self.to_dict()
        try:
            text = json.dumps(content, sort_keys=True, default=_text)
        except TypeError:  # keys of several types in what is the user's own
            text = json.dumps(_with_text_keys(content), sort_keys=True, default=_text)
        return hashlib.sha256(text.encode()).hexdigest()

    def channel(self, name: str) -> tuple[Feature, ...]:
        """The features of a channel in their order; () where the spec has no such channel."""
        return tuple(self.features[feature] for feature in self.channels.get(name, ()))

    def chunks(self, mapping: str) -> tuple[Chunk, ...]:
        """The chunks of a mapping; raises SpecError for an unknown mapping."""
        if mapping not in self.mappings:
            raise SpecError(f"{self.path}: source_spec.{mapping}", found="no such mapping",
                            expected="a mapping of this dataset", do=nearest(mapping, self.mappings))
        return self.mappings[mapping]


def _feature_dict(feature: Feature) -> dict[str, Any]:
    known = {"dtype": feature.dtype, "cardinality": feature.cardinality, "max_hotness": feature.max_hotness,
             "dimensions": feature.dimensions, "unknown_ids": feature.unknown_ids,
             "list_delimiter": feature.list_delimiter, "format": feature.time_format}
    return {**{key: value for key, value in known.items() if value is not None}, **feature.extra}


def _text(value: Any) -> Any:
    """What JSON has no word for: days, sets."""
    return sorted(map(str, value)) if isinstance(value, set) else str(value)


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """`value` in the types that safe YAML knows: numpy's scalars as Python's, tuples as lists."""
    if type(value) in (str, int, float, bool):  # most are, and asking for more takes long
        return value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Path):
        return str(value)
    return str(value) if isinstance(value, np.str_) else value
