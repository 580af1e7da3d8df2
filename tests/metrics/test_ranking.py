from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.errors import DataError
from clickwise.metrics import MAP, MRR, NDCG, HitRate, MetricSet, build_metric, build_metrics, displays, kept_rows


def average_precision(label_I, k):
    return sum(label_I[: i + 1].mean() for i in np.flatnonzero(label_I[:k])) / min(k, label_I.sum())


def ndcg(label_I, k):
    discount_I = 1 / np.log2(np.arange(2, len(label_I) + 2))
    return label_I[:k] @ discount_I[:k] / discount_I[: min(k, label_I.sum())].sum()


def reciprocal_rank(label_I, k):
    return 1 / (label_I.argmax() + 1) if label_I[:k].any() else 0.0


def hit(label_I, k):
    return float(label_I[:k].any())


MEASURES = {"map": average_precision, "ndcg": ndcg, "mrr": reciprocal_rank, "hit_rate": hit}
SCORES = st.sampled_from([-math.inf, -2.0, -0.0, 0.0, 1.0, math.inf])  # few, so that many tie
DISPLAY = st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=5)


def fed(metric, score_B, label_B, display_B, size=None):
    columns = [torch.as_tensor(np.asarray(column)) for column in (score_B, label_B, display_B)]
    for batch in zip(*(column.split(size or max(len(column), 1)) for column in columns), strict=True):
        metric.update(*batch)
    return metric


@pytest.mark.parametrize("measure", MEASURES)
@settings(deadline=None, max_examples=50)
@given(shown=st.lists(DISPLAY, min_size=1, max_size=3), k=st.integers(1, 6))
def test_ties_are_the_mean_the_worst_and_the_best_of_all_orders(measure, shown, k):
    rows = [(score, label, i) for i, display in enumerate(shown) for score, label in display]
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    values = []  # by display: in every order of its rows
    for display in shown:
        score_I, label_I = (np.array(column) for column in zip(*display, strict=True))
        orders = map(list, itertools.permutations(range(len(display))))
        values.append([MEASURES[measure](label_I[order][np.argsort(-score_I[order], kind="stable")], k)
                       for order in orders] if label_I.any() else [])
    contested = [any(label for _, label in display) and not all(label for _, label in display) for display in shown]
    contested = [display for display, it_is in zip(values, contested, strict=True) if it_is]
    values = [display for display in values if display]
    for suffix, of_orders in (("", np.mean), ("_pessimistic", min), ("_optimistic", max)):
        name = f"{measure}_at_{k}{suffix}"
        results = fed(build_metric(name), *columns).compute()
        expected = np.mean([of_orders(display) for display in values]) if values else math.nan
        assert results[name] == pytest.approx(expected, abs=1e-13, nan_ok=True)
        expected = np.mean([of_orders(display) for display in contested]) if contested else math.nan
        assert results[f"{name}_contested"] == pytest.approx(expected, abs=1e-13, nan_ok=True)
        assert results["displays_contested"] == len(contested)
        assert results["displays"] == len(shown) and results["displays_without_click"] == len(shown) - len(values)
        assert results["displays_of_one_item"] == sum(len(display) == 1 for display in shown)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), rows=st.integers(0, 120), scattered=st.booleans(), seed=st.integers(0, 2**20))
def test_the_very_same_bits_in_any_order_cut_and_merge(data, rows, scattered, seed):
    rng = np.random.default_rng(seed)
    display_B = np.repeat(rng.permutation(40) - 20, rng.integers(0, 7, 40))[:rows] * 2**35
    score_B = rng.integers(-3, 3, len(display_B)).astype(np.float32)
    label_B = rng.random(len(display_B)) < 0.3
    names = ["map_at_3", "mrr", "ndcg_at_2_optimistic", "hit_rate_at_1", "gauc"]
    whole = fed(MetricSet(build_metrics(names)), score_B, label_B, display_B).compute()

    order = rng.permutation(len(display_B)) if scattered else np.arange(len(display_B))
    parts = np.split(order, sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=3))))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(displays, "PENDING", data.draw(st.integers(1, 50)))
        patched.setattr(kept_rows, "SAMPLE", sample := data.draw(st.integers(1, 5)))
        patched.setattr(kept_rows, "READ", sample * data.draw(st.integers(1, 5)))
        metrics = []
        for part in parts:
            columns = score_B[part], label_B[part], display_B[part]
            metrics.append(fed(MetricSet(build_metrics(names)), *columns, size=data.draw(st.integers(1, 20))))
        for other in data.draw(st.permutations(metrics[1:])):
            metrics[0].merge(other)
        assert metrics[0].compute() == pytest.approx(whole, rel=0, abs=0, nan_ok=True)
        patched.setattr(displays, "CHUNK", data.draw(st.integers(1, 50)))
        assert metrics[0].compute() == pytest.approx(whole, rel=1e-14, nan_ok=True)


