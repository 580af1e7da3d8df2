"""The public names are typed: a script of a user's passes mypy --strict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "typed" / "user_script.py"


@pytest.mark.slow
def test_a_users_script_passes_mypy_strict(tmp_path):
    code = SCRIPT.read_text(encoding="utf-8")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(code + "\n\nx: int = cw.fit(1, label=2)\n", encoding="utf-8")
    for file, expected in ((SCRIPT, 0), (wrong, 1)):
        command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == expected, done.stdout + done.stderr
    assert "user_script" not in done.stdout and done.stdout.count("wrong.py") == 2, done.stdout
