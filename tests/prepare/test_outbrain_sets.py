"""Every feature of every published set beside plain Python, on small random logs."""

from __future__ import annotations

import datetime
import math
import statistics

import numpy as np
import pytest
from outbrain_rows import DAY_MS, IDS, Reference, hash60, ids, min_max, random_tables, write_tables, z_score
from prepared_columns import read

from clickwise.encoding import Encoding
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare import run

TABLES = random_tables(70, seed=5)
SIZES = {"v1_spark": 26, "v1_nvtabular": 26, "multihot": 29, "profiles": 54}


def prepared(folder, name, **options):
    """The spec, and by mapping the columns of a set: numbers, ids, lists of ids as lists."""
    write_tables(folder / "raw", TABLES)
    section = {"name": "outbrain", "folder": str(folder / "raw"), "feature_set": name, "shuffle": False, **options}
    out = run({"dataset": section, "engine": {"threads": 1}, "out": str(folder / name)}, "test.yaml")
    spec = FeatureSpec.load(out)
    return spec, {mapping: read(out, mapping) for mapping in spec.mappings}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outbrain")
    return {name: (*prepared(folder / name, name), Reference(TABLES, name)) for name in SIZES}


def same(sets, name, expected, exact=False):
    """`expected`: feature -> values of all rows."""
    _, found, reference = sets[name]
    for feature, values in expected.items():
        for mapping, column in reference.mappings(values).items():
            if exact:
                assert list(found[mapping][feature]) == column, feature
            else:
                np.testing.assert_allclose(found[mapping][feature], column, rtol=2e-5, atol=2e-6, err_msg=feature)


@pytest.mark.parametrize("name", SIZES)
def test_published_number_of_features(sets, name):
    spec, found, reference = sets[name]
    features = [*spec.channels["numerical"], *spec.channels["categorical"]]
    assert len(features) == len(set(features)) == SIZES[name]
    for mapping, rows in reference.mappings(reference.rows).items():
        assert found[mapping]["display_id"].tolist() == [row["display_id"] for row in rows]
        assert found[mapping]["clicked"].tolist() == [bool(row["clicked"]) for row in rows]
    assert set(features) <= set(found["train"])
    assert all(spec.features[feature].dtype == "float32" for feature in spec.channels["numerical"])


@pytest.mark.parametrize("name", SIZES)
def test_published_cardinalities(sets, name):
    spec, found, _ = sets[name]
    sizes = [spec.features[feature].cardinality for feature in spec.channels["categorical"]]
    one_hot = [300_000, 4, 100_000, 4000, 1000, 2500, 300, 2000, 250_000, 2500, 4000, 1000, 5000]
    assert sizes == {
        "v1_spark": one_hot, "v1_nvtabular": one_hot, "multihot": [*one_hot, 350, 10_000, 100],
        "profiles": [300_000, 100_000, 4000, 2500, 2000, 1000, 300, 6, 3, 3, 2, 2, 250_000, 4000, 2500, 1000,
                     10_000, 350, 100, 10_000, 350, 100]}[name]


@pytest.mark.parametrize("name", SIZES)
def test_the_encoding_of_a_published_set_is_not_for_new_rows(sets, name):
    encoding = Encoding.load(sets[name][0].folder / "preparation")
    assert not encoding.columns and f"feature_set={name} is as published" in encoding.not_for_new_rows


def log2(values):
    return [math.log2(1 + max(value, 0)) for value in values]


def test_numbers_of_spark(sets):
    r = sets["v1_spark"][2]
    days = {name: min_max(log2([row[name] or 0 for row in r.rows])) for name in ("days", "days_promo")}
    same(sets, "v1_spark", {
        "pop_document_id": r.rate("document_id_promo", 6), "pop_publisher_id": r.rate("publisher_id_promo", 11),
        "pop_source_id": r.rate("source_id_promo", 11), "pop_ad_id": r.rate("ad_id", 6),
        "pop_advertiser_id": r.rate("advertiser_id", 11), "pop_campain_id": r.rate("campaign_id", 11),
        "doc_views_log_01scaled": min_max(log2(r.views("document_id_promo", 6))),
        "ad_views_log_01scaled": min_max(log2(r.views("ad_id", 6))),
        "doc_event_days_since_published_log_01scaled": days["days"],
        "doc_ad_days_since_published_log_01scaled": days["days_promo"],
        **{f"doc_event_doc_ad_sim_{kind}": r.similarity(kind) for kind in IDS}})


