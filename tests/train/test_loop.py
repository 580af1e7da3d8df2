import json
import re

import pytest
import torch
from torch import nn

from clickwise import checkpoint
from clickwise.batch import Batch
from clickwise.errors import RecipeError, TrainError
from clickwise.optim.schedule import Schedule
from clickwise.recipe import parse
from clickwise.train.log import RunLog
from clickwise.train.loop import Loop, TrainConfig
from clickwise.train.step import OptimizerGroup, TrainStep

ROWS, SIZE = 40, 8


class Batches:
    """Five batches of SIZE per epoch, another order each epoch; remembers what it delivered."""

    samples = ROWS

    def __init__(self, size=SIZE):
        self.seen, self.size = [], size

    def __len__(self):
        return -(-ROWS // self.size)

    def epoch(self, epoch, start_batch=0):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(epoch))
        for index in range(start_batch, len(self)):
            rows = order[index * self.size:(index + 1) * self.size]
            self.seen.append((epoch, index))
            yield Batch(numerical=torch.sin(rows[:, None] * torch.tensor([1.0, 2.0])), label=rows % 2 == 0)


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.dropout, self.factor = nn.Linear(2, 1), nn.Dropout(0.5), 1.0

    def losses(self, batch):
        logit_B = self.linear(self.dropout(batch.numerical)).squeeze(1)
        return {"log_loss": self.factor * nn.functional.binary_cross_entropy_with_logits(logit_B, batch.label.float())}


def loop_in(folder, evaluate=None, resume_at=None, **settings):
    torch.manual_seed(3)
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    part = OptimizerGroup(optimizer, schedule=Schedule(warmup_steps=3))
    step = TrainStep(model, {"": part}, precision="fp32", device=torch.device("cpu"))
    config = TrainConfig(**{"batch_size": SIZE, "epochs": 3, "log_every": 2, **settings})
    return Loop(config, step, Batches(config.batch_size), log=RunLog(folder / "log.jsonl", resume_at=resume_at),
                evaluate=evaluate, checkpoints=checkpoint.CheckpointFolder(folder),
                state=lambda: {"model": model.state_dict()})


def lines(folder, kind):
    parsed = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    untimed = [{key: value for key, value in line.items() if key not in ("wall_s", "samples_per_s")} for line in parsed]
    return [line for line in untimed if line["kind"] == kind]


def scripted(values):
    """An evaluation that returns these AUCs one after the other."""
    values = iter(values)
    return lambda: {"auc": next(values)}


def test_ends_after_epochs_or_steps(tmp_path):
    loop = loop_in(tmp_path)
    assert loop.run().step == 15 and len(set(loop.batches.seen)) == 15
    assert loop_in(tmp_path, steps=7).run().step == 7
    assert loop_in(tmp_path, epochs=None, steps=12).run().step == 12


class Bar:
    """A bar as the loop sees it; remembers what it was told."""

    def __init__(self, title, *, total, unit, first_s):
        self.total, self.done, self.at, self.notes, self.first_s = total, 0, [], [], first_s

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def skip(self, amount):
        self.done += amount

    def advance(self, amount, note):
        self.done += amount
        self.at.append(self.done)
        self.notes.append(note)


@pytest.mark.parametrize("steps, total, at", [
    (None, 2 * ROWS, [16, 32, 40, 56, 72, 80]), (4, ROWS + 16, [16, 32, 40, 56])])
def test_progress_counts_the_samples_that_are_there(tmp_path, monkeypatch, steps, total, at):
    """The last batch of an epoch is half a one here."""
    bars = []

    def started(*words, **more):
        bars.append(Bar(*words, **more))
        return bars[-1]

    monkeypatch.setattr("clickwise.train.loop.Progress", started)
    loop_in(tmp_path, batch_size=16, epochs=2, steps=steps).run()
    assert (bars[0].total, bars[0].at) == (total, at)
    bars.clear()
    resumed = loop_in(tmp_path, batch_size=16, epochs=2, steps=steps)
    resumed.at.step, resumed.at.epoch = 3, 1
    resumed.run()
    assert (bars[0].total, bars[0].at) == (total, at[3:])


def test_progress_tells_step_epoch_and_loss_from_the_first_step(tmp_path, monkeypatch):
    bars = []
    monkeypatch.setattr("clickwise.train.loop.Progress", lambda *words, **more: bars.append(Bar(*words, **more))
                        or bars[-1])
    loop_in(tmp_path, scripted([0.5] * 9), batch_size=16, epochs=2, log_every=2).run()
    first, *_, last = bars[0].notes
    assert bars[0].first_s == 0 and len(bars[0].notes) == 6
    assert re.fullmatch(r"step 1 of 6, epoch 1 of 2, loss 0\.\d{5}", first)
    assert re.fullmatch(r"step 6 of 6, epoch 2 of 2, loss 0\.\d{5}, best auc 0.50000", last)
    logged = lines(tmp_path, "train")[1]["loss"]  # that of steps 3 and 4
    assert f"loss {logged:.5f}" in last and f"loss {logged:.5f}" not in first


