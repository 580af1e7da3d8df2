"""The commands of docs/add_a_dataset.md, as they stand there, lead from the shipped tables to the AUC it promises."""

from __future__ import annotations

import glob
import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add_a_dataset.md").read_text(encoding="utf-8")
COMMANDS = [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize(("number", "title"), [(0, "Adult"), (1, "Flights")])
def test_four_commands_from_a_table_to_its_auc(clickwise, tmp_path, number, title):
    (tmp_path / "data").symlink_to(ROOT / "data")
    assert len(COMMANDS[number]) == 4
    for line in COMMANDS[number]:
        words = shlex.split(line)
        assert words[0] == "clickwise"
        words = [path for word in words[1:] for path in (glob.glob(word) if "*" in word else [word])]
        result = clickwise(*words, *(["--json"] if words[0] == "evaluate" else []))
        assert result.code == 0, result.err
    promised, spread = map(float, re.search(rf"^\| {title} .*?\| (0\.\d+) ± (0\.\d+)", PAGE, re.MULTILINE).groups())
    assert json.loads(result.out)["metrics"]["auc"] > promised - max(0.005, 3 * spread)


def test_the_draft_reads_as_the_page_shows_it(clickwise, tmp_path):
    (tmp_path / "data").symlink_to(ROOT / "data")
    result = clickwise(*shlex.split(COMMANDS[0][0])[1:])
    assert COMMANDS[0][1] in result.out
    shown = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL).group(1)
    draft = (tmp_path / "adult" / "feature_spec.yaml").read_text(encoding="utf-8")
    for line in shown.splitlines():
        assert line.strip() == "..." or line.strip() in draft
