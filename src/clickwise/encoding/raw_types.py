"""The one reading of raw values: what a value means, however its file or program stores it.

Each type has three forms that give the same: `bulk`, an Ibis expression; `array`, of an Arrow array; `one`, of a Python
value. None, NaN and the empty text are missing.

    integer   7, 7.0, "7" and " 7.00 " are one value; what is no whole number of 64 bits is missing, and so is a float
              beyond 2^53, which may stand for several
    float     float64; texts of `missing` are missing, other texts that are no numbers (1_000 is none) cannot be read.
              Where it is `strict`, texts are digits with a sign, a point and an exponent at most: not " 1", nothing
              infinite
    boolean   true, True, "TRUE", 1, 1.0 and "1" are one value, all of false another; anything else is missing
    text      without space around it; "7", "7.0" and "007" are three values
    time      a date or time as text in UTC, 2024-01-05 10:00:00.5; a text without a time zone is in UTC already, and
              may be written by `format` instead, 5/1/2024
    hex32     up to 8 hexadecimal digits, without space around them, as a number, or that number
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import functools
import math
import numbers
import re
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickwise.arrow_arrays import EMPTY, NO_TEXT, filled, of_numbers, of_texts, of_values, to_numpy
from clickwise.time_format import TimeFormat

if TYPE_CHECKING:
    import ibis.expr.types as ir

    ParseHex = Callable[[ir.StringColumn, str], ir.IntegerColumn]  # `engine.parse_hex`

SPACE = " \t\n\r\v\f"
TRUE, FALSE = ("1", "1.0", "true"), ("0", "0.0", "false")
_WHOLE = r"[+-]?[0-9]+(\.0*)?"
_DIGITS_ALONE = r"^-?[0-9]{1,18}$"  # of a whole number of 64 bits, as most are written
_DECIMAL = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
ISO_TIME = rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([ T]{_CLOCK}(Z|[+-]([01][0-9])(:?[0-5][0-9])?)?)?"
_is_whole, _is_decimal, _is_time, _is_hex = (re.compile(pattern, re.ASCII).fullmatch for pattern in (
    _WHOLE, _DECIMAL, ISO_TIME, "[0-9a-fA-F]{1,8}"))
_INT64, _EXACT = 2**63, 2**53  # float64 holds every whole number up to 2^53
_FLOAT32 = struct.Struct("<f")
_DIGITS = bytes(int(chr(byte), 16) if _is_hex(chr(byte)) else 16 for byte in range(256))


class Unreadable(ValueError):
    """A value that its type cannot be read from; `index` is its row in an array."""

    index: int | None = None

    def __init__(self, value: object, expected: str) -> None:
        super().__init__(f"{value!r}, which is not {expected}")
        self.value, self.expected = value, expected


@dataclasses.dataclass(frozen=True)
class RawType:
    """`name` is what encoding.json calls it; `arrow` is the type of what `array` gives, null where one is missing."""

    name: ClassVar[str]
    arrow: ClassVar[pa.DataType]

    def bulk(self, column: ir.Column) -> ir.Column:
        raise NotImplementedError

    def unread(self, column: ir.Column) -> ir.BooleanColumn:
        """Where `bulk` finds nothing in what is not missing."""
        is_known = column.notnull()
        if column.type().is_floating():
            is_known &= ~column.isnan()
        elif column.type().is_string():
            is_known &= column != ""
        return is_known & self.bulk(column).isnull()

    def one(self, value: Any) -> Any:
        raise NotImplementedError

    def array(self, column: pa.Array) -> pa.Array:
        """By default each different value is read once."""
        codes, read = column.dictionary_encode(), []
        for index, value in enumerate(python_values(codes.dictionary)):
            try:
                read.append(self.one(value))
            except Unreadable as error:
                error.index = pc.index(codes.indices, pa.scalar(index, codes.indices.type)).as_py()
                raise
        return of_values(read, self.arrow).take(codes.indices)


def python_values(values: pa.Array) -> list:
    """As `to_pylist`; of times those that Python can hold, to the microsecond."""
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us", values.type.tz), safe=False)
    return values.to_pylist()


def _python(value: Any) -> Any:
    """Scalars of numpy and bytes as Python's own; NaN and NaT as None."""
    if isinstance(value, np.generic):
        value = value.item() if not isinstance(value, np.datetime64) else value.astype("datetime64[us]").item()
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "replace")
    return None if isinstance(value, (float, decimal.Decimal)) and value != value else value