@pytest.mark.parametrize("undefined", [float("nan"), float("inf")])
def test_an_evaluation_that_the_data_leave_undefined_is_no_round_without_gain(tmp_path, undefined):
    loop = loop_in(tmp_path, scripted([0.6, undefined, 0.5, undefined, 0.4]), evaluate_every=3, patience=2)
    assert loop.run().step == 15 and loop.at.stopped == "no better auc in 2 evaluations"


@pytest.mark.parametrize("every, steps", [(None, [5, 10, 15]), (4, [4, 8, 12, 15]), (0.5, [3, 5, 8, 10, 13, 15]),
                                          (100, [15])])
def test_evaluates_when_asked_and_at_the_end(tmp_path, every, steps):
    loop_in(tmp_path, scripted([0.5] * 15), evaluate_every=every).run()
    assert [line["step"] for line in lines(tmp_path, "eval")] == steps


@pytest.mark.parametrize("after, every, steps", [
    (6, None, [10, 15]), (5, None, [5, 10, 15]), (1.0, None, [5, 10, 15]), (1.1, None, [10, 15]), (7, 2, [8, 10, 12, 14,
    15]), (0.4, 0.2, [*range(2, 16)]), (15, 1, [15]), (99.0, 1, [15])])
def test_evaluates_nothing_before_it_is_wanted(tmp_path, after, every, steps):
    loop_in(tmp_path, scripted([0.5] * 15), evaluate_after=after, evaluate_every=every).run()
    assert [line["step"] for line in lines(tmp_path, "eval")] == steps


def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path):
    position = loop_in(tmp_path, scripted([0.6, 0.9, 0.7])).run()
    assert (position.best, position.best_step) == (0.9, 10)
    assert checkpoint.load(tmp_path / "best.pt")["position"]["step"] == 10
    assert checkpoint.load(tmp_path / "last.pt")["position"]["step"] == 15


def test_lower_is_better_for_a_loss_and_nan_never(tmp_path):
    values = iter([float("nan"), 0.3, 0.4])
    position = loop_in(tmp_path, lambda: {"log_loss": next(values)}, metric="log_loss").run()
    assert (position.best, position.best_step) == (0.3, 10)


def test_stops_at_a_threshold_after_logging_and_saving(tmp_path):
    position = loop_in(tmp_path, scripted([0.6, 0.8, 0.9]), stop_at=0.8).run()
    assert position.step == 10 and "0.8" in position.stopped
    assert lines(tmp_path, "eval")[-1]["auc"] == 0.8
    assert checkpoint.load(tmp_path / "best.pt")["position"]["step"] == 10


def test_stops_without_improvement(tmp_path):
    position = loop_in(tmp_path, scripted([0.6, 0.6, 0.5, 0.9]), patience=2, epochs=9).run()
    assert position.step == 15 and "no better auc in 2 evaluations" in position.stopped


@pytest.mark.parametrize("bad_step", [6, 7, 12])
def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tmp_path, bad_step):
    loop = loop_in(tmp_path, scripted([0.5] * 3), checkpoint_every=2)

    def epoch(number, start_batch=0, inner=loop.batches.epoch):
        for batch in inner(number, start_batch):
            loop.step.model.factor = float("nan") if loop.at.step + 1 == bad_step else 1.0
            yield batch

    loop.batches.epoch = epoch
    with pytest.raises(TrainError, match="last good checkpoint") as caught:
        loop.run()
    assert "finite" in str(caught.value)
    saved = checkpoint.load(tmp_path / "last.pt")
    assert saved["position"]["step"] < bad_step
    assert all(value.isfinite().all() for value in saved["model"].values())


def test_a_loss_scale_at_which_nothing_is_learned(tmp_path):
    torch.manual_seed(3)
    model = Toy()
    part = OptimizerGroup(torch.optim.SGD(model.parameters(), lr=0.5))
    step = TrainStep(model, {"": part}, precision="fp16", device=torch.device("cpu"), loss_scale=2.0**127)
    model.factor = 1e4
    config = TrainConfig(batch_size=SIZE, precision="fp16", loss_scale=2.0**127, checkpoint_every=2)
    loop = Loop(config, step, Batches(), log=RunLog(tmp_path / "log.jsonl"), evaluate=scripted([0.5]),
                checkpoints=checkpoint.CheckpointFolder(tmp_path), state=lambda: {"model": model.state_dict()})
    with pytest.raises(TrainError, match=r"(?s)step 5, train.loss_scale=1.70141e\+38.*every step.*lower it"):
        loop.run()


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    loop = loop_in(tmp_path, scripted([0.5] * 3), checkpoint_every=1)
    model = loop.step.model

    def spoil(gradient):  # the loss of step 6 is good, what its update makes of the weights is not
        return gradient * float("nan") if loop.step.steps == 6 else gradient

    model.linear.weight.register_hook(spoil)
    with pytest.raises(TrainError, match="linear.weight"):
        loop.run()
    saved = checkpoint.load(tmp_path / "last.pt")
    assert saved["position"]["step"] == 5 and saved["model"]["linear.weight"].isfinite().all()


