"""Raw files before an engine sees them: finding them, and finding the rows that an engine refuses."""

from __future__ import annotations

import glob
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from clickwise.errors import PrepareError, nearest


def find_files(patterns: Iterable[str], where: str) -> list[Path]:
    """The files of a list of paths and globs, in the order of the list; those of one glob day_2 before day_10.

    Raises PrepareError where one is missing, empty or a folder.
    """
    files: list[Path] = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern), key=_natural) if glob.has_magic(pattern) else [pattern]
        if not found:
            raise PrepareError(f"{where}: {pattern}", found="no file of that pattern", expected="at least one raw file")
        files += [_checked_file(Path(path), where) for path in found]
    return files


TABLE_ENDINGS = (".csv", ".csv.gz", ".parquet")


def find_tables(folder: Path, patterns: Iterable[str], where: str) -> list[Path]:
    """The files of `find_files` in `folder` that hold tables: .csv, .csv.gz or .parquet."""
    patterns = list(patterns)
    files = [file for file in find_files([str(folder / pattern) for pattern in patterns], where)
             if file.name.endswith(TABLE_ENDINGS)]
    if not files:
        raise PrepareError(f"{where}: {folder}", found="no file of that pattern that ends in .csv, .csv.gz or .parquet",
                           expected=", ".join(patterns))
    return files


def raw_folder(folder: Path, where: str, do: str = "") -> Path:
    """`folder`, which is there; raises PrepareError where it is not."""
    if not folder.is_dir():
        raise PrepareError(f"{where}: {folder}", found="a file" if folder.exists() else "no such folder",
                           expected="the folder of the raw files", do=do)
    return folder


def _natural(name: str) -> list:
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", name) if part]


def _checked_file(path: Path, where: str) -> Path:
    if path.is_dir():
        raise PrepareError(f"{where}: {path}", found="a folder", expected="a raw file",
                           do=f"name its files, for example {path}/*")
    if not path.exists():
        siblings = [str(path.parent / file.name) for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise PrepareError(f"{where}: {path}", found="no such file", expected="a raw file",
                           do=nearest(path, siblings) if siblings else f"there is no folder {path.parent} either")
    if path.stat().st_size == 0:
        raise PrepareError(f"{where}: {path}", found="an empty file", expected="at least one row")
    return path


def estimate_rows(files: Sequence[Path]) -> int | None:
    """About how many lines the files have, from the first megabyte of the first one."""
    try:
        with open(files[0], "rb") as raw:
            with gzip.GzipFile(fileobj=raw) if _is_gz(files[0]) else raw as file:
                lines = file.read(1 << 20).count(b"\n")
            read = raw.tell() if not raw.closed else min(1 << 20, files[0].stat().st_size)
        return max(1, round(lines * sum(file.stat().st_size for file in files) / max(read, 1)))
    except (OSError, EOFError, zlib.error):
        return None


def _is_gz(path: Path) -> bool:
    return path.suffix == ".gz"


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") if _is_gz(path) else open(path, "rb") as file:
        yield from file


class BadRows:
    """Counts bad rows and copies files without them, up to `allowed` rows over all files.

    `reason(line)` says what is wrong with a line (without its line end), None for a good one. Slow, and only used
    once an engine has refused a file: an engine reads fast but does not go on behind a bad row.
    """

    def __init__(self, reason: Callable[[bytes], str | None], allowed: int, expected: str) -> None:
        self.reason, self.allowed, self.expected = reason, allowed, expected
        self.found: dict[str, int] = {}

    @property
    def count(self) -> int:
        return sum(self.found.values())

    def without(self, files: Sequence[Path], folder: Path) -> list[Path]:
        """The same files, those with bad rows replaced by copies without them in `folder`.

        Raises PrepareError at the first bad row beyond what is allowed, with its file and line.
        """
        folder.mkdir(parents=True, exist_ok=True)
        result = []
        for file in files:
            bad = self._bad_lines(file)
            if bad:
                copy = folder / f"{len(list(folder.iterdir()))}.txt"
                self._copy(file, copy, bad)
                self.found[str(file)] = len(bad)
            result.append(copy if bad else file)
        return result

    def _bad_lines(self, file: Path) -> set[int]:
        bad: set[int] = set()
        number = 0
        try:
            for number, line in enumerate(_lines(file), 1):
                line = line.rstrip(b"\r\n")
                if line and (reason := self.reason(line)):
                    self._add(file, number, reason, bad)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            if number == 0:
                raise PrepareError(f"{file}, line 1", found=f"no gzip data ({error})", expected=self.expected,
                                   do="rename the file if it is not compressed") from None
            self._add(file, number + 1, "the compressed file is cut off or damaged from here on", bad)
        return bad

    def _add(self, file: Path, number: int, reason: str, bad: set[int]) -> None:
        bad.add(number)
        total = self.count + len(bad)
        if total > self.allowed:
            found = reason if self.allowed == 0 else f"{reason}; bad row number {total}, {self.allowed} allowed"
            raise PrepareError(f"{file}, line {number}", found=found, expected=self.expected,
                               do="mend the file, or let such rows be skipped with dataset.max_bad_rows")

    @staticmethod
    def _copy(file: Path, copy: Path, bad: set[int]) -> None:
        with open(copy, "wb") as out:
            try:
                for number, line in enumerate(_lines(file), 1):
                    if number not in bad:
                        out.write(line)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                pass  # the damaged end was counted as a bad row
