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
    assert "age: numerical: integers" in (out := capsys.readouterr().out)
    auc, folds = map(float, re.findall(r"^(0\.\d+)$", out, re.MULTILINE))
    assert auc > 0.9 and folds > 0.8
    assert (names["run"] / "DONE").exists() and (names["columns"] / "feature_spec.yaml").exists()


@pytest.mark.slow
def test_the_lines_of_the_readme(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    auc = float(capsys.readouterr().out.splitlines()[0])
    assert auc > 0.9 and len(code.strip().splitlines()) <= 10
    assert (names["cw"].load("adult_model").predict_proba(names["people"][-5000:]) == names["probability"]).all()
