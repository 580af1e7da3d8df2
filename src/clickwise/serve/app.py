"""The server as an ASGI application. Scoring goes past Starlette, which answers everything else: its routing and its
objects cost as much as scoring a row does. A small `infer` does not even come as a request of ASGI: `direct`.

    POST /v2/models/NAME[/versions/V]/infer    raw rows, or ids, to probabilities
    POST /v1/rank                              candidates in a context, best first
    all others                                 `routes`
"""

from __future__ import annotations

import hmac
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable

import numpy as np
import orjson
from starlette.exceptions import HTTPException

from clickwise.errors import ClickwiseError, StoreError
from clickwise.progress import warn
from clickwise.serve.access import AccessLog
from clickwise.serve.exchange import (
    BINARY,
    JSON,
    LENGTH,
    Gone,
    Head,
    Headers,
    Limits,
    Receive,
    Refused,
    Scope,
    Send,
    after,
    error_body,
    one_line,
    read_away,
    read_body,
    read_head,
    send_answer,
)
from clickwise.serve.exported import Tensors
from clickwise.serve.measures import Measures
from clickwise.serve.models import Models
from clickwise.serve.protocol import Asked, answer, read_json, read_request
from clickwise.serve.queue import Busy, Queue, TooLate
from clickwise.serve.rank import encode, ranked, read_rank
from clickwise.serve.routes import Routes
from clickwise.serve.served import Served

Work = Callable[[Scope, Receive], Awaitable[tuple[Headers, bytes]]]
_HEALTH = "/v2/health/"


class App:
    """What a worker answers. `token` is asked for everywhere but in questions after the server's health; without one,
    a server that others can reach (`is_open`) takes no events and loads nothing."""

    def __init__(self, models: Models, queue: Queue, measures: Measures, limits: Limits, *, token: bytes | None = None,
                 is_open: bool = False, access: AccessLog | None = None) -> None:
        self.models, self.queue, self.measures, self.limits = models, queue, measures, limits
        self.is_draining = False
        self._token, self._access = token, access
        self._routes = Routes(self, may_change=token is not None or not is_open)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, path = time.monotonic(), scope["path"]
        route, pattern, status = "other", "", 500
        try:
            if not path.startswith(_HEALTH):
                self.check_token(scope)
            served = self.models.by_path.get(path)
            if served is not None and scope["method"] == "POST":
                route = "infer"
                pattern = path
                headers, body = await self._infer(served, scope, receive)
            elif path == "/v1/rank" and scope["method"] == "POST":
                route = "rank"
                pattern = path
                headers, body = await self._rank(scope, receive)
            else:
                route, pattern, status, headers, body = await self._routes.answer(scope, receive)
                await send_answer(send, status, headers, body)
                return
            status = 200
            await send_answer(send, 200, headers, body)
        except Gone:
            status = 408
        except Exception as error:
            status, headers, message = self.mistake(error)
            if isinstance(error, Refused) and error.is_unread:
                await read_away(receive, 4 * self.limits.body)
            await send_answer(send, status, [JSON, *headers], error_body(message))
        finally:
            self.count(route, pattern, scope["method"], status, time.monotonic() - began)

    def close(self) -> None:
        """Writes what is left to be written."""
        self.queue.close()
        if self._access is not None:
            self._access.flush()

    def count(self, route: str, pattern: str, method: str, status: int, seconds: float) -> None:
        """Counts an answer, and writes its line in the access log."""
        self.measures.request(route, status, seconds)
        if self._access is not None:
            self._access.line(method, pattern or route, status, seconds)

    def check_token(self, scope: Scope) -> None:
        """Raises Refused for a request without the token, where one is asked for."""
        if self._token is None:
            return
        for name, value in scope["headers"]:
            if name == b"authorization":
                if hmac.compare_digest(value, b"Bearer " + self._token):
                    return
                break
        raise Refused(401, "authorization: found no token of this server; expected Bearer and the token; "
                           "do send the header Authorization", [(b"www-authenticate", b"Bearer")])

    def mistake(self, error: Exception) -> tuple[int, Headers, str]:
        """What a client gets for an error: the status, further headers, a message. Of our mistakes only a number."""
        if isinstance(error, Refused):
            return error.status, error.headers, error.message
        if isinstance(error, StoreError):
            warn(str(error))
            return 503, [after(5)], "the states: found that what keeps them does not answer; do ask again later"
        if isinstance(error, ClickwiseError):
            return 400, [], one_line(error)
        if isinstance(error, Busy):
            return 503, [after(1)], "the server: found as many requests as may wait; do ask again in a second"
        if isinstance(error, TooLate):
            return 504, [], "the deadline: found that it has passed before the request was scored"
        if isinstance(error, LookupError) and type(error) is LookupError:
            return 404, [], str(error)
        if isinstance(error, PermissionError):
            return 403, [], str(error)
        if isinstance(error, HTTPException):
            return error.status_code, [(name.lower().encode(), value.encode()) for name, value in
                                       (error.headers or {}).items()], error.detail
        number = uuid.uuid4().hex[:12]
        warn(f"error {number}\n{''.join(traceback.format_exception(error))}")
        return 500, [], f"the server: found an error of its own, {number}; do look for this number in its log"

    async def _infer(self, served: Served, scope: Scope, receive: Receive) -> tuple[Headers, bytes]:
        head = self.head_of(scope)
        asked = self.read(served, await read_body(receive, self.limits), head)
        return self.answer(served, asked, await self.queue.score(served, asked.rows, asked.tensors, asked.encode,
                                                                 head.deadline))

    def head_of(self, scope: Scope) -> Head:
        """Raises Refused for a head that cannot be read, and Busy."""
        head = read_head(scope, self.limits)
        if self.queue.is_full():
            raise Busy
        return head

    def read(self, served: Served, body: bytes, head: Head) -> Asked:
        """What a body asks for of a model, with `encode`, which makes its tensors and counts its values, where it holds
        raw rows. Raises UsageError."""
        asked = read_request(body, head.json_length, served.signature, served.raw, served.ids)
        counts = self.models.counts.get(served.name)
        if asked.columns is not None:
            columns, rows = asked.columns, asked.rows

            def encode() -> Tensors:
                tensors = served.encode(columns, rows)
                if counts is not None:
                    served.shares.count(columns, tensors, counts.missing, counts.unseen)
                return tensors

            asked.encode = encode
        return asked

    def answer(self, served: Served, asked: Asked, scores: np.ndarray) -> tuple[Headers, bytes]:
        """The headers and the body of the answer."""
        if (counts := self.models.counts.get(served.name)) is not None:
            counts.scored(scores)
        body, json_length = answer(asked, served.name, served.version, {"probability": scores})
        if json_length is None:
            return [JSON], body
        return [BINARY, (LENGTH, b"%d" % json_length)], body

    async def _rank(self, scope: Scope, receive: Receive) -> tuple[Headers, bytes]:
        head = self.head_of(scope)
        request = read_json(await read_body(receive, self.limits))
        served = self.models.one(request.get("model"), request.get("version"))
        asked = read_rank(request, served)
        scores = await self.queue.score(served, asked.rows, None, lambda: encode(asked, served), head.deadline)
        if (counts := self.models.counts.get(served.name)) is not None:
            counts.scored(scores)
        found = {"model_name": served.name, "model_version": served.version, "ranked": ranked(asked, scores)}
        return [JSON], orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)
