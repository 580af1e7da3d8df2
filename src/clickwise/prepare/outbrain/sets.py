"""The feature sets of Outbrain: ours and the published ones, each as the features it has and the rules it follows.

The published ones are NVIDIA's Wide & Deep: `v1_spark` and `v1_nvtabular` (26 features, TensorFlow 2, March 2021),
`multihot` (29 features, TensorFlow 2, May 2022) and `profiles` (54 features, TensorFlow 1, June 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import ibis.expr.types as ir

from clickwise.prepare.outbrain.documents import KINDS, Documents, Idf, Publisher
from clickwise.prepare.outbrain.ids import AspectList, Category
from clickwise.prepare.outbrain.numbers import Number
from clickwise.prepare.outbrain.rates import KEYS, rate, rate_confidence, views
from clickwise.prepare.outbrain.rows import days_since

Strip = Literal["none", "parts", "all"]  # of spaces around places


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """Features by name, in the order of the channels, and the rules of the tables that they are made of.

    complete_events  an event without place or platform is as if nothing were known of it
    strip_places     parts: spaces around a place are cut off before its first 2 or 5 characters are taken, and one of
                     spaces alone is none; the whole place keeps its spaces, as published · all: it loses them too
    out_of_fold      see `rates.store_counts`
    profiles         page views are read, and users have profiles
    """

    categories: Mapping[str, Category]
    lists: Mapping[str, AspectList] = field(default_factory=dict)
    numbers: Mapping[str, Number]
    missing_publisher: Publisher = "as_is"
    keep_without_source: bool = True
    idf: Idf = "log"
    idf_documents: Documents = "all"
    complete_events: bool = False
    strip_places: Strip = "none"
    out_of_fold: bool = False
    profiles: bool = False

    def __post_init__(self) -> None:
        names = [*self.categories, *self.lists, *self.numbers]
        assert len(names) == len(set(names))

    @property
    def channels(self) -> dict[str, tuple[str, ...]]:
        return {"numerical": tuple(self.numbers), "categorical": (*self.categories, *self.lists)}


# ---- what several sets share


def _event_days(table: ir.Table) -> ir.IntegerColumn:
    return days_since(table.timestamp, table.published)


def _ad_days(table: ir.Table) -> ir.IntegerColumn:
    return days_since(table.timestamp, table.published_promo)


def _column(name: str) -> Callable[[ir.Table], ir.Column]:
    return lambda table: table[name]


_of_display, _of_ad, _of_example = (partial(Number, level=level) for level in ("display", "ad", "example"))


def _rate(key: str, at_least: int, **options: str) -> Number:
    return _of_ad(of=lambda table: rate(table, key, at_least), **options)


def _views(key: str, at_least: int = 0, **options: str) -> Number:
    return _of_ad(of=lambda table: views(table, key, at_least), **options)


def _confidence(key: str, at_least: int) -> Number:
    return _of_ad(of=lambda table: rate_confidence(table, key, at_least))


def _similarities(prefix: str, **options: str) -> dict[str, Number]:
    return {f"{prefix}_{kind}": _of_example(of=_column(f"sim_{kind}"), **options) for kind in KINDS}


# Column -> level and published hash buckets, in the published order; the same in all published sets.
PUBLISHED = {
    "document_id": ("display", 300_000), "platform": ("display", 4), "document_id_promo": ("ad", 100_000),
    "source_id": ("display", 4_000), "publisher_id": ("display", 1_000), "geo_location": ("display", 2_500),
    "geo_location_country": ("display", 300), "geo_location_state": ("display", 2_000), "ad_id": ("ad", 250_000),
    "advertiser_id": ("ad", 2_500), "source_id_promo": ("ad", 4_000), "publisher_id_promo": ("ad", 1_000),
    "campaign_id": ("ad", 5_000),
}
PLACES = ("geo_location", "geo_location_country", "geo_location_state")
ONE_OF = {"entity": "entities", "topic": "topics", "category": "categories"}
LIST_BUCKETS = {"topics": 350, "entities": 10_000, "categories": 100}
SPARK_NAMES = {
    "document_id": "doc_event_id", "platform": "event_platform", "document_id_promo": "doc_id",
    "source_id": "doc_event_source_id", "publisher_id": "doc_event_publisher_id", "geo_location": "event_geo_location",
    "geo_location_country": "event_country", "geo_location_state": "event_country_state", "ad_id": "ad_id",
    "advertiser_id": "ad_advertiser", "source_id_promo": "doc_ad_source_id",
    "publisher_id_promo": "doc_ad_publisher_id", "campaign_id": "campaign_id",
}
SPARK_RULES = {"missing_publisher": "per_source", "keep_without_source": False, "idf": "log_log",
               "idf_documents": "with_source", "complete_events": True, "strip_places": "parts"}


def spark_category(column: str, by: str) -> Category:
    """The categories that Spark made: numbers of events stand for places; a missing value is 0, a missing place or
    source of an ad −1."""
    level, buckets = PUBLISHED[column]
    return Category(level=level, column="platform_from_0" if column == "platform" else column, by=by, buckets=buckets,
                    counted=column in PLACES, missing=-1 if column in (*PLACES, "source_id_promo") else 0)


# ---- 26 features, Spark


def v1_spark() -> FeatureSet:
    """Rates of groups shown more than 5 (10) times, counts and days as log2(1 + x) to [0, 1], ids modulo the buckets.

    NOTE[DIFF] the split is by day for every display (the reference puts displays of incomplete events into train).
    """
    log2 = {"curve": "log2", "scale": "min_max"}
    return FeatureSet(
        categories={name: spark_category(column, "modulo") for column, name in SPARK_NAMES.items()},
        numbers={
            "pop_document_id": _rate("document_id_promo", 6),
            "pop_publisher_id": _rate("publisher_id_promo", 11),
            "pop_source_id": _rate("source_id_promo", 11),
            "doc_views_log_01scaled": _views("document_id_promo", 6, **log2),
            "doc_event_days_since_published_log_01scaled": _of_display(of=_event_days, **log2),
            "pop_ad_id": _rate("ad_id", 6),
            "pop_advertiser_id": _rate("advertiser_id", 11),
            "pop_campain_id": _rate("campaign_id", 11),
            "ad_views_log_01scaled": _views("ad_id", 6, **log2),
            "doc_ad_days_since_published_log_01scaled": _of_example(of=_ad_days, **log2),
            **_similarities("doc_event_doc_ad_sim"),
        }, **SPARK_RULES)


# ---- 26 and 29 features, NVTabular


def v1_nvtabular(keep_without_source: bool = False, lists: Mapping[str, AspectList] | None = None) -> FeatureSet:
    """Rates of groups shown at least 5 (10) times, counts as ln(1 + x) to mean 0 and deviation 1, days as ln(1 + x)
    with the training median where missing, ids by hash.

    NOTE[DIFF] the hash is `Hash60`, the same everywhere; the reference's depends on the library and on
    whether it runs on a GPU.
    """
    days, count = {"curve": "ln", "missing": "median"}, {"curve": "ln", "scale": "mean_std"}

    def category(column: str) -> Category:
        level, buckets = PUBLISHED[column]
        return Category(level=level, column="platform_or_desktop" if column == "platform" else column, by="hash",
                        buckets=buckets)

    return FeatureSet(
        categories={column: category(column) for column in PUBLISHED},
        lists=lists or {},
        numbers={
            "document_id_promo_ctr": _rate("document_id_promo", 5),
            "publisher_id_promo_ctr": _rate("publisher_id_promo", 10),
            "source_id_promo_ctr": _rate("source_id_promo", 10),
            "document_id_promo_count": _views("document_id_promo", **count),
            "publish_time_days_since_published": _of_display(of=_event_days, **days),
            "ad_id_ctr": _rate("ad_id", 5),
            "advertiser_id_ctr": _rate("advertiser_id", 10),
            "campaign_id_ctr": _rate("campaign_id", 10),
            "ad_id_count": _views("ad_id", **count),
            "publish_time_promo_days_since_published": _of_example(of=_ad_days, **days),
            **_similarities("document_id_document_id_promo_sim"),
        },
        missing_publisher="per_document", keep_without_source=keep_without_source, idf_documents="largest_id")


def multihot() -> FeatureSet:
    """The same with the first three topics, entities and categories of the event's document."""
    names = {"topics": "topic_id_list", "entities": "entity_id_list", "categories": "category_id_list"}
    return v1_nvtabular(keep_without_source=True, lists={
        name: AspectList(of="document_id", kind=kind, most=3, order="file", by="hash_of_id",
                         buckets=LIST_BUCKETS[kind]) for kind, name in names.items()})


