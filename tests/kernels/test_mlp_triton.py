from triton_device import DEVICE, nan_in_new_memory, walled  # noqa: F401  isort: skip

import math
import weakref

import pytest
import torch
import torch.nn.functional as F

from clickwise.kernels import gpu, mlp
from clickwise.kernels.mlp import reference
from clickwise.kernels.mlp import triton as fast

SIZES = [(13, 7), (1, 1), (5, 31, 17, 3), (24, 300, 16)]
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 4e-3}


@pytest.fixture(autouse=True)
def asks_anew():
    yield
    fast._relu_is_part_of_product.cache_clear()


@pytest.fixture(params=["ReLU in the product", "ReLU behind it"])
def either_relu(request, monkeypatch):
    if request.param == "ReLU behind it":
        monkeypatch.setattr(fast, "_relu_is_part_of_product", lambda device, dtype: False)


def inputs(sizes, samples, dtype=torch.float32):
    """(every tensor once, the arguments that they are)."""
    generator = torch.Generator().manual_seed(sizes[0])
    shapes = [(samples, sizes[0]), *zip(sizes[1:], sizes, strict=False), *((size,) for size in sizes[1:])]
    tensors = [walled(torch.randn(*shape, generator=generator).div(shape[-1] ** 0.5).to(dtype)).requires_grad_()
               for shape in shapes]
    return tensors, arguments_of(tensors)


def arguments_of(tensors):
    layers = len(tensors) // 2
    return tensors[0], tensors[1:1 + layers], tensors[1 + layers:]


def near(found, expected, tolerance):
    """Relative to the length of the whole; NaN is never near."""
    found, expected = found.double(), expected.double()
    return bool((found - expected).norm() <= tolerance * expected.norm() + 1e-12)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("relu_last", [True, False])
@pytest.mark.parametrize("samples", [1, 130])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_equals_reference_in_value_and_every_gradient(sizes, samples, relu_last, dtype, either_relu, monkeypatch,
                                                      nan_in_new_memory):  # noqa: F811
    monkeypatch.setattr(fast, "ROWS_AT_ONCE", 64)
    tensors, arguments = inputs(sizes, samples, getattr(torch, dtype))
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    found, expected = fast.mlp(*arguments, relu_last), reference.mlp(*arguments_of(exact), relu_last)
    assert found.dtype == tensors[0].dtype and near(found, expected, TOLERANCE[dtype])
    upstream = walled(torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(found.dtype))
    kept = upstream.clone()
    of_found = torch.autograd.grad(found, tensors, upstream, retain_graph=True)
    again = torch.autograd.grad(found, tensors, upstream)
    assert torch.equal(upstream, kept), "the upstream gradient belongs to others"
    if dtype != "float32":  # a value that is rounded to the other side of 0 has another gradient
        exact = [tensor.detach().clone().requires_grad_() for tensor in tensors]
        expected = reference.mlp(*arguments_of(exact), relu_last)
    of_expected = torch.autograd.grad(expected, exact, upstream.to(expected.dtype))
    for a, same, b in zip(of_found, again, of_expected, strict=True):
        assert near(a, b, TOLERANCE[dtype]) and torch.equal(a, same) and a.dtype == found.dtype and a.is_contiguous()


@pytest.mark.parametrize("upstream", [torch.ones(()).expand(33, 3), torch.randn(3, 33).t()], ids=["one", "columns"])
def test_any_layout_of_the_upstream_gradient(upstream):
    tensors, arguments = inputs((5, 4, 3), 33)
    upstream = upstream.to(DEVICE)
    found, expected = (torch.autograd.grad(run(*arguments), tensors, upstream) for run in (fast.mlp, reference.mlp))
    for a, b in zip(found, expected, strict=True):
        assert near(a, b, 1e-5)


@pytest.mark.parametrize("wanted", range(5))
def test_gradients_only_where_asked(wanted):
    tensors, arguments = inputs((4, 3, 2), 5)
    for at, tensor in enumerate(tensors):
        tensor.requires_grad_(at == wanted)
    fast.mlp(*arguments).sum().backward()
    (expected,) = torch.autograd.grad(reference.mlp(*arguments).sum(), tensors[wanted])
    torch.testing.assert_close(tensors[wanted].grad, expected)
    assert [tensor.grad is not None for tensor in tensors] == [at == wanted for at in range(5)]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_no_output_outlives_the_next(context, monkeypatch):
    _, arguments = inputs((4, 3, 6, 2), 5)
    expected, outputs, alive, run = fast.mlp(*arguments).detach(), [], [], fast._product_with_relu

    def watched(*arguments):
        alive.append([output() is not None for output in outputs])
        y = run(*arguments)
        outputs.append(weakref.ref(y))
        return y

    monkeypatch.setattr(fast, "_product_with_relu", watched)
    with context():
        found = fast.mlp(*arguments)
    assert not found.requires_grad and torch.equal(found, expected)
    assert alive == [[], [True], [False, True]] and [output() is not None for output in outputs] == [False, False, True]


