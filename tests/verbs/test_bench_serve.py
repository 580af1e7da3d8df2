"""`clickwise bench --what serve`: an open loop sends what is due, a closed one goes on when it is answered, and both
say what became of it; which model of a server is asked."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading

import numpy as np
import pandas as pd
import pytest
from served_models import running

import clickwise as cw
from clickwise.errors import DataError
from clickwise.verbs.asked_server import AskedServer
from clickwise.verbs.closed_loop import closed_loop
from clickwise.verbs.open_loop import open_loop

SETTINGS = {"train.epochs": 1, "train.batch_size": 64, "model.cross_rank": 4, "model.bottom_mlp": [8],
            "model.top_mlp": [8]}


@pytest.fixture
def server():
    """Answers 200, but 503 to every request that says so, and closes after one that says so; `asked` is what came."""
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            while line := self.rfile.readline().decode():
                while self.rfile.readline() != b"\r\n":
                    pass
                found.asked.append(line.split()[1])
                status = b"503 Busy" if "busy" in line else b"200 OK"
                if "hang-up" in line:
                    return
                self.wfile.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")

    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as found:
        found.daemon_threads, found.asked = True, []
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def request(path):
    return f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def test_every_request_is_sent_and_counted(server):
    host, port = server.server_address
    outcome = open_loop(host, port, [request("a"), request("busy"), request("c")], 300, 0.3, connections=5)
    assert len(outcome.status) == 90 and sorted(set(server.asked)) == ["/a", "/busy", "/c"]
    assert outcome.status.reshape(-1, 3).tolist() == [[200, 503, 200]] * 30
    assert np.isfinite(outcome.latency_s).all() and (outcome.latency_s > 0).all()


def test_a_connection_that_is_closed_is_opened_again(server):
    host, port = server.server_address
    outcome = open_loop(host, port, [request("hang-up"), request("b")], 100, 0.2, connections=1)
    assert outcome.status.reshape(-1, 2).tolist() == [[0, 200]] * 10


@pytest.mark.parametrize("connections", [1, 3])
def test_a_closed_loop_asks_again_when_it_is_answered(server, connections):
    host, port = server.server_address
    outcome = closed_loop(host, port, [request("a"), request("busy"), request("hang-up")], 0.2, connections=connections)
    assert len(outcome.status) == len(server.asked) > 3 * connections
    for path, status in (("/a", 200), ("/busy", 503), ("/hang-up", 0)):
        assert (outcome.status == status).sum() == server.asked.count(path) > 0
    assert (np.isfinite(outcome.latency_s) == (outcome.status != 0)).all() and (outcome.latency_s > 0).all()
    with pytest.raises(OSError):
        closed_loop(host, 9, [request("a")], 0.1)


def test_the_model_of_a_server_that_takes_raw_rows(repository):
    """As Triton lists a repository: what is not loaded has no state."""
    found = AskedServer.at(repository, "shops")
    assert found == AskedServer.at(repository) == AskedServer(repository, "shops_raw", ("town", "price"))
    assert AskedServer.at(repository, "other").model == "other"
    with pytest.raises(DataError, match="other, shops, shops_raw"):
        AskedServer.at(repository, "unloaded")
    body = json.loads(found.request([{"town": "Oslo", "price": None, "more": 1}]).partition(b"\r\n\r\n")[2])
    assert [(each["datatype"], each["shape"], each["data"]) for each in body["inputs"]] == [
        ("BYTES", [1, 1], ["Oslo"]), ("BYTES", [1, 1], [""])]


@pytest.fixture
def repository():
    told = {"/v2/repository/index": [{"name": "shops", "state": "READY"}, {"name": "shops_raw", "state": "READY"},
                                     {"name": "other", "state": "READY"}, {"name": "unloaded"}],
            "/v2/models/shops_raw": {"inputs": [{"name": "town"}, {"name": "price"}]},
            "/v2/models/other": {"inputs": [{"name": "id"}]}}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(told[self.path]).encode())

        do_POST = do_GET

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    data = pd.DataFrame({"town": ["Oslo", "Bonn", "Rome", "Oslo"] * 60, "click": [1, 0, 0, 1] * 60})
    return cw.fit(data, label="click", test=0.2, settings=SETTINGS).export(tmp_path_factory.mktemp("m") / "towns")


@pytest.mark.slow
def test_of_an_export(exported, clickwise):
    result = clickwise("bench", exported, "--what", "serve", "--rates", "20,40", "--seconds", "0.5", "--batch-sizes",
                       "1,3", "--json")
    assert result.code == 0, result.err
    rows = json.loads(result.out)["rows"]
    assert [(row["batch_size"], row["rate"]) for row in rows] == [(1, 20), (1, 40), (3, 20), (3, 40)]
    assert all(row["failed"] == row["shed"] == 0 and row["ms_p50"] > 0 for row in rows)
    result = clickwise("bench", exported, "--what", "inference", "--steps", 5, "--json")
    assert [row["batch_size"] for row in json.loads(result.out)["rows"]] == [1, 64, 2048]


def test_of_an_address(exported, clickwise, tmp_path):
    (tmp_path / "rows.csv").write_text("click,town\n1,Oslo\n0,\n")
    (tmp_path / "other.csv").write_text("click,city\n1,Oslo\n")
    (tmp_path / "none.csv").write_text("click,town\n")
    with running(exported, "--no-access-log") as (_, address):  # nobody reads it
        words = ("bench", address, "--what", "serve", "--connections", 1, "--seconds", "0.2")
        result = clickwise(*words, "--batch-sizes", "1,3", "--input", tmp_path / "rows.csv", "--json")
        assert result.code == 0, result.err
        rows = json.loads(result.out)["rows"]
        assert [(row["batch_size"], row["rate"]) for row in rows] == [(1, None), (3, None)]
        assert all(row["failed"] == row["shed"] == 0 < row["rows_per_s"] for row in rows)
        for file, code, said in (((), 2, "--input"), (("--input", tmp_path / "other.csv"), 1, "town"),
                                 (("--input", tmp_path / "none.csv"), 1, "no rows")):
            result = clickwise(*words, *file)
            assert result.code == code and said in result.err and "Traceback" not in result.err, result.err


def test_what_cannot_be(clickwise, tmp_path, exported):
    for words, code, said in (((tmp_path, "--what", "serve"), 1, "clickwise train"),
                              ((exported, "--what", "serve", "--rates", "fast"), 2, "--rates"),
                              ((exported, "--what", "serve", "--url", "http://127.0.0.1:9"), 1, "127.0.0.1:9")):
        result = clickwise("bench", *words)
        assert result.code == code and said in result.err and "Traceback" not in result.err, result.err
