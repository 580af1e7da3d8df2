"""One process that answers: the exports opened, the application, uvicorn on a socket that is listening already."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from clickwise.errors import UsageError
from clickwise.progress import say, warn
from clickwise.serve.access import AccessLog
from clickwise.serve.app import App
from clickwise.serve.connections import Connection
from clickwise.serve.exchange import Limits
from clickwise.serve.exported import ExportedModel
from clickwise.serve.measures import Measures
from clickwise.serve.models import Models, WorkerContext
from clickwise.serve.options import Options
from clickwise.serve.queue import Queue
from clickwise.serve.served import Served
from clickwise.serve.states import LiveStates, Store, open_store

MEMORY, NONE = "memory", "none"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclasses.dataclass
class Shared:
    """What the workers of a server share: a `folder`, the memory of `counts` and of what is `seen`."""

    folder: Path
    counts: Any
    seen: Any


class _Server(uvicorn.Server):
    """uvicorn's, which ends by SIGINT or SIGTERM after it has answered what came, and asks its connections and the
    models to do what time has come for."""

    def __init__(self, config: uvicorn.Config, app: App, options: Options, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._app, self._options, self._tell_ready = app, options, ready
        self.received = 0
        self._parent = os.getppid()
        self._following: asyncio.Future[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._end, number)
        yield  # what comes after this, comes twice, and may end the process at once

    def _end(self, number: int) -> None:
        self.received = self.received or number
        self._app.is_draining = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # what has been loaded stays: no request waits for it to be looked through
        self._tell_ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                connection.end_if_slow(now, self._options.read_timeout)
            if os.getppid() != self._parent and self._options.workers > 1:  # the one that would replace this has gone
                self._end(signal.SIGTERM)
        self._app.measures.waiting(len(self._app.queue))
        if self._app.models.is_behind and (self._following is None or self._following.done()):
            self._following = asyncio.get_running_loop().run_in_executor(None, self._follow)
        return await super().on_tick(counter)

    def _follow(self) -> None:
        try:
            self._app.models.follow()
        except Exception as error:
            warn(f"what is to be served cannot be opened: {error}")


def work(options: Options, listening: socket.socket, shared: Shared, number: int, ready: Callable[[], None]
         ) -> int:
    """Answers until SIGINT or SIGTERM, and gives the one that came. Raises DataError, UsageError."""
    app = application(options, shared, number)
    config = uvicorn.Config(app, http=Connection, loop="uvloop", ws="none", lifespan="off", interface="asgi3",
                            log_config=None, access_log=False, server_header=False, date_header=False,
                            proxy_headers=False, timeout_keep_alive=options.keep_alive,
                            timeout_graceful_shutdown=options.drain, ssl_certfile=options.certificate,
                            ssl_keyfile=options.key)
    server = _Server(config, app, options, ready)
    try:
        server.run([listening])
    finally:
        app.close()
    return server.received or signal.SIGTERM


def application(options: Options, shared: Shared, number: int) -> App:
    """What the worker `number` answers: the first one opens the exports that are named, others what is served. Raises
    DataError, UsageError."""
    measures = Measures(shared.counts, options.workers, number)
    models = Models(WorkerContext(shared.folder, shared.seen, options.workers, number), measures, opener(options),
                    options.roots)
    if models.is_fresh:
        models.begin(options.folders, options.name)
    models.follow()
    return App(models, Queue(options.queue, measures), measures, Limits(options.body_limit, options.deadline),
               token=options.token, is_open=options.is_open, access=AccessLog() if options.access_log else None)


def opener(options: Options) -> Callable[[Path, str | None], Served]:
    """Opens an export as it is served, with its states."""
    @functools.cache
    def store() -> Store:
        say(f"events are stored in {options.states}")
        return open_store(options.states)

    def opened(folder: Path, name: str | None) -> Served:
        model, states = ExportedModel(folder, checksums=options.checksums), None
        if model.encoding is not None and model.encoding.goes_on and options.states != NONE:
            if options.workers > 1 and options.states == MEMORY:
                raise UsageError("--states", found=f"{MEMORY}, and {options.workers} workers, which cannot share it",
                                 expected="sqlite:PATH, redis://HOST:PORT/NUMBER, or none: rows then bring along what "
                                          "the states would give")
            states = LiveStates(model.encoding, model.encoder.names, store())
        served = Served(model, name or model.signature.name, model.signature.version, states)
        served.warm_up()
        return served

    return opened
