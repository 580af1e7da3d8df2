"""The engine of docs/add_an_engine.md, as it stands there, joins the contract by the page's line and trains a model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACT = ROOT / "tests" / "contracts" / "test_embedding_contract.py"
NAME = "my_engines.OneParameterPerTable"
PARTS = ("rows_are_pooled", "one_dim_views", "no_feature_and_no_sample", "laid_beside_them", "gradient_behind_it",
         "takes_one_step_on_the_touched_rows", "optimizer_of_torch", "type_of_the_ids", "one_step_however_often",
         "read_before_the_end", "padding_of_a_history", "same_seed_same_bits", "first_values_depend")
OTHERS = ("ada", "rms", "ftrl", "decay", "l2")  # optimizers


@pytest.fixture
def code(tmp_path):
    engine, line = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "add_an_engine.md").read_text(), re.DOTALL)
    (tmp_path / "my_engines.py").write_text(engine)
    return line


@pytest.mark.slow
def test_the_engine_of_the_page_joins_the_contract_by_one_line(code, tmp_path):
    contract, line = CONTRACT.read_text(), 'ENGINES = ["reference"]\n'
    assert contract.count(line) == 1 and NAME in code
    (tmp_path / "test_contract.py").write_text(contract.replace(line, code))
    chosen = f"my_engines and ({' or '.join(PARTS)}) and not ({' or '.join(OTHERS)})"
    path = os.pathsep.join(map(str, (tmp_path, ROOT / "tests", ROOT / "src")))
    result = subprocess.run([sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "-p", "no:cacheprovider",
                             "-k", chosen, "test_contract.py"], cwd=tmp_path, capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": path})
    passed = re.search(r"(\d+) passed", result.stdout)
    assert result.returncode == 0 and int(passed[1]) >= len(PARTS), result.stdout


def test_a_model_trains_with_it(code, clickwise, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_engines", raising=False)
    settings = ["embedding.optimizer={name: sgd, lr: 10}", "train.batch_size=500", "train.epochs=2",
                "data.synthetic.rows={train: 20000, validation: 2000, test: 5000}"]
    auc = []
    for engine in (NAME, "reference"):
        result = clickwise("train", "tiny/dlrm", f"embedding.engine={engine}", *settings, "--json")
        assert result.code == 0, result.err
        auc.append(json.loads(result.out)["mappings"]["test"]["auc"])
    assert auc[0] == pytest.approx(auc[1], abs=1e-3) and auc[0] > 0.7
