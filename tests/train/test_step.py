import pytest
import torch
from torch import nn

from clickwise.batch import Batch
from clickwise.embedding import build_embeddings
from clickwise.embedding.table import Table, TableOptimizer
from clickwise.errors import EngineError
from clickwise.optim.dense import DenseOptimizer
from clickwise.optim.schedule import Schedule
from clickwise.train.step import LossScale, Part, TrainStep, set_matmul_precision

CPU = torch.device("cpu")


class Toy(nn.Module):
    """A linear model of one table's rows, whose loss can be blown up."""

    def __init__(self):
        super().__init__()
        self.embeddings = build_embeddings("reference", [Table(name="c", rows=10, dim=4, features=("c",))], ("c",),
                                           TableOptimizer(lr=0.5))
        self.linear = nn.Linear(4, 1)
        self.factor = 1.0

    def losses(self, batch):
        logit_B = self.linear(self.embeddings(batch.categorical)).squeeze(1).float()
        loss = nn.functional.binary_cross_entropy_with_logits(logit_B, batch.label.float())
        return {"log_loss": loss * self.factor, "extra": loss * 0.0}


def step_of(precision="fp32", schedule=None, optimizer=None):
    schedule, optimizer = schedule or Schedule(), optimizer or DenseOptimizer(lr=0.5)
    torch.manual_seed(0)
    model = Toy()
    part = Part(optimizer.build(model.linear.parameters()), [model.embeddings], schedule)
    return TrainStep(model, {"": part}, precision=precision, device=CPU)


def batch():
    return Batch(categorical=(torch.tensor([1, 2, 2, 9], dtype=torch.int8),),
                 label=torch.tensor([True, False, True, True]))


def weights(step):
    return {name: value.clone() for name, value in step.model.state_dict().items()}


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


def test_a_step_moves_dense_weights_and_touched_rows_only():
    step = step_of()
    before = weights(step)
    losses = step(batch())
    after = weights(step)
    assert set(losses) == {"log_loss", "extra"} and not losses["log_loss"].requires_grad
    assert not torch.equal(before["linear.weight"], after["linear.weight"])
    moved = (before["embeddings.tables.c.weight"] != after["embeddings.tables.c.weight"]).any(1)
    assert moved.nonzero().squeeze(1).tolist() == [1, 2, 9]


def test_the_schedule_reaches_both_optimizers():
    still = step_of(schedule=Schedule(warmup_steps=0, decay_start_step=0, decay_steps=1))
    before = weights(still)
    still(batch())  # step 1 stands at the end of the decay: rate 0
    assert same(before, weights(still)) and still.rates() == {"lr": 0}

    half = step_of(schedule=Schedule(warmup_steps=2))
    half(batch())
    assert half.rates() == {"lr": 0.25} and half.model.embeddings.lr_factor == 0.5


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_stays_near_full_precision(precision):
    exact, rough = step_of(), step_of(precision)
    for _ in range(3):
        exact(batch())
        rough(batch())
    for name, value in weights(exact).items():
        torch.testing.assert_close(weights(rough)[name], value, rtol=0.05, atol=0.01)


def test_an_overflow_in_fp16_skips_tables_and_dense_weights_alike():
    step = step_of("fp16")
    step(batch())
    before, scale = weights(step), step.scale.value
    step.model.factor = 1e38  # times the scale: infinite
    step(batch())
    assert same(before, weights(step))
    assert step.skipped == 1 and step.scale.value == scale / 2
    step.model.factor = 1.0
    step(batch())
    assert not same(before, weights(step)) and step.skipped == 1


def test_loss_scale_grows_after_good_steps():
    scale = LossScale(initial=8.0, patience=2)
    for finite in (True, True, True, False, True, True):
        scale.update(finite)
    assert scale.value == 16.0
    for _ in range(10):
        scale.update(False)
    assert scale.value == 1.0


def test_tf32_is_refused_on_a_cpu():
    with pytest.raises(EngineError, match="TF32 is a mode of NVIDIA GPUs"):
        set_matmul_precision("tf32", CPU)


@pytest.mark.parametrize("name", ["sgd", "adagrad", "adam"])
def test_state_goes_on_where_it_stopped(name):
    optimizer = DenseOptimizer(name=name, lr=0.1, momentum=0.9 if name == "sgd" else 0.0)
    whole, first = step_of(optimizer=optimizer), step_of(optimizer=optimizer)
    for _ in range(2):
        whole(batch())
        first(batch())
    second = step_of(optimizer=optimizer)
    second.model.load_state_dict(first.model.state_dict())
    second.model.embeddings.load_optimizer_state_dict(first.model.embeddings.optimizer_state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        whole(batch())
        second(batch())
    assert same(weights(whole), weights(second)) and second.steps == 4