@dataclasses.dataclass(frozen=True)
class Text(RawType):
    name, arrow = "text", pa.string()

    def bulk(self, column):
        import ibis

        if column.type().is_timestamp():
            column = column.cast("timestamp")
        elif column.type().is_floating():
            column = column.isnan().ifelse(ibis.null("string"), column.cast("float64").cast("string"))
        return stripped(column.cast("string")).nullif("")

    def one(self, value):
        if type(value) is not str:
            value = _python(value)
            if value is None:
                return None
            value = _as_text(value)
        return value.strip(SPACE) or None

    def array(self, column):
        if pa.types.is_string(column.type):
            trimmed = pc.utf8_trim(column, SPACE)
            return pc.if_else(pc.equal(trimmed, EMPTY), NO_TEXT, trimmed)
        return super().array(column)


def stripped(text: ir.StringColumn) -> ir.StringColumn:
    """The text without space around it. Few have any, and an engine looks for it faster than it takes it away."""
    return text.re_search(f"^[{SPACE}]|[{SPACE}]$").ifelse(text.strip(), text)


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime):
        return _time_text(value)
    if isinstance(value, datetime.time):
        value = value.isoformat()
        return value.rstrip("0") if "." in value else value
    return str(value)


@dataclasses.dataclass(frozen=True)
class Integer(RawType):
    name, arrow = "integer", pa.int64()

    def bulk(self, column):
        import ibis

        if column.type().is_string() or column.type().is_decimal():
            text = column.cast("string")
            return ibis.cases((text.re_search(f"^[{SPACE}]*{_WHOLE}[{SPACE}]*$"), text.try_cast("int64")),
                              else_=ibis.null("int64"))
        if column.type().is_floating():
            number = column.cast("float64")
            # `try_cast`: the statistics of Parquet files leave out NaN, so that an engine may drop the condition
            whole = ibis.cases((number.abs() <= _EXACT, number), else_=ibis.null("float64")).try_cast("int64")
            return ibis.cases((whole == number, whole), else_=ibis.null("int64"))
        return ibis.null("int64") if column.type().is_temporal() else column.try_cast("int64")

    def one(self, value):
        if type(value) is int:
            return value if -_INT64 <= value < _INT64 else None
        if type(value) is str and value.isdigit() and value.isascii() and len(value) <= 18:  # as most are written
            return int(value)
        value = _python(value)
        if isinstance(value, str):
            value = value.strip(SPACE)
            if not _is_whole(value):
                return None
            digits = value.partition(".")[0].lstrip("+-").lstrip("0")[:20]  # Python reads no thousands of them
            value = int(digits or "0") * (-1 if value[0] == "-" else 1)
        elif isinstance(value, (float, decimal.Decimal)):
            if not abs(value) <= (_EXACT if isinstance(value, float) else _INT64) or value != math.floor(value):
                return None
            value = int(value)
        elif not isinstance(value, numbers.Integral):
            return None
        return int(value) if -_INT64 <= value < _INT64 else None

    def array(self, column):
        if pa.types.is_signed_integer(column.type):
            return column.cast(pa.int64())
        if pa.types.is_string(column.type) and pc.all(pc.match_substring_regex(column, _DIGITS_ALONE)).as_py():
            return column.cast(pa.int64())
        return super().array(column)


