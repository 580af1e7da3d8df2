"""The planted signal of every tiny recipe is reached, to within 0.005 of the best possible AUC; and by no model that
cannot see it."""

import json

import pytest

from clickwise.data.synthetic import in_memory, synthetic_spec
from clickwise.training_recipe import load_recipe


def trained(clickwise, name, *overrides):
    """(The test AUC, that of the true probabilities.)"""
    result = clickwise("train", name, *overrides, "--json")
    assert result.code == 0, result.err
    config = load_recipe(name, []).data.synthetic
    _, ceiling = in_memory(synthetic_spec(config), config.rows["test"], config.seed, config.signal, alpha=config.alpha,
                           mapping="test")
    return json.loads(result.out)["mappings"]["test"]["auc"], ceiling.figures()["realised_auc"]


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", ["tiny/dlrm", "tiny/dcnv2", "tiny/wide_deep", "tiny/din", slow("tiny/dien"),
                                  slow("tiny/sim")])
def test_reaches_its_planted_signal(clickwise, name):
    found, best = trained(clickwise, name)
    assert best - 0.005 < found < best + 0.005


# DIN sees a history as a set; without what is far back, SIM's is that of its short history alone.
@pytest.mark.parametrize(("name", "overrides"), [
    ("tiny/din", ["model.history_length=1"]),
    ("tiny/dien", ["model={name: din, embedding_dim: 8}"]),
    slow("tiny/sim", ["model={name: dien, embedding_dim: 8, history_length: 10, gru_size: 16, "
                      "auxiliary_loss_weight: 0}"])])
def test_a_model_that_cannot_see_the_signal_does_not_reach_it(clickwise, name, overrides):
    found, best = trained(clickwise, name, *overrides, "train.epochs=1")
    assert found < best - 0.2
