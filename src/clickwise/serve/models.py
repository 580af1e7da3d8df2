"""The versions of models that a server has open, the same in all its workers: load, unload, go back.

What is served stands in one small file that all workers read: the worker that is asked changes it under a lock, and the
others see a number in shared memory go up and follow. A version that is replaced stays open until it is unloaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clickwise.errors import ClickwiseError, DataError, UsageError
from clickwise.progress import warn
from clickwise.serve.measures import Counted, Measures, ModelCounts, room_for
from clickwise.serve.served import Served

Open = Callable[[Path, str | None], Served]
_WORKERS = 1  # the first number that is a worker's; the one before is how often the file was changed


@dataclasses.dataclass
class WorkerContext:
    """What the workers of a server share: `folder`, a file in it, and `seen`."""

    folder: Path
    seen: mmap.mmap
    workers: int
    worker: int


class Models:
    """`now` is what is served: name → version → model, `newest`: name → the version that is meant where none is said;
    both are replaced, never changed."""

    def __init__(self, context: WorkerContext, measures: Measures, open_: Open, roots: Sequence[Path] = ()) -> None:
        self._context, self._measures, self._open = context, measures, open_
        self._roots = [root.resolve() for root in roots]
        self._file = context.folder / "served.json"
        self._numbers = np.frombuffer(context.seen, np.int64)
        self._numbers[_WORKERS + context.worker] = 0
        self.now: Mapping[str, Mapping[str, Served]] = {}
        self.newest: Mapping[str, str] = {}
        self.counted: Mapping[str, Counted] = {}
        self.counts: Mapping[str, ModelCounts] = {}
        self.by_path: Mapping[str, Served] = {}
        self._folders: Mapping[tuple[str, str], str] = {}

    # ---- what is served

    def find(self, name: str, version: str | None) -> Served:
        """Raises LookupError for one that is not served."""
        if name not in self.now:
            known = ", ".join(self.now) or "that one is loaded"
            raise LookupError(f"model {name[:80]!r}: found no such model; expected {known}")
        versions = self.now[name]
        version = self.newest[name] if version is None else version
        if version not in versions:
            raise LookupError(f"model {name!r}: found no version {version[:80]!r}; expected {', '.join(versions)}")
        return versions[version]

    def one(self, name: Any, version: Any) -> Served:
        """The model of that name; where none is said, the only one. Raises LookupError, UsageError."""
        for key, value in (("model", name), ("version", version)):
            if value is not None and type(value) is not str:
                raise UsageError(key, found="something else", expected="a text")
        if name is None:
            if len(self.now) != 1:
                raise UsageError("model", found="none", expected=f"one of {', '.join(self.now)}")
            (name,) = self.now
        return self.find(name, version)

    def listed(self) -> list[dict[str, str]]:
        """Every version, as the index of the protocol has it."""
        return [{"name": name, "version": version, "state": "READY",
                 "reason": "the default" if version == self.newest[name] else ""}
                for name, versions in self.now.items() for version in versions]

    # ---- what changes it

    def begin(self, folders: Sequence[Path], name: str | None) -> None:
        """Writes what is served at first, by the first worker. Raises DataError, UsageError."""
        content: dict[str, Any] = {"models": {}, "taken": 0}
        opened = {}
        for folder in folders:
            served = self._open(folder, name)
            if served.version in content["models"].get(served.name, {}).get("versions", {}):
                raise UsageError(str(folder), found=f"{served.name} {served.version} a second time",
                                 expected="different names or versions", do="clickwise export … --version 2")
            opened[served.name, served.version] = served
            _add(content, served, folder.resolve())
        self._write(content)
        self._took(content, opened)

    def follow(self) -> None:
        """Opens and closes what another worker was asked to, or what is served when this worker begins."""
        number = int(self._numbers[0])
        if number == self._numbers[_WORKERS + self._context.worker]:
            return
        content = json.loads(self._file.read_text(encoding="utf-8"))
        try:
            self._take(content, {})
        except ClickwiseError as error:
            warn(f"the worker {self._context.worker} goes on with what it has: {error}")
            return
        self._numbers[_WORKERS + self._context.worker] = number

    @property
    def is_fresh(self) -> bool:
        """Whether nothing has been served yet."""
        return not self._numbers[0]

    @property
    def is_behind(self) -> bool:
        return bool(self._numbers[0] != self._numbers[_WORKERS + self._context.worker])

    @property
    def all_follow(self) -> bool:
        """Whether every worker serves what is to be served."""
        return bool((self._numbers[_WORKERS:] >= self._numbers[0]).all())

    def load(self, name: str, folder: str | None, version: str | None) -> Served:
        """Serves the export in `folder`, below one of the roots, as `name`, or goes back to an open `version`. Raises
        UsageError, DataError; PermissionError for a folder elsewhere."""
        if folder is None and version is not None:
            served = self.find(name, version)
            with self._changed() as content:
                _newest(content, name, version)
            self._took(content, {})
            return served
        path = self._below_a_root(name if folder is None else folder)
        served = self._open(path, name)
        with self._changed() as content:
            known = content["models"].get(name, {}).get("versions", {})
            if known.get(served.version) == str(path):
                _newest(content, name, served.version)
            elif served.version in known:
                raise UsageError(f"{name} {served.version}", found=f"that version, of {known[served.version]}",
                                 expected="another version", do="unload it first, or export with --version")
            else:
                _add(content, served, path)
        self._took(content, {(name, served.version): served})
        return served

    def unload(self, name: str, version: str | None) -> None:
        """No longer serves a version, or all of a model. Raises LookupError."""
        self.find(name, version)
        with self._changed() as content:
            entry = content["models"][name]
            if version is not None:
                entry["versions"].pop(version, None)
                entry["order"].remove(version)
            if version is None or not entry["order"]:
                entry["versions"], entry["order"] = {}, []
        self._took(content, {})

    def _below_a_root(self, folder: str) -> Path:
        if not self._roots:
            raise PermissionError("load: found no --root; expected the folders below which exports lie; "
                                  "do clickwise serve … --root DIR")
        for root in self._roots:
            with contextlib.suppress(OSError, ValueError):  # what can be no name of a folder
                path = (root / folder).resolve()
                if path.is_relative_to(root) and path.is_dir():
                    return path
        raise PermissionError(f"load: found {folder[:200]!r}; expected a folder below one of the --root of this server")

    # ---- the file

    @contextlib.contextmanager
    def _changed(self) -> Iterator[dict[str, Any]]:
        """What is served, to be changed; written when the block ends well."""
        import fcntl

        with open(self._file.with_suffix(".lock"), "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = json.loads(self._file.read_text(encoding="utf-8"))
            yield content
            self._write(content)

    def _write(self, content: Mapping[str, Any]) -> None:
        temporary = self._file.with_suffix(".partial")
        temporary.write_text(json.dumps(content), encoding="utf-8", newline="\n")
        os.replace(temporary, self._file)
        self._numbers[0] += 1

    def _took(self, content: Mapping[str, Any], opened: Mapping[tuple[str, str], Served]) -> None:
        number = int(self._numbers[0])
        self._take(content, opened)
        self._numbers[_WORKERS + self._context.worker] = number

    def _take(self, content: Mapping[str, Any], opened: Mapping[tuple[str, str], Served]) -> None:
        now: dict[str, dict[str, Served]] = {}
        newest, counted, counts, folders = {}, {}, {}, {}
        for name, entry in content["models"].items():
            counted[name] = Counted(name, tuple(entry["columns"]), entry["at"])
            counts[name] = self.counts[name] if counted[name] == self.counted.get(name) else \
                self._measures.of_model(counted[name])
            for version, folder in entry["versions"].items():
                key = name, version
                folders[key] = folder
                served = opened.get(key) or (self.now[name][version] if self._folders.get(key) == folder else
                                             self._open(Path(folder), name))
                if served.version != version:
                    raise DataError(folder, found=f"version {served.version}", expected=version, do="load it again")
                now.setdefault(name, {})[version] = served
                newest[name] = entry["order"][-1]
        self.counted, self.counts = counted, counts
        self.now, self.newest, self._folders = now, newest, folders
        self.by_path = {path: served for name, versions in now.items() for version, served in versions.items()
                        for path in (f"/v2/models/{name}/versions/{version}/infer",
                                     *([f"/v2/models/{name}/infer"] if version == newest[name] else []))}


def _add(content: dict[str, Any], served: Served, folder: Path) -> None:
    models = content["models"]
    if served.name not in models:
        columns = list(served.shares.columns)
        at = room_for(columns, content["taken"])
        models[served.name] = {"versions": {}, "order": [], "columns": columns, "at": at}
        content["taken"] += 0 if at is None else Counted(served.name, tuple(columns), at).size
    models[served.name]["versions"][served.version] = str(folder)
    models[served.name]["order"].append(served.version)


def _newest(content: dict[str, Any], name: str, version: str) -> None:
    order = content["models"].get(name, {}).get("order", [])
    if version not in order:
        raise LookupError(f"model {name!r}: found no version {version!r}; expected {', '.join(order)}")
    order.remove(version)
    order.append(version)
