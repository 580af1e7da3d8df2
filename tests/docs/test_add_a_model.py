"""The model of docs/add_a_model.md, as it stands there, trains by its dotted path."""

import json
import re
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "add_a_model.md"


def test_the_model_of_the_page_trains(clickwise, tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    (tmp_path / "my_models.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    result = clickwise("train", "tiny/dlrm", "model={name: my_models.FactorizationMachine, embedding_dim: 4}",
                       "data.synthetic.rows={train: 20000, validation: 2000, test: 5000}", "train.batch_size=500",
                       "train.epochs=2", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["mappings"]["test"]["auc"] > 0.7
