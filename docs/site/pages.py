"""What the site has beside the pages of docs/: README, CONTRIBUTING and CHANGELOG, the reference of the public names,
and a page for every file of the repository that a page links to. So the same relative link leads somewhere on the
repository's page and on the site.

    in docs/training.md   [`loop.py`](../src/clickwise/train/loop.py)
    on the site           [`loop.py`](repository/src/clickwise/train/loop.py.md)
"""

from __future__ import annotations

import ast
import json
import os
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
AT_THE_ROOT = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
PROSE = (".md", ".ipynb")  # whose links are followed
LINK = re.compile(r"(\]\()([^)\s#]+)([^)\s]*\))")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".html": "html", ".toml": "toml"}


def on_files(files, config):
    pages = dict.fromkeys([*AT_THE_ROOT, *(f"docs/{file.src_uri}" for file in files if file.src_uri.endswith(".md"))])
    waiting = list(pages)
    while waiting:
        page = waiting.pop()
        for target in targets(page):
            if target not in pages and not is_of_docs(target) and (ROOT / target).exists():
                pages[target] = None
                if target.endswith(PROSE):
                    waiting.append(target)
    for path in pages:
        if not is_of_docs(path):
            files.append(File.generated(config, place(path), content=text_of(path)))
    files.append(File.generated(config, "reference.md", content=reference()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links lead to pages of the site, and lists are indented as its Markdown wants them."""
    here = next((path for path, uri in AT_THE_ROOT.items() if uri == page.file.src_uri), None) or (
        page.file.src_uri.removeprefix("repository/").removesuffix(".md") if page.file.src_uri.startswith("repository/")
        else f"docs/{page.file.src_uri}")

    def moved(link):
        target = resolved(here, link[2])
        if target is None or not (ROOT / target).exists():
            return link[0]
        return link[1] + posixpath.relpath(place(target), posixpath.dirname(page.file.src_uri) or ".") + link[3]

    return LINK.sub(moved, "\n".join(indented(markdown))) if here.endswith(PROSE) else markdown


def indented(markdown):
    """What belongs to an item of a list stands four spaces in, and a blank line stands behind its paragraphs; elsewhere
    it stands below the item's first letter."""
    inside, is_code, has_paragraphs = 0, False, False
    for line in markdown.split("\n"):
        is_code ^= line.startswith(("```", "~~~"))
        if not is_code and (item := re.match(r"(?:\d+\.|[-*]) +", line)):
            if inside and has_paragraphs:
                yield ""
            inside, has_paragraphs = len(item[0]), False
        elif line and line[0] != " ":
            inside = 0
        has_paragraphs |= not line
        yield " " * (4 - inside) + line if inside and line.startswith(" " * inside) else line


def targets(page):
    """The files and folders of the repository that a page links to."""
    found = (resolved(page, link[2]) for link in LINK.finditer(text_of(page)))
    return [target for target in found if target is not None]


def resolved(page, link):
    """`../src/x.py` in docs/y.md → src/x.py; None for the address of another site."""
    return None if "://" in link else posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def place(path):
    """Where a file of the repository stands on the site."""
    if path in AT_THE_ROOT:
        return AT_THE_ROOT[path]
    return path.removeprefix("docs/") if is_of_docs(path) else f"repository/{path}.md"


def is_of_docs(path):
    """Whether MkDocs takes it by itself."""
    return path.startswith("docs/") and not path.startswith("docs/site/")


def text_of(path):
    file = ROOT / path
    if path.endswith(".md"):
        return file.read_text(encoding="utf-8")
    if file.is_dir():
        names = sorted(entry.name + "/" * entry.is_dir() for entry in os.scandir(file) if entry.name[0] not in "._")
        return listing(path, "\n".join(names), "text")
    if file.suffix == ".ipynb":
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        return "\n\n".join("".join(cell["source"]) if cell["cell_type"] == "markdown" else
                           fenced("".join(cell["source"]), "python") for cell in cells)
    return listing(path, file.read_text(encoding="utf-8"), LANGUAGES.get(file.suffix, "text"))


def listing(path, text, language):
    return f"---\nsearch:\n  exclude: true\n---\n# `{path}`\n\n{fenced(text, language)}\n"


def fenced(text, language):
    return f"~~~~~~{language}\n{text}\n~~~~~~"


def reference():
    """Every public name, below the module that it lives in, as `clickwise/__init__.py` lists them."""
    tree = ast.parse((ROOT / "src" / "clickwise" / "__init__.py").read_text(encoding="utf-8"))
    (names,) = (ast.literal_eval(node.value) for node in tree.body
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_NAMES")
    parts = ["# Reference of the Python interface", "Names of `clickwise`: `import clickwise as cw`, `cw.fit`."]
    for module, members in names.items():
        parts.append(f"## `clickwise.{module}`")
        parts += [f"::: clickwise.{module}.{name}" for name in members]
    return "\n\n".join(parts)
