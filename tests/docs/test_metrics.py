"""The page on metrics: its names are metrics, and every metric is on it."""

from __future__ import annotations

import re
from pathlib import Path

from clickwise.metrics import METRICS, build_metrics

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_names_are_metrics_and_every_metric_is_there():
    first_cells = re.findall(r"^\| (`[^|]*`) \|", PAGE, re.MULTILINE)
    names = [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]
    names += re.search(r"^metrics: \[(.*)\]", PAGE, re.MULTILINE)[1].split(", ")
    found = build_metrics(dict.fromkeys(names))
    assert {type(metric) for metric in found.values()} == set(METRICS.values())


def test_the_best_value_is_the_one_of_the_class():
    for name, ideal in re.findall(r"^\| `(\w+)` \|[^|]*\| ([01]) \|$", PAGE, re.MULTILINE):
        assert build_metrics([name])[name].ideal == float(ideal)
