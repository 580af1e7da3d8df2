"""Files that are whole or absent: everything is written under a temporary name and renamed when complete."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from clickwise.errors import ClickwiseError


def temporary_sibling(path: Path) -> Path:
    """A hidden name beside `path`, so that the final rename stays within one file system."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path; renames it to `path` when the block ends well, removes it when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as slip:
        temporary.unlink(missing_ok=True)
        if isinstance(slip, OSError) and slip.filename in (None, str(temporary)):
            slip.filename = str(path)
        raise


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary folder; puts it in the place of `path` when the block ends well, removes it when not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        put_in_place(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def put_in_place(temporary: Path, path: Path) -> None:
    """Renames the folder `temporary` to `path`, replacing what stood there."""
    if path.exists():
        old = temporary_sibling(path).with_suffix(".old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(temporary, path)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a whole UTF-8 file."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def only_one(folder: Path, error: type[ClickwiseError]) -> Iterator[None]:
    """Holds `folder` for this process; raises `error` where another process holds it. It ends with the process."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    with open(folder / ".lock", "w") as file:
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


def to_json(value: object, indent: int | None = None) -> str:
    """`value` as strict JSON: a number that is not finite (a metric that the data leave undefined) becomes null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes a whole file of strict JSON, indented for people."""
    write_text(path, to_json(value, indent=2) + "\n")


def shipped(relative: str) -> Path:
    """The place of a file or folder that travels with the package (`recipes`, `data/kuairand_pure`)."""
    package = Path(__file__).parent
    for root in (package / "shipped", package.parents[1]):
        if (root / relative).exists():
            return root / relative
    raise FileNotFoundError(relative)
