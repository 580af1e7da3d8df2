"""Raw logs to columns on disk: `run(recipe, where)`. Never imports torch; Ibis and DuckDB only when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clickwise.errors import PrepareError, RecipeError, nearest
from clickwise.recipe import parse

# A dataset is a module with CONFIG, the dataclass of its recipe section, and
# prepare(config, out, *, engine, overwrite, where) -> Path.
DATASETS = {"criteo": "clickwise.prepare.criteo", "kuairand": "clickwise.prepare.kuairand"}
KEYS = ("dataset", "engine", "out")


def run(recipe: Mapping[str, Any], where: str, overwrite: bool = False) -> Path:
    """Prepares what `recipe` asks for and returns the folder that holds feature_spec.yaml.

    `recipe` has the sections `dataset` (`name`: one of DATASETS or the dotted path of a module of your own, beside
    the keys of that dataset), `engine` (name, memory_limit, threads) and `out`, a folder; `where` names it in error
    messages. A folder that already holds the result of the same recipe and input files is left as it is; another
    dataset is replaced only with `overwrite`. Raises RecipeError and PrepareError.
    """
    for key in recipe:
        if key not in KEYS:
            raise RecipeError(f"{where}.{key}", found=f"the unknown key {key!r}", expected=", ".join(KEYS),
                              do=nearest(key, KEYS))
    section, out = recipe.get("dataset"), recipe.get("out")
    if not isinstance(section, Mapping) or "name" not in section:
        raise RecipeError(f"{where}.dataset", found=repr(section), expected="a section with the key name",
                          do=f"name: one of {', '.join(DATASETS)}")
    if not isinstance(out, str) or not out:
        raise RecipeError(f"{where}.out", found=repr(out), expected="the folder to write into",
                          do="for example out: prepared/criteo")
    module = _module(section["name"], where)
    options = {key: value for key, value in section.items() if key != "name"}
    config = parse(module.CONFIG, options, f"{where}.dataset")
    from clickwise.prepare.engine import EngineConfig

    engine = parse(EngineConfig, recipe.get("engine"), f"{where}.engine")
    return module.prepare(config, Path(out), engine=engine, overwrite=overwrite, where=where)


def _module(name: object, where: str) -> Any:
    path = DATASETS.get(name, name) if isinstance(name, str) else name
    if not isinstance(path, str) or "." not in path:
        raise RecipeError(f"{where}.dataset.name", found=repr(name), expected=", ".join(DATASETS),
                          do=nearest(name, DATASETS))
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name in ("ibis", "duckdb"):
            raise PrepareError(f"import {error.name}", found="not installed", expected="what preparation runs on",
                               do="pip install 'ibis-framework[duckdb]'") from None
        if error.name and (path == error.name or path.startswith(error.name + ".")):
            raise RecipeError(f"{where}.dataset.name", found=f"{name!r}, which cannot be imported",
                              expected=f"{', '.join(DATASETS)}, or the dotted path of a module",
                              do=nearest(name, DATASETS)) from None
        raise
    for needed in ("CONFIG", "prepare"):
        if not hasattr(module, needed):
            raise RecipeError(f"{where}.dataset.name", found=f"the module {path} without {needed}",
                              expected="a module with CONFIG and prepare")
    return module
