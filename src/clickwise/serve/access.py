"""A line for every answer, without values of requests: written together, several times a second at most."""

from __future__ import annotations

import asyncio
import sys
import time

EVERY = 0.5  # seconds


class AccessLog:
    """`GET /metrics 200 0.4 ms` on standard error."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def line(self, method: str, pattern: str, status: int, seconds: float) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(EVERY, self.flush)
        self._lines.append(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {method} {pattern} {status} {seconds * 1e3:.1f} ms\n")

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        sys.stderr.write("".join(lines))
        sys.stderr.flush()
