"""`clickwise train`: a recipe becomes a run folder."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from clickwise import checkpoint, files, machine, memory
from clickwise.build import Recipe, Trainer, build_trainer, load_recipe
from clickwise.errors import CheckpointError, UsageError
from clickwise.report import write_report
from clickwise.train.log import RunLog
from clickwise.verbs import runs
from clickwise.verbs.slices import Slices


def train(name: str | None, overrides: list[str], *, resume: Path | None = None, out: Path = Path("runs")) -> Path:
    """The finished run folder; with `resume` an interrupted one, continued as if it had never stopped."""
    memory.keep_freed_memory()
    if resume is None:
        if name is None:
            raise UsageError("clickwise train", found="no recipe", expected="a recipe, or --resume RUN",
                             do="clickwise train kuairand/dlrm")
        recipe = load_recipe(name, overrides)
        trainer = build_trainer(recipe)
        log_from, content = None, None
        trainer.check_data()  # whatever can refuse this recipe speaks before the folder appears
        folder = runs.create(out, f"{recipe.data.name}-{recipe.model_name}")
        files.write_text(folder / "recipe.yaml", recipe.to_yaml())
    else:
        folder = resume
        recipe = _recipe_of_resumed(folder, name, overrides)
        if (folder / "DONE").exists():
            print(f"{folder} is finished: nothing to resume", file=sys.stderr)
            return folder
        trainer = build_trainer(recipe)
        content = _checkpoint_to_resume(folder, trainer)
        log_from = 0 if content is None else content["position"]["step"]

    started = time.monotonic()
    log = RunLog(folder / "log.jsonl", resume_at=log_from)
    try:
        loop = trainer.loop(folder, log)
        if content is not None:
            trainer.load_state(content)
            loop.load_state_dict(content)
        print(f"run {folder}: {_describe(trainer, loop.total_steps)}", file=sys.stderr)
        try:
            position = loop.run()
        except KeyboardInterrupt:
            raise UsageError(folder, found="interrupted", do=f"clickwise train --resume {folder}") from None
        if position.stopped:
            print(f"stopped at step {position.step}: {position.stopped}", file=sys.stderr)
        _finish(folder, trainer, loop, log, time.monotonic() - started)
    finally:
        log.close()
    return folder


def _describe(trainer: Trainer, steps: int) -> str:
    dense, tables = runs.parameters(trainer.model)
    return (f"{trainer.recipe.model_name}, {dense:,} dense parameters, {tables:,} in tables; "
            f"{steps:,} steps of {trainer.recipe.train.batch_size:,} samples in {trainer.recipe.train.precision} "
            f"on {trainer.device}")


def _recipe_of_resumed(folder: Path, name: str | None, overrides: list[str]) -> Recipe:
    recipe_file = folder / "recipe.yaml"
    if not recipe_file.exists():
        raise CheckpointError(folder, found="no recipe.yaml in it", expected="a run folder of clickwise train",
                              do="see runs/<dataset>-<model>/")
    recipe = load_recipe(str(recipe_file), [])
    if name is not None or overrides:
        asked = load_recipe(name or str(recipe_file), overrides)
        differences = runs.differences(recipe, asked)
        if differences:
            raise CheckpointError(folder, found="another recipe: " + "; ".join(differences[:5]),
                                  expected="the recipe this run was started with",
                                  do=f"clickwise train --resume {folder} (alone), or start a new run")
    return recipe


def _checkpoint_to_resume(folder: Path, trainer: Trainer) -> dict[str, Any] | None:
    """The last checkpoint, or None where the run was killed before its first one."""
    path = folder / "checkpoint" / "last.pt"
    if not path.exists():
        return None
    content = checkpoint.load(path)
    if content["data"] != trainer.dataset.spec.fingerprint():
        raise CheckpointError(folder, found=f"the data in {trainer.dataset.spec.folder} has changed since this run",
                              expected="the dataset it was started on", do="prepare that dataset again, or start anew")
    return content


def _finish(folder: Path, trainer: Trainer, loop, log: RunLog, wall_s: float) -> None:
    """Final metrics of the best checkpoint (of the last, where no validation mapping chose), report and DONE."""
    recipe, position = trainer.recipe, loop.at
    chosen = "best" if recipe.data.validation is not None and loop.checkpoints.best.exists() else "last"
    if chosen == "best" and position.best_step != position.step:
        trainer.load_state(checkpoint.load(loop.checkpoints.best), optimizer=False)
    mappings = [mapping for mapping in (recipe.data.validation, recipe.data.test) if mapping is not None]
    slices = Slices(trainer)
    metrics = {mapping: trainer.evaluate(mapping, slices.watch(mapping)) for mapping in dict.fromkeys(mappings)}
    for mapping, values in metrics.items():
        log.write("final", step=position.step, epoch=loop.epoch, mapping=mapping, **values)
    dense, tables = runs.parameters(trainer.model)
    slices.save(folder)
    files.write_json(folder / "metrics.json", {
        "mappings": metrics,
        "checkpoint": chosen,
        "step": position.best_step if chosen == "best" else position.step,
        "steps": position.step,
        "stopped": position.stopped,
        "samples_per_s": round(loop.train_samples / loop.train_seconds, 1) if loop.train_seconds else None,
        "wall_s": round(log.wall_s, 3),
        "peak_memory_bytes": runs.peak_memory_bytes(trainer.device),
        "parameters": {"dense": dense, "tables": tables},
        **machine.circumstances(),
    })
    write_report(folder)
    files.write_text(folder / "DONE", "")

