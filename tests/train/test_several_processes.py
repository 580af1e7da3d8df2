"""Several processes train as one does: the same losses, dense parts and tables, for every model."""

import pytest
import several_processes
import torch
import twenty_steps

# Adam magnifies the rounding of tiny gradients; of a bias that softmax takes out again there is nothing else (eps).
TOLERANCE = {"sgd": 1e-6, "rowwise_adagrad": 1e-6, "adam": 1e-5}


@pytest.fixture(scope="module")
def by_one():
    before = torch.get_num_threads()
    found = twenty_steps.all_of_them(TOLERANCE)
    torch.set_num_threads(before)
    return found


@pytest.mark.parametrize("processes, overrides", [
    (2, []),
    pytest.param(3, ["embedding.sharding.copied_rows=0"], marks=pytest.mark.slow),
    pytest.param(3, ["embedding.sharding={by: tables, copied_rows: 20}"], marks=pytest.mark.slow),
])
def test_every_model_takes_the_steps_of_one_process(processes, overrides, by_one, tmp_path):
    several_processes.run(processes, [twenty_steps.__file__, "found.pt", ",".join(TOLERANCE), *overrides], tmp_path)
    found = torch.load(tmp_path / "found.pt")
    assert found.keys() == by_one.keys()
    for (model, optimizer), expected in by_one.items():
        close = {"rtol": 0, "atol": TOLERANCE[optimizer], "msg": lambda text, of=(model, optimizer): f"{of}: {text}"}
        torch.testing.assert_close(found[model, optimizer]["losses"], expected["losses"], **close)
        for name, value in expected["values"].items():
            torch.testing.assert_close(found[model, optimizer]["values"][name], value, **close)
