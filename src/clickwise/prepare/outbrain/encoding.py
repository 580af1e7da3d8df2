"""The set `clickwise` as data: what raw rows of displays go through, and what they are looked up in.

A row says which ad was shown in which display; ad → document → source, publisher, time of publication are looked up.
Rates and views are those of all training rows, as the test rows have them: training rows have those of other folds.
"""

from __future__ import annotations

from collections.abc import Mapping

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from clickwise.encoding import Column, Encoding, RawColumn
from clickwise.encoding.document import STATES
from clickwise.encoding.further_operations import (
    AsFloat32,
    FirstCharacters,
    IsKnown,
    LogitRateOrPrior,
    MissingIf,
    Plus,
    RareVocabulary,
    Remainder,
    SparseProduct,
)
from clickwise.encoding.operations import LogPlusOne, Operation, OrZero, Standardize, WholePart
from clickwise.encoding.raw_types import Boolean, Float, Integer, Text
from clickwise.encoding.states import Counts, GroupSize, ListLookup, Lookup, State
from clickwise.encoding.states.keyed_table import write_keyed_table
from clickwise.feature_spec import Feature
from clickwise.files import read_json, whole_file
from clickwise.prepare.engine import Engine
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.outbrain.documents import KINDS
from clickwise.prepare.outbrain.rates import KEYS
from clickwise.prepare.outbrain.raw import MISSING
from clickwise.prepare.outbrain.rows import DAY_MS, DAYS
from clickwise.prepare.written import EXAMPLE_ROWS, EXAMPLES

DISPLAY, LABEL, ADS = "display_id", "clicked", "ads"
RAW = {**{name: RawColumn(Integer()) for name in (DISPLAY, "document_id", "platform", "timestamp", "ad_id")},
       "geo_location": RawColumn(Text()), LABEL: RawColumn(Boolean())}
HOUR_MS = 3_600_000
PLACE = (MissingIf(MISSING[1]),)
FROM_RAW: Mapping[str, tuple[str, tuple[Operation, ...]]] = {
    "hour": ("timestamp", (WholePart(HOUR_MS), Remainder(24))),
    "weekday": ("timestamp", (WholePart(DAY_MS), Plus(1), Remainder(7))),  # day 0 is a Tuesday
    "geo_location": ("geo_location", PLACE), "geo_location_country": ("geo_location", (*PLACE, FirstCharacters(2))),
    "geo_location_state": ("geo_location", (*PLACE, FirstCharacters(5)))}


def store_encoding(folder: PreparationFolder, features: Mapping[str, Feature],
                   scales: Mapping[str, Mapping[str, float]]) -> Encoding:
    """The encoding of the columns `features`; its states, but for vocabularies, are now written."""
    rate = read_json(folder.preparation / "rates" / "mean.json")
    columns = {name: _column(name, feature, scales, rate) for name, feature in features.items()}
    return Encoding(RAW, columns, tables=_states(folder))


def _column(name: str, feature: Feature, scales: Mapping[str, Mapping[str, float]],
            rate: Mapping[str, float]) -> Column:
    if name in (DISPLAY, LABEL):
        return Column(name, (), feature.dtype)
    if feature.max_hotness is not None:
        return Column(name, (OrZero(),), feature.dtype, feature.max_hotness)
    if name not in scales:
        of, steps = FROM_RAW.get(name, (name, ()))
        return Column(of, (*steps, RareVocabulary(name)), feature.dtype)
    of, steps = _number(name, rate)
    return Column(of, (*steps, Standardize(scales[name]["shift"], scales[name]["width"])), feature.dtype)


def _number(name: str, rate: Mapping[str, float]) -> tuple[str | tuple[str, ...], tuple[Operation, ...]]:
    """What a number is made of, before it is scaled."""
    suffix = "_promo" if name.endswith("_promo") else ""
    days = ("timestamp", f"published{suffix}")
    if name.startswith("days_since"):
        return days, (DAYS, LogPlusOne())
    if name.startswith("days_known"):
        return days, (DAYS, IsKnown())
    if name == "ads_in_display":
        return ADS, (AsFloat32(), LogPlusOne())
    if name.endswith("_views"):
        return name, (OrZero(), AsFloat32(), LogPlusOne())
    if name.endswith("_click_rate"):
        key = name.removesuffix("_click_rate")
        return (f"{key}_views", f"{key}_clicks"), (LogitRateOrPrior(rate["mean_click_rate"], rate["weight"]),
                                                   AsFloat32())
    kind = name.removeprefix("similarity_")
    return (*_vector(kind), *_vector(kind, "_promo")), (SparseProduct(), AsFloat32())


def _vector(kind: str, suffix: str = "") -> tuple[str, str]:
    return f"{kind}_places{suffix}", f"{kind}_weights{suffix}"


