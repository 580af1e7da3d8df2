"""The mistakes a person can make: one exception per kind, one message each (where, found, expected, what to do)."""

from __future__ import annotations

import difflib
import errno
import signal
from collections.abc import Iterable

MOST_FOUND = 2000  # characters: a section of a file in place of a number is not repeated as a whole


class ClickwiseError(Exception):
    """A person's mistake: `cli` prints it without a traceback and exits with `exit_code`.

    `where` is the file, key or option; `found` and `expected` are short phrases; `do` is the next thing to try.
    `at_once` says that the process ends without tidying up, which would wait for processes that are gone.
    """

    exit_code = 1
    at_once = False

    def __init__(self, where: object, *, found: str, expected: str = "", do: str = "") -> None:
        found = found if len(found) <= MOST_FOUND else f"{found[:MOST_FOUND]}… ({len(found):,} characters)"
        self.where, self.found, self.expected, self.do = str(where), found, expected, do
        lines = [self.where]
        lines += [f"  {name:<9}{text}" for name, text in (("found", found), ("expected", expected), ("do", do)) if text]
        super().__init__("\n".join(lines))

    def __reduce__(self):
        return (_rebuild, (type(self), self.where, self.found, self.expected, self.do))


def _rebuild(cls, where, found, expected, do):
    return cls(where, found=found, expected=expected, do=do)


class UsageError(ClickwiseError):
    """A command was called with arguments that cannot work."""

    exit_code = 2


class RecipeError(ClickwiseError):
    """A recipe holds an unknown key, a wrong type or a value out of range."""

    exit_code = 2


class SpecError(ClickwiseError):
    """A Feature Spec contradicts itself, or the columns on disk contradict it."""


class PrepareError(ClickwiseError):
    """Raw logs cannot be prepared as asked."""


class DataError(ClickwiseError):
    """Columns cannot be read or delivered as asked."""


class EngineError(ClickwiseError):
    """The embedding engine or the device asked for cannot do the work."""


class CheckpointError(ClickwiseError):
    """A checkpoint cannot be written, read, or does not belong to this run."""


class TrainError(ClickwiseError):
    """Training cannot go on (a loss that is not finite, say)."""


class StoreError(ClickwiseError):
    """What keeps the states of a server cannot be reached, or refuses."""


class Interrupted(ClickwiseError):
    """SIGINT (Ctrl-C) or SIGTERM ended the work."""

    exit_code = 128 + signal.SIGINT


LAUNCHED = "CLICKWISE_LAUNCHED"  # in the environment of processes that another one started, which tells of their end


class ToldElsewhere(ClickwiseError):
    """This process ends because of an error of which another one tells: nothing is printed."""

    at_once = True

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process", found="an error, of which it tells")
        self.exit_code = exit_code


_ANOTHER_PLACE = "choose another place, or change its permissions"
_DISK = {errno.ENOSPC: "free space on the disk", errno.EDQUOT: "free space, or have the quota raised",
         errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose another file system",
         errno.EIO: "look after the disk, or choose another", errno.ESTALE: "mount the file system again",
         errno.EMFILE: "raise the limit on open files (ulimit -n)", errno.ENFILE: "close other programs",
         errno.EROFS: "choose another place: this one can only be read",
         errno.EBUSY: "choose a place that no other program uses", errno.EXDEV: "choose a place on one file system",
         **dict.fromkeys((errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY,
                          errno.ENAMETOOLONG, errno.ELOOP), _ANOTHER_PLACE)}


def disk_error(error: OSError, where: object = "writing", kind: type[ClickwiseError] = ClickwiseError
               ) -> ClickwiseError | None:
    """The error for a person where a disk is full, may not be written to, or fails; None of any other error.

    `where` stands for a file that the error does not name."""
    if error.errno not in _DISK:
        return None
    return kind(error.filename or where, found=error.strerror or str(error), expected="room and permission to write",
                do=f"{_DISK[error.errno]}; unfinished files were removed")


def nearest(name: object, choices: Iterable[object], *, otherwise: str = "choose one of") -> str:
    """`did you mean 'x'?` for the closest of `choices`, else the choices themselves (at most ten)."""
    choices = [str(choice) for choice in choices]
    close = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(choices[:10]) + (f", … ({len(choices)} in all)" if len(choices) > 10 else "")
    return f"{otherwise}: {shown}" if choices else ""


def nearest_column(name: object, columns: Iterable[object]) -> str:
    """The same for a column that is missing among `columns`."""
    return nearest(name, columns, otherwise="add it, or rename one of")
