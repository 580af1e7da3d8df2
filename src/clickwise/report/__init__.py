"""Run folders -> one self-contained HTML page: of a run, or comparing several.

Reads only what a run folder holds (recipe.yaml, log.jsonl, metrics.json, baselines.json, scores.npz, columns.json), any
of which may be missing, and imports no torch.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from clickwise import files
from clickwise.errors import UsageError
from clickwise.report import curves, page, scores
from clickwise.report.baselines import baselines, warnings
from clickwise.report.columns import columns
from clickwise.report.run import Run, is_number, read_run
from clickwise.run.facts import RunFacts

__all__ = ["compare", "render", "write_comparison", "write_report"]

NAMES = {"auc": "AUC", "exact_auc": "AUC (exact)", "gauc": "GAUC", "log_loss": "log loss", "accuracy": "accuracy",
         "normalized_entropy": "normalized entropy", "calibration": "calibration", "base_rate": "click rate",
         "auc_error_bound": "AUC error bound", "gauc_groups": "GAUC groups",
         "gauc_groups_skipped": "GAUC groups skipped", "samples_per_s": "samples/s", "wall_s": "wall time"}
# The metrics that stand first, in this order; the others of the recipe follow.
FIRST = ("auc", "exact_auc", "gauc", "log_loss", "normalized_entropy", "calibration")
RANKING = {"map": "MAP", "ndcg": "NDCG", "mrr": "MRR", "hit_rate": "hit rate"}
REMARKS = {"normalized_entropy": "best constant: 1", "calibration": "predicted / observed",
           "gauc": "AUC within groups"}
MOST_ABREAST = 6  # runs or metrics beside each other in a table of usual width
SHOWN_ELSEWHERE = ("mappings", "ideal", "samples_per_s", "wall_s", "parameters")  # of the facts


def write_report(run_folder: Path) -> Path:
    """The path of `report.html`, written into the run folder."""
    run_folder = Path(run_folder)
    path = run_folder / "report.html"
    files.write_text(path, render(read_run(run_folder)))
    return path


def write_comparison(run_folders: Sequence[Path], path: Path) -> Path:
    """`path`, now a page that compares the runs."""
    files.write_text(path, compare(run_folders))
    return Path(path)


def render(run: Run) -> str:
    """The page of one run."""
    return page.page(run.title, [
        f"<h1>{escape(run.title)}</h1>", _subtitle(run), _unfinished(run), warnings(run), page.cards(_headline(run)),
        baselines(run),
        page.section("Training", page.figures([
            curves.loss_curve(run), curves.auc_curve(run),
            curves.plain_curve(run, "samples_per_s", "Throughput", "samples/s", from_zero=True),
            *(curves.plain_curve(run, name, f"Learning rate{name[2:].replace('_', ', ')}", "")
              for name in sorted({key for line in run.of_kind("train") for key in line if key.startswith("lr")}))])),
        columns(run),
        *_predictions(run),
        page.section("Metrics", _metrics_table(run)),
        page.section("Circumstances", page.facts(_circumstances(run))),
        page.section("Recipe", f'<div class="box"><pre>{escape(run.recipe.strip())}</pre></div>' if run.recipe else ""),
    ])


def _subtitle(run: Run) -> str:
    parts = [f"{value} {name}" for name, value in (
        ("steps", f"{run.lines[-1]['step']:,}" if run.lines else ""),
        ("epochs", f"{run.lines[-1]['epoch']:.3g}" if run.lines and is_number(run.lines[-1].get("epoch")) else ""))
            if value]
    if run.facts and run.facts.date:
        parts.append(str(run.facts.date)[:16].replace("T", " ") + " UTC")
    return f'<p class="soft">{escape(" · ".join(parts))}</p>'


def _unfinished(run: Run) -> str:
    if run.finished:
        return ""
    return ('<p class="warn">This run has not finished: there is no metrics.json. The numbers are those of its log '
            "so far.</p>")


def _headline(run: Run) -> list[tuple[str, str, str]]:
    """The cards: metrics of the headline's mapping, then speed, time and size."""
    values = run.results.get(run.mapping, {}) if run.mapping else {}
    items = []
    for name in _metrics([run]):
        if name in values and not (name == "exact_auc" and "auc" in values):
            items.append((page.number(values[name]), _title(name), REMARKS.get(name, f"on {run.mapping}")))
    facts = run.facts or RunFacts()
    if is_number(facts.samples_per_s):
        items.append((page.brief(facts.samples_per_s), "samples/s", "in training"))
    wall_s = facts.wall_s or (run.lines[-1].get("wall_s") if run.lines else None)
    if is_number(wall_s):
        items.append((page.duration(wall_s), "wall time", "training and evaluation"))
    sizes = {name: size for name, size in facts.parameters.items() if is_number(size)}
    if sizes:
        items.append((page.brief(sum(sizes.values())), "parameters",
                      ", ".join(f"{page.brief(size)} {name}" for name, size in sizes.items())))
    return items


def _predictions(run: Run) -> list[str]:
    """Plots and slices of the headline's mapping, or of the last one that has material."""
    if not run.scores:
        return []
    mapping = run.mapping if run.mapping in run.scores else list(run.scores)[-1]
    material = run.scores[mapping]
    auc = run.results.get(mapping, {}).get("auc")
    return [
        page.section(f"Predictions on {mapping}", page.figures([
            scores.roc(material, auc if is_number(auc) else None), scores.reliability(material),
            scores.histogram(material)])),
        page.section(f"By feature value, on {mapping}", scores.slices(material), note=(
            "clicks and predicted are rates; calibration is predicted over observed clicks, coloured where the two "
            "differ by more than three standard deviations of chance.")),
    ]


