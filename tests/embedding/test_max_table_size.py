"""Tables with fewer rows than there are ids, from the recipe to predictions."""

import json

import pytest
import torch

from clickwise import checkpoint

CARDINALITIES = (40, 25, 60, 100, 8, 12, 30, 200, 16, 500)
SMALL = ["data.synthetic.rows={train: 4000, validation: 1000, test: 1000}", "train.epochs=2", "train.batch_size=500"]
CLIPPED = [*SMALL, "embedding.hash_indices=true", "embedding.max_table_size=30"]


def trained(clickwise, *words):
    result = clickwise("train", "tiny/dlrm", *words, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)["run"]


def test_tables_are_clipped_and_the_run_carries_it(clickwise, tmp_path):
    run = trained(clickwise, *CLIPPED)
    model = checkpoint.load(tmp_path / run / "checkpoint" / "last.pt")["model"]
    rows = [len(value) for name, value in model.items() if name.startswith("embeddings.")]
    assert rows == [min(cardinality, 30) for cardinality in CARDINALITIES]
    metrics = json.loads((tmp_path / run / "metrics.json").read_text())
    assert metrics["parameters"]["tables"] == sum(rows) * 8
    assert json.loads(clickwise("evaluate", run, "--json").out)["metrics"] == metrics["mappings"]["test"]
    assert clickwise("predict", run, "--input", "test", "--out", "p.csv").code == 0

    (tmp_path / run / "DONE").unlink()
    (tmp_path / run / "checkpoint" / "last.pt").unlink()
    assert clickwise("train", "--resume", run).code == 0
    again = checkpoint.load(tmp_path / run / "checkpoint" / "last.pt")["model"]
    assert all(torch.equal(value, model[name]) for name, value in again.items())


def test_a_limit_that_no_table_reaches_changes_no_bit(clickwise, tmp_path):
    models = [checkpoint.load(tmp_path / trained(clickwise, *SMALL, *words) / "checkpoint" / "last.pt")["model"]
              for words in ([], ["embedding.hash_indices=true", "embedding.max_table_size=500"])]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


@pytest.mark.parametrize(("setting", "message"), [
    ("embedding.max_table_size=30", "embedding.hash_indices=true"),
    ("embedding={hash_indices: true, max_table_size: 0}", "a number above 0"),
])
def test_a_limit_that_cannot_be(clickwise, setting, message):
    result = clickwise("train", "tiny/dlrm", *SMALL, setting)
    assert result.code == 2 and "embedding.max_table_size" in result.err and message in result.err
