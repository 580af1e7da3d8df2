"""Makes the table of Outbrain's clocks, src/clickwise/prepare/outbrain/utc_offsets.csv, from the time-zone database:

    python tests/outbrain_clocks.py

Offsets are never typed in. What is typed in is the zone of a capital, where a country has several zones, and of the
capitals of the states of the United States and Canada. (Needs the package tzdata, which ibis-framework asks for.)
"""

from __future__ import annotations

import csv
import datetime
import importlib.resources
from pathlib import Path
from zoneinfo import ZoneInfo

TABLE = Path(__file__).parents[1] / "src/clickwise/prepare/outbrain/utc_offsets.csv"
LOG = tuple(datetime.datetime(2016, 6, day, 4, tzinfo=datetime.UTC) for day in (14, 28))  # its first and last moment
# Kosovo has no code in the database; nobody lives on Bouvet and Heard Island, and they have no zone. Antarctica and the
# outlying islands of the United States have no capital: the station and the atoll with most people (or the first).
CAPITALS = {
    "AQ": "Antarctica/McMurdo", "AR": "America/Argentina/Buenos_Aires", "AU": "Australia/Sydney",
    "BR": "America/Sao_Paulo", "CA": "America/Toronto", "CD": "Africa/Kinshasa", "CL": "America/Santiago",
    "CN": "Asia/Shanghai", "CY": "Asia/Nicosia", "DE": "Europe/Berlin", "EC": "America/Guayaquil",
    "ES": "Europe/Madrid", "FM": "Pacific/Pohnpei", "GL": "America/Nuuk", "ID": "Asia/Jakarta",
    "KI": "Pacific/Tarawa", "KZ": "Asia/Almaty", "MH": "Pacific/Majuro", "MN": "Asia/Ulaanbaatar",
    "MX": "America/Mexico_City", "MY": "Asia/Kuala_Lumpur", "NZ": "Pacific/Auckland", "PF": "Pacific/Tahiti",
    "PG": "Pacific/Port_Moresby", "PS": "Asia/Hebron", "PT": "Europe/Lisbon", "RU": "Europe/Moscow",
    "UA": "Europe/Kyiv", "UM": "Pacific/Midway", "US": "America/New_York", "UZ": "Asia/Tashkent",
    "XK": "Europe/Belgrade",
}
EASTERN, CENTRAL, MOUNTAIN, PACIFIC = (
    f"America/{city}" for city in ("New_York", "Chicago", "Denver", "Los_Angeles"))
STATES = {
    "US": {**dict.fromkeys("CT DC DE FL GA MA MD ME NC NH NJ NY OH PA RI SC VA VT WV".split(), EASTERN),
           "MI": "America/Detroit", "IN": "America/Indiana/Indianapolis", "KY": "America/Kentucky/Louisville",
           **dict.fromkeys("AL AR IA IL KS LA MN MO MS ND NE OK SD TN TX WI".split(), CENTRAL),
           **dict.fromkeys("CO MT NM UT WY".split(), MOUNTAIN), "ID": "America/Boise", "AZ": "America/Phoenix",
           **dict.fromkeys("CA NV OR WA".split(), PACIFIC), "AK": "America/Juneau", "HI": "Pacific/Honolulu"},
    "CA": {"NL": "America/St_Johns", "NS": "America/Halifax", "PE": "America/Halifax", "NB": "America/Moncton",
           "QC": "America/Toronto", "ON": "America/Toronto", "NU": "America/Iqaluit", "MB": "America/Winnipeg",
           "SK": "America/Regina", "AB": "America/Edmonton", "NT": "America/Edmonton", "BC": "America/Vancouver",
           "YT": "America/Whitehorse"},
}


def zones_of_countries() -> dict[str, list[str]]:
    """Country -> its zones, from the database's zone.tab."""
    found: dict[str, list[str]] = {}
    for line in importlib.resources.files("tzdata").joinpath("zoneinfo/zone.tab").read_text().splitlines():
        if not line.startswith("#"):
            country, _, zone, *_ = line.split("\t")
            found.setdefault(country, []).append(zone)
    return found


def minutes(zone: str) -> int:
    """How far ahead of UTC the clocks of a zone were, all the time of the log."""
    (offset,) = {moment.astimezone(ZoneInfo(zone)).utcoffset() for moment in LOG}
    return int(offset.total_seconds()) // 60


def places() -> dict[str, str]:
    """Country, or country>state -> the zone of its capital."""
    found = {country: zones[0] for country, zones in zones_of_countries().items() if len(zones) == 1}
    return found | CAPITALS | {f"{country}>{state}": zone for country, states in STATES.items()
                               for state, zone in states.items()}


def main() -> None:
    with open(TABLE, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["place", "zone", "minutes"])
        writer.writerows([place, zone, minutes(zone)] for place, zone in sorted(places().items()))


if __name__ == "__main__":
    main()
