"""SIGINT and SIGTERM end a verb with 130 and 143 and the command that goes on; what a killed one left is removed."""

import os
import signal
import time
from pathlib import Path

import pytest

from clickwise.prepare.preparation import Preparation
from clickwise.run.facts import RunFacts
from clickwise.train.step import TrainStep
from clickwise.verbs import doctor

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.mark.parametrize("number", CODES)
def test_of_a_training(clickwise, monkeypatch, number, words):
    def step(self, *batches, step=TrainStep.__call__):
        if self.steps == 3:
            os.kill(os.getpid(), number)
        return step(self, *batches)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", step)
        result = clickwise("train", *words)
    (run,) = Path("runs/synthetic-dlrm").iterdir()
    assert result.code == CODES[number] and f"clickwise train --resume {run}" in result.err
    assert "Traceback" not in result.err and not list(run.rglob("*.partial"))
    assert clickwise("train", "--resume", run).code == 0


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("as_what", [KeyboardInterrupt, RuntimeError])
def test_of_a_preparation(clickwise, monkeypatch, number, as_what):
    """DuckDB makes a RuntimeError of an interrupt in a query."""
    def run(self, *args):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise as_what("Query interrupted") from None

    monkeypatch.setattr(Preparation, "run", run)
    result = clickwise("prepare", "kuairand/prepare", "out=a b")
    assert result.code == CODES[number] and "clickwise prepare kuairand/prepare 'out=a b'" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize(("verb", "words", "place"), [
    ("evaluate", ["run"], "clickwise.run.session.Session.evaluate"),
    ("predict", ["run", "--input", "test", "--out", "new.csv"], "clickwise.verbs.predict.scores"),
    ("bench", ["tiny/dlrm", "--steps", "3"], "clickwise.train.step.TrainStep.__call__"),
    ("synth", ["criteo_t15", "--rows", "300", "--out", "new"], "clickwise.data.synthetic.write.ChunkWriter.write"),
    ("transcode", ["old", "--out", "new"], "clickwise.data.transcode._write_mapping")])
def test_of_any_verb(clickwise, monkeypatch, run, number, verb, words, place):
    if verb == "transcode":
        assert clickwise("synth", "criteo_t15", "--rows", "300", "--out", "old").code == 0

    def kill(*args, **named):
        os.kill(os.getpid(), number)

    monkeypatch.setattr(place, kill)
    result = clickwise(verb, *words)
    assert result.code == CODES[number] and f"clickwise {verb}" in result.err and "Traceback" not in result.err
    assert not [*Path().rglob("*.partial"), *Path().glob("new*")]


def test_while_a_module_is_imported_it_waits(clickwise, monkeypatch, tmp_path):
    """torch goes on without numpy where an interrupt comes while it imports it, and fails later."""
    (tmp_path / "half_a_library.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGTERM)\n    whole = True\nexcept BaseException:\n"
        "    whole = False\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []

    def look():
        import half_a_library

        seen.append(half_a_library.whole)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            pass

    monkeypatch.setattr(doctor, "doctor", look)
    assert clickwise("doctor").code == 143 and seen == [True]


def test_fault_partial_left(clickwise, run):
    (run / "DONE").unlink()
    for left in ("checkpoint/.last.pt.123.partial", ".metrics.json.123.partial"):
        (run / left).write_bytes(b"half")
    (run / ".encoding.123.partial").mkdir()
    (run / "predictions").mkdir()
    (run / "predictions/.p.parquet.1.partial").write_bytes(b"another process writes it")
    assert clickwise("train", "--resume", run).code == 0
    assert [str(path.relative_to(run)) for path in run.rglob("*.partial")] == ["predictions/.p.parquet.1.partial"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"mappings": 3', b"\xff\xfe"])
def test_metrics_that_are_damaged_are_one_message(clickwise, run, content):
    (run / "metrics.json").write_bytes(content)
    (run / "manifest.json").unlink()
    for words in (["train", "--resume", run], ["report", run]):
        result = clickwise(*words)
        assert result.code == 1 and "metrics.json" in result.err and "Traceback" not in result.err
    (run / "metrics.json").unlink()
    result = clickwise("train", "--resume", run)
    assert result.code == 1 and "metrics.json" in result.err and f"delete {run / 'DONE'}" in result.err
    (run / "DONE").unlink()
    assert clickwise("train", "--resume", run).code == 0 and RunFacts.load(run).mappings


@pytest.mark.parametrize("content", [b'{"step": 1}\n', b"half a l\n", b"3\n", b"\xff\n"])
def test_a_log_that_is_damaged_is_one_message(clickwise, run, content):
    (run / "DONE").unlink()
    (run / "manifest.json").unlink()
    whole = (run / "log.jsonl").read_bytes()
    (run / "log.jsonl").write_bytes(content + whole)
    result = clickwise("train", "--resume", run)
    assert result.code == 1 and "log.jsonl, line 1" in result.err and "Traceback" not in result.err
    (run / "log.jsonl").write_bytes(whole + b'{"half a line')  # of a killed process
    assert clickwise("train", "--resume", run).code == 0
