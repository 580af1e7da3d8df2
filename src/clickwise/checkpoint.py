"""Checkpoints: one file each, written whole or not at all, read back without running any code from the file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from clickwise.errors import CheckpointError
from clickwise.files import whole_file

FORMAT = 1


def save(path: Path, content: dict[str, Any]) -> None:
    """Writes nested dicts and lists of tensors, numbers and texts; an older file at `path` survives a failure."""
    try:
        with whole_file(path) as temporary, open(temporary, "wb") as file:
            torch.save({"format": FORMAT, **content}, file)
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


class CheckpointFolder:
    """The two checkpoints of a run: `last.pt`, and `best.pt` by the metric that the recipe names."""

    def __init__(self, folder: Path) -> None:
        self.last, self.best = folder / "last.pt", folder / "best.pt"

    def save_last(self, content: dict[str, Any]) -> None:
        """Writes `last.pt`; `best.pt` stays what it is."""
        save(self.last, content)

    def mark_last_as_best(self) -> None:
        """Makes `best.pt` a second name of the file that `last.pt` is now, or a copy where there are no links."""
        if self.best.exists() and self.best.samefile(self.last):
            return
        with whole_file(self.best) as temporary:
            temporary.unlink(missing_ok=True)
            try:
                os.link(self.last, temporary)
            except OSError:
                shutil.copyfile(self.last, temporary)

    def remove_unfinished(self) -> None:
        """Removes what a killed process was writing."""
        for path in self.last.parent.glob(".*.partial"):
            path.unlink(missing_ok=True)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's random generators, of the CPU and of `device`, for `set_random_state`."""
    state = {"cpu": torch.get_rng_state()}
    return state if device.type == "cpu" else state | {device.type: torch.cuda.get_rng_state(device)}


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Puts the generators where `random_state` found them; that of a device that is another kind now is left out."""
    torch.set_rng_state(state["cpu"].clone())
    if device.type in state and device.type != "cpu":
        torch.cuda.set_rng_state(state[device.type].clone(), device)
