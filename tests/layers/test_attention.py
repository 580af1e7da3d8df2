import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.layers import attention as attention_module
from clickwise.layers.attention import (
    ActivationUnit,
    MultiHeadTargetAttention,
    TargetAttention,
    attend,
    dots,
    masked_softmax,
    weighted_sum,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mask_of(*rows):
    return torch.tensor(rows).bool()


MASK = mask_of([0, 1, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1])


@settings(max_examples=50, deadline=None)
@given(scores=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=8), data=st.data())
def test_softmax_gives_padding_nothing_and_the_rest_one(scores, data):
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))))
    weights = masked_softmax(torch.tensor(scores), mask)
    assert (weights[~mask] == 0).all() and weights.isfinite().all()
    if mask.any():
        torch.testing.assert_close(weights[mask], torch.tensor(scores)[mask].softmax(0))
        assert torch.equal(masked_softmax(torch.tensor(scores), mask, empty="uniform"), weights)
    else:
        assert (masked_softmax(torch.tensor(scores), mask, empty="uniform") == 1 / len(scores)).all()


def test_softmax_of_half_precision_is_float32():
    score = torch.tensor([[0.0, -20.0]], dtype=torch.float16)
    weights = masked_softmax(score, torch.ones(1, 2).bool())
    assert weights.dtype == torch.float32 and float(weights[0, 1]) == pytest.approx(math.exp(-20), rel=1e-4)


def test_the_unit_is_an_mlp_on_the_four_parts():
    unit, query, keys = ActivationUnit(3, (7, 4)), normal(5, 3), normal(6, 5, 3, seed=1)
    for layer in unit.scorer.layers:
        torch.nn.init.normal_(layer.bias)
    query_L = query.expand(6, 5, 3)
    parts = torch.cat([query_L, keys, query_L - keys, query_L * keys], -1)
    expected = unit.scorer(parts)
    torch.testing.assert_close(unit(query, keys), expected)
    by_sample = unit(query[:, None], keys.transpose(0, 1))
    torch.testing.assert_close(by_sample, expected.t())


@pytest.mark.parametrize("act", ["sigmoid", "dice", "prelu"])
@pytest.mark.parametrize("weights", ["softmax", "none"])
@pytest.mark.parametrize("scores", ["dot", "unit"])
def test_target_attention_sample_by_sample(scores, weights, act):
    attention = TargetAttention(3, scores=scores, weights=weights, sizes=(6, 4), act=act).eval()
    target, items = normal(4, 3), normal(4, 5, 4, seed=1)  # an item holds one value more
    interest, found = attention(target, items, MASK)
    for b in range(4):
        real = items[b][MASK[b]]
        score = real[:, :3] @ target[b] if scores == "dot" else attention.unit(target[b], real[:, :3])
        weight = score.softmax(0) if weights == "softmax" else score
        torch.testing.assert_close(interest[b], weight @ real)
        torch.testing.assert_close(found[b][MASK[b]], weight)
        assert (found[b][~MASK[b]] == 0).all()


def test_padding_does_not_reach_the_statistics_of_dice():
    def trained(items, mask):
        torch.manual_seed(0)
        attention = TargetAttention(3, scores="unit", weights="none", act="dice")
        interest, _ = attention(normal(4, 3), items, mask)
        return interest, attention.unit.scorer.activations[0].mean_H

    items = normal(4, 5, 3, seed=1) * MASK[..., None]
    one = trained(items, MASK)
    wider = trained(torch.cat([torch.zeros(4, 9, 3), items], 1), torch.cat([torch.zeros(4, 9).bool(), MASK], 1))
    for found, expected in zip(wider, one, strict=True):
        torch.testing.assert_close(found, expected)
    assert (one[1] != 0).any()


def as_on_a_gpu(monkeypatch):
    """Nothing depends on values, and the products are plain torch's."""
    monkeypatch.setattr(attention_module, "may_wait", lambda tensor: False)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


def attended(mask, padding, *, training, **settings):
    """What attention gives, every gradient, and its buffers after; with this value in the items at padding."""
    torch.manual_seed(0)
    attention = TargetAttention(3, sizes=(6, 4), **settings).train(training)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    target = normal(len(mask), 3).requires_grad_()
    items = normal(*mask.shape, 4, seed=1).masked_fill(~mask[..., None], padding).requires_grad_()
    interest, weights = attention(target, items, mask)
    ((interest * normal(*interest.shape, seed=2)).sum() + (weights * normal(*mask.shape, seed=3)).sum()).backward()
    grads = {name: parameter.grad for name, parameter in attention.named_parameters()}
    return {"interest": interest, "weights": weights, "target": target.grad, "items": items.grad, **grads,
            **dict(attention.named_buffers())}


