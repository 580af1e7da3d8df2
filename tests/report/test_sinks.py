"""What a run logged stands in TensorBoard and MLflow as it was, once; a sink of one's own is sent the same."""

from __future__ import annotations

import json
import sys

import pytest

from clickwise.errors import ClickwiseError, EngineError, RecipeError
from clickwise.report.run import read_run
from clickwise.report.sinks import Point, Sending, Sink, points
from clickwise.run.facts import RunFacts
from clickwise.verbs.log import log

TRAIN = [{"step": step, "epoch": step / 10, "wall_s": step / 2, "kind": "train", "loss": 1 / step, "lr": 0.5}
         for step in (1, 2, 3)]
EVAL = {"step": 3, "epoch": 0.3, "wall_s": 2.0, "kind": "eval", "mapping": "validation", "auc": 0.75, "gauc": None}
END = 1_750_000_000.0  # 2025-06-15T15:06:40+00:00


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "kuairand-dlrm" / "20250615-150630"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("model: {name: dlrm}\ntrain: {batch_size: 64, seed: 1}\n")
    write(folder, TRAIN[:2])
    return folder


def write(folder, lines):
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def finish(folder):
    write(folder, [*TRAIN, EVAL])
    RunFacts(mappings={"validation": {"auc": 0.75}}, steps=3, wall_s=10.0, samples_per_s=1234.5, commit="abc",
             parameters={"dense": 7}, date="2025-06-15T15:06:40+00:00", versions={"torch": "9.9"}).save(folder)


class Kept(Sink):
    """A sink of one's own."""

    all: list[Kept] = []

    def __init__(self, target, folder):
        self.target, self.folder, self.sent, self.facts, self.closed = target, folder, [], None, False
        Kept.all.append(self)

    def settings(self, settings):
        self.told = settings

    def points(self, points):
        self.sent.append(list(points))
        return len(points)

    def finish(self, facts):
        self.facts = facts

    def close(self):
        self.closed = True


@pytest.fixture
def kept():
    Kept.all.clear()
    return Kept.all


def test_points_are_the_numbers_of_the_log_at_their_moments(run):
    finish(run)
    start = END - 10
    assert points(read_run(run)) == [
        *(Point(f"train/{name}", line["step"], line[name], start + line["wall_s"])
          for line in TRAIN for name in ("loss", "lr")),
        Point("eval/validation/auc", 3, 0.75, start + 2.0),
        Point("run/samples_per_s", 3, 1234.5, END), Point("run/wall_s", 3, 10.0, END),
        Point("run/parameters_dense", 3, 7.0, END)]


def test_a_running_run_is_sent_what_is_new(run, kept):
    sending = Sending(run, f"{__name__}.Kept", "there")
    assert sending.send() == (4, False) and sending.send() == (0, False)
    write(run, TRAIN[:1])  # resumed from an earlier checkpoint: the lines come again
    assert sending.send() == (0, False)
    finish(run)
    assert sending.send() == (6, True)
    (sink,) = kept
    assert (sink.target, sink.folder) == ("there", run) and sink.told["train.batch_size"] == 64
    assert [len(sent) for sent in sink.sent] == [4, 0, 0, 6] and sink.facts["versions.torch"] == "9.9"


def test_runs_are_followed_until_all_are_finished(run, kept):
    waited = []

    def wait(seconds):
        assert seconds > 0 and len(waited) < 3
        waited.append(seconds)
        if len(waited) == 2:
            finish(run)

    found = log([run], f"{__name__}.Kept", "there", follow=True, wait=wait)
    assert len(waited) == 2 and found["finished"] and found["points"] == {str(run): 10} and kept[0].closed


def test_without_following_it_ends_at_once(run, kept):
    assert log([run], f"{__name__}.Kept", "there", wait=None)["finished"] is False
    assert kept[0].closed and kept[0].facts is None


def test_tensorboard_reads_what_was_sent_once(run, tmp_path, clickwise):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator",
                                 reason="needs tensorboard: pip install 'clickwise[tensorboard]'")
    for _ in range(2):  # the second replaces the first, while the run goes on and when it is finished
        result = clickwise("log", run, "--to", "tensorboard", tmp_path / "tb", "--json")
        assert result.code == 0, result.err
        finish(run)
    assert json.loads(result.out)["points"] == {str(run): 10}
    events = reader.EventAccumulator(str(tmp_path / "tb" / run.parent.name / run.name))
    events.Reload()
    assert {*events.Tags()["scalars"]} == {point.name for point in points(read_run(run))}
    assert [(event.step, event.wall_time, event.value) for event in events.Scalars("train/loss")] == [
        (1, END - 9.5, 1.0), (2, END - 9.0, 0.5), (3, END - 8.5, pytest.approx(1 / 3))]
    (settings,) = events.Tensors("settings")
    assert b"| train.batch_size | `64` |" in settings.tensor_proto.string_val[0]


def test_mlflow_reads_what_was_sent_once(run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install 'clickwise[mlflow]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a tracking server is what it is for
    target = (tmp_path / "mlruns").as_uri()
    assert log([run], "mlflow", target)["points"] == {str(run): 4}
    finish(run)
    assert log([run], "mlflow", target)["points"] == {str(run): 6}
    assert log([run], "mlflow", target)["points"] == {str(run): 0}
    client = mlflow.MlflowClient(target)
    (found,) = client.search_runs([client.get_experiment_by_name("kuairand-dlrm").experiment_id])
    assert found.info.run_name == run.name and found.info.status == "FINISHED"
    assert found.data.params["train.batch_size"] == "64" and found.data.tags["clickwise.versions.torch"] == "9.9"
    losses = client.get_metric_history(found.info.run_id, "train/loss")
    assert sorted((metric.step, metric.value) for metric in losses) == [(line["step"], line["loss"]) for line in TRAIN]


def test_what_mlflow_refuses_is_one_message(run, tmp_path):
    pytest.importorskip("mlflow", reason="needs mlflow: pip install 'clickwise[mlflow]'")
    with pytest.raises(ClickwiseError, match="--to mlflow nonsense://x"):
        log([run], "mlflow", "nonsense://x")


@pytest.mark.parametrize("name, package", [("tensorboard", "tensorboard"), ("mlflow", "mlflow-skinny")])
def test_a_missing_package_is_named(run, monkeypatch, name, package):
    for module in (name, "tensorboard.compat.proto"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineError, match=rf"no {package}(.|\n)*clickwise\[{name}\]"):
        log([run], name, "there")


def test_other_sinks_and_folders_are_refused(run, tmp_path, clickwise):
    with pytest.raises(RecipeError, match="tensorboard, mlflow"):
        log([run], "tensorbord", "there")
    result = clickwise("log", tmp_path, "--to", "tensorboard", tmp_path / "tb")
    assert result.code == 1 and "clickwise train has written" in result.err and not (tmp_path / "tb").exists()
