"""docs/raw_rows.md, as it stands there: its commands and its Python lead from a shipped table to scores of raw rows."""

from __future__ import annotations

import csv
import glob
import gzip
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "raw_rows.md").read_text(encoding="utf-8")
FIRST, FURTHER = (block.splitlines() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))


def test_the_page(clickwise, tmp_path):
    def run(line):
        words = shlex.split(line)
        assert words[0] == "clickwise"
        words = [path for word in words[1:] for path in (glob.glob(word) if "*" in word else [word])]
        result = clickwise(*words)
        assert result.code == 0, result.err
        return result

    (tmp_path / "data").symlink_to(ROOT / "data")
    with gzip.open(ROOT / "data/adult/adult.csv.gz", "rt") as file:
        names, *rows = csv.reader(file)
    with open(tmp_path / "new.csv", "w", newline="") as file:
        csv.writer(file).writerows([names, *rows[:500]])
    for line in filter(lambda line: line.startswith("clickwise "), FIRST):
        said = run(line).out
    (scored,) = tmp_path.glob("runs/columns-dcnv2/*/predictions/new.csv.parquet")
    assert str(scored.relative_to(tmp_path)) in said
    scores = pq.read_table(scored)
    assert scores["occupation"].to_pylist() == [row[names.index("occupation")] for row in rows[:500]]
    found = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1), found)
    assert set(found["one"]) == set(found["many"]) and found["one"]["workclass"] > 0
    assert all(len(array) == 500 for array in found["many"].values())
    for line in FURTHER:
        run(line)
    again = pq.read_table(scored.with_name("input.parquet"))
    np.testing.assert_array_equal(again["logit"], scores["logit"])
