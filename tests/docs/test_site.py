"""The site of the documentation: every page is in its navigation, every link of it leads somewhere."""

import html.parser
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import clickwise

ROOT = Path(__file__).parents[2]


def test_every_page_is_in_the_navigation():
    def pages(entry):
        if isinstance(entry, str):
            yield entry
        else:
            for inner in entry.values() if isinstance(entry, dict) else entry:
                yield from pages(inner)

    made = {"index.md", "contributing.md", "changelog.md", "reference.md"}
    listed = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    written = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(made | written)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        if importlib.util.find_spec(package.split(".")[0]) is None:
            pytest.skip(f"no {package}: pip install 'clickwise[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder], cwd=ROOT,
                          env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class Page(html.parser.HTMLParser):
    def __init__(self, file):
        super().__init__()
        self.links, self.loaded, self.ids = [], [], set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        found = [attributes[name] for name in ("href", "src") if attributes.get(name)]
        self.links += found
        self.loaded += [] if tag == "a" else found
        self.ids.add(attributes.get("id"))


@pytest.mark.slow
def test_links_of_the_site_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    pages = {file: Page(file) for file in site.rglob("*.html") if file.name != "404.html"}
    assert len(pages) > 100
    for file, page in pages.items():
        assert not [link for link in page.loaded if urlsplit(link).netloc]
        for link in map(urlsplit, page.links):
            if link.scheme or link.netloc:
                continue
            target = (file.parent / unquote(link.path)).resolve() if link.path else file
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{file.relative_to(site)}: {link.geturl()}"
            if link.fragment and target in pages:
                assert unquote(link.fragment) in pages[target].ids, f"{file.relative_to(site)}: {link.geturl()}"


@pytest.mark.slow
def test_the_reference_has_every_public_name(site):
    ids = Page(site / "reference" / "index.html").ids
    missing = {name for name, (module, attribute) in clickwise._SOURCES.items() if f"{module}.{attribute}" not in ids}
    assert not missing


@pytest.mark.slow
def test_a_link_to_the_repository_leads_to_the_file(site):
    text = (site / "repository" / "recipes" / "tiny" / "dlrm.yaml" / "index.html").read_text(encoding="utf-8")
    assert "recipes/tiny/dlrm.yaml" in text and "<code>" in text
    assert not (site / "site" / "pages.py").exists()  # what builds the site is no part of it
