"""Ways to damage the bytes of a file. Each takes a `random.Random` and bytes, and gives other bytes."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable

Mutator = Callable[[random.Random, bytes], bytes]

# What stands in a field of other people's files: numbers that are none, numbers at the limits, texts that mean nothing.
ODD = ["", " ", "nan", "NaN", "inf", "-inf", "-0", "+1", " 1", "1 ", "01", "1.0", "1.5", ".5", "5.", "1e0", "1e400",
       "1e-400", "-1e308", "0x1", "0b1", "1_000", "1,000", "1,5", "9" * 19, "9" * 400, "-9223372036854775808",
       "9223372036854775808", "2147483648", "128", "-1", "2", "true", "TRUE", "no", "null", "None", "NULL", "\\N",
       "NA", "?", "-", "'", '"', '""', "\\", "#", "a\tb", "a,b", "\x00", "\x1a", "\x7f", "\u0661", "\uff11",
       "\u00a01", "\u2028", "\ufeff1", "é", "e\u0301", "\U0001f600", "12_3", "g", "deadbeef0", "DEADBEEF",
       "1970-01-01", "{}", "[]", "[1]", "*", "&a", "!!int 1", "=1+1", "%s", "{0}", "../x", "/etc/passwd", "x" * 3000]


def _place(dice: random.Random, data: bytes) -> int:
    return dice.randrange(len(data)) if data else 0


def _range(dice: random.Random, data: bytes) -> tuple[int, int]:
    first = _place(dice, data)
    return first, min(len(data), first + 1 + int(dice.expovariate(1 / 40)))


def flip_bit(dice: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    at, changed = _place(dice, data), bytearray(data)
    changed[at] ^= 1 << dice.randrange(8)
    return bytes(changed)


def other_byte(dice: random.Random, data: bytes) -> bytes:
    at = _place(dice, data)
    return data[:at] + bytes([dice.randrange(256)]) + data[at + 1:]


def cut_off(dice: random.Random, data: bytes) -> bytes:
    return data[:_place(dice, data)]


def cut_out(dice: random.Random, data: bytes) -> bytes:
    first, end = _range(dice, data)
    return data[:first] + data[end:]


def twice(dice: random.Random, data: bytes) -> bytes:
    first, end = _range(dice, data)
    return data[:end] + data[first:end] + data[end:]


def insert(dice: random.Random, data: bytes) -> bytes:
    at = _place(dice, data)
    return data[:at] + dice.randbytes(1 + dice.randrange(6)) + data[at:]


def zeros(dice: random.Random, data: bytes) -> bytes:
    first, end = _range(dice, data)
    return data[:first] + bytes(end - first) + data[end:]


def append(dice: random.Random, data: bytes) -> bytes:
    return data + dice.choice([b"\0", b"\n", b"x", dice.randbytes(50), data])


def empty(dice: random.Random, data: bytes) -> bytes:
    return b""


def noise(dice: random.Random, data: bytes) -> bytes:
    return dice.randbytes(dice.choice([1, 20, 4000]))


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True) or [b""]


def odd_field(dice: random.Random, data: bytes) -> bytes:
    """A field of a line of text becomes an odd one."""
    lines = _lines(data)
    at = dice.randrange(len(lines))
    end = lines[at][len(lines[at].rstrip(b"\r\n")):]
    delimiter = max((b"\t", b",", b": ", b" "), key=lines[at].count)
    fields = lines[at].rstrip(b"\r\n").split(delimiter)
    fields[dice.randrange(len(fields))] = dice.choice(ODD).encode()
    lines[at] = delimiter.join(fields) + end
    return b"".join(lines)


def odd_column(dice: random.Random, data: bytes) -> bytes:
    """The same in several lines."""
    for _ in range(dice.randrange(2, 6)):
        data = odd_field(dice, data)
    return data


def odd_word(dice: random.Random, data: bytes) -> bytes:
    """Any one word becomes an odd one."""
    at = _place(dice, data)
    first, end = at, at
    while first and data[first - 1:first].isalnum():
        first -= 1
    while end < len(data) and data[end:end + 1].isalnum():
        end += 1
    return data[:first] + dice.choice(ODD).encode() + data[end:]


def without_line(dice: random.Random, data: bytes) -> bytes:
    lines = _lines(data)
    lines.pop(dice.randrange(len(lines)))
    return b"".join(lines)


def line_twice(dice: random.Random, data: bytes) -> bytes:
    lines = _lines(data)
    lines.insert(dice.randrange(len(lines)), dice.choice(lines))
    return b"".join(lines)


def field_more_or_less(dice: random.Random, data: bytes) -> bytes:
    lines = _lines(data)
    at = dice.randrange(len(lines))
    delimiter = max((b"\t", b","), key=lines[at].count)
    fields = lines[at].split(delimiter)
    if dice.random() < 0.5 and len(fields) > 1:
        fields.pop(dice.randrange(len(fields) - 1))
    else:
        fields.insert(dice.randrange(len(fields)), dice.choice(fields[:-1] or [b"x"]))
    lines[at] = delimiter.join(fields)
    return b"".join(lines)


def other_line_ends(dice: random.Random, data: bytes) -> bytes:
    end = dice.choice([b"\r\n", b"\r", b"\n\n", b"\r\r\n", "\u2028".encode(), b"\v", b"\n\r"])
    if dice.random() < 0.5:
        return data.replace(b"\n", end)
    lines = _lines(data)
    at = dice.randrange(len(lines))
    lines[at] = lines[at].rstrip(b"\r\n") + end
    return b"".join(lines)


def other_letters(dice: random.Random, data: bytes) -> bytes:
    """Written in another encoding of letters."""
    text = data.decode("utf-8", "replace")
    how = dice.choice(["utf-16", "utf-16-be", "utf-16-le", "utf-8-sig", "utf-32", "cp1252", "latin-1", "utf-7",
                       "cp037"])
    return text.encode(how, "replace")


def quotes(dice: random.Random, data: bytes) -> bytes:
    for _ in range(dice.choice([1, 1, 2, 4])):
        at = _place(dice, data)
        data = data[:at] + dice.choice([b'"', b'""', b"'", b"\\"]) + data[at:]
    return data


def long_field(dice: random.Random, data: bytes) -> bytes:
    at = _place(dice, data)
    return data[:at] + dice.choice([b"x", b"1", b"[", b'"', b"\n", b"{a: "]) * dice.choice([3_000, 200_000]) + data[at:]


def in_gz(dice: random.Random, data: bytes) -> bytes:
    packed = gzip.compress(data, mtime=0)
    return dice.choice([packed, packed[:len(packed) // 2], flip_bit(dice, packed), packed + packed, packed + b"x"])


BYTES = [flip_bit, flip_bit, flip_bit, other_byte, cut_off, cut_out, twice, insert, zeros, append, empty, noise]
TEXT = [*BYTES, odd_field, odd_field, odd_field, odd_column, odd_word, odd_word, without_line, line_twice,
        field_more_or_less, other_line_ends, other_letters, quotes, long_field, in_gz]
STRUCTURE = [flip_bit, cut_off, cut_out, twice, insert, append, empty, odd_word, odd_word, odd_word, odd_field,
             without_line, line_twice, quotes, long_field, other_letters]
