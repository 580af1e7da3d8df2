"""log.jsonl: one line for every report of the training loop."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from clickwise.errors import DataError
from clickwise.files import to_json, write_text
from clickwise.manifest import Manifest, more


class RunLog:
    """Appends lines `{"step", "epoch", "wall_s", "kind", ...named values}`, each whole before the call returns.

    A resumed run drops the lines behind its checkpoint, so that the file reads as if the run had never stopped. The
    manifest of the run, if there is one, knows at any time what was written.
    """

    def __init__(self, path: Path, *, resume_at: int | None = None, manifest: Manifest | None = None) -> None:
        """Raises DataError where the log to resume is damaged."""
        self._offset_s, self._path, self._manifest, self._sum = 0.0, path, manifest, (0, 0)
        if resume_at is not None and manifest is not None:
            manifest.verified(path.name, grows=True)
        lines = _whole_lines(path) if resume_at is not None and path.exists() else []
        kept = [line for line in lines if line["step"] <= resume_at and line["kind"] != "final"]
        if kept:
            self._offset_s = kept[-1]["wall_s"]
        text = "".join(to_json(line) + "\n" for line in kept)
        if manifest is None:
            write_text(path, text)
        else:
            manifest.write_text(path.name, text)
        self._note(text)
        self._file = open(path, "a", encoding="utf-8", newline="\n")  # as it is summed
        self._started = time.monotonic()

    @property
    def wall_s(self) -> float:
        """Seconds of work, those before a resume included."""
        return self._offset_s + time.monotonic() - self._started

    def write(self, kind: str, *, step: int, epoch: float, values: dict[str, object]) -> None:
        """Adds a line of the kind `train`, `eval` or `final`; `epoch` is a fraction."""
        line = {**values, "step": step, "epoch": round(epoch, 6), "wall_s": round(self.wall_s, 3), "kind": kind}
        text = to_json(line) + "\n"
        self._file.write(text)
        self._file.flush()
        self._note(text)

    def _note(self, text: str) -> None:
        self._sum = more(self._sum, text.encode())
        if self._manifest is not None:
            self._manifest.note(self._path.name, self._sum)

    def sync(self) -> None:
        """Returns when what was written would outlive a loss of power."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class NoLog:
    """What has the place of a RunLog in a process that writes none."""

    wall_s = 0.0

    def write(self, kind: str, *, step: int, epoch: float, values: dict[str, object]) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


def _whole_lines(path: Path) -> list[dict]:
    """The lines that were written completely; a killed process may leave half of one at the end."""
    lines = []
    for number, text in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            line = json.loads(text)
            assert isinstance(line["step"], int) and {"kind", "wall_s"} <= {*line}
        except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
            raise DataError(f"{path}, line {number}", found="no line of a log: it is damaged",
                            expected="what clickwise train wrote",
                            do="copy the file again; without it the training resumes too, but without its lines") \
                from None
        lines.append(line)
    return lines
