"""States that go on, kept in a folder for a program that stops and starts: a snapshot, and the events since.

    kept/3/            an encoding whose states hold all events until then
    kept/3.jsonl       the events since, a line of JSON each

A line is on the disk before its event is counted; what a cut has left of a line is no event.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from clickwise.encoding.document import FILE, STATES, Encoding
from clickwise.encoding.encoder import Encoded, Encoder
from clickwise.encoding.replay import Replay
from clickwise.errors import DataError
from clickwise.files import read_json, whole_folder, write_json

LAST = "last.json"  # the time of the last event of a snapshot


class KeptStates:
    """The states in `folder`, those of `encoding` where it is empty, for the columns `names`. `encoder` is that of new
    rows, as the states stand."""

    def __init__(self, folder: Path, encoding: Encoding, names: Iterable[str]) -> None:
        """Raises DataError for what is damaged."""
        self.folder, self.names = folder, list(names)
        numbers = [int(path.name) for path in folder.glob("*") if path.name.isdigit()] if folder.exists() else []
        self._number = max(numbers, default=0)
        if not numbers:
            with whole_folder(folder / "0") as temporary:
                encoding.copy_to(temporary)
        self._open()
        self._forget_older()

    def _open(self) -> None:
        now = self.folder / str(self._number)
        self._replay = Replay(Encoding.load(now), self.names)
        if (now / LAST).exists():
            self._replay.last = read_json(now / LAST)["last"]
        self._log = self.folder / f"{self._number}.jsonl"
        if not self._log.exists():
            return
        content = self._log.read_bytes()
        whole = content[:content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self._log, len(whole))
        try:
            events = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise DataError(self._log, found=f"a line that is no JSON ({error})", expected="events as they were told",
                            do="copy the file again, or delete it: its events are lost then") from None
        if events:
            self._replay.rows(pa.Table.from_pylist(events), str(self._log))

    @property
    def encoder(self) -> Encoder:
        return self._replay.encoder

    def events(self, raw: pa.Table) -> Encoded:
        """Takes in events with their labels, none before those of the last call; their columns, as things stood before
        each. All events of one moment belong into one call."""
        raw = raw.select([name for name in self._replay.needs if name in raw.column_names])
        before = self._log.stat().st_size if self._log.exists() else 0
        with open(self._log, "ab") as file:
            file.write(b"".join(json.dumps(event, default=str).encode() + b"\n" for event in raw.to_pylist()))
            file.flush()
            os.fsync(file.fileno())
        try:
            return self._replay.rows(raw)
        except DataError:  # no event of these was counted
            os.truncate(self._log, before)
            raise

    def snapshot(self) -> None:
        """Writes all states anew, as they stand, and begins a new log of events."""
        encoding = self._replay.encoding
        with whole_folder(self.folder / str(self._number + 1)) as temporary:
            encoding.copy_to(temporary)
            tables = dict(encoding.tables)
            for name, state in self._replay.states.items():
                shutil.rmtree(temporary / STATES / name)
                tables[name] = state.snapshot(temporary / STATES / name)
            (temporary / FILE).unlink()
            encoding.with_tables(tables).save(temporary)
            write_json(temporary / LAST, {"last": self._replay.last})
        self._number += 1
        self._forget_older()
        self._open()

    def _forget_older(self) -> None:
        for path in self.folder.glob("*"):
            if path.stem.isdigit() and int(path.stem) < self._number:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
