"""The import table of the package: what may import what, read from the source of every file."""

from __future__ import annotations

import ast
import dataclasses
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "clickwise"

# Beneath level 0: words of everybody, which import nothing of ours but each other.
GROUND = {"__init__", "threads", "arrow_arrays", "arrow_files", "text_files", "text_scan", "json_lines", "time_format",
          "tables", "errors", "files", "progress", "memory", "memory_limits", "machine", "strict_yaml", "registry",
          "manifest", "given_files", "latest_run", "processes", "launch"}
# `recipe` gives the sections their strict checks, so that every station may import it.
STATIONS = {
    "recipe_keys": {"recipe"},
    "prepare": {"feature_spec", "encoding", "recipe"},
    "data": {"feature_spec", "batch", "recipe"},
    "embedding": {"feature_spec", "batch", "kernels", "checkpoint", "recipe"},
    "layers": {"kernels", "recipe"},
    "optim": {"kernels", "recipe"},
    "serve": {"feature_spec", "encoding", "batch", "checkpoint", "recipe"},
}
WORDS = {name: set() for name in ("feature_spec", "recipe", "encoding", "batch", "kernels", "metrics", "checkpoint")}
# `registry` turns names into what they stand for, which it imports by their path when asked.
LEVEL_2 = {
    "models": {"feature_spec", "batch", "kernels", "recipe", "layers", "embedding"},
    "train": {"batch", "recipe", "optim", "metrics", "checkpoint"},
    "baselines": {"feature_spec", "batch", "data", "metrics"},
}
BELOW_WIRING = {*WORDS, *STATIONS, *LEVEL_2}
WIRING = {"training_recipe": BELOW_WIRING - {"prepare"},
          "wiring": {*BELOW_WIRING, "training_recipe", "model_memory"} - {"prepare"},
          "model_memory": {"embedding", "training_recipe"},
          "run": {*BELOW_WIRING, "training_recipe", "model_memory", "wiring"} - {"prepare"},
          "export": {*BELOW_WIRING, "training_recipe", "wiring", "run"} - {"prepare"},
          "report": {"recipe", "feature_spec", "run"}}
WIRING["recipe_schema"] = {"recipe", "recipe_keys", "prepare", "training_recipe"}
DOOR = {name: {*BELOW_WIRING, *WIRING, "api", "cli", "verbs"} for name in ("api", "classifier", "cli", "verbs")}
TABLE = {**{name: set() for name in GROUND}, "__main__": {"cli"}, **WORDS, **STATIONS, **LEVEL_2, **WIRING, **DOOR}

