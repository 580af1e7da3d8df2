"""`--profile DIR`: a trace of a few steps, the costliest operators, and nothing at all without it."""

from __future__ import annotations

import gzip
import json
import sys

import pytest

from clickwise.verbs.profiling import MOST, STEPS

SMALL = ["tiny/dlrm", "data.synthetic.rows={train: 3000, validation: 100, test: 200}", "train.batch_size=100",
         "model.top_mlp=[4]", "baselines=[]"]


def check_trace(path, operators) -> set[str]:
    """The names of what a trace holds; it has `ph`, `ts`, `dur` and `name`, as Perfetto reads them."""
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    whole = [event for event in events if event["ph"] == "X"]
    assert whole and all({"ts", "dur", "name"} <= set(event) for event in whole)
    names = {event["name"] for event in whole}
    assert {row["name"] for row in operators} <= names
    return names


def test_training_traces_some_of_its_steps(clickwise, tmp_path):
    result = clickwise("train", *SMALL, "--profile", "traces")
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "traces/train.operators.json").read_text())
    names = check_trace(tmp_path / "traces/train.json.gz", found["operators"])
    assert sum(name.startswith("ProfilerStep#") for name in names) == found["steps"] == STEPS
    shares = [row["share"] for row in found["operators"]]
    assert len(shares) == MOST and shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1.001
    for row in found["operators"]:
        assert f"{row['name'][:56]:<56} {row['calls']:>10g}" in result.err
    assert "traces/train.json.gz (open it in https://ui.perfetto.dev)" in result.err


def test_a_traced_training_is_the_same(clickwise, tmp_path):
    scores = []
    for words in ([], ["--profile", "traces"]):
        run = json.loads(clickwise("train", *SMALL, *words, "--json").out)["run"]
        scores.append(json.loads((tmp_path / run / "metrics.json").read_text())["mappings"])
    assert scores[0] == scores[1]


def test_a_training_of_two_steps_has_no_trace(clickwise, tmp_path):
    result = clickwise("train", *SMALL, "train.steps=2", "--profile", "traces")
    assert result.code == 0 and "no trace: the training has no more than 2 steps" in result.err
    assert not (tmp_path / "traces").exists()


@pytest.mark.parametrize("what", ["train", "inference"])
def test_bench_traces_every_row_behind_what_is_timed(clickwise, tmp_path, what):
    words = ["bench", *SMALL, "--what", what, "--steps", 2, "--warmup", 1, "--batch-sizes", "10,20", "--profile", "t"]
    result = clickwise(*words, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [profile["name"] for profile in found["profiles"]] == [f"{what}-fp32-10", f"{what}-fp32-20"]
    for profile in found["profiles"]:
        assert profile["steps"] == STEPS
        check_trace(tmp_path / profile["trace"], profile["operators"])
    shown = clickwise(*words).out
    assert "calls/step" in shown and f"t/{what}-fp32-20.json.gz" in shown


def test_refusals(clickwise, tmp_path):
    result = clickwise("bench", *SMALL, "--what", "data", "--profile", "traces")
    assert result.code == 2 and "--what train or inference" in result.err
    (tmp_path / "a file").write_text("")
    result = clickwise("train", *SMALL, "--profile", "a file")
    assert result.code == 2 and "a file" in result.err and not (tmp_path / "runs").exists()


def test_without_it_nothing_of_it_is_loaded(clickwise, monkeypatch):
    monkeypatch.delitem(sys.modules, "clickwise.verbs.profiling", raising=False)
    assert clickwise("train", *SMALL, "train.steps=2").code == 0
    assert clickwise("bench", *SMALL, "--steps", 1, "--warmup", 0).code == 0
    assert "clickwise.verbs.profiling" not in sys.modules
