"""Every fenced command and Python block of README and docs/ runs in the order of its page, from a fresh checkout.

Blocks that cannot run here say so in a comment before them (`tests/pages.py`); what they name exists all the same. The
recipes' comments and the commands within sentences are read in the same way.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections import Counter

import pytest
import typer
import yaml
from pages import PAGES, ROOT, RUN, Reader, blocks_of, commands_of

from clickwise import cli
from clickwise.feature_spec import FeatureSpec
from clickwise.recipe import load, shipped_recipes
from clickwise.training_recipe import load_recipe

BLOCKS = {page: blocks_of(page) for page in PAGES}
RUNNING = [page for page in PAGES if any(block.is_run for block in BLOCKS[page])]
NOT_RUN = [block for page in PAGES for block in BLOCKS[page] if block.mark == "not run"]
QUICK = ("docs/add_a_metric.md",)  # seconds; the others are long
COMMANDS = typer.main.get_command(cli.app).commands
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
SHELLS = ("sh", "bash")


def name(path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", [
    pytest.param(page, id=name(page), marks=() if name(page) in QUICK else pytest.mark.slow) for page in RUNNING])
def test_a_page_runs_in_its_order(page, tmp_path, monkeypatch):
    if (program := next((need for need in ("bash", "curl") if shutil.which(need) is None), None)) is not None:
        pytest.skip(f"no {program}")
    with Reader(tmp_path / "checkout") as reader:
        monkeypatch.chdir(reader.folder)
        monkeypatch.syspath_prepend(reader.folder)
        for block in BLOCKS[page]:
            if block.is_run:
                reader.run(block)


def test_blocks_that_are_not_run_are_few_and_say_why():
    """The list is short, and gets no longer without a look at it."""
    assert Counter(name(block.page) for block in NOT_RUN) == {
        "README.md": 2,               # packages are downloaded
        "docs/export.md": 1,          # packages are downloaded
        "docs/kernels.md": 1,         # a GPU
        "docs/many_machines.md": 3,   # eight GPUs; a cluster; a plan that ends with 1
        "docs/training.md": 1,        # a tracking server
        "docs/serving_states.md": 1}  # names of the reader
    assert all(len(block.value) > 10 for block in NOT_RUN)
    assert all(block.mark in ("", "file", "not run") for page in PAGES for block in BLOCKS[page])


def test_every_block_that_holds_a_command_has_a_language():
    for page in PAGES:
        for block in BLOCKS[page]:
            assert block.language in (*RUN, "text", "yaml", "json") or not re.search(
                "^(clickwise|python|pip) ", block.text, re.MULTILINE), block
        assert page.read_text().count("```\n") >= len(BLOCKS[page])  # no fence is overlooked
        assert len(re.findall(r"^ *```", page.read_text(), re.MULTILINE)) == 2 * len(BLOCKS[page]), page


def check(words: list[str], where: object) -> None:
    """The verb exists, its options do, a recipe that it names is shipped, and the overrides behind it are read."""
    verb, *words = words
    if verb.startswith("-"):
        return
    command = COMMANDS[verb]
    if hasattr(command, "commands") and words and words[0] in command.commands:
        command, *words = command.commands[words[0]], *words[1:]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        assert not word.startswith("-") or word.partition("=")[0] in {*options, "--help"}, f"{where}: {verb} {word}"
    if verb in ("train", "prepare", "plan", "bench") and words and re.fullmatch(r"[a-z_]+/[a-z0-9_]+", words[0]):
        recipe = words[0]
        assert recipe in shipped_recipes() or recipe.startswith("runs/"), f"{where}: {recipe}"
        load(recipe, [word for word in words[1:] if re.match(r"[a-z_.]+=", word)])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_name_what_there_is(page):
    text = page.read_text(encoding="utf-8")
    for block in BLOCKS[page]:
        if block.language in SHELLS:
            for words in commands_of(block.text):
                check(words, block)
    prose = FENCED.sub("", text)
    for code in re.findall(r"`(clickwise [^`]+)`", prose):
        check(shlex.split(code.replace("\n", " "))[1:], page)


FENCED = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("recipe", RECIPES, ids=name)
def test_commands_in_the_comments_of_recipes_name_what_there_is(recipe):
    comment = " ".join(line.lstrip("#").strip() for line in recipe.read_text().splitlines() if line.startswith("#"))
    verbs, word = r"clickwise (?:(?:prepare|train|plan|synth|spec infer) )", r"(?:\"[^\"]*\"|[\w./=,\-\[\]<>]+| (?! ))"
    found = re.findall(f"{verbs}{word}+", comment)
    assert found or "clickwise" not in comment
    for command in found:
        words = shlex.split(command)[1:]
        check([word for word in words if "<" not in word], recipe)


def test_commands_of_the_example_server_name_what_there_is():
    text = (ROOT / "examples/serve_kuairand/page.py").read_text().split('"""')[1]
    found = [words for words in commands_of(text) if words and words[0] in COMMANDS]
    assert len(found) == 4
    for words in found:
        check([word for word in words if word != "&"], "page.py")


SECTIONS = [(block, part) for block in (*blocks_of(ROOT / "docs/training.md"), *blocks_of(ROOT / "docs/metrics.md"))
            if block.language == "yaml" for part in re.findall(r"^\S.*\n(?: .*\n)*", block.text, re.MULTILINE)]


@pytest.mark.parametrize(("block", "part"), SECTIONS, ids=lambda value: str(value).partition("\n")[0][:30])
def test_sections_of_recipes_on_the_pages_are_read(block, part):
    recipe = "kuairand/wide_deep" if part.startswith(("parts", "metrics", "train")) else "kuairand/dlrm"
    (name, value), = yaml.safe_load(part).items()
    overrides = [f"{name}={json.dumps(value)}"]
    if name == "train":  # the second of two lines that belong together
        overrides = ["metrics=[auc, map_at_12]", f"train.metric={value['metric']}"]
    load_recipe(recipe, overrides)


def test_specs_on_the_pages_are_read(tmp_path):
    whole = [block for block in blocks_of(ROOT / "docs/feature_spec.md")
             if block.language == "yaml" and "source_spec" in block.text]
    assert len(whole) >= 2
    for block in whole:
        (tmp_path / "feature_spec.yaml").write_text(block.text)
        assert FeatureSpec.load(tmp_path).mappings
