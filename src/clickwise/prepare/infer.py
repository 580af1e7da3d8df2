"""A first Feature Spec for raw files: types, cardinalities and hotness as found, a guess at channels, with reasons."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clickwise.errors import SpecError, UsageError, nearest
from clickwise.feature_spec import FILE_NAME, LEFT_OUT, FeatureSpec, narrowest_id_dtype
from clickwise.files import whole_file, write_json
from clickwise.prepare import column_profile
from clickwise.prepare.column_profile import LIST_DELIMITERS, ColumnProfile, TableProfile, read_table
from clickwise.prepare.date_formats import ISO, decided
from clickwise.prepare.garbage import rare_collections
from clickwise.strict_yaml import dump_line
from clickwise.time_format import TimeFormat, wrong_format

LABEL_NAMES = ("label", "target", "y", "click", "clicked", "is_click", "is_clicked", "conversion", "converted")
_DISPLAY = re.compile(r"(display|session|impression|query|request|search|slate|group)(_?id)?", re.IGNORECASE)
_ID = re.compile(r"(^|.*_)(id|code|zip|zipcode|postcode)", re.IGNORECASE)
_THING = re.compile(r"(user|member|customer|account|visitor|device|item|movie|video|song|track|artist|author|product|"
                    r"sku|ad|advert|advertiser|campaign|creative|site|app|page|url|domain|publisher|store|shop|brand|"
                    r"category|query|keyword|document|doc|article|city|region|country|zip)s?", re.IGNORECASE)
_MOMENT = re.compile(r"(.*_)?(time|times|timestamp|ts|date|datetime|day|created|updated|epoch|unix|at)(_.*)?",
                     re.IGNORECASE)
_INDEX = re.compile(r"__index_level_\d+__")  # as pandas names it in Parquet
# Words in the names of files, before `set` or `data` too: clicks.test.csv, trainset2.csv, dev_data.csv.
_MAPPINGS = {**dict.fromkeys(("train", "training", "trn"), "train"),
             **dict.fromkeys(("valid", "validation", "validate", "val", "dev", "eval", "evaluation"), "validation"),
             **dict.fromkeys(("test", "testing", "tst", "holdout"), "test")}
CHANNELS = ("label", "numerical", "categorical", "display", LEFT_OUT)
UNIX = (946_684_800, 2_208_988_800)  # 2000 … 2039 in seconds
DATES = (19_000_101, 21_001_231)  # as whole numbers
_DATE = re.compile(r"\d{1,2}[/.-]\d{1,2}[/.-](\d{2}|\d{4})(,? .*)?|\d{4}[/.]\d{1,2}[/.]\d{1,2}(,? .*)?|"
                   r"(\w{3}, )?(\d{1,2}[ -])?(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ -]\d{1,4}.*",
                   re.IGNORECASE)
_WEIGHTED = re.compile(r"[^\s:,;|]+:[+-]?\d*\.?\d+([ ,;|][^\s:,;|]+:[+-]?\d*\.?\d+)*")
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?")
_SPLIT = "a split may go by it (dataset.order_by; in Python: time)"
FEW = 50  # so many integers at most are taken for names of categories
COLUMNS = "columns.json"  # beside the spec: what each column is taken for, why, and what to check


@dataclass(frozen=True)
class Guess:
    """What a column is taken for: a channel ("" leaves it out), its entry of feature_spec, why, and where that is in
    doubt what a person should check."""

    channel: str
    entry: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    check: str = ""


@dataclass(frozen=True)
class Draft:
    """`guesses` by column; `spec` as text for a folder by `text`."""

    table: TableProfile
    guesses: dict[str, Guess]

    @property
    def label(self) -> str:
        return self.of("label")[0]

    def of(self, channel: str) -> list[str]:
        return [name for name, guess in self.guesses.items() if guess.channel == channel]

    @property
    def mappings(self) -> dict[str, list[Path]]:
        """Mapping -> its files, by words in their names; those without are train, and so are all where none is."""
        found: dict[str, list[Path]] = {}
        for file in self.table.files:
            found.setdefault(_mapping_of(file.name), []).append(file)
        return found if "train" in found else {"train": list(self.table.files)}

    @property
    def checks(self) -> dict[str, str]:
        """What a person should check, by column."""
        return {name: guess.check for name, guess in self.guesses.items() if guess.check}

    def text(self, folder: Path) -> str:
        """The Feature Spec as commented YAML that stands in `folder`."""
        rows, files = self.table.rows, ", ".join(file.name for file in self.table.files)
        lines = [f"# A draft by `clickwise spec infer`: {files}, {rows:,} rows. Read it, and correct what it guessed.",
                 "feature_spec:"]
        for name, guess in self.guesses.items():
            check = f". Please check: {guess.check}" if guess.check else ""
            if guess.channel:
                lines.append(f"  {dump_line(name)}: {dump_line(guess.entry)}  # {_one_line(guess.why + check)}")
            else:
                lines.append(f"  # {_one_line(name)}: left out: {_one_line(guess.why + check)}")
        lines.append("source_spec:")
        chunk: dict[str, Any] = {"features": [name for name, guess in self.guesses.items() if guess.channel]}
        if self.table.type == "csv":
            chunk |= {"header": self.table.has_header} | self.table.layout.options()
        for mapping, paths in self.mappings.items():
            names = [Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix() for path in paths]
            lines += [f"  {mapping}:", f"  - type: {self.table.type}", f"    files: {dump_line(names)}"]
            lines += [f"    {key}: {dump_line(value)}" for key, value in chunk.items()]
        lines.append("channel_spec:")
        lines += [f"  {channel}: {dump_line(names)}" for channel in CHANNELS if (names := self.of(channel))]
        return "\n".join([*lines, "metadata: {}", ""])

    @rare_collections()
    def save(self, folder: Path) -> FeatureSpec:
        """Writes `feature_spec.yaml`, which has been loaded once before it is there, and columns.json into `folder`."""
        with whole_file(folder / FILE_NAME) as temporary:
            temporary.write_text(self.text(folder), encoding="utf-8", newline="\n")
            try:
                spec = FeatureSpec.load(temporary)
            except SpecError as error:
                where = error.where.replace(str(temporary), str(folder / FILE_NAME))
                raise SpecError(where, found=error.found, expected=error.expected, do=error.do) from None
        write_json(folder / COLUMNS, {name: {"channel": guess.channel or LEFT_OUT, "why": guess.why,
                                             "check": guess.check} for name, guess in self.guesses.items()})
        return replace(spec, folder=folder, name=FILE_NAME)


def _mapping_of(name: str) -> str:
    for word in re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("hold-out", "holdout")
                                            .replace("hold_out", "holdout")).lower()):
        mapping = _MAPPINGS.get(word) or _MAPPINGS.get(re.sub(r"(set|data|file|split|fold)$", "", word))
        if mapping is not None:
            return mapping
    return "train"


@rare_collections()
def infer(files: Sequence[Path], *, label: str | None = None, display: str | None = None,
          categorical: Sequence[str] = (), numerical: Sequence[str] = (), multi_hot: Mapping[str, str] | None = None,
          formats: Mapping[str, str] | None = None, ignore: Sequence[str] = (), delimiter: str | None = None,
          header: bool | None = None) -> Draft:
    """A draft for files of one kind, read once. What the other arguments name is not guessed; `multi_hot` names columns
    of lists with what lies between the values in texts, `formats` columns of times with how texts write them, `ignore`
    is left out.

    Raises DataError for files that cannot be read, UsageError where a named column or a label is missing.
    """
    multi_hot, formats = multi_hot or {}, formats or {}
    for name, format_ in formats.items():
        if wrong := wrong_format(format_):
            raise UsageError(f"--format {name}", found=wrong, expected="how dates are written: %d/%m/%Y, say")
    for name, between in multi_hot.items():
        if not isinstance(between, str) or not 1 <= len(between) <= 4 or {"\n", "\r"} & set(between):
            raise UsageError(f"--multi-hot {name}", found=repr(between), expected="what lies between two values of a "
                             "list: a character, or a few")
    table = read_table(files, delimiter=delimiter, header=header, lists=multi_hot, formats=formats)
    asked = [("--label", label), ("--display", display), *(("--categorical", name) for name in categorical),
             *(("--numerical", name) for name in numerical), *(("--multi-hot", name) for name in multi_hot),
             *(("--format", name) for name in formats), *(("--ignore", name) for name in ignore)]
    for option, name in asked:
        if name is not None and name not in table.columns:
            raise UsageError(f"{option} {name}", found="no such column", expected="a column of the file",
                             do=nearest(name, table.columns))
        if name is not None and [other for _, other in asked].count(name) > 1:
            raise UsageError(f"{option} {name}", found="a column that is named twice", expected="one use of a column")
    label = label or _find_label(table)
    list_delimiter = _list_delimiter(table)
    guesses = {}
    for name, column in table.columns.items():
        if name == label:
            guesses[name] = _label(name, column)
        elif name in ignore:
            guesses[name] = Guess("", why="as asked")
        elif name in categorical or name in multi_hot:
            guesses[name] = _asked(name, column, multi_hot.get(name))
        elif name in formats:
            guesses[name] = _asked_time(name, column, formats[name])
        elif name in numerical:
            if not column.is_number:
                raise UsageError(f"--numerical {name}", found=column.unknown or _described(column), expected="numbers")
            guesses[name] = Guess("numerical", {"dtype": "float32"}, f"as asked: {_described(column)}")
        elif name == display or (display is None and _is_display(name, column)):
            guesses[name] = _display(column)
            display = name
        else:
            guesses[name] = _guess(name, column, table, list_delimiter)
        if not guesses[name].channel and not table.has_header:  # the columns of the file are counted off
            guesses[name] = Guess(LEFT_OUT, {"dtype": "str"}, f"not used: {guesses[name].why}", guesses[name].check)
    return Draft(table, guesses)


def _find_label(table: TableProfile) -> str:
    two = [name for name, column in table.columns.items() if column.distinct == 2 and not column.more]
    for wanted in LABEL_NAMES:
        if named := [name for name in two if name.lower() == wanted]:
            return named[0]
    raise UsageError("--label", found=f"no column named {', '.join(LABEL_NAMES[:5])}, … with two values",
                     expected="the column that is to be predicted",
                     do=f"name it; two values have: {', '.join(two)}" if two else "name it; no column has two values")


def _label(name: str, found: ColumnProfile) -> Guess:
    if found.longest is not None or found.unknown or found.kind == "empty":
        raise UsageError(f"--label {name}", found=found.unknown or _described(found),
                         expected="0 and 1, a number, or a text in each row")
    if found.is_number or found.kind == "truth":
        whole = found.kind != "number" and not found.missing
        dtype = "bool" if whole and found.values <= {"0", "1", "true", "false"} else "float32"
    else:
        dtype = "str"
    return Guess("label", {"dtype": dtype}, f"the label: {_described(found)}")


def _asked(name: str, found: ColumnProfile, delimiter: str | None) -> Guess:
    """Of a column of categories: of lists where the file has lists, or a delimiter is given; else a value a row."""
    parts, longest = found.parts, found.longest
    if parts is None and delimiter is not None:
        split = found.split.get(delimiter)
        parts, longest = (split.parts, split.longest) if split else (found, 1)
    if found.unknown or (parts is not None and parts.unknown):
        raise UsageError(f"--{'categorical' if delimiter is None else 'multi-hot'} {name}",
                         found=found.unknown or f"lists of {parts.unknown}",
                         expected="texts, numbers, true and false, or lists of one of these")
    if parts is None:
        return Guess("categorical", _ids(found), f"as asked: {_described(found)}")
    return Guess("categorical", _list(parts, longest, delimiter),
                 f"as asked: lists of {_described(parts, found.rows)}, up to {longest} in a row")


def _asked_time(name: str, found: ColumnProfile, format_: str) -> Guess:
    if not found.formats or not found.kinds.keys() <= {"string", "timestamp"}:
        odd = [repr(value) for value in sorted(found.values) if TimeFormat(format_).iso(value) is None]
        raise UsageError(f"--format {name}", found=odd[0] if odd else _described(found),
                         expected=f"dates as {format_} in every row")
    return _time(found, format_, "as asked: ")


def _time(found: ColumnProfile, format_: str, why: str = "", check: str = "") -> Guess:
    """Of a column of times that texts write so: it is no feature, and a split may go by it."""
    why += f"times, as {min(found.values)!r}; {_SPLIT}"
    return Guess(LEFT_OUT, {"dtype": "str", "format": format_}, why, check)


def _list(parts: ColumnProfile, longest: int, delimiter: str | None) -> dict[str, Any]:
    """The entry of a multi-hot feature; a delimiter is that of texts."""
    entry = _ids(parts, multi_hot=True) | {"max_hotness": max(2, longest)}
    return entry | ({"list_delimiter": delimiter} if delimiter not in (None, "|") else {})


def _is_display(name: str, found: ColumnProfile) -> bool:
    repeats = found.more or found.distinct < found.known
    names = found.kind in ("integer", "text") or (found.is_whole and bool(_ID.fullmatch(name)))
    return bool(_DISPLAY.fullmatch(name)) and names and repeats and found.distinct > 1


def _display(found: ColumnProfile) -> Guess:
    whole = found.kind == "integer" and not found.missing and not found.stands_for_missing
    return Guess("display", {"dtype": "int64" if whole else "str"}, f"groups rows: {_described(found)}")


def _guess(name: str, found: ColumnProfile, table: TableProfile, list_delimiter: str) -> Guess:
    said = _described(found)
    if _INDEX.fullmatch(name):
        return Guess("", why="the index of a frame")
    if found.unknown:
        return Guess("", why=found.unknown, check="it cannot be read; write its parts as columns of their own")
    if found.parts is not None:
        entry = _list(found.parts, found.longest, None)
        known = found.parts.kind not in ("empty", "number") and not found.parts.unknown
        return Guess("categorical", entry, f"lists of {said}") if known else Guess("", why=f"lists of {said}")
    if found.kind == "empty":
        return Guess("", why="no values")
    if found.distinct == 1 and not found.missing and not (found.is_number and found.stands_for_missing):
        return Guess("", why=f"one value in every row: {next(iter(found.values))!r}"[:80])
    if (guess := _moment(name, found, said)) is not None:
        return guess
    if found.kind == "text" and all(map(_WEIGHTED.fullmatch, found.values)) and \
            not all(map(_TIME_OF_DAY.fullmatch, found.values)):
        return Guess("", why=f"lists with weights, as {min(found.values, key=len)!r}", check="they cannot be read yet: "
                     "write the values alone, with | between them, and name the column categorical")
    if found.kind == "text" and (split := found.split.get(list_delimiter)) and _is_list(found, list_delimiter):
        said = f"{_described(split.parts, found.rows)}, up to {split.longest} in a row"
        why = f"as {_example(found, list_delimiter)}: {said}"
        return Guess("categorical", _list(split.parts, split.longest, list_delimiter), why)
    unique = found.distinct == found.known if not found.more else False
    if found.kind == "text" or ((_ID.fullmatch(name) or _THING.fullmatch(name)) and found.is_whole):
        if unique and found.rows > 1:
            return Guess("", why=f"another value in every row ({said})", check=_perhaps_lists(name, found))
        return Guess("categorical", _ids(found), said, _perhaps_lists(name, found))
    if found.kind == "truth" or (found.kind == "integer" and _names_categories(found)):
        return Guess("categorical", _ids(found), said)
    check = "are these amounts, or names? Names are categorical" if found.is_whole else ""
    return Guess("numerical", {"dtype": "float32"}, said, check)


def _names_categories(found: ColumnProfile) -> bool:
    """Whether integers are names rather than amounts: few in many rows, or from 0 or 1 on without gaps, as encoded ids.
    From 1 on, up to 300, they may be amounts as well: ages, hours, points."""
    if found.more:
        return found.low in (0, 1) and found.high < found.rows / 2
    if found.distinct <= FEW:
        return found.known >= 20 * found.distinct
    dense = found.distinct >= (found.high + 1) / 2 and found.known >= 2 * found.distinct
    return dense and (found.low == 0 or (found.low == 1 and found.high > 300))


def _moment(name: str, found: ColumnProfile, said: str) -> Guess | None:
    """The guess for a column of times, however they are written: no feature, but what a split may go by."""
    formats = found.formats or [] if found.kinds.keys() <= {"string", "timestamp"} else []
    format_ = decided(formats)
    if format_ == ISO or (found.kind == "time" and found.formats is None):
        return Guess("", why=f"{said}; {_SPLIT}")
    if format_ is not None:
        return _time(found, format_, check="taken for dates with years of two digits; if they are none, name it "
                     "categorical" if "%y" in format_ else "")
    if formats:
        either = {text.index("%d") < text.index("%m"): text for text in reversed(formats)}
        return Guess(LEFT_OUT, {"dtype": "str"}, f"dates, as {min(found.values)!r}",
                     check=f"does the day come first, or the month? All could be both: say --format {name}="
                           f"{either[True]} or {name}={either[False]} (in Python formats=, in the draft format:)")
    if found.kind == "time" or (found.kind == "text" and all(map(_DATE.fullmatch, found.values))):
        return Guess("", why=f"dates, as {min(found.values)!r}", check="not used, since no one format holds all of "
                     "them; to split by time, write them as YYYY-MM-DD HH:MM:SS")
    if not found.is_whole or _ID.fullmatch(name) or _THING.fullmatch(name) or found.low is None:
        return None
    is_named = _MOMENT.fullmatch(name) is not None
    for unit, factor in (("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6)):
        if UNIX[0] * factor <= found.low and found.high < UNIX[1] * factor and (is_named or found.distinct > FEW):
            return Guess("", why=f"{said}: Unix {unit}; {_SPLIT}", check="" if is_named else
                         "taken for moments and left out; if it is no time, name it numerical or categorical")
    if is_named and DATES[0] <= found.low and found.high <= DATES[1] and all(map(_is_date, found.values)):
        return Guess("", why=f"{said}: dates as YYYYMMDD; {_SPLIT}")
    return None


def _is_date(text: str) -> bool:
    month, day = divmod(int(float(text)) % 10_000, 100)
    return 1 <= month <= 12 and 1 <= day <= 31


def _ids(found: ColumnProfile, multi_hot: bool = False) -> dict[str, Any]:
    """The entry of a feature of ids: ids as they are, or values that preparation encodes."""
    complete = multi_hot or not (found.missing or found.stands_for_missing)
    if found.kind == "integer" and complete and found.low >= 0 and \
            (found.more or found.high < max(1000, 4 * found.distinct)):
        return {"dtype": narrowest_id_dtype(found.high + 1), "cardinality": found.high + 1}
    return {"dtype": "str", "cardinality": "auto"}


def _perhaps_lists(name: str, found: ColumnProfile) -> str:
    """What to check of texts that share parts, at a delimiter that is not that of most lists."""
    delimiter = next((delimiter for delimiter in LIST_DELIMITERS if _is_list(found, delimiter)), None)
    return "" if delimiter is None else (
        f"are these lists, as {_example(found, delimiter)}? If so: --multi-hot {shlex.quote(f'{name}={delimiter}')}, "
        f"in Python multi_hot={{{name!r}: {delimiter!r}}}")


def _list_delimiter(table: TableProfile) -> str:
    """The delimiter of most lists. What lies between the fields of a file is none of them, and neither is a comma where
    the file has no fields of text: too often it is part of a text."""
    counts = {delimiter: sum(_is_list(column, delimiter) for column in table.columns.values())
              for delimiter in LIST_DELIMITERS if delimiter != table.layout.delimiter}
    return max(counts, key=counts.get) if any(counts.values()) else "|"


def _is_list(found: ColumnProfile, delimiter: str) -> bool:
    """Whether the texts are lists: split at `delimiter` they share parts, so that there are no more of those than
    texts; `3|17` is one in any case (3,17 may be a number)."""
    split = found.split.get(delimiter)
    if found.kind != "text" or split is None or split.rows < 0.01 * found.known or split.parts.more:
        return False
    return found.more or split.parts.distinct <= found.distinct or (delimiter == "|" and split.parts.kind == "integer")


def _example(found: ColumnProfile, delimiter: str) -> str:
    return repr(min((text for text in found.values if delimiter in text), key=lambda text: (len(text), text)))[:60]


def _described(found: ColumnProfile, rows: int | None = None) -> str:
    """`rows` is the number of rows where `found` is of the values of lists."""
    if found.parts is not None:
        return f"{_described(found.parts, found.rows)}, up to {found.longest} in a row"
    if found.kind == "empty":
        return "no values"
    count = f"more than {column_profile.DISTINCT_LIMIT:,} values" if found.more else \
        f"{found.distinct:,} value" + "s" * (found.distinct != 1)
    kind = {"integer": "integers", "number": "numbers", "truth": "true or false", "text": "text", "time": "times"}
    text = kind[found.kind]
    if found.is_number:
        text += f" {found.low:,.6g} … {found.high:,.6g}" if found.kind == "number" else f" {found.low} … {found.high}"
    text += f", {count} in {rows or found.rows:,} rows"
    if found.distinct == 2 and not found.more and not found.is_number:
        text = " and ".join(map(repr, sorted(found.values)))[:80] + f" in {rows or found.rows:,} rows"
    missing = found.rows - found.known if rows is None else 0
    return text + (f", {missing:,} missing" if missing else "")


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
