import math

import pytest
import torch

from clickwise.layers.mlp import MLP


def test_layers_with_relu_behind_each():
    torch.manual_seed(0)
    layers = MLP(5, (7, 3))
    x_BH = torch.randn(4, 5)
    expected = layers[1](layers[0](x_BH).relu()).relu()
    torch.testing.assert_close(layers(x_BH), expected)
    assert layers.outputs == 3 and MLP(5, ()).outputs == 5
    assert torch.equal(MLP(5, ())(x_BH), x_BH)


def test_first_values_have_the_variances_of_the_reference():
    torch.manual_seed(0)
    (linear,) = MLP(400, (900,))
    assert linear.weight.std().item() == pytest.approx(math.sqrt(2 / 1300), rel=0.02)
    assert linear.bias.std().item() == pytest.approx(math.sqrt(1 / 900), rel=0.1)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    layers = MLP(10, (50, 40), dropout=0.5)
    x_BH = torch.randn(6, 10)
    assert not torch.equal(layers(x_BH), layers(x_BH))
    layers.eval()
    assert torch.equal(layers(x_BH), layers(x_BH))
    torch.manual_seed(1)
    ones = MLP(1, (4000,), dropout=0.25)
    with torch.no_grad():
        ones[0].weight.zero_()
        ones[0].bias.fill_(1.0)
    out = ones(torch.ones(1, 1))
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)


def test_padding_is_for_gpus_and_up_to_rows_of_sixteen_bytes():
    gpu = torch.device("cuda")
    assert [MLP(inputs, (4,)).padding(gpu) for inputs in (1, 13, 16, 1053)] == [7, 3, 0, 3]
    assert MLP(13, (4,)).padding(torch.device("cpu")) == 0 and MLP(13, ()).padding(gpu) == 0


def test_padding_changes_no_value_and_no_gradient(monkeypatch):
    torch.manual_seed(0)
    layers, x_BH = MLP(13, (20, 5)), torch.randn(9, 13, requires_grad=True)
    leaves = [x_BH, *layers.parameters()]
    expected = layers(x_BH)
    of_expected = torch.autograd.grad(expected.square().sum(), leaves)
    monkeypatch.setattr(MLP, "padding", lambda self, device: 3)
    for x in (x_BH, torch.nn.functional.pad(x_BH, (3, 0))):
        found = layers(x)
        torch.testing.assert_close(found, expected)
        for a, b in zip(torch.autograd.grad(found.square().sum(), leaves), of_expected, strict=True):
            torch.testing.assert_close(a, b)
    for width in (12, 14, 17):
        with pytest.raises(RuntimeError):
            layers(torch.zeros(9, width))
