"""encoding.json: what a preparation fitted, as data. Raw columns with their types, states, and columns made of them.

    {"format": "clickwise encoding", "version": 1,
     "raw":     {"city": {"type": "text"}, "tags": {"type": "text", "list": "|"}, "age": {"type": "float"},
                 "at": {"type": "time", "format": "%d/%m/%Y"}, "position": {"type": "integer", "optional": true}},
     "states":  {"city": {"file": "states/0.vocabulary", "sha256": "…"},
                 "users": {"kind": "lookup", "by": ["user_id"], "gives": {"age": {"type": "float"}}, "files": {…}}, …},
     "columns": {"city": {"of": "city", "dtype": "int16", "steps": [{"do": "vocabulary", "state": "city"}]},
                 "age": {"of": "age", "dtype": "float32", "steps": [{"do": "standardize", "mean": 38.6, "std": 13.1}]}},
     "text":    {"delimiter": "\\t", "columns": ["label", …], "label": "label"}}

A column is `of` a raw column or of one that a state gives, or of several: ["clicks", "impressions"]. A state without a
`kind` is a vocabulary; `states` says what the others are. A state that goes on (`goes_on`) is as of the first test row;
`events`, which may be absent, names the columns of a log (`Log`).

`list` is what lies between the values of a list that is stored as text. `text`, which may be absent, says how files of
text without the names of their columns are read; their `label` may be absent. `not_for_new_rows` alone says why
columns were made that no new row can be.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clickwise.encoding import further_operations  # noqa: F401 (which adds its own to OPERATIONS)
from clickwise.encoding.operations import OPERATIONS, Operation, Vocabulary
from clickwise.encoding.raw_column import RawColumn
from clickwise.encoding.raw_types import RAW_TYPES, Integer, Text
from clickwise.encoding.states import KINDS, Counts, EventLog, Lookup, State
from clickwise.encoding.states.event_log import TIME
from clickwise.encoding.vocabulary_file import VocabularyFile
from clickwise.errors import DataError
from clickwise.files import link_or_copy, write_json, write_text
from clickwise.given_files import check_is_file, read_given_json

FILE, STATES = "encoding.json", "states"
_FORMAT, _VERSION = "clickwise encoding", 1


@dataclasses.dataclass(frozen=True)
class Column:
    """The raw column `of`, through `steps`, stored as `dtype`: float16 by way of float32. Of a list each value goes
    through them, ids of 0 are left out, and a row has at most `most` values. Of several columns the first step takes
    all."""

    of: str | tuple[str, ...]
    steps: tuple[Operation, ...]
    dtype: str
    most: int | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.of,) if isinstance(self.of, str) else self.of

    @property
    def number(self) -> str | None:
        """The type that a number is rounded to first; None where the column holds none."""
        return None if "float" not in self.dtype else "float64" if self.dtype == "float64" else "float32"


@dataclasses.dataclass(frozen=True)
class Log:
    """The raw columns of events: `label`, a column of the encoding; `time`, which never goes down in a log; rows that
    agree in `same` are one event, with a click if one of them has it and the least value of all others; `order` is that
    of events at the same time."""

    label: str
    time: str
    same: tuple[str, ...]
    order: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Encoding:
    """`states` are vocabularies, files relative to `folder`; `tables` the other states, which lie in
    `folder`/states/<name>. `layout`: delimiter and columns of text files without a header. `not_for_new_rows`: why it
    has no columns."""

    raw: Mapping[str, RawColumn]
    columns: Mapping[str, Column]
    states: Mapping[str, str] = dataclasses.field(default_factory=dict)
    layout: Mapping[str, Any] | None = None
    folder: Path = Path()
    tables: Mapping[str, State] = dataclasses.field(default_factory=dict)
    events: Log | None = None
    not_for_new_rows: str | None = None

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
        states |= {name: _entry(state, "kind", state.kind) | {"files": {
            file: _sha256(folder / STATES / name / file) for file in state.files}}
            for name, state in self.tables.items()}
        content = {"format": _FORMAT, "version": _VERSION,
                   "raw": {name: _raw_entry(column) for name, column in self.raw.items()},
                   "states": states,
                   "columns": {name: {"of": column.of, "dtype": column.dtype,
                                      **({} if column.most is None else {"most": column.most}),
                                      "steps": [_entry(step, "do", step.do) for step in column.steps]}
                               for name, column in self.columns.items()}}
        further = {"text": self.layout, "events": self.events and dataclasses.asdict(self.events),
                   "not_for_new_rows": self.not_for_new_rows}
        write_json(folder / FILE, content | {key: value for key, value in further.items() if value is not None})

    def copy_to(self, folder: Path) -> None:
        """Puts the whole encoding into `folder`: the states as hard links where the file system can, read-only."""
        (folder / STATES).mkdir(parents=True, exist_ok=True)
        for file in [*self.states.values(), *(f"{STATES}/{name}/{file}" for name, state in self.tables.items()
                                              for file in state.files)]:
            target = folder / file
            target.parent.mkdir(exist_ok=True)
            target.unlink(missing_ok=True)
            link_or_copy(self.folder / file, target)
            target.chmod(0o444)
        write_text(folder / FILE, (self.folder / FILE).read_text(encoding="utf-8"))

    def needs(self, names: Sequence[str]) -> list[str]:
        """The columns, raw ones or given by a state, that these columns are made of."""
        return list(dict.fromkeys(of for name in names for of in self.columns[name].sources))

    def with_tables(self, tables: Mapping[str, State]) -> Encoding:
        """The same with other states."""
        return dataclasses.replace(self, tables=tables)

    def check_for_new_rows(self) -> None:
        """Raises DataError where its columns are not for new rows."""
        if self.not_for_new_rows is not None:
            raise DataError(self.folder, found=f"columns that are not for new rows: {self.not_for_new_rows}",
                            expected="an encoding of raw rows",
                            do="score the rows that were prepared, --input test, or prepare and train on other columns")

    @property
    def goes_on(self) -> bool:
        """Whether states go on with events."""
        return any(state.goes_on for state in self.tables.values())

    def raw_column(self, of: str) -> RawColumn:
        """What a raw column, or one that a state gives, holds."""
        state = self.state_of(of)
        return self.raw[of] if state is None else self.tables[state].gives[of]

    def state_of(self, of: str) -> str | None:
        """The state that gives a column; None for a raw one."""
        return self._state_of.get(of)

    @functools.cached_property
    def _state_of(self) -> dict[str, str]:
        return {of: name for name, state in self.tables.items() for of in state.gives}

    def gives_lists(self, of: str) -> bool:
        """Whether a state gives it as lists of what is encoded already."""
        state = self.state_of(of)
        return state is not None and self.tables[state].is_of_lists

    def is_of_lists(self, of: str) -> bool:
        """Whether a column, a raw one or one that a state gives, holds lists."""
        return self.raw_column(of).list is not None or self.gives_lists(of)


def _encoding(content: Mapping[str, Any], folder: Path) -> Encoding:
    """What encoding.json says, which may be another's: whatever it lacks or holds besides raises an error of Python."""
    raw = _raw_columns(content["raw"])
    vocabularies = {name: entry for name, entry in content["states"].items() if "kind" not in entry}
    files = {name: _open_state(folder, entry) for name, entry in vocabularies.items()}
    columns = {name: Column(entry["of"] if isinstance(entry["of"], str) else tuple(entry["of"]),
                            tuple(_operation(step, files) for step in entry["steps"]),
                            entry["dtype"], entry.get("most")) for name, entry in content["columns"].items()}
    known, tables = dict(raw), {}
    for name, entry in content["states"].items():
        if name not in vocabularies:
            state = tables[name] = _open_table(folder, name, entry)
            _check_state(name, state, known)
            _require(not (isinstance(state, EventLog) and set(state.columns) - set(columns)), name, "other columns")
            known |= state.gives
    for name, column in columns.items():
        for of in column.sources:
            _require(of in known, name, f"no raw column {of!r}")
        _require(len(column.sources) == (column.steps[0].operands if column.steps else 1), name, "as many columns")
        _check_field("dtype", "str", column.dtype)
        _require(column.most is None or _FIELDS["int"](column.most), name, f"most {column.most!r}")
    layout = content.get("text")
    _require(layout is None or (isinstance(layout["delimiter"], str) and layout["delimiter"]
                                and all(isinstance(name, str) for name in layout["columns"])), "text", "no layout")
    events = None if "events" not in content else Log(**{
        key: value if isinstance(value, str) else tuple(value) for key, value in content["events"].items()})
    if events is not None:
        _require(events.label in columns and all(name in raw and _is_whole(raw[name]) for name in (
            events.time, *events.same, *events.order)), "events", "other columns")
    reason = content.get("not_for_new_rows")
    _check_field("not_for_new_rows", "str | None", reason)
    found = Encoding(raw, columns, {name: entry["file"] for name, entry in vocabularies.items()}, layout, folder,
                     tables, events, reason)
    _require(events is not None or not found.goes_on, "events", "nothing")
    return found


