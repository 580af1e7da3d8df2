"""A `.gz` that is unpacked once: its bytes go to an engine through a named pipe, and are looked at as they pass."""

from __future__ import annotations

import contextlib
import os
import select
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from clickwise.text_scan import NO_GZIP, Chunks, Scan, Scanner

PIPE_BYTES = 1 << 20  # what Linux lets everybody have; with less the two ends wait for each other more often


class Pipe:
    """The bytes of `file`, for one reader of `path`. The name is gone once it has been opened: whoever opens it again
    is told so, and does not wait for ever or get half of the bytes. `found` is what the look showed, None as long as
    not all was read. Once `stop` can be read, nothing more is written."""

    def __init__(self, file: Path, scanner: Scanner, path: Path, stop: int) -> None:
        self.file, self.path = file, path
        self.found: Scan | None = None
        self._scanner, self._chunks, self._stop = scanner, Chunks(file), stop
        self._thread = threading.Thread(target=self._write, daemon=True)
        os.mkfifo(path)
        self._thread.start()

    @property
    def done(self) -> int:
        """Bytes of the file that have been read."""
        return self._chunks.done

    def end(self) -> None:
        """Waits for what still writes, once nobody reads any more and `stop` says so."""
        reader = None
        with contextlib.suppress(OSError):  # it has been opened: nothing waits for a reader
            reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self._thread.join()
        if reader is not None:
            os.close(reader)

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # a reader that goes no further; a file that cannot be read shows later
            pipe = os.open(self.path, os.O_WRONLY)
            try:
                self.path.unlink()
                _widen(pipe)
                os.set_blocking(pipe, False)
                for chunk in self._chunks:
                    self._scanner.add(chunk)
                    self._put(pipe, chunk)
                self.found = self._scanner.result()
            except NO_GZIP as error:
                self.found = Scan(damage=str(error) or "cut off")
            finally:
                os.close(pipe)

    def _put(self, pipe: int, chunk: bytes) -> None:
        left = memoryview(chunk)
        while left:
            try:
                left = left[os.write(pipe, left):]
            except BlockingIOError:
                waiting = select.poll()
                waiting.register(pipe, select.POLLOUT)
                waiting.register(self._stop, select.POLLIN)
                if any(which == self._stop for which, _ in waiting.poll()):
                    raise BrokenPipeError from None


def _widen(pipe: int) -> None:
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


@contextlib.contextmanager
def pipes_of(files: Sequence[tuple[Path, Scanner]], folder: Path) -> Iterator[list[Pipe] | None]:
    """A pipe in `folder` for each (file, what looks at it); None where the system has none to give. When the block
    ends, nothing may read any more."""
    with contextlib.ExitStack() as stack:
        pipes: list[Pipe] = []
        try:
            own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pipes-", dir=folder)))
            stop, stopper = os.pipe()
            stack.callback(_end, pipes, stop, stopper)
            for index, (file, scanner) in enumerate(files):
                pipes.append(Pipe(file, scanner, own / f"{index}.txt", stop))
        except (AttributeError, OSError, RuntimeError):  # no named pipes here, no thread left
            stack.close()
            yield None
            return
        yield pipes


def _end(pipes: Sequence[Pipe], stop: int, stopper: int) -> None:
    os.write(stopper, b"!")
    for pipe in pipes:
        pipe.end()
    os.close(stop)
    os.close(stopper)
