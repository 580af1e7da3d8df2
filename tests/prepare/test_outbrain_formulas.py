"""The formulas of Outbrain on values that no log of a test would have, beside plain Python."""

from __future__ import annotations

import datetime
import math

import ibis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outbrain_rows import DAY_MS, FIRST_MS, confidence, days

from clickwise.prepare.duckdb_engine import DuckDBEngine
from clickwise.prepare.outbrain import numbers, rates
from clickwise.prepare.outbrain.clock import NEW_YORK, hour_bin, local_hours, utc_offset, weekend
from clickwise.prepare.outbrain.documents import inverse_document_frequency
from clickwise.prepare.outbrain.numbers import CURVES, Number
from clickwise.prepare.outbrain.profiles import similarity_confidence
from clickwise.prepare.outbrain.rows import days_since


@pytest.fixture(scope="module")
def engine():
    engine = DuckDBEngine(threads=1)
    yield engine
    engine.close()


def computed(engine, columns, formula):
    """The values of `formula(table)` for rows with these columns, (type, values) each."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*(v for _, v in columns.values()), strict=True)]
    table = ibis.memtable(rows, schema={name: type_ for name, (type_, _) in columns.items()})
    return [row["x"] for row in engine.rows(table.mutate(x=formula(table)).select("x"))]


moments = st.lists(st.tuples(st.integers(0, 15 * DAY_MS), st.none() | st.integers(-62_000_000_000, 20_000_000_000)),
                   min_size=1, max_size=20)


@settings(deadline=None, max_examples=25)
@given(moments)
def test_days_since_publication(engine, rows):
    found = computed(engine, {"at": ("int64", [at for at, _ in rows]), "then": ("int64", [then for _, then in rows])},
                     lambda t: days_since(t["at"], t["then"]))
    for value, (at, then) in zip(found, rows, strict=True):
        whole = None if then is None else (at + FIRST_MS - then * 1000) // DAY_MS
        assert value == (None if whole is None else whole if 0 <= whole <= 3650 else 0)


def test_days_begin_and_end():
    assert days(0, "2016-06-14 04:00:00") == 0 and days(2, "2016-06-13 04:00:00") == 1
    assert days(0, "2016-06-14 05:00:00") == 0  # not yet published: −1 is beyond


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 15 * DAY_MS), st.integers(-12 * 60, 14 * 60)), min_size=1, max_size=20))
def test_local_hour_and_weekend(engine, rows):
    columns = {"at": ("int64", [at for at, _ in rows]), "offset": ("int64", [offset for _, offset in rows])}
    bins = computed(engine, columns, lambda t: hour_bin(local_hours(t["at"], t["offset"])))
    ends = computed(engine, columns, lambda t: weekend(local_hours(t["at"], t["offset"])))
    for number, end, (at, offset) in zip(bins, ends, rows, strict=True):
        local = datetime.datetime(2016, 6, 14) + datetime.timedelta(milliseconds=at, minutes=offset - NEW_YORK)
        assert number == (
            [5] * 5 + [0] * 3 + [1] * 3 + [2] * 3 + [3] * 5 + [4] * 3 + [5] * 2)[local.hour]
        assert end == (local.weekday() >= 5)


def test_clocks_of_places(engine):
    places = {("US", "US>CA"): -7, ("US", "US>NY"): -4, ("US", "US"): -7, ("CA", "CA>ZZ"): -5, ("IN", "IN>02"): 5.5,
              ("NP", "NP"): 5.75, ("??", "??"): -4, (None, None): -4}
    columns = {name: ("string", list(column)) for name, column in
               zip(("country", "state"), zip(*places, strict=True), strict=True)}
    found = computed(engine, columns, lambda t: utc_offset(t.country, t.state))
    assert found == [hours * 60 for hours in places.values()]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(1, 50)), min_size=1, max_size=20))
def test_confidence_of_rates(engine, rows):
    found = computed(engine, {"views": ("int64", [v for v, _ in rows]), "ads": ("int64", [a for _, a in rows])},
                     lambda t: rates.confidence(t.views, t.ads))
    assert found == pytest.approx([confidence(v / a) for v, a in rows])


def test_published_confidences():
    """10 -> .1444, 1000 -> .4159, 99,999 -> .6931, then 1."""
    assert [round(confidence(s), 4) for s in (10, 1000, 99_999, 100_000)] == [0.1444, 0.4159, 0.6931, 1.0]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 500).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, min(n, 8))] * 3), min_size=1,
                                                      max_size=10).map(lambda rows: (n, rows))))
def test_confidence_of_similarities(engine, case):
    n, rows = case
    rows = [(document, user, min(common, document, user)) for document, user, common in rows]
    found = computed(engine, {name: ("int64", list(values)) for name, values in
                              zip(("document", "user", "common"), zip(*rows, strict=True), strict=True)},
                     lambda t: similarity_confidence(t.document, t.user, t.common, n))
    expected = [1 - (d / n * u / n) ** m if m else d / n * u / n for d, u, m in rows]
    assert found == pytest.approx(expected, abs=1e-12)


def test_inverse_document_frequency(engine):
    df = [1, 10, 400, 1000, 2000]
    single, double = (computed(engine, {"df": ("int64", df)}, lambda t, kind=kind: inverse_document_frequency(
        1000, t.df, kind)) for kind in ("log", "log_log"))
    logs = [math.log(1000 / n) if n < 1000 else 0.0 for n in df]
    assert single == pytest.approx(logs)
    assert double == pytest.approx([math.log(x) if x > 0 else 0.0 for x in logs])  # negative for 400


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(CURVES)), st.sampled_from(["none", "min_max", "mean_std"]),
       st.sampled_from(["zero", "median", "mean"]),
       st.lists(st.none() | st.integers(-2, 400), min_size=2, max_size=12), st.integers(1, 12))
def test_scales_are_those_of_the_rows_they_name(engine, curve, scale, missing, values, train):
    train = min(train, len(values))
    number = Number(level="ad", of=lambda t: t.x, curve=curve, scale=scale, missing=missing)

    def of_weights(weights):
        rows = [{"train_rows": weight, "x": value} for weight, value in zip(weights, values, strict=True)]
        return ibis.memtable(rows, schema={"train_rows": "int64", "x": "float64"})

    table = of_weights([int(row < train) for row in range(len(values))])
    fitted = numbers.fit(engine, {"ad": table}, {"x": number})["x"]
    weights = [(row * 7) % 4 for row in range(len(values))]
    repeated = ibis.memtable([{"train_rows": int(n < weight), "x": value} for weight, value in
                              zip(weights, values, strict=True) for n in range(max(weight, 1))],
                             schema={"train_rows": "int64", "x": "float64"})
    assert numbers.fit(engine, {"ad": of_weights(weights)}, {"x": number})["x"] == pytest.approx(
        numbers.fit(engine, {"ad": repeated}, {"x": number})["x"], rel=1e-9, abs=1e-9)
    found = [row["y"] for row in engine.rows(table.mutate(y=numbers.apply(table.x, number, **fitted)))]
    assert all(math.isfinite(value) for value in found)
    if scale == "min_max" and missing != "mean":
        assert min(found) == pytest.approx(0, abs=1e-6) and max(found) <= 1 + 1e-6
    seen = [y for y, x in zip(found[:train], values, strict=False) if x is not None or missing != "mean"]
    if scale == "mean_std" and len(seen) > 1:
        assert sum(seen) / len(seen) == pytest.approx(0, abs=1e-4)
    if missing == "mean" and scale == "mean_std":
        assert all(y == 0 for y, x in zip(found, values, strict=True) if x is None)
    if scale == "none" and missing == "median" and curve == "same":
        known = sorted(x for x in values[:train] if x is not None)
        middle = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2 if known else 0
        assert all(y == middle for y, x in zip(found, values, strict=True) if x is None)
