"""The metric of docs/add_a_metric.md, as it stands there, is measured by its dotted path and chooses the checkpoint."""

import json
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "add_a_metric.md"


def test_the_metric_of_the_page_is_measured(clickwise, tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "my_metrics.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    name = "my_package.my_metrics.SurePrecision"
    result = clickwise("train", "tiny/dlrm", f"metrics=[auc, {name}]", f"train.metric={name}", "train.batch_size=500",
                       "data.synthetic.rows={train: 20000, validation: 2000, test: 5000}", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    values = found["mappings"]["test"]
    assert 0.5 < values[name] == values["sure_precision"] < 1
    assert found["ideal"] == {"auc": 1.0, name: 1.0}

    refused = clickwise("evaluate", found["run"])
    assert refused.code == 2 and f"--allow-import {name}" in refused.err
    measured = clickwise("evaluate", found["run"], "--allow-import", name, "--json")
    assert json.loads(measured.out)["metrics"][name] == values[name], measured.err
