"""Plots as inline SVG: marks on two axes, coloured by the page's style sheet, so that light and dark need no redraw."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 380, 262
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 10, 42
SERIES = 8  # colours in the style sheet


@dataclasses.dataclass(frozen=True)
class Axis:
    """What is shown from `low` to `high`, with ticks as (value, text)."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]


def linear_axis(label: str, values: Iterable[float], *, pad: float = 0.0) -> Axis:
    """An axis that holds the finite `values`, widened by the share `pad` of their range; about five round ticks."""
    values = np.asarray(list(values), float)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if high <= low:
        low, high = low - (abs(low) * 0.05 or 0.5), high + (abs(high) * 0.05 or 0.5)
    low, high = low - pad * (high - low), high + pad * (high - low)
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    ticks = [round(step * (first + i), 12) for i in range(int((high - first * step) / step + 1e-9) + 1)]
    return Axis(label, low, high, tuple((tick, short(tick, step)) for tick in ticks))


def probability_axis(label: str, low: float, high: float) -> Axis:
    """An axis of logits from `low` to `high` whose ticks are probabilities, with room between them."""
    shares = [1e-6, 1e-5, 1e-4, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.999, 0.9999]
    ticks: list[tuple[float, str]] = []
    for share in shares:
        logit = math.log(share / (1 - share))
        if low <= logit <= high and (not ticks or logit - ticks[-1][0] > (high - low) / 9):
            ticks.append((logit, f"{share * 100:.10g} %"))
    return Axis(label, low, high, tuple(ticks))


def short(value: float, step: float = 0.0) -> str:
    """`12k`, `1.5M`, `0.025`: with as many digits as ticks `step` apart need."""
    if not value:
        return "0"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if max(abs(value), step) >= size:
            return f"{value / size:.6g}{letter}"
    if step >= 1 or not step:
        return f"{value:.6g}"
    if abs(step) < 1e-4:
        return f"{value:.1e}"
    digits = -math.floor(math.log10(step) + 1e-9)
    return f"{value:.{digits + (round(step * 10**digits, 6) % 1 != 0)}f}"


class Plot:
    """Marks are drawn in the order of the calls; `svg()` returns the picture. Series are colours 0 … 7."""

    def __init__(self, x: Axis, y: Axis, description: str) -> None:
        self.x, self.y, self.description = x, y, description
        self.marks: list[str] = []
        self.dotted: list[str] = []  # not clipped: a dot on the border is drawn whole

    def points(self, x, y) -> list[tuple[float, float]]:
        across = (np.asarray(x, float) - self.x.low) / (self.x.high - self.x.low)
        up = (np.asarray(y, float) - self.y.low) / (self.y.high - self.y.low)
        across, up = np.clip(across, -9, 10), np.clip(up, -9, 10)
        return [(LEFT + float(a) * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - float(u) * (HEIGHT - TOP - BOTTOM))
                for a, u in zip(across, up, strict=True)]

    def line(self, x, y, series: int, style: str = "line") -> Plot:
        """A line through the points; styles: line, faint, dashed, guide."""
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in self.points(x, y))
        self.marks.append(f'<polyline class="{style} s{series % SERIES}" points="{points}"/>')
        return self

    def area(self, x, y, series: int) -> Plot:
        """The area between the points and zero, below a line."""
        points = self.points([x[0], *x, x[-1]], [0, *y, 0])
        self.marks.append(f'<polygon class="area s{series % SERIES}" points="'
                          + " ".join(f"{a:.1f},{b:.1f}" for a, b in points) + '"/>')
        return self.line(x, y, series)

    def dots(self, x, y, series: int, titles: Sequence[str] = (), *, radius: float = 3) -> Plot:
        """Points, those outside the axes left out; the titles appear under a resting pointer."""
        titles = titles or [""] * len(x)
        for (a, b), title in zip(self.points(x, y), titles, strict=True):
            if LEFT - 1 <= a <= WIDTH - RIGHT + 1 and TOP - 1 <= b <= HEIGHT - BOTTOM + 1:
                self.dotted.append(f'<circle class="dot s{series % SERIES}" cx="{a:.1f}" cy="{b:.1f}" r="{radius}">'
                                   f"<title>{escape(title)}</title></circle>")
        return self

    def whiskers(self, x, low, high, series: int) -> Plot:
        """Vertical lines from `low` to `high`."""
        for (a, b), (_, c) in zip(self.points(x, low), self.points(x, high), strict=True):
            self.marks.append(f'<line class="whisker s{series % SERIES}" x1="{a:.1f}" x2="{a:.1f}" y1="{b:.1f}" '
                              f'y2="{c:.1f}"/>')
        return self

    def svg(self) -> str:
        right, bottom, middle = WIDTH - RIGHT, HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
        grid = []
        for (a, _), (_, text) in zip(self.points([t for t, _ in self.x.ticks], [0] * len(self.x.ticks)), self.x.ticks,
                                     strict=True):
            grid.append(f'<line class="grid" x1="{a:.1f}" x2="{a:.1f}" y1="{TOP}" y2="{bottom}"/>'
                        f'<text class="tick" text-anchor="middle" x="{a:.1f}" y="{bottom + 16}">{escape(text)}</text>')
        for (_, b), (_, text) in zip(self.points([0] * len(self.y.ticks), [t for t, _ in self.y.ticks]), self.y.ticks,
                                     strict=True):
            grid.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{b:.1f}" y2="{b:.1f}"/>'
                        f'<text class="tick" text-anchor="end" x="{LEFT - 6}" y="{b + 4:.1f}">{escape(text)}</text>')
        names = (f'<text class="axis" text-anchor="middle" x="{(LEFT + right) / 2}" y="{HEIGHT - 6}">'
                 f"{escape(self.x.label)}</text>")
        if self.y.label:
            names += (f'<text class="axis" text-anchor="middle" transform="translate(11 {middle}) rotate(-90)">'
                      f"{escape(self.y.label)}</text>")
        # An inner svg clips what lies outside the axes, without an id that two plots of a page would share.
        inner = (f'<svg x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}" '
                 f'viewBox="{LEFT} {TOP} {right - LEFT} {bottom - TOP}">{"".join(self.marks)}</svg>')
        return (f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.description)}">'
                f'{"".join(grid)}{names}{inner}{"".join(self.dotted)}</svg>')