def spark_codes(r):
    """Column -> value of every row, as Spark stores it: 0 for a missing one; of places the number of events, −1 for
    missing and rare ones."""
    codes = {name: [row[name] or 0 for row in r.rows] for name in (
        "document_id", "document_id_promo", "source_id", "publisher_id", "ad_id", "advertiser_id",
        "publisher_id_promo", "campaign_id")}
    codes["platform"] = [0 if row["platform"] is None else row["platform"] - 1 for row in r.rows]
    codes["source_id_promo"] = [-1 if row["source_id_promo"] is None else row["source_id_promo"] for row in r.rows]
    for name in ("geo_location", "country", "state"):
        counts = r.event_count(name)
        codes[name] = [counts[row[name]] if row[name] is not None and counts[row[name]] >= 10 else -1
                       for row in r.rows]
    return codes


def test_ids_of_spark(sets):
    codes = spark_codes(sets["v1_spark"][2])
    assert -1 in codes["state"] and -1 in codes["source_id_promo"] and 0 not in codes["geo_location"]
    names = {"doc_event_id": ("document_id", 300_000), "event_platform": ("platform", 4),
             "doc_id": ("document_id_promo", 100_000), "doc_event_source_id": ("source_id", 4000),
             "doc_event_publisher_id": ("publisher_id", 1000), "event_geo_location": ("geo_location", 2500),
             "event_country": ("country", 300), "event_country_state": ("state", 2000), "ad_id": ("ad_id", 250_000),
             "ad_advertiser": ("advertiser_id", 2500), "doc_ad_source_id": ("source_id_promo", 4000),
             "doc_ad_publisher_id": ("publisher_id_promo", 1000), "campaign_id": ("campaign_id", 5000)}
    same(sets, "v1_spark", {name: [code % size for code in codes[column]]
                            for name, (column, size) in names.items()}, exact=True)


@pytest.mark.parametrize("name", ["v1_nvtabular", "multihot"])
def test_numbers_of_nvtabular(sets, name):
    r = sets[name][2]
    train = len(r.train)

    def day(column):
        known = [row[column] for row in r.train if row[column] is not None]
        return [math.log1p(statistics.median(known) if row[column] is None else row[column]) for row in r.rows]

    same(sets, name, {
        "document_id_promo_ctr": r.rate("document_id_promo", 5), "ad_id_ctr": r.rate("ad_id", 5),
        "publisher_id_promo_ctr": r.rate("publisher_id_promo", 10),
        "source_id_promo_ctr": r.rate("source_id_promo", 10),
        "advertiser_id_ctr": r.rate("advertiser_id", 10), "campaign_id_ctr": r.rate("campaign_id", 10),
        "document_id_promo_count": z_score([math.log1p(n) for n in r.views("document_id_promo")], train),
        "ad_id_count": z_score([math.log1p(n) for n in r.views("ad_id")], train),
        "publish_time_days_since_published": day("days"),
        "publish_time_promo_days_since_published": day("days_promo"),
        **{f"document_id_document_id_promo_sim_{kind}": r.similarity(kind) for kind in IDS}})


@pytest.mark.parametrize("name", ["v1_nvtabular", "multihot"])
def test_ids_of_nvtabular(sets, name):
    r = sets[name][2]
    columns = {"document_id": 300_000, "document_id_promo": 100_000, "source_id": 4000, "publisher_id": 1000,
               "geo_location": 2500, "country": 300, "state": 2000, "ad_id": 250_000, "advertiser_id": 2500,
               "source_id_promo": 4000, "publisher_id_promo": 1000, "campaign_id": 5000}
    names = {"country": "geo_location_country", "state": "geo_location_state"}
    expected = {names.get(column, column): [0 if row[column] is None else hash60(row[column]) % size for row in r.rows]
                for column, size in columns.items()}
    expected["platform"] = [hash60((row["platform"] or 1) - 1) % 4 for row in r.rows]
    same(sets, name, expected, exact=True)


