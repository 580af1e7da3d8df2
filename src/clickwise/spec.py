"""Feature Spec: which features a dataset has, where their columns lie, and what they are for.

The format is NVIDIA's public "bring your own dataset" YAML: `feature_spec` (name -> dtype, cardinality, …),
`source_spec` (mapping -> chunks of type, features, files), `channel_spec` (channel -> ordered features), `metadata`.
Order comes from lists only, never from the order of keys. docs/feature_spec.md describes every key.
"""

from __future__ import annotations

import hashlib
import json
import numbers
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from clickwise.errors import SpecError, nearest
from clickwise.files import write_text

FILE_NAME = "feature_spec.yaml"
SECTIONS = ("feature_spec", "source_spec", "channel_spec", "metadata")
CHUNK_KEYS = ("type", "features", "files")
CSV_KEYS = ("delimiter", "list_delimiter", "header")
CHUNK_TYPES = ("split_binary", "parquet", "csv", "events", "tfrecord", "split_tfrecords")

ID_CHANNELS = ("categorical", "user", "target_item", "history", "negative_history")
CHANNELS = ("numerical", *ID_CHANNELS, "display", "label")
ALIASES = {  # NVIDIA's names, in the order in which they join a channel of ours
    "onehot_categorical": "categorical", "multihot_categorical": "categorical", "user_features": "user",
    "target_item_features": "target_item", "positive_history": "history", "map": "display",
}
AUTO = "auto"  # a cardinality that `transcode` will find


@dataclass(frozen=True)
class Feature:
    """One feature: `dtype` is numpy's name of the stored type, `dimensions` the shape of one row's value."""

    name: str
    dtype: str
    cardinality: int | str | None = None
    max_hotness: int | None = None
    dimensions: tuple[int, ...] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def is_multi_hot(self) -> bool:
        return self.max_hotness is not None and self.max_hotness > 1


@dataclass(frozen=True)
class Chunk:
    """Columns of a mapping that lie together. Several files are rows one after another, except that a multi-hot
    `split_binary` chunk has two: values and offsets. `options` are the delimiters of a csv chunk."""

    type: str
    features: tuple[str, ...]
    files: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
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

    @property
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
        content = read_yaml(path)
        for key in content:
            if key not in SECTIONS:
                raise SpecError(f"{path}: {key}", found=f"the unknown section {key!r}",
                                expected=", ".join(SECTIONS), do=nearest(key, SECTIONS))
        channels, mappings = _read_channels(path, content), _read_mappings(path, content)
        features = _read_features(path, content, channels, mappings)
        return cls(features, mappings, channels, dict(_section(path, content, "metadata")), path.parent, path.name)

    def save(self, folder: str | Path) -> Path:
        """Writes `feature_spec.yaml` into `folder` and returns its path; loading it gives an equal spec."""
        path = Path(folder) / FILE_NAME
        check(self)
        write_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=110))
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
        text = json.dumps(self.to_dict(), sort_keys=True, default=str)
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


def narrowest_id_dtype(cardinality: int) -> str:
    """The signed integer type in which a column of ids 0 … cardinality−1 is stored.

    NOTE[DIFF] the format ends at int32; int64 is given beyond it instead of an error.
    """
    for limit, dtype in ((127, "int8"), (32767, "int16"), (2147483647, "int32")):
        if cardinality < limit:
            return dtype
    return "int64"


def split_binary_chunks(features: Mapping[str, Feature], channels: Mapping[str, Iterable[str]],
                        mapping: str) -> tuple[Chunk, ...]:
    """The chunks of a mapping in the default layout: `<mapping>/numerical.bin`, `label.bin`, then a file per feature
    (`<feature>.bin`; multi-hot `<feature>.values.bin` and `<feature>.offsets.bin`) in the order of the channels."""
    chunks, taken = [], set()

    def file(name: str) -> str:
        stem = re.sub(r"[^\w.\-]", "_", name.removesuffix(".bin")).lstrip(".") or "feature"
        while stem.lower() in taken:  # two names that differ in a letter no file system keeps, or in case only
            stem += "_"
        taken.add(stem.lower())
        return f"{mapping}/{stem}"

    if numerical := tuple(channels.get("numerical", ())):
        chunks.append(Chunk("split_binary", numerical, (file("numerical") + ".bin",)))
    for name in channels.get("label", ()):
        chunks.append(Chunk("split_binary", (name,), (file("label") + ".bin",)))
    own = sorted(set(channels) - set(CHANNELS))
    rest = [channels.get(channel, ()) for channel in (*ID_CHANNELS, "display", *own)]
    for name in dict.fromkeys(name for names in rest for name in names):
        stem = file(name)
        endings = (".values.bin", ".offsets.bin") if features[name].is_multi_hot else (".bin",)
        chunks.append(Chunk("split_binary", (name,), tuple(stem + ending for ending in endings)))
    return tuple(chunks)


