"""Memory that a server's processes share: what is forked from the process that made it has it too. Imports nothing that
starts a thread."""

from __future__ import annotations

import mmap

COUNTED = 1 << 17  # numbers that each worker counts in
_NUMBER = 8  # bytes


def counts(workers: int) -> mmap.mmap:
    """What workers count in: float64 [workers, COUNTED], all 0."""
    return mmap.mmap(-1, _NUMBER * COUNTED * workers)


def seen(workers: int) -> mmap.mmap:
    """How often what is served has changed, and which of these changes each worker follows: int64 [1 + workers]."""
    return mmap.mmap(-1, _NUMBER * (1 + workers))


def flags(workers: int) -> mmap.mmap:
    """A byte for each worker."""
    return mmap.mmap(-1, workers)
