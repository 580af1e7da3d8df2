"""Every shape of data that the format's published test specs have: made, trained on, interrupted, resumed, measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml

from clickwise import checkpoint
from clickwise.data.columns import read_columns
from clickwise.data.synthetic.generate import VARIANTS as TABLES
from clickwise.feature_spec import FeatureSpec, narrowest_id_dtype
from clickwise.train.step import TrainStep

T15 = TABLES["criteo_t15"]
HUNDRED_THOUSAND = (100_000,) * 26


def spec(cardinalities=HUNDRED_THOUSAND, numericals=13, names=str, types=None, path=None) -> dict:
    """A spec of the published shape. `names` gives a feature its name, `types` the types of some id columns by their
    index, `path(mapping, stem)` the file of a column."""
    path = path or (lambda mapping, stem: f"{mapping}/{stem}.bin")
    number_names = [names(f"num_{index}") for index in range(numericals)]
    id_names, label = [names(f"cat_{index}.bin") for index in range(len(cardinalities))], names("label")
    features = {name: {"dtype": "float16"} for name in number_names} | {label: {"dtype": "bool"}}
    for index, (name, cardinality) in enumerate(zip(id_names, cardinalities, strict=True)):
        dtype = (types or {}).get(index, narrowest_id_dtype(cardinality))
        features[name] = {"cardinality": cardinality, "dtype": dtype}
    columns = {"numerical": number_names, "label": [label], **{f"cat_{i}": [name] for i, name in enumerate(id_names)}}
    chunks = {mapping: [{"type": "split_binary", "features": held, "files": [path(mapping, stem)]}
                        for stem, held in columns.items() if held] for mapping in ("train", "test")}
    channels = {"categorical": id_names, "label": [label]} | ({"numerical": number_names} if numericals else {})
    return {"feature_spec": features, "source_spec": chunks, "channel_spec": channels, "metadata": {}}


SPECS = {
    "default": spec(),
    "13_num_26_cat": spec([100_000 + index for index in range(26)]),
    "10_num": spec(numericals=10),
    "20_num": spec(numericals=20),
    "no_num": spec(numericals=0),
    "13_num_10_cat": spec([*range(100_000, 100_009), 10_009]),
    "13_num_30_cat": spec([100_000 + index for index in range(30)]),
    "criteo_f15": spec(T15),
    "wider_dtypes": spec(T15, types={1: "int64", 5: "int16", 6: "int32", 12: "int32", 22: "int64", 25: "int64"}),
    "different_feature_names": spec(names=lambda name: f"{name[::-1]} of Öre, 100 %?"),
    "different_paths": spec(path=lambda mapping, stem: {
        "train": f"days/0-22/{stem[::-1]}.column", "test": f"last day.{stem}.v2"}[mapping]),
}
LIKE_ANOTHER = ("13_num_26_cat", "10_num", "20_num", "13_num_30_cat")  # but for numbers of columns or ids
SMALL_CSV = {"a": 10, "b": 23412, "c": 45000, "d": 100, "e": 50, "f": 127}
SPLITS = {"train": [["label", "a", "n0"], ["n1", "b", "c", "d"], ["n2"], ["f", "e"]],
          "test": [["f", "n2", "n0"], ["label"], ["a", "d", "b"], ["c", "e", "n1"]]}


def write_small_csv(folder) -> None:
    """3 numericals and 6 columns of ids in 4 csv chunks, other ones in test than in train."""
    random, chunks = np.random.default_rng(0), {}
    for mapping, split in SPLITS.items():
        rows, chunks[mapping] = {"train": 160, "test": 60}[mapping], []
        table = {name: random.integers(0, size, rows) for name, size in SMALL_CSV.items()}
        table |= {f"n{index}": random.normal(size=rows).round(3) for index in range(3)}
        table["label"] = random.integers(0, 2, rows)
        for index, names in enumerate(split):
            (folder / f"{mapping}_{index}.csv").write_text(
                "".join(",".join(str(table[name][row]) for name in names) + "\n" for row in range(rows)))
            chunks[mapping].append({"type": "csv", "features": names, "files": [f"{mapping}_{index}.csv"]})
    features = {name: {"dtype": "int64", "cardinality": size} for name, size in SMALL_CSV.items()}
    features |= {name: {"dtype": "float32"} for name in ("n0", "n1", "n2")} | {"label": {"dtype": "bool"}}
    write_spec(folder, {"feature_spec": features, "source_spec": chunks, "metadata": {},
                        "channel_spec": {"categorical": [*SMALL_CSV], "numerical": ["n0", "n1", "n2"],
                                         "label": ["label"]}})


def write_spec(folder, content: dict) -> None:
    (folder / "feature_spec.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def dataset(clickwise, tmp_path, variant):
    """A folder `ds` with the data of the variant."""
    (tmp_path / "in").mkdir()
    if variant == "small_csv":
        write_small_csv(tmp_path / "in")
        made = clickwise("transcode", "in", "--out", "ds")
    else:
        write_spec(tmp_path / "in", SPECS[variant])
        made = clickwise("synth", "in/feature_spec.yaml", "--out", "ds", "--rows", 160, "--test-rows", 60)
    assert made.code == 0, made.err
    return FeatureSpec.load("ds")


WORDS = ["data={path: ds}", "model.embedding_dim=2", "model.bottom_mlp=[2]", "model.top_mlp=[4]",
         "embedding.optimizer={name: sgd, lr: 0.1}", "embedding.hash_indices=true", "embedding.max_table_size=2000",
         "train.batch_size=32", "train.evaluation_batch_size=32", "train.epochs=null", "train.steps=7",
         "train.checkpoint_every=3", "metrics=[auc,log_loss]"]


@pytest.mark.parametrize("model", ["dlrm", pytest.param("dcnv2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("variant", [
    pytest.param(name, marks=[pytest.mark.slow] * (name in LIKE_ANOTHER)) for name in (*SPECS, "small_csv")])
def test_trains_resumes_exactly_and_is_measured(clickwise, tmp_path, monkeypatch, dataset, model):
    def train(*words):
        result = clickwise("train", *words, "--json")
        assert result.code == 0, result.err
        return json.loads(result.out)["run"]

    whole = train(f"tiny/{model}", *WORDS)
    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", dies_at(4, TrainStep.__call__))
        assert clickwise("train", f"tiny/{model}", *WORDS, "--out", "killed").code == 130
    (killed,) = (tmp_path / "killed" / f"ds-{model}").iterdir()
    assert checkpoint.load(killed / "checkpoint" / "last.pt")["position"]["step"] == 3
    train("--resume", killed)

    ours, theirs = (checkpoint.load(tmp_path / run / "checkpoint" / "last.pt")["model"] for run in (killed, whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    metrics = json.loads(clickwise("evaluate", killed, "--json").out)["metrics"]
    assert metrics == json.loads((tmp_path / whole / "metrics.json").read_text())["mappings"]["test"]
    assert 0 < metrics["log_loss"] < 5 and 0 <= metrics["auc"] <= 1


def dies_at(step: int, call):
    def dying(self, *batches):
        if self.steps == step:
            raise KeyboardInterrupt
        return call(self, *batches)

    return dying


@pytest.mark.parametrize("variant", ["wider_dtypes", "13_num_10_cat", "small_csv"])
def test_ids_lie_in_the_types_that_the_spec_says(dataset, variant):
    columns, ids = read_columns(dataset, "train"), dataset.channel("categorical")
    assert [columns.arrays[feature.name].dtype for feature in ids] == [feature.dtype for feature in ids]
    types = [feature.dtype for feature in ids]
    assert types[-1] == {"wider_dtypes": "int64", "13_num_10_cat": "int16", "small_csv": "int16"}[variant]
