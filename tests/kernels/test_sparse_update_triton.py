from triton_device import DEVICE, INTERPRETED, nan_in_new_memory, walled  # noqa: F401  isort: skip

import mmap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.embedding import TableOptimizer
from clickwise.kernels.sparse_update import reference
from clickwise.kernels.sparse_update import triton as fast

MAP_NORESERVE = 0x4000  # of Linux: addresses without memory, until it is written to
# Adam and RMSProp multiply what float32 rounds in a sum that is about 0 by lr / eps, and sums have orders of their own.
CONSTANTS = {"adam": {"eps": 0.1, "beta1": 0.8}, "adagrad": {"eps": 1e-3, "initial_accumulator": 0.1},
             "rowwise_adagrad": {"eps": 1e-3, "initial_accumulator": 0.1}, "rmsprop": {"eps": 0.1, "rho": 0.7}}
RULES = [TableOptimizer(name="sgd"), TableOptimizer(name="sgd", weight_decay=0.1),
         TableOptimizer(name="adagrad", **CONSTANTS["adagrad"]),
         TableOptimizer(name="rowwise_adagrad", weight_decay=0.1, **CONSTANTS["rowwise_adagrad"]),
         TableOptimizer(name="rmsprop", **CONSTANTS["rmsprop"]), TableOptimizer(name="adam", **CONSTANTS["adam"]),
         TableOptimizer(name="adam", eps_hat=True, weight_decay=0.1, **CONSTANTS["adam"]),
         TableOptimizer(name="adam", lazy=False, eps_hat=True, weight_decay=0.1, **CONSTANTS["adam"]),
         TableOptimizer(name="sgd", minibatch_l2=0.5),
         TableOptimizer(name="rowwise_adagrad", weight_decay=0.1, minibatch_l2=0.5, **CONSTANTS["rowwise_adagrad"]),
         TableOptimizer(name="adam", minibatch_l2=0.5, **CONSTANTS["adam"]),
         TableOptimizer(name="adam", lazy=False, weight_decay=0.1, minibatch_l2=0.5, **CONSTANTS["adam"]),
         TableOptimizer(name="rowwise_adagrad", weight_decay=0.3, decoupled_weight_decay=True,
                        **CONSTANTS["rowwise_adagrad"]),
         TableOptimizer(name="adam", weight_decay=0.3, decoupled_weight_decay=True, minibatch_l2=0.5,
                        **CONSTANTS["adam"]),
         TableOptimizer(name="adam", lazy=False, weight_decay=0.3, decoupled_weight_decay=True, **CONSTANTS["adam"]),
         TableOptimizer(name="ftrl", lr=0.6, beta=0.0, initial_accumulator=0.1),
         TableOptimizer(name="ftrl", lr=0.6, beta=1.0, l1=0.1, l2=0.2)]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}+{rule.weight_decay or rule.l1}"
                                     + "+decoupled" * rule.decoupled_weight_decay + "+eps_hat" * rule.eps_hat
                                     + "+l2" * bool(rule.minibatch_l2)
                                     + "+all rows" * (not rule.lazy))


def tables(rule, rows, dim, dtype=torch.float32):
    weight = walled(torch.randn(rows, dim, generator=torch.Generator().manual_seed(1)).to(dtype))
    states = {name: walled(state.beside(weight)) for name, state in rule.states().items()}
    if rule.minibatch_l2:
        states["count"] += (torch.arange(rows) % 7).to(DEVICE)
    return weight, states


