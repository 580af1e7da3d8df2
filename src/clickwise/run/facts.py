"""What a finished run tells of itself: metrics.json, by who writes it and by who reads it. Imports no torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from clickwise import files
from clickwise.manifest import of_run

FILE = "metrics.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFacts:
    """mappings          mapping → metric → value, the final ones
    ideal             metric → its best value
    checkpoint        which was measured, `best` or `last`; `checkpoint_step` is its step, of `steps` in all
    stopped           why training ended before its time, "" where it did not
    samples_per_s     in training, without evaluations and checkpoints
    wall_s            seconds of the whole run, over all resumptions
    peak_memory_bytes of the GPU where there was one, of the host else
    parameters        `dense` and `tables`: how many
    date, commit, machine, versions   as `machine.circumstances` gives them

    What a file lacks, of an earlier version perhaps, has the value given here; what it has beside these is left out.
    """

    mappings: dict[str, dict[str, float | None]] = dataclasses.field(default_factory=dict)
    ideal: dict[str, float] = dataclasses.field(default_factory=dict)
    checkpoint: str | None = None
    checkpoint_step: int | None = None
    steps: int | None = None
    stopped: str = ""
    samples_per_s: float | None = None
    wall_s: float | None = None
    peak_memory_bytes: int | None = None
    parameters: dict[str, int] = dataclasses.field(default_factory=dict)
    date: str | None = None
    commit: str | None = None
    machine: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    def save(self, folder: Path) -> None:
        files.write_json(folder / FILE, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path) -> RunFacts:
        """Those of a finished run; DataError where there is no such file, or it is damaged."""
        content = files.read_json(of_run(folder).verified(FILE))
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in content.items() if name in names and value is not None})
