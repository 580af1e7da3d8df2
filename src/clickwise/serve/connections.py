"""A connection as uvicorn has it, with limits: how long a head may be, and how long a client may take to send a request
or to read its answer."""

from __future__ import annotations

import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from clickwise.serve.direct import Direct, direct
from clickwise.serve.exchange import error_body

MOST_HEAD = 32 << 10  # bytes of a request's line and headers
MOST_CONNECTIONS = 10_000
LINGER_S = 2.0  # after a request was refused


class _Together:
    """A transport that writes what comes in one turn of the event loop at once: uvicorn writes the head and the body of
    an answer one after the other, and the system sends each on its own."""

    def __init__(self, transport: Any, loop: Any) -> None:
        self._transport, self._loop, self._held = transport, loop, []
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write_now(self, data: bytes) -> None:
        self._write_held()
        self._transport.write(data)

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._write_held)
        self._held.append(data)

    def _write_held(self) -> None:
        if self._held and not self.is_closing():
            held, self._held = self._held, []
            self._transport.write(b"".join(held))

    def write_eof(self) -> None:
        self._write_held()
        self._transport.write_eof()

    def close(self) -> None:
        self._write_held()
        self._transport.close()


class Connection(HttpToolsProtocol):
    """What uvicorn's own does, and `end_if_slow`, which the server asks once a second."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(_Together(transport, self.loop))
        self._began = time.monotonic()  # of what is being waited for
        self._is_in_head, self._is_in_body, self._head = False, False, 0
        self._is_refused = False
        self._refusal = 400, "the request: found something else; expected HTTP/1.1"
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._head += len(data)
        super().data_received(data)
        if self._is_in_head and self._head > MOST_HEAD and not self._is_refused:
            self._refusal = _TOO_LONG
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head, self._began = True, time.monotonic()

    def on_headers_complete(self) -> None:
        self._is_in_head, self._is_in_body, self._head = False, True, 0
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MOST_HEAD:
            self._refusal = _TOO_LONG
            raise ValueError("a head that is too long")  # httptools tells uvicorn, which refuses the request
        found = direct(self)
        if found is None:
            super().on_headers_complete()
        else:
            self.scope["method"], self.cycle = "POST", found

    def on_message_complete(self) -> None:
        self._is_in_body, self._head = False, 0
        super().on_message_complete()
        if isinstance(self.cycle, Direct) and not self.cycle.more_body:
            self.cycle.begin()

    def on_response_complete(self) -> None:
        self._began = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        status, message = self._refusal
        body = error_body(message)
        self.transport.write(b"".join([STATUS_LINE[status], b"content-type: application/json\r\nconnection: close\r\n",
                                       b"content-length: %d\r\n\r\n" % len(body), body]))
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self._is_refused, self._began = True, time.monotonic()
        self.flow.resume_reading()
        self.transport.write_eof()  # what the client still sends is read, so that it reads the answer

    def end_if_slow(self, now: float, most: float) -> None:
        """Ends the connection where the client has taken longer than `most` seconds."""
        if self._is_refused and now - self._began > LINGER_S:
            self.transport.abort()
        if now - self._began < most or self.transport.is_closing():
            return
        if self._is_in_head or (self._is_in_body and self.cycle is not None and not self.cycle.response_started):
            self._refusal = 408, f"the request: found that it was not whole after {most:g} seconds"
            if self.cycle is not None:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.send_400_response("")
        elif self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self.cycle is None:
            self.transport.close()


_TOO_LONG = 431, f"the head of the request: found more than {MOST_HEAD:,} bytes; expected less"
