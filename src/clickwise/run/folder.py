"""Run folders: making one, opening one, comparing recipes."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch

from clickwise import files, manifest, memory
from clickwise.checkpoint import CheckpointFolder, reading
from clickwise.errors import DataError, UsageError
from clickwise.feature_spec import FeatureSpec
from clickwise.given_files import check_links
from clickwise.recipe import to_dict
from clickwise.run.session import Session, build_session
from clickwise.training_recipe import Recipe, load_foreign_recipe
from clickwise.wiring import engines_of

RECIPE = "recipe.yaml"
LATEST = "latest"  # beside the runs


def create(root: Path, name: str) -> Path:
    """A new folder `root/name/<time>`; a second run within the same second gets a number behind it."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    _make_root(root, root / name)
    number = 1
    while True:
        folder = root / name / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def create_named(root: Path, name: str) -> Path:
    """The new folder `root/name`. Raises UsageError where it is there, or `name` is no name of a folder."""
    if name == LATEST or not re.fullmatch(r"\w[\w.+=@-]*", name):
        raise UsageError("--name", found=repr(name), expected=f"letters, digits, . - _ and = (and not {LATEST!r})")
    _make_root(root, root)
    try:
        (root / name).mkdir()
    except FileExistsError:
        raise UsageError(f"--name {name}", found=f"{root / name}, which is there already", expected="a new name",
                         do=f"clickwise train --resume {root / name} goes on with that run") from None
    return root / name


def _make_root(root: Path, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {root}", found=f"no folder can be made there: {error.strerror}",
                         expected="a folder to write runs to") from None


def mark_latest(root: Path, run: Path) -> None:
    """Makes `root/latest` a link to the run; nothing where links cannot be made, or something else has that name."""
    link = root / LATEST
    if link.is_symlink() or not link.exists():
        with contextlib.suppress(OSError, NotImplementedError):  # Windows lets only some users make links
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(run, root), target_is_directory=True)


def remove_unfinished(folder: Path) -> None:
    """Removes what a killed training was writing into its folder, which the caller holds; predictions are another's."""
    for path in list(folder.rglob(".*.partial")):
        if "predictions" not in path.relative_to(folder).parts:
            files.remove(path)


def recipe_of(folder: Path, overrides: Iterable[str] = (), allow_imports: Collection[str] = (),
              trust_paths: bool = False) -> Recipe:
    """The recipe of a run, which may be another's; the overrides are the user's own. Raises DataError for a link that
    leads out of the folder, unless `trust_paths`."""
    if not (folder / RECIPE).exists():
        raise DataError(folder, found="no run folder" if folder.exists() else "no such folder",
                        expected="a folder written by clickwise train", do="runs/<dataset>-<model>/<time>")
    if not trust_paths:
        check_links(folder)
    recipe = load_foreign_recipe(folder / RECIPE, overrides, allow_imports)
    manifest.of_run(folder).verified(RECIPE)
    return recipe


def checkpoints_of(folder: Path, recipe: Recipe, written: manifest.Manifest | None = None) -> CheckpointFolder:
    """The checkpoints of a run; `written` is its manifest where the run is being written."""
    return CheckpointFolder(folder / "checkpoint", written or manifest.of_run(folder), recipe.train.checksums)


def load_weights(session: Session, folder: Path, recipe: Recipe, which: str | None = None) -> tuple[str, int]:
    """Gives the session's model the weights of a run's checkpoint: which one (`best` where there is one), its step."""
    checkpoints = checkpoints_of(folder, recipe)
    which = which or ("best" if recipe.data.validation is not None and checkpoints.has("best") else "last")
    content = checkpoints.load(which)
    with reading(checkpoints.path(which)):
        session.load_state(content, optimizer=False)
        return which, content["position"]["step"]


def open_run(folder: Path, *, overrides: Iterable[str] = (), which: str | None = None,
             allow_imports: Collection[str] = (), spec: FeatureSpec | None = None,
             trust_paths: bool = False) -> tuple[Session, str, int]:
    """A session with the weights of a run's checkpoint, which one (`best` where there is one), and its step; with
    `spec`, the Feature Spec of its data, that data need not be there."""
    recipe = recipe_of(folder, overrides, allow_imports, trust_paths)
    session = build_session(recipe, spec, trust_paths=trust_paths)
    return session, *load_weights(session, folder, session.recipe, which)


# Where and how fast is computed, not what (other threads and devices round in another order).
MAY_CHANGE = ("data.path", "data.prefetch", "train.device", "train.threads", "train.checksums")


def differences(old: Recipe, new: Recipe, may_change: bool = False) -> list[str]:
    """`section.key: old → new` for every setting in which two recipes differ: of those that must be the same when a
    run is resumed, or with `may_change` of the others."""
    flat_old, flat_new = _flat(to_dict(old)), _flat(to_dict(new))
    keys = list(dict.fromkeys([*flat_old, *flat_new]))
    return [f"{key}: {flat_old.get(key)!r} → {flat_new.get(key)!r}" for key in keys
            if flat_old.get(key) != flat_new.get(key) and (key in MAY_CHANGE) == may_change]


def must_be_same(recipe: Recipe) -> dict[str, Any]:
    """The settings, `section.key` → value, that do not only say where and how fast is computed."""
    return {key: value for key, value in _flat(to_dict(recipe)).items() if key not in MAY_CHANGE}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix.rstrip("."): value}
    return {key: item for name, part in value.items() for key, item in _flat(part, f"{prefix}{name}.").items()}


def parameters(model: torch.nn.Module) -> tuple[int, int]:
    """The number of dense parameters, and of parameters in embedding tables."""
    engines = engines_of(model)
    inside = {parameter for engine in engines for parameter in engine.parameters()}
    dense = sum(parameter.numel() for parameter in model.parameters() if parameter not in inside)
    return dense, sum(table.rows * table.dim for engine in engines for table in engine.tables)


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most memory this process held: on the GPU where there is one, of the host else; None where the system does
    not tell."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else memory.peak_bytes()
