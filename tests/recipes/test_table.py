"""The models of `table/`: on any table that `spec infer` drafts, without a word by hand."""

from __future__ import annotations

import random

import pandas as pd
import pytest

import clickwise as cw
from clickwise.errors import RecipeError
from clickwise.recipe import shipped_recipes
from clickwise.training_recipe import load_recipe

MODELS = [name.removeprefix("table/") for name in shipped_recipes() if name.startswith("table/") and "prep" not in name]


def frame(columns, rows=500, seed=0):
    dice = random.Random(seed)
    data = pd.DataFrame({"age": [dice.gauss(40, 9) for _ in range(rows)],
                         "pay": [dice.expovariate(0.1) for _ in range(rows)],
                         "town": [dice.choice(["Oslo", "Bonn", "Rome"]) for _ in range(rows)],
                         "tags": ["|".join(dice.choices("abcd", k=dice.randrange(4))) for _ in range(rows)]})
    chances = 0.1 + 0.4 * (data.town == "Oslo") + 0.4 * (data.age > 45)
    return data[columns].assign(click=[int(dice.random() < chance) for chance in chances])


def test_there_are_three_models():
    assert MODELS == ["dcnv2", "dlrm", "wide_deep"]


@pytest.mark.parametrize(("model", "columns", "bins"), [
    *((model, columns, bins) for model in MODELS for columns, bins in (
        (["age", "pay", "town", "tags"], 32), (["age", "pay"], 0), (["town", "tags"], 32))),
    ("dlrm", ["age"], 0), ("dlrm", ["town"], 32)])
def test_every_model_takes_every_table(model, columns, bins):
    multi_hot = {"tags": "|"} if "tags" in columns else None
    fitted = cw.fit(frame(columns), label="click", model=model, multi_hot=multi_hot, prepare_settings={"bins": bins},
                    settings={"train.epochs": 3})
    assert repr(fitted).startswith(f"<clickwise {model},")
    assert fitted.evaluate(frame(columns, seed=1))["auc"] > (0.5 if len(columns) == 1 else 0.55)


def test_the_model_of_a_recipe_is_not_changed_by_its_name_alone():
    for name in ("dlrm", "wide_deep"):
        with pytest.raises(RecipeError, match="settings of dcnv2") as refusal:
            load_recipe("table/dcnv2", [f"model.name={name}"])
        assert f"take the recipe table/{name}" in str(refusal.value)
    with pytest.raises(RecipeError, match="leave them out, or set model.name=dcnv2"):
        load_recipe("table/dlrm", ["model.cross_layers=2"])
    found = load_recipe("table/dcnv2", ["model={name: dlrm, embedding_dim: 4, bottom_mlp: [4]}"])
    assert found.model_name == "dlrm" and found.model.embedding_dim == 4
