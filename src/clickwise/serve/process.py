"""The processes of a server: one that answers, or several on one socket, of which each that ends is replaced.

The one that starts the others opens no model and starts no thread, so that it can fork at any time.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from clickwise.errors import ClickwiseError, EngineError, UsageError
from clickwise.progress import warn
from clickwise.serve import shared_memory
from clickwise.serve.options import Options

LEAST_S, MOST_QUICK_ENDS = 5.0, 5  # workers that live shorter than this, one after the other, end the server
NEEDS = ("starlette", "uvicorn", "httptools", "uvloop", "orjson", "onnxruntime")


def serve(options: Options, ready: Callable[[str], None]) -> int:
    """Serves until SIGINT or SIGTERM, answers what came, and gives the code to exit with: 130, 143, or that of a worker
    that could not begin and said why. `ready` is called with the address.

    Raises UsageError for an address that cannot be used, EngineError where a package is missing or the system cannot,
    DataError for what is no export."""
    _check_system(options.workers)
    _check_packages()
    listening = _listen(options)
    scheme = "http" if options.certificate is None else "https"
    host, port = listening.getsockname()[:2]
    address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    folder = Path(tempfile.mkdtemp(prefix="clickwise-serve-"))
    try:
        if options.workers > 1:
            return _Workers(options, listening, folder, lambda: ready(address)).run()
        from clickwise.serve.worker import Shared, work

        shared = Shared(folder, shared_memory.counts(1), shared_memory.seen(1))
        return 128 + work(options, listening, shared, 0, lambda: ready(address))
    finally:
        listening.close()
        shutil.rmtree(folder, ignore_errors=True)


def _check_system(workers: int) -> None:
    """Workers are forked, and several are waited for by a signal that macOS does not wait for."""
    if not hasattr(os, "fork") or (workers > 1 and not hasattr(signal, "sigtimedwait")):
        raise EngineError("clickwise serve", found=platform.system(),
                          expected="Linux" + (", or one worker" if hasattr(os, "fork") else ""),
                          do="run it in a container (docs/serving.md)")


def _check_packages() -> None:
    from importlib.util import find_spec

    if missing := [name for name in NEEDS if find_spec(name) is None]:
        raise EngineError("clickwise serve", found=f"no {', '.join(missing)}", expected="the packages of the server",
                          do="pip install 'clickwise[serve]'")


def _listen(options: Options) -> socket.socket:
    try:
        found = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listening = socket.socket(found[0][0], socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(found[0][4])
        listening.listen(2048)
        listening.setblocking(False)
    except OSError as error:
        raise UsageError(f"--host {options.host} --port {options.port}", found=str(error.strerror or error),
                         expected="an address of this machine and a free port", do="choose another --port") from None
    return listening


class _Workers:
    """Worker processes by number: 0 … workers − 1."""

    def __init__(self, options: Options, listening: socket.socket, folder: Path, ready: Callable[[], None]) -> None:
        self._options, self._listening, self._folder, self._ready = options, listening, folder, ready
        self._counts, self._seen = shared_memory.counts(options.workers), shared_memory.seen(options.workers)
        self._is_ready = shared_memory.flags(options.workers)
        self._running: dict[int, tuple[int, float]] = {}  # process → its number, and since when
        self._quick_ends = 0
        self._waited_for = {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD}

    def run(self) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, self._waited_for)
        try:
            self._start(0)
            return self._watch()
        except BaseException:
            self._end_all(signal.SIGKILL)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._waited_for)

    def _watch(self) -> int:
        """Until a signal: starts the others once the first one is ready, and replaces those that end."""
        reported = False
        while True:
            got = signal.sigtimedwait(self._waited_for, 0.05 if not reported else 5.0)
            if got is not None and got.si_signo != signal.SIGCHLD:
                self._end_all(got.si_signo)
                return 128 + got.si_signo
            if (code := self._replace_ended(reported)) is not None:
                self._end_all(signal.SIGTERM)
                return code
            if not reported and self._is_ready[0]:
                for number in range(1, self._options.workers):
                    if number not in {at for at, _ in self._running.values()}:
                        self._start(number)
                if all(self._is_ready[number] for number in range(self._options.workers)):
                    reported = True
                    self._ready()

    def _replace_ended(self, reported: bool) -> int | None:
        """A code, where the server is to end with it: a worker could not begin, or several ended at once."""
        while self._running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                break
            number, since = self._running.pop(process)
            code = os.waitstatus_to_exitcode(status)
            self._quick_ends = self._quick_ends + 1 if time.monotonic() - since < LEAST_S else 0
            if not reported or self._quick_ends >= MOST_QUICK_ENDS:
                return code if code > 0 else 1
            warn(f"the worker {number} ended with {code}; another replaces it")
            self._start(number)
        return None

    def _start(self, number: int) -> None:
        self._is_ready[number] = 0
        process = os.fork()
        if process:
            self._running[process] = number, time.monotonic()
            return
        code = 1
        try:
            code = self._work(number)
        except ClickwiseError as error:
            print(f"clickwise: {error}", file=sys.stderr)
            code = error.exit_code
        except KeyboardInterrupt:
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _work(self, number: int) -> int:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._waited_for)
        from clickwise.serve.worker import Shared, work

        def ready() -> None:
            self._is_ready[number] = 1

        work(self._options, self._listening, Shared(self._folder, self._counts, self._seen), number, ready)
        return 0

    def _end_all(self, number: int) -> None:
        """Asks all workers to end, and waits for it; those that do not are killed."""
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        end = time.monotonic() + self._options.drain + 10
        while self._running:
            process, _ = os.waitpid(-1, os.WNOHANG)
            if process:
                self._running.pop(process, None)
            elif time.monotonic() > end:
                for process in self._running:
                    os.kill(process, signal.SIGKILL)
                end = float("inf")
            else:
                signal.sigtimedwait({signal.SIGCHLD}, 0.2)
