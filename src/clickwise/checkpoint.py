"""Checkpoints: one file each, written whole or not at all, read back without running any code from the file.

Where several processes train together, each writes the rows of tables that it holds into a file of its own, and the
first writes the rest, which says where they are. Any number of processes reads them, each the rows that it holds then.

    last.pt                the dense part, where training stands, …
    rows-1200-2of3.pt      of the checkpoint of step 1200 the rows of process 1
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from clickwise import processes
from clickwise.errors import CheckpointError
from clickwise.files import link_or_copy, whole_file
from clickwise.manifest import Manifest, Sum, SummedFile

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Rows:
    """Values by row of a table, [rows, …], in parts: which rows each part has, and their values."""

    shape: tuple[int, ...]
    parts: tuple[tuple[range, torch.Tensor], ...]

    @classmethod
    def of(cls, rows: int, held: range, values: torch.Tensor) -> Rows:
        """The part of a process, which holds so many of `rows` rows."""
        mine = values if len(held) else values.new_empty(0, *values.shape[1:])  # not a view: that would be saved whole
        return cls((rows, *values.shape[1:]), ((held, mine),))

    @property
    def mine(self) -> torch.Tensor:
        """Those of the one part of a process."""
        (_, values), = self.parts
        return values


def save(path: Path, content: dict[str, Any], manifest: Manifest | None = None, sums: bool = True) -> Sum | None:
    """Writes nested dicts and lists of tensors, numbers and texts; an older file at `path` survives a failure.

    The manifest of the run learns of the new file before it stands there; without `sums` it forgets the file. Returns
    the file's sum, if there is to be one.
    """
    try:
        with whole_file(path) as temporary:
            with open(temporary, "wb") as file:
                written = SummedFile(file)
                torch.save({"format": FORMAT, **content}, written if sums else file)
            if manifest is not None:
                manifest.replace(_name(path, manifest), written.sum if sums else None)
        return written.sum if sums else None
    except (OSError, RuntimeError) as error:
        older = "; what was saved before is whole, so --resume goes on from there" if path.exists() else ""
        raise CheckpointError(path, found=f"writing failed: {error}", expected="room and permission to write",
                              do="free space on the disk" + older) from None


def load(path: Path) -> dict[str, Any]:
    """The content that `save` wrote; its tensors stay in the file until they are copied somewhere."""
    if not path.exists():
        raise CheckpointError(path, found="no such file", expected="a checkpoint written by clickwise train")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises a dozen types for a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise CheckpointError(path, found=f"not readable ({reason})",
                              expected="a checkpoint written by clickwise train") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(path, found=f"format {content.get('format') if isinstance(content, dict) else None!r}",
                              expected=f"format {FORMAT}", do="use the version of clickwise that wrote it")
    return content


@contextlib.contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """CheckpointError where the block does not find in a checkpoint what `clickwise train` writes into one."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        found = f"no {error}" if isinstance(error, KeyError) else f"another content ({str(error).splitlines()[0]})"
        raise CheckpointError(path, found=found, expected="a checkpoint written by clickwise train",
                              do="copy it again, or train anew") from error


def _name(path: Path, manifest: Manifest) -> str:
    return os.path.relpath(path, manifest.folder)