# ---- reading


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a repeated key is an error, not a silent loss of the first."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises SpecError where there is no file, no YAML, or no mapping."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except FileNotFoundError:
        raise SpecError(path, found="no such file", expected="a Feature Spec in YAML") from None
    except OSError as slip:
        raise SpecError(path, found=f"a file that cannot be read: {slip.strerror}", expected="a Feature Spec") from None
    except UnicodeDecodeError:
        raise SpecError(path, found="not a text file", expected="a Feature Spec in YAML") from None
    except yaml.YAMLError as slip:
        mark = getattr(slip, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = str(getattr(slip, "problem", None) or slip)
        numpy_tag = "python/object" in problem
        raise SpecError(f"{path}{line}", found=problem, expected="plain values" if numpy_tag else "valid YAML",
                        do="write the number itself in place of the Python object" if numpy_tag else "") from None
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
        dtype = entry.pop("dtype", None)
        if dtype is None:
            dtype = None if name in raw else _default_dtype(channel_of.get(name, ""), cardinality)
        if dtype is None:
            raise SpecError(where, found="no dtype" + (f" (only {', '.join(entry)})" if entry else ""),
                            expected="dtype, a numpy type such as int32, float16 or bool",
                            do="a split_binary file cannot be read without it" if name in raw else "")
        features[name] = Feature(name, dtype, cardinality, hotness, dimensions, entry)
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
        mappings[mapping] = tuple(_read_chunk(f"{where}[{place}]", entry) for place, entry in enumerate(entries))
    return mappings


def _read_chunk(where: str, entry: object) -> Chunk:
    if not isinstance(entry, dict):
        raise SpecError(where, found=repr(entry), expected="a mapping with " + ", ".join(CHUNK_KEYS))
    keys = CHUNK_KEYS + (CSV_KEYS if entry.get("type") == "csv" else ())
    for key in entry:
        if key not in keys:
            raise SpecError(f"{where}.{key}", found=f"the unknown key {key!r}", expected=", ".join(keys),
                            do=nearest(key, keys))
    if "type" not in entry:
        raise SpecError(f"{where}.type", found="nothing", expected=", ".join(CHUNK_TYPES))
    return Chunk(entry["type"], _names(f"{where}.features", entry.get("features")),
                 _names(f"{where}.files", entry.get("files")), {key: entry[key] for key in keys[3:] if key in entry})


def _feature_dict(feature: Feature) -> dict[str, Any]:
    known = {"dtype": feature.dtype, "cardinality": feature.cardinality, "max_hotness": feature.max_hotness,
             "dimensions": feature.dimensions}
    return {**{key: value for key, value in known.items() if value is not None}, **feature.extra}


def _plain(value: Any) -> Any:
    """`value` in the types that safe YAML knows: numpy's scalars as Python's, tuples as lists."""
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


# ---- rules


def check(spec: FeatureSpec) -> None:
    """Raises SpecError at the first rule that `spec` breaks."""
    channel_of = _check_channels(spec)
    for name in spec.features:
        if name not in channel_of:
            raise SpecError(f"{spec.path}: feature_spec.{name}", found="a feature that stands in no channel",
                            expected="every feature in a channel of channel_spec",
                            do="list it there (a channel may have any name of your own), or remove it")
    for name, feature in spec.features.items():
        _check_feature(f"{spec.path}: feature_spec.{name}", feature, channel_of[name])
    for mapping, chunks in spec.mappings.items():
        _check_mapping(spec, mapping, chunks, channel_of)


def _check_channels(spec: FeatureSpec) -> dict[str, str]:
    """The channel of every feature; one that is also the display counts for its other channel."""
    channel_of: dict[str, str] = {}
    for channel in sorted(spec.channels, key=lambda name: name == "display"):
        where = f"{spec.path}: channel_spec.{channel}"
        close = nearest(channel, (*CHANNELS, *ALIASES)) if channel not in CHANNELS else ""
        if close.startswith("did you mean"):
            raise SpecError(where, found=f"the unknown channel {channel!r}", expected=", ".join(CHANNELS),
                            do=f"{close} (a channel of your own needs a name less like ours)")
        names = spec.channels[channel]
        for name in names:
            if name not in spec.features:
                raise SpecError(where, found=f"the feature {name!r}, which feature_spec does not have",
                                expected="names of feature_spec", do=nearest(name, spec.features))
        for name in _repeated(names):
            raise SpecError(where, found=f"the feature {name!r} twice", expected="every feature once")
        for name in names:
            if name in channel_of and channel != "display":
                raise SpecError(where, found=f"the feature {name!r}, which stands in {channel_of[name]!r} too",
                                expected="one channel for every feature (display excepted)")
            channel_of.setdefault(name, channel)
        if channel in ("label", "display") and len(names) > 1:
            raise SpecError(where, found=f"{len(names)} features: {', '.join(names)}", expected="one feature")
    return channel_of


def _check_feature(where: str, feature: Feature, channel: str) -> None:
    dtype = _check_dtype(where, feature.dtype)
    kinds = {"numerical": ("fiu", "a float type"), "label": ("biuf", ""), "display": ("iu", "an integer type")}
    kinds |= {name: ("iu", "an integer type for ids, int32 for example") for name in ID_CHANNELS}
    allowed, expected = kinds.get(channel, ("biuf", ""))
    if dtype.kind not in allowed or (dtype.kind == "u" and dtype.itemsize > 1):
        raise SpecError(f"{where}.dtype", found=f"{feature.dtype} in the channel {channel!r}",
                        expected=expected or "a signed type", do="torch has no unsigned types beyond uint8")
    for key, value in (("max_hotness", feature.max_hotness), *(("dimensions", n) for n in feature.dimensions or ())):
        if value is not None and not _is_count(value):
            raise SpecError(f"{where}.{key}", found=repr(value), expected="an integer of at least 1")
    if feature.is_multi_hot and channel not in ID_CHANNELS:
        raise SpecError(f"{where}.max_hotness", found=f"{feature.max_hotness} in the channel {channel!r}",
                        expected="several values only for features of ids: " + ", ".join(ID_CHANNELS))
    if feature.is_multi_hot and feature.dimensions:
        raise SpecError(f"{where}.dimensions", found=f"{list(feature.dimensions)} beside max_hotness",
                        expected="dimensions for lists of fixed length, max_hotness for lists of any length")
    if channel in ID_CHANNELS or feature.cardinality is not None:
        _check_cardinality(where, feature, dtype)


def _check_dtype(where: str, name: object) -> np.dtype:
    try:
        dtype = np.dtype(name) if isinstance(name, str) else None
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    choices = ("bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64")
    if dtype is None or dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise SpecError(f"{where}.dtype", found=repr(name), expected="a numpy type of numbers",
                        do=nearest(name, choices))
    if dtype != dtype.newbyteorder("<"):
        raise SpecError(f"{where}.dtype", found=repr(name), expected="little-endian numbers", do=f"'{dtype.name}'")
    return dtype


def _check_cardinality(where: str, feature: Feature, dtype: np.dtype) -> None:
    cardinality, where = feature.cardinality, f"{where}.cardinality"
    if cardinality is None:
        close = nearest("cardinality", feature.extra)
        raise SpecError(where, found="nothing", expected="the number of ids: an integer (ids are 0 … cardinality−1)",
                        do=f"a key {close[12:]}" if close.startswith("did you") else "")
    if cardinality == AUTO and isinstance(cardinality, str):
        return
    if not _is_count(cardinality):
        raise SpecError(where, found=repr(cardinality), expected="an integer of at least 1, or auto in csv and parquet")
    if dtype.kind in "iu" and cardinality - 1 > np.iinfo(dtype).max:
        raise SpecError(where, found=f"{cardinality} ids in {feature.dtype}, which ends at {np.iinfo(dtype).max}",
                        expected=f"dtype {narrowest_id_dtype(cardinality)} or wider")


def _check_mapping(spec: FeatureSpec, mapping: str, chunks: tuple[Chunk, ...], channel_of: Mapping[str, str]) -> None:
    seen: dict[str, int] = {}
    for place, chunk in enumerate(chunks):
        where = f"{spec.path}: source_spec.{mapping}[{place}]"
        if chunk.type not in CHUNK_TYPES:
            raise SpecError(f"{where}.type", found=repr(chunk.type), expected=", ".join(CHUNK_TYPES),
                            do=nearest(chunk.type, CHUNK_TYPES))
        if not chunk.features or not chunk.files:
            raise SpecError(where, found=f"{len(chunk.features)} features and {len(chunk.files)} files",
                            expected="at least one of each")
        for name in chunk.features:
            if name not in spec.features:
                raise SpecError(f"{where}.features", found=f"the feature {name!r}, which feature_spec does not have",
                                expected="names of feature_spec", do=nearest(name, spec.features))
        for name in _repeated(chunk.features):
            raise SpecError(f"{where}.features", found=f"the feature {name!r} twice", expected="every feature once")
        for name in chunk.features:
            if name in seen:
                raise SpecError(f"{where}.features", found=f"the feature {name!r}, which chunk [{seen[name]}] has too",
                                expected="every feature once in a mapping")
            seen[name] = place
        if chunk.type == "split_binary":
            _check_split_binary(spec, where, chunk, channel_of)
        if chunk.type == "csv":
            _check_csv(where, chunk)
    for channel in ("numerical", *ID_CHANNELS, "label"):
        for name in spec.channels.get(channel, ()):
            if name not in seen:
                raise SpecError(f"{spec.path}: source_spec.{mapping}",
                                found=f"no chunk with the feature {name!r} of the channel {channel!r}",
                                expected="every mapping holds every feature (display excepted)")


def _check_split_binary(spec: FeatureSpec, where: str, chunk: Chunk, channel_of: Mapping[str, str]) -> None:
    """The rules that raw bytes need: one feature a file, but for the numericals, which lie together."""
    numerical = spec.channels.get("numerical", ())
    if any(channel_of[name] == "numerical" for name in chunk.features):
        if chunk.features != numerical:
            found = "another order" if sorted(chunk.features) == sorted(numerical) else "another set of features"
            raise SpecError(f"{where}.features", found=f"{found} than channel_spec.numerical: "
                            + ", ".join(chunk.features), expected="one chunk with " + ", ".join(numerical))
        types = sorted({spec.features[name].dtype for name in chunk.features})
        if len(types) > 1 or np.dtype(types[0]).kind != "f":
            raise SpecError(f"{where}.features", found="the types " + ", ".join(types),
                            expected="one float type (float16 or float32) for all numericals of a split_binary chunk")
        return
    if len(chunk.features) > 1:
        raise SpecError(f"{where}.features", found=f"{len(chunk.features)} features: {', '.join(chunk.features)}",
                        expected="one feature in a split_binary chunk (numericals excepted)")
    feature = spec.features[chunk.features[0]]
    if feature.cardinality == AUTO:
        raise SpecError(f"{spec.path}: feature_spec.{feature.name}.cardinality", found="auto in a split_binary chunk",
                        expected="an integer", do="auto is for csv and parquet that go through clickwise transcode")
    if feature.is_multi_hot and len(chunk.files) != 2:
        raise SpecError(f"{where}.files", found=f"{len(chunk.files)} files for the multi-hot feature {feature.name!r}",
                        expected="two: its values and its offsets")


def _check_csv(where: str, chunk: Chunk) -> None:
    for key in chunk.options:
        value = chunk.options[key]
        if key not in CSV_KEYS:
            raise SpecError(f"{where}.{key}", found=f"the unknown key {key!r}", expected=", ".join(CSV_KEYS),
                            do=nearest(key, CSV_KEYS))
        if key == "header" and not isinstance(value, bool):
            raise SpecError(f"{where}.header", found=repr(value), expected="true or false")
        if key != "header" and not (isinstance(value, str) and len(value) == 1):
            raise SpecError(f"{where}.{key}", found=repr(value), expected="one character")
    options = {"delimiter": ",", "list_delimiter": "|", **chunk.options}
    if options["delimiter"] == options["list_delimiter"]:
        raise SpecError(f"{where}.list_delimiter", found=repr(options["delimiter"]), expected="not the delimiter")


def _is_count(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_)) and value >= 1


def _repeated(names: Iterable[str]) -> Iterator[str]:
    seen = set()
    for name in names:
        if name in seen:
            yield name
        seen.add(name)
