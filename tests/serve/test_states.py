"""States of a server: told of events call by call, by several processes, they know what one replay of all knows."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kuairand_prepared import BEGINS, LOG, RAW, TO_REPLAY, prepared, table_of, write_raw
from kuairand_rows import key
from stores import DURABLE, STORES, redis_server

from clickwise.encoding import Encoding
from clickwise.encoding.lists import lists_between
from clickwise.encoding.replay import Replay
from clickwise.errors import DataError, StoreError
from clickwise.serve.states import LiveStates, Taken, open_store
from clickwise.serve.states.memory import MemoryStore

GO_ON = ("days", "history", "clicks")
COLUMNS = (*RAW, "is_click")
QUICK = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MS = 1_000_000
POSTING = Path(__file__).with_name("posting.py")
# Few users, videos, moments: ties in time, users with one event, repeats, users and videos that nobody knows.
event = st.tuples(st.sampled_from([0, 1, 2, 8, 77]), st.sampled_from([100, 101, 103, 111, 999]), st.integers(0, 12),
                  st.booleans())


@pytest.fixture(scope="module")
def encodings(tmp_path_factory):
    """By case; the columns are gone."""
    folder = tmp_path_factory.mktemp("prepared")
    raw, found = write_raw(folder / "raw"), Encodings()
    for case in GO_ON:
        out = prepared(raw, case, folder)
        (out / "preparation").rename(folder / f"{case}_encoding")
        shutil.rmtree(out)
        found[case] = Encoding.load(folder / f"{case}_encoding")
    return found


@pytest.fixture(scope="module")
def stores(request, tmp_path_factory):
    with STORES[request.param](tmp_path_factory.mktemp("stores")) as new:
        yield new


every_case_and_store = pytest.mark.parametrize(("stores", "case"), [
    *(("memory", case) for case in GO_ON), *((store, "history") for store in STORES if store != "memory")],
    indirect=["stores"])


def names_of(encoding):
    return [name for name in encoding.columns if name != encoding.events.label]


class Encodings(dict):
    """With a short name, for messages."""

    def __repr__(self):
        return "the encodings"


def rows_of(arrays, first=0, end=None):
    """The values of some rows, to the bit: bytes, and of lists Python's."""
    found = {}
    for name, array in arrays.items():
        if isinstance(array, tuple):
            values, offsets = lists_between(array, first, len(array[1]) - 1 if end is None else end)
            found[name] = [values[a:b].tolist() for a, b in zip(offsets, offsets[1:], strict=False)]
        else:
            found[name] = [array[row:row + 1].tobytes() for row in range(first, len(array) if end is None else end)]
    return found


def ones_of(encoder, table):
    """The same, row by row."""
    rows = [encoder.row(row) for row in table.to_pylist()]
    return {name: [row[name] if encoder.encoding.columns[name].dtype not in ("float32", "float64") and isinstance(
        row[name], list) else np.array(row[name], encoder.encoding.columns[name].dtype).tobytes() for row in rows]
        for name in encoder.names}


def assert_scored(live, table, expected):
    """Many rows at once and one by one."""
    assert rows_of(live.encoder.columns(table).arrays) == expected
    assert ones_of(live.encoder, table) == expected


def log_of(events):
    """Rows of a log; those of the same user, video and moment are one event, clicked if one of them is."""
    rows = [{"user_id": user, "video_id": video, "date": 20220501 + moment // 6, "hourmin": moment * 100,
             "time_ms": BEGINS + moment * MS, "tab": (user + video) % 2, "duration_ms": 7000,
             "is_click": int(click)} for user, video, moment, click in events]
    return sorted(rows, key=lambda row: row["time_ms"])


def in_its_order(encoding):
    """The events of the test days, each once, in the order that the encoding gives those of one moment."""
    return sorted({key(row): row for row in TO_REPLAY}.values(), key=lambda row: tuple(
        row[name] for name in encoding.events.order))


