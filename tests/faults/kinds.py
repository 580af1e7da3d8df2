"""What is damaged and how it is read: a kind of input joins by one line in KINDS of `raw_kinds` or `run_kinds`."""

from __future__ import annotations

import dataclasses
import random
import shutil
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clickwise.errors import ClickwiseError
from faults.children import Said
from faults.mutate import Mutator

SAME, MESSAGE, TRACEBACK, WRONG = "the same rows", "a message", "a traceback", "silently wrong"


class Refused(Exception):
    """The plain reader does not take the input."""


class Told(Exception):
    """clickwise does not take it, in one message."""


class Broken(Exception):
    """clickwise ends in a traceback."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """make(folder)     writes a good input into an empty folder; once
    files(folder)       those that may be damaged
    mutators            how
    read(folder)        what clickwise reads; raises `Told`, `Broken` or a ClickwiseError
    plain(folder, good) what it may read: the readings of strict plain readers; raises `Refused`. `good` is what was
                        read of the good input
    """

    name: str
    make: Callable[[Path], None]
    files: Callable[[Path], list[Path]]
    mutators: Sequence[Mutator]
    read: Callable[[Path], Any]
    plain: Callable[[Path, Any], list[Any]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    kind: str
    number: int
    how: str
    what: str
    told: str = ""


def unchanged(folder: Path, good: Any) -> list[Any]:
    """For inputs that clickwise wrote itself: a damaged one is told, or reads as the good one did."""
    return [good]


def of_command(said: Said) -> Said:
    """The same, where it ended well; raises how it did not."""
    if said.broken or said.code not in (0, 1, 2):
        raise Broken(said.broken or f"exit code {said.code}")
    if said.code:
        if "Traceback (most recent call last)" in said.err or not said.err.strip():
            raise Broken(said.err or "no message")
        raise Told(said.err.strip()[-600:])
    return said


def same(found: Any, expected: Any) -> bool:
    """Equal in all parts; arrays of floats to the bit, or as close as an array's own `rtol` says."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and found.keys() == expected.keys() and \
            all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, Close):
        found = np.asarray(found, np.float64)
        return found.shape == expected.values.shape and np.allclose(found, expected.values, rtol=1e-4, atol=1e-5)
    if isinstance(expected, np.ndarray):
        return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()
    return type(found) is type(expected) and found == expected


@dataclasses.dataclass(frozen=True)
class Close:
    """Numbers that are expected but for rounding."""

    values: np.ndarray


def damage(kind: Kind, number: int, good: Path, folder: Path) -> str:
    """Copies the good input to `folder` and damages it, always in the same way for the same number; what was done."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder, symlinks=True)
    dice = random.Random(f"{kind.name}/{number}")
    path = dice.choice(sorted(kind.files(folder)))
    mutator = dice.choice(kind.mutators)
    content = mutator(dice, path.read_bytes())
    path.unlink()  # other names of the file keep what they have
    path.write_bytes(content)
    return f"{path.relative_to(folder)}: {mutator.__name__}"


def judge(kind: Kind, number: int, good: Path, folder: Path, was: Any) -> Outcome:
    """Damages, reads, and compares with the plain reader."""
    how = damage(kind, number, good, folder)

    def outcome(what: str, told: object = "") -> Outcome:
        return Outcome(kind.name, number, how, what, str(told))

    try:
        found = kind.read(folder)
    except (Told, ClickwiseError) as told:
        return outcome(MESSAGE, told)
    except Broken as broken:
        return outcome(TRACEBACK, broken)
    except Exception:
        return outcome(TRACEBACK, traceback.format_exc())
    try:
        readings = kind.plain(folder, was)
    except Refused as refused:
        return outcome(WRONG, f"read, although: {refused}")
    if any(same(found, reading) for reading in readings):
        return outcome(SAME)
    return outcome(WRONG, f"found {found!s:.600}\nexpected {readings!s:.600}")
