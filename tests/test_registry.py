"""Names and dotted paths; and that a run folder imports nothing that its user did not allow."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from clickwise import registry
from clickwise.errors import RecipeError
from clickwise.optim.dense import DenseOptimizer

SMALL = ["data.synthetic.rows={train: 300, validation: 100, test: 100}", "train.batch_size=100", "model.top_mlp=[4]"]
TRACE = "import pathlib\npathlib.Path('imported').touch()\nfrom clickwise.models.dlrm import DLRM as Model\n" \
        "from clickwise.metrics import AUC as Metric\nfrom torch.optim import SGD as Optimizer\n" \
        "from clickwise.embedding.reference import ReferenceEmbeddings as Engine\n"


@pytest.mark.parametrize("kind", registry.NAMES)
def test_every_short_name_stands_for_something(kind):
    for name in registry.NAMES[kind]:
        assert registry.resolve(kind, name, "here") is not None


@pytest.mark.parametrize("kind", registry.NAMES)
@pytest.mark.parametrize(("name", "words"), [
    ("nothing", "A dotted path to one of your own works too"), (None, "one of"), (3, "one of"), ("a b.c", "one of"),
    ("no_such_package.Thing", "No module named 'no_such_package'"), ("json.nothing", "No module named 'json.nothing'"),
])
def test_what_is_wrong_with_a_name_is_said(kind, name, words):
    with pytest.raises(RecipeError, match="here") as caught:
        registry.resolve(kind, name, "here")
    assert words in str(caught.value)


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'dcnv2'"):
        registry.resolve("model", "dcnv3", "here")


def test_an_optimizer_of_ones_own_gets_its_rate_alone():
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = DenseOptimizer(name="torch.optim.NAdam", lr=0.5).build([weight])
    assert type(optimizer) is torch.optim.NAdam and optimizer.param_groups[0]["lr"] == 0.5
    with pytest.raises(ValueError, match="weight_decay"):
        DenseOptimizer(name="torch.optim.NAdam", weight_decay=0.1)
    with pytest.raises(ValueError, match="name"):
        DenseOptimizer(name="adamm")


@pytest.fixture
def run(clickwise, tmp_path):
    """The folder of a finished run."""
    result = clickwise("train", "tiny/dlrm", *SMALL, "--json")
    assert result.code == 0, result.err
    return Path(json.loads(result.out)["run"])


def with_code(folder, change) -> None:
    """Writes code that leaves a trace where it is imported, and names of it into the recipe of a run."""
    Path("foreign.py").write_text(TRACE)
    sys.modules.pop("foreign", None)
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    change(recipe)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "manifest.json").unlink(missing_ok=True)  # a stranger leaves none, or one of his own


CHANGES = {
    "model": lambda recipe: recipe["model"].update(name="foreign.Model"),
    "metric": lambda recipe: recipe.update(metrics=[*recipe["metrics"], "foreign:Metric"]),
    "optimizer": lambda recipe: recipe.update(optimizer={"name": "foreign.Optimizer", "lr": 0.1}),
    "engine": lambda recipe: recipe["embedding"].update(engine="foreign.Engine"),
    "optimizer of a part": lambda recipe: recipe.update(parts={"x": {"optimizer": {"name": "foreign.Optimizer"}}}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("words", [("evaluate", "RUN"), ("predict", "RUN"), ("train", "--resume", "RUN"),
                                   ("train", "tiny/dlrm", *SMALL, "start_from=RUN")], ids=" ".join)
def test_a_run_imports_nothing_by_itself(clickwise, run, change, words):
    with_code(run, change)
    (run / "DONE").unlink()
    result = clickwise(*(word.replace("RUN", str(run)) for word in words))
    assert result.code == 2 and not Path("imported").exists(), result.err
    assert "code that would be imported" in result.err and "--allow-import foreign" in result.err
    assert "Traceback" not in result.err


def test_what_is_allowed_is_imported_and_nothing_else(clickwise, run):
    with_code(run, CHANGES["model"])
    refused = clickwise("evaluate", run, "--allow-import", "other.Model")
    assert refused.code == 2 and not Path("imported").exists()
    allowed = clickwise("evaluate", run, "--allow-import", "foreign.Model")
    assert allowed.code == 0 and Path("imported").exists(), allowed.err


def test_what_the_user_writes_needs_no_leave(clickwise, run):
    """A recipe, an override, also one on top of a run's recipe."""
    with_code(run, lambda recipe: None)
    result = clickwise("evaluate", run, "embedding.engine=foreign.Engine")
    assert result.code == 0 and Path("imported").exists(), result.err
    Path("imported").unlink()
    sys.modules.pop("foreign")
    shutil.copy(run / "recipe.yaml", "mine.yaml")
    with_code(run, CHANGES["optimizer"])
    shutil.copy(run / "recipe.yaml", "mine.yaml")
    result = clickwise("train", "mine.yaml", "--out", "more")
    assert result.code == 0 and Path("imported").exists(), result.err


def test_nor_does_a_checkpoint(clickwise, run):
    """A run that is resumed is held against the recipe that its checkpoint was saved with."""
    content = torch.load(run / "checkpoint/last.pt", weights_only=True)
    content["recipe"] = content["recipe"].replace("name: dlrm", "name: foreign.Model")
    torch.save(content, run / "checkpoint/last.pt")
    with_code(run, lambda recipe: None)
    (run / "DONE").unlink()
    result = clickwise("train", "--resume", run)
    assert result.code == 2 and not Path("imported").exists() and "--allow-import foreign.Model" in result.err
