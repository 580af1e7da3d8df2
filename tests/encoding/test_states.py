"""States told of events one moment after another know what preparation works out of the whole log, to the bit."""

from __future__ import annotations

import dataclasses
import random

import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clickwise.encoding import RawColumn
from clickwise.encoding.raw_types import Float, Integer, Text
from clickwise.encoding.states import Counts, EventLog, Events, LastMoment, Lookup
from clickwise.encoding.states.keyed_table import KeyedTable, TableInMemory, write_keyed_table
from clickwise.errors import DataError
from clickwise.prepare import earlier
from clickwise.prepare.duckdb_engine import DuckDBEngine

QUICK = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COLUMNS = ("user", "place", "day", "time", "click", "video")
# Few users, places and moments: ties in time, users with one event, events that repeat all but the video.
event = st.tuples(st.integers(1, 8) | st.integers(70, 99), st.none() | st.sampled_from(["a", "b"]), st.integers(0, 9),
                  st.integers(0, 1), st.integers(1, 6))
logs = st.lists(event, min_size=1, max_size=100).map(lambda rows: sorted(
    ((user, place, time // 4, time, click, video) for user, place, time, click, video in rows), key=lambda row: (
        row[3], row[0], row[5])))
ONE_USER = [(1, "a", 0, 0, 1, 1), (1, None, 0, 0, 0, 2), (1, "a", 0, 3, 1, 3), (1, "a", 1, 4, 0, 1),
            (2, "b", 1, 4, 1, 4)]
COUNTED = {"impressions": RawColumn(Integer()), "clicks": RawColumn(Integer())}


@pytest.fixture(scope="module")
def engine():
    engine = DuckDBEngine(memory_limit="300MB", threads=1)
    yield engine
    engine.close()


def arrow(log) -> pa.Table:
    columns = zip(*log, strict=True) if log else [()] * len(COLUMNS)
    return pa.table({name: pa.array(column, pa.string() if name == "place" else pa.int64())
                     for name, column in zip(COLUMNS, columns, strict=True)})


def events_of(table: pa.Table, first: int = 0, end: int | None = None) -> Events:
    part = table.slice(first, None if end is None else end - first).combine_chunks()
    values = {name: part[name].combine_chunks() for name in COLUMNS}
    values = {name: column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
              for name, column in values.items()}
    return Events(values, part["click"].to_numpy(), {"item": part["video"].to_numpy()})


def empty(tmp_path_factory, state, folder="state"):
    """The state as it is before any event."""
    folder = tmp_path_factory.mktemp("states") / folder
    keys = {name: pa.array([], pa.string() if name == "place" else pa.int64()) for name in state.by}
    kind = pa.large_list(pa.int64()) if isinstance(state, EventLog) else pa.int64()
    write_keyed_table(folder, keys, {name: pa.array([], kind) for name in state.stored})
    return state.load(folder)


def moments_of(log, at):
    """Where each moment of the log begins and ends."""
    starts = [index for index, row in enumerate(log) if not index or row[at] != log[index - 1][at]]
    return list(zip(starts, [*starts[1:], len(log)], strict=True))


def listed(found):
    """Python's values, lists where there are offsets."""
    return {name: [column[0][first:end].tolist() for first, end in zip(column[1], column[1][1:], strict=False)]
            if isinstance(column, tuple) else column.to_pylist() for name, column in found.items()}


def kept(going_on):
    """The state as it is kept by key, which is enough for what comes."""
    rows = sorted([*((row, key) for key, row in going_on.keys.further.items()),
                   *((row, key) for key, row in getattr(going_on.state.table, "rows", {}).items())])
    table = TableInMemory([key for _, key in rows], pa.table(going_on.stored()))
    return dataclasses.replace(going_on.state, table=table)


def told(state, log, tmp_path_factory, at="time"):
    """What the state gives for each event: told of one moment after another, and of the rest of the log at once, from a
    beginning that is kept by key, from halfway on; and of the whole log at once."""
    table, going_on = arrow(log), state.going_on()
    whole = listed(going_on.replay(events_of(table)))
    by_moment = {name: [] for name in whole}
    going_on = state.going_on()
    spans = moments_of(log, COLUMNS.index(at))
    for first, end in spans[:len(spans) // 2]:
        events = events_of(table, first, end)
        for name, values in listed(going_on.look_up(events.values)).items():
            by_moment[name] += values
        going_on.update(events)
    going_on = kept(going_on).going_on()
    for first, end in spans[len(spans) // 2:]:
        for name, values in listed(going_on.replay(events_of(table, first, end))).items():
            by_moment[name] += values
    assert by_moment == whole
    return whole


def stored(engine, log):
    rows = arrow(log).append_column("n", pa.array(range(len(log)), pa.int64()))
    return engine.materialise(ibis.memtable(rows), "log")


def by_event(engine, table, found, keys, names):
    """The values of `found`, one row for each of `keys`, for every event of the log; None where there is none."""
    rows = {tuple(row[key] for key in keys): row for row in engine.rows(found)}
    return {name: [rows.get(tuple(row[key] for key in keys), {}).get(name) for row in engine.rows(
        table.order_by("n"))] for name in names}


@pytest.mark.parametrize("by", [("user",), ("user", "place")])
@pytest.mark.parametrize("at", ["day", "time"])
@QUICK
@given(log=logs)
@example(log=ONE_USER)
def test_counts(engine, tmp_path_factory, by, at, log):
    table = stored(engine, log)
    found = earlier.earlier_counts(earlier.counts(table, by, at, "click"), by, at)
    state = empty(tmp_path_factory, Counts(by, COUNTED, at, goes_on=True))
    assert told(state, log, tmp_path_factory, at) == by_event(engine, table, found, (*by, at), COUNTED)


@QUICK
@given(log=logs)
@example(log=ONE_USER)
def test_moments_of_users(engine, tmp_path_factory, log):
    table = stored(engine, log)
    found = earlier.moments_of_users(table, "user", "day", "time")
    expected = by_event(engine, table, found, ("user", "day", "time"), ("seconds_since_last", "earlier_today"))
    last = empty(tmp_path_factory, LastMoment(("user",), {"seconds_since_last": RawColumn(Float())}, "time", True))
    today = empty(tmp_path_factory, Counts(("user", "day"), {"earlier_today": RawColumn(Integer())}, "time", True))
    assert told(last, log, tmp_path_factory) | told(today, log, tmp_path_factory) == expected


@pytest.mark.parametrize("clicks_only", [True, False])
@QUICK
@given(log=logs)
@example(log=ONE_USER)
def test_events(tmp_path_factory, clicks_only, log):
    """Against the events counted by hand; tests/prepare/test_kuairand_history.py holds preparation to the same."""
    features = {"items": "item", "outcome": "outcome", "ago": "time"}
    state = empty(tmp_path_factory, EventLog(("user",), dict.fromkeys(features, RawColumn(Integer())), "time", True,
                                             length=3, features=features, clicks_only=clicks_only))
    kept = [row for row in log if row[4] or not clicks_only]
    before = [[other for other in kept if other[0] == row[0] and other[3] < row[3]][-3:] for row in log]
    assert told(state, log, tmp_path_factory) == {
        "items": [[row[5] for row in rows] for rows in before],
        "outcome": [[1 + row[4] for row in rows] for rows in before],
        "ago": [[row[3] - now[3] for row in rows] for now, rows in zip(log, before, strict=True)]}


KINDS = {"counts": Counts(("user", "place"), COUNTED, "time", goes_on=True),
         "impressions": Counts(("user",), {"n": RawColumn(Integer())}, "day", goes_on=True),
         "last": LastMoment(("user",), {"seconds": RawColumn(Float())}, "time", True),
         "log": EventLog(("user",), dict.fromkeys(("items", "ago", "outcome"), RawColumn(Integer())), "time", True,
                         length=3, features={"items": "item", "ago": "time", "outcome": "outcome"})}


@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(log=logs, dice=st.randoms(use_true_random=False))
@example(log=[(1, "a", 0, moment, 1, moment + 1) for moment in (0, 1, 1, 2, 3)], dice=random.Random(0))
@example(log=[(1, "a", 0, moment, 1, 1 + n) for n, moment in enumerate((0, 1, 1, 3, 3, 3, 3))], dice=random.Random(0))
def test_events_that_come_late(tmp_path_factory, kind, log, dice):
    """Moments in any order, from what is kept by key now and then: rows of the last moment, and later ones, see what
    they see after events in order; rows of any other see nothing of their moment or later."""
    state = empty(tmp_path_factory, KINDS[kind])
    whole, late, table = state.going_on(), state.going_on(), arrow(log)
    whole.update(events_of(table))
    spans = moments_of(log, COLUMNS.index(state.at))
    dice.shuffle(spans)
    told = []
    for first, end in spans:
        events = events_of(table, first, end)
        keys = [tuple(row[COLUMNS.index(name)] for name in state.by) for row in log[first:end]]
        assert late.is_late(events.values).tolist() == [None not in key and any(
            key == other and log[first][COLUMNS.index(state.at)] < when for other, when in told) for key in keys]
        late.update(events)
        told += [(key, log[first][COLUMNS.index(state.at)]) for key in keys]
        late = kept(late).going_on() if dice.random() < 0.3 else late
    users = [(user, place, 0, 0, 0, 0) for user in (1, 2, 3, 75) for place in ("a", "b", None)]
    ends = max(row[2] for row in log), max(row[3] for row in log)
    for when in (0, 1):
        rows = events_of(arrow([(user, place, ends[0] + when, ends[1] + when, *others) for user, place, _, _, *others in
                                [*users, *log]]))
        assert listed(late.look_up(rows.values)) == listed(whole.look_up(rows.values)) == ones(late, rows.values)
    late, rows = kept(late).going_on(), events_of(table)
    found = listed(late.look_up(rows.values))
    assert found == ones(late, rows.values)
    for name in {"seconds", "ago"} & set(found):
        values = [value for row in found[name] for value in (row if isinstance(row, list) else [row])]
        assert all(value is None or (value > 0) == (name == "seconds") and value for value in values)


@pytest.mark.parametrize("clicks_only", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(log=logs, dice=st.randoms(use_true_random=False))
@example(log=ONE_USER, dice=random.Random(0))
def test_clicks_that_are_told_of_later(tmp_path_factory, kind, clicks_only, log, dice):
    log = list({(row[0], row[3], row[5]): row for row in log}.values())
    state = empty(tmp_path_factory, KINDS[kind])
    if kind == "log":
        state = dataclasses.replace(state, clicks_only=clicks_only)
    order = sorted({row[3] for row in log})
    dice.shuffle(order)  # of moments: clicks of one moment stand in a history as they are told of
    clicked = sorted((row for row in log if row[4]), key=lambda row: order.index(row[3]))
    whole, later = state.going_on(), state.going_on()
    whole.update(events_of(arrow(log)))
    later.update(events_of(arrow([(*row[:4], 0, row[5]) for row in log])))
    for part in (clicked[:len(clicked) // 2], clicked[len(clicked) // 2:]):
        later = kept(later).going_on() if dice.random() < 0.5 else later
        if part:
            later.click(events_of(arrow(part)))
    ends = max(row[2] for row in log), max(row[3] for row in log)
    for when in (0, 1):
        rows = events_of(arrow([(user, place, ends[0] + when, ends[1] + when, *others) for user, place, _, _, *others in
                                log]))
        found = listed(later.look_up(rows.values))
        assert found == listed(whole.look_up(rows.values))


def test_clicks_on_events_that_look_alike(tmp_path_factory):
    state = empty(tmp_path_factory, KINDS["log"]).going_on()
    state.update(events_of(arrow([(1, "a", 0, when, 0, video) for when, video in ((3, 5), (3, 5), (3, 6), (4, 5))])))
    for expected in ([2, 1, 1, 1], [2, 2, 1, 1], [2, 2, 1, 1]):
        state.click(events_of(arrow([(1, "a", 0, 3, 1, 5)])))
        rows = events_of(arrow([(1, "a", 9, 9, 0, 1)]))
        assert listed(state.look_up(rows.values))["outcome"] == [expected[1:]]
        assert state.log.columns["outcome"].tolist() == expected


def ones(going_on, values):
    """The same row by row, of what is kept by key."""
    state = kept(going_on)
    rows = {name: column.to_pylist() for name, column in values.items()}
    found = []
    for row in (dict(zip(rows, of, strict=True)) for of in zip(*rows.values(), strict=True)):
        at = state.table.rows.get(tuple(row[name] for name in state.by))
        known = None if at is None else {name: state.table.values[name][at - 1].as_py() for name in state.stored}
        found.append(state.given_one(row, known and {name: np.array(value) if isinstance(value, list) else value
                                                     for name, value in known.items()}))
    return {name: [one[name] for one in found] for name in state.gives}


def test_what_a_state_holds_already_is_not_counted_again(tmp_path_factory):
    state = dataclasses.replace(Counts(("user",), COUNTED, "time", goes_on=True), until=3)
    state = empty(tmp_path_factory, state)
    going_on = state.going_on()
    assert listed(going_on.replay(events_of(arrow(ONE_USER))))["impressions"] == [0, 0, 0, 1, 0]
    later = events_of(arrow([(1, "a", 9, 99, 0, 1)]))
    assert listed(going_on.look_up(later.values)) == {"impressions": [2], "clicks": [1]}


def test_states_that_stand_still_give_one_row_as_many(tmp_path):
    write_keyed_table(tmp_path / "people", {"user": pa.array([3, 5])}, {
        "age": pa.array([None, 2.5]), "town": pa.array(["", "é"]), "code": pa.array([2**53 + 1, None])})
    people = Lookup(("user",), {"age": RawColumn(Float()), "town": RawColumn(Text()), "code": RawColumn(Integer())})
    write_keyed_table(tmp_path / "counts", {"user": pa.array([1, 1, 5]), "place": pa.array(["a", "b", "a"])},
                      {"impressions": pa.array([4, 5, 6]), "clicks": pa.array([0, 1, 2])})
    counts = Counts(("user", "place"), COUNTED)
    write_keyed_table(tmp_path / "last", {"user": pa.array([5])}, {"time": pa.array([1500])})
    last = LastMoment(("user",), {"seconds": RawColumn(Float())}, "time")
    lists = pa.LargeListArray.from_arrays(pa.array([0, 0, 3]), pa.array([10, 20, 30]))
    write_keyed_table(tmp_path / "log", {"user": pa.array([1, 5])}, {"time": lists, "items": lists})
    log = EventLog(("user",), {"items": RawColumn(Integer())}, "time", length=2, features={"items": "item"})
    values = {"user": pa.array([5, 3, None, 1, 9, 5]), "place": pa.array(["a", "a", "a", "b", "a", None]),
              "time": pa.array([25, 0, 7, 1, 5, 3000])}
    expected = {
        "people": {"age": [2.5, None, None, None, None, 2.5], "town": ["é", "", None, None, None, "é"],
                   "code": [None, 2**53 + 1, None, None, None, None]},
        "counts": {"impressions": [6, 0, None, 5, 0, None], "clicks": [2, 0, None, 1, 0, None]},
        "last": {"seconds": [-1.475, None, None, None, None, 1.5]},
        "log": {"items": [[10, 20], [], [], [], [], [20, 30]]}}
    for name, state in (("people", people), ("counts", counts), ("last", last), ("log", log)):
        state = state.load(tmp_path / name)
        assert listed(state.look_up(values)) == expected[name]
        ones = [state.look_up_one({of: column[row].as_py() for of, column in values.items()}) for row in range(6)]
        assert {of: [one[of] for one in ones] for of in state.gives} == expected[name]


def test_files_that_are_damaged(tmp_path):
    write_keyed_table(tmp_path, {"user": pa.array([1, 5])}, {"age": pa.array([1.0, 2.0])})
    with pytest.raises(DataError, match=r"values\.arrow"):
        KeyedTable(tmp_path, 1, {"height": pa.float64()})
    with pytest.raises(DataError, match=r"values\.arrow.*\n.*age: double"):
        KeyedTable(tmp_path, 1, {"age": pa.int64()})
    write_keyed_table(tmp_path / "other", {"user": pa.array([1])}, {"age": pa.array([1.0])})
    (tmp_path / "other/keys.vocabulary").replace(tmp_path / "keys.vocabulary")
    with pytest.raises(DataError, match="2 rows"):
        KeyedTable(tmp_path, 1, {"age": pa.float64()})
    content = (tmp_path / "values.arrow").read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 9):
        (tmp_path / "values.arrow").write_bytes(content[:cut])
        with pytest.raises(DataError, match=r"values\.arrow"):
            KeyedTable(tmp_path, 1, {"age": pa.float64()})
    lists = pa.array([[1], [2, 3]], pa.large_list(pa.int64()))
    others = pa.array([[1, 2], [3]], pa.large_list(pa.int64()))
    write_keyed_table(tmp_path / "log", {"user": pa.array([1, 5])}, {"time": lists, "items": others})
    state = EventLog(("user",), {"items": RawColumn(Integer())}, "time", features={"items": "item"})
    with pytest.raises(DataError, match="not of the same events"):
        state.load(tmp_path / "log")


def test_keys_of_one_number_are_not_taken_for_others(tmp_path):
    """The numbers of several keys are joined to one: every combination has its own."""
    pairs = [(user, place) for user in range(1, 8) for place in ("a", "b", "c") if (user, place) != (4, "b")]
    users, places = (pa.array(column) for column in zip(*pairs, strict=True))
    write_keyed_table(tmp_path, {"user": users, "place": places}, {"n": pa.array(range(len(pairs)))})
    table = KeyedTable(tmp_path, 2, {"n": pa.int64()})
    assert table.find_all([users, places]).tolist() == list(range(1, len(pairs) + 1))
    assert [table.find(pair) for pair in pairs] == list(range(1, len(pairs) + 1))
    assert table.find([4, "b"]) == 0 and table.find([1, "d"]) == 0
    assert table.find_all([pa.array([4, 1]), pa.array(["b", None])]).tolist() == [0, 0]
    assert np.array_equal(table.values["n"].to_numpy(), np.arange(len(pairs)))
