"""The records of a TFRecord file, without TensorFlow: plain, GZIP or ZLIB, each verified.

A record is its length (uint64), the masked CRC-32C of these 8 bytes (uint32), the data, their masked CRC-32C.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from clickwise.data.crc32c import crc32c, crc32c_of_words, masked
from clickwise.errors import DataError

HEADER, FOOTER = 12, 4  # bytes around the data of a record
PIECE, PACKED_PIECE = 8 << 20, 256 << 10  # bytes that are read at once
LONGEST = 1 << 31  # bytes of a record


@dataclass(frozen=True)
class Records:
    """Records of a file, one behind the other: the data of each lies from `begins` to `ends` in `content`. Number and
    offset are for messages: the offset is where its length stands, in the file or in what a compressed file holds."""

    path: Path
    content: bytes
    begins: np.ndarray
    ends: np.ndarray
    first: int
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.begins)

    def data(self, index: int) -> bytes:
        return self.content[self.begins[index] : self.ends[index]]

    def where(self, index: int) -> str:
        return _where(self.path, self.first + index, int(self.offsets[index]))


def _where(path: Path, record: int, offset: int) -> str:
    return f"{path}, record {record}, offset {offset}"


def read_records(path: Path) -> Iterator[Records]:
    """All records of a file, some megabytes at a time, each verified. Raises DataError for what is no TFRecord."""
    kept, offset, first = b"", 0, 0
    with open(path, "rb") as file:
        for piece in _pieces(path, file):
            kept += piece
            starts, lengths = _whole_records(path, kept, first, offset)
            if not len(starts):
                continue
            buffer = np.frombuffer(kept, np.uint8)
            begins, ends = starts + HEADER, starts + HEADER + lengths
            _verify(path, crc32c(buffer, begins, ends), _words_at(buffer, ends), first, offset + starts, "data")
            yield Records(path, kept, begins, ends, first, offset + starts)
            used = int(ends[-1]) + FOOTER
            kept, offset, first = kept[used:], offset + used, first + len(starts)
    if kept:
        raise DataError(_where(path, first, offset), found=f"the end of the file after {len(kept):,} bytes of it",
                        expected="a whole record", do="the file is cut off: copy or write it again")


def _pieces(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The plain bytes of a file. A file is plain where its first 12 bytes are a length and its checksum."""
    start = file.read(HEADER)
    file.seek(0)
    if not start:
        return
    if len(start) == HEADER and _headers_are_good(np.frombuffer(start, "<u4").reshape(3, 1)).all():
        while piece := file.read(PIECE):
            yield piece
        return
    if start[:2] != b"\x1f\x8b" and not (start[0] & 15 == 8 and int.from_bytes(start[:2], "big") % 31 == 0):
        raise DataError(_where(path, 0, 0), found=f"the bytes {start!r}", expected="a TFRecord: a length and its "
                        "checksum, or GZIP, or ZLIB", do="the file is damaged, or of another type")
    yield from _decompressed(path, file)


_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


def _decompressed(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """What a GZIP or ZLIB file holds, which may be of several parts."""
    decoder, given = zlib.decompressobj(_GZIP_OR_ZLIB), 0
    try:
        while packed := decoder.unused_data or file.read(PACKED_PIECE):
            if decoder.eof:
                decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
            plain = decoder.decompress(packed)
            given += len(plain)
            yield plain
    except zlib.error as error:
        raise DataError(f"{path}, offset {given} of what it holds", found=f"compressed bytes that are damaged: {error}",
                        expected="a GZIP or ZLIB file", do="copy or write it again") from None
    if not decoder.eof:
        raise DataError(f"{path}, offset {given} of what it holds", found="the end of the file",
                        expected="the end of what is compressed", do="the file is cut off: copy or write it again")


def _whole_records(path: Path, kept: bytes, first: int, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the records begin that `kept` holds whole, and the lengths of their data."""
    starts, lengths, at = [], [], 0
    while at + HEADER <= len(kept):
        length = int.from_bytes(kept[at : at + 8], "little")
        starts.append(at)
        lengths.append(length)
        at += HEADER + length + FOOTER
        if at > len(kept):
            break
    heads = np.array(starts, np.int64)
    words = np.frombuffer(kept, np.uint8)[heads[:, None] + np.arange(HEADER)].view("<u4").T if starts else \
        np.zeros((3, 0), np.uint32)
    _verify(path, *_header_sums(words), first, offset + heads, "length")
    if starts and lengths[-1] > LONGEST:
        raise DataError(_where(path, first + len(starts) - 1, offset + starts[-1]), found=f"{lengths[-1]:,} bytes",
                        expected=f"at most {LONGEST:,} bytes a record")
    whole = len(starts) - (at > len(kept))
    return heads[:whole], np.array(lengths[:whole], np.int64)


def _header_sums(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums of lengths, as they should be and as they stand."""
    return crc32c_of_words(words[:2]), words[2]


def _headers_are_good(words: np.ndarray) -> np.ndarray:
    found, stored = _header_sums(words)
    return masked(found) == stored


def _words_at(buffer: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(buffer[at[:, None] + np.arange(4)]).view("<u4")[:, 0]


def _verify(path: Path, found: np.ndarray, stored: np.ndarray, first: int, offsets: np.ndarray, what: str) -> None:
    wrong = np.flatnonzero(masked(found) != stored)
    if len(wrong):
        index = wrong[0]
        raise DataError(_where(path, first + index, int(offsets[index])), found=f"a {what} with another checksum: "
                        f"{masked(found[index:index + 1])[0]:#010x}", expected=f"{stored[index]:#010x}, which stands "
                        "behind it", do="the file is damaged: copy or write it again")
