import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.embedding import TableOptimizer
from clickwise.kernels.sparse_update import cpu, reference, sparse_update

CONSTANTS = {"sgd": {}, "adam": {"eps": 1e-3, "beta1": 0.8},
             "adagrad": {"eps": 1e-3, "initial_accumulator": 0.1},
             "rowwise_adagrad": {"eps": 1e-3, "initial_accumulator": 0.1}, "rmsprop": {"eps": 1e-3, "rho": 0.7}}
RULES = [TableOptimizer(name=name, weight_decay=decay, **constants)
         for name, constants in CONSTANTS.items() for decay in (0.0, 0.1)]
RULES += [TableOptimizer(name="adam", weight_decay=decay, eps_hat=eps_hat, lazy=lazy, **CONSTANTS["adam"])
          for decay, eps_hat, lazy in ((0.0, True, True), (0.0, False, False), (0.1, True, False))]
RULES += [TableOptimizer(name=name, minibatch_l2=0.5, **constants) for name, constants in CONSTANTS.items()]
RULES += [TableOptimizer(name="adam", weight_decay=decay, minibatch_l2=0.5, lazy=False, **CONSTANTS["adam"])
          for decay in (0.0, 0.1)]
DECOUPLED = {"weight_decay": 0.3, "decoupled_weight_decay": True}
RULES += [TableOptimizer(name=name, **DECOUPLED, **constants) for name, constants in CONSTANTS.items() if name != "sgd"]
RULES += [TableOptimizer(name="adam", minibatch_l2=0.5, lazy=lazy, **DECOUPLED, **CONSTANTS["adam"])
          for lazy in (True, False)]
RULES += [TableOptimizer(name="ftrl", lr=0.6, beta=0.0, initial_accumulator=0.1),
          TableOptimizer(name="ftrl", lr=0.6, l1=0.1, l2=0.2)]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}+{rule.weight_decay or rule.l1}"
                                     + "+decoupled" * rule.decoupled_weight_decay + "+eps_hat" * rule.eps_hat
                                     + "+l2" * bool(rule.minibatch_l2)
                                     + "+all rows" * (not rule.lazy))


def tables(rule, rows, dim):
    weight = torch.randn(rows, dim, generator=torch.Generator().manual_seed(1))
    states = {name: state.beside(weight) for name, state in rule.states().items()}
    if rule.minibatch_l2:
        states["count"] += torch.arange(rows) % 7
    return weight, states


@every_rule
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_cpu_equals_reference(rule, data):
    rows, dim = data.draw(st.integers(1, 40)), data.draw(st.sampled_from((1, 3, 16)))
    ids = data.draw(st.lists(st.integers(0, rows - 1), min_size=rule.lazy, max_size=60))
    rows_V = torch.tensor(ids, dtype=data.draw(st.sampled_from((torch.int32, torch.int64))))
    bag_V = weight_V = None
    bags = len(ids)
    generator = torch.Generator().manual_seed(len(ids))
    if data.draw(st.booleans()):
        bags = data.draw(st.integers(1, 5))
        bag_V = torch.randint(0, bags, (len(ids),), generator=generator).sort().values
        weight_V = torch.rand(len(ids), generator=generator) if data.draw(st.booleans()) else None
    dtype = data.draw(st.sampled_from((torch.float32, torch.bfloat16)))
    found, expected = tables(rule, rows, dim), tables(rule, rows, dim)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "CHUNK", data.draw(st.sampled_from((1, 7 * dim, 2**18))))
        for step in (1, 2, 5):
            grad_GD = torch.randn(bags, dim, generator=generator).to(dtype)
            for update, (weight, states) in ((cpu.sparse_update, found), (reference.sparse_update, expected)):
                update(weight, states, rows_V, grad_GD, rule, lr=0.3, step=step, bag_V=bag_V, weight_V=weight_V,
                       scale=0.5)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    for name, state in expected[1].items():
        torch.testing.assert_close(found[1][name], state, rtol=1e-4, atol=1e-5)
    untouched = torch.ones(rows, dtype=torch.bool)
    untouched[ids] = False
    if rule.lazy:
        assert torch.equal(found[0][untouched], tables(rule, rows, dim)[0][untouched])


def test_the_gradient_is_left_as_it_was():
    for rule in RULES:
        weight, states = tables(rule, 5, 2)
        grad_GD = torch.randn(3, 2)
        kept = grad_GD.clone()
        sparse_update(weight, states, torch.tensor([1, 1, 4]), grad_GD, rule, lr=0.1, step=1)
        assert torch.equal(grad_GD, kept)


