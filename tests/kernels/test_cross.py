import math

import pytest
import torch
from agreement import assert_same_gradients

from clickwise.kernels import cpu_products
from clickwise.kernels.cross import cpu, cross, reference

SHAPES = [(1, 1, 1), (7, 3, 1), (32, 8, 3), (5, None, 2), (17, None, 1), (48, 64, 2)]  # width, rank, layers


def inputs(width, rank, layers, samples, seed=0):
    """Every tensor once, and the arguments of the kernel."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).div(shape[-1] ** 0.5).requires_grad_()

    x0 = torch.randn(samples, width, generator=generator).requires_grad_()
    parts = [(None if rank is None else draw(rank, width), draw(width, rank or width), draw(width))
             for _ in range(layers)]
    return [x0, *(tensor for part in parts for tensor in part if tensor is not None)], (x0, parts)


@pytest.mark.parametrize("samples", [1, 33])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference_in_value_and_every_gradient(shape, samples, monkeypatch):
    monkeypatch.setattr(cpu, "CHUNK", 10)
    tensors, arguments = inputs(*shape, samples)
    fast, slow = cross(*arguments), reference.cross(*arguments)
    torch.testing.assert_close(fast, slow)
    upstream = torch.randn(fast.shape)
    assert_same_gradients(fast, tensors, slow, tensors, upstream)


def test_reference_is_the_formula_of_the_paper():
    _, (x0, [(u1, v1, b1), (u2, v2, b2)]) = inputs(6, 3, 2, 4)
    for row, x in zip(reference.cross(x0, [(u1, v1, b1), (u2, v2, b2)]), x0, strict=True):
        x1 = x * (v1 @ (u1 @ x) + b1) + x
        torch.testing.assert_close(row, x * (v2 @ (u2 @ x1) + b2) + x1)


def test_takes_the_fast_path_where_torch_has_it():
    _, arguments = inputs(4, 2, 1, 3)
    if cpu_products.works_for(arguments[0]):
        assert type(cross(*arguments).grad_fn).__name__ == "_CrossBackward"


def test_gradients_only_where_asked():
    _, (x0, [(u, v, b), second]) = inputs(6, 3, 2, 5)
    for tensor in (x0, u, b):
        tensor.requires_grad_(False)
    cross(x0, [(u, v, b), second]).sum().backward()
    assert x0.grad is None and u.grad is None and b.grad is None
    assert v.grad is not None and all(tensor.grad is not None for tensor in second)
    with torch.no_grad():
        assert not cross(x0, [(u, v, b)]).requires_grad


@pytest.mark.parametrize("rank", [8, None])
def test_bf16_autocast_computes_in_bf16_and_gives_float32_gradients(rank):
    tensors, arguments = inputs(16, rank, 2, 40)
    with torch.autocast("cpu", torch.bfloat16):
        fast = cross(*arguments)
    assert fast.dtype == torch.bfloat16
    slow = reference.cross(*arguments)
    assert (fast.float() - slow).norm() <= 0.02 * slow.norm()
    found = torch.autograd.grad(fast.float().sum(), tensors)
    for a, b in zip(found, torch.autograd.grad(slow.sum(), tensors), strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() <= 0.05 * b.norm()


@pytest.mark.parametrize("x0", [torch.zeros(0, 4), torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.float64)],
                         ids=["no samples", "three dimensions", "float64"])
def test_other_inputs_go_through_the_reference(x0):
    _, (_, layers) = inputs(4, 2, 1, 1)
    assert cross(x0, [tuple(tensor.to(x0.dtype) for tensor in layers[0])]).shape == x0.shape
    assert cross(x0, []) is x0


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so_as_in_the_reference(value, place):
    tensors, arguments = inputs(16, 8, 1, 40)
    with torch.no_grad():
        tensors[place].view(-1)[5] = value
    fast, slow = cross(*arguments), reference.cross(*arguments)
    torch.testing.assert_close(fast, slow, equal_nan=True)
    assert not all(math.isfinite(number) for number in fast.flatten().tolist())
    for found, expected in zip(*(torch.autograd.grad(out.sum(), tensors) for out in (fast, slow)), strict=True):
        assert torch.equal(found.isfinite(), expected.isfinite())
