"""`benchmarks/kernels.py` as it is started on a machine that may go away: tried in Triton's interpreter (--dry-run)."""

import collections
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("triton") is None:  # not imported: whether it interprets is decided at its import
    pytest.skip("no Triton here", allow_module_level=True)
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kernels.py"
pytestmark = pytest.mark.slow

# A rival that raises, then ours; a case that does not fit into memory. No tensor of a row outlives it. Times are told:
# of each row 0.5 ms more than of the one before.
BROKEN = '''
import itertools, os, sys, weakref
from pathlib import Path

folder, tests = map(Path, sys.argv[1:])
sys.path[:0] = [str(folder), str(tests)]
os.environ["TRITON_INTERPRET"] = "1"
import torch, triton_device
import kernels
from clickwise.kernels.dot_interaction import triton as fast

def broken(*inputs):
    raise RuntimeError("broken\\nfor a test")

def run(out, *words):
    told = itertools.count(1)

    def ms(self, call):
        call()
        self.bytes_per_s, self.ops_per_s = 2e9, 4e9
        return next(told) / 2

    sys.argv, kernels.Bench.ms = ["kernels.py", "--dry-run", "--out", out, *words], ms
    return kernels.main()

made = []
first, leaf = kernels.Differentiable.__init__, kernels.Differentiable.leaf

def watched_first(self, *arguments):
    assert not any(tensor() is not None for tensor in made), "tensors of another row are still there"
    first(self, *arguments)

def watched_leaf(self, *shape, **settings):
    if shape == (96, 96):
        raise torch.OutOfMemoryError("CUDA out of memory")
    tensor = leaf(self, *shape, **settings)
    made.append(weakref.ref(tensor))
    return tensor

kernels.Differentiable.__init__, kernels.Differentiable.leaf = watched_first, watched_leaf
assert run("figures", "--only", "interaction", "--cases", "26 × 16") == 0
kernels.Interaction.RIVALS["reference"] = lambda self: broken
assert run("rival", "--only", "interaction", "--cases", "26 × 16", "--variants") == 0
fast.dot_interaction = broken
assert made
sys.exit(run("ours", "--only", "interaction", "cross", "--cases", "26 × 16", "rank", "--compiled"))
'''


