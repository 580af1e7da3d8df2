"""The planted signals: their best AUC is what scikit-learn finds, and only the right model reaches it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, hstack
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from clickwise.data.synthetic import Ceiling, SignalConfig, SyntheticConfig, best_auc, build_signal, in_memory
from clickwise.data.synthetic.generate import synthetic_spec
from clickwise.data.synthetic.power_law import PowerLaw
from clickwise.data.synthetic.signal import balanced_codes, hidden_weights
from clickwise.feature_spec import Feature


def sigmoid(logit):
    return 1 / (1 + np.exp(-np.asarray(logit, np.float64)))


def one_hot(*columns: np.ndarray) -> csr_array:
    """One column per id of every feature."""
    rows = np.arange(len(columns[0]))
    blocks = [csr_array((np.ones(len(rows)), (rows, ids.astype(np.int64)))) for ids in columns]
    return hstack(blocks, format="csr")


def held_out_auc(inputs, label) -> float:
    """AUC of a logistic regression on the second half, fitted on the first."""
    half = len(label) // 2
    model = LogisticRegression(max_iter=300).fit(inputs[:half], label[:half])
    return roc_auc_score(label[half:], model.decision_function(inputs[half:]))


@given(st.lists(st.integers(1, 19), min_size=2, max_size=30))
@settings(max_examples=50, deadline=None)
def test_best_auc_is_the_mean_over_all_pairs(twentieths):
    p = np.array(twentieths) / 20
    won = np.where(p[:, None] > p, 1.0, np.where(p[:, None] == p, 0.5, 0.0))
    weight = np.outer(p, 1 - p)
    np.fill_diagonal(weight, 0)
    assert best_auc(p) == pytest.approx((won * weight).sum() / weight.sum())


def test_best_auc_agrees_with_scikit_learn():
    p = sigmoid(np.random.default_rng(1).normal(-1, 1.5, 20_000))
    weighted = roc_auc_score(np.repeat([1, 0], len(p)), np.tile(p, 2), sample_weight=np.concatenate([p, 1 - p]))
    assert best_auc(p) == pytest.approx(weighted, abs=1e-4)  # scikit-learn's pairs every row with itself too


def test_best_auc_where_there_is_nothing_to_rank():
    assert np.isnan(best_auc(np.array([]))) and np.isnan(best_auc(np.zeros(5))) and np.isnan(Ceiling().best_auc)


@pytest.mark.parametrize(("kind", "bias"), [("additive", 0.0), ("additive", -3.4), ("pair", 0.0)])
def test_the_ceiling_is_that_of_the_true_probabilities(kind, bias):
    config = SyntheticConfig(signal=SignalConfig(kind=kind, bias=bias))
    spec = synthetic_spec(config)
    columns, ceiling = in_memory(spec, 150_000, 3, config.signal)
    logit, label = build_signal(config.signal, spec, seed=3, alpha=1.45).logit(columns), columns.arrays["label"]
    assert ceiling.best_auc == pytest.approx(best_auc(sigmoid(logit)), abs=1e-4)
    assert ceiling.realised_auc == pytest.approx(roc_auc_score(label, logit), abs=1e-4)
    assert ceiling.realised_auc == pytest.approx(ceiling.best_auc, abs=0.012)
    assert ceiling.best_log_loss == pytest.approx(log_loss(label, sigmoid(logit)), abs=0.005)
    assert ceiling.click_rate == label.mean() == pytest.approx(sigmoid(logit).mean(), abs=0.006)


def test_ceilings_add_up():
    generator = np.random.default_rng(2)
    logit, label = generator.normal(size=1000).astype(np.float32), generator.random(1000) < 0.4
    whole, parts = Ceiling.of(logit, label), Ceiling.of(logit[:300], label[:300]) + Ceiling.of(logit[300:], label[300:])
    assert whole.figures() == parts.figures() and whole.rows == 1000


def test_a_linear_model_reaches_the_additive_signal():
    config = SyntheticConfig(cardinalities=(20, 300, 50), numericals=2)
    columns, ceiling = in_memory(synthetic_spec(config), 60_000, 1, config.signal)
    ids = [columns.arrays[f"cat_{index}"] for index in range(3)]
    inputs = hstack([one_hot(*ids), csr_array(columns.numerical.astype(np.float64))], format="csr")
    assert held_out_auc(inputs, columns.arrays["label"]) == pytest.approx(ceiling.realised_auc, abs=0.01)
    assert held_out_auc(one_hot(ids[0]), columns.arrays["label"]) < ceiling.best_auc - 0.05
    assert 0.75 < ceiling.best_auc < 0.9


def test_only_the_product_of_two_features_tells_a_pair():
    config = SyntheticConfig(signal=SignalConfig(kind="pair", strength=1.735, features=("cat_0", "cat_2")))
    columns, ceiling = in_memory(synthetic_spec(config), 100_000, 1, config.signal)
    left, right, label = (columns.arrays[name] for name in ("cat_0", "cat_2", "label"))
    every_feature = one_hot(*(columns.arrays[f"cat_{index}"] for index in range(10)))
    assert ceiling.best_auc == pytest.approx(sigmoid(1.735), abs=0.003)
    assert held_out_auc(every_feature, label) == pytest.approx(0.5, abs=0.02)
    assert held_out_auc(one_hot(left.astype(np.int64) * 60 + right), label) > ceiling.best_auc - 0.02


@given(st.integers(8, 100_000), st.floats(0, 1.5), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_codes_of_a_pair_are_balanced(cardinality, alpha, seed):
    ids, law = np.arange(cardinality), PowerLaw(cardinality, alpha)
    codes = balanced_codes(seed, Feature("x", "int32", cardinality), law)(ids)
    assert set(codes) == {-1, 1}
    # The rest of a balanced sum is one rare id; the coins beyond the first 4,096 ids leave a standard deviation.
    coins = law.probability(ids[4096:])
    assert abs(codes @ law.probability(ids)) <= law.probability(min(cardinality, 4096) - 1) + 5 * np.sqrt(coins @ coins)


@pytest.mark.parametrize("alpha", [0.0, 1.05, 1.45])
def test_the_pair_chosen_by_default_tells_nothing_alone(alpha):
    config = SyntheticConfig(signal=SignalConfig(kind="pair"))
    spec = synthetic_spec(config)
    signal = build_signal(config.signal, spec, seed=1, alpha=alpha)
    for name, code in zip(signal.names, signal.codes, strict=True):
        law = PowerLaw(spec.features[name].cardinality, alpha)
        assert abs(code(np.arange(law.size)) @ law.probability(np.arange(law.size))) < 0.05
    assert np.prod([code(np.arange(8)).std() for code in signal.codes]) > 0


@pytest.mark.parametrize("cardinality", [2, 50, 65_536, 65_537, 3_000_000])
def test_hidden_weights_are_a_function_of_seed_feature_and_id(cardinality):
    feature = Feature("x", "int32", cardinality)
    weights = hidden_weights(1, feature, 2.0, 1.45)
    ids = np.unique(np.append(np.linspace(0, cardinality - 1, 5000).astype(np.int64), [0, cardinality - 1]))
    assert np.array_equal(weights(ids)[::-1], weights(ids[::-1])) and weights(ids).dtype == np.float32
    assert not np.array_equal(weights(ids), hidden_weights(2, feature, 2.0, 1.45)(ids))
    assert not np.array_equal(weights(ids), hidden_weights(1, Feature("y", "int32", cardinality), 2.0, 1.45)(ids))
    frequent = np.arange(min(cardinality, 65_536))
    law = PowerLaw(cardinality, 1.45).probability(frequent)
    mean = weights(frequent) @ law
    assert mean == pytest.approx(0, abs=0.05)
    assert np.sqrt((weights(frequent) - mean) ** 2 @ law) == pytest.approx(2.0, rel=0.05)


def test_no_signal_is_a_coin():
    config = SyntheticConfig(signal=SignalConfig(kind="none"))
    columns, ceiling = in_memory(synthetic_spec(config), 50_000, 1, config.signal)
    assert ceiling.best_auc == pytest.approx(0.5) and columns.arrays["label"].mean() == pytest.approx(0.5, abs=0.012)


def test_multi_hot_features_carry_an_additive_signal():
    config = SyntheticConfig(numericals=0, cardinalities=(30, 40), max_hotness=(5, 1))
    spec = synthetic_spec(config)
    columns, ceiling = in_memory(spec, 20_000, 1, config.signal)
    bags = columns.arrays["cat_0"]
    rows = np.repeat(np.arange(len(bags)), np.diff(bags.offsets))
    counts = csr_array((np.ones(len(rows)), (rows, bags.values.astype(np.int64))))
    inputs = hstack([counts, one_hot(columns.arrays["cat_1"])], format="csr")
    assert held_out_auc(inputs, columns.arrays["label"]) == pytest.approx(ceiling.realised_auc, abs=0.012)
