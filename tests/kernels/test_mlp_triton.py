from triton_device import DEVICE, nan_in_new_memory, walled  # noqa: F401  isort: skip

import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_same_gradients, near

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
    if dtype != "float32":  # a value that is rounded to the other side of 0 has another gradient
        exact = [tensor.detach().clone().requires_grad_() for tensor in tensors]
        expected = reference.mlp(*arguments_of(exact), relu_last)
    assert_same_gradients(found, tensors, expected, exact, upstream, share=TOLERANCE[dtype])


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


def test_what_it_supports():
    x = torch.zeros(5, 4)
    assert fast.supports(x, 0.0) and fast.supports(x, 0.999) and not fast.supports(x, 1 - 2**-18)
    for other in (torch.zeros(0, 4), torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.float64)):
        assert not fast.supports(other, 0.0)


def test_the_operation_takes_the_kernels_where_they_are(monkeypatch):
    asked = []
    monkeypatch.setattr(gpu, "kernels_for", lambda x, operation: asked.append(operation) or {"mlp": fast}[operation])
    monkeypatch.setattr(fast, "mlp", lambda *arguments: arguments)
    _, (x, weights, biases) = inputs((4, 3, 2), 5)
    assert mlp.mlp(x, weights, biases, False, 0.5) == (x, weights, biases, False, 0.5)
    for other in (x.double(), x[:0], x.unsqueeze(1)):
        same = [[tensor.to(other.dtype) for tensor in part] for part in (weights, biases)]
        assert torch.is_tensor(mlp.mlp(other, *same, dropout=0.5))
    asked.clear()
    assert torch.is_tensor(mlp.mlp(x, weights[:1], biases[:1], False)) and mlp.mlp(x, [], []) is x
    assert not asked, "products alone are torch's"


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


# Dropout --------------------------------------------------------------------------------------------------------------


def ones(samples, width, share, layers=1, dtype=torch.float32, seed=0):
    """(leaves whose product is 1 everywhere, behind every layer; what dropout makes of it)."""
    tensors = [torch.ones(samples, 1), torch.zeros(width, 1), *[torch.zeros(width, width)] * (layers - 1),
               *[torch.ones(width)] * layers]
    tensors = [tensor.to(DEVICE, dtype, copy=True).requires_grad_() for tensor in tensors]
    torch.manual_seed(seed)
    return tensors, fast.mlp(*arguments_of(tensors), dropout=share)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_a_share_is_dropped_and_the_mean_stays(share, dtype):
    _, y = ones(1001, 199, share, dtype=getattr(torch, dtype))
    dropped = (y == 0).double()
    assert float(dropped.mean()) == pytest.approx(share, abs=5 * (share * (1 - share) / y.numel()) ** 0.5)
    assert y[y != 0].unique().tolist() == [pytest.approx(1 / (1 - share), rel=5e-3 if dtype == "bfloat16" else 1e-3)]
    for axis in (0, 1):  # every sample and every column alike
        deviation = (share * (1 - share) / y.shape[axis]) ** 0.5
        assert float((dropped.mean(axis) - share).abs().max()) < 5.5 * deviation


def test_neighbours_layers_and_programs_drop_independently(monkeypatch):
    monkeypatch.setattr(fast, "LANES", 128)
    outputs, run = [], F.linear
    monkeypatch.setattr(F, "linear", lambda *arguments: outputs.append(run(*arguments)) or outputs[-1])
    ones(256, 64, 0.5, layers=2)
    first, second = ((y == 0).double().flatten() for y in outputs)
    shifted = [first[shift:] for shift in (1, 2, 64, 128, 256, 512, 1024, 2048)]
    for other in (second, *shifted):
        both = float((first[:len(other)] * other).mean())
        assert both == pytest.approx(0.25, abs=5 * (3 / 16 / len(other)) ** 0.5)


def test_the_seed_decides_the_bits():
    found = [ones(40, 30, 0.3, seed=seed)[1] for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    leaves, y = ones(40, 30, 0.3, seed=1)
    assert not torch.equal(fast.mlp(*arguments_of(leaves), dropout=0.3), y), "the next step has other bits"
    state = torch.get_rng_state() if DEVICE.type == "cpu" else torch.cuda.get_rng_state(DEVICE)
    kept = fast.mlp(*arguments_of(leaves), dropout=0.3)
    torch.set_rng_state(state) if DEVICE.type == "cpu" else torch.cuda.set_rng_state(state, DEVICE)
    assert torch.equal(fast.mlp(*arguments_of(leaves), dropout=0.3), kept)


@pytest.mark.parametrize("relu_last", [True, False])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("samples", [1, 130])
def test_dropout_is_what_the_reference_is_with_the_same_values_dropped(samples, dtype, relu_last, monkeypatch,
                                                                       nan_in_new_memory):  # noqa: F811
    outputs, run, share = [], F.linear, 0.25
    tensors, (x, weights, biases) = inputs((24, 300, 40, 16), samples, getattr(torch, dtype))
    with monkeypatch.context() as patch:
        patch.setattr(F, "linear", lambda *arguments: outputs.append(run(*arguments)) or outputs[-1])
        found = fast.mlp(x, weights, biases, relu_last, share)
    expected = x
    for layer, (weight, bias, y) in enumerate(zip(weights, biases, outputs, strict=True)):
        expected = F.linear(expected, weight, bias)
        if relu_last or layer < 2:
            expected = expected.relu() * (y != 0) / (1 - share)
    assert near(found, expected, TOLERANCE[dtype])
    assert not (relu_last and found.equal(fast.mlp(x, weights, biases, relu_last))), "something was dropped"
    upstream = walled(torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(found.dtype))
    assert_same_gradients(found, tensors, expected, tensors, upstream, share=TOLERANCE[dtype])


def test_the_gradient_is_the_scale_where_a_value_is_left():
    leaves, y = ones(300, 40, 0.25)
    (of_bias,) = torch.autograd.grad(y.sum(), leaves[2])
    torch.testing.assert_close(of_bias, (y > 0).sum(0) / 0.75)
    y = fast.mlp(*arguments_of(leaves), dropout=0.25)
    upstream = torch.zeros_like(y)
    upstream[7] = 3.0
    (of_weight,) = torch.autograd.grad(y, leaves[1], upstream)
    assert torch.equal(of_weight[:, 0], torch.where(y[7] > 0, 3.0, 0.0) * (4 / 3))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_outlives_dropout(value):
    _, (x, weights, biases) = inputs((16, 32), 40)
    with torch.no_grad():
        biases[0][5] = value
        y = fast.mlp(x, weights, biases, True, 0.5)
    others = torch.arange(32, device=y.device) != 5
    assert y[:, others].isfinite().all() and (y[:, 5] == 0 if value < 0 else ~y[:, 5].isfinite()).all()


def test_self_test(monkeypatch):
    fast.self_test(DEVICE)
    with monkeypatch.context() as patch:
        patch.setattr(fast, "threshold_of", lambda share: round(share * fast.VALUES / 2))
        with pytest.raises(RuntimeError, match="keeps|off by"):
            fast.self_test(DEVICE)
    monkeypatch.setattr(fast, "_product_with_relu", F.linear)
    with pytest.raises(RuntimeError, match="off by"):
        fast.self_test(DEVICE)
