"""Several processes train as one does: the same losses, dense parts and tables, for every model."""

import functools

import pytest
import several_processes
import torch
import twenty_steps

# Adam magnifies the rounding of tiny gradients; of a bias that softmax takes out again there is nothing else (eps).
TOLERANCE = {"sgd": 1e-6, "rowwise_adagrad": 1e-6, "adam": 1e-5}


@functools.cache
def by_one(model, optimizer):
    before = torch.get_num_threads()
    try:
        return twenty_steps.twenty_steps(model, optimizer)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("processes, optimizers, overrides", [
    (2, ["rowwise_adagrad"], []),
    pytest.param(2, ["sgd", "adam"], [], marks=pytest.mark.slow),
    pytest.param(2, ["sgd"], ["embedding.sharding.wire=bfloat16"], marks=pytest.mark.slow),
    pytest.param(3, TOLERANCE, ["embedding.sharding.copied_rows=0"], marks=pytest.mark.slow),
    pytest.param(3, TOLERANCE, ["embedding.sharding={by: tables, copied_rows: 20}"], marks=pytest.mark.slow),
])
def test_every_model_takes_the_steps_of_one_process(processes, optimizers, overrides, tmp_path):
    several_processes.run(processes, [twenty_steps.__file__, "found.pt", ",".join(optimizers), *overrides], tmp_path)
    found = torch.load(tmp_path / "found.pt")
    assert {*found} == {(model, optimizer) for model in twenty_steps.MODELS for optimizer in optimizers}
    for model, optimizer in found:
        expected = by_one(model, optimizer)
        assert expected["requests"] == 0
        if model not in ("din", "dien", "sim"):  # their rows are asked for a step ahead, and not again
            assert found[model, optimizer]["requests"] == twenty_steps.STEPS
        atol = 1e-2 if "embedding.sharding.wire=bfloat16" in overrides else TOLERANCE[optimizer]
        close = {"rtol": 0, "atol": atol, "msg": lambda text, of=(model, optimizer): f"{of}: {text}"}
        torch.testing.assert_close(found[model, optimizer]["losses"], expected["losses"], **close)
        for name, value in expected["values"].items():
            torch.testing.assert_close(found[model, optimizer]["values"][name], value, **close)


MEASURED = """
import sys, torch
from clickwise import processes
from clickwise.batch import Batch, Part
from clickwise.metrics import MetricSet, build_metrics
from clickwise.train.evaluate import evaluate

class Given(torch.nn.Module):
    def forward(self, batch):
        return batch.numerical[:, 0]

def batches(rank, of):
    draw = torch.Generator().manual_seed(1)
    for samples in (500, 317, 2):  # in the last a third process has none, and computes with another's row
        logit_B1, label_B = torch.randn(samples, 1, generator=draw), torch.rand(samples, generator=draw) < 0.3
        display_B = torch.randint(0, 60, (samples,), generator=draw)  # of all batches, in any order
        first, end = samples * rank // of, samples * (rank + 1) // of
        mine = slice(first, end) if end > first else slice(0, 1)
        yield Batch(numerical=logit_B1[mine], label=label_B[mine], display=display_B[mine],
                    part=Part(end - first, samples))

names = ["auc", "exact_auc", "log_loss", "gauc", "map_at_12", "mrr", "ndcg_at_5", "calibration"]
def measure(rank, of):
    return evaluate(Given(), batches(rank, of), MetricSet(build_metrics(names)), precision="fp32",
                    device=torch.device("cpu"))

whole = measure(0, 1)
with processes.together(timeout_s=600):
    found = measure(processes.rank(), processes.count())
    assert found.keys() == whole.keys()
    assert all(abs(found[name] - whole[name]) < 1e-12 for name in whole), (found, whole)
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_metrics_over_several_processes_are_those_of_one(processes, tmp_path):
    several_processes.run(processes, ["-c", MEASURED], tmp_path)
