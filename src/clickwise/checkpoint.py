"""Checkpoints: one file each, written whole or not at all, read back without running any code from the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from clickwise.errors import CheckpointError
from clickwise.files import temporary_sibling, whole_file

FORMAT = 1


def save(path: Path, content: dict[str, Any]) -> None:
    """Writes nested dicts and lists of tensors, numbers and texts; an older file at `path` survives a failure."""
    try:
        with whole_file(path) as temporary, open(temporary, "wb") as file:
            torch.save({"format": FORMAT, **content}, file)
    except (OSError, RuntimeError) as slip:
        raise CheckpointError(path, found=f"writing failed: {slip}", expected="room and permission to write",
                              do="free space on the disk; what was saved before is whole, so --resume goes on from "
                                 "there") from None


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The content that `save` wrote, tensors on `device`."""
    if not path.exists():
        raise CheckpointError(path, found="no such file", expected="a checkpoint written by clickwise train")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as slip:  # torch raises a dozen types for a damaged file
        reason = (str(slip) or type(slip).__name__).splitlines()[0][:120]
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
        save(self.last, content)

    def mark_last_as_best(self) -> None:
        """Makes `best.pt` a second name of the file that `last.pt` is now: no second copy of the tables."""
        temporary = temporary_sibling(self.best)
        temporary.unlink(missing_ok=True)
        os.link(self.last, temporary)
        os.replace(temporary, self.best)


def random_state() -> dict[str, torch.Tensor]:
    """The states of torch's random generators, CPU and GPUs, for `set_random_state`."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state |= {f"cuda:{index}": rng for index, rng in enumerate(torch.cuda.get_rng_state_all())}
    return state


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    for name, rng in state.items():
        if name != "cpu" and torch.cuda.is_available():
            torch.cuda.set_rng_state(rng.cpu(), name)
