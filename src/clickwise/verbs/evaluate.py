"""`clickwise evaluate`: the metrics of a run's checkpoint on a mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clickwise.verbs import runs


def evaluate(folder: Path, *, mapping: str | None = None, overrides: list[str] = (),
             which: str | None = None) -> dict[str, Any]:
    """`metrics` by name on the `mapping` (the recipe's test mapping by default), of which `checkpoint` and `step`."""
    trainer, checkpoint, step = runs.open_run(folder, overrides=overrides, which=which)
    mapping = mapping or trainer.recipe.data.test
    return {"mapping": mapping, "checkpoint": checkpoint, "step": step, "metrics": trainer.evaluate(mapping)}
