"""docs/add_a_dataset.md, as it stands there: its commands lead from the shipped tables to the AUC it promises, and its
dataset in code is prepared by its dotted path and trained on."""

from __future__ import annotations

import glob
import json
import random
import re
import shlex
import sys
from pathlib import Path

import pytest

from clickwise.data.columns import read_columns
from clickwise.feature_spec import FeatureSpec

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


def test_the_dataset_in_code_is_prepared_and_trained_on(clickwise, tmp_path, monkeypatch):
    dice = random.Random(0)
    ratings = [(time, dice.randrange(40), f"m{dice.randrange(30)}") for time in range(3000)]
    ratings = [(user, movie, 5 if int(movie[1:]) % 3 else 2, time) for time, user, movie in ratings]
    lines = ["user,movie,stars,time", *(",".join(map(str, row)) for row in dice.sample(ratings, len(ratings)))]
    (tmp_path / "ratings.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/ratings.py").write_text(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1))
    (tmp_path / "ratings.yaml").write_text(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[-1])
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_package", "my_package.ratings"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    prepare, train = (shlex.split(line)[1:] for line in COMMANDS[2])
    result = clickwise(*prepare)
    assert result.code == 0 and "clickwise train RECIPE data.path=prepared/ratings" in result.err, result.err
    spec = FeatureSpec.load(tmp_path / "prepared/ratings")
    for mapping, part in (("train", ratings[:2400]), ("validation", ratings[2400:2700]), ("test", ratings[2700:])):
        liked = read_columns(spec, mapping).arrays["liked"]
        assert sorted(liked) == sorted(stars == 5 for _, _, stars, _ in part)
        assert mapping == "train" or liked.tolist() == [stars == 5 for _, _, stars, _ in part]
    assert clickwise(*prepare).err.count("already prepared") == 1
    result = clickwise(*train, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["mappings"]["test"]["auc"] > 0.9
