"""Categorical features of Outbrain: from values of displays, ads and documents to ids."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import ibis
import ibis.expr.types as ir

from clickwise.encoding.operations import Hash60
from clickwise.prepare import steps
from clickwise.prepare.engine import Engine
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.outbrain.documents import aspects_as_listed, lists, ranked_aspects
from clickwise.prepare.vocabularies import write_vocabulary

MISSING_ID, RARE_ID = 0, 1  # of a vocabulary; the most frequent value has id 2


@dataclass(frozen=True, kw_only=True)
class Category:
    """A one-hot feature.

    level    display or ad: whose column it is; example: of the joined table (by modulo only)
    by       modulo: the value modulo `buckets` · hash: `Hash60` of its text modulo `buckets` · vocabulary: values that
             occur at least `frequency_limit` times in the training rows have ids from 2 on, by count; others 1, missing
             0
    counted  instead of the value, the number of events that have it, −1 where that is below 10
    missing  the value that stands for a missing one; None: id 0
    """

    level: Literal["display", "ad", "example"]
    column: str
    by: Literal["modulo", "hash", "vocabulary"]
    buckets: int = 0
    counted: bool = False
    missing: int | None = None


@dataclass(frozen=True, kw_only=True)
class AspectList:
    """A multi-hot feature: up to `most` aspects of the document `of`.

    order    confidence: those of greatest confidence · file: the first in the raw file
    by       hash: `Hash60` of the raw id modulo `buckets` · hash_of_id: of the id in a vocabulary of the training rows,
             0 for aspects that it lacks · hash_of_count: of the number of raw rows with that id, those of less than 10
             left out · vocabulary: ids from 1 on, aspects of less than `frequency_limit` training rows left out. What
             is left out takes no place among the `most`
    """

    of: Literal["document_id", "document_id_promo"]
    kind: Literal["categories", "topics", "entities"]
    most: int
    by: Literal["hash", "hash_of_id", "hash_of_count", "vocabulary"]
    buckets: int = 0
    order: Literal["confidence", "file"] = "confidence"

    @property
    def level(self) -> Literal["display", "ad"]:
        return "display" if self.of == "document_id" else "ad"


def store_ids(folder: PreparationFolder, level: str, table: ir.Table, keep: list[str],
              categories: Mapping[str, Category], limit: Callable[[str], int]) -> dict[str, int]:
    """Stores `<level>_features`: the columns `keep` of `table` and an id for every category of that level; feature ->
    cardinality. `table`, stored, has a row per display or ad, with its number of `train_rows`."""
    engine, sizes, columns = folder.engine, {}, {}
    joined = table
    for name, category in categories.items():
        if category.level != level:
            continue
        ids = engine.materialise(_ids(engine, table, category, limit(name)), f"ids_{name}")
        if category.by == "vocabulary":
            write_vocabulary(folder, name, ids)
            sizes[name], other = engine.count(ids) + 2, RARE_ID
        else:
            sizes[name], other = category.buckets, _bucket_of(-1, category)
        missing = MISSING_ID if category.missing is None else _bucket_of(category.missing, category)
        ids = ids.select(**{f"value__{name}": "value", f"id__{name}": "id"})
        joined = joined.left_join(ids, table[category.column] == ids[f"value__{name}"])
        columns[name] = (category.column, other, missing)
    ids = {name: joined[column].isnull().ifelse(missing, ibis.coalesce(joined[f"id__{name}"], other)).cast("int32")
           for name, (column, other, missing) in columns.items()}
    engine.materialise(joined.select(*keep, **{f"{name}__id": column for name, column in ids.items()}),
                       f"{level}_features")
    return sizes


def id_of(table: ir.Table, name: str, category: Category) -> ir.IntegerColumn:
    """The id of a category in the table of its level."""
    if category.level != "example":
        return table[f"{name}__id"]
    return _modulo(ibis.coalesce(table[category.column], category.missing), category.buckets)


def _ids(engine: Engine, table: ir.Table, category: Category, limit: int) -> ir.Table:
    """value, id (and count) of the values of a category."""
    if category.by == "vocabulary":
        found = steps.vocabulary(table, category.column, limit, weight="train_rows")
        return found.mutate(id=(found["id"] + RARE_ID).cast("int32"))
    if category.counted:
        counts = engine.table("event_counts")
        counts = counts.filter((counts.column == category.column) & (counts.n >= 10))
        return counts.select("value", id=_bucket(engine, counts.n, category))
    values = table.select(value=table[category.column]).filter(lambda t: t.value.notnull()).distinct()
    return values.select("value", id=_bucket(engine, values["value"], category))


def _bucket(engine: Engine, value: ir.Value, category: Category | AspectList) -> ir.IntegerColumn:
    if category.by == "modulo":
        return _modulo(value, category.buckets)
    return (Hash60().bulk(value, engine.parse_hex) % category.buckets).cast("int32")


def _modulo(value: ir.IntegerValue, buckets: int) -> ir.IntegerValue:
    return ((value % buckets + buckets) % buckets).cast("int32")


def _bucket_of(value: int, category: Category) -> int:
    """The same of one number."""
    if category.by == "modulo":
        return value % category.buckets
    return int(hashlib.md5(str(value).encode()).hexdigest()[:15], 16) % category.buckets


def store_lists(folder: PreparationFolder, name: str, feature: AspectList, limit: int) -> int:
    """Stores `list_<name>`: document_id and the list `ids`; the cardinality."""
    engine = folder.engine
    ranked = ranked_aspects(engine, feature.kind) if feature.order == "confidence" \
        else aspects_as_listed(engine, feature.kind)
    ranked = engine.materialise(ranked, f"ranked_{name}")
    every = engine.table(f"aspect_{feature.kind}")
    size = feature.buckets
    if feature.by == "hash":
        ids = every.select(value="id", id=_bucket(engine, every["value"], feature))
    elif feature.by == "hash_of_count":
        frequent = every.filter(every["count"] >= 10)
        ids = frequent.select(value="id", id=_bucket(engine, frequent["count"], feature))
    else:
        known = engine.materialise(_trained(engine, ranked, feature, limit if feature.by == "vocabulary" else 0),
                                   f"vocabulary_{name}")
        if feature.by == "vocabulary":
            ids, size = known.select("value", "id"), engine.count(known) + 1
            named = known.inner_join(every.select(aspect="id", name="value"), [("value", "aspect")])
            write_vocabulary(folder, name, named.select("id", "count", value="name"))
        else:
            known_ids = every.left_join(known.select(aspect="value", known="id"), [("id", "aspect")])
            known_ids = known_ids.select(value="id", known=ibis.coalesce(known_ids.known, 0))
            ids = known_ids.select("value", id=_bucket(engine, known_ids.known, feature))
    engine.materialise(lists(ranked, engine.materialise(ids, f"ids_{name}"), feature.most), f"list_{name}")
    return size


def _trained(engine: Engine, ranked: ir.Table, feature: AspectList, limit: int) -> ir.Table:
    """The vocabulary of the aspects in the training rows."""
    table = engine.table("displays" if feature.of == "document_id" else "ad_counts")
    if feature.of == "document_id":
        table = table.filter(~table.test)
    weight = "ads" if feature.of == "document_id" else "views"
    documents = table.group_by(document=table[feature.of]).aggregate(weight=steps.sum_as_int64(table[weight].sum()))
    joined = ranked.inner_join(documents, [("document_id", "document")])
    return steps.vocabulary(joined.select("id", "weight"), "id", limit, weight="weight")
