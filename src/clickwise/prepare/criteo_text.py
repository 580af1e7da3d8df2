"""The text of Criteo's logs as arrays, thousands of rows at a time.

A field of up to 8 characters is one number of 64 bits, its last character in the highest byte, and all fields of a
block go through the same few operations side by side. Of the field `1f`, behind it any other six characters:

    bytes, last on the right       ? ? ? ? ? ? '1' 'f'
    without the six, less '0'      0 0 0 0 0 0  1  0x56     letters have the bit 0x40 still
    less 0x47 for a letter         0 0 0 0 0 0  1  0x0f
    two digits each                  0   0   0  0x1f        the four bytes of 0x0000001f

What is no such field (a decimal, nine digits, capital letters) is read one by one, as its raw type says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clickwise.arrow_arrays import of_texts, to_numpy
from clickwise.encoding.raw_types import Float, Hex32, RawType, Unreadable
from clickwise.prepare.engine import LONG_LINE, BadInput

NUMBERS, VALUES = 13, 26
WIDTH = 1 + NUMBERS + VALUES
BLOCK_BYTES = 1 << 19  # what is worked on together stays in the cache of a core
MOST = 8  # characters
BOM = b"\xef\xbb\xbf"
_STOPS = np.array([ord("\t")] * (WIDTH - 1) + [ord("\n")], np.uint8)
_KEEP = np.array([(0xFFFFFFFFFFFFFFFF << 8 * (MOST - count)) & 0xFFFFFFFFFFFFFFFF for count in range(MOST + 1)],
                 np.uint64)  # the last `count` characters
_BEFORE = np.array([8 * (MOST - count) for count in range(MOST + 1)], np.uint64)  # bits before so many characters
_MINUS = np.uint64(ord("-") ^ ord("0"))
NUMBER, VALUE = Float(bits=32, strict=True), Hex32()


class Rows(NamedTuple):
    """label uint8 [R], numbers float32 [R, 13] with NaN for missing, values uint32 [26, R], and where they are missing,
    bool [26, R]."""

    label: np.ndarray
    numbers: np.ndarray
    values: np.ndarray
    missing: np.ndarray


def blocks(path: Path, longest: int = 0) -> Iterator[memoryview]:
    """Whole lines of a text, each with a line feed at its end, without a mark at the beginning; 8 bytes lie before.
    Raises BadInput for a line that is longer than `LONG_LINE`, unless some are known to be as long as `longest`."""
    rest, filled = b"", MOST
    with open(path, "rb") as file:
        while True:
            block = bytearray(MOST + len(rest) + max(BLOCK_BYTES, len(rest)))
            block[MOST:MOST + len(rest)] = rest
            read = file.readinto(memoryview(block)[MOST + len(rest):])
            filled = MOST + len(rest) + read
            if not read and rest:  # the last line lacks its end
                block[filled:filled + 1] = b"\n"
                filled += 1
            end = block.rfind(b"\n", MOST, filled) + 1
            rest = block[end or MOST:filled]
            if end:
                yield _plain(memoryview(block)[:end])
            if not read:
                return
            if len(rest) > max(LONG_LINE, longest + BLOCK_BYTES):
                raise BadInput(f"a line of more than {LONG_LINE:,} bytes")


def _plain(block: memoryview) -> memoryview:
    """With line feeds alone and no mark."""
    if bytes(block[MOST:MOST + 3]) != BOM and b"\r" not in block.obj:
        return block
    return memoryview(bytes(MOST) + bytes(block[MOST:]).removeprefix(BOM).replace(b"\r\n", b"\n"))


def parse(block: memoryview) -> Rows:
    """The rows of a block; raises BadInput where one is none."""
    text = np.frombuffer(block, np.uint8)
    words = np.ndarray(len(text) - MOST + 1, "<u8", text, strides=(1,))  # word i: the 8 characters before character i
    text = text[MOST:]
    stop = np.flatnonzero(text < 14)
    if len(stop) % WIDTH or (text[stop].reshape(-1, WIDTH) != _STOPS).any():
        raise BadInput(f"a row without {WIDTH} fields")
    count = np.empty_like(stop)
    count[:1] = stop[:1]
    np.subtract(stop[1:], stop[:-1], out=count[1:])
    count[1:] -= 1
    stop, count = (np.ascontiguousarray(each.reshape(-1, WIDTH).T) for each in (stop, count))  # [field, row]
    label = text[stop[0] - 1] - np.uint8(ord("0"))
    if (count[0] != 1).any() or (label > 1).any():
        raise BadInput("a label that is neither 0 nor 1")
    numbers, values = slice(1, 1 + NUMBERS), slice(1 + NUMBERS, WIDTH)
    return Rows(label, np.ascontiguousarray(_numbers(_Fields(text, words, stop[numbers], count[numbers])).T),
                _values(_Fields(text, words, stop[values], count[values])),
                count[values] == 0)


class _Fields(NamedTuple):
    """Fields [field, row] of a text: where each stops and how many characters it has."""

    text: np.ndarray
    words: np.ndarray
    stop: np.ndarray
    count: np.ndarray

    def characters(self) -> np.ndarray:
        """The last characters, at most 8, less '0'; 0 before them."""
        x = self.words[self.stop]
        x ^= np.uint64(0x3030303030303030)
        x &= _KEEP.take(self.count, mode="clip")
        return x

    def read(self, type_: RawType) -> np.ndarray:
        """What `type_` reads; raises BadInput."""
        ends = zip(self.stop.tolist(), self.count.tolist(), strict=True)
        try:
            texts = of_texts([self.text[stop - count:stop].tobytes().decode() for stop, count in ends])
            return to_numpy(type_.array(texts))
        except (Unreadable, UnicodeDecodeError) as error:
            raise BadInput(str(error)) from None

    def where(self, which: np.ndarray) -> _Fields:
        return _Fields(self.text, self.words, self.stop[which], self.count[which])


def _numbers(fields: _Fields) -> np.ndarray:
    """float32: decimal digits, perhaps with a minus before them."""
    x, before = fields.characters(), _BEFORE.take(fields.count, mode="clip")
    minus = (x >> before & np.uint64(0xFF)) == _MINUS
    x ^= minus * _MINUS << before
    odd = x + np.uint64(0x7676767676767676)  # the highest bit of a byte above 9 is set
    odd |= x
    odd &= np.uint64(0x8080808080808080)
    x = (x * np.uint64(10) + (x >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)  # numbers of two digits
    x = (x * np.uint64(100) + (x >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    x = (x * np.uint64(10_000) + (x >> np.uint64(32))) & np.uint64(0xFFFFFFFF)
    numbers = x.astype(np.int32).astype(np.float32)
    np.negative(numbers, out=numbers, where=minus)
    np.copyto(numbers, np.nan, where=fields.count == 0)
    which = (odd != 0) | (fields.count > MOST) | (minus & (fields.count == 1))
    if which.any():
        numbers[which] = fields.where(which).read(NUMBER)
    return numbers


def _values(fields: _Fields) -> np.ndarray:
    """uint32: hexadecimal digits, small letters."""
    x = fields.characters()
    letter = x >> np.uint64(6)
    letter &= np.uint64(0x0101010101010101)
    x -= letter * np.uint64(0x47)
    # Digits are 0 … 9 and letters 10 … 15: with 6 more the bit 0x10 is set of letters alone, and no higher one of any.
    odd = x + np.uint64(0x0606060606060606)
    letter <<= np.uint64(4)
    odd ^= letter
    odd |= x
    odd &= np.uint64(0xF0F0F0F0F0F0F0F0)
    x *= np.uint64(0x1001)
    x >>= np.uint64(8)
    x &= np.uint64(0x00FF00FF00FF00FF)
    x |= x >> np.uint64(8)
    x &= np.uint64(0x0000FFFF0000FFFF)
    x |= x >> np.uint64(16)
    values = x.astype(np.uint32).byteswap(inplace=True)  # the first digits are in the lowest byte
    if odd.any() or fields.count.max(initial=0) > MOST:
        which = (odd != 0) | (fields.count > MOST)
        values[which] = fields.where(which).read(VALUE)
    return values
