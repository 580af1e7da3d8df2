"""Stores of states for tests. A new one joins all of them by one line in STORES."""

from __future__ import annotations

import contextlib
import functools
import itertools
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clickwise.serve.states import Store, open_store
from clickwise.serve.states.memory import MemoryStore
from clickwise.serve.states.sqlite import SqliteStore

REDIS_SERVER = shutil.which("redis-server")
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
Open = Callable[[], Store]  # every call opens the same store, as another process does


@contextlib.contextmanager
def redis_server(folder: Path, *words: str, port_word: str = "--port") -> Iterator[int]:
    """The port of a real redis-server on this machine, whose files lie in `folder`. Skips where there is none."""
    pytest.importorskip("redis", reason="the Python package redis is not installed")
    if REDIS_SERVER is None:
        pytest.skip("no redis-server on this machine (apt-get install redis-server)")
    for _ in range(20):  # another program may take the free port first
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process = subprocess.Popen([REDIS_SERVER, "--dir", str(folder), "--save", "", "--bind", "127.0.0.1", *words,
                                    port_word, str(port)], stdout=subprocess.PIPE, text=True)
        if any("Ready to accept connections" in line for line in process.stdout):
            break
        process.communicate()
    try:
        yield port
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def memory(folder: Path) -> Iterator[Callable[[], Open]]:
    def new() -> Open:
        store = MemoryStore()
        return lambda: store

    yield new


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[Callable[[], Open]]:
    numbers = itertools.count()
    yield lambda: functools.partial(SqliteStore, folder / f"{next(numbers)}.db")


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[Callable[[], Open]]:
    numbers = itertools.count()
    with redis_server(folder, *DURABLE, "--databases", "10000") as port:
        yield lambda: functools.partial(open_store, f"redis://127.0.0.1:{port}/{next(numbers)}")


STORES = {"memory": memory, "sqlite": sqlite, "redis": redis}  # name → in a folder: a function that makes empty stores
