"""`clickwise train` in several processes: the run of one, killed and resumed with as many or others, and what is wrong.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys

import pytest
import several_processes
import torch

from clickwise import checkpoint
from clickwise.launch import _without_option

WORDS = ["tiny/dlrm", "data.synthetic.rows={train: 3000, validation: 1000, test: 1000}", "train.epochs=3",
         "train.batch_size=300", "train.evaluation_batch_size=333", "train.checkpoint_every=4", "train.log_every=3",
         "train.threads=1", "metrics=[auc, exact_auc, log_loss]", "embedding.sharding.copied_rows=20"]
DYING = """
import os, sys
if int(os.environ["RANK"]) == int(os.environ["DYING_RANK"]):
    if "OPERATION" in os.environ:
        from faults.interrupt import at_operation, kill
        at_operation(int(os.environ["OPERATION"]), "runs", kill)
    else:
        from clickwise.train.step import TrainStep
        step = TrainStep.__call__
        def dying(self, *batches):
            if self.steps == int(os.environ["DYING_STEP"]):
                os.kill(os.getpid(), 9)
            return step(self, *batches)
        TrainStep.__call__ = dying
sys.argv[0] = "clickwise"
from clickwise import cli
cli.main()
"""


def run_folder(place):
    (folder,) = (place / "runs" / "synthetic-dlrm").iterdir()
    return folder


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """(What two processes printed of their run, its folder's folder.)"""
    place = tmp_path_factory.mktemp("two")
    return several_processes.train(2, WORDS, place), place


def values_of(folder):
    """Every value of the last checkpoint, tables whole."""
    content = checkpoint.CheckpointFolder(folder / "checkpoint").load("last")
    found = {}

    def collect(name, value):
        if isinstance(value, checkpoint.Rows):
            whole = torch.empty(value.shape)
            for rows, part in value.parts:
                whole[rows.start:rows.stop:rows.step] = part
            value = whole
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, dict | list):
            for key, each in value.items() if isinstance(value, dict) else enumerate(value):
                collect(f"{name}/{key}", each)

    for part in ("model", "tables", "step"):
        collect(part, content[part])
    return found


def lines_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_two_processes_make_the_run_of_one(clickwise, tmp_path, by_two):
    result = clickwise("train", *WORDS, "--json")
    one, (two, place) = json.loads(result.out), by_two
    for mapping, metrics in one["mappings"].items():
        assert two["mappings"][mapping] == pytest.approx(metrics, abs=1e-4)
    assert two["parameters"] == one["parameters"] and two["checkpoint_step"] == one["checkpoint_step"]
    assert two["baselines"]["results"]["model"] == pytest.approx(one["baselines"]["results"]["model"], abs=1e-4)
    mine, theirs = run_folder(tmp_path), run_folder(place)
    assert {path.name for path in mine.iterdir()} == {path.name for path in theirs.iterdir()}
    for ours, others in zip(lines_of(mine), lines_of(theirs), strict=True):
        timing = {"wall_s", "samples_per_s"}
        assert {**others, **dict.fromkeys(timing)} == pytest.approx({**ours, **dict.fromkeys(timing)}, abs=1e-4)
    expected = values_of(mine)
    found = values_of(theirs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=2e-4)  # both optimizers are Adam
    # Checkpoints of two are read by one.
    measured = json.loads(clickwise("evaluate", theirs, "--json").out)
    assert measured["metrics"] == pytest.approx(two["mappings"]["test"], abs=1e-6)


def killed(processes, place, **how):
    """A training that was killed, and what its processes said."""
    started = several_processes.start(processes, ["-c", DYING, "train", *WORDS], place, **how)
    found = several_processes.ended(started, place)
    return [code for code, _ in found], [out for _, out in found]


