"""docs/reference_systems.md: every key, option and recipe that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from clickwise import registry
from clickwise.cli import app
from clickwise.prepare import find_dataset
from clickwise.prepare.engine import EngineConfig
from clickwise.recipe import shipped_recipes
from clickwise.recipe_keys import keys_of
from clickwise.training_recipe import PartConfig, Recipe, find_model

PAGE = (Path(__file__).parents[2] / "docs/reference_systems.md").read_text()
QUOTED = re.findall(r"`([^`]+)`", PAGE)
SECTIONS = ("data", "embedding", "optimizer", "schedule", "train", "parts", "model", "dataset", "engine")


def known_keys():
    keys = {key.path for key in keys_of(Recipe)} | {"model.name", "dataset.name"}
    for name in registry.NAMES["model"]:
        keys |= {key.path for key in keys_of(find_model(name, "here").Config, "model.")}
    for name in registry.NAMES["dataset"]:
        keys |= {key.path for key in keys_of(find_dataset({"name": name}, "here").Config, "dataset.")}
    keys |= {key.path for key in keys_of(EngineConfig, "engine.")}
    keys |= {key.path for part in ("wide", "deep") for key in keys_of(PartConfig, f"parts.{part}.")}
    return keys | {section for key in keys for section in _sections(key)}


def _sections(key):
    parts = key.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def named_keys():
    found = re.findall(rf"(?<![\w./-])((?:{'|'.join(SECTIONS)})\.[\w.]+)", " ".join(QUOTED))
    return sorted({key.rstrip(".") for key in found if not key.endswith(".py")})


def test_every_key_is_one_of_a_recipe():
    known, named = known_keys(), named_keys()
    assert len(named) > 90
    assert [key for key in named if key not in known] == []


def commands():
    return {name: {word for option in command.params for word in option.opts}
            for name, command in get_command(app).commands.items()}


VERBS = ("train", "evaluate", "predict", "prepare", "transcode", "synth", "bench", "plan", "export", "log", "doctor")


def test_every_option_of_a_command_of_ours_is_there():
    known, seen = commands(), 0
    for text in QUOTED:
        verb, *words = text.split()
        if verb in VERBS and not text.startswith("train_"):
            for word in words:
                if word.startswith("--"):
                    seen += 1
                    assert word in known[verb], text
    assert seen > 20


@pytest.mark.parametrize("recipe", sorted({text.split()[-1] for text in QUOTED
                                           if re.fullmatch(r"(\w+ )?(outbrain|criteo|amazon_books)/\w+", text)}))
def test_every_recipe_is_shipped(recipe):
    assert recipe in shipped_recipes()


def test_the_last_column_of_the_preparation_is_that_of_the_others():
    for rows_per_s, rows, seconds in ((327_491, 4_373_472_329, 3.7 * 3600), (338_937, 87_141_731, 4.3 * 60),
                                      (307_934, 87_141_731, 4.7 * 60), (13_622, 87_141_731, 1.8 * 3600)):
        assert rows / rows_per_s == pytest.approx(seconds, rel=0.02)
