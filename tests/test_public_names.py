import subprocess
import sys

import pytest

import clickwise as package


@pytest.mark.parametrize("name", package.__all__)
def test_every_public_name_is_there(name):
    assert getattr(package, name) is not None and name in dir(package)


def test_others_are_not():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def test_importing_the_package_is_light():
    code = "import sys, clickwise; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'pyarrow', 'ibis')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
