"""The contract of embedding engines, held by the engine `sharded` in several processes that run it side by side."""

from pathlib import Path

import pytest
import several_processes

CONTRACT = Path(__file__).parents[1] / "contracts" / "test_embedding_contract.py"


@pytest.mark.parametrize("processes, tables_lie, more", [
    (2, "rows", {"A_FEW": "1", "PYTEST_ADDOPTS": "-k 'frozen or state or gradient or minibatch or behind or block'"}),
    *(pytest.param(processes, tables_lie, {}, marks=pytest.mark.slow) for processes, tables_lie in
      [(1, "rows"), (2, "rows"), (2, "copies"), (3, "tables")]),
])
def test_contract_holds_in_several_processes(processes, tables_lie, more, tmp_path):
    several_processes.run(processes, ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist",
                                      CONTRACT], tmp_path, TABLES_LIE=tables_lie, **more)