def test_no_rows_change_nothing():
    weight, states = tables(RULES[0], 5, 2)
    kept = weight.clone()
    sparse_update(weight, states, torch.zeros(0, dtype=torch.int32), torch.zeros(0, 2), RULES[0], lr=1.0, step=1)
    assert torch.equal(weight, kept)


@pytest.mark.parametrize("update", [cpu.sparse_update, reference.sparse_update], ids=["cpu", "reference"])
@pytest.mark.parametrize("decay, decoupled", [(0.0, False), (0.1, False), (0.3, True)])
def test_adam_on_all_rows_is_that_of_torch_on_a_dense_table(update, decay, decoupled, monkeypatch):
    monkeypatch.setattr(cpu, "CHUNK", 12)
    rule = TableOptimizer(name="adam", lazy=False, weight_decay=decay, decoupled_weight_decay=decoupled, eps=1e-3,
                          beta1=0.8)
    weight, states = tables(rule, 10, 4)
    dense = torch.nn.EmbeddingBag.from_pretrained(weight.clone(), freeze=False, mode="sum")
    of_torch = torch.optim.AdamW if decoupled else torch.optim.Adam
    adam = of_torch(dense.parameters(), lr=0.3, betas=(0.8, rule.beta2), eps=1e-3, weight_decay=decay)
    for step, bags in enumerate(([[2, 2, 7], [0]], [[9], [9, 2]], [], [[1, 1, 1]]), start=1):
        rows_V = torch.tensor(sum(bags, []), dtype=torch.int64)
        bag_V = torch.tensor([bag for bag, rows in enumerate(bags) for _ in rows], dtype=torch.int64)
        grad_GD = torch.randn(len(bags), 4, generator=torch.Generator().manual_seed(step))
        update(weight, states, rows_V, grad_GD, rule, lr=0.3, step=step, bag_V=bag_V)
        adam.zero_grad(set_to_none=False)
        if bags:
            (dense(rows_V, torch.tensor([0, *map(len, bags[:-1])])) * grad_GD).sum().backward()
        adam.step()
        torch.testing.assert_close(weight, dense.weight.detach())


@pytest.mark.parametrize("update", [cpu.sparse_update, reference.sparse_update], ids=["cpu", "reference"])
@pytest.mark.parametrize("name", ["adagrad", "rowwise_adagrad", "adam", "rmsprop"])
def test_decoupled_decay_shrinks_the_rows_touched_and_leaves_the_states_alone(update, name):
    with_decay = TableOptimizer(name=name, weight_decay=0.2, decoupled_weight_decay=True, **CONSTANTS[name])
    without = TableOptimizer(name=name, **CONSTANTS[name])
    decayed, plain = tables(with_decay, 6, 3), tables(without, 6, 3)
    rows_V, grad_GD = torch.tensor([4, 1, 4]), torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
    expected = plain[0].clone()
    for rule, (weight, states) in ((with_decay, decayed), (without, plain)):
        update(weight, states, rows_V, grad_GD, rule, lr=0.3, step=1)
    moved = plain[0] - expected  # without decay
    expected[[1, 4]] *= 1 - 0.3 * 0.2
    torch.testing.assert_close(decayed[0], expected + moved)
    for state in plain[1]:
        assert torch.equal(decayed[1][state], plain[1][state])


@pytest.mark.parametrize("update", [cpu.sparse_update, reference.sparse_update], ids=["cpu", "reference"])
@pytest.mark.parametrize("lazy", [True, False])
def test_eps_hat_is_added_before_the_bias_is_corrected(update, lazy):
    rule = TableOptimizer(name="adam", lazy=lazy, eps_hat=True, eps=0.5, beta1=0.8, beta2=0.9)
    weight = torch.tensor([[1.0], [2.0]])
    states = {"first_moment": torch.zeros(2, 1), "second_moment": torch.zeros(2, 1)}
    w, m, v = 2.0, 0.0, 0.0
    for t, g in enumerate((3.0, -1.0, 0.5), start=1):
        update(weight, states, torch.tensor([1]), torch.tensor([[g]]), rule, lr=0.3, step=t)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        w -= 0.3 * (1 - 0.9**t) ** 0.5 / (1 - 0.8**t) * m / (v**0.5 + 0.5)
        torch.testing.assert_close(weight, torch.tensor([[1.0], [w]]))


