"""What the model predicts: ROC, reliability, scores of clicks and of non-clicks, and metrics by feature value."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from clickwise.report.page import brief, cell, figure, number, percent, table
from clickwise.report.plot import SERIES, Plot, linear_axis, probability_axis

GROUPS = 20  # of the reliability plot
CELLS = 64  # of the histogram
Z95 = 1.96


def roc(scores: dict[str, np.ndarray], auc: float | None) -> str:
    if (points := _roc_points(scores)) is None:
        return ""
    plot = _roc_plot("ROC curve").area(*points, 0)
    return figure("ROC", plot.svg(), keys=[] if auc is None else [(0, f"AUC {number(auc)}")])


def rocs(scores: Sequence[dict[str, np.ndarray] | None], names: Sequence[str]) -> str:
    """The curves of several runs over each other; nothing where no run has one."""
    curves = [(series, points) for series, material in enumerate(scores)
              if material and (points := _roc_points(material)) is not None]
    if not curves:
        return ""
    plot = _roc_plot(f"ROC curves of {len(curves)} runs")
    for series, points in curves:
        plot.line(*points, series, "line" if series < SERIES else "dashed")
    return figure("ROC", plot.svg(), keys=[(series, names[series]) for series, _ in curves])


def _roc_points(scores: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """False and true positive rates; None where one of the two classes is not there."""
    clicks, others = scores["clicks"][::-1].cumsum(), (scores["rows"] - scores["clicks"])[::-1].cumsum()
    if not clicks[-1] or not others[-1]:
        return None
    true_rate, false_rate = np.append(0, clicks / clicks[-1]), np.append(0, others / others[-1])
    moved = np.append(True, (np.diff(true_rate) > 0) | (np.diff(false_rate) > 0))
    return false_rate[moved], true_rate[moved]


def _roc_plot(description: str) -> Plot:
    plot = Plot(linear_axis("false positive rate", [0, 1]), linear_axis("true positive rate", [0, 1]), description)
    return plot.line([0, 1], [0, 1], 7, "guide")


def reliability(scores: dict[str, np.ndarray]) -> str:
    """Observed against predicted rate of clicks, in groups of about equally many impressions, with Wilson intervals."""
    group = np.minimum(scores["rows"].cumsum() * GROUPS // max(scores["rows"].sum(), 1), GROUPS - 1)
    rows, clicks, predicted = (np.bincount(group, scores[name], GROUPS) for name in ("rows", "clicks", "predicted"))
    rows, clicks, predicted = rows[rows > 0], clicks[rows > 0], predicted[rows > 0]
    if not len(rows):
        return ""
    rate = clicks / rows
    middle = (rate + Z95**2 / (2 * rows)) / (1 + Z95**2 / rows)
    reach = Z95 / (1 + Z95**2 / rows) * np.sqrt(rate * (1 - rate) / rows + Z95**2 / (4 * rows**2))
    expected = logit(predicted / rows)
    shown = np.concatenate([expected, logit(rate[(rate > 0) & (rate < 1)])])
    low, high = shown.min() - 0.3, shown.max() + 0.3
    plot = Plot(probability_axis("predicted rate of clicks", low, high),
                probability_axis("observed rate", low, high), "Reliability of the predicted probabilities")
    plot.line([low, high], [low, high], 7, "guide")
    plot.whiskers(expected, logit(middle - reach), logit(middle + reach), 0)
    plot.dots(expected, logit(rate), 0, [f"{n:,.0f} impressions: predicted {percent(p / n)}, observed {percent(c / n)}"
                                         for n, c, p in zip(rows, clicks, predicted, strict=True)], radius=3.5)
    return figure("Reliability", plot.svg(), keys=[(0, "observed, with 95 % interval")])


def histogram(scores: dict[str, np.ndarray]) -> str:
    """The densities of the scores of clicks and of non-clicks."""
    rows, clicks, edges = scores["rows"], scores["clicks"], np.clip(scores["edges"], -40, 40)
    if not rows.sum():
        return ""
    low = edges[np.searchsorted(rows.cumsum(), 0.001 * rows.sum())]
    high = edges[np.searchsorted(rows.cumsum(), 0.999 * rows.sum()) + 1]
    cells = np.linspace(low - 0.1, high + 0.1, CELLS + 1)
    curves = []
    for series, name, counts in ((7, "no click", rows - clicks), (0, "click", clicks)):
        if counts.sum():
            below = np.interp(cells, edges, np.append(0, counts.cumsum()))  # bins are split where a cell cuts them
            curves.append((series, name, np.diff(below) / np.diff(cells) / counts.sum()))
    y = linear_axis("density", [0, 1.05 * max(density.max() for *_, density in curves)])
    plot = Plot(probability_axis("predicted probability of a click", cells[0], cells[-1]), y,
                "Scores of clicks and of non-clicks")
    for series, _, density in curves:
        plot.area(np.repeat(cells, 2)[1:-1], np.repeat(density, 2), series)
    return figure("Scores by label", plot.svg(), keys=[(series, name) for series, name, _ in curves])


def slices(scores: dict[str, np.ndarray]) -> str:
    """Metrics by value of the followed features."""
    if not len(scores.get("slices/rows", ())):
        return ""
    part = {name: scores[f"slices/{name}"] for name in
            ("feature", "value", "rows", "clicks", "predicted", "loss", "auc")}
    groups: dict[str, list[list[str]]] = {}
    total = scores["rows"].sum()
    for feature, value, rows, clicks, predicted, loss, auc in zip(*part.values(), strict=True):
        deviation = math.sqrt(max(predicted * (1 - predicted / rows), 1))
        groups.setdefault(str(feature), []).append([
            cell(str(value)), cell(brief(rows), share=rows / total), cell(percent(clicks / rows)),
            cell(percent(predicted / rows)),
            cell(number(predicted / clicks if clicks else None, 3),
                 "off" if abs(predicted - clicks) > 3 * deviation else ""),
            cell(number(auc, 4)), cell(number(loss / rows, 4))])
    head = ("value", "impressions", "clicks", "predicted", "calibration", "AUC", "log loss")
    return table(head, list(groups.items()))


def logit(rate: np.ndarray) -> np.ndarray:
    rate = np.clip(rate, 1e-9, 1 - 1e-9)  # rates of 0 and 1 have a place as well, far outside
    return np.log(rate) - np.log1p(-rate)
