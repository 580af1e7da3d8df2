"""What every metric must do. A new metric joins by one line in CASES."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.errors import DataError, RecipeError
from clickwise.metrics import METRICS, MetricSet, build_metric, build_metrics


def probability(logit_B):
    return 1 / (1 + np.exp(-logit_B.astype(np.float64)))


def log_loss(logit_B, label_B, display_B):
    return float(np.mean(np.log1p(np.exp(np.where(label_B, -logit_B, logit_B).astype(np.float64)))))


def normalized_entropy(logit_B, label_B, display_B):
    rate = label_B.mean()
    return log_loss(logit_B, label_B, display_B) / -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))


def auc(logit_B, label_B, display_B):
    return sklearn.metrics.roc_auc_score(label_B, logit_B)


def gauc(logit_B, label_B, display_B):
    groups = [display_B == group for group in np.unique(display_B)]
    parts = [(auc(logit_B[mine], label_B[mine], None), mine.sum()) for mine in groups
             if 0 < label_B[mine].sum() < mine.sum()]
    return sum(value * rows for value, rows in parts) / sum(rows for _, rows in parts)


def by_display(value, clicks_first: bool):
    """The mean of `value(labels from the top)` over displays with a click, ties broken for or against the clicks."""
    def definition(logit_B, label_B, display_B):
        order_B = np.lexsort((~label_B if clicks_first else label_B, -logit_B))
        return np.mean([value(label_B[order_B][display_B[order_B] == group])
                        for group in np.unique(display_B[label_B])])
    return definition


def average_precision_at_5(label_I):
    precision_I = label_I.cumsum() / np.arange(1, len(label_I) + 1)
    return (precision_I * label_I)[:5].sum() / min(5, label_I.sum())


def ndcg_at_5(logit_B, label_B, display_B):
    groups = [display_B == group for group in np.unique(display_B[label_B])]
    return np.mean([sklearn.metrics.ndcg_score(label_B[mine][None], logit_B[mine][None], k=5) if mine.sum() > 1 else 1
                    for mine in groups])


# name -> what it must equal, from numpy arrays of logits, labels, groups; and how closely
CASES = {
    "auc": (auc, 1e-5),
    "exact_auc": (auc, 1e-12),
    "log_loss": (log_loss, 1e-12),
    "normalized_entropy": (normalized_entropy, 1e-12),
    "calibration": (lambda logit_B, label_B, display_B: probability(logit_B).sum() / label_B.sum(), 1e-12),
    "gauc": (gauc, 1e-12),
    "accuracy": (lambda logit_B, label_B, display_B: np.mean((logit_B > 0) == label_B), 1e-12),
    "map_at_5_pessimistic": (by_display(average_precision_at_5, clicks_first=False), 1e-12),
    "ndcg_at_5": (ndcg_at_5, 1e-12),
    "mrr_optimistic": (by_display(lambda label_I: 1 / (label_I.argmax() + 1), clicks_first=True), 1e-12),
    "hit_rate_at_3_pessimistic": (by_display(lambda label_I: label_I[:3].any(), clicks_first=False), 1e-12),
}
EVERY = pytest.mark.parametrize("name", CASES)


def impressions(rows: int, seed: int = 0, rate: float = 0.1):
    """Logits with ties and extremes, labels drawn from the logits, groups of about 20 rows."""
    rng = np.random.default_rng(seed)
    logit_B = rng.normal(math.log(rate / (1 - rate)), 1.2, rows).astype(np.float32)
    logit_B[rng.random(rows) < 0.2] = np.float32(-1.5)  # many ties
    logit_B[rng.random(rows) < 0.01] *= 10
    label_B = rng.random(rows) < probability(logit_B)
    names = rng.integers(-(2**40), 2**40, rows // 20 + 1)
    return logit_B, label_B, rng.choice(names, rows)


def fed(name: str, columns, size: int | None = None):
    metric = build_metric(name)
    tensors = [torch.from_numpy(column) for column in columns]
    for start in range(0, len(tensors[0]), size or max(len(tensors[0]), 1)):
        metric.update(*(tensor[start : start + (size or len(tensor))] for tensor in tensors))
    return metric


def same(left: dict, right: dict, rel: float = 1e-12) -> bool:
    return left == pytest.approx(right, rel=rel, abs=rel, nan_ok=True)


def test_every_metric_of_the_table_is_here():
    assert {type(build_metric(name)) for name in CASES} == set(METRICS.values())


@EVERY
@pytest.mark.parametrize("rate", [0.002, 0.1, 0.6])
def test_equals_its_definition(name, rate):
    definition, tolerance = CASES[name]
    columns = impressions(20_000, rate=rate)
    assert fed(name, columns).compute()[name] == pytest.approx(definition(*columns), rel=tolerance, abs=tolerance)


@EVERY
@pytest.mark.parametrize("size", [1, 7, 256])
def test_batch_size_does_not_matter(name, size):
    columns = impressions(1_001)
    assert same(fed(name, columns, size).compute(), fed(name, columns).compute())


@EVERY
def test_blocks_do_not_matter(name, monkeypatch):
    columns = impressions(1_001)
    whole = fed(name, columns).compute()
    monkeypatch.setattr("clickwise.metrics.metric.BLOCK", 64)
    assert same(fed(name, columns).compute(), whole)


@EVERY
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(0, 200), parts=st.integers(1, 5), seed=st.integers(0, 2**20))
def test_merged_parts_in_any_order_are_one_pass(name, rows, parts, seed):
    columns = impressions(rows, seed)
    order = np.random.default_rng(seed).permutation(rows)
    merged = build_metric(name)
    for part in np.array_split(order, parts):
        merged.merge(fed(name, [column[part] for column in columns]))
    assert same(merged.compute(), fed(name, columns).compute())


@EVERY
def test_merge_leaves_the_other_as_it_was(name):
    columns = impressions(500)
    one, other = fed(name, columns), fed(name, impressions(300, seed=1))
    before = other.compute()
    one.merge(other)
    one.update(*map(torch.from_numpy, columns))
    assert same(other.compute(), before)


@EVERY
def test_state_goes_there_and_back(name, tmp_path):
    first, second = impressions(300, seed=2), impressions(400, seed=3)
    torch.save(fed(name, first).state_dict(), tmp_path / "state.pt")
    restored = build_metric(name)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    straight = fed(name, first)
    for metric in (restored, straight):
        metric.update(*map(torch.from_numpy, second))
    assert restored.compute() == straight.compute()


@EVERY
def test_reset_forgets_everything(name):
    metric = fed(name, impressions(300, seed=2))
    metric.reset()
    columns = impressions(300, seed=3)
    metric.update(*map(torch.from_numpy, columns))
    assert metric.compute() == fed(name, columns).compute()


@EVERY
def test_the_caller_may_reuse_its_tensors(name):
    columns = impressions(300)
    tensors = [torch.from_numpy(column.copy()) for column in columns]
    metric = build_metric(name)
    metric.update(*tensors)
    for tensor in tensors:
        tensor.zero_()
    assert metric.compute() == fed(name, columns).compute()


@EVERY
@pytest.mark.parametrize("label", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float16])
@pytest.mark.parametrize("logit", [torch.float64, torch.bfloat16, torch.float16])
def test_types_do_not_matter(name, logit, label):
    logit_B, label_B, display_B = (torch.from_numpy(column) for column in impressions(500))
    logit_B = logit_B.to(torch.bfloat16).clamp(-1000, 1000)  # values that all the types hold
    plain, typed = build_metric(name), build_metric(name)
    plain.update(logit_B.float(), label_B, display_B)
    typed.update(logit_B.to(logit)[:, None], label_B.to(label)[:, None], display_B)
    assert typed.compute() == plain.compute()


@EVERY
def test_gradients_are_not_kept(name):
    logit_B, label_B, display_B = (torch.from_numpy(column) for column in impressions(50))
    metric = build_metric(name)
    metric.update(logit_B.requires_grad_(), label_B, display_B)
    assert not any(tensor.requires_grad for tensor in metric.state_dict().values())


@EVERY
def test_nothing_and_one_class_do_not_crash(name):
    assert math.isnan(build_metric(name).compute()[name])
    for label in (0, 1):
        logit_B = np.linspace(-3, 3, 50, dtype=np.float32)
        results = fed(name, (logit_B, np.full(50, label), np.zeros(50, np.int64))).compute()
        if name in ("auc", "exact_auc"):
            assert math.isnan(results[name]) and results[f"{name}_undefined"] == 1
        if name in ("gauc", "normalized_entropy"):
            assert math.isnan(results[name])
        if "displays_without_click" in results:
            assert results["displays_without_click"] == 1 - label and math.isnan(results[name]) == (label == 0)


@EVERY
def test_infinite_logits_on_the_right_side_are_fine(name):
    logit_B = np.array([-np.inf, np.inf, -3e38, 3e38, 0], np.float32)
    columns = logit_B, logit_B > 0, np.zeros(5, np.int64)
    assert math.isfinite(fed(name, columns).compute()[name])


@EVERY
def test_nan_logits_are_an_error(name):
    logit_B, label_B, display_B = impressions(100)
    logit_B[50] = np.nan
    with pytest.raises(DataError, match="NaN"):
        fed(name, (logit_B, label_B, display_B))


@EVERY
@pytest.mark.parametrize("label", [2, -1, 0.5, math.nan])
def test_labels_other_than_0_and_1_are_an_error(name, label):
    label_B = np.zeros(100, np.float32)
    label_B[50] = label
    with pytest.raises(DataError, match="0 or 1"):
        fed(name, (np.zeros(100, np.float32), label_B, np.zeros(100, np.int64)))


@EVERY
def test_columns_of_different_lengths_are_an_error(name):
    with pytest.raises(DataError, match="5 rows"):
        build_metric(name).update(torch.zeros(5), torch.zeros(4), torch.zeros(5, dtype=torch.int64))


def test_a_set_gives_what_its_metrics_give():
    columns = impressions(3_000)
    together = MetricSet(build_metrics(list(CASES)))
    half = MetricSet(build_metrics(list(CASES)))
    together.update(*(torch.from_numpy(column[:1000]) for column in columns))
    half.update(*(torch.from_numpy(column[1000:]) for column in columns))
    together.merge(half)
    results = together.compute()
    assert results["rows"] == 3_000 and results["base_rate"] == columns[1].mean()
    for name in CASES:
        assert same({key: results[key] for key in fed(name, columns).compute()}, fed(name, columns).compute())

    restored = MetricSet(build_metrics(list(CASES)))
    restored.load_state_dict(together.state_dict())
    assert restored.compute() == results
    together.reset()
    assert together.compute()["rows"] == 0


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(RecipeError, match="did you mean 'log_loss'"):
        build_metrics(["auc", "logloss"], where="train.yaml: metrics")


@pytest.mark.parametrize("name", ["map_at_0", "map_at_-1", "map_at_", "map_at_1.5", "map_12", "auc_at_3", "hit_rate",
                                  "gauc_pessimistic", "mrr_average", "ndcg_at_5_random", "", "_at_3"])
def test_names_that_are_no_metrics(name):
    with pytest.raises(RecipeError, match="map_at_12"):
        build_metrics([name])


@EVERY
def test_the_nearer_to_the_ideal_the_better(name):
    metric = build_metric(name)
    assert metric.goodness(metric.ideal) > metric.goodness(metric.ideal + 0.1) > metric.goodness(metric.ideal + 0.2)
