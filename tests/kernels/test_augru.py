import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.kernels import cpu_products
from clickwise.kernels.augru import cpu, recurrence, reference

FORMS = ("gru", "paper", "compat")
INPUTS = 4
every_form = pytest.mark.parametrize("form", FORMS)


def inputs(form, length, samples, width, seed=0, masked=True, bias=True):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator).requires_grad_()

    given = {"x_LBE": normal(length, samples, INPUTS), "input_GE": normal(3 * width, INPUTS),
             "bias_G": normal(3 * width), "weight_GH": normal(3 * width, width),
             "inner_bias_H": normal(width) if bias and form != "compat" else None,
             "attention_LB": None}
    if form != "gru":
        given["attention_LB"] = torch.rand(length, samples, generator=generator).requires_grad_()
    mask = torch.rand(length, samples, generator=generator) < 0.6 if masked else None
    return given, mask


def weights_of(given):
    return [given[name] for name in ("x_LBE", "input_GE", "bias_G", "weight_GH", "inner_bias_H")]


def run(function, form, given, mask, **settings):
    """Output and the gradients of its weighted sum."""
    out = function(*weights_of(given), form, attention_LB=given["attention_LB"], mask_LB=mask, **settings)
    leaves = [tensor for tensor in given.values() if tensor is not None]
    weights = torch.linspace(-1, 1, out.numel()).view(out.shape)
    return out.detach(), torch.autograd.grad((out * weights).sum(), leaves)


needs_cpu_products = pytest.mark.skipif(not cpu_products.works_for(torch.ones(1, 1)), reason="no oneDNN here")


@needs_cpu_products
@settings(max_examples=40, deadline=None)
@given(form=st.sampled_from(FORMS), length=st.integers(1, 5), samples=st.integers(1, 9), width=st.integers(1, 7),
       masked=st.booleans(), bias=st.booleans(), every_state=st.booleans(), seed=st.integers(0, 99))
def test_the_fast_path_is_the_reference_with_every_gradient(form, length, samples, width, masked, bias, every_state,
                                                            seed):
    given, mask = inputs(form, length, samples, width, seed, masked, bias)
    found, found_grads = run(cpu.recurrence, form, given, mask, every_state=every_state)
    expected, grads = run(reference.recurrence, form, given, mask, every_state=every_state)
    assert found.shape == ((length, samples, width) if every_state else (samples, width))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(found_grads, grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@needs_cpu_products
@every_form
def test_many_samples_are_taken_a_part_at_a_time(form, monkeypatch):
    monkeypatch.setattr(cpu, "CHUNK", 24)
    monkeypatch.setattr(cpu, "SPAN", 7)
    given, mask = inputs(form, 3, 20, 8)
    found, found_grads = run(cpu.recurrence, form, given, mask)
    expected, grads = run(reference.recurrence, form, given, mask)
    torch.testing.assert_close(found, expected)
    for one, other in zip(found_grads, grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@needs_cpu_products
@every_form
@pytest.mark.parametrize("in_order", [True, False])
def test_histories_that_begin_later_or_never(form, in_order, monkeypatch):
    monkeypatch.setattr(cpu, "CHUNK", 24)
    given, _ = inputs(form, 5, 10, 8)
    first_B = torch.tensor([0, 0, 1, 1, 2, 3, 4, 4, 5, 5])
    mask = torch.arange(5)[:, None] >= (first_B if in_order else first_B.flip(0).roll(3))
    found, found_grads = run(cpu.recurrence, form, given, mask)
    expected, grads = run(reference.recurrence, form, given, mask)
    torch.testing.assert_close(found, expected)
    for one, other in zip(found_grads, grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@every_form
@pytest.mark.parametrize("every_state", [True, False])
def test_histories_of_padding_alone(form, every_state):
    given, mask = inputs(form, 3, 4, 5)
    states, grads = run(recurrence, form, given, torch.zeros_like(mask), every_state=every_state)
    assert states.shape == ((3, 4, 5) if every_state else (4, 5)) and (states == 0).all()
    assert all((grad == 0).all() for grad in grads)


@every_form
def test_padding_anywhere_advances_nothing(form):
    """A history with gaps has the states of the same history without them."""
    given, _ = inputs(form, 6, 4, 5)
    mask = torch.tensor([[0, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]).bool().t()
    states, grads = run(recurrence, form, given, mask)
    for sample in range(4):
        real = mask[:, sample]
        if not real.any():
            assert (states[:, sample] == 0).all()
            continue
        one = {**given, "x_LBE": given["x_LBE"][real][:, sample:sample + 1]}
        if form != "gru":
            one["attention_LB"] = given["attention_LB"][real][:, sample:sample + 1]
        alone = run(recurrence, form, one, None)[0]
        torch.testing.assert_close(states[real][:, sample], alone[:, 0])
        torch.testing.assert_close(states[-1, sample], alone[-1, 0])
    assert (grads[0][~mask] == 0).all()


def test_the_gru_is_torchs():
    given, _ = inputs("gru", 7, 3, 5)
    torchs = torch.nn.GRU(INPUTS, 5)

    def in_their_order(weight):
        z, r, n = weight.detach().split(5)
        return torch.cat([r, z, n])

    with torch.no_grad():
        torchs.weight_ih_l0.copy_(in_their_order(given["input_GE"]))
        torchs.bias_ih_l0.copy_(in_their_order(given["bias_G"]))
        torchs.weight_hh_l0.copy_(in_their_order(given["weight_GH"]))
        torchs.bias_hh_l0.copy_(torch.cat([torch.zeros(10), given["inner_bias_H"]]))
    torch.testing.assert_close(recurrence(*weights_of(given), "gru"), torchs(given["x_LBE"])[0])


@pytest.mark.parametrize("attention", [0.0, 0.3, 1.0])
def test_what_attention_does_to_an_augru(attention):
    """In the paper's form 0 leaves the state; in the reference's 0 is a GRU with the reset inside, 1 replaces it."""
    given, _ = inputs("paper", 1, 5, 3, bias=False)
    a = torch.full((1, 5), attention)
    paper = recurrence(*weights_of(given), "paper", attention_LB=a)
    compat = recurrence(*weights_of(given), "compat", attention_LB=a)
    z, _, n = (given["x_LBE"][0] @ given["input_GE"].T + given["bias_G"]).split(3, dim=1)
    z, n = z.sigmoid(), n.tanh()
    torch.testing.assert_close(paper[0], attention * z * n)
    torch.testing.assert_close(compat[0], (1 - (1 - attention) * z) * n)


@every_form
def test_under_autocast_states_are_float32_close_to_full_precision(form):
    given, mask = inputs(form, 4, 6, 8)
    full, grads = run(recurrence, form, given, mask)
    with torch.autocast("cpu", torch.bfloat16):
        half, half_grads = run(recurrence, form, given, mask)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.1)
    assert [grad.dtype for grad in half_grads] == [grad.dtype for grad in grads]
    assert all((one - other).norm() < 0.1 * other.norm() for one, other in zip(half_grads, grads, strict=True))


@pytest.mark.parametrize("length, samples", [(0, 0), (0, 3), (2, 0), (2, 3)])
@every_form
def test_no_positions_and_no_samples(form, length, samples):
    given, mask = inputs(form, length, samples, 4)
    arguments = dict(attention_LB=given["attention_LB"], mask_LB=mask)
    states = recurrence(*weights_of(given), form, **arguments)
    assert states.shape == (length, samples, 4)
    last = recurrence(*weights_of(given), form, **arguments, every_state=False)
    assert last.shape == (samples, 4) and (length > 0 or (last == 0).all())
