"""`train.measure_latest`: metrics of the predictions of training, over a window of its samples."""

from __future__ import annotations

import json

import numpy as np
import pytest
import several_processes
import torch
from torch import nn

from clickwise.errors import RecipeError
from clickwise.metrics import auc, log_loss
from clickwise.models.ctr_model import CTRModel
from clickwise.train.latest import LatestPredictions
from clickwise.train.step import TrainStep
from clickwise.verbs.train import train

CPU = torch.device("cpu")


def told(seed, rows=8):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, generator=draw), torch.rand(rows, generator=draw) < 0.4


def window(samples, batches):
    latest = LatestPredictions(samples, CPU)
    for batch in batches:
        latest.add(*batch)
        latest.end_batch(len(batch[0]))
    return latest


@pytest.mark.parametrize(("samples", "batches"), [(1, 1), (8, 1), (9, 2), (16, 2), (17, 3), (1000, 5)])
def test_of_the_fewest_latest_batches_that_suffice(samples, batches):
    every = [told(seed) for seed in range(5)]
    logit_B, label_B = (torch.cat(parts).numpy() for parts in zip(*every[-batches:], strict=True))
    assert window(samples, every).measure() == pytest.approx(
        {"train_auc": auc(label_B, logit_B), "train_log_loss": log_loss(label_B, 1 / (1 + np.exp(-logit_B)))})


def test_nothing_of_a_batch_is_kept_but_copies():
    logit_B, label_B = told(0)
    latest = window(8, [(logit_B, label_B)])
    before = latest.measure()
    label_B.logical_not_()
    assert latest.measure() == before


def test_a_batch_in_several_parts():
    logit_B, label_B = told(0)
    latest = LatestPredictions(8, CPU)
    latest.add(logit_B[:3], label_B[:3])
    latest.add(logit_B[3:], label_B[3:])
    latest.end_batch(8)
    assert latest.measure() == window(8, [(logit_B, label_B)]).measure()


def test_it_goes_on_from_what_was_saved():
    every = [told(seed) for seed in range(6)]
    first, second = window(20, every[:4]), LatestPredictions(20, CPU)
    second.load_state_dict(first.state_dict())
    for latest in (first, second):
        for batch in every[4:]:
            latest.add(*batch)
            latest.end_batch(8)
    assert second.measure() == first.measure()
    empty = LatestPredictions(20, CPU)
    empty.load_state_dict(LatestPredictions(20, CPU).state_dict())
    assert np.isnan(empty.measure()["train_auc"])


def test_what_two_processes_kept_goes_to_one():
    every = [told(seed) for seed in range(3)]
    halves = [window(24, [(logit_B[part], label_B[part]) for logit_B, label_B in every]).state_dict()[0]
              for part in (slice(0, 3), slice(3, 8))]
    for half in halves:
        half["samples"] = [8, 8, 8]
    latest, whole = LatestPredictions(24, CPU), window(24, every)
    latest.load_state_dict(halves)
    assert latest.measure() == whole.measure()
    for each in (latest, whole):
        each.add(*told(9))
        each.end_batch(8)
    assert latest.measure() == whole.measure()


def test_a_model_that_tells_no_predictions():
    with pytest.raises(RecipeError, match=r"(?s)train.measure_latest.*self.click_loss"):
        LatestPredictions(8, CPU).end_batch(8)


def test_a_model_tells_of_its_clicks_and_is_left_as_it_was():
    class Constant(CTRModel):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.ones(1))

        def forward(self, batch):
            return self.bias.expand(len(batch))

    from clickwise.batch import Batch
    model, seen = Constant(), []
    batch = Batch(label=torch.tensor([True, False]))
    expected = model.losses(batch)
    model.watch = lambda logit_B, label_B: seen.append((logit_B, label_B))
    assert model.losses(batch) == expected and len(seen) == 1 and seen[0][1] is batch.label
    model.watch = None
    model.losses(batch)
    assert len(seen) == 1


SMALL = ["data.synthetic.rows={train: 700, validation: 60, test: 60}", "train.batch_size=50", "train.threads=1",
         "train.log_every=3", "train.measure_latest=200", "train.checkpoint_every=4", "train.epochs=1", "baselines=[]",
         "examples=0"]


def of_training(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["train_auc"], line["train_log_loss"]) for line in lines
            if line["kind"] == "train"]


@pytest.mark.parametrize("model", ["dlrm", "dien", "sim"])
def test_a_run_logs_it_draws_it_and_resumes_to_the_same_numbers(model, tmp_path, monkeypatch):
    whole = train(f"tiny/{model}", SMALL, out=tmp_path / "whole")
    found = of_training(whole)
    assert [step for step, *_ in found] == [3, 6, 9, 12, 14]
    assert all(0 <= area <= 1 and loss > 0 for _, _, area, loss in found)
    assert "latest training samples" in (whole / "report.html").read_text()
    before = TrainStep.__call__

    def dying(self, *batches):
        if self.steps == 10:
            raise KeyboardInterrupt
        return before(self, *batches)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", dying)
        with pytest.raises(BaseException):  # noqa: B017
            train(f"tiny/{model}", SMALL, out=tmp_path / "killed")
    killed = next((tmp_path / "killed").glob("synthetic-*/*"))
    train(None, [], resume=killed)
    assert of_training(killed) == found


def test_the_loss_of_one_batch_is_that_of_its_step(tmp_path):
    words = [*SMALL, "train.log_every=1", "train.measure_latest=1"]
    found = of_training(train("tiny/dlrm", words, out=tmp_path))
    assert len(found) == 14
    for _, loss, _, of_latest in found:
        assert of_latest == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_two_processes_tell_the_same(tmp_path):
    several_processes.train(2, ["tiny/dlrm", *SMALL, "--out", "two"], tmp_path)
    together = of_training(next((tmp_path / "two").glob("synthetic-*/*")))
    alone = of_training(train("tiny/dlrm", SMALL, out=tmp_path / "one"))
    assert np.allclose(together, alone, atol=1e-4)
