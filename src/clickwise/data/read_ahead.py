"""What lets a loader work beside the training step: a thread that stays ahead, and memory that is used again."""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def read_ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items, computed by a thread that stays `depth` items ahead.

    What goes wrong in the thread is raised here, after the items before it. The thread ends with this generator.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def work() -> None:
        try:
            for item in items:
                ready.put((True, item))
                if stopped.is_set():
                    return
            ready.put((False, None))
        except BaseException as error:
            ready.put((False, error))

    thread = threading.Thread(target=work, name="clickwise-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            is_item, item = ready.get()
            if not is_item:
                break
            yield item
            del item  # or this frame would keep a batch alive while the next is computed
        if item is not None:
            raise item
    finally:
        stopped.set()
        while thread.is_alive():  # a full queue would block its last put
            with contextlib.suppress(queue.Empty):
                ready.get(timeout=0.01)
        thread.join()


class Buffers:
    """Memory of batches that nobody holds any more, used again: fresh memory costs a page fault every 4 KiB."""

    def __init__(self, keep: int) -> None:
        self.keep, self.free = keep, []

    def take(self, size: int) -> np.ndarray:
        """`size` bytes; they come back to the stock by themselves when the last tensor in them is gone."""
        for _ in range(len(self.free)):
            with contextlib.suppress(IndexError):  # another thread may have taken the last one
                buffer = self.free.pop()
                if len(buffer) >= size:
                    break
        else:
            buffer = np.empty(1 << max(size - 1, 1).bit_length(), np.uint8)  # unused pages take no memory
        lease = buffer[:size]
        weakref.finalize(lease, self.give, buffer).atexit = False
        return lease

    def give(self, buffer: np.ndarray) -> None:
        if len(self.free) < self.keep:
            self.free.append(buffer)
