from __future__ import annotations

from collections import Counter

import ibis
from engine_rows import by_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickwise.prepare import steps

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
words = st.none() | st.sampled_from(["a", "b", "c", "d", "é", ""])


def stored(engine, rows, type_):
    table = ibis.memtable({"row": range(len(rows)), "x": rows}, schema={"row": "int64", "x": type_})
    return engine.materialise(table, "t")


def ids_by_hand(values, limit):
    count = Counter(value for value in values if value is not None)
    kept = sorted((-n, value) for value, n in count.items() if n >= limit)
    return {value: id_ for id_, (_, value) in enumerate(kept, 1)}


def test_vocabulary_by_hand(engine):
    table = stored(engine, ["b", None, "a", "c", "b", "a", "d", None, None], "string")
    assert engine.rows(steps.vocabulary(table, "x", 2).order_by("id")) == [
        {"value": "a", "id": 1, "count": 2}, {"value": "b", "id": 2, "count": 2}]
    assert [row["value"] for row in engine.rows(steps.vocabulary(table, "x").order_by("id"))] == ["a", "b", "c", "d"]


@QUICK
@given(fit=st.lists(words, min_size=1), values=st.lists(words, min_size=1), limit=st.integers(0, 4))
def test_ids_of_single_values(engine, fit, values, limit):
    vocabulary = engine.materialise(steps.vocabulary(stored(engine, fit, "string"), "x", limit), "v")
    found = by_row(engine, steps.encode(stored(engine, values, "string"), "x", vocabulary))
    ids = ids_by_hand(fit, limit)
    assert found == [ids.get(value, 0) for value in values]


@QUICK
@given(lists=st.lists(st.none() | st.lists(words, max_size=6), min_size=1, max_size=12), limit=st.integers(0, 3),
       drop=st.booleans())
def test_ids_of_lists_keep_their_order(engine, lists, limit, drop):
    table = stored(engine, lists, "array<string>")
    vocabulary = engine.materialise(steps.vocabulary(steps.explode(table, "x"), "x", limit), "v")
    found = by_row(engine, steps.encode_list(table, "x", vocabulary, drop_unknown=drop))
    ids = ids_by_hand([value for each in lists for value in each or []], limit)
    expected = [[ids.get(value, 0) for value in each or []] for each in lists]
    assert found == [[i for i in each if i or not drop] for each in expected]


def test_encode_keeps_the_other_columns_and_every_row(engine):
    table = engine.materialise(ibis.memtable({"row": [0, 1, 2], "x": ["a", "z", None], "y": [7, 8, 9]}), "t")
    vocabulary = engine.materialise(ibis.memtable({"value": ["a"], "id": [1], "count": [5]}), "v")
    found = steps.encode(table, "x", vocabulary).order_by("row")
    assert engine.rows(found.select("row", "x", "y")) == [
        {"row": 0, "x": 1, "y": 7}, {"row": 1, "x": 0, "y": 8}, {"row": 2, "x": 0, "y": 9}]


def test_rows_between(engine):
    table = stored(engine, list("abcde"), "string")
    assert engine.rows(steps.rows_between(table, 1, 3, start=10).order_by("row")) == [
        {"row": 10, "x": "b"}, {"row": 11, "x": "c"}]
