"""Where kernels run they are taken by all that has some; where they are broken plain torch is, and the log says so."""

from triton_device import DEVICE  # isort: skip

import pytest
import torch

from clickwise.embedding import Table, TableOptimizer, build_embeddings
from clickwise.kernels import gpu
from clickwise.kernels.cross import cross
from clickwise.kernels.dot_interaction import dot_interaction
from clickwise.kernels.embedding_bag import FeatureLookup, embedding_bag
from clickwise.kernels.mlp import mlp
from clickwise.kernels.sparse_update import sparse_update

CALLS = {
    "cross": lambda: cross(torch.randn(4, 6, device=DEVICE), [(None, torch.randn(6, 6, device=DEVICE),
                                                               torch.randn(6, device=DEVICE))]),
    "dot_interaction": lambda: dot_interaction(torch.randn(4, 8, device=DEVICE), torch.randn(4, 3, 8, device=DEVICE)),
    "embedding_bag": lambda: embedding_bag([torch.randn(5, 8, device=DEVICE)], [FeatureLookup(0)],
                                           [torch.tensor([1, 4], device=DEVICE)]),
    "mlp": lambda: mlp(torch.randn(4, 6, device=DEVICE), [torch.randn(3, 6, device=DEVICE)],
                       [torch.randn(3, device=DEVICE)]),
    "sparse_update": lambda: sparse_update(torch.randn(5, 8, device=DEVICE), {}, torch.tensor([1, 4], device=DEVICE),
                                           torch.randn(2, 8, device=DEVICE), TableOptimizer(), lr=0.1, step=1),
}


@pytest.fixture
def runs_here(monkeypatch):
    monkeypatch.setattr(gpu, "runs_on", lambda device: True)
    gpu._tested.cache_clear()
    yield
    gpu._tested.cache_clear()


def asked_for(monkeypatch) -> list[str]:
    """The operations whose kernels are asked for and given."""
    kernels_for, given = gpu.kernels_for, []

    def watched(x, operation):
        module = kernels_for(x, operation)
        given.append(operation if module is not None else f"no {operation}")
        return module

    monkeypatch.setattr(gpu, "kernels_for", watched)
    return given


@pytest.mark.parametrize("operation", CALLS)
def test_kernels_are_taken_where_they_run(operation, runs_here, monkeypatch):
    given = asked_for(monkeypatch)
    CALLS[operation]()
    assert given == [operation]


def test_a_broken_kernel_is_replaced_by_plain_torch_and_said(runs_here, monkeypatch, caplog):
    from clickwise.kernels.cross import triton

    def broken(device):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(triton, "self_test", broken)
    given = asked_for(monkeypatch)
    assert CALLS["cross"]().shape == (4, 6) and CALLS["cross"]().shape == (4, 6)
    assert given == ["no cross"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        f"{DEVICE}: the Triton kernels of cross do not work here (RuntimeError: no such instruction); "
        "plain torch takes their place"]


def test_the_fastest_engine_is_that_of_the_kernels(runs_here):
    table = Table(name="a", rows=5, dim=8, features=("a",))
    assert type(build_embeddings("auto", [table], ("a",), TableOptimizer(), device=DEVICE)).__name__ == \
        "FusedEmbeddings"
