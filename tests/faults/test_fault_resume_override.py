"""Settings that may change at --resume hold from then on, or are refused; none is dropped in silence."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from small_dataset import small_columns, small_spec, write

from clickwise import checkpoint


@pytest.fixture
def stopped(run):
    (run / "DONE").unlink()
    return run


def recipe(run):
    return yaml.safe_load((run / "recipe.yaml").read_text())


def test_fault_resume_override(clickwise, stopped):
    before = (stopped / "recipe.yaml").read_text()
    result = clickwise("train", "--resume", stopped, "train.device=cuda:99")
    assert result.code == 1 and "cuda:99" in result.err and "Traceback" not in result.err
    assert (stopped / "recipe.yaml").read_text() == before and not (stopped / "DONE").exists()


def test_threads_prefetch_and_checksums_hold_from_then_on(clickwise, stopped):
    result = clickwise("train", "--resume", stopped, "train.threads=2", "data.prefetch=0", "train.checksums=false")
    assert result.code == 0 and "train.threads: 1 → 2" in result.err and "data.prefetch: 2 → 0" in result.err
    assert recipe(stopped)["train"]["threads"] == 2 and recipe(stopped)["data"]["prefetch"] == 0
    assert clickwise("evaluate", stopped).code == 0


def test_a_recipe_by_its_name_changes_nothing_but_what_is_said_beside_it(clickwise, stopped, words):
    without = [word for word in words if "threads" not in word]
    assert clickwise("train", *without, "--resume", stopped).code == 0
    assert recipe(stopped)["train"]["threads"] == 1  # the file says null; nobody asked for that
    (stopped / "DONE").unlink()
    result = clickwise("train", *words, "train.seed=3", "--resume", stopped)
    assert result.code == 1 and "train.seed: 0 → 3" in result.err and "data.path" in result.err


def test_a_finished_run_takes_no_settings(clickwise, stopped):
    assert clickwise("train", "--resume", stopped).code == 0
    result = clickwise("train", "--resume", stopped, "train.threads=2")
    assert result.code == 2 and "train.threads: 1 → 2" in result.err and "finished" in result.err
    assert clickwise("train", "--resume", stopped, "train.threads=1").code == 0


def test_a_dataset_that_was_moved(clickwise, tmp_path):
    source = small_spec(tmp_path / "old", ("train", "test"))
    for mapping, seed in (("train", 0), ("test", 1)):
        write(source, small_columns(400, seed), mapping)
    words = ["tiny/dlrm", "data={path: old}", "train.batch_size=100", "train.threads=1", "baselines=[]",
             "embedding.max_table_size=1000", "embedding.hash_indices=true", "train.evaluate_every=2"]
    words[0] = str(tmp_path / "recipe.yaml")
    Path("recipe.yaml").write_text("data: {path: old}\nmodel: {name: dlrm, embedding_dim: 4, bottom_mlp: [8, 4], "
                                   "top_mlp: [8]}\n")
    words = [words[0], *words[2:]]
    assert clickwise("train", *words).code == 0
    (run,) = Path("runs/old-dlrm").iterdir()
    whole = shutil.copytree(run, "whole")
    (run / "DONE").unlink()
    shutil.move("old", "new")
    result = clickwise("train", "--resume", run)
    assert result.code == 1 and "old" in result.err and "Traceback" not in result.err
    assert clickwise("train", "--resume", run, "data.path=new").code == 0
    assert recipe(run)["data"]["path"] == str(tmp_path / "new")
    assert json.loads((run / "metrics.json").read_text())["mappings"] == \
        json.loads((Path(whole) / "metrics.json").read_text())["mappings"]
    (run / "DONE").unlink()
    write(small_spec(tmp_path / "new", ("train", "test")), small_columns(400, 5))
    result = clickwise("train", "--resume", run)
    assert result.code == 1 and "has changed since this run" in result.err
    assert checkpoint.load(run / "checkpoint/last.pt")["position"]["step"] == 4
