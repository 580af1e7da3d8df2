"""A kind of input damaged many times: made once, then read by child processes, each result judged."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from faults import raw_kinds, run_kinds
from faults.children import Died, Hung, in_children
from faults.kinds import Kind, Outcome, judge, same

KINDS = {kind.name: kind for kind in (*raw_kinds.KINDS, *run_kinds.KINDS)}
MANY = 120  # of every kind, at length
HANG, CRASH = "a hang", "a crash"


def run_kind(name: str, numbers: Iterable[int], folder: Path) -> Iterator[Outcome]:
    """The outcome of every damaged input of a kind, by its numbers; raises AssertionError where the good one is not
    read as the plain reader reads it. One and the same number is always the same damage."""
    numbers = list(numbers)
    (was,) = in_children(functools.partial(_make, name), [folder], seconds=240)
    assert was is True, was
    for number, found in zip(numbers, in_children(functools.partial(_judge, name, folder), numbers), strict=True):
        if isinstance(found, Hung):
            yield Outcome(name, number, "", HANG)
        elif isinstance(found, Died):
            yield Outcome(name, number, "", CRASH, f"exit code {found.code}")
        elif not isinstance(found, Outcome):
            raise AssertionError(f"the harness itself: {found.broken}")
        else:
            yield found


def is_written_by_clickwise(name: str) -> bool:
    """Such inputs have checksums: hardly any damage is read."""
    return name in {kind.name for kind in run_kinds.KINDS}


def _make(name: str, folder: Path) -> bool:
    kind = KINDS[name]
    good = folder / "good"
    shutil.rmtree(good, ignore_errors=True)
    good.mkdir(parents=True)
    kind.make(good)
    was = _read_good(kind, folder)
    readings = kind.plain(folder / "read", was)
    assert any(same(was, reading) for reading in readings), f"{name}: found {was}\nexpected {readings}"
    return True


def _read_good(kind: Kind, folder: Path) -> object:
    shutil.rmtree(folder / "read", ignore_errors=True)
    shutil.copytree(folder / "good", folder / "read", symlinks=True)
    return kind.read(folder / "read")


_was: dict[str, object] = {}


def _judge(name: str, folder: Path, number: int) -> Outcome:
    kind = KINDS[name]
    if name not in _was:
        _was[name] = _read_good(kind, folder)
    return judge(kind, number, folder / "good", folder / "damaged", _was[name])
