"""One reading of raw values: its three forms give the same, whatever type a file stores."""

from __future__ import annotations

import datetime
import decimal
import functools
import itertools
import math
import struct

import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickwise.encoding.raw_types import RAW_TYPES, Float, Time, Unreadable
from clickwise.time_format import wrong_format

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

digits = st.from_regex(r"[+-]?[0-9]{1,20}(\.[0-9]{0,8})?(e[+-]?[0-9]{1,3})?", fullmatch=True)
words = st.sampled_from(["", " ", "NA", "nan", "NaN", "inf", "-Infinity", "true", "True", "FALSE", "1", "1.0", "0",
                         "007", "7", "7.0", "7.", " 7.00 ", "7 ", "+7", "+-7", "-0", "-0.0", "1_000", "1e39", "-1e400",
                         ".5", ".", "1e", "1" * 40, "0" * 5000 + "1", "1" * 5000, "0x1F", "1e3", "٣", "\u00a07",
                         "é", "-1", "2024-01-05", "2024-01-05T10:00Z", "2024-01-05 10:00:00.120+02:30", "2024-02-30",
                         "0000-01-01", "0001-01-01 00:00+02", "9999-12-31", "9999-12-31 23:00-11:30",
                         "2024-01-05 24:00", "9223372036854775807", "9223372036854775808", "ab\tc", "\x1c7"])
texts = words | digits | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
times = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1))
STORED = {
    "string": (pa.string(), texts),
    "int64": (pa.int64(), st.integers(-2**63, 2**63 - 1)),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "double": (pa.float64(), st.floats() | st.integers(-2**60, 2**60).map(float)),
    "float": (pa.float32(), st.floats(width=32)),
    "bool": (pa.bool_(), st.booleans()),
    "decimal": (pa.decimal128(12, 2), st.decimals(-10**9, 10**9, places=2)),
    "large_decimal": (pa.decimal128(38, 1), st.integers(-2**65, 2**65).map(decimal.Decimal)
                      | st.decimals(-10**20, 10**20, places=1)),
    "clock": (pa.time64("us"), st.times()),
    "timestamp": (pa.timestamp("us"), times),
    "timestamp_utc": (pa.timestamp("us", "UTC"), times.map(lambda t: t.replace(tzinfo=datetime.UTC))),
    "date": (pa.date32(), st.dates(datetime.date(1900, 1, 1), datetime.date(2200, 1, 1))),
}
FITS = {"text": tuple(STORED),
        "integer": ("string", "int64", "int8", "uint64", "double", "float", "bool", "decimal",
                    "large_decimal", "timestamp", "date", "clock"),
        "float": ("string", "int64", "int8", "double", "float", "bool", "decimal", "timestamp", "date", "clock"),
        "boolean": ("string", "int64", "int8", "bool", "double", "float", "decimal", "date"),
        "time": ("string", "timestamp", "timestamp_utc", "date", "int64", "double", "decimal", "bool", "clock")}
TYPES = {"float": Float(missing=("NA", "-1")), "strict": Float(missing=("NA", "-1"), strict=True),
         "strict32": Float(bits=32, strict=True)}
FITS |= dict.fromkeys(("strict", "strict32"), FITS["float"])
SELDOM = {"int8", "uint64", "float", "decimal", "large_decimal", "clock"}  # each is read by the same code as another
CASES = [pytest.param(name, stored, id=f"{name}-{stored}", marks=[pytest.mark.slow] * (stored in SELDOM))
         for name, kinds in FITS.items() for stored in kinds]


def bits(value):
    return struct.pack("<d", value) if isinstance(value, float) else value


def read_in_bulk(engine, type_, column):
    engine.duckdb.register("given", pa.table({"row": range(len(column)), "x": column}))
    return [value for _, value in sorted(engine.duckdb.sql(bulk_sql(engine, type_, column.type)).fetchall())]


@functools.cache
def bulk_sql(engine, type_, arrow):
    table = ibis.table(ibis.Schema.from_pyarrow(pa.schema({"row": pa.int64(), "x": arrow})), name="given")
    return engine.ibis.compile(table.select("row", x=type_.bulk(table.x, engine.parse_hex) if type_.name == "hex32"
                                            else type_.bulk(table.x)))


def read_by_one(type_, values):
    found = []
    for value in values:
        try:
            found.append(type_.one(value))
        except Unreadable:
            found.append(None)
    return found


@pytest.mark.parametrize("name, stored", CASES)
@QUICK
@given(data=st.data())
def test_forms_agree(engine, name, stored, data):
    arrow, values = STORED[stored]
    values = data.draw(st.lists(st.none() | values, min_size=1, max_size=20))
    type_ = TYPES[name] if name in TYPES else RAW_TYPES[name]()
    column = pa.array(values, arrow)
    one = read_by_one(type_, column.to_pylist())
    assert [*map(bits, read_in_bulk(engine, type_, column))] == [*map(bits, one)], values
    try:
        array = type_.array(column).to_pylist()
    except Unreadable as error:
        assert type_.name == "float" and one[error.index] is None and column[error.index].as_py() is not None
    else:
        assert [*map(bits, array)] == [*map(bits, one)]
    assert read_by_one(type_, one) == one or any(isinstance(x, float) and math.isinf(x) for x in one)  # read again


