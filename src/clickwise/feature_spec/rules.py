"""The rules that every Feature Spec keeps."""

from __future__ import annotations

import codecs
import numbers
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from clickwise.errors import SpecError, nearest
from clickwise.feature_spec.feature import (
    AUTO,
    CHANNELS,
    CHUNK_TYPES,
    CSV_KEYS,
    ID_CHANNELS,
    RAW_CHUNKS,
    UNKNOWN_IDS,
    Chunk,
    Feature,
    narrowest_id_dtype,
)
from clickwise.feature_spec.histories import check_events, check_histories
from clickwise.feature_spec.read import ALIASES
from clickwise.given_files import is_inside
from clickwise.time_format import CODES, wrong_format

if TYPE_CHECKING:
    from clickwise.feature_spec import FeatureSpec


def check(spec: FeatureSpec) -> None:
    """Raises SpecError at the first rule that `spec` breaks."""
    for section, names in (("feature_spec", spec.features), ("source_spec", spec.mappings)):
        for name in names:
            _check_name(f"{spec.path}: {section}", name, is_folder=section == "source_spec")
    channel_of = _check_channels(spec)
    for name in spec.features:
        if name not in channel_of:
            raise SpecError(f"{spec.path}: feature_spec.{name}", found="a feature that stands in no channel",
                            expected="every feature in a channel of channel_spec",
                            do="list it there (a channel may have any name of your own), or remove it")
    for name, feature in spec.features.items():
        _check_feature(f"{spec.path}: feature_spec.{name}", feature, channel_of[name])
    check_histories(spec)
    for mapping, chunks in spec.mappings.items():
        _check_mapping(spec, mapping, chunks, channel_of)


def _check_name(where: str, name: object, is_folder: bool) -> None:
    """A name must not break a line; a mapping is a folder too, and its name must not lead elsewhere."""
    if not isinstance(name, str) or not name.strip():
        raise SpecError(where, found=f"the name {name!r}", expected="a text of at least one letter")
    if any(unicodedata.category(letter) in _UNNAMEABLE for letter in name):
        raise SpecError(where, found=f"the name {name!r}", expected="a name without line ends and control characters",
                        do="rename it")
    if is_folder and (name in (".", "..") or "/" in name or "\\" in name):
        raise SpecError(where, found=f"the name {name!r}", do="rename it",
                        expected="a name without / and \\, and neither . nor ..: it names a folder")


_UNNAMEABLE = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of a surrogate pair, line and paragraph separators


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
    if feature.is_raw_text:
        _check_raw_text(where, feature, channel)
    dtype = np.dtype("int64") if feature.is_raw_text else _check_dtype(where, feature.dtype)
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
    if (channel in ID_CHANNELS and not feature.is_raw_text) or feature.cardinality is not None:
        _check_cardinality(where, feature, dtype)
    _check_unknown_ids(f"{where}.unknown_ids", feature)
    if feature.time_format is not None and (wrong := wrong_format(feature.time_format)):
        raise SpecError(f"{where}.format", found=wrong, expected="how dates are written: '%d/%m/%Y[ %H:%M[:%S]]', say, "
                        "of the codes " + " ".join(f"%{code}" for code in CODES))
    if feature.list_delimiter is not None:
        if not _is_text(feature.list_delimiter, 1, 4):
            raise SpecError(f"{where}.list_delimiter", found=repr(feature.list_delimiter), expected=_FEW)
        if not feature.is_multi_hot:
            raise SpecError(f"{where}.list_delimiter", found="it without max_hotness", expected="it for lists only",
                            do="name the length of the longest list as max_hotness")


def _check_raw_text(where: str, feature: Feature, channel: str) -> None:
    """Texts that are still to be encoded: of anything but numbers, and their ids are not counted yet."""
    if channel == "numerical":
        raise SpecError(f"{where}.dtype", found="str in the channel 'numerical'", expected="a type of numbers: float32")
    if feature.cardinality not in (None, AUTO):
        raise SpecError(f"{where}.cardinality", found=f"{feature.cardinality!r} for texts (dtype: str)", expected=AUTO,
                        do="clickwise prepare gives the values ids and counts them")


