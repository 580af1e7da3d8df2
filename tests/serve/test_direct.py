"""Small requests are scored without a task, and answered to the byte as the common way answers them."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
import uvicorn
from served_models import Client, infer_request, raw_rows
from uvicorn.server import ServerState

from clickwise.serve.app import App
from clickwise.serve.connections import Connection
from clickwise.serve.direct import SMALL

INFER, ROWS = "/v2/models/kuairand/infer", raw_rows()
ONE = infer_request(ROWS[:1])


@pytest.fixture
def common(monkeypatch):
    """The paths of requests that went the common way."""
    found, call = [], App.__call__

    async def noted(self, scope, receive, send):
        found.append(scope["path"])
        await call(self, scope, receive, send)

    monkeypatch.setattr(App, "__call__", noted)
    return found


def sent(app, *requests, hang_up=False):
    """What comes back on one connection for these bytes, each sent when the one before it is answered."""
    async def ask():
        config, state = uvicorn.Config(app, ws="none", lifespan="off", interface="asgi3", log_config=None,
                                       access_log=False, server_header=False, date_header=False,
                                       proxy_headers=False), ServerState()
        config.load()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0)
        answers = []
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for request in requests:
                writer.write(request)
                if not hang_up:
                    answers.append(await answer(reader))
            writer.close()
            while state.connections or state.tasks:
                await asyncio.sleep(0)
        return answers

    return asyncio.run(ask())


async def answer(reader):
    """Status, headers, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


def posted(content, headers=None, path=INFER):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}",
             *(f"{name}: {value}" for name, value in (headers or {}).items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


MANY = [ROWS[index % len(ROWS)] for index in range(600)]
CASES = {
    "one row": (ONE, {}, 200),
    "in a thread": ({"inputs": [{**tensor, "data": [str(value)[:6] for value in tensor["data"]], "datatype": "BYTES"}
                                for tensor in infer_request(MANY)["inputs"]]}, {}, 200),
    "binary, with an id": ({**ONE, "id": "x", "parameters": {"binary_data_output": True}}, {}, 200),
    "a value that cannot be read": (infer_request([ROWS[0] | {"duration_ms": "x"}], {"duration_ms": "BYTES"}), {}, 400),
    "no JSON": (b"{", {}, 400),
    "nothing": (b"", {}, 400),
    "compressed": (ONE, {"Content-Encoding": "gzip"}, 415),
    "a deadline": (ONE, {"Deadline-Ms": 0}, 504),
    "no deadline": (ONE, {"Deadline-Ms": "soon"}, 400)}


@pytest.mark.parametrize("case", CASES)
def test_as_the_common_way(client, common, case):
    content, headers, status = CASES[case]
    (found,) = sent(client.app, posted(content, headers))
    assert common == [] and found[0] == status
    expected = client.ask("POST", INFER, content, headers)
    assert common == [INFER]
    body = found[2]
    assert expected == (status, found[1], json.loads(body) if found[1]["content-type"] == "application/json" else body)
    told = client.ask("GET", "/metrics")[2].decode()
    assert f'clickwise_requests_total{{route="infer",status="{status}"}} 2' in told


def test_a_token(kuairand, common):
    client = Client(kuairand, token=b"secret")
    assert sent(client.app, posted(ONE))[0][0] == 401
    assert sent(client.app, posted(ONE, {"Authorization": "Bearer secret"}))[0][0] == 200
    assert common == []


def test_a_full_queue(kuairand, common):
    full, headers, body = sent(Client(kuairand, queue=0).app, posted(ONE))[0]
    assert (full, headers["retry-after"]) == (503, "1") and b"ask again" in body and common == []


def test_what_goes_the_common_way(client, common):
    expected = client.ask("POST", INFER, ONE)[2]
    body = json.dumps(ONE).encode()
    wide = json.dumps(ONE).encode() + b" " * SMALL
    chunked = posted(b"", {"Transfer-Encoding": "chunked"}).replace(b"Content-Length: 0\r\n", b"")
    chunked += b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    for request in (posted(wide), chunked, posted(ONE, {"Connection": "close"}),
                    posted(ONE).replace(b"HTTP/1.1", b"HTTP/1.0"), posted(ONE, path=INFER.replace("k", "%6B"))):
        common.clear()
        ((status, _, found),) = sent(client.app, request)
        assert (status, json.loads(found), len(common)) == (200, expected, 1), request
    common.clear()
    first, second, third = sent(client.app, posted(ONE) * 2, b"", posted(ONE))  # two at once, then one
    assert [json.loads(found) for _, _, found in (first, second, third)] == [expected] * 3
    assert common == [INFER]


def test_a_client_that_goes(client, common):
    for rows in (ROWS[:1], MANY):
        sent(client.app, posted(infer_request(rows)), hang_up=True)
        assert len(client.app.queue) == 0
    assert sent(client.app, posted(ONE), posted(ONE))[1][0] == 200


def test_a_mistake_of_ours_has_a_number(client, common, monkeypatch):
    """Wherever it happens; the connection and the queue go on."""
    for name in ("read", "answer"):
        with monkeypatch.context() as patch, contextlib.suppress(ZeroDivisionError):
            patch.setattr(App, name, lambda *words: 1 / 0)
            status, _, body = sent(client.app, posted(ONE))[0]
            assert status == 500 and b"number" in body
    assert sent(client.app, posted(ONE))[0][0] == 200 and common == []
