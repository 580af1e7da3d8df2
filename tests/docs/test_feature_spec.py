"""The example of docs/feature_spec.md, as it stands there, is transcoded, trained on and used for predictions."""

from __future__ import annotations

import csv
import json
import random
import re

import yaml
from pages import ROOT, blocks_of, commands_of

PAGE = (ROOT / "docs" / "feature_spec.md").read_text(encoding="utf-8")


def row(dice: random.Random) -> dict[str, object]:
    return {"clicked": int(dice.random() < 0.3), "age": dice.randint(18, 80), "price": round(dice.random() * 9, 2),
            "city": dice.randrange(20), "session": dice.randrange(30),
            "tags": "|".join(str(dice.randrange(500)) for _ in range(dice.randrange(9)))}


def command(word: str, **changes: str) -> list[str]:
    """The words of the page's command, those in `changes` replaced."""
    (words,) = [words for block in blocks_of(ROOT / "docs/feature_spec.md") if block.language == "bash"
                for words in commands_of(block.text) if words[0] == word]
    return [changes.get(word, word) for word in words]


def test_the_example_of_the_page_works(clickwise, tmp_path):
    text = re.search(r"```yaml\n(feature_spec:.*?)```", PAGE, re.DOTALL).group(1)
    spec, dice = yaml.safe_load(text), random.Random(1)
    folder = tmp_path / "my_data"
    folder.mkdir()
    (folder / "feature_spec.yaml").write_text(text)
    for (chunk,) in spec["source_spec"].values():
        for name in chunk["files"]:
            rows = [row(dice) for _ in range(100)]
            (folder / name).write_text("".join(
                ",".join(str(row[feature]) for feature in chunk["features"]) + "\n" for row in rows))
    assert clickwise(*command("transcode")).code == 0
    result = clickwise(*command("train"), "train.epochs=1", "--json")
    assert result.code == 0, result.err
    run = json.loads(result.out)["run"]

    rows = [row(dice) for _ in range(40)]
    with open(tmp_path / "new.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["session", "tags", "city", "price", "age"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    result = clickwise(*command("predict", **{"runs/my_columns-dlrm": run}))
    assert result.code == 0, result.err
    scored = list(csv.DictReader(open(tmp_path / "scored.csv")))
    assert [int(line["session"]) for line in scored] == [row["session"] for row in rows]
    assert all(0 < float(line["probability"]) < 1 for line in scored)
