import pytest
import torch

from clickwise.kernels import cpu_products
from clickwise.kernels.pair_scores import cpu, pair_scores, reference


def inputs(activation, sizes, rows, alternatives, with_product, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator).requires_grad_()

    a, b = normal(rows, 5), normal(alternatives, rows, 5 if with_product else 3)
    widths = [15 if with_product else 8, *sizes, 1]
    weights = [normal(o, i) for i, o in zip(widths, widths[1:], strict=False)]
    slopes = [normal(size) for size in sizes] if activation == "prelu" else []
    biases = [normal(size) for size in widths[1:]]
    return (a, b, *weights, *biases, *slopes), (a, b, weights, biases, activation, slopes)


every_activation = pytest.mark.parametrize("activation", ["sigmoid", "relu", "prelu"])


@every_activation
@pytest.mark.parametrize("sizes", [(1,), (7, 4), (6, 5, 3)], ids=str)
@pytest.mark.parametrize("rows, alternatives", [(1, 1), (1, 3), (23, 2)])
@pytest.mark.parametrize("with_product", [False, True])
def test_equals_reference_in_value_and_every_gradient(activation, sizes, rows, alternatives, with_product, monkeypatch):
    monkeypatch.setattr(cpu, "CHUNK", 10)
    tensors, arguments = inputs(activation, sizes, rows, alternatives, with_product)
    fast = pair_scores(*arguments, with_product=with_product)
    slow = reference.pair_scores(*arguments, with_product=with_product)
    assert fast.shape == (alternatives, rows) and fast.dtype == torch.float32
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    upstream = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1))
    kept = upstream.clone()
    of_fast = torch.autograd.grad(fast, tensors, upstream)
    assert torch.equal(upstream, kept), "the upstream gradient belongs to others"
    for found, expected in zip(of_fast, torch.autograd.grad(slow, tensors, upstream), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert found.is_contiguous()


@every_activation
@pytest.mark.parametrize("rows_S", [(23, 23, 23), (23, 11, 0), (0, 0, 0), (4, 20, 10)], ids=str)
def test_only_the_first_rows_of_each_are_scored(activation, rows_S, monkeypatch):
    monkeypatch.setattr(cpu, "CHUNK", 10)
    tensors, arguments = inputs(activation, (7, 4), 23, 3, True)
    fast = pair_scores(*arguments, with_product=True, rows_S=rows_S)
    slow = reference.pair_scores(*arguments, with_product=True, rows_S=rows_S)
    full = reference.pair_scores(*arguments, with_product=True)
    for s, rows in enumerate(rows_S):
        torch.testing.assert_close(slow[s, :rows], full[s, :rows])
        assert (slow[s, rows:] == 0).all()
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    upstream = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1))
    for found, expected in zip(*(torch.autograd.grad(of, tensors, upstream) for of in (fast, slow)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_takes_the_fast_path_where_torch_has_it():
    _, arguments = inputs("sigmoid", (4,), 2, 2, False)
    if cpu_products.works_for(arguments[0]):
        assert type(pair_scores(*arguments).grad_fn).__name__ == "_PairScoresBackward"


@every_activation
def test_nan_stays_nan(activation):
    tensors, (a, *rest) = inputs(activation, (4, 3), 3, 2, True)
    with torch.no_grad():
        a[1] = torch.nan
    scores = pair_scores(a, *rest, with_product=True)
    assert scores[:, 1].isnan().all() and scores[:, [0, 2]].isfinite().all()
    assert torch.autograd.grad(scores.sum(), tensors[2])[0].isnan().any()


@every_activation
def test_bf16_autocast_gives_scores_and_gradients_in_float32(activation):
    tensors, arguments = inputs(activation, (16, 8), 40, 3, True)
    slow = reference.pair_scores(*arguments, with_product=True)
    with torch.autocast("cpu", torch.bfloat16):
        fast = pair_scores(*arguments, with_product=True)
    assert fast.dtype == torch.float32
    assert (fast - slow).norm() <= 0.05 * slow.norm()
    found = torch.autograd.grad(fast.sum(), tensors)
    for one, other in zip(found, torch.autograd.grad(slow.sum(), tensors), strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 0.1 * other.norm()


@pytest.mark.parametrize("rows, alternatives", [(0, 2), (3, 0)])
def test_nothing_to_score(rows, alternatives):
    _, arguments = inputs("sigmoid", (4,), rows, alternatives, False)
    assert pair_scores(*arguments).shape == (alternatives, rows)
