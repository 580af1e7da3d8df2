from triton_device import DEVICE, walled  # isort: skip

import copy
import dataclasses
import subprocess
import sys

import pytest
import torch

from clickwise import embedding
from clickwise.embedding import Table, TableOptimizer, build_embeddings
from clickwise.embedding.fused import FusedEmbeddings
from clickwise.errors import EngineError
from clickwise.kernels import gpu

TABLES = (Table(name="a", rows=300, dim=8, features=("a",)), Table(name="b", rows=5, dim=20, features=("b", "c")))
FEATURES = ("b", "a", "c")


def build(engine="fused", optimizer=None, tables=TABLES, **settings):
    return build_embeddings(engine, tables, FEATURES, optimizer or TableOptimizer(lr=0.5), device=DEVICE, **settings)


def columns(samples=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, rows, (samples,), generator=generator).to(DEVICE) for rows in (5, 300, 5))


def train(embeddings, ids, scale=1.0):
    grad = torch.randn(len(ids[0]), sum(embeddings.dims), generator=torch.Generator().manual_seed(9))
    (embeddings(ids) * walled(scale * grad)).sum().backward()


def test_a_look_up_in_bfloat16_keeps_the_gradients_of_the_rows_in_it():
    fused, reference = build(), build("reference")
    for engine in (fused, reference):
        with torch.autocast(DEVICE.type, torch.bfloat16):
            rows = engine(columns())
        assert rows.dtype == torch.bfloat16
        rows.backward(torch.ones_like(rows))
    torch.testing.assert_close(fused.rows_of("b"), reference.rows_of("b"))


def test_look_ups_behind_columns_of_several_widths_in_one_backward():
    fused, reference = build(), build("reference")
    for engine in (fused, reference):
        total = 0
        for seed, width in enumerate((13, 8, 0)):
            out = engine(columns(seed=seed), before=torch.ones(40, width, device=DEVICE))
            grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed))
            total = total + (out * walled(grad)).sum()
        total.backward()
    for name in ("a", "b"):
        torch.testing.assert_close(fused.rows_of(name), reference.rows_of(name), rtol=1e-4, atol=1e-5)


def test_tables_that_moved_are_found_again():
    embeddings = build()
    before = embeddings(columns())
    for name in ("weight_8", "weight_20"):
        setattr(embeddings, name, getattr(embeddings, name).clone())
    embeddings.set_rows("a", embeddings.rows_of("a").add_(1.0))
    assert not torch.equal(embeddings(columns()), before)
    clone = copy.deepcopy(embeddings)
    clone.set_rows("a", 0 * clone.rows_of("a"))
    assert embeddings(columns()).detach()[:, 20:28].any() and not clone(columns()).detach()[:, 20:28].any()


@pytest.mark.parametrize("optimizer", [TableOptimizer(lr=0.5), TableOptimizer(name="adam", lr=0.01),
                                       TableOptimizer(name="adam", lr=0.01, eps_hat=True, lazy=False),
                                       TableOptimizer(name="rmsprop", lr=0.01)],
                         ids=lambda optimizer: optimizer.name + "+all rows" * (not optimizer.lazy))
def test_time_kept_on_the_device_changes_nothing(optimizer):
    here, there = build(optimizer=optimizer), build(optimizer=optimizer)
    for seed, factor in enumerate((1.0, 0.5, 0.25)):
        for engine in (here, there):
            engine.lr_factor = factor
            train(engine, columns(seed=seed))
        there.keep_time_on_device()
    assert there.step == here.step == 3 and there.optimizer_state_dict()["step"] == 3
    torch.testing.assert_close(there.rows_of("b"), here.rows_of("b"), rtol=1e-5, atol=1e-6)
    there.load_optimizer_state_dict({**copy.deepcopy(here.optimizer_state_dict()), "step": 9})
    clone = copy.deepcopy(there)
    train(there, columns())
    assert (there.step, clone.step) == (10, 9)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type != "cuda", reason="no GPU")
