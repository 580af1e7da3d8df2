"""What is asked seldom, by Starlette: health, what is served, loading, events, measures."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router

import clickwise
from clickwise.serve.events import forget, models_of, read_events, take_events
from clickwise.serve.exchange import Headers, Receive, Refused, Scope, read_body, read_head
from clickwise.serve.protocol import OUTPUTS, read_json
from clickwise.serve.requests import datatype
from clickwise.serve.served import Served

if TYPE_CHECKING:
    from clickwise.serve.app import App

Endpoint = Callable[[Request], Awaitable[Response]]
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
EXTENSIONS = ["binary_tensor_data", "model_repository"]
FOLLOW_S = 60  # until all workers serve what one of them was asked to


class Routes:
    """`may_change`: whether it takes events and loads models."""

    def __init__(self, app: App, *, may_change: bool) -> None:
        self._app, self._may_change = app, may_change
        model = "/v2/models/{name}"
        table: list[tuple[str, str, str, Endpoint]] = [
            ("GET", "/v2/health/live", "health", self._live),
            ("GET", "/v2/health/ready", "health", self._ready),
            ("GET", "/v2", "models", self._server),
            ("POST", "/v2/repository/index", "models", self._index),
            ("POST", "/v2/repository/models/{name}/load", "models", self._load),
            ("POST", "/v2/repository/models/{name}/unload", "models", self._unload),
            ("GET", "/metrics", "metrics", self._metrics),
            ("POST", "/v1/rank", "rank", self._nothing),
            ("POST", "/v1/events", "events", self._events),
            ("DELETE", "/v1/users/{key}", "users", self._forget)]
        for path in (model, model + "/versions/{version}"):
            table += [("GET", path, "models", self._model), ("GET", f"{path}/ready", "models", self._model_ready),
                      ("POST", f"{path}/infer", "infer", self._no_model)]
        self._routes = {id(endpoint): (route, path) for _, path, route, endpoint in table}
        self._router = Router([Route(path, endpoint, methods=[method]) for method, path, _, endpoint in table],
                              redirect_slashes=False)

    async def answer(self, scope: Scope, receive: Receive) -> tuple[str, str, int, Headers, bytes]:
        """Which route it was, how its path reads, and status, headers and body of the answer. Raises HTTPException
        for a path or a method that is none."""
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        within = {**scope, "app": self, "extensions": {}}
        await self._router(within, receive, send)
        route, pattern = self._routes.get(id(within.get("endpoint")), ("other", "other"))
        headers = [(name, value) for name, value in sent[0]["headers"] if name != b"content-length"]
        return route, pattern, sent[0]["status"], headers, b"".join(part.get("body", b"") for part in sent[1:])

    # ---- health

    async def _live(self, request: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, request: Request) -> Response:
        is_ready = bool(self._app.models.now) and not self._app.is_draining
        return _json({"ready": is_ready}, 200 if is_ready else 503)

    # ---- what is served

    async def _server(self, request: Request) -> Response:
        return _json({"name": "clickwise", "version": clickwise.__version__, "extensions": EXTENSIONS})

    async def _index(self, request: Request) -> Response:
        return _json(self._app.models.listed())

    def _found(self, request: Request) -> Served:
        return self._app.models.find(request.path_params["name"], request.path_params.get("version"))

    async def _model(self, request: Request) -> Response:
        return _json(metadata(self._found(request), list(self._app.models.now[request.path_params["name"]])))

    async def _model_ready(self, request: Request) -> Response:
        served = self._found(request)
        return _json({"name": served.name, "ready": True})

    async def _no_model(self, request: Request) -> Response:
        self._found(request)  # says which there are
        return _json({"error": "the model: found that it is being loaded; do ask again"}, 503)

    # ---- changes

    def _check_may_change(self) -> None:
        if not self._may_change:
            raise PermissionError("the server: found no token, and an address that others reach; expected that events "
                                  "and models come from whoever knows a token; do clickwise serve --token-file FILE")

    async def _content(self, request: Request, may_be_empty: bool = False) -> dict[str, Any]:
        limits = self._app.limits
        read_head(request.scope, limits)
        body = await read_body(request.receive, limits)
        return {} if may_be_empty and not body else read_json(body)

    async def _load(self, request: Request) -> Response:
        self._check_may_change()
        folder, version = _texts(await self._content(request, may_be_empty=True), "folder", "version")
        name = request.path_params["name"]
        loop = asyncio.get_running_loop()
        served = await loop.run_in_executor(None, functools.partial(self._app.models.load, name, folder, version))
        await self._all_follow()
        return _json({"name": served.name, "version": served.version, "state": "READY"})

    async def _unload(self, request: Request) -> Response:
        self._check_may_change()
        (version,) = _texts(await self._content(request, may_be_empty=True), "version")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._app.models.unload, request.path_params["name"], version)
        await self._all_follow()
        return _json({"name": request.path_params["name"], "state": "UNAVAILABLE"})

    async def _all_follow(self) -> None:
        end = time.monotonic() + FOLLOW_S
        while not self._app.models.all_follow:
            if time.monotonic() > end:
                raise Refused(500, "the workers: found that not all of them follow; do look into the server's log")
            await asyncio.sleep(0.02)

    # ---- events

    async def _events(self, request: Request) -> Response:
        self._check_may_change()
        content = await self._content(request)
        events, served = read_events(content), models_of(self._app.models, content.get("model"))
        loop = asyncio.get_running_loop()
        return _json(await loop.run_in_executor(None, take_events, served, events))

    async def _forget(self, request: Request) -> Response:
        self._check_may_change()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, forget, models_of(self._app.models), request.path_params["key"])
        return _json({"forgotten": True})

    # ---- measures

    async def _metrics(self, request: Request) -> Response:
        models = self._app.models
        ready = [(name, version) for name, versions in models.now.items() for version in versions]
        return PlainTextResponse(self._app.measures.text(list(models.counted.values()), ready), media_type=PROMETHEUS)

    async def _nothing(self, request: Request) -> Response:
        raise AssertionError("rank is answered by the application")


def metadata(served: Served, versions: list[str]) -> dict[str, Any]:
    """A model as the protocol describes it; `parameters` tells the tensors that ids go into."""
    signature = served.signature
    tensors = [{"name": input_.name, "datatype": input_.datatype, "shape": [-1, input_.width or -1]}
               for input_ in signature.inputs]
    raw = [{"name": name, "datatype": datatype(column), "shape": [-1]} for name, column in served.raw.items()]
    return {"name": served.name, "versions": versions, "platform": "onnxruntime_onnx", "inputs": raw or tensors,
            "outputs": [{"name": name, "datatype": "FP32", "shape": [-1]} for name in OUTPUTS],
            "parameters": {"model": signature.model, "run": signature.run, "created": signature.created,
                           "encoded_inputs": tensors}}


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _texts(content: Mapping[str, Any], *names: str) -> list[str | None]:
    """Parameters of a request to load or to unload. Raises Refused for what is no text."""
    parameters = content.get("parameters") or {}
    if type(parameters) is not dict or not all(type(value) is str for value in parameters.values()):
        raise Refused(400, "parameters: found something else; expected an object of texts")
    for name in parameters:
        if name not in names:
            raise Refused(400, f"parameters: found {name[:40]!r}; expected {', '.join(names)}")
    return [parameters.get(name) for name in names]