TORCH_FREE = ("prepare", "feature_spec", "encoding", "recipe", "errors", "files", "progress", "report", "serve")
PREPARATION_LIBRARIES = {"duckdb", "ibis", "pyspark"}
ENGINES = {"reference", "fused", "sharded"}
FORBIDDEN_NAMES = {"utils", "util", "common", "helper", "helpers", "manager", "base", "core", "misc", "impl", "v2"}


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported name: the module `target` (dotted), and where the statement stands."""

    file: Path
    line: int
    target: str

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def part(self) -> str:
        """The part of ours that is imported (`data`, `spec`, …); "" for a foreign module."""
        names = self.target.split(".")
        return "" if names[0] != "clickwise" else names[1] if len(names) > 1 else "__init__"


@functools.cache
def imports_of(file: Path, package: Path) -> tuple[Import, ...]:
    return tuple(_imports_of(file, package))


def _imports_of(file: Path, package: Path) -> Iterator[Import]:
    """Every import of a file, also inside functions; `from a import b` counts as a.b where b is a module of ours. What
    stands under `if TYPE_CHECKING` is never run."""
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name)
                                                    and node.test.id == "TYPE_CHECKING")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                deeper = f"{module}.{alias.name}"
                yield Import(file, node.lineno, deeper if module_file(deeper, package) else module)


def module_file(module: str, package: Path) -> Path | None:
    """The file of a module of ours; None for any other name."""
    names = module.split(".")
    if names[0] != "clickwise":
        return None
    path = package.joinpath(*names[1:])
    for file in (path / "__init__.py", path.with_suffix(".py") if len(names) > 1 else path / "__init__.py"):
        if file.exists():
            return file
    return None


def part_of(file: Path, package: Path) -> str:
    return file.relative_to(package).with_suffix("").parts[0]


def sources(package: Path) -> list[Path]:
    return [file for file in sorted(package.rglob("*.py")) if "shipped" not in file.relative_to(package).parts]


def table_violations(package: Path) -> Iterator[str]:
    for file in sources(package):
        part = part_of(file, package)
        if part not in TABLE:
            yield f"{file}: the part {part!r} is not in the import table; give it a level there, or another place"
            continue
        for found in imports_of(file, package):
            if found.target.startswith("."):
                yield f"{found.place}: the relative import {found.target!r}; write it from clickwise"
            allowed = {part, *GROUND, *TABLE[part]}
            if found.part and found.part not in allowed:
                may = ", ".join(sorted(TABLE[part] - {part})) or "no other part of ours"
                yield f"{found.place}: {part} imports {found.target}; {part} may import {may}"


def engine_violations(package: Path) -> Iterator[str]:
    for file in sources(package):
        for found in imports_of(file, package):
            names = found.target.split(".")
            if part_of(file, package) in ("models", "train") and names[:2] == ["clickwise", "embedding"] \
                    and len(names) > 2 and names[2] in ENGINES:
                yield f"{found.place}: imports the engine {found.target}; models and train are given embeddings"


def preparation_violations(package: Path) -> Iterator[str]:
    for file in sources(package):
        part = part_of(file, package)
        if part == "prepare":
            continue
        top = {node.lineno for node in ast.parse(file.read_text(encoding="utf-8")).body}
        for found in imports_of(file, package):
            if found.target.split(".")[0] in PREPARATION_LIBRARIES and (part != "encoding" or found.line in top):
                yield f"{found.place}: imports {found.target}; only prepare may, since machines that train lack it, " \
                    "and the bulk forms of encoding when they are called"


def torch_violations(package: Path) -> Iterator[str]:
    """A chain of imports for every file of a torch-free part that reaches torch."""
    for start in sources(package):
        if part_of(start, package) not in TORCH_FREE:
            continue
        waiting, seen = [(start, ())], {start}
        while waiting:
            file, chain = waiting.pop()
            for found in imports_of(file, package):
                if found.target.split(".")[0] == "torch":
                    path = " -> ".join([*chain, found.place])
                    yield f"{path}: imports torch; {part_of(start, package)} must not, directly or through others"
                names = found.target.split(".")
                for depth in range(1, len(names) + 1):  # importing a.b.c runs a and a.b too
                    next_file = module_file(".".join(names[:depth]), package)
                    if next_file and next_file not in seen:
                        seen.add(next_file)
                        waiting.append((next_file, (*chain, found.place)))


def name_violations(package: Path) -> Iterator[str]:
    for path in sorted({*sources(package), *(file.parent for file in sources(package)) } - {package}):
        if path.stem in FORBIDDEN_NAMES:
            yield f"{path}: named {path.stem!r}, which says nothing; name it by what it holds"


RULES = [table_violations, engine_violations, preparation_violations, torch_violations, name_violations]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule):
    violations = list(rule(PACKAGE))
    assert not violations, "\n" + "\n".join(violations)


@pytest.mark.parametrize(("rule", "file", "source"), [
    (table_violations, "models/x.py", "from clickwise.data import columns"),
    (table_violations, "models/x.py", "def f():\n    import clickwise.train.loop"),
    (table_violations, "errors.py", "from clickwise.feature_spec import Feature"),
    (table_violations, "metrics/x.py", "from clickwise import kernels"),
    (table_violations, "wiring.py", "import clickwise.prepare"),
    (table_violations, "data/x.py", "from .columns import Columns"),
    (table_violations, "novelty.py", ""),
    (table_violations, "encoding/x.py", "from clickwise.data import columns"),
    (preparation_violations, "encoding/x.py", "import ibis"),
    (engine_violations, "models/x.py", "from clickwise.embedding import reference"),
    (engine_violations, "train/x.py", "from clickwise.embedding.reference import ReferenceEmbeddings"),
    (preparation_violations, "data/x.py", "def f():\n    import ibis.expr"),
    (torch_violations, "report.py", "from torch import nn"),
    (torch_violations, "prepare/x.py", "from clickwise.layers.deep import inner"),
    (name_violations, "data/utils.py", ""),
    (name_violations, "core/x.py", ""),
])
def test_a_rule_finds_what_breaks_it(tmp_path, rule, file, source):
    parts = {"__init__.py": "", "data/__init__.py": "", "data/columns.py": "", "embedding/__init__.py": "",
             "embedding/reference.py": "", "kernels/__init__.py": "", "layers/__init__.py": "",
             "layers/deep/__init__.py": "import torch", "layers/deep/inner.py": "", file: source}
    for name, text in parts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    violations = list(rule(tmp_path))
    assert len(violations) == 1
    assert str(Path(file)) in violations[0] or file.split("/")[0] in violations[0]


def test_a_clean_package_breaks_no_rule(tmp_path):
    (tmp_path / "__init__.py").write_text("import json\nfrom clickwise.errors import DataError")
    (tmp_path / "errors.py").write_text("")
    assert [violation for rule in RULES for violation in rule(tmp_path)] == []


@pytest.mark.parametrize("module", ["clickwise", "clickwise.cli", "clickwise.feature_spec", "clickwise.recipe",
                                    "clickwise.prepare", "clickwise.report"])
def test_importing_loads_no_heavy_library(module):
    if module_file(module, PACKAGE) is None:
        return
    heavy = ("torch", "ibis", "duckdb", "pyspark", *(("pyarrow",) if module != "clickwise.prepare" else ()))
    code = f"import sys, {module}; print(*[name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [], f"import {module} loads {result.stdout.strip()}"
