"""What a run, a dataset or a saved model from somebody else names or leads to outside of its folder is not touched, and
no code of it is run. docs/security.md says what holds."""

import ast
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import clickwise as cw
from clickwise import checkpoint
from clickwise.errors import CheckpointError, ClickwiseError, SpecError
from clickwise.feature_spec import FeatureSpec
from clickwise.report.run import read_run

SOURCE = Path(cw.__file__).parent
SPEC = """
feature_spec: {{click: {{dtype: bool}}, item: {{cardinality: 9}}, price: {{dtype: float32}}}}
source_spec:
  train: [{{type: csv, features: [item, price, click], files: [rows.csv]}}]
  test: [{{type: csv, features: [item, price, click], files: [{file}]}}]
channel_spec: {{label: [click], categorical: [item], numerical: [price]}}
"""
WORDS = ["data.path=data", "data.validation=null", "train.batch_size=50", "train.steps=2", "baselines=[]"]


@pytest.fixture
def data(clickwise, tmp_path):
    """A Feature Spec in data/ whose test mapping is a file beside that folder, named as asked."""
    draw = random.Random(0)
    lines = ["item,price,click", *(f"{row % 9},{row % 7},{draw.randrange(2)}" for row in range(200))]
    (tmp_path / "data").mkdir()
    for path in ("data/rows.csv", "secret.csv"):
        (tmp_path / path).write_text("\n".join(lines) + "\n")

    def name(file):
        (tmp_path / "data/feature_spec.yaml").write_text(SPEC.format(file=file.format(folder=tmp_path)))
        return tmp_path / "data"
    return name


def refused(result, word="--trust-paths"):
    assert result.code == 1 and word in result.err and "Traceback" not in result.err, result.err


@pytest.mark.parametrize("file", ["../secret.csv", "{folder}/secret.csv", "x/../../secret.csv", "link.csv",
                                  "linked/secret.csv"])
def test_a_feature_spec_names_no_file_outside_of_its_folder(clickwise, data, tmp_path, file):
    folder = data(file)
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "x").mkdir()
    refused(clickwise("train", "table/dcnv2", *WORDS), file.split("/")[-1])
    refused(clickwise("train", "table/dcnv2", *WORDS))
    assert not (tmp_path / "runs").exists()
    refused(clickwise("bench", "table/dcnv2", *WORDS, "--steps", 1, "--warmup", 1))
    assert FeatureSpec.load(folder).mappings  # for prepare, transcode and spec infer it may


def test_trusted_paths_are_read(clickwise, data, tmp_path):
    data("../secret.csv")
    result = clickwise("train", "table/dcnv2", *WORDS, "--trust-paths", "--json")
    assert result.code == 0, result.err
    run = json.loads(result.out)["run"]
    refused(clickwise("evaluate", run))
    refused(clickwise("predict", run, "--input", "test"))
    (tmp_path / run / "DONE").unlink()
    refused(clickwise("train", "--resume", run))
    assert clickwise("evaluate", run, "--trust-paths").code == 0
    assert clickwise("predict", run, "--input", "test", "--trust-paths").code == 0
    assert clickwise("train", "--resume", run, "--trust-paths").code == 0
    assert clickwise("transcode", "data", "--out", "columns").code == 0  # a Feature Spec of one's own
    with pytest.raises(SpecError, match="trust-paths"):
        cw.fit_recipe("table/dcnv2", {"data.path": str(tmp_path / "data"), "train.batch_size": 50})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved model of a small table, and the folder of its columns."""
    folder = tmp_path_factory.mktemp("stranger")
    rows = 200
    model = cw.fit({"label": [i % 2 for i in range(rows)], "price": [i % 97 * 1.5 for i in range(rows)],
                    "shop": [f"shop {i % 7}" for i in range(rows)]}, label="label",
                   settings={"train.steps": 1, "train.batch_size": 50})
    model.save(folder / "run")
    return folder / "run"


@pytest.fixture
def run(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "mine.txt").write_text("what is mine")
    (tmp_path / "rows.csv").write_text("price,shop\n1,shop 1\n")
    return tmp_path / "run"


@pytest.mark.parametrize("name", [".lock", "log.jsonl", "predictions", "columns.json", "encoding/more", "report.html"])
def test_a_run_in_which_a_link_leads_outside_is_refused(clickwise, run, tmp_path, name):
    if (run / name).exists():
        (run / name).unlink()
    (run / name).symlink_to(tmp_path / "mine.txt")
    (run / "DONE").unlink()
    for words in (("evaluate", "run"), ("predict", "run", "--input", "rows.csv"), ("train", "--resume", "run")):
        refused(clickwise(*words), f"a link to {tmp_path / 'mine.txt'}")
    with pytest.raises(ClickwiseError, match="a link to"):
        cw.load(run)
    assert (tmp_path / "mine.txt").read_text() == "what is mine"
    if name not in ("columns.json", "log.jsonl"):
        assert len(cw.load(run, trust_paths=True).predict_proba(str(tmp_path / "rows.csv"))) == 1


def test_links_within_a_run_are_its_own(clickwise, run):
    (run / "checkpoint" / "copy.pt").symlink_to("last.pt")
    (run / "again").symlink_to(run / "encoding")
    assert clickwise("predict", "run", "--input", "rows.csv").code == 0


def test_a_dataset_in_whose_preparation_a_link_leads_outside_is_refused(clickwise, data, tmp_path):
    folder = data("rows.csv")
    (folder / "preparation").mkdir()
    (tmp_path / "mine.txt").write_text("what is mine")
    (folder / "preparation" / "columns.json").symlink_to(tmp_path / "mine.txt")
    refused(clickwise("train", "table/dcnv2", *WORDS), "a link to")


class Trap:
    """What pickle would run on loading."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_runs_no_code(tmp_path):
    torch.save({"format": 1, "model": Trap(tmp_path / "ran")}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="not readable"):
        checkpoint.load(tmp_path / "last.pt")
    assert not (tmp_path / "ran").exists()


def test_scores_of_a_report_run_no_code_and_are_bounded(run, tmp_path):
    np.savez(run / "scores.npz", **{"test/x": np.array([Trap(tmp_path / "ran")], object)})
    (run / "manifest.json").unlink()
    with pytest.raises(ClickwiseError, match=r"scores\.npz"):
        read_run(run)
    assert not (tmp_path / "ran").exists()
    np.savez_compressed(run / "scores.npz", **{"test/x": np.zeros(1 << 21)})
    assert read_run(run).scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clickwise.report.run.MOST_BYTES", 1 << 20)
        with pytest.raises(ClickwiseError, match="once unpacked"):
            read_run(run)


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


def test_no_pickle_is_read_anywhere():
    found = 0
    for file in SOURCE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names} | \
            {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}, file
        for name, words in calls(tree):
            if name in ("torch.load", "np.load"):
                found += 1
                assert words.get("weights_only") == "True" or words.get("allow_pickle") == "False", file
            assert name not in ("yaml.unsafe_load", "yaml.full_load", "pd.read_pickle"), file
    assert found >= 2
