"""Progress of long work: a bar with rate and ETA on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time


class Progress:
    """`with Progress("reading", total=rows, unit="rows") as bar: bar.advance(n)`.

    `total` may be None (unknown: a rate without ETA). Off a terminal a line appears every `every_s` seconds.
    """

    def __init__(self, title: str, *, total: int | None = None, unit: str = "rows", every_s: float = 10.0) -> None:
        self.title, self.total, self.unit, self.every_s = title, total, unit, every_s
        self.done, self.skipped, self.note, self._bar = 0, 0, "", None

    def __enter__(self) -> Progress:
        self.started = self._last_line = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            text = TextColumn("{task.fields[rate]} {task.fields[note]}")
            self._bar = Bar(TextColumn("{task.description}"), BarColumn(), text, TimeElapsedColumn(),
                            TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, rate="", note="")
        return self

    def skip(self, amount: int) -> None:
        """`amount` units were done before this start: they count as done, not in the rate."""
        self.done += amount
        self.skipped += amount

    def advance(self, amount: int, note: str = "") -> None:
        """`amount` more units are done; `note` is shown behind the rate (a loss, a file name)."""
        self.done += amount
        self.note = note or self.note
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=self._rate(), note=self.note)
        elif time.monotonic() - self._last_line >= self.every_s:
            self._last_line = time.monotonic()
            self._print_line()

    def _rate(self) -> str:
        rate = (self.done - self.skipped) / max(time.monotonic() - self.started, 1e-9)
        for size, letter in ((1e6, "M"), (1e3, "k")):
            if rate >= size:
                return f"{rate / size:.1f}{letter} {self.unit}/s"
        return f"{rate:.0f} {self.unit}/s"

    def _print_line(self) -> None:
        seconds = time.monotonic() - self.started
        share = f" {100 * self.done / self.total:.0f} %" if self.total else ""
        new = self.done - self.skipped
        left = f", {seconds * max(self.total - self.done, 0) / new:.0f} s left" if self.total and new else ""
        print(f"{self.title}: {self.done:,} {self.unit}{share}, {self._rate()}{left} {self.note}".rstrip(),
              file=sys.stderr, flush=True)

    def __exit__(self, kind, error, trace) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None and (self._bar is not None or time.monotonic() - self.started >= 1.0):
            self._print_line()
