"""`clickwise spec infer`: from raw files to a draft of their Feature Spec."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clickwise.errors import UsageError
from clickwise.feature_spec import FILE_NAME, FeatureSpec
from clickwise.prepare.infer import Draft
from clickwise.prepare.infer import infer as draft_of
from clickwise.strict_yaml import parse_yaml


def infer(files: list[Path], *, out: Path, label: str | None = None, display: str | None = None,
          categorical: Sequence[str] = (), numerical: Sequence[str] = (), multi_hot: Sequence[str] = (),
          formats: Sequence[str] = (), ignore: Sequence[str] = (), delimiter: str | None = None,
          header: bool | None = None, overwrite: bool = False) -> dict[str, Any]:
    """What was written: `spec` (the file), `rows`, `channels` (channel -> features), `files` (mapping -> its files),
    `left_out`, `check` (column -> what a person should check), and `next`, the command that goes on from there.

    `multi_hot` holds NAME=DELIMITER, `formats` NAME=FORMAT; a delimiter may be one of the names in NAMED."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}", found="a file", expected="a folder, or a name that is free")
    path = out / FILE_NAME
    if path.exists() and not overwrite:
        raise UsageError(path, found="a Feature Spec that is there already", expected="a folder without one",
                         do="another folder as --out, or --overwrite to lose what was corrected in it")
    delimiter = None if delimiter is None else _delimiter("--delimiter", delimiter)
    draft = draft_of(files, label=label, display=display, categorical=categorical, numerical=numerical,
                     multi_hot=dict(map(_list, multi_hot)), formats=dict(map(_format, formats)), ignore=ignore,
                     delimiter=delimiter, header=header)
    spec = draft.save(out)
    return {"spec": str(path), "rows": draft.table.rows,
            "channels": {channel: list(names) for channel, names in spec.channels.items()},
            "files": {mapping: [str(file) for file in files] for mapping, files in draft.mappings.items()},
            "left_out": draft.of(""), "check": draft.checks, "next": _next_command(draft, spec, out)}


NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


def _delimiter(option: str, text: str) -> str:
    text = NAMED.get(text, text)
    if not 1 <= len(text) <= 4 or {"\n", "\r", '"'} & set(text):
        raise UsageError(option, found=repr(text), expected=f"a character, or a few, or one of {', '.join(NAMED)}")
    return text


def _list(text: str) -> tuple[str, str]:
    """Column and delimiter of NAME=DELIMITER."""
    name, delimiter = _named("--multi-hot", text, "DELIMITER, such as 'tags=|'")
    return name, _delimiter(f"--multi-hot {text}", delimiter)


def _format(text: str) -> tuple[str, str]:
    return _named("--format", text, "FORMAT, such as created=%d/%m/%Y")


def _named(option: str, text: str, expected: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{option} {text}", found="no =" if name else "no name", expected=f"NAME={expected}")
    return name, value


SCALED = 30.0  # what numbers are at most, in size, that somebody has brought to one scale


def _next_command(draft: Draft, spec: FeatureSpec, out: Path) -> str:
    label = draft.table.columns[draft.label]
    encoded = not any(feature.is_raw_text for feature in spec.features.values()) and \
        spec.features[draft.label].dtype == "bool"
    whole = not any(draft.table.columns[name].rows > draft.table.columns[name].known
                    for name, feature in spec.features.items() if not feature.is_multi_hot)
    scaled = all(draft.table.columns[name].high <= SCALED and draft.table.columns[name].low >= -SCALED
                 for name in spec.channels.get("numerical", ()))
    if draft.table.type != "jsonl" and encoded and whole and scaled and "test" in spec.mappings:
        return shlex.join(["clickwise", "transcode", str(out), "--out", str(out / "columns")])
    words = ["clickwise", "prepare", "table/prepare", f"dataset.spec={out}"]
    if label.is_number and label.distinct > 2:
        words.append("dataset.label_above=NUMBER")
    elif spec.features[draft.label].dtype != "bool":
        value = max(label.values) if label.distinct == 2 and not label.more else "VALUE"
        words.append(f"dataset.label_is={_quoted(value)}")
    return " ".join(map(_for_shell, [*words, f"out={out / 'columns'}"]))


def _for_shell(word: str) -> str:
    """`word` in double quotes where it holds single ones, which shlex would make unreadable."""
    return f'"{word}"' if "'" in word and not set('"$`\\!') & set(word) else shlex.quote(word)


def _quoted(value: str) -> str:
    """`value` as YAML that is read back as this text, or as the number it is."""
    plain = value.isalnum() and str(parse_yaml(value, "--label")) == value
    return value if plain else "'" + value.replace("'", "''") + "'"
