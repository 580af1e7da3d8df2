"""`clickwise evaluate`: the metrics of a run's checkpoint on a mapping."""

from __future__ import annotations

from pathlib import Path

from clickwise.verbs import runs


def evaluate(folder: Path, *, mapping: str | None = None, overrides: list[str] = (),
             which: str | None = None) -> tuple[str, dict[str, float]]:
    """The mapping (the recipe's test mapping by default) and its metrics by name."""
    trainer = runs.open_run(folder, overrides=overrides, which=which)
    mapping = mapping or trainer.recipe.data.test
    return mapping, trainer.evaluate(mapping)