def assert_same(found, expected, **tolerance):
    for a, b in zip((found[0], *found[1].values()), (expected[0], *expected[1].values()), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@every_rule
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_equals_reference(rule, data):
    rows, dim = data.draw(st.integers(1, 40)), data.draw(st.sampled_from((1, 3, 16, 70, 128, 130)))
    ids = data.draw(st.lists(st.integers(0, rows - 1), min_size=rule.lazy, max_size=200))
    rows_V = torch.tensor(ids, dtype=data.draw(st.sampled_from((torch.int32, torch.int64))), device=DEVICE)
    bag_V = weight_V = None
    bags = len(ids)
    generator = torch.Generator().manual_seed(len(ids))
    if data.draw(st.booleans()):
        bags = data.draw(st.integers(1, 5))
        bag_V = torch.randint(0, bags, (len(ids),), generator=generator).sort().values.to(DEVICE)
        weight_V = walled(torch.rand(len(ids), generator=generator)) if data.draw(st.booleans()) else None
    dtype = data.draw(st.sampled_from((torch.float32, torch.bfloat16, torch.float16)))
    found, expected = tables(rule, rows, dim), tables(rule, rows, dim)
    for step in (1, 4):
        grad_GD = walled(torch.randn(bags, dim, generator=generator).to(dtype))
        for update, (weight, states) in ((fast.sparse_update, found), (reference.sparse_update, expected)):
            update(weight, states, rows_V.long() if update is reference.sparse_update else rows_V, grad_GD, rule,
                   lr=0.3, step=step, bag_V=bag_V, weight_V=weight_V, scale=0.5)
    assert_same(found, expected, rtol=1e-4, atol=1e-5)


@every_rule
@pytest.mark.parametrize(("ids", "dim"), [([3] * 700, 5), ([3] * 300 + [0] + [5] * 129, 40), (list(range(8)) * 40, 16)],
                         ids=["one row", "long runs", "every row"])
def test_runs_longer_than_a_program_are_summed_in_parts(rule, ids, dim, nan_in_new_memory):  # noqa: F811
    rows_V = torch.tensor(ids, dtype=torch.int32, device=DEVICE)[torch.randperm(len(ids)).to(DEVICE)]
    grad_GD = walled(torch.randn(len(ids), dim))
    runs = []
    for update in (fast.sparse_update, fast.sparse_update, reference.sparse_update):
        runs.append(tables(rule, 8, dim))
        update(*runs[-1], rows_V.long(), grad_GD, rule, lr=0.1, step=2, scale=0.01)
    assert_same(runs[0], runs[1], rtol=0, atol=0)
    assert_same(runs[0], runs[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("dim", [260, 1000, 1024])
@pytest.mark.parametrize("name", ["sgd", "rowwise_adagrad", "rmsprop", "ftrl"])
def test_the_widest_rows_and_those_of_float16(name, dim, dtype):
    rule = TableOptimizer(name=name, **CONSTANTS.get(name, {}))
    ids = torch.tensor([2, 0, 2] * 12, device=DEVICE)
    found, expected = tables(rule, 3, dim, dtype), tables(rule, 3, dim, dtype)
    for step in (1, 2):
        grad = walled(torch.randn(len(ids), dim, generator=torch.Generator().manual_seed(step)))
        for update, (weight, states) in ((fast.sparse_update, found), (reference.sparse_update, expected)):
            update(weight, states, ids, grad, rule, lr=0.1, step=step)
    assert_same(found, expected, **(dict(rtol=1e-4, atol=1e-5) if dtype == torch.float32 else
                                    dict(rtol=2e-3, atol=1e-4)))


def test_every_length_of_runs_and_of_the_whole():
    rule = TableOptimizer(name="sgd")
    chunk = fast._tile(1, "sgd")["CHUNK"]
    for length in (1, chunk - 1, chunk, chunk + 1, 2 * chunk, chunk * chunk // 2 + 1):
        for first in {1, chunk - 1, chunk, chunk + 1} & set(range(length + 1)):
            ids = torch.tensor([0] * first + [1] * (length - first), device=DEVICE)
            weight = walled(torch.zeros(2, 1))
            fast.sparse_update(weight, {}, ids, walled(torch.ones(length, 1)), rule, lr=1.0, step=1)
            assert weight.view(-1).tolist() == [-first, first - length]


@pytest.mark.parametrize("tile", [{"BLOCK_D": 64, "CHUNK": 64}, {"maxnreg": 64}], ids=str)
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_tiles_and_registers_of_a_launch_are_free_to_choose(name, tile, monkeypatch):
    rule, chosen = TableOptimizer(name=name, **CONSTANTS.get(name, {})), fast._tile
    monkeypatch.setattr(fast, "_tile", lambda dim, rule: {**chosen(dim, rule), **tile})
    ids, grad = torch.arange(300, device=DEVICE) // 70, walled(torch.randn(300, 70))
    found, expected = tables(rule, 5, 70), tables(rule, 5, 70)
    for update, (weight, states) in ((fast.sparse_update, found), (reference.sparse_update, expected)):
        update(weight, states, ids, grad, rule, lr=0.1, step=1)
    assert_same(found, expected, rtol=1e-4, atol=1e-5)


def test_float32_gradients_are_summed_with_all_their_bits():
    values = torch.randn(40, 7) * 10.0 ** torch.randint(-6, 6, (40, 7))
    weight = walled(torch.zeros(40, 7))
    fast.sparse_update(weight, {}, torch.arange(40, device=DEVICE), walled(values), TableOptimizer(name="sgd"), lr=1.0,
                       step=1)
    assert torch.equal(weight.cpu(), -values)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_gradient_that_is_not_finite_spoils_its_row_alone(value, dtype):
    grad_GD = torch.ones(200, 4, dtype=dtype)
    grad_GD[100, 2] = value
    ids = torch.arange(200, device=DEVICE) // 4
    weight = walled(torch.zeros(50, 4))
    fast.sparse_update(weight, {}, ids, walled(grad_GD) if value == value else grad_GD.to(DEVICE),
                       TableOptimizer(name="sgd"), lr=1.0, step=1)
    spoilt = ~weight.isfinite()
    assert spoilt.nonzero().tolist() == [[25, 2]] and (weight[~spoilt] == -4).all()


@every_rule
def test_keys_that_are_no_rows_are_left_out(rule):
    keys = torch.tensor([5, -1, 2, 99, 5, -1], dtype=torch.int32, device=DEVICE)
    grad = walled(torch.randn(6, 3))
    found, expected = tables(rule, 7, 3), tables(rule, 7, 3)
    fast.update(*found, keys, grad, rule, lr=0.1, step=1)
    reference.sparse_update(*expected, torch.tensor([5, 2, 5], device=DEVICE), grad[[0, 2, 4]], rule, lr=0.1, step=1)
    assert_same(found, expected, rtol=1e-4, atol=1e-5)


@every_rule
def test_rate_step_and_scale_from_the_device_and_a_step_that_is_skipped(rule):
    keys, grad = torch.tensor([1, 3, 1] * 50, device=DEVICE), walled(torch.randn(150, 20))
    one, two = tables(rule, 4, 20), tables(rule, 4, 20)
    numbers = [torch.tensor([value], device=DEVICE) for value in (0.3, 7, 0.5)]
    skip = torch.tensor([1], dtype=torch.uint8, device=DEVICE)
    now = fast.now(rule, lr=numbers[0], step=numbers[1], scale=numbers[2])
    before = tables(rule, 4, 20)
    fast.update(*two, keys, grad, rule, on_device=now, skip=skip)
    assert_same(two, before, rtol=0, atol=0)
    fast.update(*two, keys, grad, rule, on_device=now, skip=skip.zero_())
    fast.update(*one, keys, grad, rule, lr=0.3, step=7, scale=0.5)
    assert_same(two, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "rowwise_adagrad"])
def test_bfloat16_rows_are_rounded_up_or_down_with_the_right_mean(name):
    rule = TableOptimizer(name=name, **CONSTANTS.get(name, {}))
    weight, states = walled(torch.ones(500, 64, dtype=torch.bfloat16)), tables(rule, 500, 64)[1]
    wide, wide_states = walled(torch.ones(500, 64)), {n: s.clone() for n, s in states.items()}
    ids, grad = torch.arange(500, device=DEVICE), walled(torch.full((500, 64), 1.0))
    for step in (1, 2):
        fast.sparse_update(weight, states, ids, grad, rule, lr=5e-4, step=step)  # bfloat16 beside 1: 0.0039 apart
        fast.sparse_update(wide, wide_states, ids, grad, rule, lr=5e-4, step=step)
    assert_same((weight.float().mean(), {}), (wide.mean(), {}), rtol=0, atol=6e-5)  # five deviations
    assert set(weight.float().unique().tolist()) <= {1.0, 1 - 2**-8, 1 - 2**-7} and 0.5 < (weight == 1).float().mean()
    other, _ = walled(torch.ones(500, 64, dtype=torch.bfloat16)), None
    fast.sparse_update(other, {}, ids, grad * float("inf"), TableOptimizer(name="sgd"), lr=1.0, step=1)
    assert not other.isfinite().any()


def test_rows_beyond_2_to_the_31_elements():
    rows, dim = 2**28 + 3, 8
    if INTERPRETED:
        memory = mmap.mmap(-1, 4 * rows * dim, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        weight = torch.frombuffer(memory, dtype=torch.float32).view(rows, dim)
    else:
        if torch.cuda.mem_get_info()[0] < 12 * 2**30:
            pytest.skip("needs 12 GiB of GPU memory")
        weight = torch.zeros(rows, dim, device=DEVICE)
    ids = torch.tensor([rows - 1, 0, 2**28, rows - 1], device=DEVICE)
    fast.sparse_update(weight, {}, ids, walled(torch.ones(4, 8)), TableOptimizer(name="sgd"), lr=1.0, step=1)
    assert weight[ids].mean(1).tolist() == [-2, -1, -1, -2] and not weight[[1, rows - 2, 2**27]].any()


def test_what_it_supports():
    assert fast.supports(torch.zeros(2, 1024), torch.zeros(2, 1024).bfloat16())
    assert not fast.supports(torch.zeros(2, 1025), torch.zeros(2, 1025))
    assert not fast.supports(torch.zeros(2, 4).double(), torch.zeros(2, 4))


def test_self_test():
    fast.self_test(DEVICE)
