"""A folder of runs stands for its latest run, where a command or `clickwise.load` is given one."""

from __future__ import annotations

import json

import pytest

import clickwise as cw
from clickwise.latest_run import latest_run


def folder_of(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "recipe.yaml").write_text("")
    return root


def test_the_latest_by_its_name(tmp_path, caplog):
    runs = folder_of(tmp_path / "runs" / "shop-dlrm", "20261127-093000", "20261127-093000-2", "20261127-093000-10",
                     "20250101-000000-99", "zzz")
    (runs / "20270101-000000").mkdir()  # no run: nothing was written into it
    with caplog.at_level("INFO", logger="clickwise"):
        assert latest_run(runs) == runs / "20261127-093000-10"
    assert "20261127-093000-10" in caplog.text  # the choice is reported


@pytest.mark.parametrize("names", [[], ["zzz"]])
def test_what_is_no_folder_of_runs_stays_as_it_is(tmp_path, names):
    runs = folder_of(tmp_path / "runs", *names)
    for path in (runs, runs / "zzz", tmp_path / "nothing"):
        assert latest_run(path) == path


def test_every_command_takes_one(clickwise, tmp_path):
    small = ["data.synthetic.rows={train: 400, validation: 100, test: 200}", "train.batch_size=100", "train.epochs=1",
             "--json"]
    trained = [json.loads(clickwise("train", "tiny/dlrm", f"train.seed={seed}", *small).out)["run"] for seed in (1, 2)]
    assert trained[0] != trained[1]
    runs = "runs/synthetic-dlrm"
    measured = [json.loads(clickwise("evaluate", run, "--json").out)["metrics"] for run in (*trained, runs)]
    assert measured[2] == measured[1] != measured[0]
    assert json.loads(clickwise("evaluate", runs, "--json").out)["run"] == trained[1]
    assert trained[1] in clickwise("report", runs).out
    resumed = clickwise("train", "--resume", runs)
    assert resumed.code == 0 and f"{trained[1]} is finished" in resumed.err
    assert clickwise("bench", runs, "--what", "inference", "--steps", 1, "--warmup", 0, "--batch-sizes", 10).code == 0
    third = clickwise("train", "tiny/dlrm", f"start_from={runs}", *small)
    assert third.code == 0 and f"{trained[1]}, its best checkpoint" in third.err
    predicted = json.loads(clickwise("predict", runs, "--json").out)["out"]
    assert predicted.startswith(json.loads(third.out)["run"])


def test_load_takes_one(tmp_path):
    with pytest.raises(cw.ClickwiseError, match="20261127-093000"):
        cw.load(folder_of(tmp_path / "runs" / "shop-dlrm", "20261127-093000"))
