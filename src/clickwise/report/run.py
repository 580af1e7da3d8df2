"""A run folder, read as far as it was written: a killed run has a log but no metrics, a fresh one only its recipe."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from clickwise.errors import ClickwiseError, DataError
from clickwise.given_files import check_is_file
from clickwise.latest_run import RUN_TIME
from clickwise.manifest import of_run
from clickwise.run.facts import FILE as FACTS
from clickwise.run.facts import RunFacts
from clickwise.strict_yaml import parse_yaml

MOST_BYTES = 1 << 30  # of scores.npz
FILES = ("recipe.yaml", "log.jsonl", FACTS, "scores.npz")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """lines    the log, oldest first
    facts    None while the run is not finished
    scores   mapping -> the arrays of scores.npz (`metrics.ReportMaterial.arrays` says which)
    columns  of data from a table: column -> what it was taken for, why, what to check, how many ids it has
    baselines   what baselines.json holds (`run.baselines` says what); {} in a run of an older version
    """

    folder: Path
    recipe: str = ""
    lines: tuple[dict[str, Any], ...] = ()
    facts: RunFacts | None = None
    scores: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    columns: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    baselines: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """`<dataset>-<model>` by the layout of runs/, and the time; of a run with a name of its own that name."""
        folder = self.folder.resolve()
        return f"{folder.parent.name} · {folder.name}" if RUN_TIME.fullmatch(folder.name) else folder.name

    @property
    def finished(self) -> bool:
        return self.facts is not None

    @property
    def results(self) -> dict[str, dict[str, float]]:
        """The metrics of every mapping: the final ones, or the last evaluation's if the run has not finished."""
        if self.facts is not None and self.facts.mappings:
            return self.facts.mappings
        return {line["mapping"]: {name: value for name, value in line.items() if name not in ABOUT_THE_LINE}
                for line in self.of_kind("eval") if "mapping" in line}

    @property
    def mapping(self) -> str | None:
        """The mapping that the headline speaks of: the last measured, so test where there is one."""
        return list(self.results)[-1] if self.results else None

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("kind") == kind]

    def curve(self, kind: str, name: str, mapping: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of `name` in the lines of one kind (and mapping), where it is a finite number."""
        points = [(line["step"], line[name]) for line in self.of_kind(kind)
                  if is_number(line.get(name)) and (mapping is None or line.get("mapping") == mapping)]
        steps, values = zip(*points, strict=True) if points else ((), ())
        return np.array(steps, float), np.array(values, float)

    def settings(self) -> dict[str, Any]:
        """The recipe as one flat mapping: `train.batch_size` -> value."""
        return dict(_flat(parse_yaml(self.recipe, str(self.folder / "recipe.yaml")) or {})) if self.recipe else {}


ABOUT_THE_LINE = ("step", "epoch", "wall_s", "kind", "mapping")


def read_run(folder: Path) -> Run:
    """The run in `folder`; raises DataError if it is no run folder, or a file in it is damaged."""
    folder = Path(folder)
    if not any((folder / name).exists() for name in FILES):
        raise DataError(folder, found="none of " + ", ".join(FILES), expected="the folder of a run",
                         do="give a folder that clickwise train has written, runs/<dataset>-<model>/<time>")
    known, scores = of_run(folder), {}

    def loaded(name: str, read, otherwise):
        return _load(known.verified(name, grows=name == "log.jsonl"), read, otherwise)

    for key, values in loaded("scores.npz", _arrays, {}).items():
        mapping, _, name = key.partition("/")
        scores.setdefault(mapping, {})[name] = values
    return Run(folder=folder, scores=scores, recipe=loaded("recipe.yaml", _text, ""),
               lines=tuple(loaded("log.jsonl", _lines, ())), columns=loaded("columns.json", _columns, {}),
               baselines=loaded("baselines.json", _baselines, {}),
               facts=loaded(FACTS, lambda path: RunFacts.load(path.parent), None))


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _load(path: Path, read, otherwise):
    if not path.exists():
        return otherwise
    check_is_file(path, "what clickwise train writes")
    try:
        return read(path)
    except ClickwiseError:
        raise
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise DataError(path, found=f"a file that cannot be read ({error})", expected="what clickwise train writes",
                        do="remove it and write the report again, or repeat the run") from error


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _columns(path: Path) -> dict[str, dict[str, Any]]:
    return {name: {**{key: str(content[key]) for key in ("channel", "why", "check")}, "ids": content["ids"],
                   **{key: dict(content.get(key, {})) for key in ("missing", "without_an_id")}}
            for name, content in json.loads(_text(path)).items()}


def _baselines(path: Path) -> dict[str, Any]:
    content = json.loads(_text(path))
    return {"mapping": str(content["mapping"]),
            **{key: int(content[key]) for key in ("rows", "of", "train_rows", "of_train")},
            "results": {name: dict(values) for name, values in content["results"].items()},
            "not_measured": dict(content["not_measured"]),
            "warnings": [str(warning) for warning in content["warnings"]]}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as parts:
        if sum(part.file_size for part in parts.infolist()) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MiB once unpacked")
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole: a killed process can leave half a line at the end."""
    lines = []
    for text in _text(path).splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines


def _flat(tree: Any, path: str = ""):
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree
