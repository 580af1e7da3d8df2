"""The HTML page around the report's parts: style sheet, cards, tables, figures, numbers as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from clickwise.strict_yaml import dump_line

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --text: #1c2330; --soft: #626d7f; --rule: #dfe3ea;
  --mark: #b3261e; --bar: #e3ebf7; --c0: #2563c9; --c1: #d9730d; --c2: #1f8a5b; --c3: #b8338a; --c4: #7a56d0;
  --c5: #0f8ea3; --c6: #a8850a; --c7: #69727f; }
@media (prefers-color-scheme: dark) { :root { --page: #12151b; --card: #1b2029; --text: #e6e9ef; --soft: #98a2b3;
  --rule: #303744; --mark: #ff8a80; --bar: #26344c; --c0: #6ea2ff; --c1: #ff9f4a; --c2: #4fcf95; --c3: #f27cc8;
  --c4: #ad93ff; --c5: #4cc9de; --c6: #e0bd45; --c7: #a9b2c0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; } main.broad { max-width: 1900px; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 36px 0 12px; }
p { margin: 4px 0; } .soft, .note { color: var(--soft); } .note { font-size: .82rem; }
.warn { border-left: 3px solid var(--c1); padding: 8px 12px; margin: 14px 0 0; background: var(--card); }
.cards { display: grid; gap: 12px; margin-top: 20px;
  grid-template-columns: repeat(auto-fit, minmax(max(138px, (100% - 84px) / var(--columns)), 1fr)); }
.card, figure, .box { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.card { padding: 12px 14px; } .card b { display: block; font-size: 1.5rem; line-height: 1.25; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .78rem; display: block; } .card span:first-child { white-space: nowrap; }
.figures { display: grid; gap: 14px; grid-template-columns:
  repeat(auto-fit, minmax(max(min(100%, 320px), (100% - 42px) / var(--columns)), 1fr)); }
.figures > figure:only-child { max-width: 540px; }
figure { margin: 0; padding: 12px 14px 10px; min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline;
  justify-content: flex-end; margin-bottom: 6px; }
figcaption b { font-weight: 650; margin-right: auto; }
.key { font-size: .82rem; color: var(--soft); overflow-wrap: anywhere; }
.key i { display: inline-block; width: 12px; height: 3px; border-radius: 2px; margin-right: 5px; vertical-align: middle;
  background: var(--c); }
.plot { display: block; width: 100%; height: auto; overflow: visible; }
.plot text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
.plot .grid { stroke: var(--rule); stroke-width: 1; }
.line, .faint, .dashed, .guide { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.faint { stroke-width: 1; opacity: .35; } .dashed { stroke-dasharray: 5 4; }
.guide { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 4; }
.area { fill: var(--c); opacity: .18; } .dot { fill: var(--c); stroke: var(--card); stroke-width: 1; }
.whisker { stroke: var(--c); stroke-width: 1.2; opacity: .6; }
.box { overflow-x: auto; } pre { margin: 0; padding: 14px; font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas,
  "DejaVu Sans Mono", monospace; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px; text-align: right; border-top: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 550; }
thead th { white-space: normal; vertical-align: bottom; overflow-wrap: anywhere; min-width: 84px; }
thead th, table > tbody:first-child > tr:first-child > td { border-top: 0; }
th:first-child, td:first-child, .left td, .left th { text-align: left; }
.left td { white-space: normal; overflow-wrap: anywhere; }
td.text { white-space: normal; min-width: 260px; }
.columns :is(th, td):is(:nth-child(2), :last-child) { text-align: left; }
td:first-child { max-width: 320px; white-space: normal; overflow-wrap: anywhere; }
td.value { white-space: normal; overflow-wrap: anywhere; }
tbody + tbody tr:first-child th { padding-top: 16px; } tbody th { color: var(--text); font-weight: 650; }
td.bar { background: linear-gradient(90deg, var(--bar) var(--share), transparent var(--share)); }
td.best { font-weight: 700; } td.off { color: var(--mark); }
@media (max-width: 560px) { main { padding: 18px 12px 40px; } .cards { grid-template-columns: 1fr 1fr; gap: 8px; }
  .card b { font-size: 1.25rem; } th, td { padding: 5px 8px; } td:first-child { max-width: 150px; } }
@media (min-width: 1000px) { .wide .plot text { font-size: 9.5px; } .wide .line { stroke-width: 1.5; } }
@media print { :root { --page: #fff; --card: #fff; --text: #000; --soft: #444; --rule: #bbb; --mark: #b3261e;
  --bar: #e3ebf7; --c0: #2563c9; --c1: #d9730d; --c2: #1f8a5b; --c3: #b8338a; --c4: #7a56d0; --c5: #0f8ea3;
  --c6: #a8850a; --c7: #69727f; } main { padding: 0; max-width: none; } pre { white-space: pre-wrap; }
  figure, .card, tr { break-inside: avoid; } .box { overflow: visible; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
""" + "".join(f".s{i} {{ --c: var(--c{i}); }}\n" for i in range(8))


def page(title: str, parts: Iterable[str], broad: bool = False) -> str:
    """A whole document that needs nothing from elsewhere; `broad` for tables of many columns."""
    breadth = ' class="broad"' if broad else ""
    return ('<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            f"<main{breadth}>\n"
            + "\n".join(part for part in parts if part) + "\n</main>\n</body>\n</html>\n")


def cards(items: Iterable[tuple[str, str, str]]) -> str:
    """Headline numbers in one row, or two equal ones: (number, what it is, a remark)."""
    items = list(items)
    columns = len(items) if len(items) <= 7 else (len(items) + 1) // 2
    return f'<div class="cards" style="--columns: {max(columns, 1)}">' + "".join(
        f'<div class="card"><span>{escape(name)}</span><b>{escape(number)}</b><span>{escape(remark)}</span></div>'
        for number, name, remark in items) + "</div>"


def figure(title: str, svg: str, *, keys: Sequence[tuple[int, str]] = (), note: str = "") -> str:
    """A plot with its title and a key: (series, name)."""
    named = "".join(f'<span class="key s{series % 8}"><i></i>{escape(name)}</span>' for series, name in keys)
    note = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<figure><figcaption><b>{escape(title)}</b>{named}</figcaption>{svg}{note}</figure>"


def section(title: str, *parts: str, note: str = "") -> str:
    """Parts under a heading; nothing if there are none."""
    parts = [part for part in parts if part]
    if not parts:
        return ""
    note = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}{note}</section>"


def figures(parts: Iterable[str]) -> str:
    """Figures in rows of three; two or four of them in rows of two. Nothing if there are none."""
    parts = [part for part in parts if part]
    columns = 2 if len(parts) in (2, 4) else 3
    kind = "figures wide" if columns == 2 else "figures"
    return f'<div class="{kind}" style="--columns: {columns}">{"".join(parts)}</div>' if parts else ""


def cell(text: str, kind: str = "", share: float | None = None) -> str:
    """A cell of a table; `share` 0 … 1 draws a bar behind it."""
    if share is not None:
        return f'<td class="bar" style="--share: {100 * share:.1f}%">{escape(text)}</td>'
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def table(head: Sequence[str], groups: Sequence[tuple[str, Sequence[Sequence[str]]]], kind: str = "") -> str:
    """A table in a box that scrolls: `groups` are (heading or "", rows of finished cells); `head` may be empty."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    top = f"<thead><tr>{top}</tr></thead>" if head else ""
    bodies = []
    for heading, rows in groups:
        lines = [f'<tr><th colspan="{len(head)}">{escape(heading)}</th></tr>'] if heading else []
        bodies.append("<tbody>" + "".join(lines + [f"<tr>{''.join(row)}</tr>" for row in rows]) + "</tbody>")
    return f'<div class="box"><table class="{kind}">{top}{"".join(bodies)}</table></div>'


def facts(values: dict[str, object]) -> str:
    """Names and values, nested ones flattened; nothing if there are none."""
    rows = [[cell(name), cell(text)] for name, text in _facts(values)]
    return table((), [("", rows)], kind="left") if rows else ""


def _facts(values: dict[str, object], above: str = ""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _facts(value, f"{above}{name} · ")
        elif name.endswith("_bytes") and isinstance(value, int):
            yield f"{above}{name.removesuffix('_bytes')}".replace("_", " "), f"{_three_digits(value / 2**30)} GiB"
        elif value not in (None, ""):
            yield f"{above}{name}".replace("_", " "), number(value) if isinstance(value, float) else setting(value)


def setting(value: object) -> str:
    """As a recipe says it: true, null, [32, 8]."""
    return value if isinstance(value, str) else dump_line(value)


def number(value: float | None, digits: int = 5) -> str:
    """`0.72553`, `1,234,567`; a dash for what is missing or not a number."""
    if value is None or not isinstance(value, (int, float)) or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if float(value).is_integer() and abs(value) >= 10:
        return f"{value:,.0f}"
    if value and abs(value) < 10.0**-digits:
        return f"{value:.1e}"
    return f"{value:,.{digits}f}" if abs(value) < 1000 else f"{value:,.0f}"


def percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{_three_digits(100 * value)}\u00a0%"


def brief(value: float) -> str:
    """`1.23 M`: three digits and a size."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{_three_digits(value / size)}\u00a0{letter}"
    return f"{value:.0f}" if float(value).is_integer() else _three_digits(value)


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".") if 0.001 <= abs(value) < 999.5 else f"{value:.3g}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
