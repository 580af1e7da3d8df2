"""YAML as people write it: safe, no key twice, `1e-4` is a number."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Hashable
from typing import Any

import yaml

from clickwise.errors import ClickwiseError, RecipeError


class _Strict:
    """Safe YAML in which a repeated key is an error, and `1e-4` is a number (YAML 1.1 reads it as a word)."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _StrictLoader(_Strict, yaml.SafeLoader):
    pass


class _FastLoader(_Strict, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """The same by libyaml where PyYAML has it, ten times as fast; its errors have other words."""


class _StrictDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):
    """Safe YAML in which a word that `_StrictLoader` would read as a number, `0e0`, stands in quotes."""


for _class in (_StrictLoader, _FastLoader, _StrictDumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*[eE][-+]?\d+|\.\d+(?:[eE][-+]?\d+)?)$"),
        list("-+0123456789."),
    )


def _text(dumper: _StrictDumper, text: str) -> yaml.Node:
    """Texts with line ends and other control characters in one line, as escapes."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_StrictDumper.add_representer(str, _text)


def parse_yaml(text: str, where: str, error: type[ClickwiseError] = RecipeError) -> Any:
    """The value of a YAML text, as plain dicts and lists; raises `error` with the line that is wrong."""
    with contextlib.suppress(yaml.YAMLError):
        return yaml.load(text, Loader=_FastLoader)
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as invalid:
        mark = getattr(invalid, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = str(getattr(invalid, "problem", None) or invalid)
        if "python/" in problem:
            raise error(f"{where}{line}", found=problem, expected="plain values",
                        do="write the number itself in place of the Python object") from None
        raise error(f"{where}{line}", found=problem, expected="valid YAML") from None


def dump_yaml(value: Any) -> str:
    """The text that `parse_yaml` reads back to an equal value, keys in their order."""
    return yaml.dump(value, Dumper=_StrictDumper, sort_keys=False, default_flow_style=None, width=110)


def dump_line(value: Any) -> str:
    """The same on one line, letters of any language as they are."""
    text = yaml.dump(value, Dumper=_StrictDumper, sort_keys=False, default_flow_style=True, width=10**9,
                     allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
