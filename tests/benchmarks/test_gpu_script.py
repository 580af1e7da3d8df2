"""benchmarks/gpu.py: its budget, what is kept of tasks that fail or are ended, the page, and a rehearsal of it all."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def run_of(tasks, tmp_path, monkeypatch, *, budget=60):
    """A run of these tasks in place of its own."""
    import gpu

    monkeypatch.setattr(gpu, "tasks", lambda sizes, stages: tasks)
    return gpu.Run(argparse.Namespace(rehearse=True, out=tmp_path, budget=budget, stages="a"))


def task(name, code, limit_s=60):
    import gpu

    return gpu.Task("a", name, 1, limit_s, command=("-c", code))


WRITES = """
import os, sys
from pathlib import Path
from measure import append
append(Path(os.environ["OUTCOMES"]).parent / "rows.jsonl", {"stage": "a", "case": "figure", "figure": "x",
                                                             "measured": 1.5, "unit": "s", "card": "A Card"})
"""


def test_a_task_that_dies_costs_its_own_figures_alone(tmp_path, monkeypatch):
    tasks = [task("dies", WRITES + "os.abort()"), task("raises", "raise ValueError('what is wrong')"),
             task("good", WRITES)]
    rows = run_of(tasks, tmp_path, monkeypatch).go()
    assert [row["measured"] for row in rows if row["case"] == "figure"] == [1.5, 1.5]
    failed = {row["case"]: row for row in rows if row.get("holds") is False}
    assert failed.keys() == {"dies", "raises"} and failed["raises"]["error"] == "ValueError: what is wrong"
    result = json.loads(next(tmp_path.glob("gpu-a-card-*.json")).read_text())
    assert result["results"] == rows and result["rehearsed"] and result["card"] == "A Card"


def test_a_task_is_ended_at_its_limit_with_all_that_it_started(tmp_path, monkeypatch):
    code = WRITES + """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
Path("%s").write_text(str(child.pid))
child.wait()
""" % (tmp_path / "pid")
    rows = run_of([task("hangs", code, limit_s=4)], tmp_path, monkeypatch).go()
    assert [row["measured"] for row in rows if row["case"] == "figure"] == [1.5]
    assert any(row["figure"] == "ended after 4 s" and row["holds"] is False for row in rows)
    pid = int((tmp_path / "pid").read_text())
    status = Path(f"/proc/{pid}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_nothing_is_begun_that_the_budget_has_no_time_for(tmp_path, monkeypatch):
    rows = run_of([task("good", WRITES)], tmp_path, monkeypatch, budget=5).go()
    assert [row["figure"] for row in rows] == ["not begun"] and rows[0].get("holds") is None


def test_stages_pick_tasks_and_keep_their_order():
    import gpu

    every = gpu.tasks(gpu.PUBLISHED, gpu.STAGES)
    assert every[0].stage == "a" and {stage for task in every for stage in task.stage} == set(gpu.STAGES)
    assert [task.name for task in gpu.tasks(gpu.PUBLISHED, "d")] == list(gpu.PUBLISHED.inference)
    assert all(task.words[2] == "h" for task in gpu.tasks(gpu.PUBLISHED, "h"))
    assert sum(task.about_s for task in every if "compiled" not in task.name) < 540 - 60, "too much for nine minutes"


def test_a_wrong_stage_is_named(capsys):
    import gpu

    with pytest.raises(argparse.ArgumentTypeError, match="among a,b,c,d,e,f,g,h"):
        gpu.stages_of("c,x")
    assert gpu.stages_of("d,c") == "cd"


def test_steps_that_go_elsewhere_than_plain_torch_are_noticed(tmp_path):
    import torch
    from on_gpu.context import Context, rows_in
    from on_gpu.sizes import REHEARSAL
    from on_gpu.steps import _compare

    change = torch.ones(100)
    for losses, other in (([0.7, 0.6], change), ([0.7, 0.604], change), ([0.7, float("nan")], change),
                          ([0.7, 0.6], 1.2 * change)):
        _compare(Context(REHEARSAL, None, tmp_path), "dlrm", 8, (losses, other), ([0.7, 0.6], change))
    holds = [row["holds"] for row in rows_in(tmp_path)]
    assert holds == [True, True, False, True, False, True, True, False]


def test_the_page_is_that_of_the_newest_result():
    import performance_page

    found = performance_page.PAGE.read_text(encoding="utf-8")
    results = performance_page.newest(), performance_page.newest_scoring()
    assert found == performance_page.page(*results), "run python benchmarks/performance_page.py"


def test_what_a_step_must_do_is_what_was_reckoned_by_hand():
    """DLRM and DCNv2 at the published sizes, every row different: 14.56 and 96.2 MFLOP, 129.8 and 528.5 kB."""
    from on_gpu.models import recipe_of, spec_of
    from on_gpu.roofline import work_of_step
    from on_gpu.sizes import PUBLISHED

    for model, operations, moved in (("dlrm", 14.56e6, 129.8e3), ("dcnv2", 96.2e6, 528.5e3)):
        found = work_of_step(recipe_of(model, 65536, ()), spec_of(model, PUBLISHED), 1.0)
        assert found == pytest.approx((operations, moved), rel=0.02)


@pytest.mark.slow
def test_rehearsal(tmp_path):
    """Every stage gives its figures, everything holds, and no page is made of it."""
    words = ["benchmarks/gpu.py", "--rehearse", "--budget", "400", "--out", tmp_path]
    run = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(next(tmp_path.glob("gpu-rehearsal-*.json")).read_text())
    measured = {row["stage"] for row in result["results"] if row["measured"] is not None and row["figure"] != "took"}
    assert measured == set("abcdfgh") and any(row["kernel"] for row in result["kernels"] if "kernel" in row)
    wrong = [row for row in result["results"] if row.get("holds") is False or row.get("error")]
    assert not wrong

    import performance_page

    assert performance_page.newest(tmp_path) is None
    (tmp_path / "gpu-x.json").write_text(json.dumps({**result, "rehearsed": False}))
    text = performance_page.page(performance_page.newest(tmp_path), performance_page.newest_scoring(tmp_path))
    row = next(row for row in result["results"] if row["stage"] == "c" and row.get("ms"))
    assert f"| {row['case']} |" in text and "**no**" not in text
