import pytest
import torch
from agreement import assert_same_gradients

from clickwise.kernels.dot_interaction import cpu, dot_interaction, dot_interaction_of, output_width, reference

SHAPES = [(1, 1, 1), (3, 2, 5), (17, 26, 16), (5, 26, 128), (2, 30, 31), (3, 31, 33), (2, 38, 255), (2, 39, 256),
          (3, 40, 257), (0, 4, 8)]


def inputs(samples, features, dim, dtype=torch.float64):
    generator = torch.Generator().manual_seed(features)
    z0 = torch.randn(samples, dim, dtype=dtype, generator=generator)
    rows = torch.randn(samples, features, dim, dtype=dtype, generator=generator)
    return z0.requires_grad_(), rows.requires_grad_()


def test_order_and_padding_by_hand():
    z0, rows = torch.tensor([[1.0, 2.0]]), torch.tensor([[[3.0, 0.0], [0.0, 5.0], [1.0, 1.0]]])
    #                       z0          (1,0)  (2,0)  (2,1)  (3,0)  (3,1)  (3,2)
    expected = torch.tensor([[1.0, 2.0, 3.0, 10.0, 0.0, 3.0, 3.0, 5.0]])
    assert torch.equal(dot_interaction(z0, rows), expected)
    assert torch.equal(dot_interaction(z0, rows, pad_to=5), torch.cat([expected, torch.zeros(1, 2)], 1))
    assert output_width(26, 128) == (480, 479)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("chunk", [2, 512])
def test_cpu_equals_reference_in_value_and_gradients(shape, chunk, monkeypatch):
    monkeypatch.setattr(cpu, "CHUNK", chunk)
    z0, rows = inputs(*shape)
    fast, slow = cpu.dot_interaction(z0, rows), reference.dot_interaction(z0, rows)
    assert fast.shape == (shape[0], output_width(*shape[1:])[0])
    torch.testing.assert_close(fast, slow)
    upstream = torch.randn(fast.shape, dtype=torch.float64)
    assert_same_gradients(fast, (z0, rows), slow, (z0, rows), upstream, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("is_part", [False, True], ids=["whole", "part"])
def test_vectors_in_one_tensor_give_the_same(shape, is_part, monkeypatch):
    monkeypatch.setattr(cpu, "CHUNK", 2)
    z0, rows = inputs(*shape)
    x = torch.cat([z0[:, None], rows], dim=1).detach()
    if is_part:  # of wider rows
        x = torch.cat([x, x], dim=1)[:, :x.shape[1]]
    x.requires_grad_()
    joined, slow = dot_interaction_of(x), reference.dot_interaction(z0, rows)
    torch.testing.assert_close(joined, slow)
    upstream = torch.randn(slow.shape, dtype=torch.float64)
    joined.backward(upstream)
    slow.backward(upstream)
    torch.testing.assert_close(x.grad, torch.cat([z0.grad[:, None], rows.grad], dim=1))


@pytest.mark.parametrize("pad_to", [1, 8])
def test_gradcheck(pad_to):
    assert torch.autograd.gradcheck(lambda z0, rows: dot_interaction(z0, rows, pad_to), inputs(3, 4, 5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_the_reference(dtype):
    z0, rows = (tensor.detach().to(dtype).requires_grad_() for tensor in inputs(9, 6, 16))
    fast = dot_interaction(z0, rows)
    slow = reference.dot_interaction(z0.float(), rows.float())
    assert fast.dtype == dtype
    torch.testing.assert_close(fast.float(), slow, rtol=0.02, atol=0.05)
    fast.sum().backward()
    assert z0.grad.dtype == rows.grad.dtype == dtype


def test_z0_of_another_type_takes_that_of_the_rows():
    z0, rows = inputs(3, 2, 4, torch.float32)
    out = dot_interaction(z0, rows.bfloat16())
    out.sum().backward()
    assert out.dtype == torch.bfloat16 and z0.grad.dtype == torch.float32


def test_without_rows_and_without_numerical_features():
    z0, rows = inputs(3, 2, 4)
    for none in (None, rows[:, :0]):
        out = dot_interaction(z0, none)
        assert torch.equal(out[:, :4], z0) and not out[:, 4:].any()
        assert out.shape[1] == output_width(0, 4)[0]
    out = dot_interaction(None, rows)
    assert (out.shape[1], 5) == output_width(2, 4, z0=False)
    torch.testing.assert_close(out[:, :4], rows.sum(1))
    torch.testing.assert_close(out[:, 4], (rows[:, 0] * rows[:, 1]).sum(1))
    assert torch.equal(dot_interaction(None, rows[:, :1])[:, :4], rows[:, 0])
