import math

import pytest
import torch
from agreement import assert_same_gradients

from clickwise.kernels import cpu_products
from clickwise.kernels.mlp import cpu, mlp, reference

SIZES = [(13, 7), (1, 1), (5, 31, 17, 3), (480, 64, 32)]


def inputs(sizes, samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(samples, sizes[0], generator=generator)]
    tensors += [torch.randn(o, i, generator=generator) / i**0.5 for i, o in zip(sizes, sizes[1:], strict=False)]
    tensors += [torch.randn(o, generator=generator) for o in sizes[1:]]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    layers = len(sizes) - 1
    return tensors, (tensors[0], tensors[1:1 + layers], tensors[1 + layers:])


@pytest.mark.parametrize("relu_last", [True, False])
@pytest.mark.parametrize("samples", [1, 33])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_equals_reference_in_value_and_every_gradient(sizes, samples, relu_last, monkeypatch):
    monkeypatch.setattr(cpu, "CHUNK", 10)
    tensors, arguments = inputs(sizes, samples)
    fast, slow = mlp(*arguments, relu_last), reference.mlp(*arguments, relu_last)
    torch.testing.assert_close(fast, slow)
    upstream = torch.randn(fast.shape)
    assert_same_gradients(fast, tensors, slow, tensors, upstream, atol=1e-5)


def test_takes_the_fast_path_where_torch_has_it():
    _, arguments = inputs((4, 3), 2)
    if cpu_products.works_for(arguments[0]):
        assert type(mlp(*arguments).grad_fn).__name__ == "_MLPBackward"


def test_gradients_only_where_asked():
    tensors, (x, weights, biases) = inputs((4, 3, 2), 5)
    x.requires_grad_(False)
    weights[0].requires_grad_(False)
    mlp(x, weights, biases).sum().backward()
    assert x.grad is None and weights[0].grad is None
    assert weights[1].grad is not None and biases[0].grad is not None
    biases[0].grad = None
    with torch.no_grad():
        assert not mlp(x, weights, biases).requires_grad


def test_bf16_autocast_computes_in_bf16_and_gives_float32_gradients():
    tensors, arguments = inputs((16, 32, 8), 40)
    with torch.autocast("cpu", torch.bfloat16):
        fast = mlp(*arguments)
    assert fast.dtype == torch.bfloat16
    slow = reference.mlp(*arguments)
    torch.testing.assert_close(fast.float(), slow, rtol=0.05, atol=0.05)
    found = torch.autograd.grad(fast.float().sum(), tensors)
    for a, b in zip(found, torch.autograd.grad(slow.sum(), tensors), strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() <= 0.05 * b.norm()


@pytest.mark.parametrize("x", [torch.zeros(0, 4), torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.float64)],
                         ids=["no samples", "three dimensions", "float64"])
def test_other_inputs_go_through_the_reference(x):
    _, (_, weights, biases) = inputs((4, 3), 1)
    weights, biases = [w.to(x.dtype) for w in weights], [b.to(x.dtype) for b in biases]
    assert mlp(x, weights, biases).shape == (*x.shape[:-1], 3)
    assert mlp(x, [], []) is x


@pytest.mark.parametrize("relu_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("place", ["x", "weight", "bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so_as_in_the_reference(value, place, dtype, relu_last):
    tensors, (x, weights, biases) = inputs((16, 32, 8), 40)
    with torch.no_grad():
        {"x": x[3], "weight": weights[0][5], "bias": biases[0][5:6]}[place].fill_(value)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        fast, slow = (run(x, weights, biases, relu_last) for run in (mlp, reference.mlp))
    assert fast.dtype == slow.dtype == dtype
    tolerance = {"rtol": 0.05, "atol": 0.05} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(fast, slow, equal_nan=True, **tolerance)
    assert fast.isnan().any() or not math.isnan(value)
    upstream = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    of_fast, of_slow = (torch.autograd.grad(out, tensors, upstream) for out in (fast, slow))
    for found, expected in zip(of_fast, of_slow, strict=True):
        assert torch.equal(found.isfinite(), expected.isfinite())
    if dtype == torch.float32:
        for found, expected in zip(of_fast, of_slow, strict=True):
            torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("relu_last", [True, False])
def test_a_sample_that_is_not_finite_leaves_the_others_alone(relu_last):
    _, (x, weights, biases) = inputs((16, 32, 8), 40)
    clean = mlp(x, weights, biases, relu_last).detach()
    with torch.no_grad():
        x[3], x[20] = float("nan"), float("inf")
        broken = mlp(x, weights, biases, relu_last)
    others = torch.ones(40, dtype=torch.bool)
    others[[3, 20]] = False
    assert torch.equal(broken[others], clean[others]) and broken[3].isnan().all()
