"""Frozen parts and warm starts, from the recipe to the checkpoint."""

import json
import shutil

import pytest
import torch
from torch import nn

from clickwise import checkpoint
from clickwise.errors import RecipeError
from clickwise.train.freeze import freeze_parameters, frozen_tables
from clickwise.train.step import TrainStep

SMALL = ["data.synthetic.rows={train: 4000, validation: 1000, test: 1000}", "train.epochs=1", "train.batch_size=500"]
DENSE = ("bottom", "top", "output")


@pytest.fixture
def train(clickwise, tmp_path):
    def train(*words):
        result = clickwise("train", "tiny/dlrm", *SMALL, *words, "--json")
        assert result.code == 0, result.err
        return tmp_path / json.loads(result.out)["run"]
    return train


@pytest.fixture
def first(train):
    return train()


def weights(run, name="last.pt"):
    return checkpoint.load(run / "checkpoint" / name)["model"]


def moved(run, start):
    """Names of the weights that a run changed."""
    before, after = weights(start, "best.pt"), weights(run)
    return {name for name in before if not torch.equal(before[name], after[name])}


def inside(name, parts):
    """Whether a weight is in one of the parts of a model that `freeze` names."""
    name = name.replace("embeddings.tables.", "embeddings.")
    return any(name == part or name.startswith(f"{part}.") for part in parts)


@pytest.mark.parametrize("parts", [["bottom"], ["top.0", "output.bias"], ["embeddings"], list(DENSE),
                                   ["bottom", "embeddings.cat_3"]], ids="+".join)
@pytest.mark.parametrize("more", [[], ["train.precision=fp16"]], ids=["fp32", "fp16"])
def test_frozen_parts_stay_and_all_others_move(train, first, parts, more):
    run = train(f"start_from={first}", f"freeze=[{', '.join(parts)}]", *more)
    assert moved(run, first) == {name for name in weights(first) if not inside(name, parts)}


@pytest.mark.parametrize("optimizer", ["{name: adam, lr: 0.01, lazy: false, weight_decay: 0.1}",
                                       "{name: rowwise_adagrad, lr: 0.1}"])
def test_frozen_parts_have_no_optimizer_state(train, first, optimizer):
    parts = ["bottom", "embeddings.cat_3"]
    run = train(f"start_from={first}", f"freeze=[{', '.join(parts)}]", "optimizer={name: adam, lr: 0.01}",
                f"embedding.optimizer={optimizer}")
    assert moved(run, first) == {name for name in weights(first) if not inside(name, parts)}
    content = checkpoint.load(run / "checkpoint" / "last.pt")
    dense = [name for name in content["model"] if not inside(name, ["embeddings", "bottom"])]
    assert len(content["step"]["optimizers"][""]["state"]) == len(dense)
    (tables,) = [tables["tables"] for tables in content["tables"]]
    assert [name for name, state in tables.items() if not state] == ["cat_3"]


def test_a_frozen_part_costs_no_gradient():
    model = nn.ModuleDict({"bottom": nn.Linear(2, 2), "top": nn.Linear(2, 1)})
    freeze_parameters(model, ["bottom"], [])
    model["top"](model["bottom"](torch.ones(1, 2))).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["top.weight", "top.bias"]
    paths = ["embeddings.a", "embeddings.a.b", "deep.embeddings.a"]
    assert frozen_tables(["embeddings"], paths) == {"embeddings.a", "embeddings.a.b"}
    assert frozen_tables(["embeddings.a"], paths) == {"embeddings.a"}
    assert frozen_tables(["deep"], paths) == frozen_tables(["deep.embeddings"], paths) == {"deep.embeddings.a"}


