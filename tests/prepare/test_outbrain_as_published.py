"""Where the published sets count, drop and cut as the original scripts do: small logs, values worked out by hand."""

from __future__ import annotations

import hashlib
import math

import pytest
from outbrain_rows import DAY_MS, HEADERS

EVENT, FIRST_AD, SECOND_AD = 1, 100, 101  # documents: of every event, and of the ads 1 (always clicked) and 2
BEFORE = 2 * DAY_MS  # of all events
META = [(document, 1 + document % 3, 1 + document % 2, "2016-06-01 00:00:00")
        for document in (EVENT, FIRST_AD, SECOND_AD, *range(10, 27))]  # 20 documents


def log(displays, *, meta=META, topics=(), entities=(), views=()):
    """Raw tables. `displays`: user, day, platform and place of display 1, 2, …; `views`: user and document, before all
    events. Every topic and entity is that of a (document, id, confidence)."""
    some = [(EVENT, 7, 0.5)]
    rows = {
        "clicks_train": [(number, ad, int(ad == 1)) for number in range(1, len(displays) + 1) for ad in (1, 2)],
        "events": [(number, user, EVENT, day * DAY_MS, platform, place)
                   for number, (user, day, platform, place) in enumerate(displays, 1)],
        "promoted_content": [(1, FIRST_AD, 5, 6), (2, SECOND_AD, 5, 6)],
        "documents_meta": meta, "documents_categories": some, "documents_topics": topics or some,
        "documents_entities": entities or [(EVENT, "e", 0.5)],
        "page_views": [(user, document, BEFORE + number, 1, "US", 1)
                       for number, (user, document) in enumerate(views or [("nobody", EVENT)])]}
    return {name: [dict(zip(HEADERS[name], row, strict=True)) for row in table] for name, table in rows.items()}


def by_display(columns, name, ad=1):
    """Display -> the value of a feature in its row of this ad."""
    rows = list(zip(columns["display_id"], columns[name], strict=True))
    return dict(rows[ad - 1::2])


def hash_of(code, buckets):
    return int(hashlib.md5(str(code).encode()).hexdigest()[:15], 16) % buckets


USERS = [("a", 5, 1, "US"), ("a", 11, 1, "US"), ("b", 5, 1, "US")]


def test_a_user_with_a_test_display_has_a_profile_in_the_training_rows_too(outbrain):
    tables = log(USERS, topics=[(10, 1, 0.5)], views=[("a", 10), ("b", 10)])
    _, found = outbrain(tables, feature_set="profiles", profile_users="test", test_share=0.0)
    assert by_display(found["train"], "user_views") == {1: 1.0, 3: 0.0}
    assert by_display(found["test"], "user_views") == {2: 1.0}


def test_four_views_of_a_document_count_four_times(outbrain):
    """a: topic 1 from four views, topic 2 from one, of equal rarity and confidence; b: topic 1 alone."""
    topics = [(10, 1, 0.5), (11, 2, 0.5), (FIRST_AD, 1, 1.0), (SECOND_AD, 2, 1.0)]
    tables = log(USERS, topics=topics, views=[*[("a", 10)] * 3, ("a", 11), ("a", 10), ("b", 10)])
    _, found = outbrain(tables, feature_set="profiles", test_share=0.0)

    def scaled(cosine):  # the least cosine is 0 (b, ad 2), the greatest 1 (b, ad 1)
        return pytest.approx(math.log2(1 + 1000 * cosine) / math.log2(1001), rel=1e-5)

    name = "user_doc_ad_sim_topics"
    assert by_display(found["train"], name, ad=1) == {1: scaled(4 / math.sqrt(17)), 3: scaled(1)}
    assert by_display(found["train"], name, ad=2) == {1: scaled(1 / math.sqrt(17)), 3: scaled(0)}
    assert by_display(found["train"], "user_views") == {1: 1.0, 3: 0.0}  # 5 and 1, from the least to the greatest


def test_views_at_the_same_moment_count_each(outbrain):
    topics = [(10, 1, 0.5), (11, 2, 0.5), (FIRST_AD, 1, 1.0), (SECOND_AD, 2, 1.0)]
    tables = log(USERS, topics=topics, views=[("a", 10), ("a", 10), ("a", 11), ("b", 10)])
    for view in tables["page_views"]:
        view["timestamp"] = BEFORE
    _, found = outbrain(tables, feature_set="profiles", test_share=0.0)
    expected = math.log2(1 + 1000 * 2 / math.sqrt(5)) / math.log2(1001)
    assert by_display(found["train"], "user_doc_ad_sim_topics", ad=1)[1] == pytest.approx(expected, rel=1e-5)