@dataclasses.dataclass(frozen=True)
class Float(RawType):
    """`bits` 32: a text is the float32 next to it, as a file of that type would hold it. `strict`: see above."""

    name, arrow = "float", pa.float64()
    missing: Sequence[str] = ()
    bits: int = 64
    strict: bool = False

    @functools.cached_property
    def _missing_numbers(self) -> list[float]:
        """The texts of `missing` that are numbers, -1 say: the number is missing, however it is written."""
        found = (_float(word, 64) for word in self.missing)
        return [number for number in found if number is not None and number == number]

    def bulk(self, column):
        import ibis

        if column.type().is_temporal():
            return ibis.null("float64")
        if column.type().is_string():  # an engine's cast may take +-1 and 1_000
            is_number = column.re_search(f"^({_DECIMAL})$") if self.strict else \
                ~(column.contains("+-") | column.contains("_"))
            column = ibis.cases((is_number, column), else_=ibis.null("string"))
        number = column.try_cast(f"float{self.bits}").cast("float64")
        for missing in self._missing_numbers:
            number = number.nullif(missing)
        if self.strict:
            return ibis.cases((number.abs() < math.inf, number), else_=ibis.null("float64"))  # nor is NaN below it
        return number.isnan().ifelse(ibis.null("float64"), number)

    def unread(self, column: ir.Column) -> ir.BooleanColumn:
        """Where `bulk` finds what is neither a number nor missing."""
        import ibis

        if column.type().is_temporal():
            return column.notnull()
        if self.strict:
            found = RawType.unread(dataclasses.replace(self, missing=()), column)
            return found & column.notin(self.missing) if column.type().is_string() and self.missing else found
        if not column.type().is_string():
            return ibis.literal(False)
        words = "|".join(map(re.escape, ("", *self.missing)))
        known = rf"^[{SPACE}]*((?i:[+-]?nan)|{words})[{SPACE}]*$"
        number = dataclasses.replace(self, bits=64, missing=())
        return column.notnull() & number.bulk(column).isnull() & ~column.re_search(known)

    def one(self, value):
        if type(value) is not float:
            if value is None:
                return None
            value = _python(value)
            if isinstance(value, str):
                text = value if self.strict else value.strip(SPACE)
                if not text or text in self.missing:
                    return None
                value = _float(text, self.bits) if not self.strict or _is_decimal(text) else None
                if value is None:
                    raise Unreadable(text, "a number")
            elif isinstance(value, (int, float, decimal.Decimal)):
                value = float(value)
            elif value is not None:
                raise Unreadable(value, "a number")
        if value is None or value != value:
            return None
        if self.bits == 32:
            value = _nearest32(value)
        if self.strict and math.isinf(value):
            raise Unreadable(value, "a finite number")
        return None if self.missing and value in self._missing_numbers else value

    def array(self, column):
        type_, fast = column.type, None
        if pa.types.is_floating(type_) or pa.types.is_integer(type_) or pa.types.is_boolean(type_):
            fast = column
        elif pa.types.is_string(type_):
            try:
                trimmed = column if self.strict else pc.utf8_trim(column, SPACE)
                words = of_texts(["", *self.missing])
                fast = pc.if_else(pc.is_in(trimmed, words), NO_TEXT, trimmed).cast(
                    pa.float32() if self.bits == 32 else pa.float64())
            except pa.ArrowInvalid:
                pass
        if fast is None:
            return super().array(column)
        if self.bits == 32:
            fast = fast.cast(pa.float32(), safe=False)
        fast = fast.cast(pa.float64(), safe=False)
        if self.strict:
            odd = pc.invert(pc.is_finite(fast)) if pa.types.is_string(type_) else pc.is_inf(fast)
            if pc.any(odd).as_py():
                return super().array(column)  # which names the value
        values = to_numpy(fast)
        return of_numbers(values, np.isnan(values) | np.isin(values, self._missing_numbers))


def _float(text: str, bits: int) -> float | None:
    """The number that a text holds, in float64 or the float32 next to it; None where it holds none."""
    try:
        number = float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None
    if number is None or bits == 64 or not math.isfinite(number):
        return number
    low = struct.unpack("<Q", struct.pack("<d", number))[0] & (2**29 - 1)
    if low == 2**28:  # rounded to the middle of two float32: the text says to which side
        exact, middle = decimal.Decimal(text), decimal.Decimal(number)
        if exact != middle:
            return _nearest32(math.nextafter(number, math.inf if exact > middle else -math.inf))
    return _nearest32(number)


def _nearest32(number: float) -> float:
    try:
        return _FLOAT32.unpack(_FLOAT32.pack(number))[0]
    except OverflowError:
        return math.copysign(math.inf, number)


