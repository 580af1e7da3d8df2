"""A model's parts under optimizers and schedules of their own, from the recipe to the checkpoint."""

import json

import pytest
import torch
from torch import nn

from clickwise import checkpoint
from clickwise.batch import Batch
from clickwise.embedding import Table, TableOptimizer, build_embeddings
from clickwise.errors import RecipeError
from clickwise.models.ctr_model import CTRModel
from clickwise.optim.dense import DenseOptimizer
from clickwise.optim.schedule import Schedule
from clickwise.train.step import OptimizerGroup, TrainStep
from clickwise.training_recipe import load_recipe
from clickwise.wiring import parts_of

SMALL = ["data.synthetic.rows={train: 4000, validation: 1000, test: 1000}", "train.epochs=2", "train.batch_size=500",
         "train.log_every=1"]
STEPS = 16
SCHEDULES = ["schedule={warmup_epochs: 1, warmup_factor: 1}",
             "parts.deep.schedule={warmup_epochs: 0.5, levels: [[1, 0.5], [1.5, 0.25], [2, 0.125]]}"]


@pytest.fixture
def train(clickwise, tmp_path):
    def train(*words, recipe="tiny/wide_deep"):
        result = clickwise("train", recipe, *SMALL, *words, "--json")
        assert result.code == 0, result.err
        return tmp_path / json.loads(result.out)["run"]
    return train


def content(run, name="last.pt"):
    return checkpoint.load(run / "checkpoint" / name)


def lines(run, kind="train"):
    return [line for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if line["kind"] == kind]


def test_every_part_has_its_optimizers_and_its_schedule(train):
    run = train(*SCHEDULES)
    saved = content(run)
    assert set(saved["step"]["optimizers"]) == {"wide", "deep"}
    assert [state["optimizer"] for state in saved["tables"]] == ["ftrl", "rmsprop"]
    rates = [(line["lr_wide"], line["lr_deep"]) for line in lines(run)]
    wide = [0.1 * (1 - (8 - min(s, 8)) / 16) for s in range(1, STEPS + 1)]
    deep = [0.001 * (s / 4 if s < 4 else 0.5 if s <= 8 else 0.25 if s <= 12 else 0.125) for s in range(1, STEPS + 1)]
    assert [rate for rate, _ in rates] == pytest.approx(wide)
    assert [rate for _, rate in rates] == pytest.approx(deep)
    page = (run / "report.html").read_text()
    assert "Learning rate, wide" in page and "Learning rate, deep" in page


@pytest.mark.parametrize("words, told", [
    (["schedule.warmup_steps=17"], ["schedule.warmup_steps", "a warm-up of 17 steps, in a training of 16"]),
    (["schedule.warmup_epochs=2.5"], ["schedule.warmup_epochs", "a warm-up of 20 steps"]),
    (["schedule.warmup_steps=11", "train.steps=10"], ["a warm-up of 11 steps, in a training of 10"]),
    (["parts.deep.schedule={warmup_epochs: 3}"], ["parts.deep.schedule.warmup_epochs", "a warm-up of 24 steps"])])
def test_a_warm_up_that_outlasts_the_training_is_refused(clickwise, tmp_path, words, told):
    result = clickwise("train", "tiny/wide_deep", *SMALL, *words)
    assert result.code == 2 and all(part in result.err for part in told), result.err
    assert "Traceback" not in result.err and not (tmp_path / "runs").exists()


def test_a_warm_up_that_ends_with_the_training_is_none_too_long(train):
    run = train("schedule.warmup_steps=16")
    assert [line["lr_deep"] for line in lines(run)][-1] == pytest.approx(0.001)


def test_what_a_part_does_not_say_is_as_in_the_rest_of_the_recipe():
    recipe = load_recipe("tiny/wide_deep", ["parts={deep: {optimizer: {name: adam}}}", "optimizer={name: sgd, lr: 0.3}",
                                            "embedding.optimizer={name: adagrad, lr: 0.2}", "schedule.warmup_steps=9"])
    assert recipe.part("deep").optimizer == DenseOptimizer(name="adam")
    for part in ("wide", "deep", ""):
        assert recipe.part(part).table_optimizer == TableOptimizer(name="adagrad", lr=0.2)
        assert recipe.part(part).schedule == Schedule(warmup_steps=9)
    assert recipe.part("wide").optimizer == recipe.part("").optimizer == DenseOptimizer(name="sgd", lr=0.3)


def test_one_optimizer_for_all_parts_is_the_same_as_one_for_the_model(train):
    """With the same settings for both parts as for the whole, not a bit differs."""
    adam, sgd = "{name: adam, lr: 0.01}", "{name: sgd, lr: 0.5}"
    whole = train("parts={}", f"optimizer={adam}", f"embedding.optimizer={sgd}")
    own = train(*(f"parts.{part}={{optimizer: {adam}, table_optimizer: {sgd}}}" for part in ("wide", "deep")))
    same(content(whole)["model"], content(own)["model"])


def same(one, other):
    assert set(one) == set(other)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("more", [[], ["train.precision=fp16"]], ids=["fp32", "fp16"])
