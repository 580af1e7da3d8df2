"""Writes docs/performance.md from the newest results of benchmarks/gpu.py and benchmarks/scoring.py.

    python benchmarks/performance_page.py

The page says what was measured and by what, beside what was predicted; with no result it says that nothing was
measured. A rehearsal's result is never used.
"""

from __future__ import annotations

import json
from pathlib import Path

from measure import RESULTS, number
from on_gpu.roofline import PREDICTED_STEPS, PUBLISHED_INFERENCE, PUBLISHED_STEPS

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
HEAD = """# Performance on a GPU, and of scoring on a CPU

This page is written by `python benchmarks/performance_page.py` from the newest results of `python benchmarks/gpu.py`
and `python benchmarks/scoring.py`.
*Predicted* is an estimate for one H100, made before anything ran on one. *Published* is what the reference systems of
the recipes report for one A100 in mixed precision.
"""
WHY_MISSED = """Ours is computed from Python, by a few hundred calls of torch (SIM: 1,300, position after position of
its recurrences), which take microseconds each whatever their size; the rivals are compiled. Done: weights are cast
and laid out once, ids of all columns are joined in one pass, nothing is kept for gradients. Tried in vain: a row's
products by matrix-vector routines or with transposed weights (no faster), by MKL's own packed weights (197 µs for
the 129 of oneDNN's, 1,024 × 1,024), ids joined by numpy or type by type (15 µs of 700)."""
FROM_PYTHON = """Who needs the times of the column *onnx* installs `clickwise[serve]` and runs the exported graph
itself: from Python with [`ExportedModel`](export.md), or with [`clickwise serve`](serving.md). `predict` and
`evaluate` do not switch to it: its probabilities differ in the last bits, and what is predicted is what was measured
in training."""


def newest(folder: Path = RESULTS) -> dict | None:
    """The newest result of a GPU, None where there is none."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("gpu-*.json")]
    measured = [result for result in results if not result["rehearsed"]]
    return max(measured, key=lambda result: result["date"], default=None)


def newest_scoring(folder: Path = RESULTS) -> dict | None:
    """The newest result of scoring on a CPU, None where there is none."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("scoring-*.json")]
    return max(results, key=lambda result: result["date"], default=None)


def page(result: dict | None, scoring: dict | None) -> str:
    """The text of docs/performance.md."""
    parts = [_not_measured() if result is None else _measured(result), *([_scoring(scoring)] if scoring else [])]
    return HEAD + "\n" + "\n\n".join(parts) + "\n"


def _scoring(result: dict) -> str:
    """Ours beside the rivals, a line for each model, precision and batch."""
    lines: dict[tuple, dict] = {}
    for row in result["results"]:
        line = lines.setdefault((row["model"], row["precision"], row["batch"]), {
            "model": row["model"], "precision": row["precision"], "batch": row["batch"],
            **dict.fromkeys(("ours", "aoti", "onnx", "×", "at most", "differs"), "")})
        line[row["rival"]] = f"{number(row['ms'])} ({number(row['ms_p10'])}–{number(row['ms_p90'])})"
        line["differs"] = f"{max(row['differs'], float(line['differs'] or 0)):.0e}"
        if row.get("×"):
            line |= {"×": round(row["×"], 2), "at most": row["target"]}
    machine = result["machine"]
    missed = [f"{line['model']} {line['precision']} at {line['batch']} ({line['×']} for {line['at most']:g})"
              for line in lines.values() if line["×"] and line["×"] > line["at most"]]
    return "\n\n".join((
        "## Scoring on a CPU",
        f"{machine['processor']}, one thread, {result['date'][:10]}, torch "
        f"{result['versions'].get('torch')}: `{result['command']}`",
        "CPU ms of a forward pass: the median, 10 % and 90 % points in brackets. *aoti* is the exported graph compiled "
        "by AOTInductor with its weights frozen, *onnx* ONNX Runtime; both get their ids ready made in one tensor. *×* "
        "is ours over the faster of them, *differs* the largest difference between probabilities.",
        _table(list(lines.values())),
        f"Missed: {'; '.join(missed)}. {WHY_MISSED}" if missed else "Nothing is missed.", FROM_PYTHON))


