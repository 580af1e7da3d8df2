"""Files that somebody else may have written, read whole: plain files only, of a bounded size, as text or as JSON."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from clickwise.errors import ClickwiseError, DataError

MOST_TEXT_BYTES = 8 << 20  # of YAML: a Feature Spec of 100,000 features
MOST_JSON_BYTES = 64 << 20
MOST_DEPTH = 100  # lists and mappings inside each other
MOST_DIGITS = 100

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe (FIFO)", stat.S_IFSOCK: "a socket",
          stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def no_file(path: str | os.PathLike) -> str:
    """What stands at `path` in place of a file, in words; "" for a file. A pipe or a device may never answer."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "")
    except ValueError:  # a zero character in the name
        return "no such file"
    except OSError as error:
        return "no such file" if isinstance(error, (FileNotFoundError, NotADirectoryError)) else str(error.strerror)


def check_is_file(path: str | os.PathLike, expected: str, error: type[ClickwiseError] = DataError) -> None:
    """Raises `error` unless `path` is a file."""
    if found := no_file(path):
        raise error(path, found=found, expected=expected)


def check_links(folder: Path, error: type[ClickwiseError] = DataError) -> None:
    """Raises `error` for a link in `folder`, at any depth, to what lies outside of it: a folder that somebody else
    packed would have files read, copied or written that are no part of it."""
    root = os.path.realpath(folder)
    for above, folders, files in os.walk(root):
        for path in (os.path.join(above, name) for name in (*folders, *files)):
            if os.path.islink(path) and not is_inside(path, root):
                raise error(path, found=f"a link to {os.path.realpath(path)}", expected=f"files inside of {folder}",
                            do="--trust-paths, if the folder is yours, or you trust who made it")


def is_inside(path: str | os.PathLike, root: str | os.PathLike) -> bool:
    """Whether `path`, once links are followed, is `root` or lies in it."""
    root, path = os.path.realpath(root), os.path.realpath(path)
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def read_given_text(path: Path, expected: str, error: type[ClickwiseError]) -> str:
    """The text of a UTF-8 file that is there; raises `error` for what cannot be such a file."""
    try:
        return _text(path, MOST_TEXT_BYTES)
    except UnicodeDecodeError:
        raise error(path, found="not a text file", expected=expected) from None
    except ValueError as refused:
        raise error(path, found=str(refused), expected=expected) from None
    except OSError as failed:
        raise error(path, found=f"a file that cannot be read: {failed.strerror}", expected=expected) from None


def read_given_json(path: Path) -> Any:
    """What a JSON file holds; OSError where it cannot be read, ValueError for whatever is wrong with it."""
    try:
        content = json.loads(_text(path, MOST_JSON_BYTES), parse_int=_integer)
    except RecursionError:
        raise ValueError("lists inside lists without an end") from None
    level = [content]
    for _ in range(MOST_DEPTH):
        level = [item for value in level if isinstance(value, (dict, list))
                 for item in (value.values() if isinstance(value, dict) else value)]
        if not level:
            return content
    raise ValueError(f"more than {MOST_DEPTH} lists inside each other")


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits):,} digits")
    return int(digits)


def _text(path: Path, most: int) -> str:
    if (found := no_file(path)) and found in _KINDS.values():
        raise ValueError(f"{found}, which cannot be read as a file")
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"more than {most >> 20} MiB")
    return content.decode("utf-8")
