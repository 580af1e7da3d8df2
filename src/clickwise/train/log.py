"""log.jsonl: one line for every report of the training loop."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from clickwise.files import to_json


class RunLog:
    """Appends lines `{"step", "epoch", "wall_s", "kind", ...named values}`, each whole before the call returns.

    A resumed run drops the lines behind its checkpoint, so that the file reads as if the run had never stopped.
    """

    def __init__(self, path: Path, *, resume_at: int | None = None) -> None:
        self._offset_s = 0.0
        lines = _whole_lines(path) if resume_at is not None and path.exists() else []
        kept = [line for line in lines if line["step"] <= resume_at and line["kind"] != "final"]
        if kept:
            self._offset_s = kept[-1]["wall_s"]
        temporary = path.with_suffix(".partial")
        temporary.write_text("".join(to_json(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(temporary, path)
        self._file = open(path, "a", encoding="utf-8")
        self._started = time.monotonic()

    @property
    def wall_s(self) -> float:
        """Seconds of work, those before a resume included."""
        return self._offset_s + time.monotonic() - self._started

    def write(self, kind: str, *, step: int, epoch: float, values: dict[str, object]) -> None:
        """Adds a line of the kind `train`, `eval` or `final`; `epoch` is a fraction."""
        line = {**values, "step": step, "epoch": round(epoch, 6), "wall_s": round(self.wall_s, 3), "kind": kind}
        self._file.write(to_json(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _whole_lines(path: Path) -> list[dict]:
    """The lines that were written completely; a killed process may leave half of one at the end."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
