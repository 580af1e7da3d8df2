import pytest
import torch
from torch import nn

from clickwise.batch import Batch
from clickwise.embedding import build_embeddings
from clickwise.embedding.table import Table, TableOptimizer
from clickwise.errors import EngineError
from clickwise.optim import dense
from clickwise.optim.dense import DenseOptimizer
from clickwise.optim.schedule import Schedule
from clickwise.train import step as train_step
from clickwise.train.step import LossScale, OptimizerGroup, TrainStep, set_matmul_precision

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


def step_of(precision="fp32", schedule=None, optimizer=None, **settings):
    schedule, optimizer = schedule or Schedule(), optimizer or DenseOptimizer(lr=0.5)
    torch.manual_seed(0)
    model = Toy()
    part = OptimizerGroup(optimizer.build(model.linear.parameters()), [model.embeddings], schedule)
    return TrainStep(model, {"": part}, precision=precision, device=CPU, **settings)


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
    before, scale = weights(step), float(step.scale.value)
    step.model.factor = 1e38  # times the scale: infinite
    step(batch())
    assert same(before, weights(step))
    assert step.skipped == 1 and step.scale.value == scale / 2
    step.model.factor = 1.0
    step(batch())
    assert not same(before, weights(step)) and step.skipped == 1


@pytest.mark.parametrize("optimizer", [
    DenseOptimizer(lr=0.1), DenseOptimizer(lr=0.1, momentum=0.9), DenseOptimizer(name="adagrad", lr=0.1),
    DenseOptimizer(name="adam", lr=0.1, weight_decay=0.1), DenseOptimizer(name="adam", lr=0.1, eps_hat=True),
    DenseOptimizer(name="rmsprop", lr=0.1, momentum=0.9), DenseOptimizer(name="ftrl", lr=0.1)],
    ids=lambda o: o.name + "+momentum" * bool(o.momentum) + "+eps_hat" * o.eps_hat)
@pytest.mark.parametrize("overflows", [(0,), (1, 3), (0, 1, 2)], ids=str)
def test_steps_that_fp16_skips_leave_no_trace(optimizer, overflows):
    found, expected = step_of("fp16", optimizer=optimizer), step_of("fp16", optimizer=optimizer)
    for number in range(5):
        found.model.factor = 1e38 if number in overflows else 1.0
        found(batch())
        if number not in overflows:
            expected(batch())
    assert found.skipped == len(overflows) and expected.skipped == 0
    for name, value in weights(expected).items():
        torch.testing.assert_close(weights(found)[name], value)


@pytest.mark.parametrize("optimizer", [DenseOptimizer(lr=0.1), DenseOptimizer(name="adam", lr=0.1)],
                         ids=lambda optimizer: optimizer.name)
def test_no_step_in_fp16_asks_the_device_for_a_number(optimizer, monkeypatch):
    class Tables:
        lr_factor, applied = 1.0, []

        def defer_updates(self, on):
            pass

        def pending_gradients_finite(self):
            return torch.tensor(True)

        def apply_updates(self, scale, skip):
            self.applied.append((scale, skip))

    def refuse(tensor, *args):
        raise AssertionError("a GPU would be waited for")

    torch.manual_seed(0)
    model = Toy()
    model.embeddings.eval()
    part = OptimizerGroup(optimizer.build(model.linear.parameters()), [Tables()])
    step = TrainStep(model, {"": part}, precision="fp16", device=CPU)
    with monkeypatch.context() as patch:
        for name in ("__bool__", "__float__", "__int__", "item", "tolist"):
            patch.setattr(torch.Tensor, name, refuse)
        for factor in (1.0, 1e38, 1.0):
            model.factor = factor
            step(batch())
    assert [(float(scale), float(skip)) for scale, skip in Tables.applied] == \
        [(2.0**-16, 0.0), (2.0**-16, 1.0), (2.0**-15, 0.0)]
    assert step.facts() == {"loss_scale": 2.0**15, "skipped_steps": 1}


def test_loss_scale_is_saved_and_goes_on():
    first, second = step_of("fp16"), step_of("fp16")
    first.model.factor = 1e38
    first(batch())
    first.model.factor = 1.0
    first(batch())
    second.load_state_dict(first.state_dict())
    assert second.facts() == first.facts() == {"loss_scale": 2.0**15, "skipped_steps": 1}
    assert second.state_dict()["scale"] == [2.0**15, 1]


def test_loss_scale_grows_after_good_steps():
    scale = LossScale(CPU, initial=8.0, patience=2)
    for overflow in (0.0, 0.0, 0.0, 1.0, 0.0, 0.0):
        scale.update(torch.tensor(overflow))
    assert scale.value == 16.0 and scale.skipped == 1
    for _ in range(10):
        scale.update(torch.tensor(1.0))
    assert scale.value == 1.0 and scale.skipped == 11


