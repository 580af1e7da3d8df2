"""Each store by its own: which text names it, and what is said where it cannot be used."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess

import pytest
from stores import DURABLE, redis_server

from clickwise.errors import RecipeError, StoreError, UsageError
from clickwise.serve.states import open_store
from clickwise.serve.states.memory import MemoryStore
from clickwise.serve.states.redis_store import PASSWORD
from clickwise.serve.states.sqlite import SqliteStore

RECORDS = {("u", "a"): b"1"}


class Own(MemoryStore):
    """A store of one's own."""

    def __init__(self, place="nowhere"):
        super().__init__()
        self.place = place


def put(store):
    store.update([], lambda _: RECORDS)
    return store


def test_a_text_names_a_store(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    assert type(open_store("memory")) is MemoryStore
    assert type(open_store(f"sqlite:{tmp_path}/a:b=c.db")) is SqliteStore and (tmp_path / "a:b=c.db").exists()
    assert open_store("test_stores.Own").place == "nowhere"
    assert open_store("test_stores:Own=tcp://host:1/x=y").place == "tcp://host:1/x=y"


@pytest.mark.parametrize("text", ["sqlite", "sqlite:", "memory:x", "redis", "redis:localhost", "nothing", "", "a.b=c",
                                  "json.nothing"])
def test_what_names_none(text):
    with pytest.raises(RecipeError, match="--states"):
        open_store(text)


def test_the_file_of_sqlite(tmp_path):
    path = tmp_path / "states.db"
    store = put(SqliteStore(path))
    store.update([], lambda _: {("user 77 of ours", "a"): b"what was watched"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in (
        "journal_mode", "synchronous", "secure_delete")] == ["wal", 2, 1]
    store.replace("user 77 of ours", {})
    for file in tmp_path.iterdir():  # the log of changes is one of them
        assert b"user 77" not in file.read_bytes() and b"watched" not in file.read_bytes()
    store.close()
    assert store.get([*RECORDS]) == [b"1"]  # opens itself again


def test_files_that_are_no_states(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE records (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="other.db\n.*another program"):
        SqliteStore(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["other.db"]
    path.write_bytes(b"no database at all, but long enough to look at: " * 99)
    with pytest.raises(StoreError, match="not a database"):
        SqliteStore(path)
    for place in (tmp_path, tmp_path / "none/states.db"):
        with pytest.raises(StoreError, match="permissions"):
            SqliteStore(place)


def test_a_sqlite_file_that_is_damaged_later(tmp_path):
    path = tmp_path / "states.db"
    store = put(SqliteStore(path))
    store.replace("v", {})  # into the file itself
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="malformed"):
        SqliteStore(path).get([*RECORDS])


def test_a_redis_with_a_password(tmp_path, monkeypatch):
    with redis_server(tmp_path, *DURABLE, "--requirepass", "open:sesame") as port:
        url = f"redis://:open%3Asesame@127.0.0.1:{port}/0"
        put(open_store(url))
        monkeypatch.setenv(PASSWORD, "open:sesame")
        assert open_store(f"redis://127.0.0.1:{port}").get([*RECORDS]) == [b"1"]
        monkeypatch.delenv(PASSWORD)
        for wrong in (f"redis://127.0.0.1:{port}", f"redis://:shut%3Asesame@127.0.0.1:{port}/0"):
            with pytest.raises(StoreError, match=f"redis://127.0.0.1:{port}") as caught:
                open_store(wrong)
            assert "sesame" not in str(caught.value)
        store = open_store(url)
    with pytest.raises(StoreError, match="a Redis that answers"):
        store.get([*RECORDS])
    with pytest.raises(StoreError, match="a Redis that answers"):
        store.check()


def test_a_redis_by_tls(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine: a certificate is made with it")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    files = ("--tls-cert-file", f"{tmp_path}/cert.pem", "--tls-key-file", f"{tmp_path}/key.pem", "--tls-ca-cert-file",
             f"{tmp_path}/cert.pem", "--tls-auth-clients", "no", "--port", "0")
    with redis_server(tmp_path, *DURABLE, *files, "--requirepass", "x", port_word="--tls-port") as port:
        store = put(open_store(f"rediss://:x@127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}/cert.pem"))
        assert store.get([*RECORDS]) == [b"1"]
        with pytest.raises(StoreError, match="certificate"):
            open_store(f"rediss://:x@127.0.0.1:{port}/0")
        with pytest.raises(StoreError):
            open_store(f"redis://:x@127.0.0.1:{port}/0")


def test_a_redis_that_may_lose_states_is_told_of(tmp_path, caplog):
    with redis_server(tmp_path, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as port:
        open_store(f"redis://127.0.0.1:{port}")
    assert "appendonly yes" in caplog.text and "noeviction" in caplog.text


def test_a_redis_that_is_full(tmp_path):
    with redis_server(tmp_path, *DURABLE, "--maxmemory", "1") as port:
        store = open_store(f"redis://127.0.0.1:{port}")
        with pytest.raises(StoreError, match="maxmemory"):
            put(store)
        assert store.get([*RECORDS]) == [None]


def test_urls_that_are_none(monkeypatch):
    pytest.importorskip("redis")
    for url in ("redis://host:port", "redis://localhost:1/0?max_connections=many"):
        with pytest.raises(UsageError, match="no URL of a Redis"):
            open_store(url)
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(UsageError, match="clickwise\\[redis\\]"):
        open_store("redis://localhost")
