"""Where a run lies: a name of its own, and a link to the newest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clickwise.run import folder as runs

FEW = ["tiny/dlrm", "data.synthetic.rows={train: 200, validation: 50, test: 50}", "train.batch_size=50",
       "model.top_mlp=[4]", "baselines=[]"]


def test_a_run_with_a_name_and_the_newest(clickwise, tmp_path):
    first = json.loads(clickwise("train", *FEW, "--json").out)["run"]
    assert (tmp_path / "runs/latest").resolve() == (tmp_path / first).resolve()
    second = json.loads(clickwise("train", *FEW, "--name", "wide-2", "--json").out)["run"]
    assert second == "runs/wide-2" and (tmp_path / "runs/latest").resolve() == tmp_path / second
    found = json.loads(clickwise("evaluate", "runs/latest", "--json").out)
    assert found["metrics"] == json.loads(clickwise("evaluate", "runs/wide-2", "--json").out)["metrics"]
    assert len(list((tmp_path / "runs").iterdir())) == 3
    again = clickwise("train", *FEW, "--name", "wide-2")
    assert again.code == 2 and "--resume runs/wide-2" in again.err
    resumed = clickwise("train", "--resume", "runs/latest")
    assert resumed.code == 0 and "is finished" in resumed.err
    page = clickwise("report", "runs/latest", "runs/wide-2")  # of one run, as runs/* would name it
    assert page.code == 0 and page.out.strip() == "runs/latest/report.html" or "wide-2/report.html" in page.out


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "latest", "a b", "a\\b"])
def test_names_that_name_no_folder(clickwise, tmp_path, name):
    result = clickwise("train", *FEW, f"--name={name}")
    assert result.code == 2 and "--name" in result.err and not (tmp_path / "runs").exists()


def test_a_name_and_resume(clickwise):
    result = clickwise("train", "--resume", "runs/x", "--name", "y")
    assert result.code == 2 and "--name y" in result.err


def test_where_links_cannot_be_made_there_is_none(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refused)
    (tmp_path / "a").mkdir()
    runs.mark_latest(tmp_path, tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_of_that_name_stays(tmp_path):
    (tmp_path / "latest").mkdir()
    (tmp_path / "a").mkdir()
    runs.mark_latest(tmp_path, tmp_path / "a")
    assert not (tmp_path / "latest").is_symlink()
    (tmp_path / "latest").rmdir()
    runs.mark_latest(tmp_path, tmp_path / "a")
    assert (tmp_path / "latest").is_symlink() and (tmp_path / "latest").resolve() == tmp_path / "a"


def test_a_dataset_is_not_taken_for_a_recipe(clickwise):
    for words in (["train", "kuairand"], ["prepare", "kuairand"], ["bench", "kuairand"]):
        result = clickwise(*words)
        assert result.code == 2 and "a dataset, not a recipe" in result.err
        assert "clickwise prepare kuairand/prepare, then clickwise train kuairand/dcnv2" in result.err
    result = clickwise("prepare", "kuairand/din")
    assert result.code == 2
    assert "clickwise prepare kuairand/prepare_history, then clickwise train kuairand/din" in result.err


def test_a_shell_completes_recipes():
    command = "import sys; sys.argv = ['clickwise']; from clickwise.cli import main; main()"
    shell = {"_CLICKWISE_COMPLETE": "complete_bash", "COMP_WORDS": "clickwise train kuairand/d", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-c", command], env={**os.environ, **shell}, capture_output=True, text=True)
    assert done.stdout.split() == ["kuairand/dcnv2", "kuairand/dien", "kuairand/din", "kuairand/dlrm"], done.stderr
