"""From a YAML file to the parts of a Feature Spec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clickwise.errors import SpecError, nearest
from clickwise.feature_spec.feature import (
    CHUNK_KEYS,
    CHUNK_TYPES,
    CSV_KEYS,
    EVENTS_KEYS,
    ID_CHANNELS,
    RAW_TEXT,
    Chunk,
    Feature,
    narrowest_id_dtype,
)
from clickwise.given_files import no_file, read_given_text
from clickwise.strict_yaml import parse_yaml

SECTIONS = ("feature_spec", "source_spec", "channel_spec", "metadata")
ALIASES = {  # NVIDIA's names, in the order in which they join a channel of ours
    "onehot_categorical": "categorical", "multihot_categorical": "categorical", "user_features": "user",
    "target_item_features": "target_item", "positive_history": "history", "map": "display",
}


def read_parts(path: Path) -> tuple[dict[str, Feature], dict[str, tuple[Chunk, ...]], dict[str, tuple[str, ...]], dict]:
    """Features, mappings, channels and metadata in the file at `path`. Raises SpecError."""
    content = read_yaml(path)
    for key in content:
        if key not in SECTIONS:
            raise SpecError(f"{path}: {key}", found=f"the unknown section {key!r}",
                            expected=", ".join(SECTIONS), do=nearest(key, SECTIONS))
    channels, mappings = _read_channels(path, content), _read_mappings(path, content)
    features = _read_features(path, content, channels, mappings)
    return features, mappings, channels, dict(_section(path, content, "metadata"))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises SpecError where there is no file, no YAML, or no mapping."""
    if no_file(path) == "no such file":
        raise SpecError(path, found="no such file or folder", expected="a Feature Spec in YAML",
                        do="run `clickwise prepare …`, or give the folder it wrote")
    content = parse_yaml(read_given_text(path, "a Feature Spec in YAML", SpecError), str(path), SpecError)
    if not isinstance(content, dict):
        found = "an empty file" if content is None else f"a {type(content).__name__}"
        raise SpecError(path, found=found, expected="a mapping with " + ", ".join(SECTIONS))
    return content


def _section(path: Path, content: Mapping, key: str, required: bool = False) -> dict[str, Any]:
    value = content.get(key)
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        others = [name for name in content if name not in SECTIONS]
        raise SpecError(f"{path}: {key}", found="nothing" if value is None else repr(value), expected="a mapping",
                        do=nearest(key, others) if others else "")
    for name in value:
        if not isinstance(name, str):
            raise SpecError(f"{path}: {key}", found=f"the name {name!r}, which YAML reads as no text",
                            expected="a text", do=f"put it in quotes: '{name}'")
    return value


def _names(where: str, value: object, *, empty: bool = False) -> tuple[str, ...]:
    """A list of texts; a bare text, or a null where the list may be empty, is not mistaken for one."""
    if value is None and empty:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value) or not (value or empty):
        found = "nothing" if value is None else repr(value)
        raise SpecError(where, found=found, expected="a list of names" if empty else "a list of at least one name")
    return tuple(value)


def _read_channels(path: Path, content: Mapping) -> dict[str, tuple[str, ...]]:
    found = {channel: _names(f"{path}: channel_spec.{channel}", names, empty=True)
             for channel, names in _section(path, content, "channel_spec", required=True).items()}
    channels: dict[str, tuple[str, ...]] = {}
    aliases = [name for name in ALIASES if name in found]
    for name in [*(name for name in found if name not in ALIASES), *aliases]:
        ours = ALIASES.get(name, name)
        channels[ours] = channels.get(ours, ()) + found[name]
    return channels


def _read_features(path: Path, content: Mapping, channels: Mapping[str, tuple[str, ...]],
                   mappings: Mapping[str, tuple[Chunk, ...]]) -> dict[str, Feature]:
    features = {}
    channel_of = {name: channel for channel, names in channels.items() for name in names}
    raw = {name for chunks in mappings.values() for chunk in chunks if chunk.type == "split_binary"
           for name in chunk.features}
    for name, entry in _section(path, content, "feature_spec", required=True).items():
        where = f"{path}: feature_spec.{name}"
        if entry is not None and not isinstance(entry, dict):
            raise SpecError(where, found=repr(entry), expected="a mapping (dtype, cardinality, …)")
        entry = dict(entry or {})
        dimensions = entry.pop("dimensions", None)
        if dimensions is not None:
            if not isinstance(dimensions, list):
                raise SpecError(f"{where}.dimensions", found=repr(dimensions), expected="a list, [100] for example")
            dimensions = tuple(dimensions)
        cardinality, hotness = entry.pop("cardinality", None), entry.pop("max_hotness", None)
        dtype, unknown_ids = entry.pop("dtype", None), entry.pop("unknown_ids", None)
        list_delimiter = entry.pop("list_delimiter", None)
        time_format = entry.pop("format", None) if dtype == RAW_TEXT else None
        if dtype is None:
            dtype = None if name in raw else _default_dtype(channel_of.get(name, ""), cardinality)
        if dtype is None:
            raise SpecError(where, found="no dtype" + (f" (only {', '.join(map(str, entry))})" if entry else ""),
                            expected="dtype, a numpy type such as int32, float16 or bool",
                            do="a split_binary file cannot be read without it" if name in raw else "")
        features[name] = Feature(name, dtype, cardinality, hotness, dimensions, entry, unknown_ids, list_delimiter,
                                 time_format)
    return features


def _default_dtype(channel: str, cardinality: object) -> str | None:
    """The type of a feature that declares none, as features of csv and parquet need not."""
    if channel in ID_CHANNELS:
        return narrowest_id_dtype(cardinality) if isinstance(cardinality, int) else "int64"
    return {"numerical": "float32", "label": "bool", "display": "int64"}.get(channel)


def _read_mappings(path: Path, content: Mapping) -> dict[str, tuple[Chunk, ...]]:
    mappings = {}
    for mapping, entries in _section(path, content, "source_spec").items():
        where = f"{path}: source_spec.{mapping}"
        if not isinstance(entries, list) or not entries:
            raise SpecError(where, found="nothing" if not entries else repr(entries), expected="a list of chunks")
        mappings[mapping] = tuple(_read_chunk(f"{where}[{index}]", entry) for index, entry in enumerate(entries))
    return mappings


def _read_chunk(where: str, entry: object) -> Chunk:
    if not isinstance(entry, dict):
        raise SpecError(where, found=repr(entry), expected="a mapping with " + ", ".join(CHUNK_KEYS))
    keys = CHUNK_KEYS + {"csv": CSV_KEYS, "events": EVENTS_KEYS}.get(str(entry.get("type")), ())
    for key in entry:
        if key not in keys:
            raise SpecError(f"{where}.{key}", found=f"the unknown key {key!r}", expected=", ".join(keys),
                            do=nearest(key, keys))
    if "type" not in entry:
        raise SpecError(f"{where}.type", found="nothing", expected=", ".join(CHUNK_TYPES))
    return Chunk(entry["type"], _names(f"{where}.features", entry.get("features")),
                 _names(f"{where}.files", entry.get("files")), {key: entry[key] for key in keys[3:] if key in entry})