@dataclasses.dataclass(frozen=True)
class Boolean(RawType):
    name, arrow = "boolean", pa.bool_()

    def bulk(self, column):
        import ibis

        if column.type().is_boolean():
            return column
        if column.type().is_numeric():
            number = column if column.type().is_integer() else column.cast("float64")
            return ibis.cases((number == 1, True), (number == 0, False), else_=ibis.null("boolean"))
        text = stripped(column.cast("string")).lower()
        return ibis.cases((text.isin(TRUE), True), (text.isin(FALSE), False), else_=ibis.null("boolean"))

    def one(self, value):
        if type(value) is bool:
            return value
        value = _python(value)
        if isinstance(value, str):
            text = value.strip(SPACE).lower()
            return True if text in TRUE else False if text in FALSE else None
        if isinstance(value, numbers.Number):
            return True if value == 1 else False if value == 0 else None
        return None


@dataclasses.dataclass(frozen=True)
class Time(RawType):
    name, arrow = "time", pa.string()
    format: str | None = None

    @functools.cached_property
    def _format(self) -> TimeFormat | None:
        return None if self.format is None else TimeFormat(self.format)

    def bulk(self, column):
        import ibis

        if column.type().is_string():
            text = stripped(column)
            if self._format is not None:
                text = self._format.bulk(text)
            column = ibis.cases((text.re_search(f"^{ISO_TIME}$"), text), else_=ibis.null("string")).try_cast(
                "timestamp('UTC')")
            found = column.cast("timestamp").cast("string")
            in_years = found.re_search("^[0-9]{4}-[^(]*$")  # from 1 to 9999, as Python has them
            return ibis.cases((in_years, found), else_=ibis.null("string"))
        elif not (column.type().is_timestamp() or column.type().is_date()):
            return ibis.null("string")
        return column.cast("timestamp").cast("string")

    def one(self, value):
        value = _python(value)
        if isinstance(value, str):
            text = value.strip(SPACE)
            if self._format is not None:
                text = self._format.iso(text) or text
            try:
                value = datetime.datetime.fromisoformat(text) if _is_time(text) else None
            except ValueError:  # no such day
                return None
        if isinstance(value, datetime.datetime):
            try:
                return _time_text(value)
            except OverflowError:  # before the year 1 or after 9999 in UTC
                return None
        return f"{value.isoformat()} 00:00:00" if isinstance(value, datetime.date) else None


def _time_text(value: datetime.datetime) -> str:
    if value.tzinfo is not None:
        value = value.astimezone(datetime.UTC).replace(tzinfo=None)
    text = value.isoformat(" ")
    return text.rstrip("0") if "." in text else text


@dataclasses.dataclass(frozen=True)
class Hex32(RawType):
    name, arrow = "hex32", pa.int64()

    def bulk(self, column, parse_hex: ParseHex | None = None):
        return parse_hex(column.nullif(""), "uint32").cast("int64") if column.type().is_string() \
            else column.cast("int64")

    def one(self, value):
        if type(value) is not str:
            value = _python(value)
            if value is None:
                return None
            if isinstance(value, int) and 0 <= value < 2**32:
                return value
            if not isinstance(value, str):
                raise Unreadable(value, "a hexadecimal value of up to 8 digits")
        if not value:
            return None
        if not _is_hex(value):
            raise Unreadable(value, "a hexadecimal value of up to 8 digits")
        return int(value, 16)

    def array(self, column):
        if pa.types.is_string(column.type) and len(column):
            lengths = filled(pc.binary_length(column), 0)
            padded = pc.ascii_lpad(pc.coalesce(column, EMPTY), 8, "0")
            digits = np.frombuffer(padded.buffers()[2].to_pybytes().translate(_DIGITS), np.uint8)
            if len(digits) == 8 * len(column) and digits.max() < 16:  # each has 8 digits, none has more
                value = (digits[::2] << 4 | digits[1::2]).view(">u4").astype(np.int64)
                return of_numbers(value, lengths == 0)
        return super().array(column)


RAW_TYPES: dict[str, type[RawType]] = {
    type_.name: type_ for type_ in (Text, Integer, Float, Boolean, Time, Hex32)}
