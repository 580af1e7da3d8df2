import dataclasses
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickwise import recipe
from clickwise.errors import RecipeError
from clickwise.training_recipe import parse_recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    lr: float = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    name: Literal["sgd", "adam"] = "sgd"
    rate: float = 1.0
    count: int | None = None
    sizes: tuple[int, ...] = ()
    inner: Inner = Inner()
    limits: dict[str, int] = dataclasses.field(default_factory=dict)
    flag: bool = False


@given(st.builds(Section, name=st.sampled_from(["sgd", "adam"]), rate=st.floats(allow_nan=False),
                 count=st.none() | st.integers(), sizes=st.lists(st.integers()).map(tuple),
                 inner=st.builds(Inner, lr=st.floats(allow_nan=False, allow_infinity=False)),
                 limits=st.dictionaries(st.text("abc", min_size=1), st.integers()), flag=st.booleans()))
def test_to_yaml_and_back_is_the_identity(section):
    text = recipe.to_yaml({"section": section})
    assert recipe.parse(Section, recipe.parse_yaml(text, "f")["section"], "f") == section


@pytest.mark.parametrize("text, place, words", [
    ("ratte: 1", "f.ratte", "did you mean 'rate'"),
    ("rate: fast", "f.rate", "a number"),
    ("rate: true", "f.rate", "a number"),
    ("count: true", "f.count", "an integer"),
    ("count: 1.5", "f.count", "an integer"),
    ("name: sdg", "f.name", "did you mean 'sgd'"),
    ("sizes: [1, two]", r"f.sizes\[1\]", "an integer"),
    ("sizes: 3", "f.sizes", "a list of an integer"),
    ("inner: {lrr: 1}", "f.inner.lrr", "did you mean 'lr'"),
    ("inner: 3", "f.inner", "a mapping"),
    ("flag: 1", "f.flag", "true or false"),
    ("rate: 1\nrate: 2", "f, line 2", "stands twice"),
    ("rate: [", "f, line", "valid YAML"),
])
def test_a_slip_is_named_with_its_place(text, place, words):
    with pytest.raises(RecipeError, match=place) as caught:
        recipe.parse(Section, recipe.parse_yaml(text, "f"), "f")
    assert words in str(caught.value)


def test_numbers_are_read_as_people_write_them():
    parsed = recipe.parse(Section, recipe.parse_yaml("rate: 1e-4\ncount: 200_000", "f"), "f")
    assert (parsed.rate, parsed.count) == (1e-4, 200_000)


def test_overrides_reach_into_sections(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("inner: {lr: 1}\ncount:\n")
    loaded = recipe.load(str(file), ["inner.lr=2.5", "count=3", "sizes=[1, 2]", "a.b.c=x"])
    assert loaded == {"inner": {"lr": 2.5}, "count": 3, "sizes": [1, 2], "a": {"b": {"c": "x"}}}


@pytest.mark.parametrize("override", ["train.batch_size", "=3", "count.deeper=1", "x=[1"])
def test_overrides_that_make_no_sense(tmp_path, override):
    file = tmp_path / "r.yaml"
    file.write_text("count: 3\n")
    with pytest.raises(RecipeError):
        recipe.load(str(file), [override])


@pytest.mark.parametrize("content, words", [("", "an empty file"), ("- 1", "a list"), ("text", "a str")])
def test_files_that_are_no_recipe(tmp_path, content, words):
    file = tmp_path / "r.yaml"
    file.write_text(content)
    with pytest.raises(RecipeError, match=words):
        recipe.load(str(file))


def test_names_of_recipes(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'tiny/dlrm'"):
        recipe.load("tiny/dlmr")
    with pytest.raises(RecipeError, match="a folder"):
        recipe.load(str(tmp_path))


@pytest.mark.parametrize("name", [name for name in recipe.shipped_recipes() if "prepare" not in name])
def test_shipped_training_recipes_parse_and_survive_a_round_trip(name):
    parsed = parse_recipe(recipe.load(name), name)
    again = parse_recipe(recipe.parse_yaml(parsed.to_yaml(), "again"), "again")
    assert again == parsed


def test_unknown_model_and_metric_and_section():
    sections = recipe.load("tiny/dlrm")
    with pytest.raises(RecipeError, match="did you mean 'dlrm'"):
        parse_recipe({**sections, "model": {"name": "dlrn"}}, "r")
    with pytest.raises(RecipeError, match="log_loss"):
        parse_recipe({**sections, "metrics": ["logloss"]}, "r")
    with pytest.raises(RecipeError, match="did you mean 'train'"):
        parse_recipe({**sections, "trian": {}}, "r")
    with pytest.raises(RecipeError, match="no CTRModel"):
        parse_recipe({**sections, "model": {"name": "collections.OrderedDict"}}, "r")
    with pytest.raises(RecipeError, match="can be imported"):
        parse_recipe({**sections, "model": {"name": "no_such_package.Model"}}, "r")
    with pytest.raises(RecipeError, match="clickwise prepare"):
        parse_recipe({"dataset": {"name": "criteo"}}, "criteo/prepare")