def test_rows_may_go_on_after_a_result():
    metric, score_B, label_B = MAP(), torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([1, 0, 0, 1])
    metric.update(score_B[:2], label_B[:2], torch.tensor([5, 4]))
    assert metric.compute()["map"] == 1
    metric.update(score_B[2:], label_B[2:], torch.tensor([5, 4]))
    assert metric.compute()["map"] == 0.75


def test_a_known_set_of_displays():
    score_B, label_B, display_B = [0.2, 0.9, 0.5, 0.7, 0.3, 0.1], [0, 1, 0, 0, 1, 0], [1, 1, 1, 2, 2, 3]
    results = fed(MAP(12), score_B, label_B, display_B, size=2).compute()
    assert results == {"map_at_12": 0.75, "map_at_12_contested": 0.75, "displays": 3, "displays_without_click": 1,
                       "displays_of_one_item": 1, "displays_contested": 2}
    assert fed(MRR(), score_B, label_B, display_B).compute()["mrr"] == 0.75
    assert fed(HitRate(1), score_B, label_B, display_B).compute()["hit_rate_at_1"] == 0.5
    assert fed(NDCG(), score_B, label_B, display_B).compute()["ndcg"] == pytest.approx((1 + 1 / math.log2(3)) / 2)


@pytest.mark.parametrize("clicks", [1, 2, 40, 999])
def test_one_score_for_all_is_the_value_of_a_random_order(clicks):
    items = 1000
    label_B = np.arange(items) < clicks
    columns = np.zeros(items, np.float32), label_B, np.zeros(items, np.int64)
    first = [math.comb(items - j, clicks - 1) / math.comb(items, clicks) for j in range(1, items + 1)]
    reciprocal = sum(share / j for j, share in enumerate(first, 1))
    assert fed(MRR(), *columns).compute()["mrr"] == pytest.approx(reciprocal, rel=1e-12)
    assert fed(HitRate(10), *columns).compute()["hit_rate_at_10"] == pytest.approx(sum(first[:10]), rel=1e-12)
    assert fed(NDCG(10), *columns).compute()["ndcg_at_10"] == pytest.approx(
        clicks / items * sum(1 / math.log2(j + 1) for j in range(1, 11))
        / sum(1 / math.log2(j + 1) for j in range(1, min(clicks, 10) + 1)))


def test_a_set_keeps_the_rows_once():
    names = ["gauc", "map_at_12", "mrr", "auc"]
    metrics = fed(MetricSet(build_metrics(names)), [0.5, 0.1], [1, 0], [0, 0])
    state = metrics.state_dict()
    assert sum("logit_B" in kept for kept in state.values()) == 1
    assert list(metrics.compute()) == ["rows", "base_rate", "gauc", "gauc_groups", "gauc_groups_skipped", "map_at_12",
                                       "map_at_12_contested", "displays", "displays_without_click",
                                       "displays_of_one_item", "displays_contested", "mrr", "mrr_contested", "auc",
                                       "auc_error_bound"]


def test_displays_are_needed():
    with pytest.raises(DataError, match="(?s)metrics: map_at_12.*channel 'display'"):
        MAP(12).update(torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8])
def test_rows_without_a_display_are_in_no_group(dtype):
    logit_B, label_B = torch.randn(60, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3 == 0
    display_B = (torch.arange(60) // 4).to(dtype)
    display_B[:20] = torch.iinfo(dtype).min
    names = ["gauc", "map", "hit_rate_at_1"]
    whole, known = (MetricSet(build_metrics(names)) for _ in range(2))
    whole.update(logit_B, label_B, display_B)
    known.update(logit_B[20:], label_B[20:], display_B[20:])
    left_out = ("rows", "base_rate")
    assert {name: value for name, value in whole.compute().items() if name not in left_out} == {
        name: value for name, value in known.compute().items() if name not in left_out}
    none = MetricSet(build_metrics(names))
    none.update(logit_B[:20], label_B[:20], display_B[:20])
    assert math.isnan(none.compute()["map"]) and none.compute()["rows"] == 20
