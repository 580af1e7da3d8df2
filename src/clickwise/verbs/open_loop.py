"""An open loop of HTTP requests: each is sent at its moment, whether the earlier ones are answered or not.

A closed loop (wrk, hey, locust) waits for an answer before it asks again: it slows down with the server, and the
requests that would have waited longest are never sent. Here a latency runs from the moment at which a request was due,
so that waiting for a free connection counts. oha and vegeta do that too, but pip does not install them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

LATE = 5.0  # seconds after the last request in which answers still count
_LENGTH = b"content-length:"


@dataclasses.dataclass
class Outcome:
    """Of every request that was due: seconds until its answer (inf: none came), and the answer's status (0: none)."""

    latency_s: np.ndarray
    status: np.ndarray


def open_loop(host: str, port: int, requests: Sequence[bytes], rate: float, seconds: float, *, connections: int = 64,
              seed: int = 0) -> Outcome:
    """Sends the requests in turns, `rate` per second on average, at moments of a Poisson process. This thread does
    nothing else meanwhile: it needs a core of its own. Raises OSError where nobody listens."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, max(1, int(rate * seconds)))
    return asyncio.run(_Loop(host, port, requests, np.cumsum(gaps), connections).run())


class _Loop:
    def __init__(self, host: str, port: int, requests: Sequence[bytes], due_s: np.ndarray, connections: int) -> None:
        self.address, self.requests, self.due_s, self.connections = (host, port), requests, due_s, connections
        self.outcome = Outcome(np.full(len(due_s), np.inf), np.zeros(len(due_s), np.int64))
        self.free: list[_Connection] = []
        self.waiting: deque[int] = deque()
        self.left = len(due_s)

    async def run(self) -> Outcome:
        for _ in range(self.connections):
            await self.open()
        self.start = time.perf_counter()
        for number, due in enumerate(self.due_s.tolist()):
            while time.perf_counter() - self.start < due:  # timers are a millisecond late
                await asyncio.sleep(0)
            self.waiting.append(number)
            self.send()
        end = time.perf_counter() + LATE
        while self.left and time.perf_counter() < end:
            await asyncio.sleep(0.001)
        for connection in itertools.chain(self.free):
            connection.transport.close()
        return self.outcome

    async def open(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: _Connection(self), *self.address)

    def send(self) -> None:
        while self.waiting and self.free:
            self.free.pop().ask(self.waiting.popleft())

    def answered(self, number: int, status: int) -> None:
        self.outcome.latency_s[number] = time.perf_counter() - self.start - self.due_s[number]
        self.outcome.status[number] = status
        self.left -= 1


class _Connection(asyncio.Protocol):
    """Asks for one thing at a time; a connection that the server closed is opened again."""

    def __init__(self, loop: _Loop) -> None:
        self.loop, self.number, self.received = loop, None, b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.loop.free.append(self)
        self.loop.send()

    def ask(self, number: int) -> None:
        self.number = number
        self.transport.write(self.loop.requests[number % len(self.loop.requests)])

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return
        at = head.lower().find(_LENGTH)
        length = int(head[at + len(_LENGTH):].split(b"\r", 1)[0]) if at >= 0 else 0
        if len(body) < length:
            return
        self.received, number, self.number = b"", self.number, None
        self.loop.answered(number, int(head[9:12]))
        self.loop.free.append(self)
        self.loop.send()

    def connection_lost(self, error: Exception | None) -> None:
        if self in self.loop.free:
            self.loop.free.remove(self)
        if self.number is not None:
            self.loop.answered(self.number, 0)
        if self.loop.left:
            asyncio.ensure_future(self.loop.open())
