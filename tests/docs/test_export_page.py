"""The commands and the Python of docs/export.md, as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

import clickwise as cw

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_command(tmp_path, clickwise):
    data = pd.DataFrame({"user_id": [7, 8, 9, 7] * 60, "video_id": [3, 4, 5, 6] * 60, "tab": [1, 2, 1, 1] * 60,
                         "click": [1, 0, 0, 1] * 60})
    model = cw.fit(data, label="click", categorical=["user_id", "video_id", "tab"], out=tmp_path / "fit", settings={
        "train.epochs": 1, "train.batch_size": 64, "model.top_mlp": [8], "model.cross_rank": 4})
    commands = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command.replace("RUN", str(model.folder)))
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
    row = {"user_id": 7, "video_id": 3, "tab": 1}
    assert names["model"].score([row])[0] == pytest.approx(model.predict_proba(pd.DataFrame([row]))[0], abs=1e-6)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / target).exists(), target
