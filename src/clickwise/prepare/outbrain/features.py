"""What is known of displays and ads -> tables with the ids and numbers of each, before curves and scales.

Most features belong to a display or an ad, of which there are far fewer than rows: they are worked out once for each,
and a row says which display and which ad it is of.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import ibis
import ibis.expr.types as ir

from clickwise.encoding.operations import LogitRate
from clickwise.encoding.raw_types import Text
from clickwise.files import write_json
from clickwise.prepare import steps
from clickwise.prepare.engine import Engine
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.outbrain import numbers
from clickwise.prepare.outbrain.clock import NEW_YORK, hour_bin, local_hours, utc_offset, weekend
from clickwise.prepare.outbrain.documents import KINDS, store_aspects, store_documents, store_similarities
from clickwise.prepare.outbrain.ids import id_of, store_ids, store_lists
from clickwise.prepare.outbrain.profiles import (
    OF_AD,
    OF_DISPLAY,
    store_profiles,
    store_views,
    traffic_sources,
    with_aspects,
    with_similarities,
    with_views,
)
from clickwise.prepare.outbrain.rates import KEYS, store_aspect_rates, store_counts
from clickwise.prepare.outbrain.sets import PLACES, FeatureSet, Strip
from clickwise.progress import Progress

if TYPE_CHECKING:
    from clickwise.prepare.outbrain.config import OutbrainConfig


class FittedFeatures(TypedDict):
    cardinalities: dict[str, int]
    scales: dict[str, dict[str, float]]


def store_features(folder: PreparationFolder, config: OutbrainConfig, features: FeatureSet,
                   page_views: Sequence[Path], *, train_rows: int) -> FittedFeatures:
    """Stores the tables of `_store_levels` and `list_<feature>`; cardinalities and scales by feature."""
    engine = folder.engine
    (folder.preparation / "vocabularies").mkdir(exist_ok=True)
    store_documents(engine, missing_publisher=features.missing_publisher,
                    keep_without_source=features.keep_without_source)
    if features.profiles:
        folder.stage("page views read", lambda: store_views(folder, page_views, max_bad_rows=config.max_bad_rows))
    store_aspects(folder, idf=features.idf, documents=features.idf_documents, viewed=features.profiles)
    store_similarities(engine)
    sizes = {name: category.buckets for name, category in features.categories.items()}
    sizes |= _store_ids(folder, config, features)
    with Progress("listing aspects", total=len(features.lists), unit="features") as bar:
        for name, feature in features.lists.items():
            sizes[name] = store_lists(folder, name, feature, config.limit(name))
            bar.advance(1, name)
    if features.profiles:
        store_aspect_rates(engine)
        store_profiles(engine, config.profile_users)
    levels = _store_levels(folder, config, features, train_rows)
    scales = numbers.fit(engine, levels, features.numbers)
    return {"cardinalities": {name: sizes[name] for name in (*features.categories, *features.lists)}, "scales": scales}


def _store_ids(folder: PreparationFolder, config: OutbrainConfig, features: FeatureSet) -> dict[str, int]:
    """Stores `display_features`, `ad_features`, `ad_counts` and `ad_rates`; cardinalities by feature."""
    engine = folder.engine
    with Progress("finding ids", total=2, unit="tables") as bar:
        if any(category.counted for category in features.categories.values()):
            counts = _count_events(engine, features)
            engine.write_parquet(counts.order_by("column", "value"), folder.preparation / "event_counts.parquet")
        displays = engine.numbered(engine.table("displays")).rename(display="row")
        displays = _with_document(engine, displays, "document_id", "")
        displays, keep = event_columns(displays, features.strip_places), []
        if features.profiles:
            displays, keep = visit_columns(engine, displays), ["hour_bin"]
        displays = engine.materialise(displays, "display_columns")
        keep = ["display", "display_id", "document_id", "timestamp", "published", "ads", "train_rows", *keep]
        sizes = store_ids(folder, "display", displays, keep, features.categories, config.limit)
        bar.advance(1, "displays")
        ads = _with_document(engine, engine.table("ads"), "document_id_promo", "_promo")
        examples = engine.table("examples")
        shown = examples.group_by(shown_ad="ad_id").aggregate(train_rows=examples.count(where=~examples.test))
        ads = ads.left_join(shown, [("ad_id", "shown_ad")]).drop("shown_ad")
        ads = engine.materialise(ads, "ad_columns")
        sizes |= store_ids(folder, "ad", ads, [*KEYS, "published_promo"], features.categories, config.limit)
        bar.advance(1, "ads")
    store_counts(folder, out_of_fold=features.out_of_fold and config.folds > 0)
    return sizes


def _count_events(engine: Engine, features: FeatureSet) -> ir.Table:
    """The table `event_counts`: column, value, n; how many events have each place."""
    events = engine.table("events")
    if features.complete_events:
        events = events.filter(events.platform.notnull() & events.geo_location.notnull())
    events = engine.materialise(events.group_by("geo_location").aggregate(n=events.count()), "events_of_places")
    places = place_columns(events, features.strip_places)
    counts = ibis.union(*(
        places.group_by(value=places[name]).aggregate(n=steps.sum_as_int64(places.n.sum())).mutate(column=ibis.literal(name))
        for name in PLACES))
    return engine.materialise(counts.filter(counts["value"].notnull()), "event_counts")


def _with_document(engine: Engine, table: ir.Table, key: str, suffix: str) -> ir.Table:
    """`table` with source_id, publisher_id and published of the document `key`, their names followed by `suffix`;
    missing where the document is unknown."""
    return steps.look_up(table, engine.table("documents"), {key: "document_id"}, {
        f"{name}{suffix}": name for name in ("source_id", "publisher_id", "published")})


def place_columns(table: ir.Table, strip: Strip) -> ir.Table:
    """`table` with geo_location_country (the first 2 characters of geo_location) and geo_location_state (5)."""
    whole = place = table.geo_location
    if strip != "none":
        place = Text().bulk(place)
        whole = place if strip == "all" else ibis.cases((place.notnull(), whole))
    return table.mutate(geo_location=whole, geo_location_country=place.substr(0, 2),
                        geo_location_state=place.substr(0, 5))


def event_columns(displays: ir.Table, strip: Strip) -> ir.Table:
    """`displays` with the columns that categories of an event are made of."""
    displays = place_columns(displays, strip)
    hours = displays.timestamp // 3_600_000  # in New York
    return displays.mutate(
        platform_from_0=displays.platform - 1, platform_or_desktop=ibis.coalesce(displays.platform, 1) - 1,
        hour=(hours % 24).cast("int64"), weekday=((hours // 24 + 1) % 7).cast("int64"),  # day 0 is a Tuesday
        train_rows=displays.test.ifelse(0, displays.ads))


def visit_columns(engine: Engine, displays: ir.Table) -> ir.Table:
    """`displays` with hour_bin and weekend by the user's clock, and traffic_from_0."""
    names = ("geo_location_country", "geo_location_state")
    places = displays.select(country=names[0], state=names[1]).distinct()
    offsets = engine.materialise(places.mutate(offset=utc_offset(places.country, places.state)), "utc_offsets")
    displays = displays.left_join(offsets, [(names[0], "country"), (names[1], "state")])
    displays = displays.left_join(traffic_sources(engine), [("display_id", "visitor")])
    local = local_hours(displays.timestamp, ibis.coalesce(displays.offset, NEW_YORK))
    return displays.mutate(hour_bin=hour_bin(local), weekend=weekend(local),
                           traffic_from_0=displays.traffic_source - 1).drop("country", "state", "offset", "visitor")