@pytest.mark.parametrize("scale", [8.0, 1024.0])
def test_a_fixed_loss_scale_skips_overflows_and_stays(scale):
    step, expected = step_of("fp16", loss_scale=scale), step_of("fp16", loss_scale=scale)
    for overflows in (True, False, False, True):
        step.model.factor = 1e38 if overflows else 1.0
        step(batch())
        if not overflows:
            expected(batch())
    assert step.facts() == {"loss_scale": scale, "skipped_steps": 2}
    assert same(weights(step), weights(expected))
    step.scale.good_steps.fill_(step.scale.patience - 1)
    step.model.factor = 1.0
    step(batch())
    assert step.facts()["loss_scale"] == scale
    other = step_of("fp16", loss_scale=scale)
    other.load_state_dict(step.state_dict())
    assert other.facts() == step.facts()


def test_a_fixed_loss_scale_is_what_the_loss_is_multiplied_with():
    steps = [step_of("fp16", loss_scale=scale) for scale in (1.0, 1024.0)]
    found = []
    for step in steps:
        step.model.linear.weight.register_hook(lambda grad: found.append(grad.clone()))
        step(batch())
    assert torch.equal(found[0] * 1024, found[1]) and same(*map(weights, steps))


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


def test_the_largest_loss_scale_does_not_become_infinite():
    scale = LossScale(CPU, initial=2.0**126, patience=1)
    for _ in range(4):
        scale.update(torch.tensor(0.0))
    assert scale.state_dict() == [2.0**127, 0]


MANY = "_amp_foreach_non_finite_check_and_unscale_"


@pytest.mark.parametrize("broken", ["missing", "raises", "overlooks nan", "does not multiply"])
def test_where_torchs_unscaling_fails_gradients_are_taken_one_by_one(broken, monkeypatch):
    def other(grads, overflow, factor):
        if broken == "raises":
            raise RuntimeError
        for grad in grads if broken == "overlooks nan" else ():
            overflow.copy_(torch.where(grad.isinf().any(), 1.0, overflow))
            grad.mul_(factor)

    def losses():
        train_step._multiplies_all_at_once.cache_clear()
        step = step_of("fp16")
        for factor in (1.0, 1e38, 1.0):
            step.model.factor = factor
            step(batch())
        return weights(step), step.facts()

    expected, facts = losses()
    assert train_step._multiplies_all_at_once(CPU)
    if broken == "missing":
        monkeypatch.delattr(torch, MANY)
    else:
        monkeypatch.setattr(torch, MANY, other)
    found, facts_found = losses()
    assert not train_step._multiplies_all_at_once(CPU)
    train_step._multiplies_all_at_once.cache_clear()
    assert same(found, expected) and facts_found == facts == {"loss_scale": 2.0**15, "skipped_steps": 1}


@pytest.mark.parametrize("values", [[6.0], [float("inf")], [float("nan")], [-float("inf"), 1.0]], ids=str)
@pytest.mark.parametrize("at_once", [True, False])
def test_gradients_are_multiplied_and_looked_at(at_once, values, monkeypatch):
    monkeypatch.setattr(train_step, "_multiplies_all_at_once", lambda device: at_once)
    grads = [torch.tensor([2.0, 4.0]), torch.tensor(values)]
    overflow = train_step.multiply_(grads, torch.tensor(0.5))
    assert overflow == (values != [6.0]) and grads[0].tolist() == [1.0, 2.0]
    torch.testing.assert_close(grads[1], torch.tensor(values) / 2, equal_nan=True)
    assert train_step.multiply_([], torch.tensor(0.5)) == 0.0


@pytest.mark.parametrize("broken", ["no longer says so", "steps all the same", "counts what it skips"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_where_torchs_optimizers_do_not_skip_as_told_the_step_is_left_out(name, broken, monkeypatch):
    optimizer = DenseOptimizer(name=name, lr=0.1)
    kind = torch.optim.SGD if name == "sgd" else torch.optim.AdamW
    torchs_step, made = kind.step, kind.__init__

    def step(self):
        skip = vars(self).get("found_inf")
        if broken == "steps all the same" and skip is not None:
            self.found_inf = torch.zeros(())
        torchs_step(self)
        for state in self.state.values() if broken == "counts what it skips" and skip else ():
            if "step" in state:
                state["step"] += 1

    def init(self, *args, **settings):
        made(self, *args, **settings)
        self._step_supports_amp_scaling = False

    def run():
        dense._skips_where_told.cache_clear()
        found = step_of("fp16", optimizer=optimizer)
        for factor in (1e38, 1.0, 1e38, 1.0):
            found.model.factor = factor
            found(batch())
        reads = dense.reads_skip(found.parts[""].optimizer)
        dense._skips_where_told.cache_clear()
        return weights(found), found.skipped, reads

    expected, skipped, reads = run()
    assert reads and skipped == 2
    if broken == "no longer says so":
        monkeypatch.setattr(kind, "__init__", init)
    else:
        monkeypatch.setattr(kind, "step", step)
    found, skipped, reads = run()
    assert skipped == 2 and reads == (name == "sgd" and broken == "counts what it skips")  # which has nothing to count
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)
