"""Prepare and train, killed and run again: what must be the same as without it."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from criteo_rows import random_lines, write_raw

from clickwise.manifest import FILE as MANIFEST
from clickwise.manifest import Manifest
from faults import raw_kinds
from faults.children import Died, Said, command, in_children
from faults.interrupt import at_moment, at_operation, kill, operations

TIMES = {"seconds", "changed_ns", "date", "wall_s", "samples_per_s", "peak_memory_bytes", "fingerprint", "inputs"}


@dataclasses.dataclass(frozen=True)
class Case:
    """make(folder) writes what the command needs; run(folder) runs it, the same again after a kill; result(folder) is
    what must be equal; look(folder) raises where what a kill left is not whole."""

    make: Callable[[Path], None]
    run: Callable[[Path], Said]
    result: Callable[[Path], dict]
    look: Callable[[Path], None]


# ---- prepare


def _make_prepare(folder: Path, *, raw: Callable[[Path], None], run: Callable[[Path], Said], old: bool) -> None:
    raw(folder)
    if old:  # a finished dataset of another recipe, to be replaced
        said = run(folder, "dataset.frequency_limit=3")
        assert said.code == 0, said


def _prepare(recipe: str, words: tuple[str, ...], folder: Path, *more: str) -> Said:
    return command("prepare", recipe, *words, "dataset.frequency_limit=1", *more, "out=out", "engine.threads=1",
                   "engine.memory_limit=600MB", "--overwrite", folder=folder)


def dataset(folder: Path) -> dict:
    """The bytes of every file; of the summary what does not tell of times, of the manifest whether it is right."""
    found, manifest = {}, Manifest(folder / "out")
    for path in sorted((folder / "out").rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            name = str(path.relative_to(folder / "out"))
            manifest.verified(name)
            content = without_times(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()
            found[name] = name in manifest, content
    found["beside it"] = sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
    return found


def without_times(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def _look_at_dataset(old: bool, folder: Path) -> None:
    out = folder / "out"
    if not out.exists():
        assert not old, "nothing stands there any more"
        return
    assert (out / "preparation/summary.json").exists() and (out / "feature_spec.yaml").exists(), "a hollow dataset"
    limit = 1 if "frequency_limit: 1\n" in (out / "preparation/recipe.yaml").read_text() else 3
    sizes = json.loads((folder / f"sizes_{limit}.json").read_text())
    assert sizes == _sizes(out), "a dataset that is not whole"


def _sizes(out: Path) -> dict:
    return {str(path.relative_to(out)): path.stat().st_size for path in out.rglob("*")
            if path.is_file() and path.suffix != ".json"}


def _prepare_case(recipe: str, raw: Callable[[Path], None], *words: str, old: bool) -> Case:
    run = functools.partial(_prepare, recipe, words)

    def make(folder: Path) -> None:
        for limit in (1, 3):
            (folder / "first").mkdir()
            raw(folder / "first")
            said = run(folder / "first", f"dataset.frequency_limit={limit}")
            assert said.code == 0, said
            (folder / f"sizes_{limit}.json").write_text(json.dumps(_sizes(folder / "first/out")))
            shutil.rmtree(folder / "first")
        _make_prepare(folder, raw=raw, run=run, old=old)

    return Case(make, run, dataset, functools.partial(_look_at_dataset, old))


def _raw_criteo(folder: Path) -> None:
    write_raw(folder / "day_0", random_lines(40, 1, values=6))
    write_raw(folder / "day_1", random_lines(20, 2, values=6))


# ---- train

SMALL = ["data.synthetic.rows={train: 1500, validation: 300, test: 300}", "data.synthetic.cardinalities=[9, 30]",
         "train.batch_size=250", "train.steps=6", "train.epochs=null", "train.checkpoint_every=2", "train.threads=1"]


def _train(folder: Path) -> Said:
    """Resumes the run that is there, or starts one."""
    runs = sorted(folder.glob("runs/*-*/*"))
    if runs and (runs[-1] / "recipe.yaml").exists():
        return command("train", "--resume", runs[-1], folder=folder)
    shutil.rmtree(folder / "runs", ignore_errors=True)
    return command("train", "tiny/dlrm", *SMALL, "--out", folder / "runs", folder=folder)


def trained(folder: Path) -> dict:
    import torch

    (run,) = folder.glob("runs/*-*/*")
    found = {"metrics": without_times(json.loads((run / "metrics.json").read_text()))["mappings"],
             "files": sorted(str(path.relative_to(run)) for path in run.rglob("*"))}
    for name in ("last", "best"):
        content = torch.load(run / f"checkpoint/{name}.pt", weights_only=True)
        found[name] = {"/".join(map(str, place)): value for place, value in _leaves(content)
                       if not {*place} & {"wall_s", "effort", "seconds", "recipe"}}
    steps = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found["log"] = [{key: value for key, value in step.items() if key not in TIMES and "time" not in key and
                     not key.endswith("_s")} for step in steps if step.get("event") in ("train", "evaluation")]
    return found


def _leaves(value: object, place: tuple = ()) -> Iterator[tuple[tuple, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*place, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(item, (*place, index))
    else:
        yield place, value.numpy() if hasattr(value, "numpy") else value


CASES = {
    "prepare criteo, tables on disk": _prepare_case(
        "criteo/prepare", _raw_criteo, "dataset.train=[day_0]", "dataset.test=[day_1]", "dataset.split=files",
        "engine.tables=disk", old=False),
    "prepare criteo over another, tables on disk": _prepare_case(
        "criteo/prepare", _raw_criteo, "dataset.train=[day_0]", "dataset.test=[day_1]", "dataset.split=files",
        "engine.tables=disk", old=True),
    "prepare a table over another": _prepare_case(
        "table/prepare", raw_kinds.make_table, "dataset.spec=.", "engine.tables=memory", old=True),
    "prepare a table over another, tables on disk": _prepare_case(
        "table/prepare", raw_kinds.make_table, "dataset.spec=.", "engine.tables=disk", old=True),
    "train": Case(lambda folder: None, _train, trained, lambda folder: None),
}


MANY = {case: 90 if case == "train" else 20 for case in CASES}  # at length


# ---- killed, and run again


@dataclasses.dataclass(frozen=True)
class Kill:
    case: str
    folder: Path  # with `good`, what `make` wrote
    operation: int = 0
    seconds: float = 0.0


def measure(case: str, folder: Path) -> tuple[int, float]:
    """Makes the input in `folder/good` and runs it whole in `folder/whole`: its operations on files, its seconds of
    work."""
    (found,) = in_children(functools.partial(_measure, case), [folder], seconds=300)
    assert isinstance(found, tuple), found
    return found


def _measure(case: str, folder: Path) -> tuple[int, float]:
    (folder / "good").mkdir(parents=True)
    CASES[case].make(folder / "good")
    shutil.copytree(folder / "good", folder / "whole")
    start = time.process_time()
    at_operation(0, folder / "whole", kill)
    said = CASES[case].run(folder / "whole")
    assert said.code == 0, said
    return operations(), time.process_time() - start


def kills(case: str, folder: Path, count: int, seed: int = 0) -> list[Kill]:
    """`count` ends of a run: most at operations on files, all over the run, the others at random moments."""
    number, seconds = measure(case, folder)
    dice = random.Random(f"{case}/{seed}")
    forced = max(1, 2 * count // 3)
    places = sorted({round(1 + (number - 1) * (index + dice.random()) / forced) for index in range(forced)})
    return [*(Kill(case, folder, operation=place) for place in places),
            *(Kill(case, folder, seconds=max(0.01, dice.random() * seconds)) for _ in range(count - len(places)))]


def killed_and_again(each: list[Kill]) -> Iterator[tuple[Kill, bool, str]]:
    """For every kill: whether the process was still there to be killed, and what was wrong after it; empty if nothing.
    """
    for kill_ in each:
        (first,) = in_children(_until_killed, [kill_], seconds=120)
        if isinstance(first, Said) and (first.broken or first.code):
            yield kill_, False, f"not killed, and failed: {first}"
            continue
        (wrong,) = in_children(_again, [kill_], seconds=120)
        yield kill_, isinstance(first, Died), wrong if isinstance(wrong, str) else repr(wrong)


def _until_killed(kill_: Kill) -> Said:
    folder = kill_.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(kill_.folder / "good", folder)
    at_moment(kill_.seconds)
    at_operation(kill_.operation, folder, kill)
    said = CASES[kill_.case].run(folder)
    at_moment(0)
    return said


def _again(kill_: Kill) -> str:
    case, folder = CASES[kill_.case], kill_.folder / "run"
    try:
        case.look(folder)
        said = case.run(folder)
        assert said.code == 0 and not said.broken, f"the run after it failed: {said}"
        return difference(case.result(folder), case.result(kill_.folder / "whole"))
    except AssertionError as wrong:
        return str(wrong) or "an assertion"


def difference(found: object, expected: object, place: str = "") -> str:
    """Where the two first differ; empty where they are equal to the bit."""
    if isinstance(expected, dict) and isinstance(found, dict):
        if found.keys() != expected.keys():
            return f"{place}: {sorted(map(str, found.keys() ^ expected.keys()))}"
        return next(filter(None, (difference(found[key], expected[key], f"{place}/{key}") for key in expected)), "")
    if isinstance(expected, np.ndarray):
        equal = isinstance(found, np.ndarray) and found.tobytes() == expected.tobytes()
    else:
        equal = found == expected
    return "" if equal else f"{place}: {found!s:.200} instead of {expected!s:.200}"
