"""Raw files before an engine sees them: finding them, and finding the rows that an engine refuses."""

from __future__ import annotations

import contextlib
import glob
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from clickwise.errors import PrepareError, nearest
from clickwise.given_files import no_file
from clickwise.prepare.engine import BadInput
from clickwise.prepare.raw_text import RawText, RawTexts
from clickwise.progress import say
from clickwise.text_files import BadLine, PlainText
from clickwise.text_scan import is_gzip

T = TypeVar("T")


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
        found = {"": "a file", "no such file": "no such folder"}.get(no_file(folder), no_file(folder))
        raise PrepareError(f"{where}: {folder}", found=found, expected="the folder of the raw files", do=do)
    return folder


def named(files: Iterable[Path]) -> str:
    """The files as an error message names them."""
    return ", ".join(map(str, files))


def _natural(name: str) -> list:
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", name) if part]


def _checked_file(path: Path, where: str) -> Path:
    found = no_file(path)
    if found not in ("", "no such file"):
        raise PrepareError(f"{where}: {path}", found=found, expected="a raw file",
                           do=f"name its files, for example {path}/*" if found == "a folder" else "")
    if found:
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
            with gzip.GzipFile(fileobj=raw) if is_gzip(files[0]) else raw as file:
                lines = file.read(1 << 20).count(b"\n")
            read = raw.tell() if not raw.closed else min(1 << 20, files[0].stat().st_size)
        return max(1, round(lines * sum(file.stat().st_size for file in files) / max(read, 1)))
    except (OSError, EOFError, zlib.error):
        return None


def open_binary(path: Path) -> BinaryIO:
    """The bytes of a file, plain or .gz, to be read."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")


class BadRows:
    """Reads raw files in which up to `allowed` rows are bad, over all calls; `found` counts them by file. `threads` is
    how many files are looked at at once (None: one a core)."""

    def __init__(self, allowed: int, work: Path, found: Mapping[str, int] | None = None,
                 threads: int | None = None) -> None:
        self.allowed, self.work, self.found, self.threads = allowed, work, dict(found or {}), threads
        self.folder = work / "without_bad_rows"
        self._texts: RawTexts | None = None

    def share(self) -> float | None:
        """How much of the files that are read now has been unpacked, 0 … 1; None where nothing has."""
        return self._texts and self._texts.share()

    def read_text(self, name: str, files: Sequence[RawText], load: Callable[[list[PlainText]], T],
                  expected: str) -> tuple[T, list[PlainText]]:
        """(`load` of the files as fast readers take them, what was read); where it raises BadInput, of copies without
        the bad rows.

        `load` reads every file once and whole, since a `.gz` comes through a pipe; where that shows that it has to be
        read in another way, `load` is asked again. An engine reads fast but does not go on after a bad row: then every
        line is looked at, which is slow. The copies are gone afterwards; what ends in .parquet stays as it is. Raises
        PrepareError at the first bad row beyond what is allowed, with its file and line.
        """
        def bad(file: Path) -> BadLine:
            return lambda number, reason: self.add(file, number, reason, expected)

        self.work.mkdir(parents=True, exist_ok=True)
        with RawTexts(files, bad, self.work, self.threads) as texts:
            self._texts = texts
            try:
                if loaded := texts.load_piped(load):
                    return loaded
                plains = texts.plain()
                return load(plains), plains
            except BadInput as error:
                say(f"reading {name}: a row cannot be read ({error}); looking at every line")
            try:
                plains = texts.copies()
                return load(plains), plains
            except BadInput as error:
                raise PrepareError(named(file.path for file in files), found=str(error), expected=expected) from None

    def read_lines(self, name: str, files: Sequence[Path], load: Callable[[list[Path]], T],
                   reason: Callable[[bytes], str | None], expected: str) -> T:
        """The same for files in which `reason` says what is wrong with a line (without its line end)."""
        try:
            return load(list(files))
        except BadInput as error:
            say(f"reading {name}: a row cannot be read ({error}); looking at every line")
        good = [self._without(file, reason, expected) for file in files]
        try:
            return load(good)
        except BadInput as error:
            raise PrepareError(named(files), found=str(error), expected=expected) from None

    def add(self, file: Path, number: int, reason: str, expected: str) -> None:
        """Counts the bad line `number` of a file."""
        self.found[str(file)] = self.found.get(str(file), 0) + 1
        total = sum(self.found.values())
        if total > self.allowed:
            found = reason if self.allowed == 0 else f"{reason}; bad row number {total}, {self.allowed} allowed"
            raise PrepareError(f"{file}, line {number}", found=found, expected=expected,
                               do="correct the file, or let such rows be skipped with dataset.max_bad_rows")

    def _without(self, file: Path, reason: Callable[[bytes], str | None], expected: str) -> Path:
        """The file, or a copy without its bad rows."""
        bad: set[int] = set()
        number = 0
        try:
            with open_binary(file) as lines:
                for number, line in enumerate(lines, 1):
                    line = line.rstrip(b"\r\n")
                    if line and (wrong := reason(line)):
                        self.add(file, number, wrong, expected)
                        bad.add(number)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            if number == 0:
                raise PrepareError(f"{file}, line 1", found=f"no gzip data ({error})", expected=expected,
                                   do="rename the file if it is not compressed") from None
            self.add(file, number + 1, "the compressed file is cut off or damaged from here on", expected)
            bad.add(number + 1)
        if not bad:
            return file
        self.folder.mkdir(parents=True, exist_ok=True)
        copy = self.folder / f"{len(list(self.folder.iterdir()))}.txt"
        with open(copy, "wb") as out, contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile), \
                open_binary(file) as lines:  # a damaged end was counted as a bad row
            out.writelines(line for number, line in enumerate(lines, 1) if number not in bad)
        return copy