# ---- 54 features, with user profiles


def profiles() -> FeatureSet:
    """What Spark made for TensorFlow 1: rates with a confidence, aspects of both documents, users by what they viewed.

    LOG stands for log2(1 + 1000 x) to [0, 1], INT for log2(1 + x) to [0, 1]. NOTE[DIFF] a place that is missing or of
    fewer than 10 events and a missing source of an ad have the bucket of "-1" in place of a row of zeros, lists are not
    filled up with zeros that are ids, and ids are hashed by `Hash60`; what was published but not used by the model is
    left out.
    """
    log, integer = ({"curve": curve, "scale": "min_max"} for curve in ("log2_of_thousands", "log2"))

    def lists(of: str, prefix: str) -> dict[str, AspectList]:
        return {f"{prefix}_{name}_id": AspectList(
            of=of, kind=kind, most=6 if name == "entity" else 3, buckets=LIST_BUCKETS[kind],
            by="hash_of_count" if name == "entity" else "hash") for name, kind in ONE_OF.items()}

    def small(level: str, column: str, buckets: int) -> Category:
        return Category(level=level, column=column, by="modulo", buckets=buckets, missing=0)

    hashed = {column: spark_category(column, "hash") for column in PUBLISHED}
    rates = {name: (key, least) for name, key, least in (
        ("document_id", "document_id_promo", 6), ("publisher_id", "publisher_id_promo", 11),
        ("source_id", "source_id_promo", 11), ("ad_id", "ad_id", 6), ("advertiser_id", "advertiser_id", 11))}
    request = ("document_id", "publisher_id", "source_id")
    return FeatureSet(
        categories={
            **{SPARK_NAMES[column]: hashed[column] for column in (
                "document_id", "document_id_promo", "source_id", "geo_location", "geo_location_state", "publisher_id",
                "geo_location_country")},
            "event_hour": small("display", "hour_bin", 6), "event_platform": small("display", "platform_from_0", 3),
            "traffic_source": small("display", "traffic_from_0", 3), "event_weekend": small("display", "weekend", 2),
            "user_has_already_viewed_doc": small("example", "viewed_before", 2),
            **{SPARK_NAMES[column]: hashed[column] for column in (
                "ad_id", "source_id_promo", "advertiser_id", "publisher_id_promo")},
        },
        lists={**lists("document_id", "doc_event"), **lists("document_id_promo", "doc_ad")},
        numbers={
            **{f"pop_{name}_conf": _confidence(*rates[name]) for name in request},
            **{f"pop_{name}_id_conf": _of_ad(of=_column(f"pop_{kind}_conf")) for name, kind in ONE_OF.items()},
            **{f"pop_{name}": _rate(*rates[name], **log) for name in request},
            **{f"pop_{name}_id": _of_ad(of=_column(f"pop_{kind}"), **log) for name, kind in ONE_OF.items()},
            "user_views": _of_display(of=_column("user_views"), **integer),
            "doc_views": _views("document_id_promo", 6, **integer),
            "doc_event_days_since_published": _of_display(of=_event_days, **integer),
            "doc_event_hour": _of_display(of=_column("hour_bin"), **integer),
            "pop_ad_id_conf": _confidence(*rates["ad_id"]),
            **{f"user_doc_ad_sim_{kind}_conf": _of_example(of=_column(f"user_sim_{kind}_conf"))
               for kind in ("categories", "topics")},
            "pop_advertiser_id_conf": _confidence(*rates["advertiser_id"]),
            "pop_campain_id_conf_multipl": _of_ad(of=lambda table: rate(table, "campaign_id", 11)
                                                  * rate_confidence(table, "campaign_id", 11), **log),
            **{f"pop_{name}": _rate(*rates[name], **log) for name in ("ad_id", "advertiser_id")},
            "pop_campain_id": _rate("campaign_id", 11, **log),
            **{f"user_doc_ad_sim_{kind}": _of_example(of=_column(f"user_sim_{kind}"), **log) for kind in KINDS},
            **_similarities("doc_event_doc_ad_sim", **log),
            "ad_views": _views("ad_id", 6, **integer),
            "doc_ad_days_since_published": _of_example(of=_ad_days, **integer),
        }, profiles=True, **SPARK_RULES)


