"""What every embedding engine must do, held against tables of obvious torch with autograd and formulas by the row.

A new engine joins by its name in ENGINES. One that spans processes is tested in several, each of which runs the whole
suite (tests/embedding/test_sharded_contract.py starts them). What runs on a GPU where there is one is handed its
columns there, and what it gives is looked at on the CPU.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.util
import inspect
import math
import os

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
import whole_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise import processes
from clickwise.batch import Ragged
from clickwise.embedding import Table, TableOptimizer, build_embeddings
from clickwise.errors import EngineError

SEVERAL_PROCESSES = "TABLES_LIE" in os.environ
ENGINES = ["reference"]
if SEVERAL_PROCESSES:
    ENGINES = ["whole_batch:WholeBatchEmbeddings"]
SETTINGS = {"whole_batch:WholeBatchEmbeddings": {"sharding": whole_batch.SHARDING}}
IS_SLOW, DEVICES = dict.fromkeys(ENGINES, False), dict.fromkeys(ENGINES, torch.device("cpu"))
if SEVERAL_PROCESSES:
    whole_batch.join()
elif importlib.util.find_spec("triton") is not None:
    from triton_device import DEVICE, INTERPRETED

    ENGINES.append("fused")
    IS_SLOW["fused"], DEVICES["fused"] = INTERPRETED, DEVICE
ID_TYPES = (torch.int8, torch.int16, torch.int32, torch.int64)
OPTIMIZERS = [
    TableOptimizer(name="sgd", lr=0.5),
    TableOptimizer(name="sgd", lr=0.5, weight_decay=0.1),
    TableOptimizer(name="adagrad", lr=0.5, initial_accumulator=0.1),
    TableOptimizer(name="rowwise_adagrad", lr=0.5, eps=1e-3),
    TableOptimizer(name="rowwise_adagrad", lr=0.5, eps=1e-3, weight_decay=0.1),
    TableOptimizer(name="adam", lr=0.1, beta1=0.8, beta2=0.9, eps=1e-3),
    TableOptimizer(name="adam", lr=0.1, beta1=0.8, beta2=0.9, eps=1e-2, eps_hat=True),
    TableOptimizer(name="adam", lr=0.1, beta1=0.8, beta2=0.9, eps=1e-3, lazy=False),
    TableOptimizer(name="adam", lr=0.1, beta1=0.8, beta2=0.9, eps=1e-2, lazy=False, eps_hat=True, weight_decay=0.1),
    TableOptimizer(name="rmsprop", lr=0.1, rho=0.5, eps=1e-3),
    TableOptimizer(name="rmsprop", lr=0.1, rho=0.9, eps=1e-3, weight_decay=0.1),
    TableOptimizer(name="ftrl", lr=0.5, beta=0.0, initial_accumulator=0.1),
    TableOptimizer(name="ftrl", lr=0.5, beta=1.0, l1=0.3, l2=0.2),
    TableOptimizer(name="sgd", lr=0.5, minibatch_l2=0.4),
    TableOptimizer(name="adagrad", lr=0.5, initial_accumulator=0.1, minibatch_l2=0.4),
    TableOptimizer(name="rowwise_adagrad", lr=0.5, eps=1e-3, weight_decay=0.1, minibatch_l2=0.4),
    TableOptimizer(name="adam", lr=0.1, beta1=0.8, beta2=0.9, eps=1e-3, minibatch_l2=0.4),
    TableOptimizer(name="adam", lr=0.1, beta1=0.8, beta2=0.9, eps=1e-2, lazy=False, weight_decay=0.1, minibatch_l2=0.4),
    TableOptimizer(name="rmsprop", lr=0.1, rho=0.9, eps=1e-3, minibatch_l2=0.4),
    TableOptimizer(name="rowwise_adagrad", lr=0.5, eps=1e-3, weight_decay=0.1, decoupled_weight_decay=True),
    TableOptimizer(name="adam", lr=0.1, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.3, decoupled_weight_decay=True,
                   minibatch_l2=0.4),
    TableOptimizer(name="adam", lr=0.1, beta1=0.8, beta2=0.9, eps=1e-3, lazy=False, weight_decay=0.3,
                   decoupled_weight_decay=True),
]
A_FEW = "A_FEW" in os.environ  # of the examples and optimizers: processes that wait for each other take their time
IS_SLOW |= dict.fromkeys(ENGINES, True) if A_FEW else {}
every_engine = pytest.mark.parametrize("engine", ENGINES)
every_optimizer = pytest.mark.parametrize(
    "optimizer", [OPTIMIZERS[5], OPTIMIZERS[15]] if A_FEW else OPTIMIZERS,
    ids=lambda o: "+".join([o.name, *["decay"] * bool(o.weight_decay), *["decoupled"] * o.decoupled_weight_decay,
                            *["eps_hat"] * o.eps_hat, *["all rows"] * (not o.lazy),
                            *["penalties"] * bool(o.l1), *["l2"] * bool(o.minibatch_l2)]))


def given_for_every_engine(examples, **strategies):
    """`given` so many examples of the strategies for every engine, a few where its kernels are interpreted."""

    def decorate(test):
        few = max(1, examples // 5)
        tests = {engine: settings(max_examples=few if IS_SLOW[engine] else examples, deadline=None)(
            given(**strategies)(test)) for engine in ENGINES}

        @functools.wraps(test)
        def run(engine, **others):
            tests[engine](engine=engine, **others)

        parameters = inspect.signature(test).parameters.values()
        run.__signature__ = inspect.Signature([p for p in parameters if p.name not in strategies])
        return every_engine(run)

    return decorate


# Two widths, a shared table, a mean table, and features in another order than their tables.
TABLES = (
    Table(name="item", rows=7, dim=4, features=("item", "seen")),
    Table(name="user", rows=5, dim=3, features=("user",)),
    Table(name="tag", rows=6, dim=4, features=("tag",), pooling="mean"),
)
FEATURES = ("user", "seen", "tag", "item")
ROWS = {feature: table.rows for table in TABLES for feature in table.features}
# How often ids occur, for `minibatch_l2`: some never, fewer ids than rows, and two features of one table.
COUNTS = {"user": [3, 1, 0, 0, 5], "item": [0, 2, 1, 0, 4, 1, 0], "seen": [1, 1, 0, 0, 7], "tag": [2, 9, 1, 0, 3, 3]}
COUNTS = {feature: np.array(counts) for feature, counts in COUNTS.items()}


def build(engine, optimizer=OPTIMIZERS[0], tables=TABLES, features=FEATURES, seed=3, counts=COUNTS, **settings):
    embeddings = build_embeddings(engine, tables, features, optimizer, seed=seed, device=DEVICES[engine], **settings,
                                  **SETTINGS.get(engine, {}))
    if counts and set(features) <= set(counts):
        embeddings.set_counts(counts)
    if DEVICES[engine].type != "cpu":
        embeddings.register_forward_pre_hook(on_its_device, with_kwargs=True)
        embeddings.register_forward_hook(lambda embeddings, columns, rows: rows.cpu())
    return embeddings


def on_its_device(embeddings, columns, settings):
    device = device_of(embeddings)
    moved = tuple(column.map(lambda t: t.to(device)) if isinstance(column, Ragged) else column.to(device)
                  for column in columns[0])
    return (moved,), {name: before.to(device) for name, before in settings.items()}


def device_of(embeddings):
    return next((buffer.device for buffer in embeddings.buffers()), torch.device("cpu"))


def rows_of(embeddings, name):
    return embeddings.rows_of(name).cpu()


with_ = dataclasses.replace


def ragged(bags, dtype=torch.int32, offsets=torch.int64, padding=0):
    values = [i for bag in bags for i in bag] + [0] * padding
    ends = torch.tensor([0] + [len(bag) for bag in bags]).cumsum(0)
    return Ragged(torch.tensor(values, dtype=dtype), ends.to(offsets))


def bags_of(column):
    """The bags of every sample, one after another: one, or for ids [B, L] one of one id or none for every position."""
    if isinstance(column, Ragged):
        ends, values = column.offsets.tolist(), column.values_V.tolist()
        return [[values[a:b]] for a, b in zip(ends, ends[1:], strict=False)]
    if column.dim() == 2:
        return [[[i] if i >= 0 else [] for i in ids] for ids in column.tolist()]
    return [[[i]] for i in column.tolist()]


@st.composite
def batches(draw, features=FEATURES):
    """Columns of one batch, each one-hot, multi-hot or a history with padding, in any integer type; ids repeat often,
    and bags and histories may be empty."""
    samples = draw(st.integers(0, 6))
    columns = []
    for feature in features:
        ids = st.integers(0, ROWS[feature] - 1)
        dtype = draw(st.sampled_from(ID_TYPES))
        kind = draw(st.sampled_from(("one-hot", "multi-hot", "history")))
        if kind == "history":
            length = draw(st.integers(0, 3))
            history = st.lists(ids | st.just(-1), min_size=length, max_size=length)
            lists = draw(st.lists(history, min_size=samples, max_size=samples))
            columns.append(torch.tensor(lists, dtype=dtype).view(samples, length))
        elif kind == "multi-hot":
            bags = draw(st.lists(st.lists(ids, max_size=4), min_size=samples, max_size=samples))
            offsets = draw(st.sampled_from((torch.int32, torch.int64)))
            columns.append(ragged(bags, dtype, offsets, padding=draw(st.integers(0, 3))))
        else:
            columns.append(torch.tensor(draw(st.lists(ids, min_size=samples, max_size=samples)), dtype=dtype))
    return tuple(columns)


class Dense:
    """The oracle: one parameter per table, rows by loops, updates by the formulas row for row in float64."""

    def __init__(self, embeddings, optimizer):
        self.optimizer, self.step = optimizer, 0
        self.of = {feature: table for table in embeddings.tables for feature in table.features}
        self.features = embeddings.features
        self.weight = {name: rows.double().requires_grad_() for name, rows in weights(embeddings).items()}
        self.state = {table.name: {} for table in embeddings.tables}
        self.count = {table.name: [1] * table.rows for table in embeddings.tables}
        for table in embeddings.tables if optimizer.minibatch_l2 else ():
            self.count[table.name] = [max(1, sum(int(n) for feature in table.features
                                                 for i, n in enumerate(COUNTS[feature]) if i % table.rows == row))
                                      for row in range(table.rows)]

    def rows(self, columns):
        samples = []
        for sample in range(len(columns[0])):
            parts = []
            for feature, column in zip(self.features, columns, strict=True):
                table = self.of[feature]
                zeros = torch.zeros(table.dim, dtype=torch.float64)
                for bag in bags_of(column)[sample]:
                    row = sum((self.weight[table.name][i % table.rows] for i in bag), zeros)
                    parts.append(row / len(bag) if table.pooling == "mean" and bag else row)
            samples.append(torch.cat(parts) if parts else torch.zeros(0).double())
        return torch.stack(samples) if samples else torch.zeros(0, width_of(columns, self.features, self.of)).double()

    def update(self, batches_and_grads, lr_factor=1.0):
        """One step for the sum over (columns, gradient of the rows)."""
        self.step += 1
        total = sum((self.rows(columns) * grad.double()).sum() for columns, grad in batches_and_grads)
        grads = {name: torch.zeros_like(rows) for name, rows in self.weight.items()}
        if total.requires_grad:
            grads = dict(zip(self.weight, torch.autograd.grad(total, list(self.weight.values()), allow_unused=True,
                                                              materialize_grads=True), strict=True))
        touched = {(self.of[feature].name, i % self.of[feature].rows) for columns, _ in batches_and_grads
                   for feature, column in zip(self.features, columns, strict=True)
                   for bags in bags_of(column) for bag in bags for i in bag if self.of[feature].trainable}
        looked_up = touched
        if not self.optimizer.lazy:
            touched = {(t.name, i) for t in self.of.values() if t.trainable for i in range(t.rows)}
        with torch.no_grad():
            for name, i in sorted(touched):
                if (name, i) in looked_up:
                    grads[name][i] += self.optimizer.minibatch_l2 / self.count[name][i] * self.weight[name][i]
                if self.optimizer.name == "ftrl":
                    self.weight[name][i] = self._ftrl_row(name, i, grads[name][i], lr_factor)
                else:
                    direction = self._direction(name, i, grads[name][i])
                    if self.optimizer.decoupled_weight_decay:
                        direction = direction + self.optimizer.weight_decay * self.weight[name][i]
                    self.weight[name][i] -= self.optimizer.lr * lr_factor * direction

    def _direction(self, name, i, g):
        o, state = self.optimizer, self.state[name]
        if not o.decoupled_weight_decay:
            g = g + o.weight_decay * self.weight[name][i]
        if o.name == "sgd":
            return g
        if o.name == "adam":
            m, v = state.get(i, (0, 0))
            m, v = state[i] = (o.beta1 * m + (1 - o.beta1) * g, o.beta2 * v + (1 - o.beta2) * g * g)
            first_bias, second_bias = 1 - o.beta1**self.step, 1 - o.beta2**self.step
            if o.eps_hat:
                return second_bias**0.5 / first_bias * m / (v.sqrt() + o.eps)
            return m / first_bias / ((v / second_bias).sqrt() + o.eps)
        if o.name == "rmsprop":
            v, last = state.get(i, (0, 0))
            for _ in range(last + 1, self.step):
                v = o.rho * v  # in a step without this row
            v, _ = state[i] = (o.rho * v + (1 - o.rho) * g * g, self.step)
            return g / (v.sqrt() + o.eps)
        squares = (g * g).mean() if o.name == "rowwise_adagrad" else g * g
        state[i] = state.get(i, torch.full_like(squares, o.initial_accumulator)) + squares
        return g / (state[i].sqrt() + o.eps)


    def _ftrl_row(self, name, i, g, lr_factor):
        o, state, w = self.optimizer, self.state[name], self.weight[name][i]
        n, z = state.get(i, (torch.full_like(g, o.initial_accumulator), 0))
        n, z = state[i] = (n + g * g, z + lr_factor * g - ((n + g * g).sqrt() - n.sqrt()) / o.lr * w)
        return -z.sign() * (z.abs() - o.l1).clamp(min=0) / ((o.beta + n.sqrt()) / o.lr + o.l2)


def weights(embeddings):
    return {table.name: rows_of(embeddings, table.name).clone() for table in embeddings.tables}


def assert_same_tables(found, expected, **tolerance):
    for name, rows in expected.items():
        torch.testing.assert_close(found[name].double(), rows.detach().double(), **tolerance)


def assert_steps_agree(embeddings, oracle):
    """Every engine sums in an order of its own. Adam and RMSProp divide a gradient g by about |g| + eps: with lr 0.1
    and eps 1e-3 a last bit of the sum counts 100 times where g is hardly more than rounding."""
    amplifies = embeddings.optimizer.name in ("rmsprop", "adam") and embeddings.optimizer.eps < 1e-2
    assert_same_tables(weights(embeddings), oracle.weight, rtol=1e-4, atol=1e-4 if amplifies else 1e-5)


def train(embeddings, columns, grad):
    (embeddings(columns) * grad).sum().backward()


def width_of(columns, features=FEATURES, table_of=None):
    table_of = table_of or {feature: table for table in TABLES for feature in table.features}
    positions = (column.shape[1] if isinstance(column, torch.Tensor) and column.dim() == 2 else 1 for column in columns)
    return sum(table_of[feature].dim * number for feature, number in zip(features, positions, strict=True))


def random_grad(columns, seed=0):
    return torch.randn(len(columns[0]), width_of(columns), generator=torch.Generator().manual_seed(seed))


EXAMPLE = (torch.tensor([4, 0, 4], dtype=torch.int8), ragged([[1, 1, 6], [], [0]]), ragged([[], [2, 5], [2, 2]]),
           torch.tensor([1, 6, 1], dtype=torch.int16))


# Values ---------------------------------------------------------------------------------------------------------------


@given_for_every_engine(60, columns=batches())
def test_rows_are_pooled_by_their_table_in_the_order_of_the_features(engine, columns):
    embeddings = build(engine)
    rows = embeddings(columns)
    assert rows.shape == (len(columns[0]), width_of(columns)) and rows.is_contiguous()
    assert embeddings.dims == (3, 4, 4, 4)
    torch.testing.assert_close(rows.detach().double(), Dense(embeddings, OPTIMIZERS[0]).rows(columns).detach())
    with torch.no_grad():
        assert torch.equal(rows, embeddings(columns))


@every_engine
def test_one_dim_views_as_features(engine):
    tables = [Table(name=f"t{i}", rows=3, dim=2, features=(f"f{i}",)) for i in range(3)]
    embeddings = build(engine, tables=tables, features=("f2", "f0", "f1"))
    rows_BFD = embeddings((torch.tensor([2]), torch.tensor([0]), torch.tensor([1]))).view(1, 3, 2)
    expected = torch.stack([rows_of(embeddings, name)[i] for name, i in (("t2", 2), ("t0", 0), ("t1", 1))])
    assert torch.equal(rows_BFD[0], expected)


@every_engine
def test_no_feature_and_no_sample(engine):
    assert build(engine, tables=(), features=())(()).shape == (0, 0)
    embeddings = build(engine)
    before = weights(embeddings)
    empty = (torch.zeros(0, dtype=torch.int8), ragged([]), ragged([]), torch.zeros(0, dtype=torch.int32))
    rows = embeddings(empty)
    assert rows.shape == (0, 15)
    rows.sum().backward()
    assert_same_tables(weights(embeddings), before, rtol=0, atol=0)


@every_engine
def test_autocast_gives_rows_in_its_type_and_keeps_float32_tables(engine):
    embeddings, one_hot = build(engine), tuple(torch.tensor([1, 2]) for _ in FEATURES)
    for columns in (EXAMPLE, one_hot):
        full = embeddings(columns).detach()
        with torch.autocast(device_of(embeddings).type, torch.bfloat16):
            rows = embeddings(columns)
        assert rows.dtype == torch.bfloat16 and torch.equal(rows, full.bfloat16())
        rows.sum().backward()
        assert rows_of(embeddings, "item").dtype == torch.float32


# Rows behind something else -------------------------------------------------------------------------------------------


def behind(columns, width, dtype=torch.float32):
    return torch.randn(len(columns[0]), width, generator=torch.Generator().manual_seed(width)).to(dtype)


@given_for_every_engine(30, columns=batches(), width=st.integers(0, 20),
                        dtype=st.sampled_from((torch.float32, torch.float16, torch.bfloat16)))
def test_what_stands_before_the_rows_is_laid_beside_them(engine, columns, width, dtype):
    embeddings, before = build(engine), behind(columns, width, dtype)
    for training in (True, False):
        embeddings.train(training)
        found = embeddings(columns, before=before)
        assert found.is_contiguous() and found.dtype == torch.float32
        assert torch.equal(found, torch.cat([before.float(), embeddings(columns)], dim=1))


@every_optimizer
@given_for_every_engine(10, calls=st.lists(st.tuples(batches(), st.sampled_from((0, 1, 4, 13))), min_size=1,
                                           max_size=3))
def test_the_gradient_behind_it_reaches_the_rows_and_its_own_goes_further(engine, optimizer, calls):
    embeddings = build(engine, optimizer)
    oracle = Dense(embeddings, optimizer)
    for _ in range(2):
        total, parts = 0, []
        for columns, width in calls:
            before = behind(columns, width, torch.float16).requires_grad_()
            out = embeddings(columns, before=before)
            grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(width)).half().float()
            total = total + (out * grad).sum()
            parts.append((columns, before, grad))
        total.backward()
        for (_, width), (_, before, grad) in zip(calls, parts, strict=True):
            assert torch.equal(before.grad, grad[:, :width].half())
        oracle.update([(columns, grad[:, before.shape[1]:]) for columns, before, grad in parts])
        assert_steps_agree(embeddings, oracle)


@given_for_every_engine(30, width=st.sampled_from((0, 3, 4, 8)),
                        columns=batches(features=("seen", "tag", "item")))
def test_rows_of_one_width_behind_something_as_wide_as_a_row_or_two(engine, columns, width):
    tables = tuple(table for table in TABLES if table.dim == 4)
    embeddings = build(engine, OPTIMIZERS[2], tables, ("seen", "tag", "item"))
    oracle, before = Dense(embeddings, OPTIMIZERS[2]), behind(columns, width).requires_grad_()
    for _ in range(2):
        out = embeddings(columns, before=before)
        torch.testing.assert_close(out[:, width:].double(), oracle.rows(columns).detach(), rtol=1e-5, atol=1e-6)
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(width))
        before.grad = None
        out.backward(grad)
        assert torch.equal(out[:, :width], before) and torch.equal(before.grad, grad[:, :width])
        oracle.update([(columns, grad[:, width:])])
        assert_steps_agree(embeddings, oracle)


@every_engine
@pytest.mark.parametrize("width", [1, 16])
def test_before_the_rows_under_autocast_and_with_deferred_updates(engine, width):
    embeddings, before = build(engine), behind(EXAMPLE, width).requires_grad_()
    oracle = Dense(embeddings, OPTIMIZERS[0])
    embeddings.defer_updates(True)
    with torch.autocast(device_of(embeddings).type, torch.bfloat16):
        out = embeddings(EXAMPLE, before=before)
        assert out.dtype == torch.bfloat16
        assert torch.equal(out, torch.cat([before.bfloat16(), embeddings(EXAMPLE)], dim=1))
    out.backward(torch.ones_like(out))
    assert before.grad.dtype == torch.float32 and (before.grad == 1).all()
    assert embeddings.pending_gradients_finite()
    embeddings.apply_updates()
    oracle.update([(EXAMPLE, torch.ones(3, 15))])
    assert_steps_agree(embeddings, oracle)


@every_engine
def test_before_rows_that_are_not_trained_gradients_flow_all_the_same(engine):
    frozen = build(engine, tables=[with_(table, trainable=False) for table in TABLES])
    for embeddings in (frozen, build(engine).eval()):
        expected, before = weights(embeddings), behind(EXAMPLE, 5).requires_grad_()
        embeddings(EXAMPLE, before=before).sum().backward()
        assert (before.grad == 1).all()
        assert_same_tables(weights(embeddings), expected, rtol=0, atol=0)
        with torch.no_grad():
            assert not embeddings(EXAMPLE, before=before).requires_grad


@every_engine
def test_before_no_rows_and_what_does_not_fit_before_them(engine):
    before = torch.ones(3, 2, dtype=torch.float16)
    assert torch.equal(build(engine, tables=(), features=())((), before=before), before.float())
    for wrong in (torch.ones(2, 4), torch.ones(3), torch.ones(3, 1, 1)):
        with pytest.raises(EngineError, match=r"(?s)before the rows.*shape \(.*\[3, N\]"):
            build(engine)(EXAMPLE, before=wrong)


# Blocks ---------------------------------------------------------------------------------------------------------------

SAME_WIDTH = tuple(with_(table, dim=4) for table in TABLES)


@st.composite
def blocks_of_features(draw):
    """Columns by feature in blocks; what is no history stands in one block, and some features stand in none."""
    samples, left, blocks = draw(st.integers(0, 5)), set(FEATURES), []
    kinds = {feature: draw(st.sampled_from(("one-hot", "multi-hot", "history"))) for feature in FEATURES}
    for _ in range(draw(st.integers(1, 4))):
        is_history, length = draw(st.booleans()), draw(st.integers(0, 3))
        block = {}
        for feature in draw(st.permutations([f for f in FEATURES if (kinds[f] == "history") == is_history])):
            if not draw(st.booleans()) or feature not in left:
                continue
            ids = st.integers(0, ROWS[feature] - 1)
            if is_history:
                lists = draw(st.lists(st.lists(ids | st.just(-1), min_size=length, max_size=length), min_size=samples,
                                      max_size=samples))
                block[feature] = torch.tensor(lists, dtype=draw(st.sampled_from(ID_TYPES))).view(samples, length)
                continue
            left.remove(feature)
            if kinds[feature] == "multi-hot":
                block[feature] = ragged(draw(st.lists(st.lists(ids, max_size=3), min_size=samples, max_size=samples)))
            else:
                block[feature] = torch.tensor(draw(st.lists(ids, min_size=samples, max_size=samples)),
                                              dtype=draw(st.sampled_from(ID_TYPES)))
        blocks.append(block)
    if not any(blocks):
        blocks.append({FEATURES[0]: torch.zeros(samples, dtype=torch.int32)})
    return blocks


def as_columns(block):
    """A block as columns of all features: histories of no position stand for those that are missing."""
    samples = len(next(iter(block.values())))
    return tuple(block.get(feature, torch.zeros(samples, 0, dtype=torch.int32)) for feature in FEATURES)


def in_feature_order(block, rows, dims):
    """Rows of a block as `forward` lays those of `as_columns(block)`: feature by feature."""
    widths = [dims[feature] for feature in block]
    parts = dict(zip(block, rows.split(widths, dim=-1), strict=True))
    return torch.cat([parts[feature].flatten(1) for feature in FEATURES if feature in parts], dim=1)


@pytest.mark.parametrize("tables", [TABLES, SAME_WIDTH], ids=["two widths", "one width"])
@given_for_every_engine(40, blocks=blocks_of_features())
def test_rows_by_block_and_one_step_for_all_of_them(engine, tables, blocks):
    embeddings, optimizer = build(engine, OPTIMIZERS[3], tables), OPTIMIZERS[3]
    oracle, dims = Dense(embeddings, optimizer), dict(zip(FEATURES, embeddings.dims, strict=True))
    found, total, parts = embeddings.lookup_groups(*blocks), 0, []
    samples = max(len(column) for block in blocks for column in block.values())
    for number, (block, rows) in enumerate(zip(blocks, found, strict=True)):
        if not block:
            assert rows.shape == (samples, 0)
            continue
        first = next(iter(block.values()))
        positions = first.shape[1:] if isinstance(first, torch.Tensor) else ()
        assert rows.shape == (samples, *positions, sum(dims[feature] for feature in block))
        expected = oracle.rows(as_columns(block)).detach()
        torch.testing.assert_close(in_feature_order(block, rows, dims).detach().double(), expected)
        grad = torch.randn(rows.shape, generator=torch.Generator().manual_seed(number))
        total = total + (rows * grad).sum()
        parts.append((as_columns(block), in_feature_order(block, grad, dims)))
    total.backward()
    oracle.update(parts)
    assert_steps_agree(embeddings, oracle)
    with torch.no_grad():
        embeddings.lookup_groups(*blocks)
    assert embeddings.optimizer_state_dict()["step"] == 1


@every_engine
def test_blocks_that_do_not_fit_together(engine):
    one, two = torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 4, dtype=torch.int32)
    for tables in (TABLES, SAME_WIDTH):
        embeddings = build(engine, tables=tables)
        with pytest.raises(EngineError, match=r"(?s)seen, item side by side.*3 of 'seen', 4 of 'item'.*as many"):
            embeddings.lookup_groups({"seen": one, "item": two})
        with pytest.raises(EngineError, match=r"(?s)blocks of features.*\[2, 5\] samples"):
            embeddings.lookup_groups({"seen": one}, {"user": torch.zeros(5, dtype=torch.int32)})


@every_engine
def test_an_id_that_is_no_row_is_found_in_a_block(engine):
    embeddings = build(engine, tables=SAME_WIDTH, check_ids=True)
    with pytest.raises(EngineError, match=r"(?s)'item', sample 1.*the id 7"):
        embeddings.lookup_groups({"seen": torch.zeros(2, 2, dtype=torch.int32),
                                  "item": torch.tensor([[0, -1], [2, 7]])})


# Updates --------------------------------------------------------------------------------------------------------------


@every_optimizer
@given_for_every_engine(25, steps=st.lists(batches(), min_size=1, max_size=4))
def test_backward_takes_one_step_on_the_touched_rows(engine, optimizer, steps):
    embeddings = build(engine, optimizer)
    oracle = Dense(embeddings, optimizer)
    for number, columns in enumerate(steps):
        grad = random_grad(columns, number)
        embeddings.lr_factor = 1.0 / (1 + number)
        train(embeddings, columns, grad)
        oracle.update([(columns, grad)], embeddings.lr_factor)
        assert_steps_agree(embeddings, oracle)


@every_engine
@pytest.mark.parametrize(("optimizer", "of_torch"), [
    (OPTIMIZERS[0], lambda p: torch.optim.SGD(p, lr=0.5)),
    (OPTIMIZERS[2], lambda p: torch.optim.Adagrad(p, lr=0.5, initial_accumulator_value=0.1, eps=1e-8)),
    (OPTIMIZERS[5], lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.9), eps=1e-3)),
], ids=["sgd", "adagrad", "adam"])
def test_equals_the_optimizer_of_torch_where_every_row_is_touched(engine, optimizer, of_torch):
    table = Table(name="t", rows=4, dim=3, features=("f",))
    embeddings = build(engine, optimizer, [table], ("f",))
    dense = torch.nn.Parameter(rows_of(embeddings, "t").clone())
    reference = of_torch([dense])
    for seed in range(5):
        ids = torch.tensor([3, 1, 0, 2, 1, 1])
        grad = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))
        (embeddings((ids,)) * grad).sum().backward()
        reference.zero_grad()
        (dense[ids] * grad).sum().backward()
        reference.step()
    torch.testing.assert_close(rows_of(embeddings, "t"), dense.detach())


@every_engine
@every_optimizer
@pytest.mark.parametrize("dtype", ID_TYPES)
def test_the_type_of_the_ids_changes_nothing(engine, optimizer, dtype):
    tables = []
    for kind in (dtype, torch.int64):
        embeddings = build(engine, optimizer)
        train(embeddings, tuple(c.map(lambda t: t if t.dtype == torch.int64 else t.to(kind)) if isinstance(c, Ragged)  # noqa: B023
                                else c.to(kind) for c in EXAMPLE), random_grad(EXAMPLE))
        tables.append(weights(embeddings))
    assert_same_tables(*tables, rtol=0, atol=0)


@every_engine
def test_nothing_but_a_training_backward_updates(engine):
    embeddings = build(engine, OPTIMIZERS[5])
    before, grad = weights(embeddings), random_grad(EXAMPLE)
    with torch.no_grad():
        embeddings(EXAMPLE)
    embeddings(EXAMPLE)  # forward alone
    embeddings.eval()
    assert not embeddings(EXAMPLE).requires_grad
    embeddings.train()
    assert_same_tables(weights(embeddings), before, rtol=0, atol=0)
    assert embeddings.optimizer_state_dict()["step"] == 0
    train(embeddings, EXAMPLE, grad)
    assert not torch.equal(rows_of(embeddings, "item"), before["item"])
    assert list(embeddings.parameters()) == []


# Several look-ups in one backward -------------------------------------------------------------------------------------


OTHER = tuple(torch.tensor([0, 1]) for _ in FEATURES)


class Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise ArithmeticError("in backward")


def loss_of(embeddings, *batches):
    return sum((embeddings(columns) * random_grad(columns, seed)).sum() for seed, columns in enumerate(batches))


@every_optimizer
@given_for_every_engine(15, calls=st.lists(batches(), min_size=2, max_size=3))
def test_one_backward_is_one_step_however_often_the_rows_were_looked_up(engine, optimizer, calls):
    embeddings = build(engine, optimizer)
    oracle = Dense(embeddings, optimizer)
    for number in (1, 2):
        loss_of(embeddings, *calls).backward()
        oracle.update([(columns, random_grad(columns, seed)) for seed, columns in enumerate(calls)])
        assert embeddings.optimizer_state_dict()["step"] == number
        assert_steps_agree(embeddings, oracle)


@every_engine
def test_every_row_read_before_the_end_of_backward_is_the_old_one(engine):
    embeddings = build(engine)
    before, seen = weights(embeddings), []
    early = torch.ones(2, sum(embeddings.dims), requires_grad=True)
    early.register_hook(lambda grad: seen.append(weights(embeddings)))
    (early * 2 * embeddings(OTHER)).sum().backward()  # what is made first goes backward last
    assert len(seen) == 1
    assert_same_tables(seen[0], before, rtol=0, atol=0)
    assert not torch.equal(rows_of(embeddings, "item"), before["item"])


@every_engine
def test_a_graph_gone_back_through_twice_takes_two_steps(engine):
    embeddings = build(engine, OPTIMIZERS[5])
    oracle = Dense(embeddings, OPTIMIZERS[5])
    loss = loss_of(embeddings, EXAMPLE, OTHER)
    for _ in range(2):
        loss.backward(retain_graph=True)
        oracle.update([(EXAMPLE, random_grad(EXAMPLE, 0)), (OTHER, random_grad(OTHER, 1))])
        assert_steps_agree(embeddings, oracle)


@every_engine
def test_two_sets_of_tables_in_one_backward_and_rows_computed_anew_in_it(engine):
    pair = [build(engine, optimizer) for optimizer in (OPTIMIZERS[0], OPTIMIZERS[5])]
    oracles = [Dense(embeddings, embeddings.optimizer) for embeddings in pair]
    again = torch.utils.checkpoint.checkpoint(lambda: sum(loss_of(e, EXAMPLE, OTHER) for e in pair),
                                              use_reentrant=False)
    again.backward()
    for embeddings, oracle in zip(pair, oracles, strict=True):
        oracle.update([(EXAMPLE, random_grad(EXAMPLE, 0)), (OTHER, random_grad(OTHER, 1))])
        assert_steps_agree(embeddings, oracle)


@every_engine
@every_optimizer
@pytest.mark.parametrize("deferred", [False, True])
def test_a_backward_that_fails_leaves_no_trace(engine, optimizer, deferred):
    embeddings = build(engine, optimizer)
    embeddings.defer_updates(deferred)
    oracle, before = Dense(embeddings, optimizer), weights(embeddings)
    failing = Fails.apply(torch.ones(1, requires_grad=True))  # made first: its backward comes after the tables'
    loss = loss_of(embeddings, EXAMPLE, OTHER) + failing.sum()
    for _ in range(2):
        with pytest.raises(ArithmeticError):
            loss.backward(retain_graph=True)
    assert_same_tables(weights(embeddings), before, rtol=0, atol=0)
    assert embeddings.optimizer_state_dict()["step"] == 0
    if deferred:
        embeddings.apply_updates()  # nothing to apply
        assert embeddings.optimizer_state_dict()["step"] == 0
    train(embeddings, EXAMPLE, random_grad(EXAMPLE))
    if deferred:
        embeddings.apply_updates()
    oracle.update([(EXAMPLE, random_grad(EXAMPLE))])
    assert_steps_agree(embeddings, oracle)


# Deferred updates -----------------------------------------------------------------------------------------------------


@every_engine
@every_optimizer
def test_deferred_gradients_of_several_backwards_are_summed_and_applied_once(engine, optimizer):
    embeddings = build(engine, optimizer)
    oracle, before = Dense(embeddings, optimizer), weights(embeddings)
    other = tuple(torch.tensor([0, 1]) for _ in FEATURES)
    embeddings.defer_updates(True)
    train(embeddings, EXAMPLE, random_grad(EXAMPLE) * 1024)
    train(embeddings, other, random_grad(other) * 1024)
    assert_same_tables(weights(embeddings), before, rtol=0, atol=0)
    assert embeddings.pending_gradients_finite()
    embeddings.apply_updates(1 / 1024)
    oracle.update([(EXAMPLE, random_grad(EXAMPLE)), (other, random_grad(other))])
    assert_steps_agree(embeddings, oracle)
    after = weights(embeddings)
    embeddings.apply_updates()  # nothing is left
    assert_same_tables(weights(embeddings), after, rtol=0, atol=0)
    embeddings.defer_updates(False)
    train(embeddings, EXAMPLE, random_grad(EXAMPLE))
    oracle.update([(EXAMPLE, random_grad(EXAMPLE))])
    assert_steps_agree(embeddings, oracle)


@every_engine
def test_pending_gradients_are_those_of_the_step_that_follows(engine):
    embeddings = build(engine, TableOptimizer(name="sgd", lr=0.5))
    before = weights(embeddings)
    assert all(gradient._nnz() == 0 for gradient in embeddings.pending_gradients().values())
    embeddings.defer_updates(True)
    train(embeddings, EXAMPLE, random_grad(EXAMPLE))
    train(embeddings, EXAMPLE, random_grad(EXAMPLE, 1))
    gradients = embeddings.pending_gradients()
    assert list(gradients) == [table.name for table in embeddings.tables]
    assert any(gradient._nnz() for gradient in gradients.values())
    assert all(gradient.dtype == torch.float32 and gradient.is_coalesced() for gradient in gradients.values())
    embeddings.apply_updates()
    stepped = {name: before[name] - 0.5 * gradient.to_dense().cpu() for name, gradient in gradients.items()}
    assert_same_tables(weights(embeddings), stepped, rtol=1e-5, atol=1e-6)
    assert all(gradient._nnz() == 0 for gradient in embeddings.pending_gradients().values())


@every_engine
@every_optimizer
def test_a_skipped_step_leaves_no_trace(engine, optimizer):
    embeddings = build(engine, optimizer)
    oracle = Dense(embeddings, optimizer)
    there = functools.partial(torch.tensor, device=device_of(embeddings))
    embeddings.defer_updates(True)
    for seed in range(2):
        train(embeddings, EXAMPLE, random_grad(EXAMPLE) * math.inf)
        assert not embeddings.pending_gradients_finite()
        with pytest.raises(EngineError, match="deferred"):
            embeddings.defer_updates(False)
        embeddings.apply_updates(there(1.0), skip=there(1.0))
        assert embeddings.pending_gradients_finite()
        assert embeddings.optimizer_state_dict()["step"] == seed
        assert_steps_agree(embeddings, oracle)
        train(embeddings, EXAMPLE, random_grad(EXAMPLE, seed) * 1024)
        embeddings.apply_updates(there(1 / 1024), skip=there(0.0))
        oracle.update([(EXAMPLE, random_grad(EXAMPLE, seed))])
        assert_steps_agree(embeddings, oracle)


# State ----------------------------------------------------------------------------------------------------------------


@every_engine
@every_optimizer
@pytest.mark.parametrize("other", ENGINES)
def test_state_goes_from_engine_to_engine_and_training_goes_on(engine, optimizer, other):
    one, two = build(engine, optimizer), build(other, optimizer, tables=TABLES[::-1], counts=None)
    train(one, EXAMPLE, random_grad(EXAMPLE))
    state = copy.deepcopy(one.state_dict()), copy.deepcopy(one.optimizer_state_dict())
    assert {key: tuple(value.shape) for key, value in state[0].items()} == {
        "tables.item.weight": (7, 4), "tables.user.weight": (5, 3), "tables.tag.weight": (6, 4)}
    two.load_state_dict(state[0])
    two.load_optimizer_state_dict(state[1])
    for embeddings in (one, two):
        train(embeddings, EXAMPLE, random_grad(EXAMPLE, 1))
    assert_same_tables(weights(two), weights(one), rtol=1e-6, atol=1e-6)
    assert two.optimizer_state_dict()["step"] == 2


@every_engine
def test_state_inside_a_model_and_what_does_not_fit(engine):
    model = torch.nn.ModuleDict({"embeddings": build(engine)})
    state = model.state_dict()
    assert "embeddings.tables.user.weight" in state
    with pytest.raises(RuntimeError, match="Missing.*tables.user.weight"):
        model.load_state_dict({key: value for key, value in state.items() if "user" not in key})
    with pytest.raises(RuntimeError, match="Unexpected.*tables.old.weight"):
        model.load_state_dict({**state, "embeddings.tables.old.weight": torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"\(5, 2\)"):
        model.load_state_dict({**state, "embeddings.tables.user.weight": torch.zeros(5, 2)})
    adam = build(engine, OPTIMIZERS[5])
    with pytest.raises(EngineError, match="'adam'"):
        adam.load_optimizer_state_dict(build(engine).optimizer_state_dict())
    wrong = copy.deepcopy(adam.optimizer_state_dict())
    wrong["tables"]["tag"]["first_moment"] = torch.zeros(2, 2)
    with pytest.raises(EngineError, match="'tag'"):
        adam.load_optimizer_state_dict(wrong)


@every_engine
def test_any_name_of_a_table_and_a_feature_trains_and_is_saved(engine):
    names = ("cat_0.bin", "cat_1.bin", "a b/ç.weight", "cat_0")
    tables = [Table(name=name, rows=3, dim=2, features=(name,)) for name in names]
    embeddings = build(engine, OPTIMIZERS[5], tables, names)
    before, columns = weights(embeddings), tuple(torch.tensor([1, 2, 1]) for _ in names)
    embeddings(columns).sum().backward()
    for name in names:
        assert torch.equal(rows_of(embeddings, name)[0], before[name][0])
        assert not (rows_of(embeddings, name)[1:] == before[name][1:]).any()
    model, other = torch.nn.ModuleDict({"e": embeddings}), build(engine, OPTIMIZERS[5], tables, names)
    assert list(model.state_dict()) == [f"e.tables.{name}.weight" for name in names]
    torch.nn.ModuleDict({"e": other}).load_state_dict(copy.deepcopy(model.state_dict()))
    other.load_optimizer_state_dict(copy.deepcopy(embeddings.optimizer_state_dict()))
    for each in (embeddings, other):
        each(columns).sum().backward()
    assert_same_tables(weights(other), weights(embeddings), rtol=0, atol=0)


@every_engine
@every_optimizer
@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("frozen", [("item",), ("user",), ("tag",), ("item", "tag")], ids="+".join)
def test_a_frozen_table_stays_as_it_is_while_others_of_its_width_are_trained(engine, optimizer, frozen, deferred):
    embeddings = build(engine, optimizer, [with_(table, trainable=table.name not in frozen) for table in TABLES])
    embeddings.defer_updates(deferred)
    oracle, before = Dense(embeddings, optimizer), weights(embeddings)
    for calls in ((EXAMPLE,), (OTHER, EXAMPLE), (OTHER,)):
        loss_of(embeddings, *calls).backward()
        embeddings.apply_updates()
        oracle.update([(columns, random_grad(columns, seed)) for seed, columns in enumerate(calls)])
    assert_steps_agree(embeddings, oracle)
    after = weights(embeddings)
    assert {name for name in before if torch.equal(before[name], after[name])} == set(frozen)
    states = embeddings.optimizer_state_dict()["tables"]
    assert {name for name, state in states.items() if state.keys() == optimizer.states().keys()} >= \
        {table.name for table in TABLES} - set(frozen)
    assert all(states[name] == {} for name in frozen)
    whole, spare = (sum(processes.from_each(sum(t.numel() for t in e.buffers())))
                    for e in (build(engine, optimizer), embeddings))
    assert spare < whole or not optimizer.states()


@every_engine
@every_optimizer
def test_where_all_tables_are_frozen_nothing_is_kept_for_their_training(engine, optimizer):
    trained = build(engine, optimizer)
    frozen = build(engine, optimizer, [with_(table, trainable=False) for table in TABLES])
    assert not frozen.trainable and not frozen(EXAMPLE).requires_grad
    assert sum(t.numel() for t in frozen.buffers()) == sum(
        len(frozen.held_rows(table.name)) * table.dim for table in TABLES)
    train(trained, EXAMPLE, random_grad(EXAMPLE))
    frozen.load_state_dict(trained.state_dict())
    frozen.load_optimizer_state_dict(trained.optimizer_state_dict())  # there is nothing to take
    assert frozen.optimizer_state_dict()["tables"] == {table.name: {} for table in TABLES}
    assert torch.equal(frozen(EXAMPLE), trained(EXAMPLE))
    if optimizer.states():
        with pytest.raises(EngineError, match=f"(?s)state of table.*({'|'.join(optimizer.states())})"):
            trained.load_optimizer_state_dict(frozen.optimizer_state_dict())


# Counts ---------------------------------------------------------------------------------------------------------------


L2 = TableOptimizer(name="sgd", lr=1.0, minibatch_l2=0.5)


@every_engine
def test_counts_of_a_table_are_those_of_its_features_and_ids_that_share_a_row(engine):
    item, user, tag = TABLES
    embeddings = build(engine, L2, [with_(item, modulo=True, rows=3), with_(user, trainable=False), tag], counts=None)
    assert embeddings.counted == ("seen", "tag", "item")
    embeddings.set_counts({**COUNTS, "item": np.array([0, 2**32, 1, 0, 4]), "user": np.array([9] * 99)})
    states = embeddings.optimizer_state_dict()["tables"]
    assert states["item"]["count"].tolist() == [1, 2**32, 1]  # of ids 0 and 3, 1 and 4, 2 (12 more are beyond float32)
    assert states["tag"]["count"].tolist() == [2, 9, 1, 1, 3, 3] and states["user"] == {}
    plain = build(engine, OPTIMIZERS[0], counts=None)
    plain.set_counts({})  # nothing asks for counts
    assert plain.counted == () and plain.optimizer_state_dict()["tables"]["item"] == {}


@every_engine
def test_counts_that_are_missing_or_too_many_are_named(engine):
    with pytest.raises(EngineError, match=r"(?s)'tag'.*no counts.*user, seen, tag, item"):
        build(engine, L2, counts=None).set_counts({name: n for name, n in COUNTS.items() if name != "tag"})
    with pytest.raises(EngineError, match=r"(?s)'seen'.*counts of 8 ids.*at most 7.*'item'"):
        build(engine, L2, counts=None).set_counts({**COUNTS, "seen": np.ones(8, np.int64)})


# Narrow rows ----------------------------------------------------------------------------------------------------------


@given_for_every_engine(20, columns=batches())
def test_bfloat16_rows_are_looked_up_and_pooled_as_what_they_are(engine, columns):
    embeddings = build(engine, table_dtype="bfloat16")
    assert all(torch.equal(rows, weights(build(engine))[name].bfloat16()) for name, rows in weights(embeddings).items())
    rows = embeddings(columns)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.detach().double(), Dense(embeddings, OPTIMIZERS[0]).rows(columns).detach())


@every_optimizer
@given_for_every_engine(10, steps=st.lists(batches(), min_size=1, max_size=3))
def test_a_step_on_bfloat16_rows_gives_a_neighbour_of_the_exact_row(engine, optimizer, steps):
    embeddings = build(engine, optimizer, table_dtype="bfloat16")
    oracle = Dense(embeddings, optimizer)
    for number, columns in enumerate(steps):
        grad = random_grad(columns, number)
        train(embeddings, columns, grad)
        oracle.update([(columns, grad)])
        assert_same_tables(weights(embeddings), oracle.weight, rtol=2**-7, atol=1e-4)
        oracle.weight = {name: rows.double().requires_grad_() for name, rows in weights(embeddings).items()}
    for states in embeddings.optimizer_state_dict()["tables"].values():
        assert not any(state.dtype == torch.bfloat16 for state in states.values())


@every_engine
def test_the_chance_of_rounding_up_follows_from_place_and_step(engine):
    if SEVERAL_PROCESSES:
        pytest.skip("the place of a row is that among the rows of its process")
    table = Table(name="t", rows=9, dim=5, features=("f",))
    embeddings = build(engine, TableOptimizer(lr=1.0), [table], ("f",), table_dtype="bfloat16")
    embeddings.set_rows("t", embeddings.rows_of("t").fill_(1.0))
    expected = [1.0] * 45
    for step in (1, 2):
        grad = torch.rand(9, 5, generator=torch.Generator().manual_seed(step)) * 0.01
        embeddings((torch.arange(9),)).backward(grad)
        for at, change in enumerate(grad.view(-1).tolist()):
            chance = (at * 0x9E3779B1 + step * 0x85EBCA77) % 2**32
            for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
                chance = (chance ^ (chance >> shift)) * factor % 2**32
            exact = (torch.tensor(expected[at]) - torch.tensor(change)).item()
            ulp = 2.0 ** (math.frexp(exact)[1] - 8)  # what separates bfloat16 numbers there
            below = math.floor(exact / ulp) * ulp
            expected[at] = below + ulp * ((exact - below) / ulp * 2**16 + chance % 2**16 >= 2**16)
    assert rows_of(embeddings, "t").view(-1).tolist() == expected
    assert len(set(expected)) > 3


@every_engine
@pytest.mark.parametrize("other", ENGINES)
def test_state_goes_between_types_of_rows(engine, other):
    adam = OPTIMIZERS[5]
    narrow, wide = build(engine, adam, table_dtype="bfloat16"), build(other, adam)
    train(narrow, EXAMPLE, random_grad(EXAMPLE))
    wide.load_state_dict(copy.deepcopy(narrow.state_dict()))
    wide.load_optimizer_state_dict(copy.deepcopy(narrow.optimizer_state_dict()))
    assert_same_tables(weights(wide), weights(narrow), rtol=0, atol=0)
    train(wide, EXAMPLE, random_grad(EXAMPLE, 1))
    narrow.load_state_dict(wide.state_dict())
    narrow.load_optimizer_state_dict(copy.deepcopy(wide.optimizer_state_dict()))
    assert_same_tables(weights(narrow), {name: rows.bfloat16() for name, rows in weights(wide).items()}, rtol=0, atol=0)


@every_engine
def test_rows_of_other_types_are_refused(engine):
    with pytest.raises(EngineError, match=r"(?s)table_dtype.*float16.*float32 or bfloat16"):
        build(engine, table_dtype="float16")


# Ids modulo rows ------------------------------------------------------------------------------------------------------


@every_engine
@every_optimizer
def test_ids_modulo_rows_share_a_row_and_the_sum_of_their_gradients(engine, optimizer):
    tables = [with_(table, modulo=table.name != "user") for table in TABLES]  # 7, 5 and 6 rows
    embeddings = build(engine, optimizer, tables, check_ids=True)
    oracle = Dense(embeddings, optimizer)
    user = torch.tensor([4, 0, 4], dtype=torch.int8)
    for columns in (
        (user, torch.tensor([1, 8, 100], dtype=torch.int8), torch.tensor([6, 0, 2**31 - 1]), torch.tensor([15, 8, 14])),
        (user, ragged([[1, 8, 6], [], [2**40]], torch.int64), ragged([[], [127, 7], [2, 8]], torch.int8),
         torch.tensor([2**62, -1, 7])),
    ):
        grad = random_grad(columns)
        torch.testing.assert_close(embeddings(columns).detach().double(), oracle.rows(columns).detach())
        train(embeddings, columns, grad)
        oracle.update([(columns, grad)])
        assert_steps_agree(embeddings, oracle)


@every_engine
@pytest.mark.parametrize("dtype", ID_TYPES)
def test_ids_modulo_more_rows_than_their_type_can_count(engine, dtype):
    table = Table(name="t", rows=40_000, dim=2, features=("f",), modulo=True)
    embeddings = build(engine, tables=[table], features=("f",))
    high = min(torch.iinfo(dtype).max, 10**12)
    for ids in ([0, 1, 127, high], [high - 1, high, 0, 5]):
        expected = rows_of(embeddings, "t")[torch.tensor(ids) % 40_000]
        assert torch.equal(embeddings((torch.tensor(ids, dtype=dtype),)).detach(), expected)
        assert torch.equal(embeddings((ragged([[i] for i in ids], dtype),)).detach(), expected)


@every_engine
def test_a_copy_trains_apart_from_its_original(engine):
    embeddings = build(engine)
    clone = copy.deepcopy(embeddings)
    before = weights(embeddings)
    train(clone, EXAMPLE, random_grad(EXAMPLE))
    assert_same_tables(weights(embeddings), before, rtol=0, atol=0)
    assert not torch.equal(rows_of(clone, "item"), before["item"])


# Determinism ----------------------------------------------------------------------------------------------------------


@every_engine
@every_optimizer
def test_same_seed_same_bits(engine, optimizer):
    runs = []
    for _ in range(2):
        embeddings = build(engine, optimizer)
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            samples = 40 if IS_SLOW[engine] else 200
            columns = tuple(torch.randint(0, ROWS[feature], (samples,), generator=generator) for feature in FEATURES)
            train(embeddings, columns, random_grad(columns, seed))
        runs.append(weights(embeddings))
    assert_same_tables(*runs, rtol=0, atol=0)


@every_engine
def test_first_values_depend_on_seed_and_name_alone(engine):
    all_of_them = weights(build(engine))
    alone = build(engine, tables=[TABLES[2]], features=("tag",))
    assert torch.equal(rows_of(alone, "tag"), all_of_them["tag"])
    other = build(engine, tables=[TABLES[2]], features=("tag",), seed=4)
    assert not torch.equal(rows_of(other, "tag"), all_of_them["tag"])
    large = Table(name="large", rows=100, dim=50, features=("f",))
    values = rows_of(build(engine, tables=[large], features=("f",)), "large")
    assert 0.099 < values.max() <= 0.1 and -0.1 <= values.min() < -0.099 and values.mean().abs() < 0.003
    twins = [Table(name=name, rows=9, dim=9, features=(name,)) for name in ("a", "b")]
    pair = build(engine, tables=twins, features=("a", "b"))
    assert not torch.equal(rows_of(pair, "a"), rows_of(pair, "b"))
    zeros = Table(name="z", rows=2, dim=2, features=("f",), init="zeros")
    assert not rows_of(build(engine, tables=[zeros], features=("f",)), "z").any()


# A person's mistakes --------------------------------------------------------------------------------------------------


@every_engine
def test_ids_out_of_range_are_named(engine):
    embeddings = build(engine, check_ids=True)
    embeddings(EXAMPLE)
    with pytest.raises(EngineError, match=r"(?s)'user', sample 1.*id 5.*0 … 4"):
        embeddings((torch.tensor([0, 5, 0]), *EXAMPLE[1:]))
    with pytest.raises(EngineError, match=r"(?s)'seen', sample 2.*id -1"):
        embeddings((EXAMPLE[0], ragged([[1], [], [2, -1]]), *EXAMPLE[2:]))


@every_engine
def test_columns_that_do_not_fit(engine):
    embeddings = build(engine)
    with pytest.raises(EngineError, match=r"(?s)3 columns.*4: user, seen, tag, item"):
        embeddings(EXAMPLE[:3])
    with pytest.raises(EngineError, match=r"(?s)'item'.*2 samples.*3, as 'user'"):
        embeddings((*EXAMPLE[:3], torch.tensor([0, 1])))
    with pytest.raises(EngineError, match="nothing"):
        embeddings.rows_of("nothing")


@every_engine
@pytest.mark.parametrize("ids", [torch.zeros(3, 1, 1, dtype=torch.int64), torch.tensor(1),
                                 Ragged(torch.zeros(3, 2), torch.tensor([0, 1, 1, 3]))],
                         ids=["[3, 1, 1]", "[]", "ragged"])
def test_ids_that_are_neither_vector_nor_matrix_are_refused(engine, ids):
    for place, feature in enumerate(FEATURES):
        with pytest.raises(EngineError, match=rf"(?s)'{feature}'.*shape \(.*\[B\]"):
            build(engine)((*EXAMPLE[:place], ids, *EXAMPLE[place + 1:]))


# Histories ------------------------------------------------------------------------------------------------------------


@every_engine
@pytest.mark.parametrize("modulo", [False, True])
def test_padding_of_a_history_is_zeros_and_no_row(engine, modulo):
    table = Table(name="item", rows=4, dim=3, features=("seen", "item"), modulo=modulo)
    embeddings = build(engine, tables=(table,), features=("seen", "item"))
    before = weights(embeddings)["item"]
    seen = torch.tensor([[-1, 2], [-1, -1], [0, 2]], dtype=torch.int8)
    rows = embeddings((seen, torch.tensor([1, 1, 1])))
    expected = torch.stack([before[i] if i >= 0 else torch.zeros(3) for i in seen.view(-1).tolist()]).view(3, 6)
    assert torch.equal(rows.detach()[:, :6], expected)
    rows.sum().backward()
    torch.testing.assert_close(weights(embeddings)["item"] - before,
                               -OPTIMIZERS[0].lr * torch.tensor([1.0, 3, 2, 0])[:, None].expand(4, 3))


@every_engine
def test_an_id_that_is_no_row_is_named_in_a_history_too(engine):
    table = Table(name="item", rows=4, dim=3, features=("seen",))
    embeddings = build(engine, tables=(table,), features=("seen",), check_ids=True)
    embeddings((torch.tensor([[-1, 3], [0, 1]]),))
    with pytest.raises(EngineError, match=r"(?s)'seen', sample 1 .*the id 4.*0 … 3"):
        embeddings((torch.tensor([[-1, 3], [4, 1]]),))
