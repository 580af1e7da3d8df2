"""Every key of a recipe section with its meaning, read from the dataclasses and their docstrings.

A docstring explains a key in a line `key   meaning`, which may go on below, further to the right. A line
`one, other   meaning` explains two, and so does `one   meaning · other: meaning`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

from clickwise.recipe import described

# What means the same in every section, said once.
COMMON = {
    "seed": "of every random choice: the same seed gives the same bits",
    "lr": "learning rate, which the schedule multiplies",
    "embedding_dim": "values in a row of an embedding table",
    "bottom_mlp": "widths of the layers over the numericals; the last is that of an embedding where the two meet",
    "top_mlp": "widths of the hidden layers behind all else; the output layer (→ 1) is added",
    "auxiliary_mlp": "widths of the hidden layers of the auxiliary network; the output layer (→ 1) is added",
    "dropout": "share of values dropped in training behind hidden layers",
    "embedding_dropout": "share of values dropped in training of the rows looked up",
    "frequency_limits": "feature → its own frequency_limit",
}


@dataclasses.dataclass(frozen=True)
class Key:
    """`default` is None where the key must be given (`needed`), or where it is null; `where` is the class it is of."""

    path: str
    type: str
    default: Any
    needed: bool
    meaning: str
    where: str


def keys_of(cls: type, prefix: str = "") -> Iterator[Key]:
    """The keys of a section and of those inside it, `prefix` before their names."""
    hints, meanings = typing.get_type_hints(cls), meanings_of(cls)
    for field in dataclasses.fields(cls):
        if not field.init or field.metadata.get("hidden"):
            continue
        hint, path = hints[field.name], f"{prefix}{field.name}"
        inside = next((part for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)), None)
        if inside is not None and typing.get_origin(hint) is not dict:
            yield from keys_of(inside, f"{path}.")
            continue
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        needed = default is dataclasses.MISSING
        meaning = meanings.get(field.name) or COMMON.get(field.name, "")
        yield Key(path, described(hint), None if needed else default, needed, meaning,
                  f"{cls.__module__}.{cls.__qualname__}")


def meanings_of(cls: type) -> dict[str, str]:
    """Field → what the docstrings of the class and of its bases say of it."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base) and (text := inspect.cleandoc(base.__dict__.get("__doc__") or "")):
            found |= _lines(text, {field.name for field in dataclasses.fields(cls)})
    return found


def _lines(text: str, names: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    last: list[str] = []
    for line in text.splitlines():
        match = re.match(r"(\w+(?:, \w+)*)\s{2,}(\S.*)", line)
        listed = match[1].split(", ") if match else []
        if listed and set(listed) <= names:
            last = listed
            found |= dict.fromkeys(listed, match[2])
        elif last and line.startswith("   ") and line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in last}
        else:
            last = []
    for meaning in list(found.values()):
        for part in meaning.split(" · ")[1:]:
            name, colon, rest = part.partition(": ")
            if colon and name in names:
                found.setdefault(name, rest)
    return found