@pytest.mark.parametrize("frozen", ["wide", "deep", "wide.embeddings", "deep.embeddings.cat_3", "deep.hidden"])
def test_frozen_parts_stay_and_all_others_move(train, frozen, more):
    first = train("train.epochs=1")
    run = train("train.epochs=1", f"start_from={first}", f"freeze=[{frozen}]", *more)
    before, after = content(first, "best.pt")["model"], content(run)["model"]
    stayed = {name for name in before if torch.equal(before[name], after[name])}
    assert stayed == {name for name in before if name.replace(".tables.", ".").startswith(f"{frozen}.")}


@pytest.mark.parametrize("more", [[], ["parts.deep.table_optimizer={name: adam, lr: 0.01, minibatch_l2: 0.5}"]],
                         ids=["schedules", "minibatch_l2"])
def test_resumed_after_a_kill_it_ends_in_the_same_bits(clickwise, train, tmp_path, more):
    whole = train(*SCHEDULES, *more)

    def die(self, *batches, step=TrainStep.__call__):
        if self.steps == 12:
            raise KeyboardInterrupt
        return step(self, *batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "__call__", die)
        assert clickwise("train", "tiny/wide_deep", *SMALL, *SCHEDULES, *more, "--out", "killed").code == 130
    (killed,) = (tmp_path / "killed" / "synthetic-wide_deep").iterdir()
    assert content(killed)["position"]["step"] == 8
    assert clickwise("train", "--resume", killed).code == 0
    same(content(whole)["model"], content(killed)["model"])
    assert [line["lr_deep"] for line in lines(killed)] == [line["lr_deep"] for line in lines(whole)]


@pytest.mark.parametrize(("recipe", "words", "message"), [
    ("tiny/wide_deep", ["parts.deeep.optimizer.lr=1"], "did you mean 'deep'"),
    ("tiny/dlrm", ["parts.deep.optimizer.lr=1"], "it has only one"),
    ("tiny/wide_deep", ["parts.deep.optimizr={}"], "did you mean 'optimizer'"),
    ("tiny/wide_deep", ["parts.wide.table_optimizer={name: ftrl, l1: -1}"], "parts.wide.table_optimizer.l1"),
    ("tiny/wide_deep", ["freeze=[wide.embedings]"], "did you mean 'wide.embeddings'"),
    ("tiny/wide_deep", ["freeze=[wide, deep]"], "every part of the model"),
])
def test_parts_that_cannot_be(clickwise, recipe, words, message):
    result = clickwise("train", recipe, *SMALL, *words)
    assert result.code == 2 and message in result.err and "Traceback" not in result.err, result.err


def test_a_part_may_be_left_out_of_the_model_but_not_of_the_recipe(train):
    run = train("model.model_type=deep")
    assert all(name.startswith("deep.") for name in content(run)["model"])
    assert "lr" in lines(run)[0] and "lr_deep" not in lines(run)[0]


class TwoTables(CTRModel):
    """A weight that belongs to no part, and two parts of a table each."""

    parts = ("left", "right")

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.bias = nn.Parameter(torch.zeros(1))
        for part in self.parts:
            table = Table(name="c", rows=5, dim=2, features=("c",), part=part)
            module = nn.Module()
            module.embeddings = build_embeddings("reference", [table], ("c",), TableOptimizer(lr=0.5))
            module.linear = nn.Linear(2, 1)
            setattr(self, part, module)
        self.factor = 1.0

    def forward(self, batch):
        return self.bias + sum(part.linear(part.embeddings(batch.categorical)).squeeze(1) * self.factor
                               for part in (self.left, self.right))


def batch():
    return Batch(categorical=(torch.tensor([1, 2, 2, 4]),), label=torch.tensor([True, False, True, True]))


def test_what_is_in_no_part_is_trained_too_and_tables_of_one_name_start_apart():
    model, recipe = TwoTables(), load_recipe("tiny/wide_deep", [])
    parts = parts_of(model, recipe)
    found = {name: [tuple(p.shape) for g in part.optimizer.param_groups for p in g["params"]]
             for name, part in parts.items()}
    assert found == {"": [(1,)], "left": [(1, 2), (1,)], "right": [(1, 2), (1,)]}
    assert [len(part.tables) for part in parts.values()] == [0, 1, 1]
    assert not torch.equal(model.left.embeddings.rows_of("c"), model.right.embeddings.rows_of("c"))


def test_an_overflow_in_fp16_skips_every_part():
    model = TwoTables()
    parts = {name: OptimizerGroup(DenseOptimizer(lr=0.1).build(getattr(model, name).parameters()),
                        [getattr(model, name).embeddings]) for name in model.parts}
    step = TrainStep(model, parts, precision="fp16", device=torch.device("cpu"))
    step(batch())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.factor = 1e38
    step(batch())
    same(before, model.state_dict())
    assert step.skipped == 1
    model.factor = 1.0
    step(batch())
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(model.parts)


def test_tables_of_a_part_that_the_model_does_not_have():
    from clickwise.errors import EngineError
    from clickwise.wiring import build_engines

    table = Table(name="c", rows=5, dim=2, features=("c",), part="middle")
    with pytest.raises(EngineError, match="middle"):
        build_engines(TwoTables, [table], lambda part: TableOptimizer())
    with pytest.raises(RecipeError, match="middle"):
        load_recipe("tiny/wide_deep", ["parts.middle={}"])
