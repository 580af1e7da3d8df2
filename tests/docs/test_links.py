"""Links of the pages lead somewhere, recipes they name exist, and CI runs the test command that the README gives."""

import re
from pathlib import Path

import pytest

from clickwise.recipe import shipped_recipes

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_recipes_that_a_page_names_exist(page):
    for name in re.findall(r"clickwise +(?:prepare|train|bench) +([a-z_]+/[a-z0-9_]+)", page.read_text()):
        assert name in shipped_recipes(), name


def test_ci_runs_the_command_of_the_readme():
    (command,) = re.findall(r"^python3 -m venv .*/pytest.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert command.replace("pip install -c", "pip install -q -c") in (ROOT / ".ci" / "run").read_text()
