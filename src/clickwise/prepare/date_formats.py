"""Which format a column's dates are written in, by the evidence of all its values: never by a guess at the order.

13/02/2024 anywhere says that the day comes first, 02/13/2024 that the month does. Where every value could be either, or
no format holds all of them, nobody but its owner can say.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from clickwise.encoding.raw_types import ISO_TIME
from clickwise.time_format import TimeFormat

ISO = ""  # YYYY-MM-DD HH:MM:SS, which needs no format
_ORDERS = [f"{first}{mark}{second}{mark}{year}" for year in ("%Y", "%y") for mark in "/.-"
           for first, second in (("%d", "%m"), ("%m", "%d"))]
_DATES = (*_ORDERS, "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d %b %Y", "%d-%b-%Y", "%d/%b/%Y", "%d-%b-%y", "%d. %b %Y",
          "%b %d, %Y", "%b %d %Y", "%a, %d %b %Y", "%a, %b %d, %Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S", ", %H:%M", ", %H:%M:%S", ", %I:%M %p",
           ", %I:%M:%S %p", " %H:%M:%S %z", " %H:%M:%S%z", "T%H:%M:%S%z", "[ %H:%M[:%S]]", " %I:%M[:%S] %p",
           "[ %I:%M[:%S][ ]%p]", "[T%H:%M[:%S][%z]]")
_WHOLE = ("%a %b %d %H:%M:%S %z %Y", "%a %b %d %H:%M:%S %Y", "%a %b %d %Y")


@functools.cache
def _format(text: str) -> TimeFormat:
    return TimeFormat(text)


@functools.cache
def _pattern(text: str) -> str:
    return f"^{ISO_TIME}$" if text == ISO else _format(text).pattern


@functools.cache
def _begins(date: str) -> re.Pattern:
    return re.compile(_format(date).pattern.removesuffix("$"), re.ASCII)


def formats_of(value: str) -> list[str]:
    """The formats in which the text may be a date, the narrow ones first."""
    if not value[:1].isalnum():
        return []
    dates = [date for date in _DATES if _begins(date).match(value)]
    candidates = [*(date + clock for clock in _CLOCKS for date in dates), *_WHOLE]
    return [ISO] * bool(re.fullmatch(ISO_TIME, value, re.ASCII)) + [
        text for text in candidates if _format(text).iso(value)]


def those_of_all(formats: Sequence[str], texts: pa.StringArray) -> list[str]:
    """Those of the formats in which all the texts are dates."""
    return [text for text in formats if pc.all(pc.match_substring_regex(texts, _pattern(text))).as_py()]


def decided(formats: Sequence[str]) -> str | None:
    """The format of a column, of those that hold all its values, ISO if it does; None where there is none, or where the
    day may come first and the month may too."""
    if ISO in formats:
        return ISO
    orders = {text.index("%d") < text.index("%m") for text in formats if "%m" in text}
    return formats[0] if formats and len(orders) < 2 else None
