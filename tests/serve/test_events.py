"""States that go on with events that the server is told of: every row is scored by what was known before its moment."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from kuairand_prepared import LOG, RAW, TO_REPLAY, prepared, write_raw
from kuairand_rows import key, write_table
from served_models import Client, infer_request, made, scores

from clickwise.errors import StoreError, UsageError
from clickwise.verbs.predict import predict
from clickwise.verbs.train import train

SMALL = ["train.epochs=1", "train.batch_size=32", "model.embedding_dim=4", "baselines=[]", "data.validation=null",
         "schedule={}", "model.unit_mlp=[4]", "model.top_mlp=[8]"]
DIN, INFER = "din", "/v2/models/din/infer"
EVENTS = sorted({key(row): row for row in TO_REPLAY}.values(), key=lambda row: row["time_ms"])


def plain(row):
    return {name: row[name] for name in RAW}


@pytest.fixture(scope="module")
def din_run(tmp_path_factory):
    place = tmp_path_factory.mktemp("din")
    columns = prepared(write_raw(place / "raw"), "history", place)
    return train("kuairand/din", [f"data.path={columns}", *SMALL], out=place / "runs")


@pytest.fixture(scope="module")
def din(din_run, tmp_path_factory):
    return made(din_run, tmp_path_factory.mktemp("exports") / DIN, name=DIN)


@pytest.fixture(scope="module")
def din_of_keys(tmp_path_factory):
    """One that does not read how long ago events were."""
    place = tmp_path_factory.mktemp("din_of_keys")
    columns = prepared(write_raw(place / "raw"), "history", place, time_gap=False)
    return made(train("kuairand/din", [f"data.path={columns}", *SMALL], out=place / "runs"), place / DIN, name=DIN)


def by_moment():
    moments: dict = {}
    for row in EVENTS:
        moments.setdefault(row["time_ms"], []).append(row)
    return moments.values()


def events(client, rows, status=200):
    found, _, content = client.ask("POST", "/v1/events", {"events": [
        {name: row[name] for name in (*RAW, "is_click")} for row in rows]})
    assert found == status, content
    return content


def test_scores_are_those_of_a_replay(din, din_run, tmp_path):
    write_table(tmp_path / "log.csv", [{name: row[name] for name in (*RAW, "is_click")} for row in EVENTS])
    predict(din_run, replay=tmp_path / "log.csv", out=tmp_path / "of_log.parquet")
    expected = pq.read_table(tmp_path / "of_log.parquet")["probability"].to_numpy()
    client, found = Client(din, states=f"sqlite:{tmp_path / 'states'}"), []
    for rows in by_moment():
        found += scores(client.ask("POST", INFER, infer_request([plain(row) for row in rows])))
        assert events(client, rows)[DIN]["events"] == len(rows)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    again = Client(din, states=f"sqlite:{tmp_path / 'states'}")  # another process
    told = events(again, EVENTS)[DIN]
    assert (told["events"], told["repeats"]) == (0, len(EVENTS))
    last = infer_request([plain(EVENTS[-1]) | {"time_ms": EVENTS[-1]["time_ms"] + 5}])
    assert scores(again.ask("POST", INFER, last)) == scores(client.ask("POST", INFER, last))


def ranked(client, body):
    status, _, content = client.ask("POST", "/v1/rank", body)
    assert status == 200, content
    return [entry["score"] for entry in sorted(content["ranked"], key=lambda entry: entry["index"])]


def test_rank_looks_the_states_up_and_takes_a_history_in_their_place(din):
    """A given history of a user's last events has the scores of the states that know them."""
    client = Client(din)
    for rows in by_moment():
        events(client, rows)
    now = {**plain(EVENTS[-1]), "time_ms": EVENTS[-1]["time_ms"] + 7}
    merged: dict = {}
    for row in LOG:
        merged[key(row)] = row | {"is_click": max(row["is_click"], merged.get(key(row), row)["is_click"])}
    merged |= {key(row): row for row in EVENTS}  # as they were told
    videos, differ = [100, 103, 111, 999], []
    for user in range(9):
        shown = sorted((row for row in merged.values() if row["user_id"] == user),
                       key=lambda row: (row["time_ms"], row["video_id"]))
        if len(shown) < 6:
            continue
        context = {name: value for name, value in now.items() if name != "video_id"} | {"user_id": user}
        rows = [{**context, "video_id": video} for video in videos]
        expected = scores(client.ask("POST", INFER, infer_request(rows)))
        asked = {"context": context, "candidates": videos}
        np.testing.assert_allclose(ranked(client, asked), expected, atol=1e-7)
        del context["user_id"]
        np.testing.assert_allclose(ranked(client, {**asked, "context": context, "history": user}), expected, atol=1e-7)
        context["user_id"] = user
        if len({row["time_ms"] for row in shown[-6:]}) == 6:  # their order is known
            history = [{name: row[name] for name in (*RAW, "is_click")} for row in shown]
            np.testing.assert_allclose(ranked(client, {**asked, "history": history}), expected, atol=1e-7)
            differ.append(ranked(client, {**asked, "history": []}) != ranked(client, asked))
    assert differ and all(differ)


