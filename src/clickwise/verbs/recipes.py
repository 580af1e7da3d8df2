"""`clickwise recipes`: the shipped recipes, every key of one with its meaning, a copy to change, a check of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from clickwise import prepare
from clickwise.errors import RecipeError, UsageError
from clickwise.files import write_text
from clickwise.given_files import read_given_text
from clickwise.recipe import find, load, shipped_recipes, to_dict
from clickwise.recipe_keys import Key, keys_of


def list_recipes() -> list[tuple[str, str]]:
    """(name, what it is) of every shipped recipe."""
    return [(name, _title(find(name))) for name in shipped_recipes()]


def _title(path: Path) -> str:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def show(name: str) -> list[dict[str, Any]]:
    """Every key of a recipe: `key`, `value`, `default`, `type`, `meaning`, `where` it is defined."""
    values = load(name)
    return [{"key": key.path, "value": found, "default": None if key.needed else to_dict(key.default),
             "type": key.type, "meaning": key.meaning, "where": key.where}
            for key in _keys(values, name) for found in [_value(values, key)]]


def _value(values: Mapping[str, Any], key: Key) -> Any:
    """What the recipe says; the default where it is silent."""
    for part in key.path.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return to_dict(key.default)
        values = values[part]
    return values


def _keys(values: Mapping[str, Any], where: str) -> Iterator[Key]:
    if "dataset" in values:
        from clickwise.prepare.engine import EngineConfig

        dataset = prepare.find_dataset(values["dataset"], where)
        yield Key("dataset.name", "a text", None, True, "the dataset, or the dotted path of a module of your own",
                  "clickwise.registry")
        yield from keys_of(dataset.Config, "dataset.")
        yield from keys_of(EngineConfig, "engine.")
        yield Key("out", "a text", None, True, "the folder to write", "clickwise.prepare.run")
        return
    from clickwise.training_recipe import Recipe, find_model

    for key in keys_of(Recipe):
        if key.path != "model":
            yield key
            continue
        yield Key("model.name", "a text", None, True, "the model, or the dotted path of a class of your own",
                  "clickwise.registry")
        yield from keys_of(find_model(values["model"]["name"], where).Config, "model.")


def copy(name: str, file: Path) -> None:
    """Copies a recipe to a new file, to be changed and named in its place."""
    if file.exists():
        raise UsageError(file, found="a file that is there already", expected="a new file")
    write_text(file, read_given_text(find(name), "a recipe in YAML", RecipeError))


def check(name: str) -> list[RecipeError]:
    """All that is wrong with a recipe: after each error the key it stands at is taken away, and the rest looked at."""
    values = load(name)
    parse, errors = _parser(values), {}
    while True:
        try:
            parse(values, name)
            return list(errors.values())
        except RecipeError as error:
            errors.setdefault(error.where, error)  # a key that was taken away may be missed then
            if not _without(values, error.where.removeprefix(f"{name}.")):
                return list(errors.values())


def _parser(values: Mapping[str, Any]) -> Callable[[dict[str, Any], str], object]:
    if "dataset" in values and "model" not in values:
        return prepare.parse_recipe
    from clickwise.training_recipe import parse_recipe

    return parse_recipe


def _without(values: Any, path: str) -> bool:
    """Whether the key at `path`, or the innermost there is, could be taken away."""
    *sections, last = path.split("[")[0].split(".")
    for section in sections:
        if not isinstance(values, dict) or section not in values:
            return False
        values = values[section]
    return isinstance(values, dict) and values.pop(last, path) is not path
