"""Paragraphs of docstrings that are laid out in columns stay so on the site."""

import re

import griffe

COLUMNS = re.compile(r"^\S.*\S {2,}\S", re.MULTILINE)


class KeepColumns(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = "\n\n".join(
                f"```text\n{paragraph}\n```" if COLUMNS.search(paragraph) and "```" not in paragraph else paragraph
                for paragraph in obj.docstring.value.split("\n\n"))
