from triton_device import DEVICE, nan_in_new_memory, walled  # noqa: F401  isort: skip

import pytest
import torch
from agreement import assert_same_gradients, near

from clickwise.kernels.dot_interaction import output_width, reference
from clickwise.kernels.dot_interaction import triton as fast

pytestmark = pytest.mark.usefixtures("nan_in_new_memory")
SHAPES = [(1, 1, 1), (3, 2, 5), (2, 26, 128), (2, 31, 33), (1, 32, 16), (1, 38, 255), (1, 64, 257), (0, 4, 8)]
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}


def inputs(samples, features, dim, dtype=torch.float32, z0_dtype=None):
    generator = torch.Generator().manual_seed(features)
    z0 = torch.randn(samples, dim, generator=generator).to(z0_dtype or dtype)
    rows = torch.randn(samples, features, dim, generator=generator).to(dtype)
    return [walled(tensor).requires_grad_() for tensor in (z0, rows)]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference_in_value_and_gradients(shape, dtype):
    leaves = inputs(*shape, getattr(torch, dtype))
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    found, expected = fast.dot_interaction(*leaves), reference.dot_interaction(*exact)
    assert found.shape == (shape[0], output_width(*shape[1:])[0]) and found.dtype == leaves[0].dtype
    assert near(found, expected, TOLERANCE[dtype])
    assert torch.equal(found[:, :shape[2]], leaves[0]) and not found[:, output_width(*shape[1:])[1]:].any()
    upstream = walled(torch.randn(expected.shape, generator=torch.Generator().manual_seed(7)).to(found.dtype))
    assert_same_gradients(found, leaves, expected, exact, upstream, share=TOLERANCE[dtype])


@pytest.mark.skipif(DEVICE.type == "cuda" and torch.cuda.get_device_capability() < (8, 0), reason="no bfloat16")
def test_as_many_rows_as_it_takes_and_no_more():
    leaves = inputs(1, 128, 16, torch.bfloat16)
    assert fast.supports(*leaves) and not fast.supports(*inputs(1, 129, 16, torch.bfloat16))
    assert not fast.supports(*inputs(1, 2, 3, torch.float64))
    assert near(fast.dot_interaction(*leaves), reference.dot_interaction(*(leaf.double() for leaf in leaves)), 2e-2)


@pytest.mark.parametrize("pad_to", [1, 5, 8, 64])
def test_padding_is_zero(pad_to):
    out = fast.dot_interaction(*inputs(2, 3, 4), pad_to)
    assert out.shape[1] == output_width(3, 4, pad_to=pad_to)[0] and not out[:, 10:].any() and out[:, :10].all()


def test_parts_of_one_buffer_are_read_in_place():
    buffer = walled(torch.randn(3, 6, 8))
    z0, rows = buffer[:, 0], buffer[:, 1:5]
    assert not rows.is_contiguous()
    leaves = [z0.detach().requires_grad_(), rows.detach().requires_grad_()]
    found, expected = fast.dot_interaction(*leaves), reference.dot_interaction(*leaves)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    upstream = torch.randn(3, 2 * expected.shape[1], device=DEVICE)[:, ::2]
    assert_same_gradients(found, leaves, expected, leaves, upstream)


def test_z0_of_another_type_takes_that_of_the_rows():
    leaves = inputs(3, 2, 4, torch.bfloat16, torch.float32)
    out = fast.dot_interaction(*leaves)
    assert out.dtype == torch.bfloat16 and torch.equal(out, reference.dot_interaction(*leaves))
    out.sum().backward()
    assert leaves[0].grad.dtype == torch.float32 and leaves[1].grad.dtype == torch.bfloat16


def test_computes_in_the_type_of_autocast():
    leaves = inputs(3, 2, 20)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        out = fast.dot_interaction(*leaves)
    assert out.dtype == torch.bfloat16 and near(out, reference.dot_interaction(*leaves), 2e-2)
    assert [grad.dtype for grad in torch.autograd.grad(out.sum(), leaves)] == [torch.float32] * 2


def test_what_is_not_finite_stays_in_its_sample():
    leaves = inputs(3, 4, 8)
    with torch.no_grad():
        leaves[1][1, 2, 3] = float("nan")
    out = fast.dot_interaction(*leaves)
    assert torch.equal(out.isnan(), reference.dot_interaction(*leaves).isnan())


def test_self_test():
    fast.self_test(DEVICE)