def _raw_columns(entries: Mapping[str, Any]) -> dict[str, RawColumn]:
    raw = {name: RawColumn(_made(RAW_TYPES, "type", entry), entry.get("list"), entry.get("optional", False))
           for name, entry in entries.items()}
    _require(all(column.list is None or (isinstance(column.list, str) and column.list) for column in raw.values()),
             "list", "what is no text")
    _require(all(isinstance(column.optional, bool) for column in raw.values()), "optional", "neither true nor false")
    return raw


def _raw_entry(column: RawColumn) -> dict[str, Any]:
    return _entry(column.type, "type", column.type.name) | ({} if column.list is None else {"list": column.list}) \
        | ({"optional": True} if column.optional else {})


def _is_whole(column: RawColumn) -> bool:
    return column.list is None and isinstance(column.type, Integer)


def _check_state(name: str, state: State, known: Mapping[str, RawColumn]) -> None:
    """Raises ValueError for keys that are not there, or are neither whole numbers nor texts, and the like."""
    for of in state.needs:
        _require(of in known, name, f"no column {of!r}")
    _require(bool(state.by) and (state.at is not None or not state.goes_on), name, "no keys")
    _require(all(known[of].list is None and isinstance(known[of].type, (Integer, Text)) for of in state.by), name,
             "keys")
    _require(state.at is None or _is_whole(known[state.at]), name, "moments")
    _require(not set(state.gives) & set(known), name, "a column that is there already")
    if isinstance(state, EventLog):
        _require(set(state.gives) == set(state.features) and TIME not in state.features and state.length > 0, name,
                 "other features")
        _require(state.position is None or (_is_whole(known[state.position]) and not state.goes_on), name, "positions")
    elif not isinstance(state, Lookup):
        _require(len(state.gives) in ((1, 2) if isinstance(state, Counts) else (1,)), name, "other columns")


