"""Which device a recipe's `train.device` means, on machines with GPUs and without."""

import pytest
import torch

from clickwise.errors import EngineError, RecipeError
from clickwise.wiring import find_device


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(("name", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_gpu_has_its_index(name, index, two_gpus):
    """torch.cuda.set_device refuses a device without one."""
    device = find_device(name)
    assert device == torch.device("cuda", index) and torch.cuda._utils._get_device_index(device) == index


def test_without_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == find_device("cpu") == torch.device("cpu")
    with pytest.raises(EngineError, match="sees 0 GPUs"):
        find_device("cuda")


def test_refusals(two_gpus):
    with pytest.raises(EngineError, match="sees 2 GPUs"):
        find_device("cuda:2")
    for name in ("gpu", "meta", "cuda:x"):
        with pytest.raises(RecipeError, match="auto, cpu, cuda or cuda:N"):
            find_device(name)
