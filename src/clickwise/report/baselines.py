"""The model beside baselines on the same rows, and what is suspicious about it."""

from __future__ import annotations

from html import escape
from typing import Any

from clickwise.report.page import cell, number, section, table
from clickwise.report.run import Run, is_number

NAMES = {"model": "this model", "constant": "constant", "logistic_regression": "logistic regression",
         "boosted_trees": "boosted trees"}
COLUMNS = {"auc": "AUC", "log_loss": "log loss"}


def warnings(run: Run) -> str:
    return "".join(f'<p class="warn">{escape(text)}.</p>' for text in run.baselines.get("warnings", ()))


def baselines(run: Run) -> str:
    """A section; nothing where none were measured."""
    found = run.baselines
    if not found:
        return ""
    rows = [[cell(NAMES.get(name, name)), *(cell(_shown(values.get(column))) for column in COLUMNS)]
            for name, values in found["results"].items()]
    rows += [[cell(NAMES.get(name, name)), f'<td class="text" colspan="{len(COLUMNS)}">not measured: '
              f"{escape(reason)}</td>"] for name, reason in found["not_measured"].items()]
    measured, learned = _part(found["rows"], found["of"]), _part(found["train_rows"], found["of_train"])
    return section(f"Baselines, on {found['mapping']}", table(("", *COLUMNS.values()), [("", rows)]), note=(
        f"Measured on {measured}; baselines learn from {learned} of training: numbers and ids as prepared, no "
        "histories. The constant is the share of clicks in training."))


def _shown(value: Any) -> str:
    return number(value) if is_number(value) else "–"


def _part(rows: int, of: int) -> str:
    return f"all {of:,} rows" if rows == of else f"{rows:,} of {of:,} rows, spread evenly,"
