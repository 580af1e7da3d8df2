"""Every mistake ends in one message (where, found, expected, what to do), exit code 1 or 2; nothing is left behind."""

import errno
import json
import subprocess
import sys

import pytest
import torch

from clickwise import checkpoint
from clickwise.errors import CheckpointError
from clickwise.files import only_one, shipped
from clickwise.run import session

SMALL = ["data.synthetic.rows={train: 6000, validation: 2000, test: 2000}", "train.epochs=2", "train.batch_size=500",
         "train.log_every=5"]


def refused(result, *words, code=None):
    assert result.code in ((1, 2) if code is None else (code,)), result.err
    assert "Traceback" not in result.err
    assert any(line.startswith("clickwise: ") for line in result.err.splitlines())
    for word in words:
        assert word in result.err, result.err
    return result


@pytest.fixture
def run(clickwise):
    result = clickwise("train", "tiny/dlrm", *SMALL, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)["run"]


@pytest.fixture
def dataset(clickwise):
    assert clickwise("synth", "criteo_t15", "--out", "ds", "--rows", 3000, "--test-rows", 1000).code == 0
    return "ds"


def small_recipe(dataset, tmp_path):
    """The tiny recipe on columns from disk, tables small enough for a test."""
    text = (shipped("recipes") / "tiny" / "dlrm.yaml").read_text()
    head, _, tail = text.partition("data:\n")
    tail = tail[tail.index("model:"):].replace("embedding_dim: 8", "embedding_dim: 2").replace("[32, 8]", "[8, 2]")
    path = tmp_path / "small.yaml"
    path.write_text(f"data: {{path: {dataset}}}\n{tail}")
    return path


# ------------------------------------------------------------------------------------------------- what works

def test_train_evaluate_predict_report(clickwise, run, tmp_path):
    folder = tmp_path / run
    assert {"recipe.yaml", "log.jsonl", "metrics.json", "report.html", "DONE", "checkpoint", "scores.npz"} <= \
        {path.name for path in folder.iterdir()}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["mappings"]["test"]["auc"] > 0.5 and metrics["parameters"]["dense"] > 0
    assert metrics["samples_per_s"] > 0 and metrics["peak_memory_bytes"] > 0 and metrics["versions"]["torch"]

    again = json.loads(clickwise("evaluate", run, "--json").out)
    assert again["metrics"] == metrics["mappings"]["test"]

    assert clickwise("predict", run, "--input", "test", "--out", "p.csv").code == 0
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert len(lines) == 2001 and lines[0].replace('"', "").split(",") == ["logit", "probability"]
    assert all(0 <= float(line.split(",")[1]) <= 1 for line in lines[1:])
    assert clickwise("report", run).code == 0


def test_the_same_seed_twice_is_bit_identical(clickwise, tmp_path):
    folders = [json.loads(clickwise("train", "tiny/dlrm", *SMALL, "--json").out)["run"] for _ in range(2)]
    first, second = (checkpoint.load(tmp_path / folder / "checkpoint" / "last.pt")["model"] for folder in folders)
    assert folders[0] != folders[1] and first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("instructions", [None, "AMX"])
def test_bf16_where_fp32_is_faster_is_said(clickwise, monkeypatch, caplog, instructions):
    monkeypatch.setattr(session, "bf16_instructions", lambda: instructions)
    assert clickwise("train", "tiny/dlrm", *SMALL, "train.precision=bf16", "train.device=cpu").code == 0
    assert ("no instructions for it, fp32 is faster" in caplog.text) == (instructions is None)


KILLED = """
import os, signal, sys
from clickwise import cli
from clickwise.train.step import TrainStep
step, kill_at = TrainStep.__call__, int(sys.argv.pop(1))

def dying(self, *batches):
    if self.steps == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *batches)

TrainStep.__call__ = dying
sys.argv[0] = "clickwise"
cli.main()
"""


