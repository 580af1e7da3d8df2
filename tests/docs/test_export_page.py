"""The commands and the Python of docs/export.md, as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

import clickwise as cw

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_command(tmp_path, clickwise):
    data = pd.read_csv(ROOT / "data/adult/adult.csv.gz")[:2000]
    model = cw.fit(data, label="income", positive=">50K", out=tmp_path / "fit", settings={
        "train.epochs": 1, "train.batch_size": 64, "model.top_mlp": [8], "model.cross_rank": 4})
    commands = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()
                if line.startswith("clickwise export")]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command.replace("runs/columns-dcnv2", str(model.folder)))
        assert words[0] == "clickwise"
        result = clickwise(*words[1:])
        assert result.code == 0, result.err
    for name in re.findall(r"^\| `(shop\w*)` \|", PAGE, re.M):
        assert sorted(path.name for path in (Path("models") / name).iterdir()) == ["1", "2", "config.pbtxt"]
    for name in re.findall(r"^\| `([\w.]+)`", PAGE.partition("## Triton")[0], re.M)[:5]:
        assert (Path("exported") / name).exists(), name
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    names: dict = {}
    exec(code, names)
    row = data.drop(columns="income")[:1]
    scored = names["model"].score(row.to_dict("records"))  # the page's own row has been scored above
    assert scored[0] == pytest.approx(model.predict_proba(row)[0], abs=1e-6)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
