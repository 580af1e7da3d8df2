"""Requests that come at the same moment are scored together, at most so many of them, and not after their deadline."""

from __future__ import annotations

import re

import numpy as np
from served_models import Client, infer_request, raw_rows, scores

KUAIRAND = "/v2/models/kuairand/infer"
ROWS = raw_rows()


def batches(client):
    """How often so many rows were scored together."""
    _, _, text = client.ask("GET", "/metrics")
    bounds = re.findall(r'clickwise_batch_rows_bucket\{le="(\S+)"\} (\d+)', text.decode())
    counts = [int(count) for _, count in bounds]
    return {bound: after - before for (bound, _), before, after in zip(bounds, [0, *counts], counts, strict=False)
            if after > before}


def test_what_comes_together_is_scored_together(client):
    alone = [scores(client.ask("POST", KUAIRAND, infer_request([row])))[0] for row in ROWS[:20]]
    assert batches(client) == {"1": 20}
    together = client.ask_together(*(("POST", KUAIRAND, infer_request([row])) for row in ROWS[:20]))
    np.testing.assert_allclose([scores(answer)[0] for answer in together], alone, atol=1e-7)
    assert batches(client) == {"1": 20, "32": 1}


def test_requests_of_several_sizes_models_and_mistakes(client):
    asked = [("POST", KUAIRAND, infer_request(ROWS[:3])), ("POST", KUAIRAND, infer_request(ROWS[:60])),
             ("POST", KUAIRAND, infer_request([ROWS[0] | {"duration_ms": "x"}], {"duration_ms": "BYTES"})),
             ("POST", "/v2/models/kuairand/versions/1/infer", infer_request(ROWS[:1])), ("POST", KUAIRAND, {})]
    alone = [client.ask(*request) for request in asked]
    together = client.ask_together(*asked)
    assert [answer[0] for answer in together] == [answer[0] for answer in alone] == [200, 200, 400, 200, 400]
    for index in (0, 1, 3):
        np.testing.assert_allclose(scores(together[index]), scores(alone[index]), atol=1e-7)


def test_a_large_request_is_scored_beside_small_ones(client):
    many = [ROWS[index % len(ROWS)] for index in range(600)]
    large, small = client.ask_together(("POST", KUAIRAND, infer_request(many)),
                                       ("POST", KUAIRAND, infer_request(ROWS[:1])))
    np.testing.assert_allclose(scores(large)[:len(ROWS)], scores(client.ask("POST", KUAIRAND, infer_request(ROWS))),
                               atol=1e-7)
    np.testing.assert_allclose(scores(small), scores(large)[:1], atol=1e-7)
    assert batches(client)["1024"] == 1


def test_at_most_so_many_wait(kuairand):
    client = Client(kuairand, queue=5)
    answers = client.ask_together(*(("POST", KUAIRAND, infer_request([row])) for row in ROWS[:12]))
    assert [answer[0] for answer in answers] == [200] * 5 + [503] * 7
    assert answers[-1][1]["retry-after"] == "1" and "ask again" in answers[-1][2]["error"]
    for row, answer in zip(ROWS[:5], answers, strict=False):
        alone = scores(client.ask("POST", KUAIRAND, infer_request([row])))
        np.testing.assert_allclose(scores(answer), alone, atol=1e-7)
    text = client.ask("GET", "/metrics")[2].decode()
    assert 'clickwise_requests_total{route="infer",status="503"} 7' in text


def test_a_deadline_that_has_passed(client, kuairand):
    many = [ROWS[index % len(ROWS)] for index in range(600)]
    for rows in (ROWS[:1], many):
        status, _, answer = client.ask("POST", KUAIRAND, infer_request(rows), {"Deadline-Ms": 0})
        assert status == 504 and "deadline" in answer["error"]
        assert client.ask("POST", KUAIRAND, infer_request(rows), {"Deadline-Ms": 60_000})[0] == 200
    assert client.ask("POST", KUAIRAND, infer_request(ROWS[:1]), {"Deadline-Ms": "soon"})[0] == 400
    assert Client(kuairand, deadline=1e-9).ask("POST", KUAIRAND, infer_request(ROWS[:1]))[0] == 504