def test_lists_of_the_29_features(sets):
    """The first three in the order of the file, by the id that the training rows give them."""
    r = sets["multihot"][2]
    for feature, kind, size in (("topic_id_list", "topics", 350), ("entity_id_list", "entities", 10_000),
                                ("category_id_list", "categories", 100)):
        aspects = r.aspects(kind)  # a dict keeps the order of the file
        known = trained(r, kind, "document_id")
        same(sets, "multihot", {feature: [
            [hash60(known.get(id_, 0)) % size for id_ in list(aspects.get(row["document_id"], {}))[:3]]
            for row in r.rows]}, exact=True)


def trained(r, kind, key, limit=1):
    """Aspect -> id by its count in the training rows; equal counts in the order of the raw table's own vocabulary."""
    aspects = r.aspects(kind)
    raw = ids([row[IDS[kind]] for row in r.tables[f"documents_{kind}"]])
    numbers = ids([raw[id_] for row in r.train for id_ in aspects.get(row[key], {})], limit)
    return {id_: numbers[index] for id_, index in raw.items() if index in numbers}


def thousands(values):
    return min_max([math.log2(1 + 1000 * max(value, 0)) for value in values])


def numbers_of_profiles(r, users="all"):
    rates = {"document_id": ("document_id_promo", 6), "publisher_id": ("publisher_id_promo", 11),
             "source_id": ("source_id_promo", 11), "ad_id": ("ad_id", 6), "advertiser_id": ("advertiser_id", 11)}
    expected = {}
    for name, key in rates.items():
        expected |= {f"pop_{name}": thousands(r.rate(*key)), f"pop_{name}_conf": r.rate_confidence(*key)}
    for name, kind in (("entity", "entities"), ("topic", "topics"), ("category", "categories")):
        means, sures = r.popularity(kind)
        expected |= {f"pop_{name}_id": thousands(means), f"pop_{name}_id_conf": sures}
    for kind in IDS:
        sims, sures = r.user_similarity(kind, users)
        expected |= {f"user_doc_ad_sim_{kind}": thousands(sims),
                     f"doc_event_doc_ad_sim_{kind}": thousands(r.similarity(kind))}
        if kind != "entities":
            expected[f"user_doc_ad_sim_{kind}_conf"] = sures
    campaign = r.rate("campaign_id", 11)
    both = [a * b for a, b in zip(campaign, r.rate_confidence("campaign_id", 11), strict=True)]
    return expected | {
        "pop_campain_id": thousands(campaign), "pop_campain_id_conf_multipl": thousands(both),
        "doc_views": min_max(log2(r.views("document_id_promo", 6))), "ad_views": min_max(log2(r.views("ad_id", 6))),
        "doc_event_days_since_published": min_max(log2([row["days"] or 0 for row in r.rows])),
        "doc_ad_days_since_published": min_max(log2([row["days_promo"] or 0 for row in r.rows])),
        "user_views": min_max(log2([len(r.profile(row, users)) for row in r.rows])),
        "doc_event_hour": min_max(log2([clock(row)[0] for row in r.rows]))}


OFFSETS = {"US>CA": -7, "US>SC": -4, "US": -7, "SG>00": 8, "AU": 10, "GB>H9": 1, "CA>ON": -4}


def clock(row):
    """Hour bin and weekend by the clocks of the place; 0 where nothing is known."""
    if row["timestamp"] is None:
        return 0, 0
    local = datetime.datetime(2016, 6, 14) + datetime.timedelta(milliseconds=row["timestamp"],
                                                               hours=OFFSETS[row["state"]] + 4)
    hour = next((number for number, hours in enumerate((range(5, 8), range(8, 11), range(11, 14), range(14, 19),
                                                        range(19, 22))) if local.hour in hours), 5)
    return hour, int(local.weekday() >= 5)