def rows_of(folder):
    """The rows of a run, behind a line of the circumstances."""
    text = (folder / "kernels.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    first, *rows = map(json.loads, text.splitlines())
    assert first["versions"]["torch"] and "commit" in first and first["machine"]["cores"] and first["batch"] == 3
    assert first["command"].startswith("python ")
    return rows


def test_every_case_has_a_row_of_ours_and_its_rivals(tmp_path):
    words = [sys.executable, SCRIPT, "--dry-run", "--variants", "--out", tmp_path / "new" / "folder"]
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    rows = rows_of(tmp_path / "new" / "folder")
    rivals = collections.defaultdict(list)
    for row in rows:
        rivals[row["kernel"], row["case"]].append(row["rival"])
        assert row["case"] in run.stdout
    cases = collections.Counter(kernel for kernel, _ in rivals)
    assert cases == {"gather": 9, "gather + update": 9, **{
        f"{kernel}, {direction}": count for kernel, count in (("dot interaction", 6), ("cross", 2), ("mlp", 2))
        for direction in ("forward", "backward")}}
    assert all(names[0] == "ours" for names in rivals.values())
    assert rivals["gather", "26 tables behind 13 columns, alpha 1.05"] == ["ours", "torch"]
    assert rivals["gather + update", "adam, uniform"] == ["ours", "ours, tiles of 64 × 64",
                                                          "ours, 64 registers at most", "torch", "reference"]
    assert rivals["gather + update", "rowwise_adagrad, uniform"] == ["ours", "ours, 64 registers at most", "reference"]
    assert rivals["cross, forward", "2 layers, rank 32 bfloat16"] == ["ours", "ours, apart", "ours, in one",
                                                                      "reference"]
    assert [row for row in rows if "error" in row] == [] and run.returncode == 0, run.stderr


def test_what_raises_costs_its_own_row_alone(tmp_path):
    run = subprocess.run([sys.executable, "-c", BROKEN, SCRIPT.parent, Path(__file__).parents[1]], cwd=tmp_path,
                         capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    small = [("dot interaction, forward", "26 × 16 bfloat16"), ("dot interaction, backward", "26 × 16 bfloat16")]

    rows = rows_of(tmp_path / "figures")
    inputs, out, work = 2 * 3 * 27 * 16, 2 * 3 * (16 + 27 * 26 // 2 + 1), 2 * 3 * 16 * 27 * 26 // 2  # 1: padding
    for row, ms, moved, operations, times, target in zip(
            rows, (0.5, 1.0, 1.5, 2.0), (inputs + out, inputs + out, 2 * inputs + out, 2 * inputs + out),
            (work, work, 2 * work, 2 * work), (1, 2, 1, 4 / 3), ("≥ 60 % of copy", None) * 2, strict=True):
        figures = {"ms": ms, "GB/s": moved / ms * 1e-6, "% copy": moved / ms * 5e-5, "TFLOP/s": operations / ms * 1e-9,
                   "% matmul": operations / ms * 2.5e-5, "ours ×": times}
        assert {name: row[name] for name in figures} == pytest.approx(figures) and row.get("target") == target

    rows = rows_of(tmp_path / "rival")
    assert [(row["kernel"], row["case"]) for row in rows if row["rival"] == "ours"] == small
    assert [row["rival"] for row in rows if "error" in row] == ["reference"] * 2

    rows = rows_of(tmp_path / "ours")
    errors = {(row["kernel"], row["case"], row["rival"]): row["error"] for row in rows if "error" in row}
    assert errors == {
        **{(*case, rival): "RuntimeError: broken for a test" for case in small for rival in ("ours", "reference")},
        **{(f"cross, {direction}", "2 layers, rank full bfloat16", rival): "OutOfMemoryError: CUDA out of memory"
           for direction in ("forward", "backward") for rival in ("ours", "reference", "compiled")}}
    assert {(row["kernel"], row["case"], row["rival"]) for row in rows if "error" not in row} == {
        *((*case, "compiled") for case in small),
        *((f"cross, {direction}", "2 layers, rank 32 bfloat16", rival)
          for direction in ("forward", "backward") for rival in ("ours", "reference", "compiled"))}
    times = [row["ours ×"] for row in rows if row["rival"] == "compiled" and "error" not in row]
    assert times == ["", "", 2.5 / 1.5, 4.0 / 3.0]
    assert run.stdout.count("RuntimeError: broken for a test") == 2 + 4


def test_a_killed_run_leaves_the_rows_that_it_measured(tmp_path):
    words = [sys.executable, SCRIPT, "--dry-run", "--only", "cross", "--out", tmp_path]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as run:
        said = next(line for line in run.stderr if line.startswith("cross, forward, "))
        run.kill()
    rows = rows_of(tmp_path)
    assert said.startswith(", ".join(rows[0][name] for name in ("kernel", "case", "rival")))
    assert len(rows) < 8


def test_lines_are_strict_json_added_to_what_is_there(tmp_path):
    spec = importlib.util.spec_from_file_location("measure", SCRIPT.with_name("measure.py"))
    measure = importlib.util.module_from_spec(spec)
    sys.modules["measure"] = measure  # dataclasses look themselves up there
    try:
        spec.loader.exec_module(measure)
    finally:
        del sys.modules["measure"]
    path = tmp_path / "rows.jsonl"
    path.write_text('{"ms": 1.5}\n', encoding="utf-8")
    measure.append(path, {"ms": float("nan"), "case": "26 × 16\n", "shares": [float("inf"), 0.5]})
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"ms": 1.5},
                                                    {"ms": None, "case": "26 × 16\n", "shares": [None, 0.5]}]
