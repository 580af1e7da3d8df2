"""Files that are whole or absent: everything is written under a temporary name and renamed when complete."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clickwise.errors import ClickwiseError, DataError, UsageError
from clickwise.given_files import read_given_json

if TYPE_CHECKING:
    import numpy as np


LONGEST_STEM = 200  # bytes; file systems take 255 with all endings
FEW_FILES = 16  # that are written to the disk one after the other


def temporary_sibling(path: Path) -> Path:
    """A hidden name beside `path`, so that the final rename stays within one file system."""
    return path.with_name(f".{path.name}.process{os.getpid()}.partial")


def remove(path: Path) -> None:
    """Removes a file, or a folder with all in it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path; renames it to `path` when the block ends well, removes it when it does not.

    What a process that was killed while it wrote the same file has left is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left_over(path)
    temporary = temporary_sibling(path)
    try:
        temporary.touch()
        with _held(temporary):
            yield temporary
            with open(temporary, "r+b") as file:  # Windows syncs no handle that only reads
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the error that is reported is the first
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary folder; replaces `path` by it when the block ends well, removes it when not.

    What a process that was killed while it wrote the same folder has left is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left_over(path)
    temporary = temporary_sibling(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with _held(temporary):
            yield temporary
            put_in_place(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Shows other processes that this one, while it lives, writes the file or folder."""
    handle = _lock(path)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _lock(path: Path) -> int | None:
    """A handle that holds the file or folder; None where another process holds it, or nobody can."""
    try:
        import fcntl

        handle = os.open(path, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def remove_left_over(path: Path) -> None:
    """Removes the temporary siblings of `path` that belong to no living process."""
    name = re.compile(rf"\.{re.escape(path.name)}\.process\d+\.partial")
    with contextlib.suppress(OSError):  # a folder that can be written but not listed
        for sibling in [entry.name for entry in os.scandir(path.parent) if name.fullmatch(entry.name)]:
            left = path.with_name(sibling)
            if (handle := _lock(left)) is not None:
                remove(left)
                os.close(handle)


def holds_something(path: Path) -> bool:
    """Whether there is a file, or a folder with things in it, so that no new folder can take the place."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def check_new_folder(path: Path, where: str | Path) -> None:
    """Raises UsageError, at `where`, unless `path` is free for a new folder."""
    if holds_something(path):
        raise UsageError(where, found="a folder with things in it" if path.is_dir() else "a file",
                         expected="a new or empty folder")


def put_in_place(temporary: Path, path: Path) -> None:
    """Renames the folder `temporary` to `path`, replacing what stood there: at every moment either stands there whole,
    also after a power cut.

    Where the system cannot exchange two folders in one step, the old one is renamed first; a process that is killed
    then leaves it as `.<name>.old`, from where `put_back` takes it.
    """
    put_back(path)
    to_disk(temporary)
    if not path.exists():
        os.replace(temporary, path)
    elif not _exchange(temporary, path):
        os.replace(path, _old(path))
        os.replace(temporary, path)
    _sync(path.parent)
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(_old(path), ignore_errors=True)


def put_back(path: Path) -> None:
    """Ends what a killed `put_in_place` left half done: the old folder stands at `path` again, or is deleted where the
    new one stands there."""
    if path.exists():
        shutil.rmtree(_old(path), ignore_errors=True)
    elif _old(path).exists():
        os.replace(_old(path), path)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _exchange(one: Path, other: Path) -> bool:
    """Whether the two now stand in each other's place: Linux does it in one step, on most file systems."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    from_here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2(from_here, os.fsencode(one), from_here, os.fsencode(other), exchange) == 0


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target`, which is not there yet, a hard link to the file `source`, or a copy where there are no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def file_stem(name: str) -> str:
    """What a file of a thing with that name is called: as the thing, but for / and \\ in it, and where it is too long
    for a file system. No two names have the same."""
    stem = re.sub(r"[/\\]|%(?=2F|5C|25)", lambda found: f"%{ord(found[0]):02X}", name)
    if len(stem.encode()) <= LONGEST_STEM:
        return stem
    return stem[:40] + "~" + hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


def to_disk(folder: Path) -> None:
    """Returns when all files and folders in `folder` are on the disk: no power cut can take them any more.

    Where they are many, the file system is asked for all that it has not written yet: 20,000 small files took 0.5 s so,
    and 52 s one after the other.
    """
    folders, files = [], []
    for place, _, names in os.walk(folder):
        folders.append(place)
        files += [os.path.join(place, name) for name in names]
    if len(files) > FEW_FILES and _sync_file_system(folder):
        return
    for path in (*files, *folders):
        _sync(path)


def _sync_file_system(path: Path) -> bool:
    """Whether all that was written to the file system of `path` is on the disk now; False where there is no such call.
    """
    try:
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError, TypeError):
        return False
    handle = os.open(path, os.O_RDONLY)
    try:
        return syncfs(handle) == 0
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    except OSError:  # of a system that opens no folders, or a file that may be written but not read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of a file system that cannot
            error.filename = str(path)
            raise
    finally:
        os.close(handle)


def write_array(file: BinaryIO, array: np.ndarray) -> None:
    """Writes the bytes of `array`; unlike `ndarray.tofile`, a full disk raises an OSError that says so (ENOSPC)."""
    try:
        file.write(array if array.flags.c_contiguous else array.copy())
    except OSError as error:
        error.filename = error.filename or file.name
        raise


def save_array(path: str | os.PathLike, array: np.ndarray) -> None:
    """Writes a file with the bytes of `array`."""
    with open(path, "wb") as file:
        write_array(file, array)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a whole UTF-8 file."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def only_one(folder: Path, error: type[ClickwiseError]) -> Iterator[None]:
    """Holds `folder` for this process; raises `error` where another process holds it. It ends with the process."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    with open(folder / ".lock", "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise error(folder, found="another process is working in it", expected="one process at a time",
                        do="wait for it, or stop it") from None
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            (folder / ".lock").unlink(missing_ok=True)


def to_json(value: object, indented: bool = False) -> str:
    """`value` as strict JSON: a number that is not finite (a metric that the data leave undefined) becomes null.
    `indented` for people: objects in objects, and what is deeper on one line."""
    return _indented(_finite(value)) if indented else json.dumps(_finite(value), allow_nan=False)


def _finite(value: object) -> object:
    if type(value) in (str, int):  # most are
        return value
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes a whole file of strict JSON, indented for people."""
    write_text(path, to_json(value, indented=True) + "\n")


def _indented(value: object, levels: int = 2, indent: str = "\n") -> str:
    if not (levels and isinstance(value, dict) and value):
        return json.dumps(value, allow_nan=False)
    inner = indent + "  "
    return "{" + ",".join(f"{inner}{json.dumps(key if isinstance(key, str) else json.dumps(key))}: "
                          + _indented(item, levels - 1, inner) for key, item in value.items()) + indent + "}"


def read_json(path: Path) -> dict:
    """The object in a file of JSON; DataError where there is none."""
    try:
        content = read_given_json(path)
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__} in place of an object")
    except (OSError, ValueError) as error:
        raise DataError(path, found=f"no JSON that can be read ({error})", expected="what clickwise wrote",
                        do="copy the file again, or repeat what wrote it") from None
    return content


def shipped(relative: str) -> Path:
    """The place of a file or folder that travels with the package (`recipes`, `data/kuairand_pure`)."""
    package = Path(__file__).parent
    for root in (package / "shipped", package.parents[1]):
        if (root / relative).exists():
            return root / relative
    raise FileNotFoundError(relative)
