"""Checkpoints: one file each, written whole or not at all, read back without running any code from the file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from clickwise.errors import CheckpointError
from clickwise.files import link_or_copy, whole_file
from clickwise.manifest import Manifest, SummedFile

FORMAT = 1


def save(path: Path, content: dict[str, Any], manifest: Manifest | None = None, sums: bool = True) -> None:
    """Writes nested dicts and lists of tensors, numbers and texts; an older file at `path` survives a failure.

    The manifest of the run learns of the new file before it stands there; without `sums` it forgets the file.
    """
    try:
        with whole_file(path) as temporary:
            with open(temporary, "wb") as file:
                written = SummedFile(file)
                torch.save({"format": FORMAT, **content}, written if manifest is not None and sums else file)
            if manifest is not None:
                manifest.replace(_name(path, manifest), written.sum if sums else None)
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
        if self.manifest is not None and self.sums:
            self.manifest.verified(_name(path, self.manifest), CheckpointError)
        return load(path)

    def has(self, which: str) -> bool:
        """Whether there is a `best` or `last`, or was: `load` then misses it."""
        path = self.path(which)
        return path.exists() or (self.manifest is not None and self.manifest.requires(_name(path, self.manifest)))

    def save_last(self, content: dict[str, Any]) -> None:
        """Writes `last.pt`; `best.pt` stays what it is."""
        save(self.last, content, self.manifest, self.sums)

    def mark_last_as_best(self) -> None:
        """Makes `best.pt` a second name of the file that `last.pt` is now, or a copy where there are no links."""
        if self.best.exists() and self.best.samefile(self.last):
            return
        if self.manifest is not None:
            self.manifest.replace(_name(self.best, self.manifest),
                                  self.manifest.sum_of(_name(self.last, self.manifest)) if self.sums else None)
        with whole_file(self.best) as temporary:
            temporary.unlink(missing_ok=True)
            link_or_copy(self.last, temporary)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's random generators, of the CPU and of `device`, for `set_random_state`."""
    state = {"cpu": torch.get_rng_state()}
    return state if device.type == "cpu" else state | {device.type: torch.cuda.get_rng_state(device)}


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Puts the generators where `random_state` found them; that of a device that is another kind now is left out."""
    torch.set_rng_state(state["cpu"].clone())
    if device.type in state and device.type != "cpu":
        torch.cuda.set_rng_state(state[device.type].clone(), device)