def _open_table(folder: Path, name: str, entry: Mapping[str, Any]) -> State:
    gives = _raw_columns(entry["gives"])
    state = _made(KINDS, "kind", {key: value for key, value in entry.items() if key != "gives"} | {"gives": gives})
    for file in state.files:
        _check_sum(_inside(folder, f"{STATES}/{name}/{file}", "a state"), entry["files"][file])
    return state.load(folder / STATES / name)


def _require(holds: bool, key: str, found: str) -> None:
    if not holds:
        raise ValueError(f"{key}: {found}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_texts(value: object, kind: type) -> bool:
    return isinstance(value, kind) and all(isinstance(item, str) for item in value)


_FIELDS = {  # how the fields of raw types and operations are annotated: what they may hold
    "float": _is_number,
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63,
    "str": lambda value: isinstance(value, str),
    "tuple[float, ...]": lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "str | None": lambda value: value is None or isinstance(value, str),
    "int | None": lambda value: value is None or (isinstance(value, int) and abs(value) < 2**63),
    "bool": lambda value: isinstance(value, bool),
    "tuple[str, ...]": lambda value: _are_texts(value, list),
    "Mapping[str, str]": lambda value: _are_texts(value, dict) and _are_texts(list(value.values()), list),
    "Sequence[str]": lambda value: _are_texts(value, list)}
_OPEN = ("file", "table")  # fields that no document holds


def _check_field(name: str, kind: str, value: object) -> None:
    _require(_FIELDS.get(kind, lambda value: True)(value), name, repr(value))
    if name == "dtype":
        _require(np.dtype(value).kind in "biuf" and np.dtype(value).itemsize <= 8, name, repr(value))


def _made(kinds: Mapping[str, type], key: str, entry: Mapping[str, Any]) -> Any:
    kind = kinds[entry[key]]
    fields = {field.name: field.type for field in dataclasses.fields(kind) if field.name not in _OPEN}
    values = {name: value for name, value in entry.items() if name in fields}
    for name, value in values.items():
        _check_field(name, fields[name], value)
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _operation(entry: Mapping[str, Any], files: Mapping[str, VocabularyFile]) -> Operation:
    step = _made(OPERATIONS, "do", entry)
    return step.opened(files[step.state]) if isinstance(step, Vocabulary) else step


def _entry(of: Any, key: str, name: str) -> dict[str, Any]:
    """The fields that are not at their defaults."""
    found = {field.name: getattr(of, field.name) for field in dataclasses.fields(of)
             if field.name not in _OPEN and getattr(of, field.name) != field.default}
    if "gives" in found:
        found["gives"] = {name: _raw_entry(column) for name, column in found["gives"].items()}
    return {key: name, **found}


def _open_state(folder: Path, entry: Mapping[str, Any]) -> VocabularyFile:
    path = _inside(folder, entry["file"], "a vocabulary")
    file = VocabularyFile(path)
    _check_sum(path, entry["sha256"])
    return file


def _inside(folder: Path, file: str, what: str) -> Path:
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(folder / FILE, found=f"the file {file!r}", expected="files inside the folder")
    check_is_file(path, f"{what} that encoding.json names")
    return path


def _check_sum(path: Path, sha256: str) -> None:
    if _sha256(path) != sha256:
        raise DataError(path, found="another content than encoding.json was written with",
                        expected="the file as preparation wrote it", do="prepare again, or copy the whole folder again")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
