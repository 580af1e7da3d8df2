"""A small request that is scored without a task of its own.

uvicorn makes a task, an event and several messages for a request, and they wake each other up over five turns of the
event loop: as much work as to score a row. Here one object is what a connection of uvicorn asks of its `cycle` and what
the queue asks of a future: the queue takes it when its last byte has come, and its answer is written from there.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from clickwise.serve.exchange import CLOSE, JSON, Headers, error_body
from clickwise.serve.queue import Waiting

if TYPE_CHECKING:
    from clickwise.serve.app import App
    from clickwise.serve.connections import Connection
    from clickwise.serve.protocol import Asked
    from clickwise.serve.served import Served

SMALL = 1 << 16  # bytes of a body


class _Event:
    def set(self) -> None:
        """Nobody waits for it."""


_NOBODY = _Event()


class Direct:
    """`infer` of a model that is served, whose body is read already when `begin` is called."""

    def __init__(self, app: App, served: Served, path: str, connection: Connection) -> None:
        self._app, self._served, self._path, self._connection = app, served, path, connection
        self._scope = connection.scope
        self._asked: Asked | None = None
        self._began = 0.0
        # what a connection of uvicorn looks at
        self.body, self.more_body = bytearray(), True
        self.response_started = self.response_complete = self.disconnected = False
        self.keep_alive = True
        self.message_event = _NOBODY

    def begin(self) -> None:
        """Puts the request into the queue."""
        self._began = time.monotonic()
        app, served = self._app, self._served
        try:
            app.check_token(self._scope)
            head = app.head_of(self._scope)
            self._asked = asked = app.read(served, bytes(self.body), head)
            if app.queue.takes_long(served, asked.rows, asked.encode):
                connection = self._connection
                task = connection.loop.create_task(self._score_in_thread(head.deadline))
                connection.tasks.add(task)
                task.add_done_callback(connection.tasks.discard)
                return
            app.queue.put(Waiting(served, asked.rows, asked.tensors, asked.encode, head.deadline, self))
        except Exception as error:
            self.set_exception(error)

    async def _score_in_thread(self, deadline: float | None) -> None:
        asked = self._asked
        try:
            scores = await self._app.queue.score(self._served, asked.rows, asked.tensors, asked.encode, deadline)
        except Exception as error:
            self.set_exception(error)
        else:
            self.set_result(scores)

    # ---- what the queue asks of a future

    def done(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.disconnected or self.response_complete

    def set_result(self, scores: np.ndarray) -> None:
        try:
            headers, body = self._app.answer(self._served, self._asked, scores)
        except Exception as error:
            self.set_exception(error)
        else:
            self._write(200, headers, body)

    def set_exception(self, error: Exception) -> None:
        status, headers, message = self._app.mistake(error)
        self._write(status, [JSON, *headers], error_body(message))

    def _write(self, status: int, headers: Headers, body: bytes) -> None:
        self._app.count("infer", self._path, self._scope["method"], status, time.monotonic() - self._began)
        connection = self._connection
        if self.disconnected or connection.transport.is_closing():
            return
        self.response_started = self.response_complete = True
        if CLOSE in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            headers = [*headers, CLOSE]
        connection.transport.write_now(b"".join([
            STATUS_LINE[status], b"content-length: %d\r\n" % len(body),
            *(part for name, value in headers for part in (name, b": ", value, b"\r\n")), b"\r\n", body]))
        if not self.keep_alive:
            connection.transport.close()
        connection.on_response_complete()


def direct(connection: Connection) -> Direct | None:
    """For a request whose head is read: None where it goes the common way."""
    app: Any = connection.app
    path = connection.url.decode("latin-1")
    served = app.models.by_path.get(path) if hasattr(app, "models") else None
    if served is None or connection.parser.get_method() != b"POST" or not _is_plain(connection):
        return None
    return Direct(app, served, path, connection)


def _is_plain(connection: Connection) -> bool:
    parser, cycle = connection.parser, connection.cycle
    if connection.expect_100_continue or connection.flow.write_paused or parser.should_upgrade() or \
            parser.get_http_version() != "1.1" or not parser.should_keep_alive() or \
            not (cycle is None or cycle.response_complete):
        return False
    for name, value in connection.headers:
        if name == b"content-length":
            return value.isdigit() and len(value) < 6 and int(value) <= SMALL
    return False  # in chunks
