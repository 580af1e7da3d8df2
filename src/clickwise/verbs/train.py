"""`clickwise train`: a recipe becomes a run folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from clickwise import checkpoint, files, machine, memory
from clickwise.build import Recipe, Trainer, build_trainer, load_recipe, parse_recipe
from clickwise.errors import CheckpointError, TrainError, UsageError
from clickwise.metrics import build_metrics
from clickwise.report import write_report
from clickwise.strict_yaml import parse_yaml
from clickwise.train.log import RunLog
from clickwise.train.loop import Loop
from clickwise.verbs import runs
from clickwise.verbs.slices import Slices


def train(name: str | None, overrides: list[str], *, resume: Path | None = None, out: Path = Path("runs")) -> Path:
    """The finished run folder; with `resume` an interrupted one, continued as if it had never stopped."""
    memory.keep_freed_memory()
    if resume is not None:
        return _resume(resume, name, overrides)
    if name is None:
        raise UsageError("clickwise train", found="no recipe", expected="a recipe, or --resume RUN",
                         do="clickwise train kuairand/dlrm")
    trainer = build_trainer(load_recipe(name, overrides))
    trainer.check_data()  # whatever can refuse this recipe speaks before the folder appears
    _start(trainer)
    recipe = trainer.recipe
    folder = runs.create(out, f"{recipe.data.name}-{recipe.model_name}")
    with files.only_one(folder, CheckpointError):
        files.write_text(folder / "recipe.yaml", recipe.absolute().to_yaml())
        _run(folder, trainer, None)
    return folder


def _resume(folder: Path, name: str | None, overrides: list[str]) -> Path:
    recipe = _recipe_of_resumed(folder, name, overrides)
    with files.only_one(folder, CheckpointError):
        if (folder / "DONE").exists():
            print(f"{folder} is finished: nothing to resume", file=sys.stderr)
            return folder
        trainer = build_trainer(recipe)
        trainer.check_data()
        content = _checkpoint_to_resume(folder, trainer)
        if content is None:
            _start(trainer)
        _run(folder, trainer, content)
    return folder


def _start(trainer: Trainer) -> None:
    """What comes before the first step: the weights of the run that the recipe starts from, if it names one, are taken
    over, and ids are counted where an optimizer needs it; optimizers start anew."""
    if trainer.recipe.start_from is not None:
        folder = Path(trainer.recipe.start_from)
        which, step = runs.load_weights(trainer, folder, runs.recipe_of(folder))
        print(f"weights of {folder}, its {which} checkpoint (step {step:,})", file=sys.stderr)
    trainer.count_ids()  # last: it goes through the data


def _run(folder: Path, trainer: Trainer, content: dict[str, Any] | None) -> None:
    """Trains from the start or from `content`, a checkpoint, and finishes the run folder."""
    start = 0 if content is None else content["position"]["step"]
    log = RunLog(folder / "log.jsonl", resume_at=start)
    try:
        loop = trainer.loop(folder, log)
        if content is not None:
            trainer.load_state(content)
            loop.load_state_dict(content)
            del content  # or it would hold a second copy of every table until the end
        print(f"run {folder}: {_describe(trainer, loop.total_steps)}" + (f", from step {start:,}" if start else ""),
              file=sys.stderr)
        position = loop.run()
        if position.stopped:
            print(f"stopped at step {position.step}: {position.stopped}", file=sys.stderr)
        _finish(folder, trainer, loop, log)
    except KeyboardInterrupt:
        raise TrainError(folder, found="interrupted", do=f"clickwise train --resume {folder}") from None
    finally:
        log.close()


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
        asked = load_recipe(name or str(recipe_file), overrides).absolute()
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
    started_with = parse_recipe(parse_yaml(content["recipe"], str(path)), str(path))
    differences = runs.differences(started_with, trainer.recipe)
    if differences:
        raise CheckpointError(folder / "recipe.yaml", found="changed since: " + "; ".join(differences[:5]),
                              expected="the recipe this run was started with", do="undo the change, or start a new run")
    if content["data"] != trainer.dataset.identity:
        raise CheckpointError(folder, found=f"the data in {trainer.dataset.spec.folder} has changed since this run",
                              expected="the dataset it was started on", do="prepare that dataset again, or start anew")
    return content


def _finish(folder: Path, trainer: Trainer, loop: Loop, log: RunLog) -> None:
    """Final metrics of the best checkpoint (of the last, where no validation mapping chose), report and DONE."""
    recipe, position = trainer.recipe, loop.at
    chosen = "best" if recipe.data.validation is not None and loop.checkpoints.best.exists() else "last"
    if chosen == "best" and position.best_step != position.step:
        trainer.load_state(checkpoint.load(loop.checkpoints.best), optimizer=False)
    mappings = [mapping for mapping in (recipe.data.validation, recipe.data.test) if mapping is not None]
    slices = Slices(trainer)
    metrics = {mapping: trainer.evaluate(mapping, slices.watch(mapping)) for mapping in dict.fromkeys(mappings)}
    for mapping, values in metrics.items():
        log.write("final", step=position.step, epoch=loop.epochs_done, values={"mapping": mapping, **values})
    dense, tables = runs.parameters(trainer.model)
    slices.save(folder)
    files.write_json(folder / "metrics.json", {
        "mappings": metrics,
        "ideal": {name: metric.ideal for name, metric in build_metrics(recipe.metrics).items()},
        "checkpoint": chosen,
        "checkpoint_step": position.best_step if chosen == "best" else position.step,
        "steps": position.step,
        "stopped": position.stopped,
        "samples_per_s": loop.effort.samples_per_s,
        "wall_s": round(log.wall_s, 3),
        "peak_memory_bytes": runs.peak_memory_bytes(trainer.device),
        "parameters": {"dense": dense, "tables": tables},
        **machine.circumstances(),
    })
    write_report(folder)
    files.write_text(folder / "DONE", "")

