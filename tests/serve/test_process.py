"""A real server: workers that are replaced, signals, limits, a token, TLS, and versions that change under load."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from served_models import infer_request, made, raw_rows, running, scores

INFER = "/v2/models/kuairand/infer"
BODY = json.dumps(infer_request(raw_rows(2))).encode()
TOKEN = "0123456789abcdef0123"


def ask(address, method, path, body=b"", headers=None, context=None):
    """Status, headers, and the body, of a new connection."""
    where = re.fullmatch(r"(https?)://(.+):(\d+)", address)
    made = http.client.HTTPSConnection(where[2], int(where[3]), timeout=30, context=context) if where[1] == "https" \
        else http.client.HTTPConnection(where[2], int(where[3]), timeout=30)
    made.request(method, path, body, headers or {})
    answer = made.getresponse()
    content = answer.read()
    made.close()
    is_json = answer.headers["content-type"] == "application/json"
    return answer.status, answer.headers, json.loads(content) if is_json else content.decode()


def connected(address):
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def until_closed(connection):
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


@pytest.fixture(scope="module")
def one(kuairand):
    """A server with one worker and short patience."""
    with running(kuairand, "--read-timeout", 0.3, "--body-limit", 20_000, "--no-access-log") as (process, address):
        yield process, address


def test_a_server_that_imports_neither_torch_nor_the_engines_of_preparation(kuairand, tmp_path):
    code = ("import sys\nfor name in ('torch', 'ibis', 'duckdb', 'onnx'): sys.modules[name] = None\n"
            "from clickwise.cli import main\nmain()")
    with open(tmp_path / "err", "w+") as err:
        process = subprocess.Popen([sys.executable, "-c", code, "serve", str(kuairand), "--port", "0"], text=True,
                                   stdout=subprocess.PIPE, stderr=err)
        line = process.stdout.readline()
        assert line.startswith("ready"), (tmp_path / "err").read_text()
        found = scores(ask(line.split()[1], "POST", INFER, BODY))
        status, _, answer = ask(line.split()[1], "POST", "/v1/rank", json.dumps(
            {"context": {name: value for name, value in raw_rows(1)[0].items() if name != "video_id"},
             "candidates": [100]}))
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143 and len(found) == 2 and status == 200
        process.stdout.close()
        err.seek(0)
        assert re.search(rf"POST {INFER} 200 \d+\.\d ms", err.read())


def test_heads_and_bodies_that_are_too_large(one):
    _, address = one
    status, headers, answer = ask(address, "POST", INFER, b" " * 20_001)
    assert status == 413 and headers["connection"] == "close" and "20,000" in answer["error"]
    with connected(address) as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % INFER.encode())
        for _ in range(30):
            connection.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert until_closed(connection).startswith(b"HTTP/1.1 413")
    for head in (b"GET /v2 HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 40_000 + b"\r\n\r\n",
                 b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
                 b"GET /v2 HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 20_000):
        with connected(address) as connection:
            connection.sendall(head)
            connection.shutdown(socket.SHUT_WR)
            assert until_closed(connection).startswith(b"HTTP/1.1 431")
    for head in (b"nonsense\r\n\r\n", b"GET /v2 HTTP/1.1\r\nhost x\r\n\r\n",
                 b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: -3\r\n\r\n" % INFER.encode(),
                 b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd" % INFER.encode()):
        with connected(address) as connection:
            connection.sendall(head)
            connection.shutdown(socket.SHUT_WR)
            answer = until_closed(connection)
            assert answer.startswith(b"HTTP/1.1 400") and b'{"error":' in answer, answer
    status, _, answer = ask(address, "POST", INFER, BODY, {"Content-Encoding": "gzip"})
    assert status == 415


def test_clients_that_are_slow(one):
    """A head, or a body, that does not come is not waited for; a connection on which nothing comes is closed."""
    _, address = one
    for begun in (b"POST %s HT" % INFER.encode(),
                  b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{" % INFER.encode()):
        with connected(address) as connection:
            connection.sendall(begun)
            assert until_closed(connection).startswith(b"HTTP/1.1 408")
    with connected(address) as connection:
        assert until_closed(connection) == b""
    assert ask(address, "POST", INFER, BODY)[0] == 200


def test_requests_one_after_the_other_on_one_connection(one):
    _, address = one
    head = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % (INFER.encode(), len(BODY))
    with connected(address) as connection:
        connection.sendall((head + b"\r\n" + BODY) * 5 + head + b"connection: close\r\n\r\n" + BODY)
        found = until_closed(connection)
        assert found.count(b"HTTP/1.1 200") == 6 and found.count(b'"probability"') == 6
    with connected(address) as connection:  # a byte at a time
        for byte in head + b"connection: close\r\nexpect: 100-continue\r\n\r\n" + BODY[:200]:
            connection.sendall(bytes([byte]))
        connection.sendall(BODY[200:])
        assert until_closed(connection).split(b"\r\n\r\n")[-2].startswith(b"HTTP/1.1 200")


def test_sigterm_answers_what_came(kuairand):
    """A request that has begun is answered; the process ends with 143, and nothing is printed as an error."""
    with running(kuairand, "--no-access-log", stop=False) as (process, address):
        with connected(address) as connection:
            connection.sendall(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (INFER.encode(),
                                                                                              len(BODY)) + BODY[:9])
            assert ask(address, "GET", "/v2/health/ready")[0] == 200  # it came after those bytes
            process.send_signal(signal.SIGTERM)
            while connect_fails_not(address):
                pass
            connection.sendall(BODY[9:])
            found = until_closed(connection)
            assert found.startswith(b"HTTP/1.1 200") and b"connection: close" in found
        assert process.wait() == 143
        assert process.stderr.read() == ""


def connect_fails_not(address):
    try:
        connected(address).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def several(kuairand, kuairand_trained, tmp_path_factory):
    """A server with two workers, and a folder from which it may load."""
    root = tmp_path_factory.mktemp("root")
    made(kuairand_trained, root / "second", name="kuairand", version="2")
    with running(kuairand, "--workers", 2, "--root", root, "--no-access-log") as (process, address):
        yield process, address


def workers(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def counted(address):
    text = ask(address, "GET", "/metrics")[2]
    return int(re.search(r'requests_total\{route="infer",status="200"\} (\d+)', text)[1])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for child processes in /proc")
def test_workers_are_replaced_and_counted_together(several):
    process, address = several
    before = counted(address)
    for _ in range(20):
        assert ask(address, "POST", INFER, BODY)[0] == 200
    assert counted(address) == before + 20
    old = workers(process)
    assert len(old) == 2
    os.kill(old[1], signal.SIGKILL)
    end = time.monotonic() + 30
    while (now := workers(process)) == old or len(now) < 2:
        assert time.monotonic() < end
    for _ in range(20):
        assert ask(address, "POST", INFER, BODY)[0] == 200
    assert counted(address) == before + 40
    assert process.poll() is None


def test_a_version_changes_while_requests_come_and_none_is_lost(several):
    process, address = several
    versions, failed, stop = [], [], threading.Event()

    def keep_asking():
        while not stop.is_set():
            status, _, content = ask(address, "POST", INFER, BODY)
            (versions if status == 200 else failed).append(content.get("model_version"))

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for parameters, expected in (({"folder": "second"}, "2"), ({"version": "1"}, "1"), ({"version": "2"}, "2")):
            status, _, content = ask(address, "POST", "/v2/repository/models/kuairand/load",
                                     json.dumps({"parameters": parameters}))
            assert status == 200, content
            for _ in range(8):  # whichever worker answers
                assert ask(address, "POST", INFER, BODY)[2]["model_version"] == expected
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed and set(versions) == {"1", "2"}
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143


def test_a_token(kuairand, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    with running(kuairand, "--token-file", tmp_path / "token", "--no-access-log") as (_, address):
        assert ask(address, "GET", "/v2/health/ready")[0] == 200
        for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": TOKEN},
                        {"Authorization": f"Bearer {TOKEN}x"}):
            status, told, answer = ask(address, "POST", INFER, BODY, headers)
            assert status == 401 and told["www-authenticate"] == "Bearer" and TOKEN not in answer["error"]
        assert ask(address, "POST", INFER, BODY, {"Authorization": f"Bearer {TOKEN}"})[0] == 200


def test_an_address_that_others_reach_takes_nothing_without_a_token(kuairand, tmp_path):
    with running(kuairand, "--host", "0.0.0.0", "--root", tmp_path, "--no-access-log") as (_, address):
        assert ask(address, "POST", INFER, BODY)[0] == 200
        for method, path in (("POST", "/v2/repository/models/kuairand/load"), ("POST", "/v1/events"),
                             ("POST", "/v2/repository/models/kuairand/unload"), ("DELETE", "/v1/users/7")):
            status, _, answer = ask(address, method, path, b"{}")
            assert status == 403 and "--token-file" in answer["error"]


def test_tls(kuairand, tmp_path):
    done = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out",
                           "cert.pem", "-days", "2", "-subj", "/CN=localhost", "-addext",
                           "subjectAltName=IP:127.0.0.1"], cwd=tmp_path, capture_output=True)
    if done.returncode:
        pytest.skip("no openssl that makes a certificate")
    words = ("--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem", "--no-access-log")
    with running(kuairand, *words) as (_, address):
        assert address.startswith("https://")
        trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        assert ask(address, "POST", INFER, BODY, context=trusting)[0] == 200


def test_what_cannot_be_served(clickwise, kuairand, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "short").write_text("secret")
        for words, code, said in (
                ((tmp_path / "gone",), 1, "no such folder"), ((tmp_path,), 1, "signature.json"),
                ((kuairand, "--port", port), 2, f"--port {port}"), ((kuairand, "--host", "no.host.invalid"), 2, "host"),
                ((kuairand, "--token-file", tmp_path / "short"), 2, "6 characters"),
                ((kuairand, "--tls-cert", tmp_path / "short"), 2, "--tls-key"),
                ((kuairand, kuairand, "--name", "x"), 2, "2 exports"),
                ((kuairand, "--root", tmp_path / "gone"), 2, "gone"),
                ((kuairand, kuairand), 2, "a second time")):
            result = clickwise("serve", *words, *(() if "--port" in words else ("--port", 0)))
            assert result.code == code and said in result.err + str(words) and "Traceback" not in result.err, (
                words, result.err)
    words = ("serve", str(tmp_path), "--workers", "2", "--port", "0")
    done = subprocess.run([sys.executable, "-m", "clickwise.cli", *words], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("signature.json") == 1 and "Traceback" not in done.stderr
    assert done.stdout == ""
