import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.layers import search
from clickwise.layers.attention import dots


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


lists = st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 3)), min_size=0, max_size=9)


def tensors(history):
    scores, real, categories = (list(values) for values in zip(*history, strict=True)) if history else ([], [], [])
    return torch.tensor([scores]).float(), torch.tensor([real]).bool(), torch.tensor([categories]).int()


@settings(max_examples=100, deadline=None)
@given(history=lists, k=st.integers(1, 12))
def test_top_k_takes_the_best_real_ones_and_all_where_there_are_few(history, k):
    score, mask, _ = tensors(history)
    chosen = search.top_k(score, mask, k)
    assert int(chosen.sum()) == min(k, int(mask.sum())) and not (chosen & ~mask).any()
    if chosen.any() and (left := mask & ~chosen).any():
        assert score[chosen].min() >= score[left].max()


@settings(max_examples=100, deadline=None)
@given(history=lists, k=st.integers(1, 12), category=st.integers(0, 3))
def test_hard_search_takes_the_latest_of_the_category(history, k, category):
    _, mask, categories = tensors(history)
    chosen = search.hard_search(torch.tensor([category], dtype=torch.int8), categories, mask, k)
    same = [index for index, (_, real, of) in enumerate(history) if real and of == category != 0]
    assert chosen[0].nonzero().squeeze(1).tolist() == same[-k:]


def test_soft_search_is_by_inner_product_with_the_history_as_it_is():
    target, items = normal(3, 4), normal(3, 9, 4, seed=1)
    mask = torch.arange(9) >= torch.tensor([[0], [3], [8]])
    chosen = search.top_k(dots(target, items), mask, 3)
    for b in range(3):
        order = sorted(mask[b].nonzero().squeeze(1).tolist(), key=lambda j: -float(items[b, j] @ target[b]))
        assert set(chosen[b].nonzero().squeeze(1).tolist()) == set(order[:3])


def test_simhash_finds_what_points_the_same_way_and_prefers_the_later():
    planes = normal(4, 64)
    target = normal(1, 4, seed=1)
    items = torch.cat([3 * target, -target, 0.5 * target, normal(1, 4, seed=2)])[None]
    chosen = search.simhash_search(target, items, torch.ones(1, 4).bool(), 2, planes)
    assert chosen.tolist() == [[True, False, True, False]]
    chosen = search.simhash_search(target, items, torch.ones(1, 4).bool(), 1, planes)
    assert chosen.tolist() == [[False, False, True, False]]


def test_sdim_sums_collisions_hash_by_hash():
    planes, target, items = normal(3, 8), normal(2, 3, seed=1), normal(2, 6, 5, seed=2)
    mask = torch.tensor([[0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]]).bool()
    found = search.sdim(target, items, mask, planes, 2)
    total = torch.zeros(5)
    for group in range(4):
        here = slice(2 * group, 2 * group + 2)
        of_target = target[0] @ planes[:, here] > 0
        same = [j for j in range(1, 6) if torch.equal(items[0, j, :3] @ planes[:, here] > 0, of_target)]
        one = items[0, same].sum(0)
        total += one / one.norm() if same else 0
    torch.testing.assert_close(found[0], total / 4)
    assert (found[1] == 0).all()


def test_a_choice_has_no_gradient_and_the_chosen_have():
    items = normal(1, 4, 3).requires_grad_()
    assert not search.top_k(dots(normal(1, 3, seed=1), items), torch.ones(1, 4).bool(), 2).requires_grad
    search.sdim(normal(1, 3, seed=1), items, torch.ones(1, 4).bool(), normal(3, 2), 1).sum().backward()
    assert items.grad.isfinite().all()