def resumed(processes, place):
    folder = run_folder(place)
    if processes == 1:
        subprocess.run([sys.executable, "-m", "clickwise", "train", "--resume", folder], cwd=place, check=True,
                       env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    else:
        several_processes.train(processes, ["--resume", folder], place)
    return json.loads((folder / "metrics.json").read_text())["mappings"]


def test_killed_and_resumed_it_is_bit_identical(by_two, tmp_path):
    codes, outs = killed(2, tmp_path, DYING_RANK="1", DYING_STEP="14")
    assert codes == [1, -signal.SIGKILL]
    assert outs[0].count("clickwise: ") == 1 and "another process cannot be reached" in outs[0], outs
    assert "--resume" in outs[0] and "Traceback" not in "".join(outs)
    two, place = by_two
    assert resumed(2, tmp_path) == two["mappings"]
    expected, found = values_of(run_folder(place)), values_of(run_folder(tmp_path))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_three_killed_at_any_moment_and_resumed_by_one_to_three(tmp_path):
    whole = several_processes.train(3, WORDS, tmp_path)["mappings"]
    expected, moments = values_of(run_folder(tmp_path)), random.Random(5)
    operations = [str(moments.randrange(1, 220)) for _ in range(10)]
    hows = [{"DYING_STEP": str(moments.randrange(30))} for _ in range(10)] + [{"OPERATION": o} for o in operations]
    for number, how in enumerate(hows):
        place = tmp_path / str(number)
        place.mkdir()
        rank = 0 if "OPERATION" in how else moments.randrange(3)
        codes, outs = killed(3, place, DYING_RANK=str(rank), **how)
        if codes == [0, 0, 0]:  # it had ended before that operation
            continue
        assert codes[rank] == -signal.SIGKILL and "Traceback" not in "".join(outs), (how, outs)
        assert sum(out.count("clickwise: ") for out in outs) == 1, (how, outs)
        if not (place / "runs").exists() or not any(place.glob("runs/*-*/*/recipe.yaml")):
            continue
        processes = moments.choice([1, 2, 3])
        found = resumed(processes, place)
        if processes == 3:
            assert found == whole, how
            assert all(torch.equal(value, expected[name]) for name, value in values_of(run_folder(place)).items())
        for mapping, metrics in found.items():
            assert metrics == pytest.approx(whole[mapping], abs=1e-4)


def refused(processes, words, place, **how):
    """The one message with which a training in several processes ends."""
    found = several_processes.ended(several_processes.start(processes, ["-m", "clickwise", "train", *words], place,
                                                            **how), place)
    codes, outs = zip(*found, strict=True)
    told = "\n".join(outs)
    assert len({*codes}) == 1 and codes[0] in (1, 2), found
    assert told.count("clickwise: ") == 1 and "Traceback" not in told, told
    return re.sub(r"\s+", " ", told)


def test_processes_that_differ_are_told_apart(tmp_path):
    told = refused(2, WORDS, tmp_path, of_rank={1: ["train.seed=4"]})
    assert "process 1 of 2 found train.seed: 4 expected 0, as process 0 has it" in told
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("words, expected", [
    (["train.batch_size=2"], "3 processes found batches of 2 samples"),
    (["train.batch_size=2998"], "3 processes found a last batch of 2 samples"),
    (["embedding.engine=reference"], "'reference' found 3 processes"),
    (["data.synthetic.rows={train: 3, validation: 1000, test: 1000}"], "has only 3 rows"),
    (["optimizer.lr=1e30", "embedding.optimizer.lr=1e30"], "found nan"),
])
def test_what_cannot_be_trained_in_three_processes(words, expected, tmp_path):
    assert expected in refused(3, [*WORDS, *words], tmp_path)


@pytest.mark.slow
def test_parts_of_a_checkpoint_that_are_missing_or_damaged(by_two, tmp_path):
    codes, _ = killed(2, tmp_path, DYING_RANK="0", DYING_STEP="14")
    assert codes[0] == -signal.SIGKILL
    folder = run_folder(tmp_path)
    part = max(folder.glob("checkpoint/rows-*-2of2.pt"))
    content = part.read_bytes()
    part.unlink()
    assert "no such file" in refused(2, ["--resume", folder], tmp_path)
    part.write_bytes(content[:-200] + bytes(200))
    assert "not readable as it was written" in refused(2, ["--resume", folder], tmp_path)


def test_the_environment_that_is_not_whole(clickwise, monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    result = clickwise("train", *WORDS)
    assert result.code == 1 and "no MASTER_PORT" in result.err
    result = clickwise("train", *WORDS, "--processes", 2)
    assert result.code == 2 and "started already" in result.err
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setenv("RANK", "2")
    result = clickwise("train", *WORDS)
    assert result.code == 1 and "2 of 2" in result.err
    monkeypatch.setenv("WORLD_SIZE", "two")
    result = clickwise("train", *WORDS)
    assert result.code == 1 and "'two'" in result.err


def test_the_command_starts_them_itself(tmp_path, by_two):
    done = subprocess.run([sys.executable, "-m", "clickwise", "train", *WORDS, "--processes", "2", "--json"],
                          cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mappings"] == by_two[0]["mappings"]
    assert done.stderr.count("run runs/") == 1 and "2 processes" in done.stderr


@pytest.mark.slow
def test_torchrun_starts_them(tmp_path, by_two):
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
                           "clickwise", "train", *WORDS, "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mappings"] == by_two[0]["mappings"]


@pytest.mark.parametrize("words, kept", [
    (["train", "r", "--processes", "3", "--json"], ["train", "r", "--json"]),
    (["train", "--processes=3", "r"], ["train", "r"]),
])
def test_the_option_is_not_passed_on(words, kept):
    assert _without_option(words) == kept


@pytest.mark.slow
def test_other_data_or_none_in_one_process(clickwise, tmp_path):
    for seed in (0, 1):
        assert clickwise("synth", "criteo_t15", "--out", f"data{seed}", "--rows", 600, "--test-rows", 200, "--seed",
                         seed).code == 0
    words = ["tiny/dlrm", "data.synthetic=null", "data.validation=null", "train.batch_size=100",
             "embedding.hash_indices=true", "embedding.max_table_size=100"]
    of_rank = {rank: [f"data.path={tmp_path}/data{rank}"] for rank in (0, 1)}
    assert "process 1 of 2 found the data's" in refused(2, words, tmp_path, of_rank=of_rank)
    of_rank[1] = [f"data.path={tmp_path}/nowhere"]
    assert "nowhere" in refused(2, words, tmp_path, of_rank=of_rank)