def _store_levels(folder: PreparationFolder, config: OutbrainConfig, features: FeatureSet,
                  train_rows: int) -> dict[str, ir.Table]:
    """Stores `level_display` (row: that in `displays`), `level_ad` (one for every ad and fold that examples have)
    and `level_example` (row, and the `display` and `ad` that it is of); level -> table.

    A level has the ids and numbers of its features, and `train_rows`: how many training rows each row stands for.
    """
    engine = folder.engine
    out_of_fold = features.out_of_fold and config.folds > 0
    displays, ads = engine.table("display_features"), engine.table("ad_rates")
    if features.out_of_fold:
        ads = _with_rates(folder, ads, config)
    ads = ads.inner_join(engine.table("ad_features"), "ad_id")
    of_display, of_ad = (), ()  # what examples need of their display and ad, beside what all of them do
    if features.profiles:
        displays, ads = with_views(engine, displays), with_aspects(engine, ads)
        of_display, of_ad = OF_DISPLAY, OF_AD
    with Progress("joining rows", total=engine.count(engine.table("examples"))) as bar:
        displays = engine.materialise(displays.select(
            "display_id", "train_rows", *of_display, row="display", __document_id="document_id",
            **_values(displays, features, "display")), "level_display")
        ads = engine.materialise(ads.select(
            "train_rows", *of_ad, "published_promo", __ad_id="ad_id", __fold="fold",
            __document_id_promo="document_id_promo", **_values(ads, features, "ad")), "level_ad")
        ads = engine.numbered(ads)
        keys = ["ad_id", "fold"] if out_of_fold else ["ad_id"]
        known = ads.select("published_promo", *of_ad, ad=ads.row.cast("int32"),
                           document_id_promo="__document_id_promo", **{key: f"__{key}" for key in keys})
        table = engine.numbered(engine.table("examples")).inner_join(known, keys)
        similar = engine.table("similarities").rename(__event="document_id", __promo="document_id_promo")
        table = table.left_join(similar, [("document_id", "__event"), ("document_id_promo", "__promo")])
        table = table.mutate(**{f"sim_{kind}": ibis.coalesce(table[f"sim_{kind}"], 0.0) for kind in KINDS})
        if features.profiles:
            table = table.inner_join(displays.select(*of_display, __display="row"), [("display", "__display")])
            table = with_similarities(engine, table)
        examples = engine.materialise(table.select(
            "row", "display", "ad", "clicked", train_rows=(table.row < train_rows).cast("int8"),
            **_values(table, features, "example")), "level_example")
        bar.advance(bar.total)
    return {"display": displays, "ad": ads, "example": examples}


def _values(table: ir.Table, features: FeatureSet, level: str) -> dict[str, ir.Column]:
    """The ids and numbers of the features of a level."""
    return {**{name: id_of(table, name, category) for name, category in features.categories.items()
               if category.level == level},
            **{name: number.of(table).cast("float32") for name, number in features.numbers.items()
               if number.level == level}}


def _with_rates(folder: PreparationFolder, rates: ir.Table, config: OutbrainConfig) -> ir.Table:
    """`ad_rates` with `<key>__rate`: the log odds of the click rate, drawn towards the mean of the training rows."""
    counts = folder.engine.table("ad_counts")
    found = folder.engine.row(counts.aggregate(views=counts.views.sum(), clicks=counts.clicks.sum()))
    mean = min(max(found["clicks"] / found["views"], 1e-6), 1 - 1e-6)
    write_json(folder.preparation / "rates" / "mean.json", {"mean_click_rate": mean, "weight": config.rate_weight})
    rate = LogitRate(mean, config.rate_weight)
    return rates.mutate(**{f"{key}__rate": rate.bulk(rates[f"{key}__views"], rates[f"{key}__clicks"]) for key in KEYS})

