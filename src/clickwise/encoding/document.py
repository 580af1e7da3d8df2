"""encoding.json: what a preparation fitted, as data. Raw columns with their types, states, and columns made of them.

    {"format": "clickwise encoding", "version": 1,
     "raw":     {"city": {"type": "text"}, "tags": {"type": "text", "list": "|"}, "age": {"type": "float"},
                 "at": {"type": "time", "format": "%d/%m/%Y"}},
     "states":  {"city": {"file": "states/0.vocabulary", "sha256": "…"}, …},
     "columns": {"city": {"of": "city", "dtype": "int16", "steps": [{"do": "vocabulary", "state": "city"}]},
                 "age": {"of": "age", "dtype": "float32", "steps": [{"do": "standardize", "mean": 38.6, "std": 13.1}]}},
     "text":    {"delimiter": "\\t", "columns": ["label", …], "label": "label"}}

`list` is what lies between the values of a list that is stored as text. `text`, which may be absent, says how files of
text without the names of their columns are read; their `label` may be absent.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clickwise.encoding.operations import OPERATIONS, Operation, Vocabulary
from clickwise.encoding.raw_types import RAW_TYPES, RawType
from clickwise.encoding.vocabulary_file import VocabularyFile
from clickwise.errors import DataError
from clickwise.files import write_json, write_text
from clickwise.given_files import check_is_file, read_given_json

FILE, STATES = "encoding.json", "states"
_FORMAT, _VERSION = "clickwise encoding", 1


@dataclasses.dataclass(frozen=True)
class RawColumn:
    """A column as it comes in; `list` is not None where a row holds several values."""

    type: RawType
    list: str | None = None

    def __str__(self) -> str:
        return f"lists of {self.type.name}" if self.list is not None else self.type.name


@dataclasses.dataclass(frozen=True)
class Column:
    """The raw column `of`, through `steps`, stored as `dtype`: float16 by way of float32. Of a list each value goes
    through them, ids of 0 are left out, and a row has at most `most` values."""

    of: str
    steps: tuple[Operation, ...]
    dtype: str
    most: int | None = None

    @property
    def number(self) -> str | None:
        """The type that a number is rounded to first; None where the column holds none."""
        return None if "float" not in self.dtype else "float64" if self.dtype == "float64" else "float32"


@dataclasses.dataclass(frozen=True)
class Encoding:
    """`states` are files, relative to `folder`. `layout`: delimiter and columns of text files without a header."""

    raw: Mapping[str, RawColumn]
    columns: Mapping[str, Column]
    states: Mapping[str, str] = dataclasses.field(default_factory=dict)
    layout: Mapping[str, Any] | None = None
    folder: Path = Path()

    @classmethod
    def load(cls, folder: Path) -> Encoding:
        """The encoding in a folder, its states open. Raises DataError for what is missing, damaged or of a newer
        version."""
        path = folder / FILE
        try:
            content = read_given_json(path)
            if content["format"] != _FORMAT:
                raise ValueError("another format")
        except FileNotFoundError:
            raise DataError(folder, found=f"no {FILE}", expected="an encoding that preparation wrote",
                            do="prepare the raw data again with this version, and train on it") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(path, found=f"no encoding ({error})", expected="what preparation wrote",
                            do="prepare the dataset again, or copy the file again") from None
        if content.get("version") != _VERSION:
            raise DataError(path, found=f"version {content.get('version')!r}", expected=f"version {_VERSION}",
                            do="use the version of clickwise that wrote it, or a newer one")
        try:
            return _encoding(content, folder)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(path, found=f"an entry that cannot be understood ({error})"[:200],
                            expected="what preparation wrote", do="copy the file again") from None

    def save(self, folder: Path) -> None:
        """Writes encoding.json into `folder`, where the states lie already."""
        states = {name: {"file": file, "sha256": _sha256(folder / file)} for name, file in self.states.items()}
        content = {"format": _FORMAT, "version": _VERSION,
                   "raw": {name: _entry(column.type, "type", column.type.name)
                           | ({} if column.list is None else {"list": column.list})
                           for name, column in self.raw.items()},
                   "states": states,
                   "columns": {name: {"of": column.of, "dtype": column.dtype,
                                      **({} if column.most is None else {"most": column.most}),
                                      "steps": [_entry(step, "do", step.do) for step in column.steps]}
                               for name, column in self.columns.items()}}
        write_json(folder / FILE, content | ({} if self.layout is None else {"text": self.layout}))

    def copy_to(self, folder: Path) -> None:
        """Puts the whole encoding into `folder`: the states as hard links where the file system can, read-only."""
        (folder / STATES).mkdir(parents=True, exist_ok=True)
        for file in self.states.values():
            target = folder / file
            target.unlink(missing_ok=True)
            try:
                os.link(self.folder / file, target)
            except OSError:
                shutil.copyfile(self.folder / file, target)
            target.chmod(0o444)
        write_text(folder / FILE, (self.folder / FILE).read_text(encoding="utf-8"))

    def needs(self, names: Sequence[str]) -> list[str]:
        """The raw columns that these columns are made of."""
        return list(dict.fromkeys(self.columns[name].of for name in names))


def _encoding(content: Mapping[str, Any], folder: Path) -> Encoding:
    """What encoding.json says, which may be another's: whatever it lacks or holds besides raises an error of Python."""
    raw = {name: RawColumn(_made(RAW_TYPES, "type", entry), entry.get("list"))
           for name, entry in content["raw"].items()}
    _require(all(column.list is None or (isinstance(column.list, str) and column.list) for column in raw.values()),
             "list", "what is no text")
    files = {name: _open_state(folder, entry) for name, entry in content["states"].items()}
    columns = {name: Column(entry["of"], tuple(_operation(step, files) for step in entry["steps"]),
                            entry["dtype"], entry.get("most")) for name, entry in content["columns"].items()}
    for name, column in columns.items():
        _require(column.of in raw, name, f"no raw column {column.of!r}")
        _check_field("dtype", "str", column.dtype)
        _require(column.most is None or _FIELDS["int"](column.most), name, f"most {column.most!r}")
    layout = content.get("text")
    _require(layout is None or (isinstance(layout["delimiter"], str) and layout["delimiter"]
                                and all(isinstance(name, str) for name in layout["columns"])), "text", "no layout")
    return Encoding(raw, columns, {name: entry["file"] for name, entry in content["states"].items()}, layout, folder)


