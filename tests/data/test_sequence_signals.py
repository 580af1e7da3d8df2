"""Signals of the history: what they promise of a model that sees all of it, and of one that does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from clickwise.data.dataset import DataConfig, Dataset
from clickwise.data.synthetic import SignalConfig, SyntheticConfig, in_memory, synthetic_spec
from clickwise.data.synthetic.sequence import SequenceSignal
from clickwise.errors import RecipeError
from clickwise.models.din import DIN
from clickwise.recipe import parse

KINDS = ("category_in_history", "order", "far_back")
CONFIG = SyntheticConfig(numericals=0, cardinalities=(), rows={"train": 9000, "test": 3000}, history_length=14,
                         signal=SignalConfig(kind="order", strength=2.0))


def config(kind, **changes):
    return dataclasses.replace(CONFIG, signal=SignalConfig(kind=kind, strength=2.0, recent=5), **changes)


def drawn(kind, rows=9000):
    made = config(kind)
    spec = synthetic_spec(made)
    columns, ceiling = in_memory(spec, rows, 1, made.signal)
    return spec, columns, ceiling, SequenceSignal(made.signal, spec)


def with_arrays(columns, **arrays):
    return dataclasses.replace(columns, arrays={**columns.arrays, **arrays})


@pytest.mark.parametrize("kind", KINDS)
def test_half_of_the_rows_have_either_sign_and_the_best_auc_is_known(kind):
    _, columns, ceiling, signal = drawn(kind)
    logit = signal.logit(columns)
    assert set(logit) == {-2.0, 2.0}
    assert (logit > 0).mean() == pytest.approx(0.5, abs=0.02)
    assert ceiling.best_auc == pytest.approx(1 / (1 + np.exp(-2.0)), abs=0.001)
    assert ceiling.realised_auc == pytest.approx(ceiling.best_auc, abs=0.01)
    by_item = [logit[columns.arrays["item"] == item].mean() for item in range(1, 81)]
    assert np.abs(by_item).max() < 1.0  # about 110 rows each: six standard deviations


@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_those_of_the_batch_contract(kind):
    _, columns, _, _ = drawn(kind)
    items, categories = columns.arrays["item_history"], columns.arrays["category_history"]
    known = items != 0
    assert ((categories != 0) == known).all() and (np.diff(known.astype(int), axis=1) >= 0).all()  # left padding
    least = {"category_in_history": 1, "order": 2, "far_back": 6}[kind]
    assert known.sum(1).min() == least and known.sum(1).max() == 14
    negatives = columns.arrays["item_negatives"], columns.arrays["category_negatives"]
    for item, category in ((items, categories), negatives):
        assert item.max() == 80 and category.max() == 20
        assert (category[known] == (item[known] - 1) % 20 + 1).all() and not item[~known].any()


def occurrences(columns):
    return columns.arrays["category_history"] == columns.arrays["category"][:, None]


def test_the_category_occurs_in_half_of_the_rows():
    _, columns, _, signal = drawn("category_in_history")
    assert ((signal.logit(columns) > 0) == occurrences(columns).any(1)).all()
    counts = occurrences(columns).sum(1)
    assert counts.max() == 3 and (counts == 0).mean() == pytest.approx(0.5, abs=0.02)


def test_only_the_order_tells():
    _, columns, _, signal = drawn("order")
    assert (occurrences(columns).sum(1) == 2).all()
    backwards = with_arrays(columns, **{name: columns.arrays[name][:, ::-1]
                                        for name in ("item_history", "category_history")})
    assert (signal.logit(backwards) == -signal.logit(columns)).all()
    liked = (columns.arrays["item_history"].astype(int) - 1) // 20 % 2 == 1
    assert ((liked & occurrences(columns)).sum(1) == 1).all()  # as a set, always one of each kind


def test_only_an_event_far_back_tells():
    _, columns, _, signal = drawn("far_back")
    assert (occurrences(columns).sum(1) == 1).all() and not occurrences(columns)[:, -5:].any()
    assert occurrences(columns)[:, 0].any() and occurrences(columns)[:, -6].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_of_a_recipe_delivers_them(kind):
    dataset = Dataset(DataConfig(synthetic=config(kind)))
    (batch,) = dataset.evaluation_loader("test", batch_size=3000, pin_memory=False).epoch(0)
    assert [tuple(tensor.shape) for tensor in (*batch.target_item, *batch.history, *batch.negative_history)] == [
        (3000,), (3000,), *[(3000, 14)] * 4]
    assert dataset.inputs(DIN.reads(dataset.spec, None))["history"] == ["item_history", "category_history"]
    again = in_memory(dataset.spec, 3000, 1, config(kind).signal, mapping="test")[0]
    np.testing.assert_array_equal(batch.history[0], again.arrays["item_history"])


@pytest.mark.parametrize(("changes", "word"), [
    ({"history_length": 0}, "history_length"), ({"items": 50}, "items"), ({"item_categories": 1}, "item_categories"),
    ({"spec": "criteo_t15"}, "spec"), ({"signal": {"kind": "far_back", "recent": 14}}, "history_length"),
    ({"signal": {"kind": "pair"}}, "history_length")])
def test_settings_that_cannot_be(changes, word):
    with pytest.raises(RecipeError, match=word):
        parse(SyntheticConfig, {"history_length": 14, "signal": {"kind": "order"}, **changes}, "recipe.data.synthetic")