# ---- ours


def clickwise() -> FeatureSet:
    """Ids of their own for frequent values, missing apart from rare; rates of other displays' labels only, drawn to
    the mean where few views speak, beside the views; the most certain aspects of both documents."""
    levels = {column: level for column, (level, _) in PUBLISHED.items()} | {"hour": "display", "weekday": "display"}
    shared = {"curve": "ln", "scale": "mean_std"}
    numbers = {f"{key}_click_rate": _of_ad(of=_column(f"{key}__rate"), scale="mean_std", missing="mean")
               for key in KEYS}
    numbers |= {f"{key}_views": _views(key, **shared) for key in KEYS}
    numbers |= {
        "days_since_published": _of_display(of=_event_days, missing="mean", **shared),
        "days_since_published_promo": _of_example(of=_ad_days, missing="mean", **shared),
        "days_known": _of_display(of=lambda table: _event_days(table).notnull().cast("int8"), scale="mean_std"),
        "days_known_promo": _of_example(of=lambda table: _ad_days(table).notnull().cast("int8"), scale="mean_std"),
        "ads_in_display": _of_display(of=_column("ads"), **shared), **_similarities("similarity", scale="mean_std")}
    lists = {f"{kind}{suffix}": AspectList(of=f"document_id{suffix}", kind=kind, most=3, by="vocabulary")
             for suffix in ("", "_promo") for kind in KINDS}
    return FeatureSet(
        categories={column: Category(level=level, column=column, by="vocabulary") for column, level in levels.items()},
        lists=lists, numbers=numbers, out_of_fold=True, strip_places="all")


SetName = Literal["clickwise", "v1_spark", "v1_nvtabular", "multihot", "profiles"]


def feature_set(name: SetName) -> FeatureSet:
    return {"clickwise": clickwise, "v1_spark": v1_spark, "v1_nvtabular": v1_nvtabular, "multihot": multihot,
            "profiles": profiles}[name]()
