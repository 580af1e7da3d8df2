"""How the columns of a table are read: what the spec and the settings say, and what the training rows hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ibis
import ibis.expr.types as ir

from clickwise.encoding import RawColumn
from clickwise.encoding.raw_types import RAW_TYPES, Boolean, Float, Integer, RawType, Text, Time
from clickwise.feature_spec import ID_CHANNELS, LEFT_OUT, Feature, FeatureSpec
from clickwise.prepare.engine import Engine

if TYPE_CHECKING:
    from clickwise.prepare.table.config import TableConfig

ENCODED = tuple(channel for channel in ID_CHANNELS if "history" not in channel)
SAMPLE = 1_000  # rows that tell which types a column cannot have; all rows decide
PLAIN_WHOLE = r"^[+-]?(0|[1-9][0-9]*)(\.0*)?$"  # "007" is a name


def encoded(spec: FeatureSpec) -> list[Feature]:
    """The features whose values become ids."""
    return [feature for channel in ENCODED for feature in spec.channel(channel)]


def list_delimiter(spec: FeatureSpec, name: str, mapping: str) -> str:
    """What lies between the values of a multi-hot text column; rows cut off `train` come from its chunks."""
    if spec.features[name].list_delimiter is not None:
        return spec.features[name].list_delimiter
    chunks = spec.mappings.get(mapping, spec.mappings["train"])
    return next((chunk.options.get("list_delimiter", "|") for chunk in chunks if name in chunk.features), "|")


def named_columns(spec: FeatureSpec, config: TableConfig) -> tuple[dict[str, bool], set[str]]:
    """The columns whose values have names, name → whether it is one of lists: those of ids, a label that `label_is`
    speaks of, and texts that are handed on as hashes; the latter once more by themselves. Times with a format are
    none of them."""
    (label,) = spec.channels["label"]
    names = {feature.name: feature.is_multi_hot for feature in encoded(spec)}
    names |= {label: False} if config.label_is is not None else {}
    hashed = {name for channel, found in spec.channels.items() if channel not in (LEFT_OUT, "label") for name in found
              if name not in names and spec.features[name].is_raw_text}
    names |= dict.fromkeys(sorted(hashed), False)
    return {name: is_list for name, is_list in names.items() if spec.features[name].time_format is None}, hashed


def fit_types(engine: Engine, spec: FeatureSpec, config: TableConfig) -> dict[str, str]:
    """Name → raw type of the columns whose values have names: those of ids, and a label that `label_is` speaks of.

    A column of texts is one of integers, times or true and false where all its values in `raw_train` are written so.
    Texts that are handed on as hashes are integers where they are stored as whole numbers.
    """
    names, hashed = named_columns(spec, config)
    table, types = engine.table("raw_train"), {}
    singles = [name for name, is_list in names.items() if not is_list]
    groups = [table.select(*singles)] if singles else []
    groups += [_values_of_list(table, spec, name) for name, is_list in names.items() if is_list]
    for values in groups:
        types |= _types_of_numbers(engine, values)
        texts = [name for name in values.columns if values[name].type().is_string() and name not in hashed]
        types |= _types_of_texts(engine, values.select(*texts), config) if texts else {}
    return {name: type_ for name in names if (type_ := types.get(name)) and (name not in hashed or
                                                                            type_ == Integer.name)}


def _values_of_list(table: ir.Table, spec: FeatureSpec, name: str) -> ir.Table:
    column = table[name]
    if not column.type().is_array():
        column = column.cast("string").split(list_delimiter(spec, name, "train"))
    return table.select(**{name: column.unnest()})


def _types_of_numbers(engine: Engine, values: ir.Table) -> dict[str, str]:
    """Name → raw type of the columns that are no texts: numbers that are not all whole are names, thus texts."""
    types, odd = {}, {}
    for name in values.columns:
        column = values[name]
        type_ = column.type()
        if type_.is_numeric() and not type_.is_boolean():
            is_odd = column % 1 != 0 if type_.is_floating() else Integer().bulk(column).isnull()
            odd[name] = values.count(where=Text().bulk(column).notnull() & is_odd)
        elif not type_.is_string():
            types[name] = (Boolean if type_.is_boolean() else
                           Time if type_.is_timestamp() or type_.is_date() else Text).name
    counts = _counted(engine, values, odd)
    return types | {name: Text.name if counts[name] else Integer.name for name in odd}


def _types_of_texts(engine: Engine, values: ir.Table, config: TableConfig) -> dict[str, str]:
    """A look at a few rows says which types a column cannot have; all rows say which of the others it has."""
    some = engine.rows(values.limit(SAMPLE))
    candidates = {name: fitting([row[name] for row in some], config.missing) for name in values.columns}
    counts = {}
    for name in (name for name, left in candidates.items() if left):
        column = values[name]
        text = Text().bulk(column)
        known = null_if_missing(text, config.missing)
        fits = {Integer.name: known.re_search(PLAIN_WHOLE) & Integer().bulk(column).notnull(),
                Boolean.name: Boolean().bulk(column).notnull(), Time.name: Time().bulk(column).notnull()}
        counts |= {(name, "texts"): text.count(), (name, "known"): known.count()}
        counts |= {(name, type_): values.count(where=fits[type_]) for type_ in candidates[name]}
    found = _counted(engine, values, counts)
    types = {}
    for name, left in candidates.items():
        left = [type_ for type_ in left if found[name, type_] >= max(
            1, found[name, "known" if type_ == Integer.name else "texts"])]
        types[name] = left[0] if left else Text.name
    return types


def fitting(texts: Sequence[str | None], missing: Sequence[str]) -> list[str]:
    """The types as which all the texts can be read: whole numbers but for texts of `missing`, truths, times."""
    texts = [text for text in map(Text().one, texts) if text is not None]
    known = [text for text in texts if text not in missing]
    fits = {Integer.name: all(re.search(PLAIN_WHOLE, text) and Integer().one(text) is not None for text in known)}
    fits |= {type_.name: all(type_().one(text) is not None for text in texts) for type_ in (Boolean, Time)}
    return [name for name, fit in fits.items() if fit]


def _counted(engine: Engine, table: ir.Table, counts: Mapping[Any, ir.IntegerScalar]) -> dict[Any, int]:
    """All the counts in one query."""
    found = engine.row(table.aggregate(**{str(index): count for index, count in enumerate(counts.values())})) \
        if counts else {}
    return dict(zip(counts, found.values(), strict=True))


def null_if_missing(column: ir.StringColumn, missing: Sequence[str]) -> ir.StringColumn:
    """`column`, missing where it is one of `missing`. An engine makes a slow join of `isin` with many texts."""
    if not missing:
        return column
    is_missing = column.re_search(f"^({'|'.join(map(re.escape, missing))})$")
    return ibis.cases((is_missing, ibis.null("string")), else_=column)


def raw_columns(spec: FeatureSpec, config: TableConfig, types: Mapping[str, str]) -> dict[str, RawColumn]:
    """Every column that is read, as its raw type; `types` are those of `fit_types`."""
    numbers, (label,) = Float(missing=tuple(config.missing)), spec.channels["label"]
    amounts = {*spec.channels.get("numerical", ()), *([label] if config.label_above is not None else [])}
    lists = {feature.name for feature in encoded(spec) if feature.is_multi_hot}

    def type_of(name: str) -> RawType:
        feature = spec.features[name]
        if feature.time_format is not None:
            return Time(feature.time_format)
        if name in types:
            return RAW_TYPES[types[name]]()
        if name in amounts:
            return numbers
        if name == label:
            return Boolean()
        return Text() if feature.is_raw_text else numbers if "float" in feature.dtype else Integer()

    return {name: RawColumn(type_of(name), list_delimiter(spec, name, "train") if name in lists else None)
            for channel, names in spec.channels.items() if channel != LEFT_OUT for name in names}
