"""Tables whose optimizer divides by how often ids occur: who counts them, when, and what training makes of it."""

import json

import pytest
import torch

from clickwise import checkpoint
from clickwise.data.dataset import Dataset
from clickwise.run.session import build_session
from clickwise.training_recipe import load_recipe
from clickwise.verbs.bench import bench

SMALL = ["data.synthetic.rows={train: 3000, validation: 1000, test: 1000}", "train.epochs=1", "train.batch_size=500"]
L2 = "embedding.optimizer.minibatch_l2=0.5"


@pytest.fixture
def train(clickwise, tmp_path):
    def train(name, *words):
        result = clickwise("train", name, *SMALL, *words, "--json")
        assert result.code == 0, result.err
        return tmp_path / json.loads(result.out)["run"]
    return train


@pytest.fixture
def calls(monkeypatch):
    """The features whose ids were counted, call by call."""
    calls, count = [], Dataset.train_counts

    def counting(self, features):
        calls.append(list(features))
        return count(self, calls[-1])

    monkeypatch.setattr(Dataset, "train_counts", counting)
    return calls


def last(run):
    return checkpoint.load(run / "checkpoint" / "last.pt")


def test_the_tables_are_told_how_often_ids_occur_in_the_training_mapping(train, calls):
    runs = [train("tiny/dlrm"), train("tiny/dlrm", L2, "embedding.hash_indices=true", "embedding.max_table_size=30"),
            train("tiny/dlrm", L2, "freeze=[embeddings.cat_3]")]
    assert list(map(len, calls)) == [10, 9] and "cat_3" not in calls[1]
    column = build_session(load_recipe("tiny/dlrm", SMALL)).dataset.columns("train").arrays["cat_3"]
    expected = torch.from_numpy(column).long().bincount(minlength=100)
    folded = torch.nn.functional.pad(expected, (0, 20)).view(4, 30).sum(0).clamp(min=1)
    assert len(expected) == 100 and expected.sum() == 3000
    assert "count" not in last(runs[0])["tables"][0]["tables"]["cat_3"]
    assert torch.equal(last(runs[1])["tables"][0]["tables"]["cat_3"]["count"].long(), folded)
    assert last(runs[2])["tables"][0]["tables"]["cat_3"] == {}


def test_who_starts_from_another_run_counts_and_who_resumes_does_not(clickwise, train, calls):
    first = train("tiny/dlrm")
    run = train("tiny/dlrm", L2, f"start_from={first}", "train.checkpoint_every=2")
    assert len(calls) == 1
    (run / "DONE").unlink()
    assert clickwise("train", "--resume", run).code == 0 and len(calls) == 1
    (run / "DONE").unlink()
    (run / "checkpoint" / "last.pt").unlink()
    assert clickwise("train", "--resume", run).code == 0 and len(calls) == 2
    assert clickwise("evaluate", run).code == 0 and len(calls) == 2
    bench("tiny/dlrm", [*SMALL, L2], steps=2, warmup=1)
    assert len(calls) == 2


def test_histories_share_the_counts_of_their_tables(train):
    run = train("tiny/din", L2)
    columns = build_session(load_recipe("tiny/din", SMALL)).dataset.columns("train").arrays
    counts = last(run)["tables"][0]["tables"]
    history = columns["item_history"]
    seen = torch.from_numpy(history[history != 0]).long()
    both = torch.cat([seen, torch.from_numpy(columns["item"]).long()]).bincount(minlength=len(counts["item"]["count"]))
    assert torch.equal(counts["item"]["count"].long(), both.clamp(min=1))


def test_ids_that_no_column_holds_are_refused_before_a_folder_appears(clickwise, tmp_path):
    result = clickwise("train", "tiny/wide_deep", *SMALL, "model.crosses=[[cat_0, cat_1]]",
                       "parts.wide.table_optimizer={name: adagrad, minibatch_l2: 0.1}")
    assert result.code == 1 and "'cat_0*cat_1'" in result.err and "minibatch_l2=0" in result.err
    assert "Traceback" not in result.err and not (tmp_path / "runs").exists()
    result = clickwise("train", "tiny/wide_deep", *SMALL, "parts.wide.table_optimizer.minibatch_l2=0.1")
    assert result.code == 2 and "ftrl does not use it" in result.err