@pytest.mark.parametrize("update", [cpu.sparse_update, reference.sparse_update], ids=["cpu", "reference"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_l2_of_a_row_that_occurs_is_added_once_and_by_its_count(update, decay):
    rule = TableOptimizer(name="sgd", weight_decay=decay, minibatch_l2=0.6)
    weight, states = torch.tensor([[1.0], [2.0], [4.0]]), {"count": torch.tensor([1.0, 3.0, 6.0])}
    update(weight, states, torch.tensor([2, 1, 2, 2]), torch.tensor([[1.0], [0.0], [2.0], [3.0]]), rule, lr=0.1, step=1,
           scale=0.5)
    torch.testing.assert_close(weight.view(-1), torch.tensor([
        1.0, 2.0 - 0.1 * (0.6 / 3 + decay) * 2.0, 4.0 - 0.1 * (0.5 * 6.0 + (0.6 / 6 + decay) * 4.0)]))
    assert states["count"].tolist() == [1, 3, 6]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("rows", [1, cpu.PAD_FROM - 1, cpu.PAD_FROM, 20_000, cpu.RADIX - 1, cpu.RADIX, cpu.RADIX + 1])
def test_sorting_is_that_of_torch_at_every_size(rows, dtype):
    largest = torch.iinfo(dtype).max
    for high in (50, largest):
        rows_V = torch.randint(high, (rows,), generator=torch.Generator().manual_seed(rows), dtype=dtype)
        rows_V[rows // 2] = largest
        for found, expected in zip(cpu.stable_sort(rows_V), torch.sort(rows_V, stable=True), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("broken", ["missing", "raises", "does nothing", "another eps"])
def test_where_torchs_fused_adam_fails_public_functions_take_the_same_steps(broken, monkeypatch):
    fused, steps = torch._fused_adam_, (1, 2, 3)

    def other(*args, eps, **settings):
        if broken == "raises":
            raise RuntimeError
        if broken == "another eps":
            fused(*args, eps=eps * 2, **settings)

    def stepped():
        cpu._adam_goes_at_once.cache_clear()
        rule = TableOptimizer(name="adam", lazy=False, weight_decay=0.1, eps=1e-3, beta1=0.8)
        weight, states = tables(rule, 10, 4)
        for step in steps:
            cpu.sparse_update(weight, states, torch.tensor([2, 7, 2]), torch.ones(3, 4) / step, rule, lr=0.3, step=step)
        return weight, *states.values()

    expected = stepped()
    assert cpu._adam_goes_at_once()
    if broken == "missing":
        monkeypatch.delattr(torch, "_fused_adam_")
    else:
        monkeypatch.setattr(torch, "_fused_adam_", other)
    found = stepped()
    assert not cpu._adam_goes_at_once()
    cpu._adam_goes_at_once.cache_clear()
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@every_rule
def test_rows_of_bfloat16_are_those_of_the_reference(rule):
    if not rule.lazy:
        return  # the reference's own work
    generator = torch.Generator().manual_seed(4)
    rows_V = torch.randint(0, 30, (50,), generator=generator)
    grad_GD = torch.randn(50, 8, generator=generator).bfloat16()
    found, expected = tables(rule, 40, 8), tables(rule, 40, 8)
    found, expected = (found[0].bfloat16(), found[1]), (expected[0].bfloat16(), expected[1])
    for step in (1, 2):
        sparse_update(*found[:2], rows_V, grad_GD, rule, lr=0.3, step=step)
        reference.sparse_update(*expected[:2], rows_V, grad_GD, rule, lr=0.3, step=step)
        # The sums differ in their last bits, of which one in thousands decides between two numbers.
        assert (found[0] == expected[0]).float().mean() > 0.99
        torch.testing.assert_close(found[0], expected[0], rtol=0.02, atol=0.01)
        expected[0].copy_(found[0])


def test_bfloat16_is_rounded_by_the_chance_of_the_reference():
    row_CD = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    row_CD[0, 0], row_CD[1, 1], row_CD[2, 2] = float("nan"), float("inf"), 0.0
    touched_C = torch.tensor([0, 1, 2, 7, 8, 11])
    for step in (1, 2, 123_456_789):
        found, expected = (torch.zeros(12, 5, dtype=torch.bfloat16) for _ in range(2))
        cpu._write(found, touched_C, row_CD, step)
        expected[touched_C] = reference._narrowed(row_CD, expected, touched_C, step)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_the_chance_of_rows_beyond_32_bits():
    class Wide:  # in place of a table of 2 ** 33 numbers
        dtype, shape = torch.bfloat16, (2**31, 4)

        def index_copy_(self, dim, touched_C, row_CD):
            self.written = row_CD

    touched_C, row_CD = torch.tensor([2**30 - 1, 2**30, 2**31 - 1]), torch.full((3, 4), 1.003)
    cpu._write(wide := Wide(), touched_C, row_CD, 5)

    class Like(Wide):
        device = torch.device("cpu")

    assert torch.equal(wide.written, reference._narrowed(row_CD, Like(), touched_C, 5))
