import copy

import pytest
import torch

from clickwise.errors import RecipeError
from clickwise.optim.dense import DenseOptimizer
from clickwise.recipe import parse

GRADS = (3.0, -1.0, 0.5, 0.0, 2.0)
HAT = DenseOptimizer(name="adam", lr=0.3, beta1=0.8, beta2=0.9, eps=0.5, eps_hat=True)


def take(optimizer, parameter, grads):
    for g in grads:
        parameter.grad = torch.full_like(parameter, g)
        optimizer.step()


def trained(settings, grads):
    parameter = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = settings.build([parameter])
    take(optimizer, parameter, grads)
    return parameter, optimizer


def test_eps_hat_is_added_before_the_bias_is_corrected():
    w, m, v = 2.0, 0.0, 0.0
    for t, g in enumerate(GRADS, start=1):
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        w -= 0.3 * (1 - 0.9**t) ** 0.5 / (1 - 0.8**t) * m / (v**0.5 + 0.5)
        torch.testing.assert_close(trained(HAT, GRADS[:t])[0].detach(), torch.tensor([w]))


def test_adam_without_it_is_that_of_the_paper():
    settings = DenseOptimizer(name="adam", lr=0.3, beta1=0.8, beta2=0.9, eps=0.5)
    w, m, v = 2.0, 0.0, 0.0
    for t, g in enumerate(GRADS, start=1):
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        w -= 0.3 * m / (1 - 0.8**t) / ((v / (1 - 0.9**t)) ** 0.5 + 0.5)
    torch.testing.assert_close(trained(settings, GRADS)[0].detach(), torch.tensor([w]))


@pytest.mark.parametrize("settings", [HAT, DenseOptimizer(name="adagrad"), DenseOptimizer(momentum=0.9),
                                      DenseOptimizer(name="rmsprop", rho=0.5, momentum=0.9),
                                      DenseOptimizer(name="ftrl", l1=0.1)],
                         ids=lambda settings: settings.name)
def test_state_goes_on_where_it_stopped(settings):
    first, optimizer = trained(settings, GRADS[:2])
    state = copy.deepcopy(optimizer.state_dict())
    second = torch.nn.Parameter(first.detach().clone())
    resumed = settings.build([second])
    resumed.load_state_dict(state)
    take(resumed, second, GRADS[2:])
    assert torch.equal(second, trained(settings, GRADS)[0])


@pytest.mark.parametrize("name", ["sgd", "adagrad", "adam", "rmsprop", "ftrl"])
def test_a_setting_of_another_optimizer_is_refused(name):
    for key, users in (("eps_hat", ("adam",)), ("momentum", ("sgd", "rmsprop")), ("rho", ("rmsprop",)),
                       ("initial_accumulator", ("adagrad", "ftrl")), ("l1", ("ftrl",)),
                       ("weight_decay", ("sgd", "adagrad", "adam", "rmsprop"))):
        wrong = {"name": name, key: True if key == "eps_hat" else 0.5}
        if name in users:
            parse(DenseOptimizer, wrong, "recipe.optimizer")
        else:
            with pytest.raises(RecipeError, match=rf"(?s)optimizer\.{key}.*{name} does not use it"):
                parse(DenseOptimizer, wrong, "recipe.optimizer")