@pytest.mark.parametrize("kill_at", [0, 2, 12, 17])
def test_killed_and_resumed_is_bit_identical(clickwise, run, tmp_path, kill_at):
    words = ["train", "tiny/dlrm", *SMALL, "train.checkpoint_every=4", "--out", "killed"]
    done = subprocess.run([sys.executable, "-c", KILLED, str(kill_at), *words], cwd=tmp_path, capture_output=True)
    assert done.returncode == -9
    (killed,) = (tmp_path / "killed" / "synthetic-dlrm").iterdir()
    assert not (killed / "DONE").exists()
    assert clickwise("train", "--resume", killed).code == 0

    for name in ("last.pt", "best.pt"):
        ours, theirs = (checkpoint.load(folder / "checkpoint" / name) for folder in (killed, tmp_path / run))
        assert all(torch.equal(ours["model"][key], theirs["model"][key]) for key in theirs["model"])
        assert ours["position"] == theirs["position"]
    ours, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (killed, tmp_path / run))
    assert ours["mappings"] == theirs["mappings"]
    assert (killed / "baselines.json").read_bytes() == (tmp_path / run / "baselines.json").read_bytes()


def test_resume_of_a_finished_run_does_nothing(clickwise, run, tmp_path):
    before = (tmp_path / run / "metrics.json").read_bytes()
    result = clickwise("train", "--resume", run)
    assert result.code == 0 and "nothing to resume" in result.err
    assert (tmp_path / run / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("what", ["train", "inference", "data"])
def test_bench_prints_figures(clickwise, what):
    result = clickwise("bench", "tiny/dlrm", *SMALL, "--what", what, "--steps", 5, "--warmup", 1, "--batch-sizes",
                       "100,200", "--json")
    figures = json.loads(result.out)
    assert [row["batch_size"] for row in figures["rows"]] == [100, 200]
    for row in figures["rows"]:
        assert row["samples_per_s"] > 0
        assert what == "data" or 0 < row["ms_p50"] <= row["ms_p90"] <= row["ms_p99"]


def test_transcode_reads_what_synth_wrote(clickwise, dataset, tmp_path):
    assert clickwise("transcode", dataset, "--out", "again").code == 0
    assert clickwise("train", small_recipe("again", tmp_path), "train.batch_size=1000", "train.epochs=1").code == 0


def test_doctor_and_version(clickwise):
    found = json.loads(clickwise("doctor", "--json").out)
    assert found["packages"]["torch"] and "cpu" in found["devices"]
    assert clickwise("--version").out.strip() == found["clickwise"]


# --------------------------------------------------------------------------------------------------- bad input

def test_unknown_recipe_model_and_keys(clickwise, tmp_path):
    refused(clickwise("train", "tiny/dlmr"), "did you mean 'tiny/dlrm'", code=2)
    refused(clickwise("train"), "a recipe, or --resume RUN", code=2)
    refused(clickwise("train", "tiny/dlrm", "train.batch_sise=5"), "train.batch_sise", "mean 'batch_size'", code=2)
    refused(clickwise("train", "tiny/dlrm", "model.name=dlrn"), "did you mean 'dlrm'", code=2)
    refused(clickwise("train", "tiny/dlrm", "train.batch_size=many"), "an integer", code=2)
    refused(clickwise("train", "tiny/dlrm", "metrics=[auk]"), "'auk'", "auc", code=2)
    refused(clickwise("prepare", "kuairand/prepare", "dataset.name=kuairant"), "kuairand", code=2)
    refused(clickwise("prepare", "tiny/dlrm"), "tiny/dlrm", code=2)
    assert not list(tmp_path.iterdir())


def test_files_that_are_missing_or_no_files(clickwise, tmp_path):
    refused(clickwise("train", "tiny/dlrm", "data={path: nowhere}"), "nowhere")
    (tmp_path / "empty").mkdir()
    refused(clickwise("train", "tiny/dlrm", "data={path: empty}"), "empty", "feature_spec.yaml")
    (tmp_path / "empty" / "feature_spec.yaml").write_text("")
    refused(clickwise("train", "tiny/dlrm", "data={path: empty}"), "feature_spec.yaml")
    (tmp_path / "r.yaml").write_text("")
    refused(clickwise("train", "r.yaml"), "an empty file", code=2)
    refused(clickwise("train", "empty"), "a folder", code=2)
    refused(clickwise("evaluate", "nowhere"), "no such folder")
    refused(clickwise("train", "--resume", "empty"), "recipe.yaml")
    assert not (tmp_path / "runs").exists()


def test_columns_that_contradict_the_spec(clickwise, dataset, tmp_path):
    recipe = small_recipe(dataset, tmp_path)
    spec = tmp_path / dataset / "feature_spec.yaml"
    column = next((tmp_path / dataset / "train").glob("cat_5*"))  # the table of four rows
    content, text = column.read_bytes(), spec.read_text()
    (tmp_path / dataset / "manifest.json").unlink()

    column.write_bytes(b"\x05" + content[1:])
    refused(clickwise("train", recipe, "train.batch_size=500"), "cat_5", "row 0", "found", "expected")
    column.write_bytes(content[:-7])
    refused(clickwise("train", recipe, "train.batch_size=500"), "cat_5", "found", "expected")
    column.unlink()
    refused(clickwise("train", recipe, "train.batch_size=500"), column.name)
    column.write_bytes(content)

    channels, names = text.split("channel_spec:", 1)
    spec.write_text(f"{channels}channel_spec:{names.replace('cat_3', 'cat_33', 1)}")
    refused(clickwise("train", recipe), "cat_33")
    assert not (tmp_path / "runs").exists()


def test_a_batch_larger_than_the_data(clickwise, tmp_path):
    refused(clickwise("train", "tiny/dlrm", *SMALL, "train.batch_size=6001"), "6,000 rows", "train.batch_size=6000")
    assert not (tmp_path / "runs").exists()


def test_devices_and_precisions_that_are_not_here(clickwise):
    if not torch.cuda.is_available():
        refused(clickwise("train", "tiny/dlrm", "train.device=cuda"), "0 GPUs", "train.device=cpu", code=1)
        refused(clickwise("train", "tiny/dlrm", "train.precision=tf32"), "TF32", code=1)
    refused(clickwise("train", "tiny/dlrm", "train.device=tpu"), "auto, cpu, cuda")
    refused(clickwise("train", "tiny/dlrm", "embedding.engine=fast"), "reference")


def test_resume_with_another_recipe_or_dataset(clickwise, run, dataset, tmp_path):
    folder = tmp_path / run
    (folder / "DONE").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    refused(clickwise("train", "tiny/dlrm", *SMALL, "train.seed=9", "--resume", run), "train.seed: 0 → 9")
    refused(clickwise("train", "train.seed=9", "--resume", run), "train.seed: 0 → 9")

    recipe = small_recipe(dataset, tmp_path)
    result = clickwise("train", recipe, "train.batch_size=1000", "train.epochs=1", "--json")
    other = tmp_path / json.loads(result.out)["run"]
    (other / "DONE").unlink()
    column = tmp_path / dataset / "train" / "numerical.bin"
    content = column.read_bytes()
    (tmp_path / dataset / "manifest.json").unlink()
    column.write_bytes(content[2:4] + content[2:])  # the same size, another value
    refused(clickwise("train", "--resume", other), "has changed since this run")
    column.write_bytes(content)

    resolved = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(resolved.replace("seed: 0", "seed: 7"))
    refused(clickwise("train", "--resume", run), "changed since", "train.seed: 0 → 7")
    (folder / "recipe.yaml").write_text(resolved)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert clickwise("train", "--resume", other).code == 0


def test_a_run_is_one_process(clickwise, run, tmp_path):
    (tmp_path / run / "DONE").unlink()
    with only_one(tmp_path / run, CheckpointError):
        refused(clickwise("train", "--resume", run), "another process")
    assert clickwise("train", "--resume", run).code == 0
    assert not (tmp_path / run / ".lock").exists()


def test_a_run_is_found_from_any_folder_and_its_data_may_move(clickwise, dataset, tmp_path, monkeypatch):
    result = clickwise("train", small_recipe(dataset, tmp_path), "train.batch_size=1000", "train.epochs=1", "--json")
    run = tmp_path / json.loads(result.out)["run"]
    before = clickwise("evaluate", run, "--json").out
    monkeypatch.chdir("/")
    assert clickwise("evaluate", run, "--json").out == before
    (tmp_path / dataset).rename(tmp_path / "moved")
    refused(clickwise("evaluate", run), dataset)
    moved = clickwise("evaluate", run, f"data.path={tmp_path / 'moved'}", "--json")
    assert moved.out == before, moved.err


def test_other_features_than_the_model_was_trained_with(clickwise, dataset, tmp_path):
    result = clickwise("train", small_recipe(dataset, tmp_path), "train.batch_size=1000", "train.epochs=1", "--json")
    run = json.loads(result.out)["run"]
    spec = tmp_path / dataset / "feature_spec.yaml"
    (tmp_path / dataset / "manifest.json").unlink()
    head, names = spec.read_text().split("channel_spec:", 1)
    swapped = names.replace("cat_3,", "cat_X,", 1).replace("cat_4,", "cat_3,", 1).replace("cat_X,", "cat_4,", 1)
    assert swapped != names
    spec.write_text(f"{head}channel_spec:{swapped}")
    refused(clickwise("evaluate", run), "other categorical than")
    spec.write_text(f"{head}channel_spec:{names}")
    refused(clickwise("evaluate", run, "model.top_mlp=[4]"), "remove overrides")


def test_data_without_what_the_recipe_needs(clickwise, dataset, tmp_path):
    recipe = small_recipe(dataset, tmp_path)
    refused(clickwise("train", recipe, "train.batch_size=1000", "metrics=[auc, gauc]"), "display", "gauc")
    refused(clickwise("train", recipe, "data.test=tset"), "'tset'", "test")
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_while_saving(clickwise, monkeypatch, tmp_path):
    calls = []

    def full(content, file, save=torch.save):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", full)
    refused(clickwise("train", "tiny/dlrm", *SMALL), "No space left", "--resume")
    (folder,) = (tmp_path / "runs" / "synthetic-dlrm").iterdir()
    assert not (folder / "DONE").exists()
    assert [path.name for path in (folder / "checkpoint").iterdir() if "partial" in path.name] == []
    assert clickwise("train", "--resume", folder).code == 0


def test_a_diverging_training(clickwise, tmp_path):
    refused(clickwise("train", "tiny/dlrm", *SMALL, "optimizer={name: sgd, lr: 1.0e+30}",
                      "embedding.optimizer={name: sgd, lr: 1.0e+30}"), "finite", "lower")
    refused(clickwise("train", "tiny/dlrm", "optimizer.lr=.inf"), "a finite number", code=2)
    refused(clickwise("train", "tiny/dlrm", "optimizer={name: adam, momentum: 0.9}"), "adam does not use it", code=2)


def test_predict_and_bench_refuse_nonsense(clickwise, run, tmp_path):
    refused(clickwise("predict", run, "--input", "nowhere.csv", "--out", "p.csv"), "nowhere.csv", code=2)
    refused(clickwise("predict", run, "--input", "test", "--out", "p.txt"), ".parquet or .csv", code=2)
    refused(clickwise("evaluate", run, "--mapping", "tset"), "'tset'", "test")
    refused(clickwise("evaluate", run, "--checkpoint", "first"), "best or last", code=2)
    refused(clickwise("bench", "tiny/dlrm", "--batch-sizes", "1,x"), "positive integers", code=2)
    assert not (tmp_path / "p.txt").exists()


def test_a_damaged_checkpoint(clickwise, run, tmp_path):
    for name in ("last.pt", "best.pt"):
        (tmp_path / run / "checkpoint" / name).write_bytes(b"PK not really")
    refused(clickwise("evaluate", run), "not readable")