def test_views_of_documents_without_a_source_or_unknown_are_dropped(outbrain):
    """a views one that counts and three that do not, b three that count: 1 and 3 views."""
    meta = [(document, None if document in (12, SECOND_AD) else source, publisher, time)
            for document, source, publisher, time in META]
    topics = [(document, 1, 0.5) for document in (10, 12, 99, FIRST_AD, SECOND_AD)]
    views = [("a", 10), ("a", 12), ("a", 99), ("a", SECOND_AD), *[("b", 10)] * 3]
    _, found = outbrain(log([*USERS, ("c", 5, 1, "US")], meta=meta, topics=topics, views=views),
                        feature_set="profiles", test_share=0.0)
    half = pytest.approx(math.log2(1 + 1) / math.log2(1 + 3))
    assert by_display(found["train"], "user_views") == {1: half, 3: 1.0, 4: 0.0}
    assert by_display(found["train"], "user_has_already_viewed_doc", ad=2) == {1: 0, 3: 0, 4: 0}


def test_rare_entities_take_no_place_in_a_list(outbrain):
    """The event's document has eight entities; the two most certain have fewer than 10 rows and are left out."""
    frequent = {f"{number:032x}": 10 + number for number in range(7)}  # entity -> its rows
    entities = [(EVENT, "rare", 0.99), (EVENT, "r", 0.98)]
    for number, (entity, rows) in enumerate(frequent.items()):
        entities += [(EVENT, entity, 0.9 - 0.1 * number)]
        entities += [(200 + number * 100 + row, entity, 0.5) for row in range(rows - 1)]
    entities += [(1000 + row, "rare", 0.5) for row in range(8)]  # 9 rows with the event's
    _, found = outbrain(log(USERS, entities=entities), feature_set="profiles", test_share=0.0)
    assert by_display(found["train"], "doc_event_entity_id")[1] == [
        hash_of(count, 10_000) for count in (10, 11, 12, 13, 14, 15)]


INCOMPLETE = [("a", 5, 1, "US>CA>803"), ("a", 5, None, "US>CA>803"), ("b", 5, 1, None), ("b", 11, 2, "GB")]


def test_an_event_without_place_or_platform_has_the_last_buckets(outbrain):
    """So has one whose place is rare, as all are here."""
    names = {"event_geo_location": 2499, "event_country": 299, "event_country_state": 1999}
    _, found = outbrain(log(INCOMPLETE), test_share=0.0)
    for name, bucket in names.items():
        assert by_display(found["train"], name) == {1: bucket, 2: bucket, 3: bucket}, name
    assert by_display(found["train"], "doc_event_id") == {1: EVENT, 2: 0, 3: 0}


def test_a_missing_place_is_minus_one_in_profiles(outbrain):
    names = {"event_geo_location": 2500, "event_country": 300, "event_country_state": 2000}
    _, found = outbrain(log(INCOMPLETE), feature_set="profiles", test_share=0.0)
    for name, buckets in names.items():
        assert set(by_display(found["train"], name).values()) == {hash_of(-1, buckets)}, name


def test_a_whole_place_keeps_its_spaces_and_its_parts_do_not(outbrain):
    """10 events of " US>CA" and 12 of "US>CA": two places, one country, one state; 11 of spaces are no place."""
    places = [" US>CA"] * 10 + ["US>CA"] * 12 + ["  "] * 11
    _, found = outbrain(log([("a", 5, 1, place) for place in places] + [("a", 11, 1, "US>NY")]), test_share=0.0)
    train = found["train"]
    assert list(by_display(train, "event_geo_location").values()) == [10] * 10 + [12] * 12 + [2499] * 11
    assert list(by_display(train, "event_country").values()) == [23] * 22 + [299] * 11
    assert list(by_display(train, "event_country_state").values()) == [22] * 22 + [1999] * 11


@pytest.mark.parametrize("name", ["v1_spark", "profiles", "v1_nvtabular"])
def test_new_publishers_begin_behind_those_of_documents_with_a_source(outbrain, name):
    meta = [(EVENT, 1, None, "2016-06-01 00:00:00"), *META[1:], (50, None, 700, "2016-06-01 00:00:00")]
    _, found = outbrain(log(USERS, meta=meta), feature_set=name, test_share=0.0, name=name)
    new = 2 + 1  # the greatest of the documents with a source is 2
    expected = new if name == "v1_spark" else hash_of(new, 1000)
    feature = "publisher_id" if name == "v1_nvtabular" else "doc_event_publisher_id"
    assert set(found["train"][feature].tolist()) == {expected}