def calls_of(log, cuts):
    """The log cut between moments."""
    moments = sorted({row["time_ms"] for row in log})
    ends = sorted({moments[cut % len(moments)] for cut in cuts} | {moments[-1] + 1})
    spans = zip([0, *ends], ends, strict=False)
    calls = [[row for row in log if first <= row["time_ms"] < end] for first, end in spans]
    return [call for call in calls if call]


LATER = {"date": 20220503, "hourmin": 100, "time_ms": BEGINS + 10_000 * MS, "duration_ms": 1, "is_click": 0}
NOW = [{**LATER, "user_id": user, "video_id": video, "tab": tab} for user in (0, 1, 2, 8, 77) for video in (
    100, 101, 999) for tab in (0, 1)]


@every_case_and_store
@QUICK
@given(events=st.lists(event, min_size=1, max_size=40), cuts=st.lists(st.integers(0, 99), max_size=6))
@example(events=[(0, 100, 0, True), (0, 100, 0, False), (0, 101, 0, True), (0, 100, 1, False), (77, 999, 1, True)],
         cuts=[0, 1])
def test_calls_of_several_processes_equal_one_replay(stores, encodings, case, events, cuts):
    encoding, log = encodings[case], log_of(events)
    names, replay = names_of(encoding), Replay(encoding, names_of(encoding))
    whole = replay.rows(table_of(log, COLUMNS)).arrays
    open_ = stores()
    turns = [LiveStates(encoding, names, open_()) for _ in range(2)]
    at, taken = 0, 0
    for number, call in enumerate(calls_of(log, cuts)):
        if number == 2:  # stopped and started
            turns[0].store.close()
            turns[0] = LiveStates(encoding, names, open_())
        live, table = turns[number % 2], table_of(call, COLUMNS)
        first, last = (sum(row["time_ms"] == call[end]["time_ms"] for row in call) for end in (0, -1))
        assert_scored(live, table.slice(0, first), rows_of(whole, at, at + first))
        found = live.events(table)
        assert live.events(table) == Taken(repeats=len(call))  # its answer was lost
        at, taken = at + len(call), taken + found.events
        assert_scored(live, table.slice(len(call) - last), rows_of(whole, at - last, at))
        assert found.repeats + found.events == len(call) and found.late == found.holds == 0
    now = table_of(NOW, COLUMNS)
    expected = rows_of(replay.encoder.columns(now).arrays)
    for live in turns:
        assert_scored(live, now, expected)
    assert taken == len({key(row) for row in log})


@every_case_and_store
def test_events_one_by_one_equal_a_replay(stores, encodings, case):
    """The real test days; an event of each moment after the other."""
    encoding, names = encodings[case], names_of(encodings[case])
    log = in_its_order(encoding)
    expected = rows_of(Replay(encoding, names).rows(table_of(log, COLUMNS)).arrays)
    live, found = LiveStates(encoding, names, stores()()), {name: [] for name in names}
    for row in table_of(log, COLUMNS).to_pylist():
        scored = live.encoder.row({name: row[name] for name in RAW})
        for name, value in scored.items():
            found[name].append(value if isinstance(value, list) else np.array(
                value, encoding.columns[name].dtype).tobytes())
        assert live.events(pa.Table.from_pylist([row])).events == 1
    assert found == expected


