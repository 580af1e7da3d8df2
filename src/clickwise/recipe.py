"""Recipes: strict YAML to frozen dataclasses, `key=value` overrides, and a suggestion for every error.

A recipe section is one frozen, keyword-only dataclass that stands beside the class it configures. Where a value is
wrong in itself (not only of the wrong type), the dataclass says so from `__post_init__` with `Invalid`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from clickwise.errors import RecipeError, nearest
from clickwise.files import shipped
from clickwise.given_files import MOST_DEPTH, read_given_text
from clickwise.strict_yaml import dump_yaml, parse_yaml

T = TypeVar("T")


class Invalid(ValueError):
    """A value that a section refuses: raised in `__post_init__`, given its place in the file by `parse`."""

    def __init__(self, key: str, *, found: object, expected: str, do: str = "") -> None:
        super().__init__(f"{key}: {found!r}, expected {expected}")
        self.key, self.found, self.expected, self.do = key, found, expected, do


def require(condition: bool, key: str, *, found: object, expected: str, do: str = "") -> None:
    """Raises `Invalid` for the setting `key` unless `condition` holds."""
    if not condition:
        raise Invalid(key, found=found, expected=expected, do=do)


def require_no_idle(section: Any, keys: Iterable[str], used: Iterable[str]) -> None:
    """Raises `Invalid` for one of `keys` that was changed although `section.name` does not use it."""
    defaults = {field.name: field.default for field in dataclasses.fields(section)}
    for key in keys:
        if key not in used and getattr(section, key) != defaults[key]:
            raise Invalid(key, found=getattr(section, key), expected=f"no {key}: {section.name} does not use it",
                          do="remove it, or choose another name")


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package, `criteo/dlrm` and the like."""
    root = shipped("recipes")
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def find(name: str) -> Path:
    """The file of a recipe, given by path or by the name of a shipped one."""
    path = Path(name)
    if not path.is_file() and (own := [recipe for recipe in shipped_recipes() if recipe.startswith(f"{name}/")]):
        raise RecipeError(name, found="a dataset, not a recipe", expected=", ".join(own), do=_commands(own))
    if path.is_dir():
        raise RecipeError(name, found="a folder", expected="a recipe file",
                          do="give a .yaml file, or the name of a shipped recipe")
    if path.exists():
        return path
    if name.removesuffix(".yaml") in shipped_recipes():
        return shipped("recipes") / f"{name.removesuffix('.yaml')}.yaml"
    raise RecipeError(name, found="no such file, nor a shipped recipe", expected="a path to a recipe, or a name",
                      do=nearest(name, shipped_recipes()))


def _commands(recipes: list[str]) -> str:
    """How the shipped recipes of a dataset are called."""
    prepares = [recipe for recipe in recipes if recipe.partition("/")[2].startswith("prepare")]
    trains = [recipe for recipe in recipes if recipe not in prepares]
    return ", then ".join([f"clickwise prepare {recipe}" for recipe in prepares[:1]]
                          + [f"clickwise train {recipe}" for recipe in trains[:1]])


