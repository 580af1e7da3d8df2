"""What long work says: a bar with rate and ETA on a terminal and in a notebook, and lines for the log `clickwise`,
which the command line shows on stderr."""

from __future__ import annotations

import logging
import sys
import time
from html import escape
from typing import Any

_log = logging.getLogger("clickwise")


def say(text: str) -> None:
    """One message, of one or more lines, for a person."""
    _log.info(text)


def warn(text: str) -> None:
    """One message that a person should not miss: Python shows it on stderr where no log is shown."""
    _log.warning("warning: " + text)


def show_log() -> None:
    """Shows the log on stderr, as it is, whatever `sys.stderr` then is."""
    if not any(isinstance(handler, _Stderr) for handler in _log.handlers):
        _log.addHandler(_Stderr())
    _log.setLevel(logging.INFO)


def be_quiet() -> None:
    """From now on this process says nothing: of several, another one speaks."""
    _log.setLevel(logging.CRITICAL)


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)


class _TerminalBar:
    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(TextColumn("{task.description}"), BarColumn(bar_width=12),
                             TextColumn("{task.fields[text]}"), console=Console(stderr=True), transient=True)
        self._bar.start()
        self._task = self._bar.add_task(title, total=None, text="")

    def show(self, done: int, total: int | None, text: str) -> None:
        self._bar.update(self._task, completed=done, total=total, text=text)

    def stop(self) -> None:
        self._bar.stop()


class _NotebookBar:
    """One output for all bars of a cell, which is written anew and is empty in the end."""

    EVERY_S = 0.2
    _of_cell: tuple[object, Any] = (None, None)

    def __init__(self, title: str) -> None:
        from IPython import get_ipython
        from IPython.display import HTML, display

        self.title, self._html, self._shown = title, HTML, 0.0
        cell, self._output = _NotebookBar._of_cell
        if self._output is None or cell != get_ipython().execution_count:
            self._output = display(HTML(""), display_id=True)
            _NotebookBar._of_cell = (get_ipython().execution_count, self._output)

    def show(self, done: int, total: int | None, text: str) -> None:
        if time.monotonic() - self._shown >= self.EVERY_S:
            self._shown = time.monotonic()
            of = f'value="{done}" max="{total}"' if total else ""
            self._output.update(self._html(f"{escape(self.title)} <progress {of}></progress> {escape(text)}"))

    def stop(self) -> None:
        self._output.update(self._html(""))


def _kind_of_bar() -> type[_TerminalBar | _NotebookBar] | None:
    """The bar that a person would see; None where nobody looks."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if getattr(shell, "kernel", None) is not None:
        return _NotebookBar
    return _TerminalBar if sys.stderr.isatty() and _log.isEnabledFor(logging.INFO) else None


def duration(seconds: float) -> str:
    """As a person says it: 9 s, 2 min, 1 h 10 min, 3 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


class Progress:
    """`with Progress("reading", total=rows, unit="rows") as bar: bar.advance(n)`.

    `total` may be None (unknown: a rate without ETA). Where there is no bar, a line appears every `every_s` seconds,
    the first after `first_s`.
    """

    def __init__(self, title: str, *, total: int | None = None, unit: str = "rows", every_s: float = 10.0,
                 first_s: float = 10.0) -> None:
        self.title, self.total, self.unit, self.every_s, self.first_s = title, total, unit, every_s, first_s
        self.done, self.skipped, self.note = 0, 0, ""
        self._bar: _TerminalBar | _NotebookBar | None = None

    def __enter__(self) -> Progress:
        self.started = time.monotonic()
        self._next_line = self.started + self.first_s
        if (bar := _kind_of_bar()) is not None:
            self._bar = bar(self.title)
        return self

    def skip(self, amount: int) -> None:
        """`amount` units were done before this start: they count as done, not in the rate."""
        self.done += amount
        self.skipped += amount

    def advance(self, amount: int, note: str = "") -> None:
        """`amount` more units are done; `note` is shown beside rate and ETA (a loss, a file name)."""
        self.done += amount
        self.note = note or self.note
        if self._bar is not None:
            self._bar.show(self._done(), self.total, ", ".join([*self._left_and_note(), self._rate()]))
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + self.every_s
            self._print_line()

    def _done(self) -> int:
        return self.done if self.total is None else min(self.done, self.total)  # a total may be an estimate

    def _rate(self) -> str:
        rate = (self.done - self.skipped) / max(time.monotonic() - self.started, 1e-9)
        for size, letter in ((1e6, "M"), (1e3, "k")):
            if rate >= size:
                return f"{rate / size:.1f}{letter} {self.unit}/s"
        return f"{rate:.0f} {self.unit}/s"

    def _left_and_note(self) -> list[str]:
        new = self._done() - self.skipped
        left = (time.monotonic() - self.started) * (self.total - self._done()) / new if self.total and new > 0 else None
        return [*([] if left is None else [f"ETA {duration(left)}"]), *([self.note] if self.note else [])]

    def _print_line(self, ended: bool = False) -> None:
        seconds, done = time.monotonic() - self.started, self._done()
        share = f" {100 * done / self.total:.0f} %" if self.total and not ended else ""
        unit = self.unit.removesuffix("s") if done == 1 else self.unit
        took, behind = (f" in {seconds:,.1f} s", []) if ended else ("", self._left_and_note())
        say(", ".join([f"{self.title}: {done:,} {unit}{share}{took}", self._rate(), *behind]))

    def __exit__(self, kind, error, trace) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None and (self._bar is not None or time.monotonic() - self.started >= 1.0):
            self._print_line(ended=True)