@pytest.mark.parametrize("case", GO_ON)
def test_a_click_may_be_told_later(encodings, case):
    """The test days, without any click at first; what was clicked is told again, in any order, and part of it twice."""
    encoding, dice = encodings[case], random.Random(7)
    names, log = names_of(encoding), in_its_order(encoding)
    replay, live = Replay(encoding, names), LiveStates(encoding, names, MemoryStore())
    replay.rows(table_of(log, COLUMNS))
    for first in range(0, len(log), 9):
        live.events(table_of([{**row, "is_click": 0} for row in log[first:first + 9]], COLUMNS))
    clicked = [row for row in log if row["is_click"]]
    dice.shuffle(clicked)
    twice = [{**row, "is_click": click} for row in clicked for click in (0, 1)]
    assert live.events(table_of(twice[:30], COLUMNS)) == Taken(clicks=15, repeats=15)
    assert live.events(table_of(clicked, COLUMNS)) == Taken(clicks=len(clicked) - 15, repeats=15)
    assert live.events(table_of([{**row, "is_click": 0} for row in log], COLUMNS)) == Taken(repeats=len(log))
    new = {**NOW[0], "time_ms": NOW[0]["time_ms"] - MS}
    assert live.events(table_of([new, *({**row, "is_click": 0} for row in log)], COLUMNS)).events == 1
    assert live.events(table_of(clicked, COLUMNS)) == Taken(repeats=len(clicked))  # it is kept that they were
    replay.rows(table_of([new], COLUMNS))
    now = table_of(NOW, COLUMNS)
    assert_scored(live, now, rows_of(replay.encoder.columns(now).arrays))