def check_encoded(spec: FeatureSpec) -> None:
    """Raises SpecError where a feature holds texts, or files hold JSON: only `clickwise prepare` reads those."""
    do = f"clickwise prepare table/prepare dataset.spec={spec.folder}"
    for name, feature in spec.features.items():
        if feature.is_raw_text:
            raise SpecError(f"{spec.path}: feature_spec.{name}", found="raw text (dtype: str)",
                            expected="numbers and ids", do=do)
    for mapping, chunks in spec.mappings.items():
        for index, chunk in enumerate(chunks):
            if chunk.type == "jsonl":
                raise SpecError(f"{spec.path}: source_spec.{mapping}[{index}].type", found="jsonl, raw rows",
                                expected="split_binary, parquet or csv", do=do)


def check_inside(spec: FeatureSpec) -> None:
    """Raises SpecError where a file of a mapping lies outside of the folder of the Feature Spec, or is a link to there:
    who trains on the data of somebody else reads nothing but that data."""
    for mapping, chunks in spec.mappings.items():
        for index, chunk in enumerate(chunks):
            for name in chunk.files:
                if not is_inside(spec.folder / name, spec.folder):
                    raise SpecError(f"{spec.path}: source_spec.{mapping}[{index}].files", found=repr(name),
                                    expected=f"files inside of {spec.folder}",
                                    do="--trust-paths, if the Feature Spec is yours, or you trust who wrote it")


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
        raise SpecError(where, found=repr(cardinality), expected="an integer of at least 1, or auto before transcode")
    if dtype.kind in "iu" and cardinality - 1 > np.iinfo(dtype).max:
        raise SpecError(where, found=f"{cardinality} ids in {feature.dtype}, which ends at {np.iinfo(dtype).max}",
                        expected=f"dtype {narrowest_id_dtype(cardinality)} or wider")


def _check_unknown_ids(where: str, feature: Feature) -> None:
    value, choices = feature.unknown_ids, ", ".join(UNKNOWN_IDS)
    for key in feature.extra:  # other keys are kept; a typing error in these would change what is read
        for ours, values in (("unknown_ids", f" ({choices})"), ("list_delimiter", "")):
            if nearest(key, [ours]).startswith("did you mean"):
                raise SpecError(f"{where.removesuffix('unknown_ids')}{key}", found=f"the unknown key {key!r}",
                                expected=f"{ours}{values}, or a name less like it")
    if value is None:
        return
    if not isinstance(value, str) or value not in UNKNOWN_IDS:
        raise SpecError(where, found=repr(value), expected=choices, do=nearest(value, UNKNOWN_IDS))
    if feature.cardinality is None:
        raise SpecError(where, found=f"{value!r} for a feature without ids", expected="the key only beside cardinality")
    if feature.cardinality == AUTO and value != "error":
        raise SpecError(where, found=f"{value!r} with cardinality {AUTO}, which counts every id as known",
                        expected="an integer for cardinality", do="write the number of ids, or remove unknown_ids")