@pytest.mark.parametrize("metric, values, best_step", [
    ("calibration", [0.8, 1.1, 3.0], 10), ("log_loss", [0.5, 0.3, 0.4], 10), ("auc", [0.5, float("nan"), 0.6], 15)])
def test_every_metric_knows_what_better_means(tmp_path, metric, values, best_step):
    values = iter(values)
    assert loop_in(tmp_path, lambda: {metric: next(values)}, metric=metric).run().best_step == best_step


def test_an_undefined_metric_does_not_stop_training(tmp_path):
    assert loop_in(tmp_path, scripted([float("nan")] * 3), stop_at=0.5).run().step == 15


def test_a_loss_may_have_any_name(tmp_path):
    loop = loop_in(tmp_path)
    losses = loop.step.model.losses
    loop.step.model.losses = lambda batch: {"loss": losses(batch)["log_loss"], "step": losses(batch)["log_loss"] * 0}
    assert loop.run().step == 15
    assert [line["step"] for line in lines(tmp_path, "train")] == [2, 4, 6, 8, 10, 12, 14, 15]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("stop", [1, 4, 5, 6, 10, 14])
def test_resume_equals_never_having_stopped(tmp_path, stop):
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir()
    part.mkdir()
    values = [0.5, 0.7, 0.6]
    loop = loop_in(whole, scripted(values), checkpoint_every=1)
    loop.run()

    killed = loop_in(part, scripted(values), checkpoint_every=1)

    def epoch(number, start_batch=0, inner=killed.batches.epoch):
        for batch in inner(number, start_batch):
            if killed.at.step == stop:
                raise Killed
            yield batch

    killed.batches.epoch = epoch
    with pytest.raises(Killed):
        killed.run()
    content = checkpoint.load(part / "last.pt")
    resumed = loop_in(part, scripted(values[stop // 5:]), resume_at=content["position"]["step"], checkpoint_every=1)
    resumed.load_state_dict(content)
    resumed.step.model.load_state_dict(content["model"])
    resumed.run()

    ours, theirs = checkpoint.load(part / "last.pt"), checkpoint.load(whole / "last.pt")
    assert torch.equal(ours["model"]["linear.weight"], theirs["model"]["linear.weight"])
    assert ours["position"] == theirs["position"]
    assert lines(part, "train") == lines(whole, "train") and lines(part, "eval") == lines(whole, "eval")
    assert resumed.batches.seen == loop.batches.seen[stop:]


def test_log_drops_a_half_line_and_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "wall_s": 2.0, "kind": "train"}\n{"step": 2, "wall_s": 3.0, "kind": "final"}\n'
                    '{"step": 5, "wall_s": 4.0, "kind": "train"}\n{"step": 6, "wal')
    log = RunLog(path, resume_at=3)
    log.write("train", step=4, epoch=0.5, values={"loss": 1.0})
    log.close()
    parsed = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in parsed] == [1, 4] and parsed[1]["wall_s"] >= 2.0


def test_killed_before_the_best_was_marked(tmp_path, monkeypatch):
    loop = loop_in(tmp_path, scripted([0.5, 0.7, 0.6]))

    def killed(self):
        if loop.at.step == 10:
            raise Killed
        marked(self)

    marked = checkpoint.CheckpointFolder.mark_last_as_best
    monkeypatch.setattr(checkpoint.CheckpointFolder, "mark_last_as_best", killed)
    with pytest.raises(Killed):
        loop.run()
    monkeypatch.undo()
    resumed = loop_in(tmp_path, scripted([0.6]), resume_at=10)
    content = checkpoint.load(tmp_path / "last.pt")
    resumed.load_state_dict(content)
    resumed.step.model.load_state_dict(content["model"])
    resumed.run()
    assert checkpoint.load(tmp_path / "best.pt")["position"]["step"] == 10 == resumed.at.best_step


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"epochs": None}, {"evaluate_every": 1.5}, {"precision": "fp8"},
                                  {"evaluate_after": 0}, {"evaluate_after": float("inf")}, {"evaluate_after": -0.5},
                                  {"loss_scale": 1024.0}, {"loss_scale": 0.5, "precision": "fp16"},
                                  {"loss_scale": 8.0, "precision": "bf16"}, {"patience": -1}, {"seed": -1},
                                  {"threads": 100000}])
def test_refuses_settings_that_cannot_be(wrong):
    with pytest.raises(RecipeError):
        parse(TrainConfig, wrong, "recipe.train")
