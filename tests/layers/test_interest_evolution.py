import pytest
import torch

from clickwise.layers.gru import AUGRU, GRU
from clickwise.layers.interest_evolution import InterestEvolution, NextItemLoss


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomised(module, seed=0):
    torch.manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def test_the_gru_is_keras_with_both_biases():
    gru, x = randomised(GRU(3, 4)), normal(5, 2, 3)
    z_r_n = [part.split(4) for part in (gru.input_GE, gru.recurrent_GH, gru.input_bias_G, gru.recurrent_bias_G)]
    h = torch.zeros(2, 4)
    for t in range(5):
        (xz, xr, xn), (hz, hr, hn) = ([v @ w.T + b for w, b in zip(weights, biases, strict=True)]
                                      for v, weights, biases in ((x[t], z_r_n[0], z_r_n[2]), (h, z_r_n[1], z_r_n[3])))
        z, r = torch.sigmoid(xz + hz), torch.sigmoid(xr + hr)
        h = z * h + (1 - z) * torch.tanh(xn + r * hn)
    torch.testing.assert_close(gru(x)[-1], h)


def test_first_values_of_the_recurrences():
    torch.manual_seed(0)
    gru = GRU(8, 16)
    torch.testing.assert_close(gru.recurrent_GH.T @ gru.recurrent_GH, torch.eye(16), atol=1e-5, rtol=0)
    for form, gates in (("paper", 0.0), ("compat", 1.0)):
        augru = AUGRU(8, 16, form)
        assert (augru.bias_G[:32] == gates).all() and (augru.bias_G[32:] == 0).all()
        assert augru.recurrent_GH[32:].abs().max() <= (6 / 40) ** 0.5


@pytest.mark.parametrize("augru", ["paper", "compat"])
@pytest.mark.parametrize("attention", ["unit", "bilinear"])
def test_padding_changes_nothing(augru, attention):
    evolution = randomised(InterestEvolution(3, 3, 4, augru=augru, attention=attention))
    target, items = normal(3, 3), normal(3, 4, 3, seed=1)
    mask = torch.ones(3, 4).bool()
    evolved, interest = evolution(target, items, mask)
    spaced = torch.zeros(3, 9, 3)
    places = torch.tensor([2, 3, 6, 8])
    spaced[:, places] = items
    spaced_mask = torch.zeros(3, 9).bool()
    spaced_mask[:, places] = True
    found, found_interest = evolution(target, spaced, spaced_mask)
    torch.testing.assert_close(found, evolved)
    torch.testing.assert_close(found_interest[places], interest)


@pytest.mark.parametrize("length", [0, 3])
def test_an_empty_history_has_no_interest(length):
    evolution = randomised(InterestEvolution(3, 3, 4, augru="paper"))
    evolved, interest = evolution(normal(2, 3), torch.zeros(2, length, 3), torch.zeros(2, length).bool())
    assert (evolved == 0).all() and (interest == 0).all() and interest.shape == (length, 2, 4)


def test_unmasked_as_the_reference_padding_goes_through():
    evolution = randomised(InterestEvolution(3, 3, 4, augru="compat", mask_padding=False))
    evolved, _ = evolution(normal(2, 3), torch.zeros(2, 3, 3), torch.zeros(2, 3).bool())
    assert (evolved != 0).all() and evolved.isfinite().all()


MASK = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 1], [1, 0, 1, 1]]).bool()


def test_the_auxiliary_loss_is_over_steps_from_real_to_real():
    loss = randomised(NextItemLoss(4, 3, (5,)))
    interest, items, negatives = normal(4, 3, 4), normal(3, 4, 3, seed=1), normal(3, 4, 3, seed=2)
    terms = []
    for b in range(3):
        for t in range(3):
            if MASK[b, t] and MASK[b, t + 1]:
                came, did_not = (loss.scorer(torch.cat([interest[t, b], e[b, t + 1]])) for e in (items, negatives))
                terms.append(-torch.log(came.sigmoid()) - torch.log(1 - did_not.sigmoid()))
    assert len(terms) == 3
    torch.testing.assert_close(loss(interest, items, negatives, MASK), torch.stack(terms).mean())


@pytest.mark.parametrize("over", ["real", "compat"])
def test_the_auxiliary_loss_stays_finite_with_any_confidence(over):
    loss = randomised(NextItemLoss(4, 3, (5,), over=over))
    for scale in (1.0, 1e4):
        with torch.no_grad():
            loss.scorer.layers[-1].weight.mul_(scale)
        interest = normal(4, 3, 4).requires_grad_()
        value = loss(interest, normal(3, 4, 3, seed=1), normal(3, 4, 3, seed=2), MASK)
        value.backward()
        assert value.isfinite() and value > 0 and interest.grad.isfinite().all()


@pytest.mark.parametrize("length", [0, 1, 4])
def test_without_two_items_in_a_row_there_is_nothing_to_predict(length):
    loss = NextItemLoss(4, 3, (5,))
    items, mask = torch.zeros(2, length, 3), torch.zeros(2, length).bool()
    mask[:, -1:] = True
    assert loss(normal(length, 2, 4), items, items, mask).item() == 0
