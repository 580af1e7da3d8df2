"""A closed loop of HTTP requests: a connection asks again as soon as it is answered, as published tables of servers are
measured. How much a server can do shows here; how long people wait for it shows in `open_loop`."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from clickwise.verbs.open_loop import Outcome

MOST_S = 60.0  # until an answer counts as none
_length = re.compile(rb"(?i)\r\ncontent-length: *(\d+)").search


def closed_loop(host: str, port: int, requests: Sequence[bytes], seconds: float, *, connections: int = 1) -> Outcome:
    """What became of all requests that were begun within `seconds`, the latency of each from its own beginning. Every
    connection has a thread, and sends the requests in turns. Raises OSError where nobody listens."""
    with ThreadPoolExecutor(connections) as threads:
        parts = list(threads.map(lambda first: _ask(host, port, requests, first, seconds), range(connections)))
    return Outcome(np.concatenate([part.latency_s for part in parts]), np.concatenate([part.status for part in parts]))


def _ask(host: str, port: int, requests: Sequence[bytes], number: int, seconds: float) -> Outcome:
    latency_s, status = [], []
    connection = _opened(host, port)
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        try:
            connection.sendall(requests[number % len(requests)])
            status.append(_answered(connection))
            latency_s.append(time.perf_counter() - began)
        except OSError:  # closed, or silent
            status.append(0)
            latency_s.append(np.inf)
            connection.close()
            connection = _opened(host, port)
        number += 1
    connection.close()
    return Outcome(np.array(latency_s), np.array(status, np.int64))


def _opened(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port), MOST_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _answered(connection: socket.socket) -> int:
    """The status of an answer, which is read to its end. Raises OSError where it does not come."""
    found = b""
    while (end := found.find(b"\r\n\r\n")) < 0:
        found += _received(connection)
    length = _length(found, 0, end + 2)
    left = (int(length[1]) if length else 0) - (len(found) - end - 4)
    while left > 0:
        left -= len(_received(connection))
    return int(found[9:12])


def _received(connection: socket.socket) -> bytes:
    part = connection.recv(1 << 20)
    if not part:
        raise ConnectionError("closed")
    return part
