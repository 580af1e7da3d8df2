"""signature.json of an export: what a client sends, and what the graph takes.

    raw        raw column → its type, what lies between the values of a list, whether a value may be missing
    goes_on    whether states go on with events, which a server receives
    inputs     the tensors of the graph, with the features that they hold and how many ids each of these has
    example    a request of the Open Inference Protocol, and the scores that `clickwise predict` gives its rows
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clickwise.errors import DataError
from clickwise.files import read_json, write_json
from clickwise.serve.inputs import GraphInput

FILE = "signature.json"
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class RawInput:
    """A raw column: `type` as encoding.json names it, `list`, what lies between the values of a list."""

    type: str
    list: str | None = None
    may_be_missing: bool = True

    def __str__(self) -> str:
        return self.type if self.list is None else f"{self.type}, a list separated by {self.list!r}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signature:
    """What signature.json holds. `name` and `version` are those of the server; `run` the run that was exported, `rows`
    how tables are stored, `tolerance` by how much a probability may differ from that of `clickwise predict`."""

    name: str
    version: str
    model: str
    run: str
    created: str
    graph: str
    rows: str
    tolerance: float
    inputs: tuple[GraphInput, ...]
    ids: Mapping[str, int]
    raw: Mapping[str, RawInput]
    goes_on: bool = False
    example: Mapping[str, Any] | None = None

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, {"format": _FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def load(cls, folder: Path) -> Signature:
        """Raises DataError for a folder that is no export, or one of another version."""
        path = folder / FILE
        if not path.exists():
            raise DataError(folder, found=f"no {FILE}", expected="a folder that clickwise export wrote",
                            do="clickwise export RUN --out DIR")
        content = read_json(path)
        if content.pop("format", None) != _FORMAT:
            raise DataError(path, found="another format", expected=f"format {_FORMAT}",
                            do="export again with this version")
        try:
            content["inputs"] = tuple(GraphInput(**{key: tuple(value) if isinstance(value, list) else value
                                                    for key, value in entry.items()}) for entry in content["inputs"])
            content["raw"] = {name: RawInput(**entry) for name, entry in content["raw"].items()}
            return cls(**content)
        except (TypeError, KeyError, AttributeError) as error:
            raise DataError(path, found=f"an entry that cannot be understood ({error})", do="export again",
                            expected="what clickwise export wrote") from None
