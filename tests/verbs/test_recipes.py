"""`clickwise recipes`: what there is, what every key means, a copy, a check of all at once."""

from __future__ import annotations

import json

import jsonschema
import pytest

from clickwise import registry
from clickwise.errors import RecipeError
from clickwise.prepare.engine import EngineConfig
from clickwise.recipe import load, shipped_recipes
from clickwise.recipe_keys import keys_of
from clickwise.training_recipe import PartConfig, Recipe, find_model, parse_recipe

SECTIONS = {"": Recipe, "parts.": PartConfig, "engine.": EngineConfig,
            **{f"model[{name}].": find_model(name, "test").Config for name in registry.NAMES["model"]},
            **{f"dataset[{name}].": registry.resolve("dataset", name, "test").DATASET.Config
               for name in registry.NAMES["dataset"]}}


@pytest.mark.parametrize("prefix", SECTIONS)
def test_every_key_has_its_meaning(prefix):
    keys = [key for key in keys_of(SECTIONS[prefix], prefix) if key.path != "model"]
    assert keys and not [key.path for key in keys if not key.meaning]


def test_the_schema_takes_what_recipes_may_say_and_nothing_else(clickwise):
    validator = jsonschema.Draft7Validator(json.loads(clickwise("recipes", "schema").out))
    validator.check_schema(validator.schema)
    for name in shipped_recipes():
        found = load(name)
        if name == "table/prepare":  # its spec is given on the command line
            found["dataset"]["spec"] = "my_data"
        assert not list(validator.iter_errors(found)), name
    for override in ("train.batch_sise=5", "train.batch_size=many", "model.name=dlrn", "model.cross_layers=2",
                     "optimizer.name=7", "metrics=auc", "embedding.optimizer.lr=fast", "parts.top.rate=1"):
        assert not validator.is_valid(load("kuairand/dlrm", [override])), override
        assert check_all("kuairand/dlrm", override), override
    assert not validator.is_valid(load("criteo/prepare", ["dataset.split=thirds"]))
    assert not validator.is_valid(load("criteo/prepare", ["engine.memory=4GB"]))
    assert validator.is_valid(load("kuairand/dlrm", ["model={name: my.Model, depth: 3}"]))


def check_all(name, override):
    sections = load(name, [override])
    try:
        parse_recipe(sections, name)
    except RecipeError as error:
        return error


def test_the_list_names_all_of_them(clickwise):
    result = clickwise("recipes")
    lines = result.out.splitlines()
    assert result.code == 0 and [line.split()[0] for line in lines] == shipped_recipes()
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize("name", ["kuairand/sim", "criteo/prepare", "table/prepare", "outbrain/wide_deep"])
def test_show_tells_value_default_meaning_and_home(clickwise, name):
    result = clickwise("recipes", "show", name, "--json")
    found = {key["key"]: key for key in json.loads(result.out)}

    def flat(section, prefix=""):
        for key, value in section.items():
            if isinstance(value, dict) and f"{prefix}{key}" not in found:
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    assert result.code == 0 and all(found[key]["value"] == value for key, value in flat(load(name)))
    assert all(key["meaning"] and key["where"].startswith("clickwise.") for key in found.values())
    text = clickwise("recipes", "show", name).out
    assert all(f"{key}: " in text for key in found)


def test_a_copy_is_a_recipe_and_overwrites_nothing(clickwise, tmp_path):
    assert clickwise("recipes", "copy", "table/dcnv2", "mine.yaml").code == 0
    assert load(str(tmp_path / "mine.yaml")) == load("table/dcnv2")
    result = clickwise("recipes", "copy", "table/dcnv2", "mine.yaml")
    assert result.code == 2 and "there already" in result.err
    assert "did you mean" in clickwise("recipes", "copy", "table/dcnv3", "x.yaml").err


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name != "table/prepare"])
def test_shipped_recipes_pass_the_check(clickwise, name):
    result = clickwise("recipes", "check", name)
    assert result.code == 0 and "nothing wrong" in result.out, result.err


def test_the_recipe_that_asks_for_a_spec_says_so(clickwise):
    result = clickwise("recipes", "check", "table/prepare")
    assert result.code == 2 and "table/prepare.dataset.spec" in result.err


def test_a_check_tells_all_at_once(clickwise, tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "data: {path: x, shufle: rows}\nmodel: {name: dcnv2, embedding_dim: wide, cross_layers: -1}\n"
        "optimizer: {name: adam, lr: fast}\ntrain: {batch_size: 0}\nmetrics: [auc, log_loss]\ntrian: {}\n")
    result = clickwise("recipes", "check", "bad.yaml")
    assert result.code == 2 and "Traceback" not in result.err
    for key in ("data.shufle", "model.embedding_dim", "model.cross_layers", "optimizer.lr", "train.batch_size",
                "trian"):
        assert f"bad.yaml.{key}" in result.err, key
    (tmp_path / "bad.yaml").write_text("dataset: {name: table, spec: x, test_share: 2}\nengine: {threads: 0}\n"
                                       "outs: y\n")
    result = clickwise("recipes", "check", "bad.yaml")
    assert all(f"bad.yaml.{key}" in result.err for key in ("dataset.test_share", "engine.threads", "outs"))
