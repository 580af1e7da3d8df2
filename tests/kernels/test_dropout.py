import pytest
import torch

from clickwise.kernels.dropout import dropout


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_is_dropped_and_the_mean_stays(share, dtype):
    torch.manual_seed(0)
    y = dropout(torch.ones(1001, 999, dtype=dtype), share)
    assert y.dtype == dtype
    assert float((y == 0).float().mean()) == pytest.approx(share, abs=0.002)
    kept = y[y != 0].float()
    assert float(kept.min()) == float(kept.max()) == pytest.approx(1 / (1 - share), rel=1e-4 if dtype == torch.float32
                                                                   else 0.01)


def test_every_place_is_dropped_alike():
    torch.manual_seed(0)
    rate_of_place = torch.stack([dropout(torch.ones(13), 0.3) == 0 for _ in range(4000)]).float().mean(0)
    assert float((rate_of_place - 0.3).abs().max()) < 0.03
    pairs = torch.stack([dropout(torch.ones(2), 0.5) == 0 for _ in range(4000)])
    assert float((pairs[:, 0] & pairs[:, 1]).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_the_gradient_passes_where_the_value_did_and_the_seed_decides():
    x = torch.randn(17, 5, requires_grad=True)
    torch.manual_seed(1)
    y = dropout(x, 0.4)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.4), y)
    assert not torch.equal(dropout(x, 0.4), y)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 0), (2, 3, 5)])
def test_any_shape(shape):
    assert dropout(torch.ones(shape), 0.5).shape == shape