@pytest.mark.parametrize("mask", [MASK, MASK[[1, 1]], MASK[[2, 2]], MASK[[3, 2]], MASK[:0], MASK[:, :0]],
                         ids=["some", "full", "empty", "one position", "no sample", "no position"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("act", ["sigmoid", "prelu", "relu", "dice"])
@pytest.mark.parametrize("weights", ["softmax", "none"])
@pytest.mark.parametrize("scores", ["dot", "unit"])
def test_a_gpu_scores_padding_too_and_nothing_sees_it(monkeypatch, scores, weights, act, training, mask):
    settings = dict(scores=scores, weights=weights, act=act, training=training)
    expected = attended(mask, 0.0, **settings)
    as_on_a_gpu(monkeypatch)
    for padding in (0.0, 1e30, math.inf, math.nan):
        found = attended(mask, padding, **settings)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # names each that is not


@pytest.mark.parametrize("act", ["prelu", "dice"])
def test_a_gpu_scores_padding_too_under_autocast(monkeypatch, act):
    settings = dict(scores="unit", weights="softmax", act=act, training=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = attended(MASK, 0.0, **settings)
        as_on_a_gpu(monkeypatch)
        found = attended(MASK, math.nan, **settings)
    assert found["weights"].dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)


def test_a_query_is_scored_with_all_keys_at_once(monkeypatch):
    as_on_a_gpu(monkeypatch)
    attention, seen = TargetAttention(3, scores="unit", weights="softmax", act="dice"), []
    of_pairs = attention.unit.scorer.of_pairs
    monkeypatch.setattr(attention.unit.scorer, "of_pairs",
                        lambda a, b, *args, **more: seen.append((a.shape, b.shape)) or of_pairs(a, b, *args, **more))
    attention(normal(4, 3), normal(4, 5, 3, seed=1), MASK)
    assert seen == [((4, 3), (5, 4, 3))]


def test_an_empty_history_is_no_interest_and_no_gradient():
    for scores in ("dot", "unit"):
        attention = TargetAttention(3, scores=scores, weights="softmax")
        items = normal(2, 4, 3).requires_grad_()
        interest, _ = attention(normal(2, 3), items, torch.zeros(2, 4).bool())
        interest.sum().backward()
        assert (interest == 0).all() and (items.grad == 0).all()


def test_multi_head_attention_is_the_usual_one_with_the_target_as_its_query():
    heads, head_dim = 3, 4
    attention = MultiHeadTargetAttention(5, 7, heads=heads, head_dim=head_dim)
    target, items = normal(4, 5), normal(4, 5, 7, seed=1)
    found = attention(target, items, MASK)
    assert found.shape == (4, attention.outputs) == (4, 12)

    def by_head(x, layer):
        return (x @ layer.weight.T).unflatten(-1, (heads, head_dim)).transpose(1, 2)

    full = torch.nn.functional.scaled_dot_product_attention(
        by_head(target[:, None], attention.query), by_head(items, attention.key), by_head(items, attention.value),
        attn_mask=MASK[:, None, None, :])
    full = full.transpose(1, 2).flatten(1)
    some = MASK.any(1)
    torch.testing.assert_close(found[some], full[some])
    assert (found[~some] == 0).all()


@pytest.mark.parametrize("mode, learns", [(torch.enable_grad, True), (torch.no_grad, False),
                                          (torch.inference_mode, False)])
def test_attention_keeps_a_graph_for_training_only(mode, learns):
    query, items, kept = normal(4, 2, 3).requires_grad_(), normal(4, 5, 3, seed=1), []

    def weights_of(score_CQL, here):
        weight_CQL = masked_softmax(score_CQL, MASK[here].unsqueeze(1))
        kept.append(weight_CQL.requires_grad)
        return weight_CQL

    with mode():
        found = attend(query, items, weights_of)
    assert kept == [learns] and found.requires_grad == learns
    with torch.no_grad():
        torch.testing.assert_close(found, masked_softmax(query @ items.transpose(1, 2), MASK.unsqueeze(1)) @ items)


def test_products_rank_in_float32_under_autocast():
    target, items = normal(2, 8), normal(2, 5, 8, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        score = dots(target, items)
        total = weighted_sum(masked_softmax(score, torch.ones(2, 5).bool()), items)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, (items * target[:, None]).sum(-1))
    torch.testing.assert_close(total, (score.softmax(1)[..., None] * items).sum(1))
