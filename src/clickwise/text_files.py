"""Delimited text as people have it: how a file is written, and a plain copy where fast readers would read it otherwise.

    layout = find_layout(path)                  # delimiter, quotes, encoding, header, lines before it
    with plain_text(path, layout) as plain:     # plain.path is the file itself, or a copy that all readers read alike
        …

Plain is: UTF-8, one kind of line end (LF or CRLF), a delimiter of one character, fields in double quotes or without
quotes, a decimal point, nothing before the first row. All else (CR, mixed line ends, other encodings, escapes, `||`,
decimal commas, comments before the header) is written anew by Python, which is slow and always right.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import dataclasses
import gzip
import io
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from clickwise.errors import DataError
from clickwise.text_scan import NO_GZIP, Scan, is_gzip, scan

SAMPLE_BYTES = 1 << 20
DELIMITERS = ("||", "::", ",", "\t", ";", "|")
STAND_IN = "\x1f"  # for a delimiter of several characters
ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")

BadLine = Callable[[int, str], None]  # number of the line from 1 on, what is wrong with it
Wrong = Callable[[list[str]], str | None]  # the fields of a row; what is wrong with them, None for a good one


@dataclasses.dataclass(frozen=True)
class TextLayout:
    """How delimited text is written; the keys of a csv chunk in a Feature Spec.

    delimiter  between fields; one or several characters
    quote      around a field that holds delimiters or line ends; "" where quotes mean nothing
    escape     before a quote inside a field; "" where it stands twice
    encoding   as Python names it
    decimal    "." or "," in numbers
    header     whether the first row has the names of the columns; None: where they are those of the features
    skip       lines before the first row
    """

    delimiter: str = ","
    quote: str = '"'
    escape: str = ""
    encoding: str = "utf-8"
    decimal: str = "."
    header: bool | None = None
    skip: int = 0

    @property
    def is_plain(self) -> bool:
        return len(self.delimiter) == 1 and self.quote in ('"', "") and not self.escape and \
            self.encoding in ("utf-8", "utf-8-sig") and self.decimal == "." and not self.skip

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TextLayout:
        """From the options of a chunk, which may have others too."""
        return cls(**{key: options[key] for key in KEYS if key in options})

    def options(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {field.name: value for field in dataclasses.fields(self)
                if (value := getattr(self, field.name)) != field.default}


KEYS = tuple(field.name for field in dataclasses.fields(TextLayout))


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file, plain or gzip, whatever its name ends in."""
    return gzip.open(path, "rb") if is_gzip(path) else open(path, "rb")


# ---- how a file is written


def find_layout(path: Path, *, delimiter: str | None = None, header: bool | None = None,
                quote: str | None = None) -> TextLayout:
    """What the first megabyte shows; what is given is not looked for. Raises DataError for what is no text."""
    lines, encoding = first_lines(path)
    skip = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    body = [line for line in lines[skip:] if line.strip()]
    delimiter = delimiter or _find_delimiter([line for line in body if not line.startswith("#")] or body)
    while len(body) > 1 and body[0].startswith("#") and _fields(body[0], delimiter) != _fields(body[-1], delimiter):
        skip, body = skip + 1, body[1:]
    while skip < len(lines) and not lines[skip].strip():
        skip += 1
    if not body:
        raise DataError(path, found="no lines", expected="at least one row")
    quote = _find_quote(body, delimiter) if quote is None else quote
    layout = TextLayout(delimiter, quote, encoding=encoding, skip=skip)
    rows = [[field.strip() for field in row] for row in _parsed(body[:50], layout)]
    if header is None:
        first, *others = rows
        header = not any(map(is_number, first)) and (len(set(first)) == len(first) or any(
            is_number(field) for row in others for field in row))
    return dataclasses.replace(layout, header=header, decimal=_find_decimal(rows[1:], delimiter))


def first_lines(path: Path) -> tuple[list[str], str]:
    """The lines of the first megabyte, whichever end they have, and the encoding."""
    start, whole = b"", False
    try:
        with open_bytes(path) as file:
            while len(start) < SAMPLE_BYTES and (part := file.read1(SAMPLE_BYTES - len(start))):
                start += part
            whole = len(start) < SAMPLE_BYTES
    except (OSError, *NO_GZIP) as error:
        if not start:  # else what lies before the damage is shown
            raise _no_text(path, str(error)) from None
    encoding = next((name for bom, name in ENCODINGS.items() if start.startswith(bom)), "utf-8")
    if b"\0" in start and encoding != "utf-16":
        raise _no_text(path, "zero bytes")
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start, final=whole)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise _no_text(path, str(error)) from None
        text, encoding = start.decode("cp1252", "replace"), "cp1252"
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return (lines if whole or len(lines) == 1 else lines[:-1]), encoding


