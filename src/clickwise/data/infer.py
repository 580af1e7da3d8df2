"""A first Feature Spec for raw files: types, cardinalities and hotness as found, a guess at channels, with reasons."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clickwise.data.column_facts import LIST_DELIMITERS, Facts, Table, read_table
from clickwise.errors import UsageError, nearest
from clickwise.feature_spec import FILE_NAME, LEFT_OUT, FeatureSpec, narrowest_id_dtype
from clickwise.files import whole_file
from clickwise.strict_yaml import dump_line

LABEL_NAMES = ("label", "target", "y", "click", "clicked", "is_click", "is_clicked", "conversion", "converted")
_DISPLAY = re.compile(r"(display|session|impression|query|request|search|slate|group)(_?id)?", re.IGNORECASE)
_ID = re.compile(r"(^|.*_)(id|code|zip|zipcode|postcode)", re.IGNORECASE)
_MAPPING = re.compile(r"(?:^|[^a-z])(train|test|valid|val)(?:ing|ation)?(?=[^a-z]|$)", re.IGNORECASE)
CHANNELS = ("label", "numerical", "categorical", "display", LEFT_OUT)
FEW = 50  # so many integers at most are taken for names of categories


@dataclass(frozen=True)
class Guess:
    """What a column is taken for: a channel ("" leaves it out), its entry of feature_spec, and why."""

    channel: str
    entry: dict[str, Any] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Draft:
    """`guesses` by column; `spec` as text for a folder by `text`."""

    table: Table
    guesses: dict[str, Guess]
    list_delimiter: str

    @property
    def label(self) -> str:
        return self.of("label")[0]

    def of(self, channel: str) -> list[str]:
        return [name for name, guess in self.guesses.items() if guess.channel == channel]

    @property
    def mappings(self) -> dict[str, list[Path]]:
        """Mapping -> its files, by the words train, test and validation in their names; else all are train."""
        found: dict[str, list[Path]] = {}
        for file in self.table.files:
            word = _MAPPING.search(file.name.split(".")[0])
            word = word[1].lower() if word else "train"
            found.setdefault("validation" if word.startswith("val") else word, []).append(file)
        return found if "train" in found else {"train": list(self.table.files)}

    def text(self, folder: Path) -> str:
        """The Feature Spec as commented YAML that stands in `folder`."""
        rows, files = self.table.rows, ", ".join(file.name for file in self.table.files)
        lines = [f"# A draft by `clickwise spec infer`: {files}, {rows:,} rows. Read it, and correct what it guessed.",
                 "feature_spec:"]
        for name, guess in self.guesses.items():
            if guess.channel:
                lines.append(f"  {dump_line(name)}: {dump_line(guess.entry)}  # {_one_line(guess.why)}")
            else:
                lines.append(f"  # {_one_line(name)}: left out: {_one_line(guess.why)}")
        lines.append("source_spec:")
        chunk: dict[str, Any] = {"features": [name for name, guess in self.guesses.items() if guess.channel]}
        if self.table.type == "csv":
            chunk |= {"header": self.table.has_header}
            chunk |= {"delimiter": self.table.delimiter} if self.table.delimiter != "," else {}
            chunk |= {"list_delimiter": self.list_delimiter} if self.list_delimiter != "|" else {}
        for mapping, paths in self.mappings.items():
            names = [Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix() for path in paths]
            lines += [f"  {mapping}:", f"  - type: {self.table.type}", f"    files: {dump_line(names)}"]
            lines += [f"    {key}: {dump_line(value)}" for key, value in chunk.items()]
        lines.append("channel_spec:")
        lines += [f"  {channel}: {dump_line(names)}" for channel in CHANNELS if (names := self.of(channel))]
        return "\n".join([*lines, "metadata: {}", ""])

    def save(self, folder: Path) -> FeatureSpec:
        """Writes `feature_spec.yaml` into `folder`; it has been loaded once before it is there."""
        with whole_file(folder / FILE_NAME) as temporary:
            temporary.write_text(self.text(folder), encoding="utf-8")
            FeatureSpec.load(temporary)
        return FeatureSpec.load(folder)


def infer(files: Sequence[Path], *, label: str | None = None, display: str | None = None,
          categorical: Sequence[str] = (), numerical: Sequence[str] = (), delimiter: str | None = None,
          header: bool | None = None) -> Draft:
    """A draft for files of one kind, read once. What the other arguments name is not guessed.

    Raises DataError for files that cannot be read, UsageError where a named column or a label is missing.
    """
    table = read_table(files, delimiter=delimiter, header=header)
    asked = [("--label", label), ("--display", display), *(("--categorical", name) for name in categorical),
             *(("--numerical", name) for name in numerical)]
    for option, name in asked:
        if name is not None and name not in table.columns:
            raise UsageError(f"{option} {name}", found="no such column", expected="a column of the file",
                             do=nearest(name, table.columns))
        if name is not None and [other for _, other in asked].count(name) > 1:
            raise UsageError(f"{option} {name}", found="a column that is named twice", expected="one use of a column")
    label = label or _find_label(table)
    list_delimiter = _list_delimiter(table)
    guesses = {}
    for name, facts in table.columns.items():
        if name == label:
            guesses[name] = _label(name, facts)
        elif name in categorical:
            guesses[name] = Guess("categorical", _ids(facts), f"as asked: {_described(facts)}")
        elif name in numerical:
            if not facts.is_number:
                raise UsageError(f"--numerical {name}", found=facts.unknown or _described(facts), expected="numbers")
            guesses[name] = Guess("numerical", {"dtype": "float32"}, f"as asked: {_described(facts)}")
        elif name == display or (display is None and _is_display(name, facts)):
            guesses[name] = _display(facts)
            display = name
        else:
            guesses[name] = _guess(name, facts, table, list_delimiter)
        if not guesses[name].channel and not table.has_header:  # the columns of the file are counted off
            guesses[name] = Guess(LEFT_OUT, {"dtype": "str"}, f"not used: {guesses[name].why}")
    return Draft(table, guesses, list_delimiter)


def _find_label(table: Table) -> str:
    two = [name for name, facts in table.columns.items() if facts.distinct == 2 and not facts.more]
    for wanted in LABEL_NAMES:
        if named := [name for name in two if name.lower() == wanted]:
            return named[0]
    raise UsageError("--label", found=f"no column named {', '.join(LABEL_NAMES[:5])}, … with two values",
                     expected="the column that is to be predicted",
                     do=f"name it; two values have: {', '.join(two)}" if two else "name it; no column has two values")


def _label(name: str, facts: Facts) -> Guess:
    if facts.longest is not None or facts.unknown or facts.kind == "empty":
        raise UsageError(f"--label {name}", found=facts.unknown or _described(facts),
                         expected="0 and 1, a number, or a text in each row")
    if facts.is_number or facts.kind == "truth":
        dtype = "bool" if facts.values <= {"0", "1", "true", "false"} and not facts.missing else "float32"
    else:
        dtype = "str"
    return Guess("label", {"dtype": dtype}, f"the label: {_described(facts)}")


def _is_display(name: str, facts: Facts) -> bool:
    repeats = facts.more or facts.distinct < facts.known
    return bool(_DISPLAY.fullmatch(name)) and facts.kind in ("integer", "text") and repeats and facts.distinct > 1


def _display(facts: Facts) -> Guess:
    whole = facts.kind == "integer" and not facts.missing and not facts.stands_for_missing
    return Guess("display", {"dtype": "int64" if whole else "str"}, f"groups rows: {_described(facts)}")


def _guess(name: str, facts: Facts, table: Table, list_delimiter: str) -> Guess:
    said = _described(facts)
    if facts.unknown:
        return Guess("", why=f"values of the type {facts.unknown}")
    if facts.parts is not None:
        entry = _ids(facts.parts, multi_hot=True) | {"max_hotness": max(2, facts.longest)}
        known = facts.parts.kind not in ("empty", "number") and not facts.parts.unknown
        return Guess("categorical", entry, f"lists of {said}") if known else Guess("", why=f"lists of {said}")
    if facts.kind == "empty":
        return Guess("", why="no values")
    if facts.distinct == 1 and not facts.missing and not (facts.is_number and facts.stands_for_missing):
        return Guess("", why=f"one value in every row: {next(iter(facts.values))!r}"[:80])
    if facts.kind == "time":
        return Guess("", why=f"{said}; to split by time: dataset.order_by={name}")
    if facts.kind == "text" and (split := facts.split.get(list_delimiter)) and _is_list(facts, list_delimiter):
        said = f"{_described(split.parts, facts.rows)}, up to {split.longest} in a row"
        why = f"as {_example(facts, list_delimiter)}: {said}"
        return Guess("categorical", _ids(split.parts, multi_hot=True) | {"max_hotness": split.longest}, why)
    unique = facts.distinct == facts.known if not facts.more else False
    if facts.kind == "text" or (_ID.fullmatch(name) and facts.kind == "integer"):
        if unique and facts.rows > 1:
            return Guess("", why=f"another value in every row ({said})")
        return Guess("categorical", _ids(facts), said)
    if facts.kind == "truth" or (facts.kind == "integer" and _names_categories(facts)):
        return Guess("categorical", _ids(facts), said)
    return Guess("numerical", {"dtype": "float32"}, said)


def _names_categories(facts: Facts) -> bool:
    """Whether integers are names rather than amounts: few in many rows, or from 0 on without gaps, as encoded ids."""
    if facts.more:
        return facts.low == 0 and facts.high < facts.rows / 2
    if facts.distinct <= FEW:
        return facts.known >= 20 * facts.distinct
    return facts.low == 0 and facts.distinct >= (facts.high + 1) / 2 and facts.known >= 2 * facts.distinct


def _ids(facts: Facts, multi_hot: bool = False) -> dict[str, Any]:
    """The entry of a feature of ids: ids as they are, or values that preparation encodes."""
    complete = multi_hot or not (facts.missing or facts.stands_for_missing)
    if facts.kind == "integer" and complete and facts.low >= 0 and \
            (facts.more or facts.high < max(1000, 4 * facts.distinct)):
        return {"dtype": narrowest_id_dtype(facts.high + 1), "cardinality": facts.high + 1}
    return {"dtype": "str", "cardinality": "auto"}


def _list_delimiter(table: Table) -> str:
    """The delimiter of most lists: a chunk has one. Parquet, whose chunks say none, keeps the usual one."""
    if table.type == "parquet":
        return "|"
    counts = {delimiter: sum(_is_list(facts, delimiter) for facts in table.columns.values())
              for delimiter in LIST_DELIMITERS if delimiter != table.delimiter}
    return max(counts, key=counts.get) if any(counts.values()) else "|"


def _is_list(facts: Facts, delimiter: str) -> bool:
    """Whether the texts are lists: cut at `delimiter` they share parts, so that there are no more of those than texts;
    `3|17` is one in any case (3,17 may be a number)."""
    split = facts.split.get(delimiter)
    if facts.kind != "text" or split is None or split.rows < 0.01 * facts.known or split.parts.more:
        return False
    return facts.more or split.parts.distinct <= facts.distinct or (delimiter == "|" and split.parts.kind == "integer")


def _example(facts: Facts, delimiter: str) -> str:
    return repr(min((text for text in facts.values if delimiter in text), key=lambda text: (len(text), text)))[:60]


def _described(facts: Facts, rows: int | None = None) -> str:
    """`rows` is the number of rows where `facts` are of the values of lists."""
    if facts.parts is not None:
        return f"{_described(facts.parts, facts.rows)}, up to {facts.longest} in a row"
    if facts.kind == "empty":
        return "no values"
    count = f"more than {len(facts.values) - 1:,} values" if facts.more else \
        f"{facts.distinct:,} value" + "s" * (facts.distinct != 1)
    kind = {"integer": "integers", "number": "numbers", "truth": "true or false", "text": "text", "time": "times"}
    text = kind[facts.kind]
    if facts.is_number:
        text += f" {facts.low:,.6g} … {facts.high:,.6g}" if facts.kind == "number" else f" {facts.low} … {facts.high}"
    text += f", {count} in {rows or facts.rows:,} rows"
    if facts.distinct == 2 and not facts.more and not facts.is_number:
        text = " and ".join(map(repr, sorted(facts.values)))[:80] + f" in {rows or facts.rows:,} rows"
    missing = facts.rows - facts.known if rows is None else 0
    return text + (f", {missing:,} missing" if missing else "")


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
