"""`clickwise bench`: inference with the loader and without, what is waited for, and what is kept."""

from __future__ import annotations

import gc
import json
import weakref
from types import SimpleNamespace

import pytest
import torch

from clickwise.verbs import bench, timing
from clickwise.wiring import engines_of

SMALL = ["data.synthetic.rows={train: 300, validation: 100, test: 250}", "train.batch_size=100", "model.top_mlp=[4]",
         "--what", "inference", "--steps", 6, "--warmup", 1, "--batch-sizes", "1,100"]


@pytest.mark.parametrize("words", [[], ["--with-loading"]], ids=["held in memory", "with loading"])
def test_inference_reads_the_test_mapping(clickwise, monkeypatch, words):
    read, endless = [], bench._endless
    monkeypatch.setattr(bench, "_endless", lambda loader: (read.append(batch) or batch for batch in endless(loader)))
    result = clickwise("bench", "tiny/dlrm", *SMALL, *words, "--json")
    assert result.code == 0, result.err
    figures = json.loads(result.out)
    assert figures["loading"] == ("included" if words else "excluded")
    assert [len(batch) for batch in read] == [1] * (len(read) // 2) + [100] * (len(read) // 2)
    assert len(read) == (14 if words else 12)  # 7 timed or warming up, or 6 held, for each of two sizes
    for row in figures["rows"]:
        assert 0 < row["ms_p50"] <= row["ms_p90"] <= row["ms_p95"] <= row["ms_p99"] and row["samples_per_s"] > 0


@pytest.mark.parametrize("what", ["train", "inference"])
def test_precisions_and_batch_sizes_make_one_table(clickwise, what):
    words = [*SMALL[:3], "--what", what, "--steps", 2, "--warmup", 1, "--batch-sizes", "10,100"]
    result = clickwise("bench", "tiny/dlrm", *words, "--precisions", "fp32,bf16", "--json")
    assert result.code == 0, result.err
    rows = json.loads(result.out)["rows"]
    assert [(row["precision"], row["batch_size"]) for row in rows] == [
        ("fp32", 10), ("fp32", 100), ("bf16", 10), ("bf16", 100)]
    lines = clickwise("bench", "tiny/dlrm", *words, "--precisions", "fp32,bf16").out.splitlines()
    assert [line.split()[:2] for line in lines] == [["precision", "batch_size"], *(
        [row["precision"], str(row["batch_size"])] for row in rows)]
    assert len({len(line) for line in lines}) == 1


def test_precisions_are_those_in_which_the_model_runs(clickwise, monkeypatch):
    seen, build = [], bench.build_session
    monkeypatch.setattr(bench, "build_session", lambda recipe, **settings: (
        seen.append(recipe.train.precision), build(recipe, **settings))[1])
    assert clickwise("bench", "tiny/dlrm", *SMALL, "--precisions", "bf16,fp32").code == 0
    assert seen == ["bf16", "bf16", "fp32", "fp32"]


def test_a_loader_that_reads_ahead_has_no_latency(clickwise):
    result = clickwise("bench", "tiny/dlrm", *SMALL[:3], "--what", "data", "--steps", 2, "--json")
    row, = json.loads(result.out)["rows"]
    assert set(row) == {"batch_size", "samples_per_s", "samples_per_s_min", "samples_per_s_max"}
    assert "ms_" not in clickwise("bench", "tiny/dlrm", *SMALL[:3], "--what", "data", "--steps", 2).out


def test_refusals(clickwise):
    for words, told in ((["--precisions", "fp32,int8"], "'int8'"), (["--precisions", "bf16", "--what", "data"],
                                                                  "--what data")):
        result = clickwise("bench", "tiny/dlrm", *SMALL, *words)
        assert result.code == 2 and "--precisions" in result.err and told in result.err
    result = clickwise("bench", "tiny/dlrm", *SMALL, "--what", "train", "--with-loading")
    assert result.code == 2 and "--what inference" in result.err
    result = clickwise("bench", "tiny/dlrm", *SMALL, "--batch-sizes", 251)
    assert result.code == 1 and "only 250 rows" in result.err and "Traceback" not in result.err


class Machine:
    """A host and a GPU whose clocks go by what is asked of them: a call takes the host 1 ms, after which the GPU works
    on it, in turn, for 3 ms (or not at all)."""

    def __init__(self, monkeypatch, *, gpu_ms=3.0):
        self.host, self.gpu, self.gpu_ms, self.calls, self.waits = 0.0, 0.0, gpu_ms, 0, []
        monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: self.host / 1e3))
        monkeypatch.setattr(torch.cuda, "Event", self.event)
        monkeypatch.setattr(torch.cuda, "synchronize", self.wait)

    def call(self):
        self.calls, self.host = self.calls + 1, self.host + 1.0
        self.gpu = max(self.gpu, self.host) + self.gpu_ms

    def wait(self):
        self.waits.append(self.calls)
        self.host = max(self.host, self.gpu)

    def event(self, *, enable_timing):
        event = SimpleNamespace(at=None, elapsed_time=lambda then: then.at - event.at if then.at <= self.host else None)
        event.record = lambda: setattr(event, "at", max(self.host, self.gpu))
        return event


def test_in_training_a_gpu_is_waited_for_where_a_window_ends(monkeypatch):
    machine = Machine(monkeypatch)
    figures = timing.time_calls(machine.call, timing.GPUClock(), 100, 20, 3)
    assert machine.calls == 23 and set(machine.waits) == {3, 7, 11, 15, 19, 23}
    assert {figures[key] for key in ("samples_per_s", "samples_per_s_min", "samples_per_s_max")} == \
        {round(4 * 100 / 13e-3, 1)}  # the first call is the GPU's after 1 ms, and 4 of 3 ms follow
    assert (figures["ms_p50"], figures["ms_p90"]) == (3.0, 4.0)


def test_a_prediction_is_waited_for(monkeypatch):
    machine = Machine(monkeypatch)
    figures = timing.time_calls(machine.call, timing.WaitingClock(torch.device("cuda")), 100, 10, 0)
    assert {figures[key] for key in ("ms_p50", "ms_p90", "ms_p95", "ms_p99")} == {4.0}
    assert figures["samples_per_s"] == 100 / 4e-3


def test_on_a_cpu_a_call_is_done_when_it_returns(monkeypatch):
    machine = Machine(monkeypatch, gpu_ms=0.0)
    clock = timing.WaitingClock(torch.device("cpu"))
    figures = timing.time_calls(machine.call, clock, 100, 3, 2)  # three windows of one
    assert machine.calls == 5 and machine.waits == []
    assert figures["samples_per_s_min"] == figures["samples_per_s_max"] == 1e5
    assert all(figures[key] == 1.0 for key in ("ms_p50", "ms_p90", "ms_p95", "ms_p99"))


@pytest.mark.parametrize("what", ["train", "inference", "data"])
def test_one_set_of_tables_at_a_time(monkeypatch, what):
    build, tables = bench.build_session, []

    def build_session(recipe, **settings):
        assert all(table() is None for table in tables), "the last one's are still there"
        trainer = build(recipe, **settings)
        tables.extend(weakref.ref(table.untyped_storage()) for engine in engines_of(trainer.model)
                      for table in engine.buffers())
        return trainer

    monkeypatch.setattr(bench, "build_session", build_session)
    gc.disable()
    try:
        bench.bench("tiny/dlrm", SMALL[:3], what=what, steps=2, warmup=1, batch_sizes=(50, 100, 60))
    finally:
        gc.enable()
    assert tables
