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
    assert capsys.readouterr().err == "reading: 250 rows 25 %, 25 rows/s, ETA 30 s, loss 0.5\n" \
                                      "reading: 1,000 rows in 15.0 s, 67 rows/s\n"


def test_never_more_than_the_total(clock, capsys):
    with Progress("reading", total=100) as bar:
        clock[0] += 10
        bar.advance(150)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("reading: 100 rows 100 %") and "ETA 0 s" in first
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
    assert capsys.readouterr().err.splitlines() == ["training: 20 steps 67 %, 1 steps/s, ETA 10 s",
                                                    "training: 20 steps in 10.0 s, 1 steps/s"]


def test_nothing_for_short_work_and_for_work_that_failed(clock, capsys):
    with Progress("reading", total=10) as bar:
        bar.advance(10)
    with pytest.raises(ValueError), Progress("reading", total=10):
        clock[0] += 60
        raise ValueError
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "said"), [
    (0.2, "0 s"), (59.4, "59 s"), (61, "1 min"), (119, "2 min"), (3599, "1 h 0 min"), (4200, "1 h 10 min"),
    (47 * 3600, "47 h 0 min"), (76 * 3600, "3 d 4 h")])
def test_a_time_as_a_person_says_it(seconds, said):
    assert progress.duration(seconds) == said


def test_the_first_line_comes_when_it_is_wanted(clock, capsys):
    with Progress("training", total=100, unit="samples", first_s=0.0) as bar:
        for _ in range(3):
            clock[0] += 4
            bar.advance(10, "step 1 of 3")
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "training: 10 samples 10 %", "training: 30 samples in 12.0 s"]


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
    first, last = (f'a &lt; b <progress value="{done}" max="100"></progress> ETA {left} s, 67 rows/s'
                   for done, left in ((10, 1), (30, 1)))
    assert shown == ["", first, last, ""]
    with Progress("more", total=1):
        pass
    assert shown[4:] == [""]  # in the same output
    shell.execution_count = 8
    with Progress("more", total=1):
        pass
    assert shown[5:] == ["", ""]  # of another cell