def _check_mapping(spec: FeatureSpec, mapping: str, chunks: tuple[Chunk, ...], channel_of: Mapping[str, str]) -> None:
    seen: dict[str, int] = {}
    for index, chunk in enumerate(chunks):
        where = f"{spec.path}: source_spec.{mapping}[{index}]"
        if chunk.type not in CHUNK_TYPES:
            raise SpecError(f"{where}.type", found=repr(chunk.type), expected=", ".join(CHUNK_TYPES),
                            do=nearest(chunk.type, CHUNK_TYPES))
        if not chunk.features or not chunk.files:
            raise SpecError(where, found=f"{len(chunk.features)} features and {len(chunk.files)} files",
                            expected="at least one of each")
        for name in chunk.files:
            if "\0" in name:
                raise SpecError(f"{where}.files", found=repr(name), expected="names of files")
        for name in chunk.features:
            if name not in spec.features:
                raise SpecError(f"{where}.features", found=f"the feature {name!r}, which feature_spec does not have",
                                expected="names of feature_spec", do=nearest(name, spec.features))
        for name in chunk.features:
            if spec.features[name].is_raw_text and chunk.type not in RAW_CHUNKS:
                raise SpecError(f"{where}.features", found=f"texts ({name!r} has dtype: str) in a {chunk.type} chunk",
                                expected=f"texts only in {', '.join(RAW_CHUNKS)}",
                                do="split_binary holds the ids of the texts")
        for name in _repeated(chunk.features):
            raise SpecError(f"{where}.features", found=f"the feature {name!r} twice", expected="every feature once")
        for name in chunk.features:
            if name in seen:
                raise SpecError(f"{where}.features", found=f"the feature {name!r}, which chunk [{seen[name]}] has too",
                                expected="every feature once in a mapping")
            seen[name] = index
        if chunk.type == "split_binary":
            _check_split_binary(spec, where, chunk, channel_of)
        if chunk.type == "csv":
            _check_csv(spec, where, chunk)
        if chunk.type == "events":
            check_events(spec, where, chunk)
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
                        expected="an integer", do="auto is for other files, which go through clickwise transcode")
    if feature.is_multi_hot and len(chunk.files) != 2:
        raise SpecError(f"{where}.files", found=f"{len(chunk.files)} files for the multi-hot feature {feature.name!r}",
                        expected="two: its values and its offsets")


def _check_csv(spec: FeatureSpec, where: str, chunk: Chunk) -> None:
    for key in chunk.options:
        value = chunk.options[key]
        if key not in CSV_KEYS:
            raise SpecError(f"{where}.{key}", found=f"the unknown key {key!r}", expected=", ".join(CSV_KEYS),
                            do=nearest(key, CSV_KEYS))
        expected, holds = _CSV_RULES[key]
        if not holds(value):
            raise SpecError(f"{where}.{key}", found=repr(value), expected=expected)
    options = {"delimiter": ",", "list_delimiter": "|", **chunk.options}
    has_lists = "list_delimiter" in chunk.options or any(
        feature.is_multi_hot and feature.list_delimiter is None for feature in map(spec.features.get, chunk.features))
    if has_lists and options["delimiter"] == options["list_delimiter"]:
        raise SpecError(f"{where}.list_delimiter", found=repr(options["delimiter"]), expected="not the delimiter")


def _is_text(value: object, least: int, most: int) -> bool:
    return isinstance(value, str) and least <= len(value) <= most and not {"\n", "\r"} & set(value)


def _is_encoding(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(codecs.lookup(value))
    except LookupError:
        return False


_FEW = "a character, or a few"
_CSV_RULES: dict[str, tuple[str, Callable[[object], bool]]] = {
    "delimiter": (_FEW, lambda value: _is_text(value, 1, 4)),
    "list_delimiter": ("one character", lambda value: _is_text(value, 1, 1)),
    "quote": ("one character, or '' for none", lambda value: _is_text(value, 0, 1)),
    "escape": ("one character, or '' for none", lambda value: _is_text(value, 0, 1)),
    "encoding": ("an encoding, as utf-8 or cp1252", _is_encoding),
    "decimal": (". or ,", lambda value: value in (".", ",")),
    "header": ("true or false", lambda value: isinstance(value, bool)),
    "skip": ("a number of lines", lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0)}


def _is_count(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_)) and value >= 1


def _repeated(names: Iterable[str]) -> Iterator[str]:
    seen = set()
    for name in names:
        if name in seen:
            yield name
        seen.add(name)
