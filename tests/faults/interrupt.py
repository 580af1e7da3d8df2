"""Ends or hinders a command at its n-th operation on files, or at a random moment.

Python tells an audit hook of whatever opens, renames, removes or makes a file. What C++ libraries write is not told:
random moments and full disks are for that.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_CHANGES = {"os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "os.link": 1, "os.symlink": 1,
            "os.truncate": 0}  # events, and which of their arguments is the path that changes
_state: dict = {"act": None, "at": 0, "done": 0, "folder": "", "hooked": False}


def at_operation(number: int, folder: Path, act: Callable[[], None]) -> None:
    """Calls `act` before the operation `number` (1, 2, …) that writes in `folder`; 0 never. `operations()` counts."""
    _state.update(act=act, at=number, done=0, folder=str(folder))
    if not _state["hooked"]:
        _state["hooked"] = True
        sys.addaudithook(_hook)


def operations() -> int:
    return _state["done"]


def _hook(event: str, arguments: tuple) -> None:
    if _state["act"] is None or not _writes(event, arguments):
        return
    path = arguments[_CHANGES.get(event, 0)]
    if isinstance(path, int):
        return
    path = os.fsdecode(path)
    if os.path.isabs(path) and not path.startswith(_state["folder"]):
        return
    _state["done"] += 1
    if _state["done"] == _state["at"]:
        _state["act"]()


def _writes(event: str, arguments: tuple) -> bool:
    if event == "open":
        _, mode, flags = arguments
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if mode is None else any(c in mode for c in "wax+")
    return event in _CHANGES


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_moment(seconds: float) -> None:
    """The system ends this process after so many seconds of work, wherever it is; 0 never. (How long it waits for
    others does not count: the moments are the same on a busy machine.)"""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
