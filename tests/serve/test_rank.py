"""`/v1/rank`: candidates in a context have the scores that `infer` gives the same rows, best first."""

from __future__ import annotations

import numpy as np
import pytest
from served_models import infer_request, raw_rows, scores, table_rows

RANK, KUAIRAND = "/v1/rank", "/v2/models/kuairand/infer"
CONTEXT = raw_rows()[60]
VIDEOS = [100 + index for index in range(12)] + [999, None, "103"]


def context(*without):
    return {name: value for name, value in CONTEXT.items() if name not in without}


def by_index(client, body):
    status, _, content = client.ask("POST", RANK, {"model": "kuairand", **body})
    assert status == 200, content
    ranked = content["ranked"]
    assert [entry["score"] for entry in ranked] == sorted((entry["score"] for entry in ranked), reverse=True)
    return {entry["index"]: entry["score"] for entry in ranked}, ranked


def of_rows(client, rows, model="kuairand"):
    found = []
    for row in rows:
        found += scores(client.ask("POST", f"/v2/models/{model}/infer", infer_request([row], {"video_id": "BYTES"})))
    return found


def test_bare_keys(client):
    found, ranked = by_index(client, {"context": context("video_id"), "candidates": VIDEOS})
    texts = [None if video is None else str(video) for video in VIDEOS]
    expected = of_rows(client, [{**CONTEXT, "video_id": video} for video in texts])
    np.testing.assert_allclose([found[index] for index in range(len(VIDEOS))], expected, atol=1e-7)
    assert [entry["key"] for entry in ranked] == [VIDEOS[entry["index"]] for entry in ranked]
    top, _ = by_index(client, {"context": context("video_id"), "candidates": VIDEOS, "top": 3})
    assert list(top) == [entry["index"] for entry in ranked[:3]]


@pytest.mark.parametrize("columns", [("video_id", "duration_ms"), ("user_id",), ("user_id", "hourmin", "tab"),
                                     tuple(CONTEXT)])
def test_objects(client, columns):
    """Whatever the candidates bring along, the rest is the context's."""
    rows = raw_rows()[:40]
    candidates = [{name: row[name] for name in columns} for row in rows]
    found, _ = by_index(client, {"context": context(*columns), "candidates": candidates})
    expected = scores(client.ask("POST", KUAIRAND, infer_request([CONTEXT | candidate for candidate in candidates])))
    np.testing.assert_allclose([found[index] for index in range(len(rows))], expected, atol=1e-7)
    over, _ = by_index(client, {"context": CONTEXT, "candidates": candidates})
    assert over == found


def test_many_candidates(client):
    videos = [100 + index % 15 for index in range(1200)]
    found, _ = by_index(client, {"context": context("video_id"), "candidates": videos})
    few, _ = by_index(client, {"context": context("video_id"), "candidates": videos[:15]})
    np.testing.assert_allclose([found[index] for index in range(1200)], [few[index % 15] for index in range(1200)],
                               atol=1e-7)


def test_lists(client):
    rows = [{name: value for name, value in row.items() if name != "label"} for row in table_rows(12)]
    tags, others = [row["tags"] for row in rows], {name: rows[0][name] for name in rows[0] if name != "tags"}
    for candidates in (tags, [{"tags": text.split(";") if text else []} for text in tags]):
        _, _, content = client.ask("POST", RANK, {"model": "table", "context": others, "candidates": candidates})
        found = {entry["index"]: entry["score"] for entry in content["ranked"]}
        np.testing.assert_allclose([found[index] for index in range(12)],
                                   of_rows(client, [{**others, "tags": text} for text in tags], "table"), atol=1e-7)
    cities = ["Oslo", "Bergen", "Paris"]
    context = {name: value for name, value in rows[1].items() if name != "city"} | {"tags": ["a", "c"]}
    _, _, content = client.ask("POST", RANK, {"model": "table", "context": context, "candidates": cities})
    found = {entry["key"]: entry["score"] for entry in content["ranked"]}
    expected = of_rows(client, [{**context, "tags": "a;c", "city": city} for city in cities], "table")
    np.testing.assert_allclose([found[city] for city in cities], expected, atol=1e-7)


@pytest.mark.parametrize(("body", "said"), [
    ({}, "candidates"), ({"candidates": []}, "candidates"), ({"candidates": 3}, "candidates"),
    ({"candidates": [1] * 20_001}, "20,001"), ({"candidates": [1, {}]}, "several kinds"),
    ({"candidates": [[1], [2]]}, "several kinds"), ({"context": [], "candidates": [1]}, "context"),
    ({"context": {"tab": {}}, "candidates": [1]}, "context"),
    ({"context": context("video_id", "tab"), "candidates": [1]}, "without video_id, tab"),
    ({"context": CONTEXT, "candidates": [1]}, "lacks one column"),
    ({"context": context("video_id", "tab"), "candidates": [{"video_id": 1}]}, "no column 'tab'"),
    ({"context": context("video_id", "user_id"), "candidates": [{"video_id": 1}]}, "no column 'user_id'"),
    ({"context": context("video_id"), "candidates": [{"video_id": 1}, {}]}, "candidate 1"),
    ({"context": context("video_id"), "candidates": [{"video_id": {}}]}, "an object"),
    ({"context": context("video_id"), "candidates": [1], "top": 0}, "top"),
    ({"context": context("video_id"), "candidates": [1], "top": "3"}, "top"),
    ({"context": context("video_id"), "candidate": [1]}, "did you mean 'candidates'"),
    ({"model": 3, "candidates": [1]}, "model"), ({"model": None, "candidates": [1]}, "kuairand, table"),
    ({"context": context("video_id") | {"duration_ms": "1_0"}, "candidates": [1]}, "a number"),
    ({"context": context("duration_ms"), "candidates": [7, "x"]}, "a number"),
])
def test_what_is_no_request_is_told(client, body, said):
    status, _, answer = client.ask("POST", RANK, {"model": "kuairand", **body})
    assert status == 400 and said in answer["error"] and len(answer["error"]) < 700, answer


def test_a_model_that_is_not_served(client):
    assert client.ask("POST", RANK, {"model": "other", "candidates": [1]})[0] == 404