@pytest.mark.parametrize(("freeze", "message"), [
    (["botom"], "(?s)'botom'.*did you mean 'bottom'"),
    (["embedings.cat_1"], "(?s)'embedings.cat_1'.*did you mean 'embeddings.cat_1'"),
    (["attention"], "(?s)'attention'.*choose one of: bottom, top, embeddings, "),
    (["bottom", "top", "embeddings"], "(?s)every part.*something left to train"),
    (["bottom", "top", "embeddings.cat_0", "embeddings.cat_1"], "every part"),
])
def test_names_that_cannot_be_frozen(freeze, message):
    model = nn.ModuleDict({"bottom": nn.Linear(2, 2), "top": nn.Linear(2, 1)})
    with pytest.raises(RecipeError, match=message):
        freeze_parameters(model, freeze, ["embeddings.cat_0", "embeddings.cat_1"])


def test_a_run_starts_from_the_best_weights_of_another_and_says_so(clickwise, train, first, tmp_path):
    relative = first.relative_to(tmp_path)
    start = ["optimizer={name: adam, lr: 1.0e-30}", "embedding.optimizer={name: sgd, lr: 0}", f"start_from={relative}"]
    run = train(*start)
    for name, value in weights(first, "best.pt").items():
        torch.testing.assert_close(weights(run)[name], value)
    assert f"start_from: {first}" in (run / "recipe.yaml").read_text()
    result = clickwise("train", "tiny/dlrm", *SMALL, *start)
    assert "its best checkpoint" in result.err


def test_resume_is_not_a_second_start(clickwise, train, first, tmp_path):
    words = [f"start_from={first.relative_to(tmp_path)}", "freeze=[bottom, embeddings.cat_3]",
             "embedding.optimizer={name: adam, lr: 0.01, lazy: false, eps_hat: true, minibatch_l2: 0.5}",
             "optimizer={name: adam, lr: 0.01, eps_hat: true}", "train.epochs=2"]
    whole, killed = train(*words), train(*words)
    (killed / "DONE").unlink()
    for name in ("last.pt", "best.pt"):
        (killed / "checkpoint" / name).unlink()
    assert clickwise("train", "--resume", killed).code == 0  # killed before its first checkpoint: from the start
    same(whole, killed)

    def die(self, *batches, step=TrainStep.__call__):
        if self.steps == 12:
            raise KeyboardInterrupt
        return step(self, *batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "__call__", die)
        result = clickwise("train", "tiny/dlrm", *SMALL, *words, "--out", "killed")
    assert result.code == 130 and "--resume" in result.err
    (killed,) = (tmp_path / "killed" / "synthetic-dlrm").iterdir()
    assert checkpoint.load(killed / "checkpoint" / "last.pt")["position"]["step"] == 8
    shutil.move(first, tmp_path / "gone")
    result = clickwise("train", "tiny/dlrm", *SMALL, *words, "--resume", killed)
    assert result.code == 0, result.err
    same(whole, killed)
    assert clickwise("evaluate", killed).code == 0


def same(one, two):
    for name in ("last.pt", "best.pt"):
        assert all(torch.equal(value, weights(two, name)[key]) for key, value in weights(one, name).items())


def test_starts_that_cannot_be(clickwise, first, tmp_path):
    runs = set((tmp_path / "runs" / "synthetic-dlrm").iterdir())
    for words, message in (
        (["start_from=nowhere"], "no such folder"),
        (["start_from=runs"], "no run folder"),
        ([f"start_from={first}", "model.top_mlp=[4]"], "the model it was saved from"),
        ([f"start_from={first}", "embedding={hash_indices: true, max_table_size: 3}"], "the model it was saved from"),
        ([f"start_from={first}", "data.synthetic.cardinalities=[9, 9]"], "other categorical than"),
        (["freeze=[botom]"], "did you mean 'bottom'"),
        (["freeze=[bottom, top, output, embeddings]"], "every part of the model"),
    ):
        result = clickwise("train", "tiny/dlrm", *SMALL, *words)
        assert result.code in (1, 2) and message in result.err and "Traceback" not in result.err, result.err
    assert set((tmp_path / "runs" / "synthetic-dlrm").iterdir()) == runs
