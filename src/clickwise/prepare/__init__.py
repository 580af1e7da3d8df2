"""Raw logs to columns on disk: `run(recipe, where)`, `summary(folder)`. Never imports torch; Ibis and DuckDB only when
it is called."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clickwise import registry
from clickwise.errors import PrepareError, RecipeError, nearest
from clickwise.given_files import read_given_json
from clickwise.latest_run import latest_run
from clickwise.prepare.garbage import rare_collections
from clickwise.progress import say
from clickwise.recipe import load, parse, shipped_recipes

if TYPE_CHECKING:
    from clickwise.prepare.engine import EngineConfig
    from clickwise.prepare.preparation import Preparation

KEYS = ("dataset", "engine", "out")


@rare_collections()
def run(recipe: Mapping[str, Any], where: str, overwrite: bool = False, given: str | Path | None = None) -> Path:
    """Prepares what `recipe` asks for and returns the folder that holds feature_spec.yaml.

    `recipe` has the sections `dataset` (`name`: a dataset of `clickwise.registry` or the dotted path of a module of
    your own, beside the keys of that dataset), `engine` (name, memory_limit, threads) and `out`, a folder; `where`
    names it in error messages. With `given`, a prepared folder or a run, nothing is fitted: further raw rows, those of
    `dataset.input` as the mapping `input`, else the recipe's mappings, are written in its encoding. A folder that
    already holds the result of the same recipe and input files is left as it is; another dataset is replaced only with
    `overwrite`. What was done and what comes next is logged. Raises RecipeError and PrepareError.
    """
    preparation, engine, out = parse_recipe(recipe, where)
    from clickwise.prepare.further import Given

    if given is None and getattr(preparation.config, "input", ()):
        raise RecipeError(f"{where}.dataset.input", found="raw rows and no encoding to write them in",
                          expected="--with FOLDER: a prepared folder or a run")
    folder = preparation.run(out, engine, overwrite, None if given is None else Given.load(Path(given)))
    found = summary(folder)
    command = _next_command(out, preparation, found.get("rows", {})) if given is None else _predict(out, given, found)
    say(_report(out, found, command))
    return folder


def parse_recipe(recipe: Mapping[str, Any], where: str) -> tuple[Preparation, EngineConfig, Path]:
    """What a recipe asks for: the preparation with its settings, the engine and the folder to write, all checked."""
    if "model" in recipe and "dataset" not in recipe:
        raise RecipeError(where, found="a recipe for training (it has a `model` section)",
                          expected="a recipe for preparing data (with `dataset` and `out`)",
                          do=_prepare_first(recipe, where))
    for key in recipe:
        if key not in KEYS:
            raise RecipeError(f"{where}.{key}", found=f"the unknown key {key!r}", expected=", ".join(KEYS),
                              do=nearest(key, KEYS))
    section, out = recipe.get("dataset"), recipe.get("out")
    dataset = find_dataset(section, where)
    options = {key: value for key, value in section.items() if key != "name"}
    preparation = dataset(parse(dataset.Config, options, f"{where}.dataset"), section["name"], f"{where}.dataset")
    from clickwise.prepare.engine import EngineConfig

    engine = parse(EngineConfig, recipe.get("engine"), f"{where}.engine")
    if not isinstance(out, str) or not out:
        raise RecipeError(f"{where}.out", found=repr(out), expected="the folder to write into",
                          do="for example out: data/prepared/criteo")
    return preparation, engine, Path(out)


def _prepare_first(recipe: Mapping[str, Any], where: str) -> str:
    """The command that prepares the data of a training recipe, if a shipped one does, and the one that trains."""
    data, train = recipe.get("data"), shlex.join(["clickwise", "train", where])
    path = data.get("path") if isinstance(data, Mapping) else None
    made_by = next((name for name in shipped_recipes() if path and load(name).get("out") == path), None)
    return train if made_by is None else f"clickwise prepare {made_by}, then {train}"


def summary(folder: str | Path) -> dict[str, Any]:
    """What `preparation/summary.json` in a prepared folder tells (rows by mapping, cardinalities, skipped rows, input
    files, seconds), with `folder`; only that where the dataset wrote no summary."""
    try:
        content = read_given_json(Path(folder) / "preparation" / "summary.json")
    except (OSError, ValueError):
        content = {}
    return {"folder": str(folder), **content}


def _report(out: Path, found: Mapping[str, Any], next_command: str) -> str:
    """Lines for a person: what lies in `out`, how long it took, and the command that uses it."""
    lines = {}
    if rows := found.get("rows"):
        lines["rows"] = ", ".join(f"{mapping} {count:,}" for mapping, count in rows.items())
    if spans := found.get("time"):
        lines["time"] = "; ".join(f"{mapping} {first} … {last}" for mapping, (first, last) in spans.items())
    if sizes := [*found.get("cardinalities", {}).values()]:
        lines["ids"] = f"{sum(sizes):,} in {len(sizes)} features, from {min(sizes):,} to {max(sizes):,} in each"
    if bad := sum(found.get("bad_rows_skipped", {}).values()):
        lines["bad rows"] = f"{bad:,} skipped; preparation/summary.json tells of which file"
    if rows and (seconds := found.get("seconds")):
        lines["took"] = f"{seconds:,.1f} s, {sum(rows.values()) / seconds:,.0f} rows/s"
    lines["next"] = next_command
    return "\n".join([f"prepared {out}", *(f"  {key:<9}{text}" for key, text in lines.items())])


def small_batch_size(rows: int) -> int:
    """What small data is trained with where its recipe has larger batches: 32 batches in an epoch, of at least 8 rows,
    or 16 of fewer."""
    return max(1, min(rows // 16, max(8, rows // 32)))


def _next_command(out: Path, preparation: Preparation, rows: Mapping[str, int]) -> str:
    """A training that this data can do: with its path, a batch that it fills and mappings that it has."""
    recipe, *settings = shlex.split(preparation.trained_by or "RECIPE")
    if preparation.trained_by is not None:
        trained = load(recipe)
        if preparation.trained_by_if_small and rows and _too_short(trained, rows["train"]):
            recipe, trained = preparation.trained_by_if_small, load(preparation.trained_by_if_small)
        data, train = trained.get("data", {}), trained.get("train", {})
        if rows and train.get("batch_size", 0) > rows["train"]:
            settings.append(f"train.batch_size={small_batch_size(rows['train'])}")
        if rows and data.get("validation") not in (None, *rows):
            settings.append("data.validation=null")
        if rows and "test" not in rows:
            settings.append(f"data.test={'validation' if 'validation' in rows else 'train'}")
        if Path(data["path"]).resolve() == out.resolve():
            return shlex.join(["clickwise", "train", recipe, *settings])
    return shlex.join(["clickwise", "train", recipe, *settings, f"data.path={out}"])


def _predict(out: Path, given: str | Path, found: Mapping[str, Any]) -> str:
    """Scores what was written, by the run whose encoding was given."""
    run = latest_run(Path(given))
    mapping = next(iter(found.get("rows", {})), "MAPPING")
    name = str(run) if (run / "recipe.yaml").exists() else "RUN"
    return shlex.join(["clickwise", "predict", name, "--input", mapping, f"data.path={out}"])


def _too_short(recipe: Mapping[str, Any], rows: int) -> bool:
    """Whether all epochs have fewer steps than the warm-up, or an epoch has fewer rows than a batch."""
    train, schedule = recipe["train"], recipe.get("schedule", {})
    return rows < train["batch_size"] * max(1, schedule.get("warmup_steps", 0) / train["epochs"])


def _check_packages() -> None:
    """Raises PrepareError where what preparation runs on is not installed."""
    missing = [name for name in ("ibis", "duckdb") if importlib.util.find_spec(name) is None]
    if missing:
        raise PrepareError("preparation of raw logs", found=f"{' and '.join(missing)} not installed",
                           expected="what reads and encodes raw logs", do="pip install 'ibis-framework[duckdb]'")


def find_dataset(section: object, where: str) -> type[Preparation]:
    """The class that a recipe's section `dataset` names: the DATASET of a module."""
    if not isinstance(section, Mapping) or "name" not in section:
        raise RecipeError(f"{where}.dataset", found=repr(section), expected="a section with the key name",
                          do=f"name: one of {', '.join(registry.NAMES['dataset'])}")
    _check_packages()
    found = registry.resolve("dataset", section["name"], f"{where}.dataset.name")
    if not hasattr(found, "DATASET"):
        raise RecipeError(f"{where}.dataset.name", found=f"{section['name']!r} without DATASET",
                          expected="a module that names its Preparation as DATASET")
    return found.DATASET