FORMATS = {
    "%d/%m/%Y[ %H:%M[:%S]]": ["13/02/2024", " 3/2/2024", "31/02/2024", "13/13/2024", "29/02/2023 10:00", "1/1/0000"],
    "%m/%d/%Y %I:%M %p": ["02/13/2024 12:05 AM", "2/3/1999 12:00 pm", "2/3/1999  1:05 PM", "2/3/1999 13:00 PM"],
    "%d.%m.%y": ["13.02.24", "1.1.68", "1.1.69", "1.1.1999"],
    "%a, %d %b %Y %H:%M:%S %z": ["Tue, 13 Feb 2024 10:00:00 +0230", "tuesday, 13 FEBRUARY 2024 1:02:03.5 GMT",
                                 "Sun, 3 Sept 2023 10:00:00 -11:00", "Sun, 3 \u017fep 2023 10:00:00 Z"],
    "%b %d, %Y": ["Feb 13, 2024", "december  1, 1999", "Fev 1, 1999"],
    "%Y年%m月%d日": ["2024年2月13日", "2024年12月3日"],
    "%d%m%Y": ["1112024", "01112024", "13022024"],
}
digits_and_marks = st.text(st.sampled_from("0123456789/.,:- FebAMpm"), max_size=12)


@pytest.mark.parametrize("format_", FORMATS)
@settings(QUICK, max_examples=12)
@given(data=st.data())
def test_times_by_a_format_agree(engine, format_, data):
    some = st.sampled_from([*itertools.chain.from_iterable(FORMATS.values()), "2024-02-13", "2024-02-13 10:00UTC", ""])
    values = FORMATS[format_] + data.draw(st.lists(st.none() | some | digits_and_marks, max_size=20))
    type_, column = Time(format_), pa.array(values, pa.string())
    one = read_by_one(type_, values)
    assert read_in_bulk(engine, type_, column) == one == type_.array(column).to_pylist()
    assert read_by_one(type_, one) == one  # read again, as ISO
    stored = pa.array([datetime.datetime(2024, 3, 4, 5, 6), None])
    assert read_in_bulk(engine, type_, stored) == read_by_one(Time(), stored.to_pylist())


def test_what_formats_mean():
    for format_, text, expected in (
            ("%d/%m/%Y", "3/2/2024", "2024-02-03 00:00:00"), ("%m/%d/%Y", "3/2/2024", "2024-03-02 00:00:00"),
            ("%d/%m/%Y", "31/02/2024", None), ("%d/%m/%Y", "02/13/2024", None), ("%d/%m/%Y", "3/2/2024 10:00", None),
            ("%d/%m/%Y", "2024-02-03", "2024-02-03 00:00:00"), ("%d.%m.%y", "1.2.68", "2068-02-01 00:00:00"),
            ("%d.%m.%y", "1.2.69", "1969-02-01 00:00:00"), ("%b %d, %Y %I:%M %p", "SEPT 3, 2024 12:05 am",
                                                            "2024-09-03 00:05:00"),
            ("%d/%m/%Y[ %H:%M[:%S]]", "3/2/2024 9:05:01.250", "2024-02-03 09:05:01.25"),
            ("%a %b %d %H:%M:%S %z %Y", "Wed Aug 27 13:08:45 +0230 2008", "2008-08-27 10:38:45")):
        assert Time(format_).one(text) == expected, (format_, text)


@pytest.mark.parametrize("format_, words", [
    ("%d/%m", "%Y or %y not once"), ("%d/%d/%m/%Y", "%d twice"), ("%d/%m/%Y %y", "%Y or %y not once"), ("%q", "%q"),
    ("%d/%m/%Y %H", "hours go with minutes"), ("%d/%m/%Y %M", "hours go with minutes"),
    ("%d/%m/%Y %I:%M", "%I goes with %p"), ("%d/%m/%Y]", "a bracket that nothing opens"),
    ("%d/%m/%Y[ ", "a bracket that nothing closes"), ("[%d/]%m/%Y", "%d in brackets"),
    ("%Y-%d-%m %H:%M:%S", "reads YYYY-MM-DD otherwise"), (7, "7")])
def test_what_is_no_format(format_, words):
    assert words in wrong_format(format_)


@QUICK
@given(st.lists(st.none() | st.sampled_from(["", "0", "aB", "ffffffff", "00000000", "7fffffff"])
                | st.from_regex("[0-9a-fA-F]{1,8}", fullmatch=True), min_size=1, max_size=20),
       st.none() | st.sampled_from(["g", "123456789", "000000001", "-1", "0x1", "1 2", " ", " 1", "1\t", "é", "1_0",
                                    "\uff11", "1\0"]))
def test_hex32_forms_agree(engine, values, bad):
    type_, column = RAW_TYPES["hex32"](), pa.array(["?", *values], pa.string()).slice(1)
    one = [type_.one(value) for value in values]
    assert type_.array(column).to_pylist() == one
    assert read_in_bulk(engine, type_, column) == one
    if bad is not None:
        with pytest.raises(Unreadable) as error:
            type_.array(pa.array([*values, bad], pa.string()))
        assert error.value.index == len(values) and error.value.value == bad


@pytest.mark.filterwarnings("ignore:overflow")
def test_float32_is_what_numpy_rounds_to():
    for number in (1e39, -1e39, math.inf, 3.4028235677973366e38, 3.4028235677973362e38, 1e-46, 0.1, 16777217.0):
        assert Float(bits=32).one(number) == np.array([number]).astype(np.float32).item()
