"""Local time of an event from its country and state: offsets from UTC in June 2016, summer time included.

`utc_offsets.csv` (place, zone, minutes) is made from the time-zone database by tests/outbrain_clocks.py: a country has
the clocks of its capital, and so has a state ("US>CA") of the United States and of Canada.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from functools import cache
from pathlib import Path

import ibis
import ibis.expr.types as ir

NEW_YORK = -4 * 60  # minutes; where timestamp 0 is midnight
STATE_UNKNOWN = {"US": -7 * 60, "CA": -5 * 60}  # as published, wherever their capitals lie
HOUR_BINS = ((5, 8, 0), (8, 11, 1), (11, 14, 2), (14, 19, 3), (19, 22, 4))  # from, until, bin; else 5


@cache
def offsets() -> dict[str, int]:
    """Country or country>state -> minutes that its clocks were ahead of UTC."""
    with open(Path(__file__).with_name("utc_offsets.csv"), encoding="utf-8") as file:
        return {row["place"]: int(row["minutes"]) for row in csv.DictReader(file)} | STATE_UNKNOWN


def utc_offset(country: ir.StringColumn, state: ir.StringColumn) -> ir.IntegerColumn:
    """Minutes that a place's clocks are ahead of UTC; New York's where the country is missing or unknown.

    `country` is two characters, `state` "US>CA". NOTE[DIFF] the published table, typed in, differs from the time-zone
    database for some countries (Russia has the clocks of Novosibirsk, Indonesia of Bali, Nepal 5:00 in place of 5:45)
    and for Newfoundland, Nunavut and the Northwest Territories. That the United States without a known state count as
    the Pacific coast, and Canada as Manitoba, is as published.
    """
    places: dict[int, list[str]] = defaultdict(list)
    for place, minutes in offsets().items():
        places[minutes].append(place)
    known = [ibis.cases(*((column.isin(names), minutes) for minutes, names in places.items()), else_=None)
             for column in (state, country)]
    return ibis.coalesce(*known, NEW_YORK).cast("int64")


def local_hours(timestamp: ir.IntegerColumn, offset: ir.IntegerColumn) -> ir.IntegerColumn:
    """Whole hours since local midnight of day 0 (a Tuesday); `timestamp` in ms since midnight in New York.

    NOTE[DIFF] the reference reads the machine's clock, which in a container is UTC: its hours are 4 too many.
    """
    return (timestamp + (offset - NEW_YORK) * 60_000) // 3_600_000


def hour_bin(hours: ir.IntegerColumn) -> ir.IntegerColumn:
    """0 … 5: 5 to 7 h, 8 to 10 h, 11 to 13 h, 14 to 18 h, 19 to 21 h, night; missing stays missing."""
    hour = (hours % 24 + 24) % 24
    return ibis.cases((hours.isnull(), ibis.null("int64")),
                      *(((hour >= first) & (hour < end), number) for first, end, number in HOUR_BINS), else_=5)


def weekend(hours: ir.IntegerColumn) -> ir.IntegerColumn:
    """1 on Saturday and Sunday; missing stays missing."""
    day = ((hours // 24 + 1) % 7 + 7) % 7
    return (day >= 5).cast("int64")
