"""benchmarks/sharded.py: what it compares, and that it compares nothing where tables are not those of one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ["--dims", "4", "--table-rows", "60", "--batch", "16", "--repeats", "1", "--steps", "1"]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import sharded

    return sharded


class Told:
    """A rival that tells what it was told."""

    def __init__(self, name):
        self.name = name


def test_tables_are_held_against_the_best_plan_that_computes_the_same(script):
    one, ours, good, better, other = map(Told, ("one process", "ours rows", "torchrec tables", "torchrec rows",
                                                "torchrec columns"))
    apart = {one: 0.0, ours: 1e-8, good: 1e-8, better: 1e-7, other: 0.01}
    cpu_ms = {one: (2, 2, 2), ours: (6, 8, 30), good: (12, 12, 12), better: (8, 10, 10), other: (1, 1, 1)}
    found = script._tables(apart, {rival: [(5.0, cpu) for cpu in cpu_ms[rival]] for rival in apart})
    assert {rival.name: ratios["of best"] for rival, ratios in found.items()} == {
        "one process": 0.2, "ours rows": 0.8, "torchrec tables": 1.2, "torchrec rows": 1.0,
        "torchrec columns": "other sums"}
    assert (found[ours]["low"], found[ours]["high"]) == (0.75, 3.0)
    assert script._tables({one: 0.0, other: 0.01}, {one: [(1, 1)], other: [(1, 1)]})[one] == {}


def test_a_step_is_held_against_one_process(script):
    one, ours = Told("one process"), Told("ours rows")
    found = script._steps({one: 0.0, ours: 1e-9}, {one: [(10.0, 9.0), (20.0, 9.0)], ours: [(5.0, 10.0), (10.0, 10.0)]})
    assert found[ours] == {"speed": 2.0, "efficiency": 0.9, "low": 0.9, "high": 0.9}


def test_a_step_in_two_processes_is_that_of_one(script):
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "sharded.py", "--what", "step", "--rivals",
                           "ours rows", *TINY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heads, *rows = (line.split() for line in done.stdout.splitlines()[:3])
    apart = {row[1]: float(row[heads.index("apart") + 1]) for row in rows}
    assert apart["one"] == 0 and apart["ours"] <= 1e-6
    assert {"speed", "efficiency"} <= set(heads)


def test_tables_that_are_not_those_of_one_process_are_not_compared(script, monkeypatch):
    monkeypatch.setattr(script, "WORKER", ROOT / "tests" / "benchmarks" / "no_such_worker.py")
    with pytest.raises(SystemExit, match="one process ended"):
        run(script, monkeypatch)
    apart = {"one process": 0.0, "ours rows": 1e-8, "ours tables": 2e-6}
    ended = []

    class Rival(Told):
        def __init__(self, name, *others):
            super().__init__(name)

        def apart(self):
            return apart[self.name]

        def end(self):
            ended.append(self.name)

    monkeypatch.setattr(script, "Rival", Rival)
    with pytest.raises(SystemExit, match=r"ours tables, dim 4: 2.0e-06 from the tables of one process"):
        run(script, monkeypatch)
    assert ended == list(apart)


def run(script, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sharded.py", *TINY])
    script.main()