def load(name: str, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The recipe as nested dicts, overrides applied; nothing is checked yet but that it is a mapping."""
    path = find(name)
    recipe = parse_yaml(read_given_text(path, "a recipe in YAML", RecipeError), str(path))
    if not isinstance(recipe, dict):
        found = "an empty file" if recipe is None else f"a {type(recipe).__name__}"
        raise RecipeError(path, found=found, expected="a mapping of sections",
                          do="start from a shipped one: " + ", ".join(shipped_recipes()[:4]))
    for override in overrides:
        apply_override(recipe, override)
    _check_values(recipe, str(path))
    return recipe


def _check_values(value: Any, where: str) -> None:
    """Raises RecipeError for an integer of more than 64 bits, which nothing counts, and for a text with a zero
    character, which names no file."""
    if isinstance(value, int) and not -2**63 <= value < 2**64:
        raise RecipeError(where, found=str(value), expected="an integer of 64 bits")
    if isinstance(value, str) and "\0" in value:
        raise RecipeError(where, found=repr(value), expected="a text without zero characters")
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        _check_values(item, f"{where}.{key}")


def apply_override(recipe: dict[str, Any], override: str) -> None:
    """Sets one `section.key=value` in place; the value is read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(override, found="no '='" if not equals else "no key", expected="section.key=value",
                          do="for example train.batch_size=4096")
    *sections, last = key.split(".")
    if len(sections) > MOST_DEPTH:
        raise RecipeError(f"{key[:40]}…", found=f"{len(sections):,} sections inside each other",
                          expected=f"at most {MOST_DEPTH}")
    holder = recipe
    for section in sections:
        if holder.get(section) is None:
            holder[section] = {}
        holder = holder[section]
        if not isinstance(holder, dict):
            raise RecipeError(override, found=f"{section!r} is {holder!r}", expected="a section that holds keys")
    holder[last] = parse_yaml(text, f"override {override}")


def parse(cls: type[T], mapping: Any, where: str) -> T:
    """An instance of the dataclass `cls` from a mapping; `where` names the file and section for error messages."""
    if mapping is None:
        mapping = {}
    if not isinstance(mapping, Mapping):
        raise RecipeError(where, found=repr(mapping), expected=f"a mapping with {_keys(cls)}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    for key in mapping:
        if key not in fields:
            raise RecipeError(f"{where}.{key}", found=f"the unknown key {key!r}", expected=_keys(cls),
                              do=nearest(key, _visible(cls)))
    values = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in mapping.items()}
    for name, field in fields.items():
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if name not in values and no_default:
            raise RecipeError(f"{where}.{name}", found="nothing", expected=f"a value ({described(hints[name])})")
    try:
        return cls(**values)
    except Invalid as error:
        raise RecipeError(f"{where}.{error.key}", found=repr(error.found), expected=error.expected,
                          do=error.do) from None


def to_dict(section: Any) -> Any:
    """The plain dicts and lists that `parse` reads back to an equal section."""
    if dataclasses.is_dataclass(section):
        return {field.name: to_dict(getattr(section, field.name)) for field in dataclasses.fields(section)}
    if isinstance(section, Mapping):
        return {key: to_dict(value) for key, value in section.items()}
    if isinstance(section, (tuple, list)):
        return [to_dict(value) for value in section]
    return section


def to_yaml(recipe: Mapping[str, Any]) -> str:
    """The text of a recipe that `load` and `parse` read back to equal sections."""
    return dump_yaml(to_dict(recipe))


def _keys(cls: type) -> str:
    return "one of the keys " + ", ".join(_visible(cls))


def _visible(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls) if field.init and not field.metadata.get("hidden")]


def described(hint: Any) -> str:
    """What a type hint asks for, in words."""
    if hint is type(None):
        return "null"
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " or ".join(described(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) in (tuple, list):
        return f"a list of {described(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is dict:
        return f"a mapping to {described(typing.get_args(hint)[1])}"
    names = {int: "an integer", float: "a number", str: "a text", bool: "true or false", dict: "a mapping"}
    return names.get(hint) or ("a section" if dataclasses.is_dataclass(hint) else str(hint))


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that `hint` asks for; raises RecipeError where it is another."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if isinstance(hint, types.UnionType) or origin is typing.Union:
        if value is None and type(None) in arguments:
            return None
        if type(value) in arguments:
            return value
        errors = []
        for part in arguments:
            if part is not type(None):
                try:
                    return _convert(part, value, where)
                except RecipeError as error:
                    errors.append(error)
        if len(errors) == 1 or any(error.where != where for error in errors):
            raise next((error for error in errors if error.where != where), errors[0])
    elif origin is typing.Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        raise RecipeError(where, found=repr(value), expected=described(hint), do=nearest(value, arguments))
    elif origin in (tuple, list):
        if isinstance(value, (list, tuple)):
            return tuple(_convert(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    elif origin is dict or hint is dict:
        if isinstance(value, Mapping):
            if not arguments:
                return dict(value)
            return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    elif dataclasses.is_dataclass(hint):
        return parse(hint, value, where)
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise RecipeError(where, found=repr(value), expected=described(hint))
