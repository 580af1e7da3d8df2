"""manifest.json of a run or a prepared dataset: bytes and CRC-32 of every file in it that is read later.

    {"format": 1, "files": {
    "checkpoint/last.pt": [[48213, 3735928559]],
    "recipe.yaml": [[1714, 305419896]]},
    "crc32": 591751049}

The last number is that of `files`, so that a damaged manifest is no manifest. While a file is being replaced, its old
content stands behind its new one, null where there was none: killed at any moment, one of them is there. A file without
an entry is not looked at.
"""

from __future__ import annotations

import functools
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from clickwise.errors import ClickwiseError, DataError
from clickwise.files import write_text
from clickwise.given_files import check_is_file, read_given_json
from clickwise.progress import say

FILE = "manifest.json"
Sum = tuple[int, int]  # bytes, CRC-32
_FORMAT = 1
_AT_ONCE = 1 << 18  # bytes, which stay in the processor's cache


class Manifest:
    """Of `folder`; without a manifest.json it is empty, and `is_there` is false."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError for a manifest.json that is damaged."""
        self.folder = Path(folder)
        self.is_there = (self.folder / FILE).exists()
        self._files = _read(self.folder / FILE) if self.is_there else {}

    def __contains__(self, name: str) -> bool:
        return _plain(name) in self._files

    def names(self) -> list[str]:
        """The files that have an entry."""
        return list(self._files)

    def requires(self, name: str) -> bool:
        """Whether a file of that name was there for sure."""
        return None not in self._files.get(_plain(name), (None,))

    def sum_of(self, name: str) -> Sum | None:
        """What was written under that name last; None for a file without an entry."""
        return self._files.get(_plain(name), (None,))[0]

    def check(self, name: str, found: Sum, error: type[ClickwiseError] = DataError) -> None:
        """Raises `error` where `found` is not what was written under that name."""
        sums = self._files.get(_plain(name))
        if sums is None:
            return
        if found in sums:
            self._files[_plain(name)] = (found,)  # of several, this one is there
            return
        size, crc32 = sums[0]
        other = f"{found[0]:,} bytes" if found[0] != size else f"the CRC-32 {found[1]:08x}"
        raise error(self.folder / name, found=f"not readable as it was written: damaged, or changed since ({other})",
                    expected=f"{size:,} bytes with the CRC-32 {crc32:08x}, as {FILE} says",
                    do=f"copy the file or the whole folder again. If the change is yours and right, delete "
                       f"{self.folder / FILE}: then nothing is verified")

    def verified(self, name: str, error: type[ClickwiseError] = DataError, grows: bool = False) -> Path:
        """The path of a file that is as it was written, or of one that is not there; of one that `grows` what was
        written is its beginning. Raises `error` as `check`."""
        path, known = self.folder / name, self.sum_of(name)
        if path.exists():
            check_is_file(path, "a file", error)
        if known is not None and path.exists():
            size, sizes = path.stat().st_size, {each[0] for each in self._files[_plain(name)] if each}
            beginning = max((each for each in sizes if each <= size), default=None) if grows else None
            self.check(name, sum_of_file(path, beginning) if grows or size in sizes else (size, 0), error)
        return path

    def note(self, name: str, found: Sum) -> None:
        """Says what a file that grows holds now: written down when something else is."""
        self._files[_plain(name)] = (found,)

    def replace(self, name: str, new: Sum | None) -> None:
        """Says that `name` is about to be replaced; None: by a file that is not to be looked at. What was replaced
        before has its new content alone from now on."""
        name = _plain(name)
        old = self._files.pop(name, (None,))
        self._save({name: (new, *(each for each in old if each != new))} if new else {})
        if new:
            self._files[name] = (new,)

    def write_text(self, name: str, text: str) -> None:
        """Writes a whole UTF-8 file of the folder."""
        self.replace(name, more((0, 0), text.encode()))
        write_text(self.folder / name, text)

    def add(self, names: Iterable[str]) -> None:
        """Takes up files as they now are, by what is read of them; those that are not there are left out."""
        paths = {name: os.path.join(self.folder, name) for name in names}
        self._save({_plain(name): (sum_of_file(path),) for name, path in paths.items() if os.path.isfile(path)})

    def _save(self, changed: Mapping[str, tuple[Sum | None, ...]]) -> None:
        self._files |= changed
        files = dict(sorted(self._files.items()))
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(sums)}" for name, sums in files.items())
        write_text(self.folder / FILE, f'{{"format": {_FORMAT}, "files": {{\n{lines}}},\n"crc32": {_crc32(files)}}}\n')
        self.is_there = True


def of_run(folder: Path) -> Manifest:
    """The manifest of a run folder that is to be read; says, once, where an older version wrote it without one."""
    manifest = Manifest(folder)
    if not manifest.is_there and Path(folder).is_dir():
        _say_unverified(str(Path(folder).resolve()), str(folder))
    return manifest


@functools.cache
def _say_unverified(resolved: str, folder: str) -> None:
    say(f"{folder} has no {FILE} (an older version wrote it, or it was deleted): its files are not verified")


def write_manifest(folder: Path) -> None:
    """Takes up every file of `folder`, hidden ones left out, and of no earlier manifest."""
    names = []
    for path, _, files in os.walk(folder):
        within = os.path.relpath(path, folder)
        names += [file if within == os.curdir else os.path.join(within, file) for file in files
                  if not file.startswith(".") and not (file == FILE and within == os.curdir)]
    (Path(folder) / FILE).unlink(missing_ok=True)
    Manifest(folder).add(names)


def sum_of_file(path: str | os.PathLike, most: int | None = None) -> Sum:
    """Bytes and CRC-32 of a file, which is read, or of the first `most` bytes of it."""
    found = (0, 0)
    with open(path, "rb", buffering=0) as file:
        view = memoryview(bytearray(min(_AT_ONCE, os.fstat(file.fileno()).st_size + 1)))  # of thousands most are small
        while read := file.readinto(view if most is None else view[:most - found[0]]):
            found = more(found, view[:read])
    return found


def more(before: Sum, part: bytes | memoryview) -> Sum:
    """The sum of what had the sum `before`, and `part` behind it."""
    return before[0] + len(part), zlib.crc32(part, before[1])


class SummedFile:
    """Writes to `file`, and sums what passes: `sum`."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sum = file, (0, 0)

    def write(self, part: bytes) -> int:
        self.sum = more(self.sum, part)
        return self.file.write(part)

    def flush(self) -> None:
        self.file.flush()


def _plain(name: str) -> str:
    return os.path.normpath(name).replace(os.sep, "/")


def _crc32(files: Mapping[str, Iterable[Sum | None]]) -> int:
    return zlib.crc32(json.dumps(files, sort_keys=True).encode())


def _read(path: Path) -> dict[str, tuple[Sum | None, ...]]:
    try:
        content = read_given_json(path)
        files = {name: tuple(each if each is None else (int(each[0]), int(each[1])) for each in sums)
                 for name, sums in content["files"].items()}
        if not all(sums and sums[0] for sums in files.values()) or content["crc32"] != _crc32(files):
            raise ValueError("its own CRC-32 is another")
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']!r}")
    except OSError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(path, found=f"no manifest, or a damaged one ({error})", expected=f"format {_FORMAT}",
                        do="copy the whole folder again, or delete this file: then nothing is verified") from None
    return files