def test_a_history_of_keys(din_of_keys, din):
    """Clicks, the latest last; not where the model reads how long ago they were."""
    client, keys = Client(din_of_keys), [100, 103, 103, 111, 101]
    context = {name: value for name, value in plain(EVENTS[-1]).items() if name != "video_id"}
    asked = {"context": context, "candidates": [100, 103, 999]}
    found = ranked(client, {**asked, "history": keys})
    assert found == ranked(client, {**asked, "history": [{"video_id": video, "is_click": 1} for video in keys]})
    timed = [{"video_id": video, "time_ms": 10 - place} for place, video in enumerate(reversed(keys))]
    assert found == ranked(client, {**asked, "history": timed})
    assert found != ranked(client, {**asked, "history": keys[:2]})
    assert found != ranked(client, {**asked, "history": [{"video_id": video, "is_click": 0} for video in keys]})
    status, _, answer = Client(din).ask("POST", "/v1/rank", {**asked, "history": keys})
    assert status == 400 and "how long ago" in answer["error"]


def test_where_no_states_are_rows_bring_along_what_they_can(din):
    client = Client(din, states="none")
    now = plain(EVENTS[-1])
    status, _, answer = client.ask("POST", INFER, infer_request([now]))
    assert status == 400 and "video_history" in answer["error"]
    carried = {name: 3 for name in ("user_impressions", "user_clicks", "video_tab_impressions", "video_tab_clicks",
                                    "user_tag_impressions", "user_tag_clicks", "author_impressions", "author_clicks",
                                    "seconds_since_last", "earlier_today")}
    asked = {"context": {**now, **carried}, "candidates": [{"video_id": 100}, {"video_id": 103}]}
    status, _, answer = client.ask("POST", "/v1/rank", asked)
    assert status == 400 and "video_history" in answer["error"]
    assert len(ranked(client, {**asked, "history": [{"video_id": 101, "time_ms": 3}]})) == 2
    assert client.ask("POST", "/v1/events", {"events": [EVENTS[0]]})[0] == 400


def test_a_user_is_forgotten(din):
    client = Client(din)
    for rows in by_moment():
        events(client, rows)
    user = EVENTS[-1]["user_id"]
    request = infer_request([plain(EVENTS[-1]) | {"time_ms": EVENTS[-1]["time_ms"] + 5}])
    before = scores(client.ask("POST", INFER, request))
    assert client.ask("DELETE", f"/v1/users/{user}")[::2] == (200, {"forgotten": True})
    assert scores(client.ask("POST", INFER, request)) != before


@pytest.mark.parametrize(("content", "said"), [
    ({}, "events"), ({"events": {}}, "events"), ({"events": []}, "events"), ({"events": [3]}, "events"),
    ({"events": [{"is_click": 1}]}, "no column 'time_ms'"), ({"events": [{**EVENTS[0], "time_ms": None}]}, "time_ms"),
    ({"events": [{**EVENTS[0], "is_click": None}]}, "is_click"), ({"event": []}, "event"),
    ({"events": [{**EVENTS[0], "user_id": {}}]}, "user_id"), ({"events": [plain(EVENTS[0])]}, "is_click"),
    ({"events": [EVENTS[0]] * 10_001}, "10,001")])
def test_what_is_no_event_is_told_and_nothing_is_counted(din, content, said):
    client = Client(din)
    status, _, answer = client.ask("POST", "/v1/events", content)
    assert status == 400 and said in answer["error"], answer
    assert events(client, EVENTS[:1])[DIN]["events"] == 1


def test_a_history_that_is_none(din, kuairand):
    client = Client(din)
    context = {name: value for name, value in plain(EVENTS[-1]).items() if name != "video_id"}
    for history, said in (([[1]], "several kinds"), ([1, {}], "several kinds"), ({}, "something else"),
                          ([{"tab": 1}], "video_id"), (99, "another user"), ([{"video_id": {}}], "something else"),
                          ([1] * 10_001, "10,001")):
        asked = {"context": context, "candidates": [100], "history": history}
        status, _, answer = client.ask("POST", "/v1/rank", asked)
        assert status == 400 and said in answer["error"], (history, answer)
    for history in ([1], 7):
        status, _, answer = Client(kuairand).ask("POST", "/v1/rank", {"context": context, "candidates": [100],
                                                                      "history": history})
        assert status == 400 and "reads no history" in answer["error"]


def test_what_keeps_states(din, monkeypatch):
    with pytest.raises(UsageError, match="2 workers"):
        Client(din, workers=2)
    client = Client(din)
    store = client.app.models.find(DIN, None).states.store

    def fails(keys):
        raise StoreError("redis", found="no answer")

    monkeypatch.setattr(store, "get", fails)
    status, headers, answer = client.ask("POST", INFER, infer_request([plain(EVENTS[0])]))
    assert status == 503 and headers["retry-after"] == "5" and "redis" not in answer["error"]
