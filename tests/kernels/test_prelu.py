import pytest
import torch
from agreement import assert_same_gradients

from clickwise.kernels.prelu import prelu, reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (7, 3), (2, 5, 3), (40, 70)], ids=str)
def test_equals_reference_in_value_and_every_gradient(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(dtype)
    x.view(-1)[::5] = 0.0
    x.requires_grad_()
    slope = torch.randn(shape[-1], generator=generator).to(dtype).requires_grad_()
    found, expected = prelu(x, slope), reference.prelu(x, slope)
    assert torch.equal(found, expected)
    upstream = torch.randn(shape, generator=generator).to(dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-1}
    assert_same_gradients(found, (x, slope), expected, (x, slope), upstream, **tolerance)


def test_what_is_no_number_stays_none():
    x = torch.tensor([[float("nan"), 1.0]]).requires_grad_()
    out = prelu(x, torch.tensor([0.1, 0.1]))
    assert out[0, 0].isnan() and out[0, 1] == 1


def test_autocast_rounds_nothing_and_strides_do_not_matter():
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)).transpose(0, 1)
    slope = torch.tensor([0.1, 0.3, 0.7])
    with torch.autocast("cpu", torch.bfloat16):
        found = prelu(x, slope)
    assert found.dtype == torch.float32 and torch.equal(found, reference.prelu(x, slope))
