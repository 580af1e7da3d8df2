"""How a column writes its dates and times: `%d/%m/%Y[ %H:%M]`, read alike by an engine and by Python.

The codes are those of Python's strptime; what stands in brackets may be absent, and a space is one or more. A month or
day may have one digit or two, a name of a month or weekday is English, short or long, and seconds may have a fraction.
Both forms write a date as ISO text, 2024-02-13 10:05:00, which the raw type `time` reads on.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ibis.expr.types as ir

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ENDS = ("uary", "ruary", "ch", "il", "e", "y", "ust", "t", "tember", "ober", "ember")
_WEEKDAYS = ("mon", "tues?", "wed(nes)?", "thu(rs?)?", "fri", "sat(ur)?", "sun")
ZERO_UTC = ("UTC", "GMT")


def _in_any_case(words: Iterable[str]) -> str:
    """Letters by both their cases: engines disagree on what else (?i) is to match."""
    return re.sub("[a-z]", lambda letter: f"[{letter[0].upper()}{letter[0]}]", "|".join(words)).replace("(", "(?:")


CODES = {  # code → its regular expression, with the one group that is read
    "d": "([12][0-9]|3[01]|0?[1-9])", "m": "(1[0-2]|0?[1-9])", "Y": "([0-9]{4})", "y": "([0-9]{2})",
    "b": f"({_in_any_case(MONTHS)})(?:{_in_any_case(_ENDS)})?", "a": f"({_in_any_case(_WEEKDAYS)})(?:[Dd][Aa][Yy])?",
    "H": "(2[0-3]|[01]?[0-9])", "I": "(1[0-2]|0?[1-9])", "M": "([0-5][0-9])", "p": "([AaPp])[Mm]",
    "S": r"([0-5][0-9](?:\.[0-9]{1,6})?)", "z": "(Z|UTC|GMT|[+-][01][0-9](?::?[0-5][0-9])?)"}
_TOKEN = re.compile(r"%(.)|(\[)|(\])|( +)|(.)", re.DOTALL)
_PART, _HALF, _CENTURY, _ZONE = "\2\3\4\5"  # around parts of a text, which no text has


@dataclasses.dataclass(frozen=True)
class TimeFormat:
    """A format; raises ValueError, which says what is wrong, where it is none."""

    text: str

    def __post_init__(self) -> None:
        codes = self.codes
        for alike in (("Y", "y"), ("m", "b"), ("d",)):
            if sum(code in codes for code in alike) != 1:
                raise ValueError(f"{self.text!r}, with {' or '.join('%' + code for code in alike)} not once")
        if ("I" in codes) != ("p" in codes) or {"H", "I"} <= codes.keys():
            raise ValueError(f"{self.text!r}: %I goes with %p, %H without")
        if ("M" in codes) != bool({"H", "I"} & codes.keys()) or ("S" in codes and "M" not in codes):
            raise ValueError(f"{self.text!r}: hours go with minutes, %H:%M, and seconds with both")
        if self.iso("2001-02-03 04:05:06") not in (None, "2001-02-03 04:05:06"):
            raise ValueError(f"{self.text!r}, which reads YYYY-MM-DD otherwise")

    @functools.cached_property
    def _parsed(self) -> tuple[str, dict[str, int]]:
        pattern, codes, depth = "", {}, 0
        for code, opens, closes, space, letter in _TOKEN.findall(self.text):
            depth += bool(opens) - bool(closes)
            if depth < 0:
                raise ValueError(f"{self.text!r}, with a bracket that nothing opens")
            if code:
                if code not in CODES or code in codes:
                    raise ValueError(f"{self.text!r}, with %{code}" + " twice" * (code in codes))
                if depth and code in "dmbYy":
                    raise ValueError(f"{self.text!r}: %{code} in brackets, and no date is without it")
                codes[code] = len(codes) + 1
                pattern += CODES[code]
            else:
                pattern += "(?:" if opens else ")?" if closes else " +" if space else re.escape(letter)
        if depth:
            raise ValueError(f"{self.text!r}, with a bracket that nothing closes")
        return pattern, codes

    @property
    def pattern(self) -> str:
        """The regular expression of a whole text."""
        return f"^(?:{self._parsed[0]})$"

    @property
    def codes(self) -> dict[str, int]:
        """Code → its group in the pattern."""
        return self._parsed[1]

    @functools.cached_property
    def _matched(self) -> Callable[[str], re.Match | None]:
        return re.compile(self._parsed[0], re.ASCII).fullmatch

    def iso(self, text: str) -> str | None:
        """The date and time of a text without space around it; None where it is written otherwise."""
        found = self._matched(text)
        if found is None:
            return None
        parts = {code: found[group] for code, group in self.codes.items() if found[group]}
        year = int(parts["Y"] if "Y" in parts else parts["y"])
        year += 0 if "Y" in parts else 2000 if year < 69 else 1900
        month = parts.get("m") or str(MONTHS.index(parts["b"].lower()) + 1)
        hour = parts.get("H", "0")
        if "I" in parts:
            hour = str(int(parts["I"]) % 12 + 12 * (parts.get("p", "a") in "pP"))
        zone = parts.get("z", "")
        return f"{year:04}-{month:0>2}-{parts['d']:0>2} {hour:0>2}:{parts.get('M', '00')}:{parts.get('S', '00')}" + \
            ("Z" if zone in ZERO_UTC else zone)

    def bulk(self, text: ir.StringColumn) -> ir.StringColumn:
        """`iso` as an expression, a text that is written otherwise as it is. No step mentions the text twice: an engine
        would work it out twice."""
        def part(code: str, without: str = "") -> str:
            return rf"\{self.codes[code]}" if code in self.codes else without

        def padded(code: str) -> str:
            return _PART + part(code, "00") + _PART

        hour = padded("H") if "I" not in self.codes else padded("I") + _HALF + part("p") + _HALF
        date = "-".join([part("Y", _CENTURY + part("y")), padded("m" if "m" in self.codes else "b"), padded("d")])
        clock = ":".join([hour, padded("M"), padded("S")])
        found = text.re_replace(self.pattern, f"{date} {clock}{_ZONE}{part('z')}")
        if "b" in self.codes:
            for number, month in enumerate(MONTHS, 1):
                found = found.re_replace(_PART + _in_any_case([month]) + _PART, f"{number:02}")
        found = found.re_replace(f"{_PART}([0-9]){_PART}", r"0\1").replace(2 * _PART, "00").replace(_PART, "")
        if "y" in self.codes:
            found = found.re_replace(f"{_CENTURY}([0-5]|6[0-8])", r"20\1").replace(_CENTURY, "19")
        if "I" in self.codes:
            found = found.replace(_HALF + "p", _HALF + "P").replace("12" + _HALF, "00" + _HALF)
            for number in range(12):
                found = found.replace(f"{number:02}{_HALF}P{_HALF}", str(number + 12))
            found = found.re_replace(f"{_HALF}[Aa]?{_HALF}", "")
        for zone in ZERO_UTC if "z" in self.codes else ():
            found = found.replace(_ZONE + zone, "Z")
        return found.replace(_ZONE, "")


def wrong_format(text: object) -> str:
    """What is wrong with a format; "" where nothing is."""
    if not isinstance(text, str):
        return repr(text)
    try:
        TimeFormat(text)
    except ValueError as error:
        return str(error)
    return ""
