"""What happened during training: loss, metrics, learning rate and speed over steps, of one run or of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clickwise.report.page import figure, number
from clickwise.report.plot import Plot, linear_axis
from clickwise.report.run import Run

POINTS = 300  # of a drawn line; more are averaged, which the width of a plot would do anyway


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most POINTS points, each the mean of neighbouring ones."""
    if len(x) <= POINTS:
        return x, y
    starts = np.linspace(0, len(x), POINTS, endpoint=False).astype(int)
    counts = np.diff(starts, append=len(x))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def smoothed(y: np.ndarray) -> np.ndarray:
    """The mean of each value and its neighbours, a tenth of the curve in all (less at the ends)."""
    half = max(len(y) // 20, 1)
    sums = np.concatenate(([0.0], np.cumsum(y)))
    low, high = np.maximum(np.arange(len(y)) - half, 0), np.minimum(np.arange(len(y)) + half + 1, len(y))
    return (sums[high] - sums[low]) / (high - low)


def usual_range(values: np.ndarray) -> np.ndarray:
    """The least value and nearly the greatest: the first steps of a loss curve would flatten all the rest."""
    return np.array([values.min(), np.quantile(values, 0.98)]) if len(values) else values


def loss_curve(run: Run) -> str:
    steps, losses = thinned(*run.curve("train", "loss"))
    evaluated = [(mapping, *run.curve("eval", "log_loss", mapping)) for mapping in mappings(run)]
    evaluated = [(mapping, at, values) for mapping, at, values in evaluated if len(at)]
    if not len(steps) and not evaluated:
        return ""
    x = linear_axis("step", np.concatenate([[0], steps, *(at for _, at, _ in evaluated)]))
    y = linear_axis("", np.concatenate([usual_range(losses), *(values for *_, values in evaluated)]), pad=0.05)
    plot, keys = Plot(x, y, "Loss over training steps"), []
    if len(steps):
        rough = len(steps) > 40
        plot.line(steps, losses, 0, "faint" if rough else "line")
        if rough:
            plot.line(steps, smoothed(losses), 0)
        keys.append((0, "training loss"))
    for series, (mapping, at, values) in enumerate(evaluated, start=1):
        plot.line(at, values, series).dots(at, values, series, titles(at, values))
        keys.append((series, f"{mapping} log loss"))
    return figure("Loss", plot.svg(), keys=keys)


def auc_curve(run: Run) -> str:
    curves = [(mapping, *run.curve("eval", "auc", mapping)) for mapping in mappings(run)]
    curves = [(mapping, at, values) for mapping, at, values in curves if len(at)]
    latest = thinned(*run.curve("train", "train_auc"))
    if not curves and not len(latest[0]):
        return ""
    kept = run.facts and run.facts.checkpoint_step
    x = linear_axis("step", np.concatenate([[0], latest[0], *(at for _, at, _ in curves)]))
    y = linear_axis("", np.concatenate([latest[1], *(values for *_, values in curves)]), pad=0.08)
    plot, keys = Plot(x, y, "AUC over training steps"), []
    if len(latest[0]):
        plot.line(*latest, 0)
        keys.append((0, "latest training samples"))
    for series, (mapping, at, values) in enumerate(curves, start=1):
        plot.line(at, values, series).dots(at, values, series, titles(at, values))
        chosen = at == kept
        plot.dots(at[chosen], values[chosen], series, titles(at[chosen], values[chosen]), radius=6)
        keys.append((series, mapping))
    return figure("AUC", plot.svg(), keys=keys,
                  note="" if kept is None else "The large dot is the checkpoint that was kept.")


def plain_curve(run: Run, name: str, title: str, label: str, *, from_zero: bool = False) -> str:
    """A value of the training lines; nothing where it was not logged or never changed."""
    steps, values = thinned(*run.curve("train", name))
    if len(steps) < 2 or np.ptp(values) == 0:
        return ""
    y = linear_axis(label, [*values, *([0.0] if from_zero else [])], pad=0.0 if from_zero else 0.05)
    plot = Plot(linear_axis("step", [0, *steps]), y, f"{title} over training steps")
    return figure(title, plot.line(steps, values, 0).svg())


def overlaid(runs: Sequence[Run], names: Sequence[str], kind: str, name: str, title: str,
             label: str = "", from_zero: bool = False) -> str:
    """One curve per run; nothing if no run has it."""
    curves = []
    for series, run in enumerate(runs):
        mapping = guide(run) if kind == "eval" else None
        steps, values = thinned(*run.curve(kind, name, mapping))
        if len(steps):
            curves.append((series, steps, smoothed(values) if kind == "train" and len(steps) > 40 else values))
    if not curves:
        return ""
    x = linear_axis("step", np.concatenate([[0], *(steps for _, steps, _ in curves)]))
    if from_zero:
        y = linear_axis(label, [0, *(1.05 * values.max() for *_, values in curves)])
    else:
        y = linear_axis(label, np.concatenate([usual_range(v) if kind == "train" else v for *_, v in curves]), pad=0.05)
    plot = Plot(x, y, f"{title} of {len(curves)} runs over training steps")
    for series, steps, values in curves:
        plot.line(steps, values, series, "line" if series < 8 else "dashed")
        if kind == "eval":
            plot.dots(steps, values, series, titles(steps, values))
    return figure(title, plot.svg(), keys=[(series, names[series]) for series, *_ in curves])


def mappings(run: Run) -> list[str]:
    return list(dict.fromkeys(line["mapping"] for line in run.lines if "mapping" in line))


def guide(run: Run) -> str | None:
    """The mapping that was evaluated during training."""
    return next((line["mapping"] for line in run.of_kind("eval") if "mapping" in line), None)


def titles(steps: np.ndarray, values: np.ndarray) -> list[str]:
    return [f"step {step:,.0f}: {number(value)}" for step, value in zip(steps, values, strict=True)]
