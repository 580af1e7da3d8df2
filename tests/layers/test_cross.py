import pytest
import torch

from clickwise.layers.cross import STD, CrossNetwork


@pytest.mark.parametrize("rank, matrices", [(5, 2 * 5 * 300), (None, 300 * 300)])
def test_parameters_and_first_values(rank, matrices):
    torch.manual_seed(0)
    network = CrossNetwork(300, layers=2, rank=rank)
    assert sum(parameter.numel() for parameter in network.parameters()) == 2 * (matrices + 300)
    for layer in network:
        assert (layer.bias_K == 0).all()
        for weight in (layer.u_RK, layer.v_KR):
            if weight is not None:
                assert weight.detach().abs().max() <= 2 * STD
                assert abs(float(weight.detach().std()) / (0.8796 * STD) - 1) < 0.05


def test_no_layers_give_x0():
    x0 = torch.rand(3, 4)
    assert CrossNetwork(4, layers=0, rank=2)(x0) is x0
