import pytest
import torch

from clickwise.layers.activation import Dice, PReLU, activation
from clickwise.layers.scorer import Linear, Scorer


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_prelu_has_a_slope_for_each_unit():
    prelu, x = PReLU(3), normal(2, 5, 3)
    with torch.no_grad():
        prelu.slope_H.copy_(torch.tensor([0.1, 0.5, -2]))
    torch.testing.assert_close(prelu(x), torch.where(x > 0, x, prelu.slope_H * x))


def test_dice_is_the_formula_by_the_batch_in_training_and_by_averages_after():
    dice, x = Dice(3), 2 * normal(400, 3) + 1
    with torch.no_grad():
        dice.slope_H.copy_(torch.tensor([0.1, 0.5, -2]))

    def formula(mean, variance):
        p = torch.sigmoid((x - mean) / (variance + 1e-8).sqrt())
        return p * x + (1 - p) * dice.slope_H * x

    torch.testing.assert_close(dice(x), formula(x.mean(0), x.var(0, unbiased=False)))
    for _ in range(1500):
        dice(x)
    torch.testing.assert_close(dice.eval()(x), formula(x.mean(0), x.var(0)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rows", [0, 1])
def test_dice_trains_on_a_row_and_on_none(rows):
    dice, x = Dice(2), normal(rows, 2).requires_grad_()
    out = dice(x)
    out.sum().backward()
    assert out.isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize("real", [0, 1, 2, 9, 30])
@pytest.mark.parametrize("training", [True, False])
def test_dice_knows_nothing_of_padding(training, real):
    """What it gives for rows of a mask, forward and backward, is what it gives for them alone."""
    mask = torch.zeros(30).bool()
    mask[torch.randperm(30, generator=torch.Generator().manual_seed(0))[:real]] = True
    weight, averages = normal(30, 3, seed=1), []
    x = (3 * normal(30, 3) + 10).masked_fill_(~mask[:, None], torch.nan)
    for of_mask in (False, True):
        dice = Dice(3).train(training)
        torch.nn.init.normal_(dice.slope_H, generator=torch.Generator().manual_seed(0))
        given = (x if of_mask else x[mask]).clone().requires_grad_()
        for _ in range(3):
            out = dice(given.view(5, 6, 3), mask.view(5, 6)).view(30, 3)[mask] if of_mask else dice(given)
        (out * weight[mask]).sum().backward()
        grad = given.grad[mask] if of_mask else given.grad
        assert (given.grad[~mask] == 0).all() if of_mask else True
        averages.append((out, grad, dice.slope_H.grad, dice.mean_H, dice.variance_H))
    for found, expected in zip(averages[1], averages[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert bool((dice.mean_H != 0).any()) == (training and real > 1)


@pytest.mark.parametrize("name, negative", [("relu", 0.0), ("prelu", -0.1), ("sigmoid", 0.2689414)])
def test_activations_by_name(name, negative):
    assert activation(name, 1)(torch.tensor([[-1.0]])).item() == pytest.approx(negative)


@pytest.mark.parametrize("act", ["sigmoid", "prelu", "relu", "dice"])
@pytest.mark.parametrize("sizes", [(), (6,), (6, 4)])
@pytest.mark.parametrize("with_product", [False, True])
def test_the_scores_of_pairs_are_those_of_their_concatenations(act, sizes, with_product):
    scorer, one, other = Scorer(9 if with_product else 6, sizes, act), normal(4, 3), normal(5, 4, 3, seed=1)
    one_54 = one.expand(5, 4, 3)
    joined = torch.cat([one_54, other, one_54 * other] if with_product else [one_54, other], -1)
    expected = joined
    for index, layer in enumerate(scorer.layers):
        expected = expected @ layer.weight.T + layer.bias
        expected = scorer.eval().activations[index](expected) if index < len(sizes) else expected
    torch.testing.assert_close(scorer(joined), expected.squeeze(-1))
    torch.testing.assert_close(scorer.of_pairs(one, other, with_product=with_product), expected.squeeze(-1))
    weight = scorer.layers[0].weight * 2
    with torch.no_grad():
        scorer.layers[0].weight.mul_(2)
    given = scorer.of_pairs(one, other, with_product=with_product)
    with torch.no_grad():
        scorer.layers[0].weight.zero_()
    torch.testing.assert_close(scorer.of_pairs(one, other, weight, with_product=with_product), given)


def test_first_values_are_those_of_keras():
    layer = Linear(300, 100)
    bound = (6 / 400) ** 0.5
    assert (layer.bias == 0).all() and layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
