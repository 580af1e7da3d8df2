"""Work in processes that may die: each is forked from one interpreter that has loaded the libraries once.

`in_children(work, items)` gives for every item what `work(item)` returned, or `Died`, or `Hung`. A process does one
item after the other; after a death or a hang the next goes on with the item behind it. `work` is a function of a
module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from clickwise import cli

SECONDS = 20  # of one item, on a machine with other work


@dataclasses.dataclass(frozen=True)
class Died:
    """The process ended: `code` is its exit code, the negative number of a signal."""

    code: int


@dataclasses.dataclass(frozen=True)
class Hung:
    """No answer within SECONDS."""


@dataclasses.dataclass(frozen=True)
class Said:
    """How a command ended. `broken` is the traceback of an error that nobody answered, else empty."""

    code: int
    out: str
    err: str
    broken: str = ""


@functools.cache
def _context():
    """Processes forked from an interpreter that has `faults.loaded`, which it finds where this one would."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faults.loaded"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    return context


def in_children(work: Callable[[Any], Any], items: Sequence[Any], *, seconds: float = SECONDS) -> Iterator[Any]:
    context, first = _context(), 0
    while first < len(items):
        ours, theirs = context.Pipe()
        process = context.Process(target=_do, args=(theirs, work, items[first:]), daemon=True)
        process.start()
        theirs.close()
        try:
            while first < len(items):
                allowed = seconds if first else seconds + 60  # the first process loads the libraries
                if not ours.poll(allowed):
                    process.kill()
                    process.join()
                    yield Hung()
                    first += 1
                    break
                try:
                    answer = ours.recv()
                except EOFError:
                    process.join()
                    yield Died(process.exitcode)
                    first += 1
                    break
                yield answer
                first += 1
        finally:
            ours.close()
            process.kill()
            process.join()


def _do(pipe, work: Callable[[Any], Any], items: Sequence[Any]) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # what C++ prints
    import torch

    torch.set_num_threads(1)
    for item in items:
        try:
            answer = work(item)
        except Exception:
            answer = Said(-1, "", "", traceback.format_exc())
        pipe.send(answer)


def command(*words: object, folder: Path | None = None) -> Said:
    """The command line in this process, as a person would see it."""
    out, err, before = io.StringIO(), io.StringIO(), os.getcwd()
    argv, sys.argv = sys.argv, ["clickwise", *map(str, words)]
    code, broken = 0, ""
    try:
        if folder is not None:
            os.chdir(folder)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        code, broken = 1, traceback.format_exc()
    finally:
        sys.argv = argv
        os.chdir(before)
    return Said(code, out.getvalue(), err.getvalue(), broken)
