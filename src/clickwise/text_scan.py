"""The bytes of a text, plain or gzip, and what a look at them shows: line ends, long lines, damage."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CHUNK_BYTES, PACKED_BYTES = 1 << 18, 1 << 16
NO_GZIP = (EOFError, zlib.error, gzip.BadGzipFile)


def is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


class Chunks:
    """The bytes of a file, unpacked where it is gzip, at most CHUNK_BYTES at a time, once. `done` is how many bytes of
    the file have been read.

    As `gzip.open` it reads member after member, passes over zeros between and behind them, and raises one of NO_GZIP
    where the file is damaged: with a wrong checksum, cut off, with something else behind a member. It takes two thirds
    of the time.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.done = path, 0

    def __iter__(self) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            def read(size: int) -> bytes:
                data = file.read(size)
                self.done += len(data)
                return data

            if not is_gzip(self.path):
                yield from iter(lambda: read(CHUNK_BYTES), b"")
                return
            packed = read(PACKED_BYTES)
            while packed:
                member = zlib.decompressobj(wbits=31)  # with the head and the checksum of gzip
                while not member.eof:
                    chunk = member.decompress(packed, CHUNK_BYTES)
                    packed = member.unconsumed_tail or (member.unused_data if member.eof else read(PACKED_BYTES))
                    if chunk:
                        yield chunk
                    elif not packed and not member.eof:
                        raise EOFError("the compressed file ends before its end marker")
                while packed := packed.lstrip(b"\0") or read(PACKED_BYTES):
                    if packed[0]:
                        break


@dataclass(frozen=True)
class Scan:
    """What a pass over the bytes shows: whether line ends are of one kind, LF or CRLF; how long the longest of the
    lines is that go over the border of a chunk, bytes; whether a compressed file is damaged, and how; whether any of
    the bytes that were looked for is there."""

    uniform: bool = True
    longest: int = 0
    damage: str = ""
    marked: bool = False
    lines: int = 0


class Scanner:
    """Looks at chunks as they pass; for each of `marks` it takes a hundredth of the time that reading rows takes, and
    for lines, which are counted where there are marks, two. `count_lines` says otherwise."""

    def __init__(self, marks: Sequence[bytes] = (), count_lines: bool | None = None) -> None:
        self.marks, self.marked, self.count_lines = marks, False, bool(marks) if count_lines is None else count_lines
        self._cr = self._crlf = self._lf = self._longest = self._length = self._lines = 0
        self._last = b""

    def add(self, chunk: bytes) -> None:
        if self._cr or b"\r" in chunk:
            self._cr += chunk.count(b"\r")
            self._crlf += chunk.count(b"\r\n")
            self._lf += chunk.count(b"\n")
        else:
            self._lf += b"\n" in chunk  # one alone tells: counting them takes several times as long as looking
        self._crlf += self._last == b"\r" and chunk[:1] == b"\n"
        self._last = chunk[-1:]
        self.marked = self.marked or any(mark in chunk for mark in self.marks)
        if self.count_lines:
            self._lines += int(np.count_nonzero(np.frombuffer(chunk, np.uint8) == ord("\n")))
        start, end = chunk.find(b"\n"), chunk.rfind(b"\n")
        self._longest = max(self._longest, self._length + (start if start >= 0 else len(chunk)))
        self._length = self._length + len(chunk) if end < 0 else len(chunk) - end

    def result(self) -> Scan:
        return Scan(uniform=not self._cr or self._cr == self._crlf == self._lf, marked=self.marked,
                    longest=max(self._longest, self._length) + 1, lines=self._lines + (self._last not in (b"", b"\n")))


def scan(path: Path, marks: Sequence[bytes] = ()) -> Scan:
    """A look at every byte of a file."""
    scanner = Scanner(marks)
    try:
        for chunk in Chunks(path):
            scanner.add(chunk)
    except NO_GZIP as error:
        return Scan(damage=str(error) or "cut off")
    return scanner.result()
