"""`clickwise train`: a recipe becomes a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch

from clickwise import files, machine, manifest, memory, processes, registry
from clickwise.checkpoint import reading
from clickwise.encoding.document import FILE as ENCODING_FILE
from clickwise.errors import CheckpointError, Interrupted, UsageError
from clickwise.feature_spec import FILE_NAME
from clickwise.given_files import check_links
from clickwise.latest_run import latest_run
from clickwise.metrics import build_metrics
from clickwise.progress import be_quiet, say, warn
from clickwise.report import write_report
from clickwise.run import folder as runs
from clickwise.run.baselines import FILE as BASELINES
from clickwise.run.baselines import measure_baselines
from clickwise.run.facts import FILE as METRICS
from clickwise.run.facts import RunFacts
from clickwise.run.session import Session, build_session
from clickwise.run.slices import Slices
from clickwise.run.whole_model import COLUMNS, ENCODING, EXAMPLES, keep_preparation, save_examples
from clickwise.strict_yaml import parse_yaml
from clickwise.train.log import NoLog, RunLog
from clickwise.train.loop import Loop
from clickwise.training_recipe import Recipe, load_foreign_recipe, load_recipe, parse_recipe

DONE = "DONE"
SETTLED = 20  # steps after which those that follow take as long as any
PARTS = ("model", "tables", "data", "inputs", "recipe", "step", "position", "effort", "random")  # of a checkpoint
AT_THE_START = (runs.RECIPE, FILE_NAME, f"{ENCODING}/{ENCODING_FILE}", COLUMNS)  # files that are read later
AT_THE_END = (METRICS, BASELINES, "scores.npz", EXAMPLES)


def train(name: str | None, overrides: list[str], *, resume: Path | None = None, out: Path = Path("runs"),
          allow_imports: Collection[str] = (), trust_paths: bool = False, profile: Path | None = None,
          run_name: str | None = None) -> Path:
    """The finished run folder; with `resume` an interrupted one, continued as if it had never stopped.

    The recipe, `name` and `overrides`, may import code of your own. A run folder that is resumed or started from may
    only import what is allowed. Unless `trust_paths`, neither a Feature Spec nor links lead out of their folder. A
    trace of some steps goes into the folder `profile`. The run is `out/run_name`, or `out/<dataset>-<model>/<time>`, to
    which `out/latest` then leads.
    """
    memory.keep_freed_memory()
    if not processes.is_first():
        be_quiet()
    traced = _traced_steps(profile)
    if resume is not None:
        return _resume(latest_run(resume), name, overrides, allow_imports, trust_paths, traced)
    if name is None:
        raise UsageError("clickwise train", found="no recipe", expected="a recipe, or --resume RUN",
                         do="clickwise train kuairand/dlrm")
    recipe = load_recipe(name, overrides)
    if recipe.start_from is not None:
        recipe = dataclasses.replace(recipe, start_from=str(latest_run(Path(recipe.start_from))))
    session = build_session(recipe, trust_paths=trust_paths)
    session.check_data()  # whatever can refuse this recipe speaks before the folder appears
    session.check_warmup()  # of a run that starts: one that is resumed could not change it
    _require_same(session)
    _start(session, allow_imports, trust_paths)
    recipe = session.recipe
    folder = _one_folder(lambda: runs.create_named(out, run_name) if run_name is not None else
                         runs.create(out, f"{recipe.data.name}-{recipe.model_name}"))
    with _only_one(folder):
        if processes.is_first():
            runs.mark_latest(out, folder)
        written = manifest.Manifest(folder)
        if processes.is_first():
            written.write_text(runs.RECIPE, recipe.absolute().to_yaml())
        _run(folder, session, written, None, traced)
    return folder


def _resume(folder: Path, name: str | None, overrides: list[str], allow_imports: Collection[str],
            trust_paths: bool, traced: Traced) -> Path:
    if not trust_paths:
        check_links(folder, CheckpointError)  # the first, since what follows writes
    recipe, changes = _recipe_of_resumed(folder, name, overrides, allow_imports)
    with _only_one(folder):
        if processes.is_first():
            runs.remove_unfinished(folder)
        if (folder / DONE).exists():
            if changes:
                raise UsageError(f"--resume {folder}", found="; ".join(changes), expected="no settings: it is finished",
                                 do="start a new run with start_from, or evaluate and predict with these settings")
            say(f"{folder} is finished: nothing to resume")
            return folder
        session = build_session(recipe, trust_paths=trust_paths)
        session.check_data()
        _require_same(session)
        written = manifest.of_run(folder)
        content = _checkpoint_to_resume(folder, session, written, allow_imports)
        if content is None:
            _start(session, allow_imports, trust_paths)
        if changes:
            say("from here on " + "; ".join(changes))
            if processes.is_first():
                written.write_text(runs.RECIPE, recipe.to_yaml())
        _run(folder, session, written, content, traced)
    return folder


Traced = Callable[[Loop], contextlib.AbstractContextManager[None]]


def _traced_steps(folder: Path | None) -> Traced:
    """What stands around a loop: nothing, or a trace of some of its steps, of the first process, into `folder`."""
    if folder is None or not processes.is_first():
        return contextlib.nullcontext
    from clickwise.verbs.profiling import STEPS, WARMUP, Profile, shown

    profile = Profile(folder)

    @contextlib.contextmanager
    def traced(loop: Loop) -> Iterator[None]:
        left = loop.total_steps - loop.at.step - WARMUP - STEPS
        with profile.traced(loop.step, "train", skip=max(0, min(SETTLED, left))) as loop.step:
            yield
        say("\n".join(map(shown, profile.found)) or f"no trace: the training has no more than {WARMUP} steps")

    return traced


def _one_folder(make: Callable[[], Path]) -> Path:
    """The folder that the first process makes, for all of them; CheckpointError where another does not see it."""
    with processes.agreed():
        made = make() if processes.is_first() else None
    folder = processes.from_first(made)
    with processes.agreed():
        if not folder.exists():
            raise CheckpointError(folder, found=f"no such folder on the machine of process {processes.rank()}",
                                  expected="a file system that all processes see", do="set --out to a folder on one")
    return folder


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """The run folder belongs to this training alone, for which the first process holds it."""
    with contextlib.ExitStack() as held:
        with processes.agreed():
            if processes.is_first():
                held.enter_context(files.only_one(folder, CheckpointError))
        yield


def _require_same(session: Session) -> None:
    """EngineError where the processes differ in code, recipe or data."""
    if processes.count() > 1:
        processes.require_same({"clickwise": machine.code_version(), "torch": torch.__version__,
                                **{f"the data's {name}": value for name, value in session.dataset.identity.items()},
                                **runs.must_be_same(session.recipe)})


def _start(session: Session, allow_imports: Collection[str], trust_paths: bool) -> None:
    """What comes before the first step: the weights of the run that the recipe starts from, if it names one, are taken
    over, and ids are counted where an optimizer needs it; optimizers start anew."""
    if session.recipe.start_from is not None:
        folder = Path(session.recipe.start_from)
        which, step = runs.load_weights(session, folder, runs.recipe_of(
            folder, allow_imports=allow_imports, trust_paths=trust_paths))
        say(f"weights of {folder}, its {which} checkpoint (step {step:,})")
    session.count_ids()  # last: it goes through the data


def _run(folder: Path, session: Session, written: manifest.Manifest, content: dict[str, Any] | None,
         traced: Traced) -> None:
    """Trains from the start or from `content`, a checkpoint, and finishes the run folder, whose manifest is `written`.
    """
    start = 0 if content is None else content["position"]["step"]
    log: RunLog | NoLog = NoLog()
    with processes.agreed():
        if processes.is_first():
            keep_preparation(folder, session)
            written.add(name for name in AT_THE_START if name not in written)
            log = RunLog(folder / "log.jsonl", resume_at=start, manifest=written)
    try:
        loop = session.loop(runs.checkpoints_of(folder, session.recipe, written), log)
        if content is not None:
            with reading(loop.checkpoints.last):
                session.load_state(content)
                loop.load_state_dict(content)
            del content  # or it would hold a second copy of every table until the end
        say(f"run {folder}: {_describe(session, loop.total_steps)}" + (f", from step {start:,}" if start else ""))
        with traced(loop):
            position = loop.run()
        if position.stopped:
            say(f"stopped at step {position.step}: {position.stopped}")
        _finish(folder, session, loop, log)
    except KeyboardInterrupt:
        raise Interrupted(folder, found="interrupted", do=f"clickwise train --resume {folder}") from None
    finally:
        log.close()


def _describe(session: Session, steps: int) -> str:
    dense, tables = runs.parameters(session.model)
    return (f"{session.recipe.model_name}, {dense:,} dense parameters, {tables:,} in tables; "
            f"{steps:,} steps of {session.recipe.train.batch_size:,} samples in {session.recipe.train.precision} "
            f"on {session.device}" + (f", {processes.count()} processes" if processes.count() > 1 else ""))


def _recipe_of_resumed(folder: Path, name: str | None, overrides: list[str],
                       allow_imports: Collection[str]) -> tuple[Recipe, list[str]]:
    """The recipe of the run with the overrides that may be, and what they change. Those that may not be, and a recipe
    `name` that is another one, are refused."""
    if not (folder / runs.RECIPE).exists():
        raise CheckpointError(folder, found="no recipe.yaml in it", expected="a run folder of clickwise train",
                              do="see runs/<dataset>-<model>/")
    recipe_file = folder / runs.RECIPE
    recipe = asked = load_foreign_recipe(recipe_file, allow_imports=allow_imports)
    if overrides:
        asked = load_foreign_recipe(recipe_file, overrides, allow_imports).absolute()
    for other in (asked, *([load_recipe(name, overrides).absolute()] if name is not None else [])):
        if differences := runs.differences(recipe, other):
            raise CheckpointError(folder, found="another recipe: " + "; ".join(differences[:5]),
                                  expected="the recipe this run was started with",
                                  do=f"clickwise train --resume {folder} (alone, or with one of "
                                     f"{', '.join(runs.MAY_CHANGE)}), or start a new run")
    return asked, runs.differences(recipe, asked, may_change=True)


def _checkpoint_to_resume(folder: Path, session: Session, written: manifest.Manifest,
                          allow_imports: Collection[str]) -> dict[str, Any] | None:
    """The last checkpoint, or None where the run was killed before its first one."""
    checkpoints = runs.checkpoints_of(folder, session.recipe, written)
    path = checkpoints.last
    if not path.exists():
        if written.requires(f"checkpoint/{path.name}"):
            say(f"{path} is gone: training starts anew")
        written.verified(runs.RECIPE, CheckpointError)
        return None
    content = checkpoints.load("last")
    missing = [key for key in PARTS if key not in content]
    if missing:
        raise CheckpointError(path, found=f"no {', '.join(missing)} in it", expected="a checkpoint of clickwise train",
                              do="copy it again, or train anew")
    with reading(path):
        sections = parse_yaml(content["recipe"], str(path))
        is_same_data = session.dataset.is_that_of(content["data"])
    registry.refuse_foreign(sections, str(path), allow_imports)
    started_with = parse_recipe(sections, str(path))
    differences = runs.differences(started_with, session.recipe)
    if differences:
        raise CheckpointError(folder / "recipe.yaml", found="changed since: " + "; ".join(differences[:5]),
                              expected="the recipe this run was started with", do="undo the change, or start a new run")
    written.verified(runs.RECIPE, CheckpointError)
    if not is_same_data:
        raise CheckpointError(folder, found=f"the data in {session.dataset.spec.folder} has changed since this run",
                              expected="the dataset it was started on", do="prepare that dataset again, or start anew")
    return content


def _finish(folder: Path, session: Session, loop: Loop, log: RunLog | NoLog) -> None:
    """Final metrics of the best checkpoint (of the last, where no validation mapping chose), baselines, report and
    DONE."""
    recipe, position = session.recipe, loop.at
    chosen = processes.from_first(
        "best" if recipe.data.validation is not None and loop.checkpoints.has("best") else "last")
    if chosen == "best" and position.best_step != position.step:
        content = loop.checkpoints.load("best")
        with reading(loop.checkpoints.best):
            session.load_state(content, optimizer=False)
    mappings = [mapping for mapping in (recipe.data.validation, recipe.data.test) if mapping is not None]
    slices = Slices(session)
    metrics = {mapping: session.evaluate(mapping, slices.watch(mapping)) for mapping in dict.fromkeys(mappings)}
    for mapping, values in metrics.items():
        log.write("final", step=position.step, epoch=loop.epochs_done, values={"mapping": mapping, **values})
    slices.save(folder)
    save_examples(folder, session)
    baselines = measure_baselines(folder, session, recipe.baselines, metrics[recipe.data.test])
    if processes.is_first():
        _write_facts(folder, session, loop, log, chosen, metrics)
        for warning in baselines["warnings"]:
            warn(warning)
        loop.checkpoints.manifest.add(AT_THE_END)
        write_report(folder)
        files.write_text(folder / DONE, "")


def _write_facts(folder: Path, session: Session, loop: Loop, log: RunLog | NoLog, chosen: str,
                 metrics: dict[str, dict[str, float]]) -> None:
    """Writes metrics.json of the run folder."""
    recipe, position = session.recipe, loop.at
    dense, tables = runs.parameters(session.model)
    RunFacts(
        mappings=metrics, ideal={name: metric.ideal for name, metric in build_metrics(recipe.metrics).items()},
        checkpoint=chosen, checkpoint_step=position.best_step if chosen == "best" else position.step,
        steps=position.step, stopped=position.stopped, samples_per_s=loop.effort.samples_per_s,
        wall_s=round(log.wall_s, 3), peak_memory_bytes=runs.peak_memory_bytes(session.device),
        parameters={"dense": dense, "tables": tables}, **machine.circumstances()).save(folder)