def _no_text(path: Path, why: str) -> DataError:
    return DataError(f"{path}, line 1", found=f"no text that can be read ({why})",
                     expected="delimited text, plain or .gz, or a file that ends in .parquet")


def first_row(path: Path, layout: TextLayout) -> list[str]:
    """The fields of the first row: the names of the columns, where there is a header. Raises DataError."""
    lines, _ = first_lines(path)
    lines = [line for line in lines[layout.skip:] if line.strip()]
    if not lines:
        raise DataError(f"{path}, line 1", expected="rows, or a header and rows",
                        found="an empty file" if path.stat().st_size == 0 else "no lines")
    return [field.strip() for field in next(_parsed(lines, layout))]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return _DECIMAL_COMMA.fullmatch(text) is not None
    return text.strip().lower().lstrip("+-") not in ("nan", "inf", "infinity")


def is_encodable(text: str) -> bool:
    """Whether all bytes of a text that `rows_of` gave were of the encoding."""
    return text.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in text)


def _find_delimiter(lines: list[str]) -> str:
    """The delimiter that cuts the lines into the same number of fields, into the most if several do."""
    best = (1, ",")
    for delimiter in DELIMITERS:
        if len(delimiter) > 1 and any(line.count(delimiter) * len(delimiter) != line.count(delimiter[0])
                                      for line in lines):
            continue
        for quote in ('"', ""):
            layout = TextLayout(delimiter, quote)
            with contextlib.suppress(csv.Error):
                widths = {len(row) for row in _parsed(lines[:1000], layout)}
                if len(widths) == 1 and (width := widths.pop()) > best[0]:
                    best = (width, delimiter)
        if best[1] == delimiter and len(delimiter) > 1:
            break
    return best[1]


def _fields(line: str, delimiter: str) -> int:
    return len(next(_parsed([line], TextLayout(delimiter))))


def _width(line: str, delimiter: str) -> int:
    return line.count(delimiter)


def _find_quote(lines: list[str], delimiter: str) -> str:
    """No quotes, where only without them all lines have as many fields: a single quote then joins lines that are
    rows of their own."""
    marked = [line for line in lines if line.startswith('"') or delimiter + '"' in line]
    if not marked or len({_width(line, delimiter) for line in lines}) > 1:
        return '"'
    try:
        rows = list(_parsed(lines, TextLayout(delimiter), strict=True))
    except csv.Error:
        return ""
    return '"' if len(rows) == len(lines) and len({len(row) for row in rows}) == 1 else ""


def _find_decimal(rows: list[list[str]], delimiter: str) -> str:
    if delimiter == ",":
        return "."
    fields = [field for row in rows for field in row]
    commas = sum(_DECIMAL_COMMA.fullmatch(field) is not None for field in fields)
    points = sum(re.fullmatch(r"[+-]?\d*\.\d+", field) is not None for field in fields)
    return "," if commas > points else "."


# ---- reading line by line


def _parsed(lines: Iterable[str], layout: TextLayout, strict: bool = False) -> Iterator[list[str]]:
    """The fields of every row of lines without ends."""
    if not layout.quote:
        return (line.split(layout.delimiter) for line in lines)
    return csv.reader(_joined(lines, layout.delimiter), **_dialect(layout, strict))


def _joined(lines: Iterable[str], delimiter: str) -> Iterator[str]:
    """Lines as the csv module takes them: with an end, and with one character for a delimiter of several."""
    for line in lines:
        yield (line if len(delimiter) == 1 else line.replace(delimiter, STAND_IN)) + "\n"


def _dialect(layout: TextLayout, strict: bool) -> dict[str, Any]:
    csv.field_size_limit(1 << 31)  # a history in one field is ordinary; the module refuses more than 128 KiB
    return {"delimiter": layout.delimiter if len(layout.delimiter) == 1 else STAND_IN, "quotechar": layout.quote,
            "doublequote": not layout.escape, "escapechar": layout.escape or None, "strict": strict}


