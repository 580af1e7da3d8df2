"""The clocks of places beside the time-zone database, for every country and the states of two of them."""

from __future__ import annotations

import csv
import datetime
import importlib.resources
from zoneinfo import ZoneInfo

import ibis
from outbrain_clocks import TABLE, minutes, places, zones_of_countries

from clickwise.prepare.duckdb_engine import DuckDBEngine
from clickwise.prepare.outbrain.clock import utc_offset

HOURS = [datetime.datetime(2016, 6, 14, 4, tzinfo=datetime.UTC) + datetime.timedelta(hours=hour)
         for hour in range(15 * 24)]


def rows():
    with open(TABLE, newline="") as file:
        return {row["place"]: (row["zone"], int(row["minutes"])) for row in csv.DictReader(file)}


def offsets_of(asked):
    """Place -> hours that the product finds."""
    table = ibis.memtable([{"place": place, "country": place[:2]} for place in asked],
                          schema={"place": "string", "country": "string"})
    engine = DuckDBEngine(threads=1)
    try:
        found = engine.rows(table.mutate(x=utc_offset(table.country, table.place)))
        return {row["place"]: row["x"] / 60 for row in found}
    finally:
        engine.close()


def test_every_offset_is_that_of_the_time_zone_database_all_through_the_log():
    for place, (zone, offset) in rows().items():
        found = {moment.astimezone(ZoneInfo(zone)).utcoffset() for moment in HOURS}
        assert found == {datetime.timedelta(minutes=offset)}, place


def test_the_table_is_the_one_that_its_script_makes():
    """By offsets, not by names of zones, of which a later database may have more, or others."""
    table = {place: offset for place, (_, offset) in rows().items()}
    assert {place: minutes(zone) for place, zone in places().items()}.items() <= table.items()


def test_every_country_has_clocks_of_its_own():
    """All of ISO 3166 but two islands without people; those of one of its zones, and a state's those of its country."""
    text = importlib.resources.files("tzdata").joinpath("zoneinfo/iso3166.tab").read_text()
    countries = {line.split("\t")[0] for line in text.splitlines() if not line.startswith("#")}
    table, zones = rows(), zones_of_countries()
    assert countries - set(table) == {"BV", "HM"}
    for place in set(table) - {"XK"}:
        assert table[place][1] in {minutes(zone) for zone in zones[place[:2]]}, place


def test_clocks_of_places_known_from_elsewhere():
    """What ISO 3166 countries and their capitals had on 14 June 2016: no summer time in Ramadan in Morocco, the half
    hour of Pyongyang, Venezuela back at −4 since May, Azerbaijan without summer time."""
    expected = {"EE": 3, "FO": 1, "GS": -2, "UM": -11, "BJ": 1, "EC": -5, "MA": 0, "EH": 0, "FM": 11, "KP": 8.5,
                "VE": -4, "AZ": 4, "NP": 5.75, "IN": 5.5, "MN": 9, "EG": 2, "TR": 3, "RU": 3, "ID": 7, "KI": 12,
                "AS": -11, "WS": 13, "CL": -4, "NA": 1, "US>ND": -5, "US>KY": -4, "US>AZ": -7, "CA>NL": -2.5,
                "CA>SK": -6, "CA>NU": -4, "US": -7, "US>PR": -7, "CA": -5, "CA>ZZ": -5, "US>": -7, "A1": -4}
    assert offsets_of(expected) == expected
