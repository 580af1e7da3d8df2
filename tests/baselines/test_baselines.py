"""Baselines on rows made here: what they find, what they cannot find, and what they learn from."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from small_dataset import small_columns, small_spec

from clickwise.baselines import BASELINES, rows
from clickwise.baselines.rows import Ids, Rows, Unable, read_rows
from clickwise.baselines.single_columns import telling_columns
from clickwise.metrics import auc

READS = ("numerical", "categorical")


def made(count=2000, seed=0, effect=lambda number, shop, tags: number + (shop == 2) - (tags > 1)):
    """Numbers, ids, and lists of up to three ids, with a planted logit."""
    random = np.random.default_rng(seed)
    number_B, shop_B = random.normal(0, 1, count), random.integers(0, 5, count)
    lengths_B = random.integers(0, 4, count)
    row_V = np.repeat(np.arange(count), lengths_B)
    tag_V = random.integers(0, 3, len(row_V))
    logit_B = effect(number_B, shop_B, np.bincount(row_V, tag_V == 2, count))
    return Rows(random.random(count) < 1 / (1 + np.exp(-logit_B)), np.stack([5 + 3 * number_B, np.ones(count)], 1),
                (Ids("shop", 5, shop_B), Ids("tags", 3, tag_V, row_V)))


def one_hot(made):
    matrix = np.zeros((len(made), 8))
    np.add.at(matrix, (np.arange(len(made)), made.ids[0].id_V), 1)
    np.add.at(matrix, (made.ids[1].row_V, 5 + made.ids[1].id_V), 1)
    return np.column_stack([(made.numerical_BN[:, 0] - 5) / 3, matrix])


def test_logistic_regression_is_the_textbooks():
    train, new = made(), made(300, 1)
    scaled = train.numerical_BN[:, 0].mean(), train.numerical_BN[:, 0].std()
    x, x_new = one_hot(train), one_hot(new)
    for matrix, found in ((x, train), (x_new, new)):
        matrix[:, 0] = (found.numerical_BN[:, 0] - scaled[0]) / scaled[1]
    theirs = LogisticRegression(C=1, tol=1e-9, max_iter=500).fit(x, train.label_B).decision_function(x_new)
    np.testing.assert_allclose(BASELINES["logistic_regression"](train, 0)(new), theirs, atol=0.01)


def test_trees_find_what_is_no_sum():
    train, new = (made(4000, seed, lambda number, shop, tags: 4 * np.sign(number) * (2 * (shop % 2) - 1))
                  for seed in (0, 1))
    found = {name: auc(new.label_B, fit(train, 3)(new)) for name, fit in BASELINES.items()}
    assert found["boosted_trees"] > 0.95 and found["logistic_regression"] < 0.7


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_rows_and_seed_give_the_same_bits(name):
    first, second = (BASELINES[name](made(), 7)(made(100, 1)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", BASELINES)
def test_labels_of_one_kind_are_no_reason_to_fail(name):
    only = made()
    with pytest.raises(Unable, match="all alike"):
        BASELINES[name](Rows(np.ones(len(only), bool), only.numerical_BN, only.ids), 0)


def test_without_scikit_learn_the_reason_is_in_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(Unable, match="scikit-learn is not installed"):
        BASELINES["boosted_trees"](made(), 0)


def test_what_scikit_learn_refuses_is_told(monkeypatch):
    from clickwise.baselines import boosted_trees

    monkeypatch.setattr(boosted_trees, "_matrix", lambda rows: np.full((len(rows), 4), np.inf, np.float64)[:-1])
    with pytest.raises(Unable, match="scikit-learn refuses: "):
        BASELINES["boosted_trees"](made(), 0)


# ---- which rows are read

def test_all_rows_are_read_where_they_are_few():
    columns = small_columns(20_000)
    found = read_rows(columns, small_spec(), READS)
    np.testing.assert_array_equal(found.label_B, columns.arrays["label"])
    np.testing.assert_array_equal(found.numerical_BN, columns.numerical)
    large, tags, small = found.ids
    assert [ids.name for ids in found.ids] == ["large", "tags", "small"]
    np.testing.assert_array_equal(large.id_V, columns.arrays["large"] % rows.MOST_IDS)
    assert large.cardinality == rows.MOST_IDS and small.cardinality == 100
    np.testing.assert_array_equal(tags.id_V, columns.arrays["tags"].values)
    np.testing.assert_array_equal(tags.lengths(20_000), np.diff(columns.arrays["tags"].offsets))


def test_of_many_rows_some_are_read_that_lie_all_over(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_ROWS", 10)
    monkeypatch.setattr(rows, "BLOCKS", 6)
    columns = small_columns(1_005)
    row_of = {value: row for row, value in enumerate(columns.arrays["large"] % rows.MOST_IDS)}
    found = read_rows(columns, small_spec(), READS)
    chosen = np.array([row_of[value] for value in found.ids[0].id_V])
    assert len(found) == 60 and len(set(chosen)) == 60
    assert [chosen[0] < 10, chosen[-1] > 980] == [True, True] and np.diff(chosen[::10]).min() > 150
    np.testing.assert_array_equal(found.label_B, columns.arrays["label"][chosen])
    offsets = columns.arrays["tags"].offsets
    np.testing.assert_array_equal(found.ids[1].lengths(60), (offsets[1:] - offsets[:-1])[chosen])
    monkeypatch.setattr(rows, "MOST_VALUES", 5 * 10 * 2)  # five columns, ten rows in a block: two blocks
    assert len(read_rows(columns, small_spec(), READS)) == 20


def test_every_second_row_keeps_its_lists():
    whole = made(101)
    half = whole.every(2, 1)
    assert len(half) == 50
    for row in range(50):
        np.testing.assert_array_equal(half.ids[1].id_V[half.ids[1].row_V == row],
                                      whole.ids[1].id_V[whole.ids[1].row_V == 2 * row + 1])


# ---- columns that tell the label

def told(labels_of, count=400, seed=0):
    """(rows to learn from, rows to measure): labels drawn, one number and one column of ids made of them."""
    def part(seed):
        random = np.random.default_rng(seed)
        label_B = random.random(count) < 0.3
        number_B, id_B, cardinality = labels_of(label_B, random)
        return Rows(label_B, number_B[:, None].astype(float), (Ids("id", cardinality, id_B),))

    return part(seed), part(seed + 1)


@pytest.mark.parametrize(("labels_of", "columns"), [
    (lambda label, random: (random.random(400), random.integers(0, 400, 400), 400), []),
    (lambda label, random: (label + 0.0, random.integers(0, 9, 400), 9), ["number"]),
    (lambda label, random: (random.random(400) - 3 * label, random.integers(0, 9, 400), 9), ["number"]),
    (lambda label, random: (random.random(400), 2 * random.integers(0, 9, 400) + label, 18), ["id"])])
def test_a_column_that_all_but_tells_the_label_is_found(labels_of, columns):
    found = telling_columns(*told(labels_of), ["number"])
    assert list(found) == columns and all(auc >= 0.99 for auc in found.values())


def test_ids_of_one_row_each_tell_nothing_of_others():
    train, _ = told(lambda label, random: (random.random(400), np.arange(400), 400))
    assert telling_columns(train, train, ["number"]) == {}
    sorted_by_label = Rows(np.sort(train.label_B), train.numerical_BN, train.ids)
    assert telling_columns(sorted_by_label, sorted_by_label, ["number"]) == {}


def test_a_list_that_holds_the_label_is_found():
    def part(seed):
        whole = made(400, seed)
        (_, tags) = whole.ids
        label_B = np.bincount(tags.row_V, tags.id_V == 2, 400) > 0
        return Rows(label_B, whole.numerical_BN, (Ids("tags", 3, *_without_shared(tags, label_B)),))

    def _without_shared(tags, label_B):
        kept_V = (tags.id_V == 2) == label_B[tags.row_V]
        return tags.id_V[kept_V], tags.row_V[kept_V]

    assert list(telling_columns(part(0), part(1), ["a", "b"])) == ["tags"]


def test_of_few_rows_nothing_is_said():
    train, measured = told(lambda label, random: (label + 0.0, label + 0, 2), count=20)
    assert measured.label_B.sum() < 10 and telling_columns(train, measured, ["number"]) == {}