def _require(holds: bool, key: str, found: str) -> None:
    if not holds:
        raise ValueError(f"{key}: {found}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_FIELDS = {  # how the fields of raw types and operations are annotated: what they may hold
    "float": _is_number,
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63,
    "str": lambda value: isinstance(value, str),
    "tuple[float, ...]": lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "Sequence[str]": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value)}


def _check_field(name: str, kind: str, value: object) -> None:
    _require(_FIELDS.get(kind, lambda value: True)(value), name, repr(value))
    if name == "dtype":
        _require(np.dtype(value).kind in "biuf" and np.dtype(value).itemsize <= 8, name, repr(value))


def _made(kinds: Mapping[str, type], key: str, entry: Mapping[str, Any]) -> Any:
    kind = kinds[entry[key]]
    fields = {field.name: field.type for field in dataclasses.fields(kind) if field.name != "file"}
    values = {name: value for name, value in entry.items() if name in fields}
    for name, value in values.items():
        _check_field(name, fields[name], value)
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _operation(entry: Mapping[str, Any], files: Mapping[str, VocabularyFile]) -> Operation:
    step = _made(OPERATIONS, "do", entry)
    return step.opened(files[step.state]) if isinstance(step, Vocabulary) else step


def _entry(of: Any, key: str, name: str) -> dict[str, Any]:
    """The fields that are not at their defaults."""
    return {key: name, **{field.name: getattr(of, field.name) for field in dataclasses.fields(of)
                          if field.name != "file" and getattr(of, field.name) != field.default}}


def _open_state(folder: Path, entry: Mapping[str, Any]) -> VocabularyFile:
    path = folder / entry["file"]
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(folder / FILE, found=f"the file {entry['file']!r}", expected="files inside the folder")
    check_is_file(path, "a vocabulary that encoding.json names")
    file = VocabularyFile(path)
    if _sha256(path) != entry["sha256"]:
        raise DataError(path, found="another content than encoding.json was written with",
                        expected="the file as preparation wrote it", do="prepare again, or copy the whole folder again")
    return file


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
