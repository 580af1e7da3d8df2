"""Weights that are made ready for scoring: the same products, never of values that the weights no longer have."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from agreement import near
from torch import nn

from clickwise.kernels import cpu_products, prepacked
from clickwise.kernels.cross import cross
from clickwise.kernels.mlp import mlp
from clickwise.kernels.prepacked import PackedWeights

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
pytestmark = pytest.mark.skipif(not cpu_products.works_for(torch.ones(1, 1)), reason="no products by oneDNN here")


def layer(inputs=96, outputs=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator) / inputs**0.5)
            for shape in ((outputs, inputs), (outputs,))]


def product(packed, x, weight, bias=None):
    with torch.no_grad():
        return packed.product(x, weight, bias)


def plain(x, weight, bias=None):
    with torch.no_grad():
        return cpu_products.product(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


@pytest.fixture(params=TYPES)
def dtype(request):
    return TYPES[request.param]


@pytest.fixture(params=[True, False], ids=["laid out", "not laid out"])
def can_pack(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(prepacked, "packing_works", lambda dtype: False)


@pytest.mark.parametrize("samples", [1, 2, 64, 5000])
@pytest.mark.parametrize("sizes", [(1, 1), (13, 512), (700, 300)], ids=str)
def test_products_are_those_of_plain_weights(dtype, sizes, samples, can_pack):
    weight, bias = layer(*sizes)
    x = torch.randn(samples, sizes[0], generator=torch.Generator().manual_seed(1)).to(dtype)
    for given in ((weight, bias), (weight,)):
        found, expected = product(PackedWeights(), x, *given), plain(x, *given)
        assert found.dtype == dtype and found.shape == expected.shape
        if dtype == torch.bfloat16:
            assert torch.equal(found, expected)
        else:
            assert near(found, expected, 1e-6)


def test_large_weights_are_packed_for_small_batches_and_small_ones_are_not(monkeypatch):
    monkeypatch.setattr(cpu_products, "_largest_by_mkl", lambda dtype: cpu_products.BY_MKL[("avx512_f",)])
    row, few = torch.ones(1, 1024), torch.ones(4, 96)
    assert cpu_products.is_by_mkl(row, 1024) and not cpu_products.is_by_mkl(row, 1024, "packed")
    assert cpu_products.is_by_mkl(row, 200, "packed")  # as little to do as packing costs
    assert cpu_products.is_by_mkl(few, 288, "packed")  # the weights stay in a cache


def test_a_part_of_a_wider_matrix_is_as_good(dtype):
    weight, bias = layer(700, 300)
    wide = torch.randn(64, 900).to(dtype)
    assert torch.equal(product(PackedWeights(), wide[:, :700], weight, bias),
                       product(PackedWeights(), wide[:, :700].contiguous(), weight, bias))


def step_of(kind, parameters, **settings):
    optimizer = kind(parameters, lr=0.1, **settings)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


CHANGES = {
    "sgd": lambda p: step_of(torch.optim.SGD, p),
    "sgd, for each": lambda p: step_of(torch.optim.SGD, p, foreach=True, momentum=0.9),
    "adam": lambda p: step_of(torch.optim.Adam, p),
    "adam, for each": lambda p: step_of(torch.optim.Adam, p, foreach=True),
    "in place": lambda p: [nn.init.normal_(one) for one in p],
    "through a view": lambda p: [one.detach().view(-1)[:1].fill_(9.0) for one in p],
    "other storage": lambda p: [setattr(one, "data", one.data + 1) for one in p],
    "there and back": lambda p: [setattr(one, "data", one.data.to(torch.float16).float()) for one in p],
    "state dict": lambda p: nn.ParameterList(p).load_state_dict(nn.ParameterList(layer(seed=1)).state_dict()),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("samples", [1, 512])
def test_after_a_change_they_are_those_of_the_new_weights(dtype, change, samples):
    weight, bias = layer(700, 300) if change != "state dict" else layer()
    packed, x = PackedWeights(), torch.randn(samples, weight.shape[1]).to(dtype)
    before = product(packed, x, weight, bias)
    assert torch.equal(product(packed, x, weight, bias), before)
    CHANGES[change]([weight, bias])
    after = product(packed, x, weight, bias)
    assert torch.equal(after, product(PackedWeights(), x, weight, bias)) and not torch.equal(after, before)


def test_another_parameter_in_the_place_of_one_that_is_gone(dtype):
    packed, x = PackedWeights(), torch.randn(300, 700).to(dtype)
    for seed in range(20):
        weight, bias = layer(700, 300, seed)
        assert torch.equal(product(packed, x, weight, bias), product(PackedWeights(), x, weight, bias))
        del weight, bias


def test_each_is_made_ready_once_and_goes_with_the_object(dtype):
    weight, bias = layer(700, 300)
    packed, x = PackedWeights(), torch.randn(512, 700).to(dtype)
    for _ in range(3):
        product(packed, x, weight, bias)
    itemsize = dtype.itemsize if torch.ops.mkldnn._is_mkldnn_bf16_supported() else 4
    assert packed.nbytes <= itemsize * 1.1 * (weight.numel() + bias.numel())
    product(packed, x, weight.detach() * 2, bias)
    assert len(packed._kept) <= 2, "what is no parameter is kept"
    made = [weakref.ref(kept.made) for kept in packed._kept.values()]
    del packed
    gc.collect()
    assert all(one() is None for one in made)


def test_layers_use_them_inside_of_the_with_and_without_gradients(dtype, monkeypatch):
    weight, bias = layer(300, 300)
    x, packed = torch.randn(512, 300), PackedWeights()
    calls = []
    monkeypatch.setattr(PackedWeights, "product",
                        lambda self, x, *given: calls.append(self) or plain(x, *given))

    def run():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            return mlp(x, [weight], [bias]), cross(x, [(None, weight, bias)])

    expected = run()
    with packed:
        run()
    with torch.no_grad():
        run()
    assert calls == []
    with torch.no_grad(), packed, packed:
        found = run()
    assert calls == [packed, packed] and prepacked.active() is None
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_diverged_network_does_not_look_healthy(dtype):
    weight, bias = layer()
    with torch.no_grad(), PackedWeights():
        found = mlp(torch.full((8, 96), torch.nan, dtype=dtype), [weight, weight[:, :40]], [bias, bias])
    assert found.isnan().all()


def test_a_copy_of_a_model_has_weights_of_its_own(dtype):
    model, x = nn.Linear(96, 40), torch.randn(512, 96).to(dtype)
    packed = PackedWeights()
    before = product(packed, x, model.weight, model.bias)
    other = copy.deepcopy(model)
    nn.init.zeros_(other.weight)
    assert not torch.equal(product(packed, x, other.weight, other.bias), before)
    assert torch.equal(product(packed, x, model.weight, model.bias), before)