@pytest.mark.parametrize("case", GO_ON)
@QUICK
@given(events=st.lists(event, min_size=1, max_size=40), dice=st.randoms(use_true_random=False))
def test_events_may_come_late(encodings, case, events, dice):
    """Moments in any order: rows of later on see all of them."""
    encoding, log = encodings[case], log_of(events)
    names = names_of(encoding)
    replay = Replay(encoding, names)
    replay.rows(table_of(log, COLUMNS))
    calls = calls_of(log, range(99))
    dice.shuffle(calls)
    live = LiveStates(encoding, names, MemoryStore())
    for number, call in enumerate(calls):
        before = {row["user_id"] for other in calls[:number] for row in other if row["time_ms"] > call[0]["time_ms"]}
        late = live.events(table_of(call, COLUMNS)).late
        assert late >= len({key(row) for row in call if row["user_id"] in before})
        assert not late or any(other[0]["time_ms"] > call[0]["time_ms"] for other in calls[:number])
    now = table_of(NOW, COLUMNS)
    assert rows_of(live.encoder.columns(now).arrays) == rows_of(replay.encoder.columns(now).arrays)


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_what_was_acknowledged_is_there_after_a_kill(encodings, tmp_path, store):
    """A process is killed at some moment, again and again: each event is in all states, or in none."""
    encoding, names, dice = encodings["history"], names_of(encodings["history"]), random.Random(11)
    log = in_its_order(encoding)
    (tmp_path / "log.json").write_text(json.dumps(log))
    replay, at = Replay(encoding, names), 0
    with contextlib.ExitStack() as stack:
        if store == "sqlite":
            place = f"sqlite:{tmp_path / 'states.db'}"
        else:
            place = f"redis://127.0.0.1:{stack.enter_context(redis_server(tmp_path, *DURABLE))}"
        for _ in range(3 if store == "sqlite" else 1):
            command = [sys.executable, POSTING, encoding.folder, place, tmp_path / "log.json", str(at)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
                said = [child.stdout.readline().split() for _ in range(dice.randrange(2, 30))]
                child.kill()
                said += [line.split() for line in child.stdout.read().splitlines() if line.count(" ") == 1]
            acknowledged = [int(number) for word, number in said if word == "acknowledged"]
            assert acknowledged == list(range(at, at + len(acknowledged)))
            live = LiveStates(encoding, names, open_store(place))
            again = table_of(log[at:at + len(acknowledged)], COLUMNS)
            assert live.events(again) == Taken(repeats=len(again))
            replay.rows(again)
            at += len(acknowledged)
            under_way = table_of(log[at:at + 1], COLUMNS)
            replay.rows(under_way)
            assert live.events(under_way) in (Taken(events=1), Taken(repeats=1))
            at += 1
            assert_scored(live, table_of(NOW, COLUMNS), rows_of(replay.encoder.columns(table_of(NOW, COLUMNS)).arrays))
            live.store.close()
    assert at > 3


@every_case_and_store
def test_a_forgotten_user_is_as_one_that_nobody_knows(stores, encodings, case):
    encoding, names, open_ = encodings[case], names_of(encodings[case]), stores()
    of_users = [name for name in names if any((state := encoding.state_of(of)) and "user_id" in encoding.tables[
        state].by and encoding.tables[state].goes_on for of in encoding.columns[name].sources)]
    one, other = (LiveStates(encoding, names, open_()) for _ in range(2))
    one.events(table_of(TO_REPLAY, COLUMNS))
    rows = {user: table_of([{**row, "user_id": user} for row in NOW if row["user_id"] == 0], COLUMNS)
            for user in (1, 3, 55)}
    known = {user: rows_of(other.encoder.columns(table).arrays) for user, table in rows.items()}
    assert all(known[3][name] != known[55][name] for name in of_users if name not in ("today", "earlier_today"))
    other.forget("3")
    other.forget(55)
    for live in (one, other):
        found = rows_of(live.encoder.columns(rows[3]).arrays)
        assert found == ones_of(live.encoder, rows[3])
        assert all(found[name] == (known[55] if name in of_users else known[3])[name] for name in names)
        assert rows_of(live.encoder.columns(rows[1]).arrays) == known[1]
        assert rows_of(live.encoder.columns(rows[55]).arrays) == known[55]
    new = [{**NOW[0], "user_id": user, "is_click": 1} for user in (3, 55)]
    assert one.events(table_of(new, COLUMNS)) == Taken(events=2)  # as if he had come today
    later = [{**NOW[0], "time_ms": NOW[0]["time_ms"] + MS, "user_id": user} for user in (3, 55)]
    found = [rows_of(other.encoder.columns(table_of([row], COLUMNS)).arrays) for row in later]
    assert all(found[0][name] == found[1][name] for name in of_users)
    for nobody in ("anybody", None, ""):
        with pytest.raises(DataError, match="user_id"):
            one.forget(nobody)


def held(store):
    return dict(store._records)


def test_what_cannot_be_taken_in_changes_nothing(encodings):
    live = LiveStates(encodings["history"], ["user_impressions"], MemoryStore())
    live.events(table_of(TO_REPLAY[:20], COLUMNS))
    before, rows = held(live.store), TO_REPLAY[20:30][::-1]
    for wrong, said in (({"is_click": None}, "row 7.*\n.*\n.*a label in every row"),
                        ({"time_ms": None}, "row 7.*\n.*no time_ms"), ({"duration_ms": "x"}, "")):
        table = pa.Table.from_pylist([{**row, **wrong} if number == 7 else row for number, row in enumerate(rows)]) \
            if "duration_ms" not in wrong else table_of(rows, COLUMNS).drop_columns("is_click")
        with pytest.raises(DataError, match=said or "no column 'is_click'"):
            live.events(table, "body")
        assert held(live.store) == before
    assert live.events(table_of([], COLUMNS)) == Taken()
    assert live.events(table_of(rows, COLUMNS)).events == len({key(row) for row in rows})
    place = next(place for place in before if "counts_user" in place[1])
    live.store.update([], lambda _: {place: b"short"})
    with pytest.raises(StoreError, match="counts_user.*\n.*5 bytes"):
        live.encoder.columns(table_of(TO_REPLAY[:20], COLUMNS))


def test_what_the_export_holds_is_not_counted_again(encodings):
    encoding = encodings["history"]
    live = LiveStates(encoding, ["user_impressions"], MemoryStore())
    early = [row for row in LOG if row["time_ms"] < BEGINS]
    assert live.events(table_of([*early, *TO_REPLAY], COLUMNS)) == Taken(
        events=len({key(row) for row in TO_REPLAY}), holds=len({key(row) for row in early}),
        repeats=len(LOG) - len({key(row) for row in LOG}))
    assert live.events(table_of([{**row, "is_click": 1} for row in early], COLUMNS)) == Taken(
        holds=len({key(row) for row in early}), repeats=len(early) - len({key(row) for row in early}))
    replay = Replay(encoding, ["user_impressions"])
    replay.rows(table_of(TO_REPLAY, COLUMNS))
    now = table_of(NOW, COLUMNS)
    assert_scored(live, now, rows_of(replay.encoder.columns(now).arrays))


def test_late_events_are_told(encodings):
    live = LiveStates(encodings["history"], [], MemoryStore())
    rows = log_of([(0, 100, 5, True), (0, 101, 3, True), (0, 101, 5, True), (8, 999, 4, True), (8, 999, 1, False)])
    by_moment = {row["time_ms"] - BEGINS: row for row in rows}
    assert live.events(table_of([row for row in rows if row["user_id"] == 0][1:2], COLUMNS)) == Taken(events=1)
    assert live.events(table_of([by_moment[3 * MS]], COLUMNS)) == Taken(events=1, late=1)
    assert live.events(table_of([by_moment[4 * MS], by_moment[1 * MS]], COLUMNS)) == Taken(events=2)
    assert live.events(table_of(rows, COLUMNS)) == Taken(events=1, repeats=4)


def test_a_user_with_many_events_in_one_call_is_known_again(encodings):
    live = LiveStates(encodings["clicks"], [], MemoryStore())
    many = table_of(log_of([(1, 200 + number, 3, False) for number in range(130)]), COLUMNS)
    assert live.events(many).events == 130 and live.events(many) == Taken(repeats=130)
    assert live.events(table_of(log_of([(1, 100, 4, False)]), COLUMNS)).events == 1
    assert live.events(many.slice(31)).repeats == 99  # with that one the last 100
    assert live.events(table_of(log_of([(1, 100, 4, False)]), COLUMNS)).repeats == 1


def test_models_of_one_encoding_share_a_store_and_others_do_not(encodings):
    store, names = MemoryStore(), names_of(encodings["history"])
    LiveStates(encodings["history"], ["user_impressions"], store).events(table_of(TO_REPLAY, COLUMNS))
    replay, now = Replay(encodings["history"], names), table_of(NOW, COLUMNS)
    replay.rows(table_of(TO_REPLAY, COLUMNS))
    assert_scored(LiveStates(encodings["history"], names, store), now, rows_of(replay.encoder.columns(now).arrays))
    names = names_of(encodings["clicks"])
    assert_scored(LiveStates(encodings["clicks"], names, store), now,
                  rows_of(Replay(encodings["clicks"], names).encoder.columns(now).arrays))


def test_which_encodings_can_go_on(encodings):
    encoding = encodings["history"]
    standing = encoding.with_tables({name: state for name, state in encoding.tables.items() if not state.goes_on})
    standing = dataclasses.replace(standing, columns={name: column for name, column in encoding.columns.items() if all(
        (state := encoding.state_of(of)) is None or state in standing.tables for of in column.sources)})
    with pytest.raises(DataError, match="no state that goes on"):
        LiveStates(standing, list(standing.columns), MemoryStore())
    with pytest.raises(DataError, match="'music_type' that goes on.*\n.*one of user_id, author_id"):
        LiveStates(encoding, [], MemoryStore(), user="music_type")
    assert LiveStates(encoding, [], MemoryStore(), user="video_id").forget(100) is None
    made_of_another = {**encoding.tables, "again": dataclasses.replace(
        encoding.tables["counts_user"], by=("user_clicks",), gives={"n": encoding.raw_column("user_clicks")})}
    with pytest.raises(DataError, match="the state again.*\n.*user_clicks as keys"):
        LiveStates(encoding.with_tables(made_of_another), [], MemoryStore())