class CheckpointFolder:
    """The two checkpoints of a run: `last.pt`, and `best.pt` by the metric that the recipe names.

    `manifest` is that of the run; `sums` says whether checkpoints are summed as they are written, and verified as they
    are loaded.
    """

    def __init__(self, folder: Path, manifest: Manifest | None = None, sums: bool = True) -> None:
        self.last, self.best, self.manifest, self.sums = folder / "last.pt", folder / "best.pt", manifest, sums

    def path(self, which: str) -> Path:
        """Of `best` or `last`."""
        return self.best if which == "best" else self.last

    def load(self, which: str) -> dict[str, Any]:
        """The content of `best` or `last`; CheckpointError where it is missing, damaged or another than was saved."""
        path = self.path(which)
        if self.manifest is not None and not processes.is_first():
            self.manifest = Manifest(self.manifest.folder)  # which the first process writes
        self._verify(path)
        content = load(path)
        with reading(path):
            return self._with_rows(content, **content.pop("rows")) if "rows" in content else content

    def _verify(self, path: Path) -> None:
        if self.manifest is not None and self.sums:
            self.manifest.verified(_name(path, self.manifest), CheckpointError)

    def _with_rows(self, content: dict[str, Any], step: int, of: int) -> dict[str, Any]:
        """The content with the rows of tables out of the files of the `of` processes that saved it."""
        files = [self._rows_file(step, number, of) for number in range(of)]
        with processes.agreed():  # each process sums some of them
            for file in files[processes.rank()::processes.count()]:
                self._verify(file)
        parts = [load(file) for file in files]

        def put(leaf: Any) -> Any:
            if not (isinstance(leaf, dict) and leaf.keys() == {"rows", "shape"}):
                return leaf
            own = [part["tables"][leaf["rows"]] for part in parts]
            return Rows(tuple(leaf["shape"]), tuple((range(*each["held"]), each["values"]) for each in own))

        content = _mapped(content, put)
        if of == processes.count():
            content["random"] = parts[processes.rank()]["random"]
        elif not processes.is_first():  # no process had this one's part: any draw, but not that of the first
            seed = step * 1000 + processes.rank()
            content["random"] = {"cpu": torch.Generator().manual_seed(seed).get_state()}
        return content

    def _rows_file(self, step: int, number: int, of: int) -> Path:
        return self.last.with_name(f"rows-{step}-{number + 1}of{of}.pt")

    def has(self, which: str) -> bool:
        """Whether there is a `best` or `last`, or was: `load` then misses it."""
        path = self.path(which)
        return path.exists() or (self.manifest is not None and self.manifest.requires(_name(path, self.manifest)))

    def save_last(self, content: dict[str, Any]) -> None:
        """Writes `last.pt`; `best.pt` stays what it is. Of several processes each calls it with its own content, whose
        `Rows` are what it holds."""
        if processes.count() == 1:
            save(self.last, content, self.manifest, self.sums)
        else:
            self._save_together(content)
        if processes.is_first():
            self._remove_rows()

    def _save_together(self, content: dict[str, Any]) -> None:
        step, of = content["position"]["step"], processes.count()
        tables: list[dict[str, Any]] = []

        def take(leaf: Any) -> Any:
            if not isinstance(leaf, Rows):
                return leaf
            (held, values), = leaf.parts
            tables.append({"held": [held.start, held.stop, held.step], "values": values})
            return {"rows": len(tables) - 1, "shape": list(leaf.shape)}

        content = _mapped(content, take)
        with processes.agreed():
            found = save(self._rows_file(step, processes.rank(), of), {"tables": tables, "random": content["random"]},
                         sums=self.sums)
        sums = processes.at_first(found)
        with processes.agreed():
            if processes.is_first():
                for number, each in enumerate(sums) if self.manifest is not None else ():
                    self.manifest.replace(_name(self._rows_file(step, number, of), self.manifest), each)
                save(self.last, {**content, "rows": {"step": step, "of": of}}, self.manifest, self.sums)

    def _remove_rows(self) -> None:
        """Removes the files of rows that neither checkpoint names."""
        files = [*self.last.parent.glob("rows-*.pt")]
        rows = [load(path).get("rows") for path in (self.last, self.best) if path.exists()] if files else []
        kept = {self._rows_file(each["step"], number, each["of"]) for each in filter(None, rows)
                for number in range(each["of"])}
        for file in {*files} - kept:
            file.unlink()
            if self.manifest is not None:
                self.manifest.replace(_name(file, self.manifest), None)

    def mark_last_as_best(self) -> None:
        """Makes `best.pt` a second name of the file that `last.pt` is now, or a copy where there are no links."""
        if not processes.is_first() or (self.best.exists() and self.best.samefile(self.last)):
            return
        if self.manifest is not None:
            self.manifest.replace(_name(self.best, self.manifest),
                                  self.manifest.sum_of(_name(self.last, self.manifest)) if self.sums else None)
        with whole_file(self.best) as temporary:
            temporary.unlink(missing_ok=True)
            link_or_copy(self.last, temporary)
        self._remove_rows()


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """Nested dicts, lists and tuples with `function` applied to each of them first, and to whatever else they hold."""
    found = function(value)
    if found is not value:
        return found
    if isinstance(value, dict):
        return type(value)((key, _mapped(each, function)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return type(value)(_mapped(each, function) for each in value)
    return value


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's random generators, of the CPU and of `device`, for `set_random_state`."""
    state = {"cpu": torch.get_rng_state()}
    return state if device.type == "cpu" else state | {device.type: torch.cuda.get_rng_state(device)}


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Puts the generators where `random_state` found them; that of a device that is another kind now is left out."""
    torch.set_rng_state(state["cpu"].clone())
    if device.type in state and device.type != "cpu":
        torch.cuda.set_rng_state(state[device.type].clone(), device)
