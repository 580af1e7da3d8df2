"""What a release says of itself is said alike wherever it stands."""

import re
import tomllib
from pathlib import Path

import yaml

import clickwise

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHANGES = (ROOT / "CHANGELOG.md").read_text()
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_version_is_one():
    newest = re.findall(r"^## \[(\d[^]]*)\] - \d{4}-\d\d-\d\d$", CHANGES, re.MULTILINE)[0]
    assert clickwise.__version__ == PROJECT["version"] == CITATION["version"] == newest


def test_the_changelog_has_the_sections_of_its_form():
    versions = re.findall(r"^## (.*)$", CHANGES, re.MULTILINE)
    assert versions[0] == "[Unreleased]" and len(versions) == len(set(versions))
    kinds = re.findall(r"^### (.*)$", CHANGES, re.MULTILINE)
    assert {*kinds} <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_says_what_the_package_says():
    assert CITATION["cff-version"] == "1.2.0" and CITATION["message"] and CITATION["title"] == PROJECT["name"]
    assert CITATION["license"] == PROJECT["license"] and CITATION["abstract"] == PROJECT["description"]
    assert CITATION["authors"] == [{"name": "clickwise developers"}]


def test_what_an_index_shows_has_no_relative_links():
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]
    text = (ROOT / "README.md").read_text()
    for rule in hook["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    assert re.findall(r"\]\((?!https://)[^)]*\)", text) == [] and "<!--" not in text
    assert "docs/training.md" in text  # the words of a link stay


def test_every_package_that_can_be_installed_has_a_version_that_was_tested():
    asked = [*PROJECT["dependencies"], *(need for extra in PROJECT["optional-dependencies"].values() for need in extra)]
    names = {plain(re.match(r"[\w.-]+", need)[0]) for need in asked} - {"clickwise"}
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert names <= {plain(name) for name in pinned} and len(pinned) == len(set(pinned))


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()
