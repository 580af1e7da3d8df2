"""How often Python looks for objects that only refer to each other."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

FACTOR = 30


@contextlib.contextmanager
def rare_collections() -> Iterator[None]:
    """Looks for garbage `FACTOR` times less often, for a block or a function: thousands of columns are hundreds of
    thousands of objects, which all stay, and to look through them again and again takes a tenth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(before[0] * FACTOR, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
