"""The planted signal of every tiny recipe is reached, to within 0.005 of the best possible AUC."""

import json

import pytest

from clickwise.build import load_recipe
from clickwise.data.synthetic import in_memory, synthetic_spec


@pytest.mark.parametrize("name", ["tiny/dlrm", "tiny/dcnv2", "tiny/wide_deep"])
def test_reaches_its_planted_signal(clickwise, name):
    result = clickwise("train", name, "--json")
    assert result.code == 0, result.err
    config = load_recipe(name, []).data.synthetic
    _, ceiling = in_memory(synthetic_spec(config), config.rows["test"], config.seed, config.signal, alpha=config.alpha,
                           mapping="test")
    best = ceiling.figures()["realised_auc"]
    assert best - 0.005 < json.loads(result.out)["mappings"]["test"]["auc"] < best + 0.005