def test_steps_captured_in_a_graph_are_steps():
    adam = TableOptimizer(name="adam", lr=0.01)
    eager, captured = build(optimizer=adam), build(optimizer=adam)
    captured.keep_time_on_device()
    ids, grad = columns(), torch.randn(40, 48, device=DEVICE)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # the tables of slots and the kernels are made in a first step
        captured(ids).backward(grad)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured(ids).backward(grad)
    eager(ids).backward(grad)
    for seed, factor in enumerate((1.0, 0.3)):
        for column, fresh in zip(ids, columns(seed=seed), strict=True):
            column.copy_(fresh)
        captured.lr_factor = eager.lr_factor = factor
        graph.replay()
        eager(ids).backward(grad)
    assert captured.step == eager.step == 3
    torch.testing.assert_close(captured.rows_of("a"), eager.rows_of("a"), rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type != "cuda", reason="no GPU")
def test_steps_in_fp16_wait_for_nothing():
    from clickwise.batch import Batch
    from clickwise.optim.dense import DenseOptimizer
    from clickwise.train.step import OptimizerGroup, TrainStep

    class Toy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embeddings, self.linear = build(), torch.nn.Linear(48, 1, device=DEVICE)
            self.factor = 1.0

        def losses(self, batch):
            return {"loss": self.linear(self.embeddings(batch.categorical)).float().square().mean() * self.factor}

    model = Toy()
    optimizer = DenseOptimizer(name="adam", lr=0.01).build(model.linear.parameters())
    step = TrainStep(model, {"": OptimizerGroup(optimizer, [model.embeddings])}, precision="fp16", device=DEVICE)
    batch = Batch(categorical=columns())
    step(batch)  # kernels are compiled, tables of slots and moments made
    torch.cuda.set_sync_debug_mode("error")
    try:
        for factor in (1.0, 1e38, 1.0):
            model.factor = factor
            step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert step.skipped == 1 and model.embeddings.step == 3


def test_where_it_cannot_run_it_says_so(monkeypatch):
    with pytest.raises(EngineError, match=r"(?s)'a'.*dim 1025.*1024"):
        build(tables=(dataclasses.replace(TABLES[0], dim=1025), TABLES[1]))
    monkeypatch.setattr(gpu, "is_interpreted", lambda: False)
    with pytest.raises(EngineError, match=r"(?s)device cpu.*a GPU.*engine=auto"):
        FusedEmbeddings(TABLES, FEATURES, TableOptimizer(), device="cpu")
    monkeypatch.setattr(gpu, "triton_is_there", lambda: False)
    with pytest.raises(EngineError, match="no Triton"):
        build()


def test_auto_takes_it_on_a_gpu_and_says_why_not(monkeypatch, caplog):
    fastest, cuda = embedding._fastest, torch.device("cuda")
    assert fastest(TABLES, torch.device("cpu")) == fastest((), cuda) == "reference" and not caplog.records
    monkeypatch.setattr(torch, "empty", lambda *shape, device: None)
    monkeypatch.setattr(gpu, "kernels_for", lambda x, name: True)
    assert fastest(TABLES, cuda) == "fused" and not caplog.records
    monkeypatch.setattr(gpu, "kernels_for", lambda x, name: name != "sparse_update")
    assert fastest(TABLES, cuda) == "reference" and "do not work here" in caplog.text
    assert fastest([Table(name="w", rows=1, dim=2000, features=("w",))], cuda) == "reference"
    assert "wider than 1024" in caplog.text
    monkeypatch.setattr(gpu, "triton_is_there", lambda: False)
    assert fastest(TABLES, cuda) == "reference" and "Triton is not installed" in caplog.text


def test_kernels_that_fail_their_self_test_are_not_taken(monkeypatch, caplog):
    def broken(name):
        raise RuntimeError("no such instruction\nat line 3")

    monkeypatch.setattr(gpu.importlib, "import_module", broken)
    assert gpu._tested.__wrapped__("cross", torch.device("cuda:0")) is None
    assert "kernels of cross do not work here (RuntimeError: no such instruction)" in caplog.text
    assert gpu.kernels_for(torch.zeros(1), "cross") is None


def test_without_a_gpu_nothing_loads_triton():
    code = """
import sys, torch, clickwise, clickwise.wiring
from clickwise.embedding import Table, TableOptimizer, build_embeddings
from clickwise.kernels.dot_interaction import dot_interaction
from clickwise.layers.cross import CrossNetwork
rows = build_embeddings("auto", [Table(name="a", rows=3, dim=4, features=("a",))], ("a",), TableOptimizer())(
    (torch.tensor([1, 2]),))
CrossNetwork(8, layers=1, rank=2)(dot_interaction(rows, rows[:, None].clone())).sum().backward()
print("triton" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["False"], result.stderr
