"""FTRL and RMSProp, of dense parameters and of tables, against vectors of Keras and against each other."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.embedding import Table, TableOptimizer, build_embeddings
from clickwise.errors import RecipeError
from clickwise.optim.dense import DenseOptimizer
from clickwise.recipe import parse

FTRL_KERAS = dict(name="ftrl", lr=0.02, beta=0.0, initial_accumulator=0.1)
RMSPROP_KERAS = dict(name="rmsprop", lr=1.2e-4, rho=0.5, eps=1e-7)
FTRL = [dict(name="ftrl", lr=0.3), dict(name="ftrl", lr=0.3, beta=0.5, initial_accumulator=0.1, l1=0.4, l2=0.3)]
STEPS = st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=12)  # rows that each step looks up


class Dense:
    """A vector under an optimizer of dense parameters."""

    def __init__(self, config, first, dtype=torch.float32):
        self.weight = torch.nn.Parameter(torch.tensor(first, dtype=dtype))
        self.optimizer = DenseOptimizer(**config).build([self.weight])
        self.lr = config["lr"]

    def step(self, grad, factor=1.0):
        self.weight.grad = grad.to(self.weight.dtype)
        self.optimizer.param_groups[0]["lr"] = self.lr * factor
        self.optimizer.step()
        return self.weight.detach()


class Rows:
    """The same for rows of a table of width 1, of which a step sees those with a gradient."""

    def __init__(self, config, first):
        table = Table(name="t", rows=len(first), dim=1, features=("f",))
        self.embeddings = build_embeddings("reference", [table], ("f",), TableOptimizer(**config))
        self.embeddings.set_rows("t", torch.tensor(first)[:, None])

    def step(self, grad, factor=1.0, ids=None):
        self.embeddings.lr_factor = factor
        ids = grad.nonzero()[:, 0] if ids is None else torch.tensor(ids, dtype=torch.int64)
        (self.embeddings((ids,))[:, 0] * grad[ids]).sum().backward()
        return self.embeddings.rows_of("t")[:, 0]


both = pytest.mark.parametrize("make", [Dense, Rows], ids=["dense", "rows"])


@both
@pytest.mark.parametrize("config, first, grads, expected", [
    (FTRL_KERAS, 0.0, (0.1, -0.05, 0.2), (-0.0060302269, -0.0030488029, -0.0132917532)),
    (RMSPROP_KERAS, 0.5, (1e-6, 0.0, -2e-6), (0.4998513208, 0.4998513208, 0.50000536)),
], ids=["ftrl", "rmsprop"])
def test_vectors_of_keras(make, config, first, grads, expected):
    one = make(config, [first])
    for grad, value in zip(grads, expected, strict=True):
        assert float(one.step(torch.tensor([grad]))[0]) == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_rmsprop_in_float64_to_the_last_digit():
    one = Dense(RMSPROP_KERAS, [0.5], torch.float64)
    found = [float(one.step(torch.tensor([grad], dtype=torch.float64))[0]) for grad in (1e-6, 0.0, -2e-6)]
    assert found == pytest.approx([0.4998513208, 0.4998513208, 0.5000053903], abs=5e-11)


@both
@pytest.mark.parametrize("config", [FTRL_KERAS, FTRL_KERAS | {"beta": 0.7}])
def test_ftrl_forgets_a_first_value_at_its_first_step(make, config):
    w0, g, n0, n1 = 0.3, 0.25, 0.1, 0.1 + 0.25**2
    expected = (w0 * (math.sqrt(n1) - math.sqrt(n0)) - 0.02 * g) / (math.sqrt(n1) + config["beta"])
    assert float(make(config, [w0]).step(torch.tensor([g]))[0]) == pytest.approx(expected, rel=1e-5)


@both
def test_ftrl_without_penalties_is_adagrad_under_any_schedule(make):
    ftrl = make(FTRL_KERAS, [0.0])
    w, n = 0.0, 0.1
    for g, factor in ((0.1, 0.5), (-0.3, 1.0), (0.2, 0.25), (0.4, 0.0), (-0.1, 0.1)):
        n += g * g
        w -= 0.02 * factor * g / math.sqrt(n)
        assert float(ftrl.step(torch.tensor([g]), factor)[0]) == pytest.approx(w, rel=1e-5, abs=1e-9)


@both
def test_ftrl_zeroes_what_its_penalty_outweighs(make):
    weights = make(dict(name="ftrl", lr=0.1, l1=1.0), [0.0, 0.0])
    for _ in range(5):
        after = weights.step(torch.tensor([0.1, 1.0]))
    assert after[0] == 0 and after[1] < 0


@pytest.mark.parametrize("config", FTRL, ids=["plain", "penalties"])
@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_ftrl_of_touched_rows_is_ftrl_of_the_dense_table(config, steps):
    dense, rows = Dense(config, [0.0] * 6), Rows(config, [0.0] * 6)
    for number, ids in enumerate(steps):
        grad = torch.randn(6, generator=torch.Generator().manual_seed(number))
        total = torch.zeros(6).index_add_(0, torch.tensor(ids, dtype=torch.int64), grad[ids])
        factor = 1 / (1 + number)
        torch.testing.assert_close(rows.step(grad, factor, ids), dense.step(total, factor), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rho", [0.5, 0.99])
@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_rmsprop_of_touched_rows_is_that_of_torch_on_the_dense_table(rho, steps):
    config = dict(name="rmsprop", lr=0.1, rho=rho, eps=1e-4)
    first = torch.randn(6, generator=torch.Generator().manual_seed(99)).tolist()
    dense, rows = Dense(config, first), Rows(config, first)
    for number, ids in enumerate(steps):
        grad = torch.randn(6, generator=torch.Generator().manual_seed(number))
        total = torch.zeros(6).index_add_(0, torch.tensor(ids, dtype=torch.int64), grad[ids])
        torch.testing.assert_close(rows.step(grad, ids=ids), dense.step(total), rtol=1e-5, atol=1e-5)


def test_a_row_away_for_very_long_has_forgotten_its_gradients():
    rows = Rows(dict(name="rmsprop", lr=0.1, rho=0.9, eps=1e-4), [0.0, 0.0])
    rows.step(torch.tensor([5.0, 0.0]))
    rows.embeddings.step += 100_000
    before = float(rows.embeddings.rows_of("t")[0])
    after = float(rows.step(torch.tensor([1.0, 0.0]))[0])
    assert after == pytest.approx(before - 0.1 / (math.sqrt(0.1) + 1e-4), rel=1e-5)


@pytest.mark.parametrize("section", [TableOptimizer, DenseOptimizer])
@pytest.mark.parametrize("wrong, words", [
    (dict(name="ftrl", beta=0.0), "initial_accumulator above 0"), (dict(name="ftrl", weight_decay=0.1), "does not use"),
    (dict(name="ftrl", eps=1e-4), "does not use"), (dict(name="rmsprop", l1=0.1), "does not use"),
    (dict(name="rmsprop", rho=1.0), "below 1"), (dict(name="adam", rho=0.5), "does not use"),
    (dict(name="ftrl", lr=0.0), "above 0"),
])
def test_settings_that_cannot_be(section, wrong, words):
    with pytest.raises(RecipeError, match=words):
        parse(section, wrong, "recipe")


def test_tables_have_no_momentum():
    parse(DenseOptimizer, dict(name="rmsprop", momentum=0.9), "recipe.optimizer")
    with pytest.raises(RecipeError, match="unknown key 'momentum'"):
        parse(TableOptimizer, dict(name="rmsprop", momentum=0.9), "recipe.embedding.optimizer")
