"""The table of a run's columns: what each was taken for and why, and first those that a person should check."""

from __future__ import annotations

from html import escape

from clickwise.report.page import cell, percent, section, table
from clickwise.report.run import Run

MOST = 200  # columns that are shown


def columns(run: Run) -> str:
    """A section; nothing where the data were not prepared from a table."""
    if not run.columns:
        return ""
    shown = dict(sorted(run.columns.items(), key=lambda item: not item[1]["check"])[:MOST])
    mapping = next((mapping for column in run.columns.values() for mapping in reversed(column["without_an_id"])), "")
    groups = [("Please check", [_row(name, column, mapping) for name, column in shown.items() if column["check"]]),
              ("The others", [_row(name, column, mapping) for name, column in shown.items() if not column["check"]])]
    if not groups[0][1]:
        groups = [("", groups[1][1])]
    left = f" {len(run.columns) - MOST:,} columns are not shown." if len(run.columns) > MOST else ""
    of = f", {mapping}" if mapping else ""
    head = ("column", "taken as", "ids", f"missing{of}", f"no id{of}", "why")
    return section("Columns", table(head, groups, kind="columns"), note=(
        "“no id” is the share of rows whose value is missing, rare, or not among the training rows." + left))


def _row(name: str, column: dict, mapping: str) -> list[str]:
    ids, shares = column["ids"], [column["missing"].get(mapping), column["without_an_id"].get(mapping)]
    why = escape(column["why"]) + (f"<br><b>{escape(column['check'])}</b>" if column["check"] else "")
    return [cell(name), cell(column["channel"].replace("_", " ")), cell("" if ids is None else f"{ids:,}"),
            *(cell("" if share is None else percent(share)) for share in shares), f'<td class="text">{why}</td>']