def _states(folder: PreparationFolder) -> dict[str, State]:
    """display_id → how many ads, in the request; ad_id → what it promotes; what is known of documents; counts."""
    engine = folder.engine
    ads = engine.in_memory("promoted_content").select(["ad_id", "campaign_id", "advertiser_id", "document_id"])
    states: dict[str, State] = {"display": GroupSize((DISPLAY,), {ADS: RawColumn(Integer())}), "ads": _write(
        folder, "ads", ads.rename_columns([*ads.column_names[:-1], "document_id_promo"]), "ad_id")}
    vectors, documents, landing = _store_vectors(folder), engine.in_memory("documents"), pc.unique(ads["document_id"])
    for suffix in ("", "_promo"):
        id_, aspects, known = f"document_id{suffix}", _fetched(engine, _aspects(engine, vectors, suffix)), documents
        if suffix:
            aspects, known = (table.filter(pc.is_in(table[column], landing)) for table, column in (
                (aspects, id_), (documents, "document_id")))
        known = known.rename_columns([f"{column}{suffix}" for column in known.column_names])
        states[f"documents{suffix}"] = _write(folder, f"documents{suffix}", known, id_)
        states[f"aspects{suffix}"] = _write(folder, f"aspects{suffix}", aspects, id_, ListLookup)
    for key in KEYS:
        counts = parquet.read_table(folder.preparation / "rates" / f"{key}.parquet", columns=[key, "views", "clicks"])
        counts = counts.rename_columns([key, f"{key}_views", f"{key}_clicks"])
        states[f"counts_{key}"] = _write(folder, f"counts_{key}", counts, key, Counts)
    return states


def _store_vectors(folder: PreparationFolder) -> ir.Table:
    """Stores `vectors`: document_id and pairs of place and weight by kind, of the documents with an event or ad."""
    aspects = folder.engine.table("aspects")
    pairs = ibis.struct({"place": aspects.aspect, "weight": aspects.unit})
    return folder.engine.materialise(aspects.group_by("document_id").aggregate(**{
        kind: pairs.collect(where=(aspects.kind == index) & (aspects.unit != 0)) for index, kind in enumerate(KINDS)}),
        "vectors")


def _aspects(engine: Engine, vectors: ir.Table, suffix: str) -> ir.Table:
    """What an event's document is about, or an ad's: the vectors and lists of ids, the names followed by `suffix`."""
    table = vectors
    for kind in KINDS:
        ids = engine.table(f"list_{kind}{suffix}")
        table = table.left_join(ids.select(**{f"of_{kind}": "document_id", f"{kind}_ids": "ids"}),
                                [("document_id", f"of_{kind}")])
    found: dict[str, ir.Column] = {"document_id": table.document_id}
    for kind in KINDS:
        places, weights = _vector(kind)
        found |= {places: table[kind].map(lambda pair: pair["place"]), kind: table[f"{kind}_ids"].cast("array<int64>"),
                  weights: table[kind].map(lambda pair: pair["weight"])}
    return table.select(**{f"{name}{suffix}": column for name, column in found.items()})


def _fetched(engine: Engine, table: ir.Table) -> pa.Table:
    batches = list(engine.batches(table))
    return pa.Table.from_batches(batches, None if batches else table.schema().to_pyarrow())


def _write(folder: PreparationFolder, name: str, table: pa.Table, key: str, kind: type[State] = Lookup) -> State:
    """The state of a table, whose other columns it gives."""
    table = table.sort_by(key).combine_chunks()
    columns = {column: pa.concat_arrays(table[column].chunks) if table[column].num_chunks else
               pa.array([], table[column].type) for column in table.column_names}
    write_keyed_table(folder.preparation / STATES / name, {key: columns.pop(key)}, columns)
    gives = {column: RawColumn(Float() if pa.types.is_floating(getattr(array.type, "value_type", array.type))
                               else Integer(), "|" if column.removesuffix("_promo") in KINDS else None)
             for column, array in columns.items()}
    return kind((key,), gives)


def write_examples(folder: PreparationFolder, first: int) -> None:
    """Writes the first test rows as raw ones, of whole displays; `first` is the first of them in `examples`."""
    engine = folder.engine
    examples, displays = engine.numbered(engine.table("examples")), engine.numbered(engine.table("displays"))
    rows = examples.filter(examples["row"].between(first, first + EXAMPLE_ROWS - 1))
    rows = rows.inner_join(displays.select("platform", "geo_location", "ads", __display="row"),
                           [("display", "__display")])
    table = pa.Table.from_batches(engine.batches(rows.select("row", ADS, *RAW))).sort_by("row")
    last = table[DISPLAY][-1].as_py()
    of_last = sum(display == last for display in table[DISPLAY].to_pylist())
    if of_last < table[ADS][-1].as_py():
        table = table.slice(0, len(table) - of_last)
    with whole_file(folder.preparation / EXAMPLES) as temporary:
        parquet.write_table(table.drop_columns(["row", ADS]), temporary)
