"""Requests that are broken in many ways: one message each, never a fault of ours, and nothing is left in memory."""

from __future__ import annotations

import copy
import http.client
import json
import random
import re
from pathlib import Path

import pytest
from served_models import Client, infer_request, raw_rows, running

RANK = {"context": {name: value for name, value in raw_rows(1)[0].items() if name != "video_id"},
        "candidates": [100, 101, {"video_id": 103}, None], "top": 3, "history": [100], "model": "kuairand"}
BODIES = {"/v2/models/kuairand/infer": infer_request(raw_rows(3)) | {"id": "a", "parameters": {"encoded": False},
                                                                    "outputs": [{"name": "probability"}]},
          "/v1/rank": RANK, "/v1/events": {"events": raw_rows(3), "model": "kuairand"},
          "/v2/repository/models/kuairand/load": {"parameters": {"folder": "x", "version": "1"}},
          "/v2/repository/models/kuairand/unload": {"parameters": {"version": "7"}}}
ODD = [None, True, False, 0, -1, 1.5, 10**9, 2**63, -2**70, 1e308, "", "x", "\0", "NaN", "🙂" * 50, [], {}, [[]],
       [[1, 2], 3], [None], {"a": {"b": []}}, ["x"] * 300, "9" * 5000]


def nodes(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from nodes(value[key], (*path, key))


def broken(dice):
    """A path, a body and headers, something of which is probably wrong."""
    path = dice.choice(list(BODIES))
    body = copy.deepcopy(BODIES[path])
    for _ in range(dice.choice([1, 1, 2, 4])):
        where = dice.choice([node for node in nodes(body) if node] or [()])
        if not where:
            break
        of = body
        for key in where[:-1]:
            of = of[key]
        if dice.random() < 0.2:
            del of[where[-1]]
        else:
            of[where[-1]] = copy.deepcopy(dice.choice(ODD))
    text, headers = json.dumps(body).encode(), {}
    if dice.random() < 0.15:
        text = text[:dice.randrange(len(text))]
    if dice.random() < 0.1:
        text = bytes(byte ^ (1 << dice.randrange(8)) if dice.random() < 0.02 else byte for byte in text)
    if dice.random() < 0.15:
        headers["Inference-Header-Content-Length"] = str(dice.choice([0, 1, len(text) - 1, len(text), len(text) + 1,
                                                                      -1, 10**15, "x"]))
    if dice.random() < 0.05:
        headers["Deadline-Ms"] = dice.choice(["0", "-1", "x", "1e9"])
    return path, text, headers


def check(status, answer):
    assert status == 200 or (400 <= status < 500 or status == 504) and list(answer) == ["error"], answer
    if status != 200:
        assert "found" in answer["error"] and len(answer["error"]) < 3000 and "Traceback" not in answer["error"]


def test_broken_requests(kuairand, capsys):
    client, dice, refused = Client(kuairand), random.Random(1), 0
    for _ in range(400):
        path, text, headers = broken(dice)
        status, _, answer = client.ask("POST", path, text, headers)
        check(status, answer)
        refused += status != 200
    assert refused >= 300 and capsys.readouterr().err == ""
    assert client.ask("POST", "/v2/models/kuairand/infer", infer_request(raw_rows(3)))[0] in (200, 404)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_nothing_is_left_in_memory(kuairand):
    """Of many thousands of broken requests to a real server."""
    dice, resident = random.Random(2), []
    with running(kuairand, "--no-access-log") as (process, address):
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
        for _ in range(4):
            for _ in range(3000):
                path, text, headers = broken(dice)
                if path.endswith("unload"):
                    continue
                connection.request("POST", path, text, headers)
                answer = connection.getresponse()
                check(answer.status, json.loads(answer.read()))
            resident.append(int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]))
        connection.close()
        process.terminate()
        assert process.wait() == 143 and process.stderr.read() == ""
    assert resident[3] - resident[1] < 4_000, resident  # kB