def test_numbers_of_profiles(sets):
    r = sets["profiles"][2]
    expected = numbers_of_profiles(r)
    assert set(expected) == set(sets["profiles"][0].channels["numerical"])
    assert any(0 < value < 1 for value in expected["user_doc_ad_sim_topics"])
    same(sets, "profiles", expected)


def test_ids_of_profiles(sets):
    r = sets["profiles"][2]
    codes = spark_codes(r)
    names = {"doc_event_id": ("document_id", 300_000), "doc_id": ("document_id_promo", 100_000),
             "doc_event_source_id": ("source_id", 4000), "event_geo_location": ("geo_location", 2500),
             "event_country_state": ("state", 2000), "doc_event_publisher_id": ("publisher_id", 1000),
             "event_country": ("country", 300), "ad_id": ("ad_id", 250_000), "ad_advertiser": ("advertiser_id", 2500),
             "doc_ad_source_id": ("source_id_promo", 4000), "doc_ad_publisher_id": ("publisher_id_promo", 1000)}
    expected = {name: [hash60(code) % size for code in codes[column]] for name, (column, size) in names.items()}
    expected |= {"event_hour": [clock(row)[0] for row in r.rows], "event_weekend": [clock(row)[1] for row in r.rows],
                 "event_platform": codes["platform"],
                 "traffic_source": [(r.traffic_source(row) or 1) - 1 for row in r.rows],
                 "user_has_already_viewed_doc": [int(row["document_id_promo"] in r.profile(row)) for row in r.rows]}
    assert {1, 2} & set(expected["traffic_source"]) and 1 in expected["user_has_already_viewed_doc"]
    same(sets, "profiles", expected, exact=True)


def test_lists_of_profiles(sets):
    """The six entities of 10 rows or more (three topics, categories) of greatest confidence, equal ones by the count of
    the aspect."""
    r = sets["profiles"][2]
    for role, key in (("doc_event", "document_id"), ("doc_ad", "document_id_promo")):
        for name, kind, most, size in (("entity", "entities", 6, 10_000), ("topic", "topics", 3, 350),
                                       ("category", "categories", 3, 100)):
            aspects = r.aspects(kind)
            raw = [row[IDS[kind]] for row in r.tables[f"documents_{kind}"]]
            order = ids(raw)
            lists = []
            for row in r.rows:
                mine = aspects.get(row[key], {})
                first = [id_ for id_ in sorted(mine, key=lambda id_, mine=mine, order=order: (-mine[id_], order[id_]))
                         if name != "entity" or raw.count(id_) >= 10][:most]
                lists.append([hash60(raw.count(id_) if name == "entity" else id_) % size for id_ in first])
            same(sets, "profiles", {f"{role}_{name}_id": lists}, exact=True)


def test_only_test_users_have_profiles_as_published(tmp_path):
    _, found = prepared(tmp_path, "profiles", profile_users="test")
    r = Reference(TABLES, "profiles")
    tested = {row["uuid"] for row in r.rows if row["test"]}
    assert any(r.profile(row) and row["uuid"] not in tested for row in r.train)
    assert any(r.profile(row, "test") for row in r.train)
    for feature, values in numbers_of_profiles(r, "test").items():
        for mapping, column in r.mappings(values).items():
            np.testing.assert_allclose(found[mapping][feature], column, rtol=2e-5, atol=2e-6, err_msg=feature)


def test_no_view_after_the_event_enters_a_profile(tmp_path):
    """Views later than a user's events change nothing."""
    _, before = prepared(tmp_path / "a", "profiles")
    late = [{"uuid": event["uuid"], "document_id": ad["document_id"], "timestamp": 14 * DAY_MS, "platform": 1,
             "geo_location": "US", "traffic_source": 2}
            for event in TABLES["events"] for ad in TABLES["promoted_content"][:4]]
    kept = TABLES["page_views"]
    try:
        TABLES["page_views"] = [*kept, *late]
        _, after = prepared(tmp_path / "b", "profiles")
    finally:
        TABLES["page_views"] = kept
    for mapping, columns in before.items():
        for name, column in columns.items():
            np.testing.assert_array_equal(np.array(column, object), np.array(after[mapping][name], object), name)
