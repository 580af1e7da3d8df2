"""The plain lines of progress, by a clock of the test's own."""

from __future__ import annotations

import sys
import types

import pytest

from clickwise import progress
from clickwise.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    return now


def test_lines_while_it_runs_and_at_the_end(clock, capsys):
    with Progress("reading", total=1000) as bar:
        clock[0] += 10
        bar.advance(250, "loss 0.5")
        clock[0] += 5
        bar.advance(750)
    assert capsys.readouterr().err == "reading: 250 rows 25 %, 25 rows/s, 30 s left loss 0.5\n" \
                                      "reading: 1,000 rows in 15.0 s, 67 rows/s\n"


def test_never_more_than_the_total(clock, capsys):
    with Progress("reading", total=100) as bar:
        clock[0] += 10
        bar.advance(150)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("reading: 100 rows 100 %") and "0 s left" in first
    assert last.startswith("reading: 100 rows in 10.0 s")


def test_without_a_total_or_with_a_part_done_before(clock, capsys):
    with Progress("counting", unit="features") as bar:
        clock[0] += 2
        bar.advance(1)
    assert capsys.readouterr().err == "counting: 1 feature in 2.0 s, 0 features/s\n"
    with Progress("training", total=30, unit="steps") as bar:
        bar.skip(10)
        clock[0] += 10
        bar.advance(10)
    assert capsys.readouterr().err.splitlines() == ["training: 20 steps 67 %, 1 steps/s, 10 s left",
                                                    "training: 20 steps in 10.0 s, 1 steps/s"]


def test_nothing_for_short_work_and_for_work_that_failed(clock, capsys):
    with Progress("reading", total=10) as bar:
        bar.advance(10)
    with pytest.raises(ValueError), Progress("reading", total=10):
        clock[0] += 60
        raise ValueError
    assert capsys.readouterr().err == ""


def test_a_bar_in_a_notebook_that_goes_away(clock, monkeypatch):
    shown = []

    class Output:
        def update(self, html):
            shown.append(html)

    def display(html, display_id):
        shown.append(html)
        return Output()

    shell = types.SimpleNamespace(kernel=object(), execution_count=7)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(HTML=str, display=display))
    with Progress("a < b", total=100) as bar:
        for _ in range(3):
            clock[0] += 0.15  # a bar is written anew every 0.2 s
            bar.advance(10)
    first, last = (f'a &lt; b <progress value="{done}" max="100"></progress> 67 rows/s ' for done in (10, 30))
    assert shown == ["", first, last, ""]
    with Progress("more", total=1):
        pass
    assert shown[4:] == [""]  # in the same output
    shell.execution_count = 8
    with Progress("more", total=1):
        pass
    assert shown[5:] == ["", ""]  # of another cell
