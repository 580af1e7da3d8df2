"""Requests that wait at the same moment are scored together; a lone one never waits.

A request is scored in the turn of the event loop after the one in which it came, with all others that came in that
turn. A large one is scored in a thread, so that small ones do not wait behind it, and so is one that looks something up
on another machine. At most so many requests wait; further ones are refused, and those whose deadline has passed are not
scored.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from clickwise.serve.exported import Tensors
from clickwise.serve.measures import Measures
from clickwise.serve.served import Served

TOGETHER = 64  # rows that are scored before the event loop looks for new requests
LARGE = 512  # rows of a request that is scored in a thread
THREADS = 4


class Busy(Exception):
    """As many requests wait as may."""


class TooLate(Exception):
    """The deadline passed before the request was scored."""


class Answer(Protocol):
    """Who waits for the probabilities: a future, or what acts like one, whose functions raise nothing."""

    def done(self) -> bool: ...

    def set_result(self, scores: np.ndarray) -> None: ...

    def set_exception(self, error: Exception) -> None: ...


@dataclasses.dataclass(slots=True, eq=False)
class Waiting:
    """A request: its rows, encoded or `encode`, which does it, and when it must be scored, on the monotonic clock."""

    served: Served
    rows: int
    tensors: Tensors | None
    encode: Callable[[], Tensors] | None
    deadline: float | None
    answer: Answer


class Queue:
    """At most `most` requests wait or are being scored in a thread."""

    def __init__(self, most: int, measures: Measures) -> None:
        self._most, self._measures = most, measures
        self._waiting: deque[Waiting] = deque()
        self._in_thread = 0
        self._threads: ThreadPoolExecutor | None = None
        self._is_due = False

    def __len__(self) -> int:
        return len(self._waiting) + self._in_thread

    def is_full(self) -> bool:
        return len(self) >= self._most

    async def score(self, served: Served, rows: int, tensors: Tensors | None, encode: Callable[[], Tensors] | None,
                    deadline: float | None) -> np.ndarray:
        """The probabilities of a request's rows. Raises Busy, TooLate, and what `encode` raises."""
        loop = asyncio.get_running_loop()
        if self.takes_long(served, rows, encode):
            if self.is_full():
                raise Busy
            return await self._score_in_thread(loop, served, rows, tensors, encode, deadline)
        answer = loop.create_future()
        self.put(Waiting(served, rows, tensors, encode, deadline, answer))
        return await answer

    def takes_long(self, served: Served, rows: int, encode: Callable[[], Tensors] | None) -> bool:
        """Whether a request is scored in a thread."""
        return rows >= LARGE or (served.waits and encode is not None)

    def put(self, request: Waiting) -> None:
        """Scores a request that does not take long in the next turn of the event loop. Raises Busy."""
        if self.is_full():
            raise Busy
        self._waiting.append(request)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._score_some)

    async def _score_in_thread(self, loop: asyncio.AbstractEventLoop, served: Served, rows: int,
                               tensors: Tensors | None, encode: Callable[[], Tensors] | None,
                               deadline: float | None) -> np.ndarray:
        def work() -> np.ndarray:
            if deadline is not None and time.monotonic() > deadline:
                raise TooLate
            return served.score(tensors if encode is None else encode())

        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, "score")
        self._in_thread += 1
        try:
            found = await loop.run_in_executor(self._threads, work)
        finally:
            self._in_thread -= 1
        self._measures.batch(rows)
        return found

    def _score_some(self) -> None:
        self._is_due = False
        now = time.monotonic()
        ready: dict[Served, list[tuple[Waiting, Tensors]]] = {}
        rows = 0
        while self._waiting and rows < TOGETHER:
            request = self._waiting.popleft()
            if request.answer.done():  # its client has gone
                continue
            if request.deadline is not None and now > request.deadline:
                request.answer.set_exception(TooLate())
                continue
            try:
                tensors = request.tensors if request.encode is None else request.encode()
            except Exception as error:
                request.answer.set_exception(error)
                continue
            ready.setdefault(request.served, []).append((request, tensors))
            rows += request.rows
        for served, requests in ready.items():
            self._score_together(served, requests)
        if self._waiting:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._score_some)

    def _score_together(self, served: Served, requests: list[tuple[Waiting, Tensors]]) -> None:
        try:
            found = served.score(requests[0][1] if len(requests) == 1 else
                                 served.joined([tensors for _, tensors in requests]))
        except Exception as error:
            for request, _ in requests:
                request.answer.set_exception(error)
            return
        self._measures.batch(len(found))
        first = 0
        for request, _ in requests:
            request.answer.set_result(found[first:first + request.rows])
            first += request.rows

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
