"""Requests and answers: heads and bodies within limits, errors as one JSON object."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from clickwise.errors import ClickwiseError

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")
CLOSE = (b"connection", b"close")
LENGTH, DEADLINE = b"inference-header-content-length", b"deadline-ms"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request may be: `body` bytes; `deadline` in ms after which it is not scored, where it says none."""

    body: int = 32 << 20
    deadline: float | None = None


class Refused(Exception):
    """A request that is not answered with what it asks for: the status of HTTP, a message, further headers; whether its
    body is still to be read."""

    def __init__(self, status: int, message: str, headers: Sequence[tuple[bytes, bytes]] = (), *,
                 is_unread: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.headers, self.is_unread = status, message, list(headers), is_unread


class Gone(Exception):
    """The client closed the connection before its request was whole."""


@dataclasses.dataclass(slots=True)
class Head:
    """Of a request: the length of its body, of the JSON in it where binary tensors follow, when it must be scored on
    the monotonic clock."""

    length: int | None = None
    json_length: int | None = None
    deadline: float | None = None


def read_head(scope: Scope, limits: Limits) -> Head:
    """Raises Refused."""
    head, deadline = Head(), limits.deadline
    for name, value in scope["headers"]:
        if name == b"content-length":
            head.length = _whole(name, value)
        elif name == LENGTH:
            head.json_length = _whole(name, value)
        elif name == DEADLINE:
            deadline = _whole(name, value)
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise Refused(415, "content-encoding: found another than identity; expected a body that is not compressed",
                          [CLOSE], is_unread=True)
    if head.length is not None and head.length > limits.body:
        raise _too_large(head.length, limits, is_unread=True)
    if deadline is not None:
        head.deadline = time.monotonic() + deadline / 1000
    return head


def _whole(name: bytes, value: bytes) -> int:
    if not value.isdigit() or len(value) > 12:
        raise Refused(400, f"{name.decode()}: found {value[:40].decode('latin1')!r}; expected a whole number", [CLOSE],
                      is_unread=True)
    return int(value)


def _too_large(found: int, limits: Limits, is_unread: bool) -> Refused:
    return Refused(413, f"the body: found {found:,} bytes; expected at most {limits.body:,}; do send several requests",
                   [CLOSE], is_unread=is_unread)


async def read_body(receive: Receive, limits: Limits) -> bytes:
    """Raises Refused for one that is too large, Gone where the client goes."""
    message = await receive()
    if message["type"] != "http.request":
        raise Gone
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    parts, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limits.body:
            raise _too_large(size, limits, is_unread=bool(message.get("more_body")))
    return b"".join(parts)


async def read_away(receive: Receive, most: int) -> None:
    """Reads what is left of a body, up to so many bytes: a client that is still sending does not read an answer."""
    while most > 0:
        message = await receive()
        most -= len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return


async def send_answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-length", b"%d" % len(body)), *headers]})
    await send({"type": "http.response.body", "body": body})


def error_body(message: str) -> bytes:
    return orjson.dumps({"error": message})


def one_line(error: ClickwiseError) -> str:
    """The message of an error on one line."""
    parts = [f"{name}{text}" for name, text in (("found ", error.found), ("expected ", error.expected),
                                                ("do ", error.do)) if text]
    return f"{error.where}: {'; '.join(parts)}"


def after(seconds: float) -> tuple[bytes, bytes]:
    """When to ask again."""
    return b"retry-after", b"%d" % max(1, math.ceil(seconds))