def test_autocast_computes_in_its_type_and_gives_float32_gradients(either_relu):
    tensors, arguments = inputs((16, 32, 8), 40)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        found, expected = fast.mlp(*arguments), reference.mlp(*arguments)
    assert found.dtype == torch.bfloat16 and near(found, expected, 2e-2)
    assert near(found, reference.mlp(*arguments), 2e-2)
    for a, b in zip(*(torch.autograd.grad(out.float().sum(), tensors) for out in (found, expected)), strict=True):
        assert a.dtype == torch.float32 and near(a, b, 5e-2)


def test_what_it_takes():
    _, (x, weights, _) = inputs((4, 3, 2), 5)
    assert fast.takes(x, weights, True) and fast.takes(x, weights, False) and fast.takes(x, weights[:1], True)
    assert not fast.takes(x, weights[:1], False) and not fast.takes(x, [], True), "nothing between two products"
    for other in (torch.zeros(0, 4), torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.float64)):
        assert not fast.takes(other, weights, True)


def test_the_operation_takes_the_kernels_where_they_are(monkeypatch):
    monkeypatch.setattr(gpu, "kernels_for", lambda x, operation: {"mlp": fast}[operation])
    tensors, (x, weights, biases) = inputs((4, 3, 2), 5)
    monkeypatch.setattr(fast, "mlp", lambda *arguments: arguments)
    assert mlp.mlp(x, weights, biases, False) == (x, weights, biases, False)
    for other in (x.double(), x[:0], x.unsqueeze(1)):
        same = [[tensor.to(other.dtype) for tensor in part] for part in (weights, biases)]
        assert torch.is_tensor(mlp.mlp(other, *same))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("relu_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("place", ["x", "weight", "bias", "upstream"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so_as_in_the_reference(value, place, dtype, relu_last, either_relu):
    tensors, (x, weights, biases) = inputs((16, 32, 8), 40, dtype)
    upstream = torch.randn(40, 8, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)
    with torch.no_grad():
        {"x": x[3], "weight": weights[0][5], "bias": biases[0][5:6], "upstream": upstream[2]}[place].fill_(value)
    found, expected = (run(x, weights, biases, relu_last) for run in (fast.mlp, reference.mlp))
    assert torch.equal(found.isnan(), expected.isnan()) and torch.equal(found.isfinite(), expected.isfinite())
    assert found.isnan().any() or not math.isnan(value) or place == "upstream"
    for a, b in zip(*(torch.autograd.grad(out, tensors, upstream) for out in (found, expected)), strict=True):
        assert torch.equal(a.isfinite(), b.isfinite())


@pytest.mark.parametrize("broken", ["eats NaN", "no ReLU", "raises", "missing"])
def test_a_product_whose_relu_is_not_torchs_is_not_taken(broken, monkeypatch):
    def other(bias, x, weight):
        y = F.linear(x, weight.t(), bias)
        if broken == "raises":
            raise RuntimeError
        return y if broken == "no ReLU" else y.relu().nan_to_num()

    assert fast._relu_is_part_of_product(DEVICE, torch.float32) or DEVICE.type != "cpu"
    fast._relu_is_part_of_product.cache_clear()
    if broken == "missing":
        monkeypatch.delattr(torch, "_addmm_activation")
    else:
        monkeypatch.setattr(torch, "_addmm_activation", other)
    _, arguments = inputs((4, 3, 2), 5)
    with torch.no_grad():
        arguments[0][2] = float("nan")
        found, expected = fast.mlp(*arguments), reference.mlp(*arguments)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert not fast._relu_is_part_of_product(DEVICE, torch.float32)


def test_proves_itself(monkeypatch):
    fast.proof(DEVICE)
    monkeypatch.setattr(fast, "_product_with_relu", F.linear)
    with pytest.raises(RuntimeError, match="off by"):
        fast.proof(DEVICE)