def _circumstances(run: Run) -> dict[str, Any]:
    facts = {} if run.facts is None else dataclasses.asdict(run.facts)
    return {name: value for name, value in facts.items() if name not in SHOWN_ELSEWHERE and value not in (None, "", {})}


def _metrics_table(run: Run) -> str:
    mappings = run.results
    if not mappings:
        return ""
    names = dict.fromkeys(name for values in mappings.values() for name in values)
    rows = [[page.cell(_title(name)),
             *(page.cell(page.number(values.get(name), 6)) for values in mappings.values())] for name in names]
    return page.table(("", *mappings), [("", rows)])


def compare(run_folders: Sequence[Path]) -> str:
    """The page that lays runs side by side: results, curves, and the settings in which they differ."""
    if not run_folders:
        raise UsageError("clickwise report", found="no run", expected="run folders")
    runs = [read_run(folder) for folder in run_folders]
    names = _names(runs)
    mapping = next((run.mapping for run in runs if run.mapping in run.scores), "")
    return page.page("Comparison of runs", [
        f"<h1>Comparison of {len(runs)} runs</h1>",
        page.section("Results", _results_table(runs, names)),
        page.section("Training", page.figures([
            curves.overlaid(runs, names, "train", "loss", "Training loss"),
            curves.overlaid(runs, names, "eval", "auc", "AUC"),
            curves.overlaid(runs, names, "eval", "log_loss", "Log loss"),
            curves.overlaid(runs, names, "train", "samples_per_s", "Throughput", label="samples/s",
                            from_zero=True)])),
        page.section(f"Predictions on {mapping}", page.figures([
            scores.rocs([run.scores.get(mapping) for run in runs], names)])),
        page.section("Settings that differ", _differences(runs, names)),
    ], broad=len(runs) > MOST_ABREAST)


def _names(runs: Sequence[Run]) -> list[str]:
    """Short names that tell the runs apart: the time, with the dataset and model where these differ."""
    if len({run.folder.resolve().parent for run in runs}) == 1:
        return [run.folder.resolve().name for run in runs]
    return [run.title for run in runs]


def _results_table(runs: Sequence[Run], names: Sequence[str]) -> str:
    columns: dict[str, list[float | None]] = {}
    for name in _metrics(runs):
        columns[name] = [run.results.get(run.mapping, {}).get(name) for run in runs]
    for name in ("samples_per_s", "wall_s"):
        columns[name] = [run.facts and getattr(run.facts, name) for run in runs]
    columns = {name: values for name, values in columns.items() if any(is_number(value) for value in values)}
    ideal = {name: value for run in runs if run.facts for name, value in run.facts.ideal.items()}
    rows = []
    for i, (run, label) in enumerate(zip(runs, names, strict=True)):
        row = [page.cell(label), page.cell((run.mapping or "–") + ("" if run.finished else ", unfinished"))]
        for name, values in columns.items():
            rivals = [value if other.finished else None for value, other in zip(values, runs, strict=True)]
            row.append(page.cell(_shown(name, values[i]), "best" if i == _best(name, rivals, ideal) else ""))
        rows.append(row)
    titles = ["mapping", *map(_title, columns)]
    if len(runs) < len(titles) > MOST_ABREAST + 2:  # many metrics of few runs: the metrics are the rows
        lines = zip(map(page.cell, titles), *(row[1:] for row in rows), strict=True)
        return page.table(("", *names), [("", [list(line) for line in lines])])
    return page.table(("run", *titles), [("", rows)])


def _metrics(runs: Sequence[Run]) -> list[str]:
    """The names of the metrics that the runs are judged by."""
    asked = [name for run in runs for name in run.settings().get("metrics") or ()]
    return list(dict.fromkeys((*FIRST, *asked)))


def _title(name: str) -> str:
    """What a page calls the value: `map_at_12_pessimistic` is MAP@12 (pessimistic)."""
    parts = re.fullmatch(rf"({'|'.join(RANKING)})(?:_at_(\d+))?(?:_(pessimistic|optimistic))?(_contested)?", name)
    if parts is None:
        return NAMES.get(name, name.replace("_", " "))
    measure, k, ties, contested = parts.groups()
    return RANKING[measure] + (f"@{k}" if k else "") + (f" ({ties})" if ties else "") + \
        (", contested displays" if contested else "")


def _shown(name: str, value: Any) -> str:
    if not is_number(value):
        return "–"
    return {"samples_per_s": page.brief, "wall_s": page.duration}.get(name, page.number)(value)


def _best(name: str, values: Sequence[Any], ideal: Mapping[str, float]) -> int | None:
    """Which run is best in this column: the nearest to the ideal that the runs have noted (None: there are no two)."""
    ideal = {"wall_s": 0.0, **ideal}

    def cost(value: float) -> float:
        return -value if name == "samples_per_s" else abs(value - ideal[name])

    known = name == "samples_per_s" or name in ideal
    costs = [(cost(value), i) for i, value in enumerate(values) if known and is_number(value)]
    return min(costs)[1] if len(costs) > 1 else None


def _differences(runs: Sequence[Run], names: Sequence[str]) -> str:
    settings = [run.settings() for run in runs]
    keys = dict.fromkeys(key for setting in settings for key in setting)
    everywhere, somewhere = [], []
    for key in keys:
        values = [page.setting(setting[key]) if key in setting else "–" for setting in settings]
        if len(set(values)) > 1:
            group = everywhere if all(key in setting for setting in settings) else somewhere
            group.append([page.cell(key), *(page.cell(value, "value") for value in values)])
    groups = [("", everywhere), ("Settings that only some of them have", somewhere)]
    return page.table(("setting", *names), [(title, rows) for title, rows in groups if rows]) \
        if everywhere or somewhere else ""