def _not_measured() -> str:
    steps = [{"model": model, "batch": batch, "samples/s": "not measured", "predicted": predicted,
              "published": PUBLISHED_STEPS.get((model, batch), "")}
             for (model, batch), predicted in PREDICTED_STEPS.items()]
    inference = [{"model": model, "batch": batch, "samples/s": "not measured", "published": published}
                 for (model, batch), published in PUBLISHED_INFERENCE.items()]
    return "\n\n".join(("**Not measured: nothing has run on a GPU yet.**", "## Training steps, bf16", _table(steps),
                        "## Inference, bf16", _table(inference)))


def _measured(result: dict) -> str:
    rows, versions = result["results"], result["versions"]
    fast = [row for row in rows if row["stage"] == "c" and row.get("ms")]
    sections = [
        f"**{result['card']}**, {result['date'][:10]}, commit {(result['commit'] or 'unknown')[:12]}, torch "
        f"{versions.get('torch')}, Triton {versions.get('triton')}, {result['seconds']:.0f} s: `{result['command']}`",
        "## Ceilings", _table([{"what": row["case"], "measured": row["measured"], "unit": row["unit"]}
                               for row in rows if row["stage"] == "a" and row["figure"] != "took"]),
        "## Training steps, bf16", _table([{
            "case": row["case"], "samples/s": row["measured"], "predicted": row.get("predicted") or "",
            "published": row.get("published") or "", "share of the roofline": row.get("roofline_share") or "",
            "ms": row["ms"], "host ms": row["host_ms"], "peak GiB": row.get("peak_gib") or "",
            "first step, s": row["first_step_s"]} for row in fast]),
        "## Inference, bf16", _table([{
            "case": row["case"], "samples/s": row["measured"], "published": row.get("published") or "",
            "ms": row["ms"], "one call, p50 ms": row["single_ms_p50"], "p99 ms": row["single_ms_p99"]}
            for row in rows if row["stage"] == "d" and row.get("ms")]),
        "## Kernels", _table([{name: row.get(name) or "" for name in
                               ("kernel", "case", "rival", "ms", "% copy", "% matmul", "ours ×", "target", "error")}
                              for row in result["kernels"] if "kernel" in row]),
        "## Input pipeline", _table([{"what": row["case"], "figure": row["figure"], "measured": row["measured"],
                                      "share of a step that waits": row.get("share_that_waits", "")}
                                     for row in rows if row["stage"] == "g" and row["figure"] != "took"]),
        "## Checks", _table([{"what": row["case"], "figure": row["figure"], "found": row["measured"],
                              "bound": row.get("bound", ""), "holds": {True: "yes", False: "**no**"}[row["holds"]],
                              "error": row.get("error") or "; ".join(row.get("said") or ())}
                             for row in rows if row.get("holds") is not None]),
        "## Where a step's time goes", *(_profile(row) for row in rows if row["stage"] == "h" and row.get("kernels")),
        "## Left out", _table([{"what": row["case"], "why": row.get("error") or row.get("remark") or row["figure"]}
                               for row in rows if row["measured"] is None and row.get("holds") is None])]
    return "\n\n".join(sections)


def _profile(row: dict) -> str:
    kernels = [{"kernel": f"`{kernel['name']}`", "ms a step": kernel["ms"], "calls a step": kernel["calls"]}
               for kernel in row["kernels"]]
    return (f"{row['case']}: {row['measured']:,.0f} launches, busy for {row['busy_ms']:.3g} ms, "
            f"{row['gaps_share']:.0%} of the time between them.\n\n{_table(kernels)}")


def _table(rows: list[dict]) -> str:
    if not rows:
        return "Not measured."

    def line(cells) -> str:
        return "| " + " | ".join(cells) + " |"

    columns = list(rows[0])
    cells = [[number(row[column]).replace("|", "¦").replace("\n", " ") for column in columns] for row in rows]
    return "\n".join((line(columns), line("---" for _ in columns), *map(line, cells)))


if __name__ == "__main__":
    PAGE.write_text(page(newest(), newest_scoring()), encoding="utf-8")
