"""docs/python.md, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_page(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    auc, folds = map(float, re.findall(r"^(0\.\d+)$", capsys.readouterr().out, re.MULTILINE))
    assert auc > 0.9 and folds > 0.8
    assert (names["run"] / "DONE").exists() and (names["columns"] / "feature_spec.yaml").exists()