def rows_of(path: Path, layout: TextLayout, bad: BadLine) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, its fields) of every row; empty lines are none. `bad` is told of lines that cannot be
    read, and of where a compressed file is damaged: nothing behind that is read."""
    number = 0
    try:
        with open_bytes(path) as raw, io.TextIOWrapper(raw, layout.encoding, errors="surrogateescape") as text:
            lines = (line.rstrip("\n") for line in text)
            for _ in range(layout.skip):
                next(lines, None)
            for number, fields in _numbered(lines, layout, bad):
                yield number, fields
    except NO_GZIP as error:
        if number == 0:
            raise DataError(f"{path}, line 1", found=f"no gzip data ({error})", expected="delimited text",
                            do="copy or write it again") from None
        bad(number + 1, "the compressed file is cut off or damaged from here on")


def _numbered(lines: Iterator[str], layout: TextLayout, bad: BadLine) -> Iterator[tuple[int, list[str]]]:
    if not layout.quote:
        for number, line in enumerate(lines, layout.skip + 1):
            if line:
                yield number, line.split(layout.delimiter)
        return
    reader = csv.reader(_joined(lines, layout.delimiter), **_dialect(layout, strict=True))
    while True:
        first = layout.skip + reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            bad(first, "a quote that is never closed" if "unexpected end" in str(error) else
                f"a line that cannot be read ({error})")
            continue
        if fields:
            yield first, fields


# ---- the plain copy


@dataclasses.dataclass(frozen=True)
class PlainText:
    """A plain file, and what `scan` said of it: no line is longer than `longest` and a chunk."""

    path: Path
    layout: TextLayout
    longest: int
    marked: bool = False
    lines: int = 0


@contextlib.contextmanager
def plain_text(path: Path, layout: TextLayout, bad: BadLine | None = None, folder: Path | None = None, *,
               width: int | None = None, wrong: Wrong | None = None, found: Scan | None = None,
               as_copy: bool = False) -> Iterator[PlainText]:
    """The file itself where it is plain, else a copy that is there as long as the block, in a new folder in `folder`.

    `bad` is told of what `write_plain` leaves out of a copy; without it that raises DataError. `width` and `wrong` are
    those of `write_plain`, `found` is what `scan` of the file gave, and `as_copy` copies a plain file too.
    """
    found = found or scan(path)
    is_named_so = (path.suffix == ".gz") == is_gzip(path)  # other readers go by the name
    if layout.is_plain and found.uniform and not found.damage and is_named_so and not as_copy:
        yield PlainText(path, layout, found.longest, found.marked, found.lines)
        return
    with tempfile.TemporaryDirectory(prefix="clickwise-", dir=folder) as own:
        copy = Path(own) / f"{path.name.split('.')[0]}.csv"
        plain = write_plain(path, layout, copy, bad or _refuse(path), width, wrong)
        of_copy = scan(copy, (b"\n",) * found.marked)
        yield PlainText(copy, plain, of_copy.longest, found.marked, of_copy.lines)


def write_plain(path: Path, layout: TextLayout, copy: Path, bad: BadLine, width: int | None = None,
                wrong: Wrong | None = None) -> TextLayout:
    """Writes the rows of `path` to `copy`: those of `width` fields, which is that of the first if it is not given, in
    which nothing is `wrong`; the layout of the copy. Empty fields beyond `width` are none, as fast readers have it.

    `bad` is told of the others, of lines that cannot be read, and of where a compressed file is damaged. Bytes that
    are not of the encoding are bad; with `wrong` only where it says so, and the copy has them.
    """
    as_it_is = not layout.quote and len(layout.delimiter) == 1  # no quotes, so that files are read with their copies
    names, of = layout.header, "the header" if layout.header else "the first line"
    expected = f", where {of} has {{}}" if layout.header or width is None else ""
    with open(copy, "w", encoding="utf-8", newline="", errors="surrogateescape" if wrong else "strict") as out:
        writer = csv.writer(out, lineterminator="\n")
        for number, fields in rows_of(path, layout, bad):
            width = width or len(fields)
            while len(fields) > width and not fields[-1]:
                fields.pop()
            if len(fields) != width:
                bad(number, f"{len(fields)} field{'s' * (len(fields) != 1)}{expected.format(width)}")
                continue
            if wrong and not names and (found := wrong(fields)):
                bad(number, found)
                continue
            names = False
            if layout.decimal == ",":
                fields = [field.replace(",", ".") if _DECIMAL_COMMA.fullmatch(field.strip()) else field
                          for field in fields]
            try:
                if as_it_is:
                    out.write(layout.delimiter.join(fields) + "\n")
                else:
                    writer.writerow(fields)
            except UnicodeEncodeError:
                bad(number, f"bytes that are no {layout.encoding.removesuffix('-sig').upper()}")
    return TextLayout(layout.delimiter, "", header=layout.header) if as_it_is else TextLayout(header=layout.header)


def _refuse(path: Path) -> BadLine:
    def refuse(number: int, reason: str) -> None:
        raise DataError(f"{path}, line {number}", found=reason, expected="rows of the same number of fields",
                        do="correct the file")

    return refuse
