from triton_device import DEVICE, nan_in_new_memory, walled  # noqa: F401  isort: skip

import weakref

import pytest
import torch
from agreement import assert_same_gradients, near

from clickwise.kernels.cross import reference
from clickwise.kernels.cross import triton as fast

SHAPES = [(1, 1, 1), (7, 3, 2), (5, None, 2), (140, 70, 2), (33, 40, 3), (300, 20, 1)]  # width, rank, layers
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 4e-3}


def inputs(width, rank, layers, samples, dtype=torch.float32):
    """Every tensor once, and a function that makes the arguments of the kernel from them."""
    generator = torch.Generator().manual_seed(width)

    def draw(*shape):
        return walled(torch.randn(*shape, generator=generator).div(shape[-1] ** 0.5).to(dtype)).requires_grad_()

    x0 = draw(samples, width)
    parts = [(None if rank is None else draw(rank, width), draw(width, rank or width), draw(width))
             for _ in range(layers)]
    tensors = [x0, *(tensor for part in parts for tensor in part if tensor is not None)]

    def arguments(tensors):
        each = iter(tensors)
        return next(each), [tuple(None if tensor is None else next(each) for tensor in part) for part in parts]

    return tensors, arguments


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("samples", [1, 130])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("apart", [False, True], ids=["in one", "apart"])
def test_equals_reference_in_value_and_every_gradient(shape, samples, dtype, apart, nan_in_new_memory,  # noqa: F811
                                                      monkeypatch):
    monkeypatch.setattr(fast, "ROWS_AT_ONCE", 64)
    if apart:
        monkeypatch.setattr(fast, "MOST_RANK", 0)
    tensors, arguments = inputs(*shape, samples, getattr(torch, dtype))
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    found, expected = fast.cross(*arguments(tensors)), reference.cross(*arguments(exact))
    assert found.dtype == tensors[0].dtype and near(found, expected, TOLERANCE[dtype])
    upstream = walled(torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(found.dtype))
    assert_same_gradients(found, tensors, expected, exact, upstream, share=TOLERANCE[dtype])


def test_gradients_only_where_asked():
    tensors, arguments = inputs(6, 3, 2, 5)
    x0, (first, second) = arguments(tensors)
    for tensor in (x0, first[0], first[2]):
        tensor.requires_grad_(False)
    out = fast.cross(x0, [first, second])
    out.sum().backward()
    assert x0.grad is None and first[0].grad is None and first[2].grad is None
    expected = torch.autograd.grad(reference.cross(x0, [first, second]).sum(), [first[1], *second])
    for tensor, grad in zip([first[1], *second], expected, strict=True):
        torch.testing.assert_close(tensor.grad, grad)
    with torch.no_grad():
        assert not fast.cross(x0, [first]).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])  # in one kernel, and apart
def test_only_a_forward_that_backward_may_follow_keeps_anything(dtype, monkeypatch):
    layer, zs, outs = fast._layer, [], []

    def watched(*arguments):
        z, out = layer(*arguments)
        outs.append(weakref.ref(out))
        zs.append(z)
        return z, out

    monkeypatch.setattr(fast, "_layer", watched)
    tensors, arguments = inputs(16, 8, 3, 5, dtype)
    found = fast.cross(*arguments(tensors))
    assert all(z is not None for z in zs) and all(out() is not None for out in outs) and len(zs) == len(outs) == 3
    without = [tensor.detach() for tensor in tensors]
    for gradients, each in ((torch.no_grad, tensors), (torch.inference_mode, tensors), (torch.enable_grad, without)):
        zs.clear()
        outs.clear()
        with gradients():
            same = fast.cross(*arguments(each))
        assert torch.equal(same, found) and not same.requires_grad
        assert zs == [None] * 3 and [out() is None for out in outs] == [True, True, False]


@pytest.mark.parametrize("rank", [8, None])
def test_autocast_computes_in_its_type_and_gives_float32_gradients(rank):
    tensors, arguments = inputs(16, rank, 2, 40)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        found = fast.cross(*arguments(tensors))
    expected = reference.cross(*arguments(tensors))
    assert found.dtype == torch.bfloat16 and near(found, expected, 2e-2)
    for a, b in zip(torch.autograd.grad(found.float().sum(), tensors), torch.autograd.grad(expected.sum(), tensors),
                    strict=True):
        assert a.dtype == torch.float32 and near(a, b, 5e-2)


def test_what_it_supports():
    tensors, arguments = inputs(4, 2, 1, 3)
    assert fast.supports(*arguments(tensors)) and not fast.supports(tensors[0], [])
    for other in (torch.zeros(0, 4), torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.float64)):
        assert not fast.supports(other, arguments(tensors)[1])


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", range(4))
def test_what_is_not_finite_stays_so_as_in_the_reference(value, place):
    tensors, arguments = inputs(16, 8, 1, 40, torch.bfloat16)
    with torch.no_grad():
        tensors[place].view(-1)[5] = value
    found, expected = fast.cross(*arguments(tensors)), reference.cross(*arguments(tensors))
    assert torch.equal(found.isfinite(), expected.isfinite()) and not found.isfinite().all()


def test_self_test():
    fast.self_test(DEVICE)
