"""The recipes for many GPUs train as published: as those for one GPU, on larger tables."""

from __future__ import annotations

import pytest

from clickwise.recipe import load


@pytest.mark.parametrize("model", ["dlrm", "dcnv2"])
def test_large_tables_change_the_data_alone(model):
    large, one_gpu = load(f"criteo/{model}_large"), load(f"criteo/{model}")
    assert large["data"].pop("path") == load("criteo/prepare_large")["out"] != one_gpu["data"].pop("path")
    assert large == one_gpu


def test_their_data_differs_by_its_frequency_limit():
    large, small = load("criteo/prepare_large"), load("criteo/prepare")
    assert (large["dataset"].pop("frequency_limit"), small["dataset"].pop("frequency_limit")) == (3, 15)
    assert large["dataset"] == small["dataset"]
