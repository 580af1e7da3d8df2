"""Exit codes have one meaning in every verb: 0 done, 1 failed, 2 wrong use, 130 and 143 after SIGINT and SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import typer

from clickwise import cli

FEW = ["tiny/dlrm", "data.synthetic.rows={train: 200, validation: 50, test: 50}", "train.batch_size=50",
       "model.top_mlp=[4]", "baselines=[]"]
BENCH = ["--steps", 1, "--warmup", 0]
# Verb -> words that it can do, words with which it fails, words that are wrong use; {run} is a run, {out} a new path.
TABLE = {
    "quickstart": (None, None, ["no_equals"]),
    "prepare": (None, ["criteo/prepare", "dataset.train=[nowhere/day_0]"], ["kuairand/dlrm"]),
    "recipes": ([], None, ["check", "kuairand/dlmr"]),
    "spec": (["infer", "{table}", "--label", "y", "--out", "{out}"], ["infer", "nowhere.csv", "--out", "{out}"],
             ["infer"]),
    "synth": (["criteo_raw", "--rows", 20, "--out", "{out}"], None, ["criteo_t99", "--out", "{out}"]),
    "transcode": (None, ["nowhere", "--out", "{out}"], ["nowhere"]),
    "train": (FEW, [*FEW, "data.path=nowhere", "data.synthetic=null"], [*FEW, "train.batch_size=-1"]),
    "plan": ([*FEW, "--processes", 2], [*FEW, "--processes", 2, "--memory", "1kB"], FEW),
    "evaluate": (["{run}"], ["nowhere"], ["{run}", "--checkpoint", "worst"]),
    "predict": (["{run}", "--out", "{out}.csv"], ["nowhere"], ["{run}", "--out", "{out}.txt"]),
    "export": (None, ["nowhere", "--out", "{out}"], ["{run}"]),
    "bench": ([*FEW, *BENCH], [*FEW, *BENCH, "--what", "inference", "--batch-sizes", 51], [*FEW, "--precisions", "x"]),
    "serve": (None, ["nowhere"], []),
    "report": (["{run}"], ["nowhere"], []),
    "log": (None, ["nowhere", "--to", "tensorboard", "{out}"], ["{run}"]),
    "doctor": ([], ["--data", "criteo", "nowhere"], ["--data", "nothing"]),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from clickwise.verbs.train import train

    return train(FEW[0], FEW[1:], out=tmp_path_factory.mktemp("runs"))


def test_the_table_has_every_verb():
    assert set(TABLE) == set(typer.main.get_command(cli.app).commands)


@pytest.mark.parametrize("verb", TABLE)
@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_verb_ends_with_what_is_said(clickwise, run, tmp_path, verb, code):
    words = TABLE[verb][code]
    if words is None:
        pytest.skip("long, or shown by other tests")
    (tmp_path / "table.csv").write_text("x,y\n" + "1.5,0\n2.5,1\n" * 20)
    places = {"{run}": str(run), "{out}": str(tmp_path / "new"), "{table}": str(tmp_path / "table.csv")}
    for name, place in places.items():
        words = [word.replace(name, place) if isinstance(word, str) else word for word in words]
    result = clickwise(verb, *words)
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    if code:
        assert result.err or verb == "doctor" or verb == "plan"


# What each of these verbs does at last, in the place of which the process sends itself a signal.
LAST = {"train": ("clickwise.train.loop.Loop.run", FEW), "evaluate": ("clickwise.run.folder.open_run", ["{run}"]),
        "predict": ("clickwise.verbs.predict.predict", ["{run}"]), "bench": ("clickwise.verbs.bench.bench", FEW),
        "report": ("clickwise.report.write_report", ["{run}"]), "doctor": ("clickwise.verbs.doctor.doctor", []),
        "prepare": ("clickwise.prepare.run", ["kuairand/prepare"])}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("verb", LAST)
def test_a_signal_ends_a_verb_with_its_code(clickwise, run, monkeypatch, verb, number, code):
    place, words = LAST[verb]
    monkeypatch.setattr(place, lambda *given, **named: os.kill(os.getpid(), number))
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        result = clickwise(verb, *(word.replace("{run}", str(run)) for word in words))
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert result.code == code and "interrupted" in result.err and "Traceback" not in result.err


@pytest.mark.parametrize(("words", "code", "told"), [
    (["--version"], 0, ""), (["recipes"], 0, ""), (["evaluate", "nowhere"], 1, "no such folder"),
    (["trian"], 2, "trian"), (["train", "kuairand"], 2, "clickwise train kuairand/")])
def test_python_m_clickwise_is_the_command(tmp_path, words, code, told):
    done = subprocess.run([sys.executable, "-m", "clickwise", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code and told in done.stderr and "Traceback" not in done.stderr
