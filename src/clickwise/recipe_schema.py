"""Recipes as a JSON Schema, by which editors of YAML complete and check: made of the dataclasses that read them."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from clickwise import registry
from clickwise.recipe import to_dict
from clickwise.recipe_keys import COMMON, meanings_of

_PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean", dict: "object", type(None): "null"}


def schema() -> dict[str, Any]:
    """The schema of every recipe: one with `dataset` prepares data, any other trains."""
    from clickwise.prepare import find_dataset
    from clickwise.prepare.engine import EngineConfig
    from clickwise.training_recipe import Recipe, find_model

    training = _of_class(Recipe)
    training["properties"]["model"] = _by_name("the model and its settings", {
        name: _of_class(find_model(name, "schema").Config) for name in registry.NAMES["model"]})
    preparing = {"type": "object", "additionalProperties": False, "required": ["dataset", "out"], "properties": {
        "dataset": _by_name("the dataset and its settings", {
            name: _of_class(find_dataset({"name": name}, "schema").Config) for name in registry.NAMES["dataset"]}),
        "engine": _of_class(EngineConfig), "out": {"type": "string", "description": "the folder to write"}}}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "A recipe of clickwise", "type": "object",
            "if": {"required": ["dataset"], "not": {"required": ["model"]}}, "then": preparing, "else": training}


def _by_name(what: str, sections: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A section whose keys depend on its `name`; with a dotted path for a name they may be any."""
    name = {"anyOf": [{"enum": list(sections)}, {"type": "string", "pattern": r"[.:]"}],
            "description": "a short name, or the dotted path of one of your own"}
    return {"type": "object", "description": what, "required": ["name"], "properties": {"name": name}, "allOf": [
        {"if": {"properties": {"name": {"const": short}}},
         "then": section | {"properties": {"name": True, **section["properties"]}}}
        for short, section in sections.items()]}


def _of_class(cls: type) -> dict[str, Any]:
    hints, meanings, properties, needed = typing.get_type_hints(cls), meanings_of(cls), {}, []
    for field in dataclasses.fields(cls):
        if not field.init or field.metadata.get("hidden"):
            continue
        meaning = meanings.get(field.name) or COMMON.get(field.name)
        properties[field.name] = _of_hint(hints[field.name]) | ({"description": meaning} if meaning else {})
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if default is dataclasses.MISSING:
            needed.append(field.name)
        elif not dataclasses.is_dataclass(default):
            properties[field.name]["default"] = to_dict(default)
    return {"type": ["object", "null"], "additionalProperties": False, "properties": properties, "required": needed}


def _of_hint(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if isinstance(hint, types.UnionType) or origin is typing.Union:
        return {"anyOf": [_of_hint(part) for part in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (tuple, list):
        return {"type": "array", "items": _of_hint(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of_hint(arguments[1])}
    return _of_class(hint) if dataclasses.is_dataclass(hint) else {"type": _PLAIN[hint]}
