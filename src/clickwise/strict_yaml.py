"""YAML as people write it: safe, no key twice, `1e-4` is a number."""

from __future__ import annotations

import re
from typing import Any

import yaml

from clickwise.errors import ClickwiseError, RecipeError
from clickwise.given_files import MOST_DEPTH, MOST_DIGITS

MOST_REPEATED = 100_000  # values that aliases stand for
WORDS_UP_TO = 1 << 18  # characters: the slower loader reads so many in about two seconds


class _Strict:
    """Safe YAML in which a repeated key is an error, and `1e-4` is a number (YAML 1.1 reads it as a word)."""

    def construct_object(self, node, deep=False):
        """As YAML has it; what Python cannot make of a value (the 99th of a month, a number of 10,000 digits) is an
        error of the text."""
        try:
            if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MOST_DIGITS:
                raise ValueError(f"{len(node.value):,} digits")
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            why = f": {error}" if isinstance(error, ValueError) else ""
            raise yaml.MarkedYAMLError(problem=f"{str(node.value)[:40]!r}, which is no {_KINDS.get(kind, kind)}{why}",
                                       problem_mark=node.start_mark) from None

    def construct_mapping(self, node, deep=False):
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(problem="a value in place of a mapping", problem_mark=node.start_mark)
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, type(None))):
                kind = {dict: "a mapping", list: "a list"}.get(type(key), f"a {type(key).__name__}")
                raise yaml.MarkedYAMLError(problem=f"{kind} as a key", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_KINDS = {"int": "integer", "float": "number", "bool": "true or false", "timestamp": "day or time"}


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
    try:
        return _load(text, _FastLoader)
    except (yaml.YAMLError, UnicodeEncodeError) as invalid:
        problem = invalid
    if len(text) < WORDS_UP_TO and not isinstance(problem, _TooMuch):  # once more, for better words
        try:
            return _load(text, _StrictLoader)
        except yaml.YAMLError as invalid:
            problem = invalid
    mark = getattr(problem, "problem_mark", None)
    line = f", line {mark.line + 1}" if mark else ""
    found = str(getattr(problem, "problem", None) or problem)
    if "python/" in found:
        raise error(f"{where}{line}", found=found, expected="plain values",
                    do="write the number itself in place of the Python object")
    raise error(f"{where}{line}", found=found, expected="valid YAML")


def _load(text: str, loader: type) -> Any:
    _check_size(text, loader)
    return yaml.load(text, Loader=loader)


def _check_size(text: str, loader: type) -> None:
    """Raises a YAMLError for what a few lines can ask for without an end: lists inside lists, and aliases of aliases,
    which stand for as many values as there are particles. Nothing is built yet: one event is looked at at a time."""
    open_, sizes, values, repeated = [], {}, 0, 0  # anchor and values before it, of every list that is open
    for event in yaml.parse(text, Loader=loader):
        problem = ""
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            open_.append((event.anchor, values))
            values += 1
            if len(open_) > MOST_DEPTH:
                problem = f"more than {MOST_DEPTH} lists and mappings inside each other"
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            anchor, before = open_.pop()
            sizes[anchor] = values - before
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_):
                problem = f"*{event.anchor} inside of what it stands for"
            values += sizes.get(event.anchor, 1)  # an unknown one is reported when the text is read
            repeated += sizes.get(event.anchor, 1)
            if repeated > MOST_REPEATED:
                problem = f"aliases (*{event.anchor}) that stand for more than {MOST_REPEATED:,} values"
        if problem:
            raise _TooMuch(problem=problem, problem_mark=event.start_mark)


class _TooMuch(yaml.MarkedYAMLError):
    """Of lists inside lists, or of aliases."""


def dump_yaml(value: Any) -> str:
    """The text that `parse_yaml` reads back to an equal value, keys in their order."""
    return yaml.dump(value, Dumper=_StrictDumper, sort_keys=False, default_flow_style=None, width=110)


def dump_line(value: Any) -> str:
    """The same on one line, letters of any language as they are."""
    text = yaml.dump(value, Dumper=_StrictDumper, sort_keys=False, default_flow_style=True, width=10**9,
                     allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
