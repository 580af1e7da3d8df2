import ast
import subprocess
import sys
from pathlib import Path

import pytest

import clickwise as package


@pytest.mark.parametrize("name", package.__all__)
def test_every_public_name_is_there(name):
    assert getattr(package, name) is not None and name in dir(package)


def test_type_checkers_see_the_same_names():
    """What stands under TYPE_CHECKING is never run: it is held against what is."""
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname or alias.name: (node.module, alias.name) for node in block.body for alias in node.names}
    assert seen.pop("metrics") == ("clickwise", "metrics")  # a module
    assert seen == package._SOURCES


def test_others_are_not():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def test_importing_the_package_is_light():
    code = "import sys, clickwise; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'pyarrow', 'ibis')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
