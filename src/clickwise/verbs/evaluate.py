"""`clickwise evaluate`: the metrics of a run's checkpoint on a mapping."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from clickwise.run import folder as runs


def evaluate(folder: Path, *, mapping: str | None = None, overrides: list[str] = (), which: str | None = None,
             allow_imports: Collection[str] = (), trust_paths: bool = False) -> dict[str, Any]:
    """`metrics` by name on the `mapping` (the recipe's test mapping by default), of which `checkpoint` and `step`."""
    session, checkpoint, step = runs.open_run(folder, overrides=overrides, which=which,
                                              allow_imports=allow_imports, trust_paths=trust_paths)
    mapping = mapping or session.recipe.data.test
    return {"mapping": mapping, "checkpoint": checkpoint, "step": step, "metrics": session.evaluate(mapping)}
