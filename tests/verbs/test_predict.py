"""`clickwise predict`: rows keep their order, columns travel along, and no bad value gets past the check."""

from __future__ import annotations

import json
import math
import re
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from small_dataset import write

from clickwise import metrics
from clickwise.data.arrays import RaggedArray
from clickwise.data.columns import Columns
from clickwise.feature_spec import Feature, FeatureSpec, split_binary_chunks

FEATURES = {"y": Feature("y", "bool"), "n0": Feature("n0", "float32"), "n1": Feature("n1", "float32"),
            "city": Feature("city", "int8", 20), "shop": Feature("shop", "int16", 300),
            "tags": Feature("tags", "int8", 50, max_hotness=3), "session": Feature("session", "int64"),
            "sku": Feature("sku", "int8", 60), "brand": Feature("brand", "int64")}
CHANNELS = {"label": ("y",), "numerical": ("n0", "n1"), "categorical": ("city", "shop", "tags"),
            "about": ("brand",), "display": ("session",), "target_item": ("sku",)}
INPUTS = ("n0", "n1", "city", "shop", "tags")
ROWS = 60


def table(rows: int = ROWS, seed: int = 0) -> dict[str, list]:
    random = np.random.default_rng(seed)
    return {"y": (random.random(rows) < 0.4).tolist(), "n0": random.normal(size=rows).astype("float32").tolist(),
            "n1": random.normal(size=rows).astype("float32").tolist(), "city": random.integers(0, 20, rows).tolist(),
            "shop": random.integers(0, 300, rows).tolist(), "session": (10**12 + np.arange(rows)).tolist(),
            "sku": random.permutation(rows).tolist(), "brand": random.integers(0, 2**62, rows).tolist(),
            "tags": [random.integers(0, 50, count).tolist() for count in random.integers(0, 4, rows)]}


@pytest.fixture
def run(clickwise, tmp_path):
    """A run on `table()`, whose rows are the mapping test."""
    mappings = {mapping: split_binary_chunks(FEATURES, CHANNELS, mapping) for mapping in ("train", "test")}
    spec, rows = FeatureSpec(FEATURES, mappings, CHANNELS, {}, tmp_path / "ds"), table()
    tags = RaggedArray(np.array(sum(rows["tags"], []), "int8"), np.cumsum([0, *map(len, rows["tags"])]))
    arrays = {name: np.array(rows[name], FEATURES[name].dtype)
              for name in ("y", "city", "shop", "session", "sku", "brand")}
    columns = Columns(ROWS, {**arrays, "tags": tags}, np.array([rows["n0"], rows["n1"]], "float32").T.copy())
    for mapping in mappings:
        write(spec, columns, mapping)
    result = clickwise("train", "tiny/dlrm", "data={path: ds}", "train.batch_size=20", "train.epochs=1",
                       "model.embedding_dim=4", "model.bottom_mlp=[4]", "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)["run"]


def put(path, rows: dict[str, list]) -> None:
    if path.suffix == ".csv":
        rows = {name: ["|".join(map(str, value)) if isinstance(value, list) else value for value in values]
                for name, values in rows.items()}
        pa.csv.write_csv(pa.table(rows), path)
    else:
        pq.write_table(pa.table(rows), path)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_scores_as_the_mapping_with_the_same_rows(clickwise, run, tmp_path, ending):
    rows = table()
    put(tmp_path / f"in.{ending}", {name: rows[name] for name in ("brand", "sku", "session", *INPUTS[::-1])})
    for source in ("test", f"in.{ending}"):
        assert clickwise("predict", run, "--encoded", "--input", source, "--out", f"{source}.p.parquet").code == 0
    of_mapping, of_file = (pq.read_table(tmp_path / f"{source}.p.parquet") for source in ("test", f"in.{ending}"))
    assert of_mapping.column_names == of_file.column_names == ["session", "sku", "brand", "logit", "probability"]
    for name in ("session", "sku", "brand"):
        assert of_file[name].to_pylist() == of_mapping[name].to_pylist() == rows[name]
    np.testing.assert_allclose(of_file["logit"], of_mapping["logit"], atol=1e-6)
    put(tmp_path / f"in.{ending}", {name: rows[name] for name in INPUTS})
    assert clickwise("predict", run, "--encoded", "--input", f"in.{ending}", "--out", "p.parquet").code == 0
    assert pq.read_table(tmp_path / "p.parquet").column_names == ["logit", "probability"]


@pytest.mark.parametrize("to", ["csv", "parquet"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_any_column_is_carried_block_by_block(clickwise, run, tmp_path, monkeypatch, ending, to):
    monkeypatch.setattr("clickwise.verbs.predict_rows.BLOCK_ROWS", 7)
    monkeypatch.setattr("clickwise.arrow_files.BLOCK_BYTES", 300)  # whose borders are not those of the rows above
    rows = table() | {"name": [f"0{row}, \"é\"" for row in range(ROWS)]}
    put(tmp_path / f"in.{ending}", {name: rows[name] for name in ("name", "session", *INPUTS)})
    assert clickwise("predict", run, "--input", "test", "--out", "all.parquet").code == 0
    assert clickwise("predict", run, "--encoded", "--input", f"in.{ending}", "--out", f"p.{to}", "--carry",
                     "tags, name,city", "train.evaluation_batch_size=5").code == 0
    read = pa.csv.read_csv if to == "csv" else pq.read_table
    found, as_text = read(tmp_path / f"p.{to}"), "csv" in (ending, to)
    assert found.column_names == ["session", "tags", "name", "city", "logit", "probability"]
    for name in ("session", "name", "city", "tags"):
        expected = ["|".join(map(str, value)) for value in rows[name]] if as_text and name == "tags" else rows[name]
        assert found[name].to_pylist() == expected
    np.testing.assert_allclose(found["logit"], pq.read_table(tmp_path / "all.parquet")["logit"], atol=1e-6)


def test_a_mapping_carries_its_features(clickwise, run, tmp_path):
    assert clickwise("predict", run, "--input", "test", "--out", "p.parquet", "--carry", "y,n1,tags").code == 0
    found, rows = pq.read_table(tmp_path / "p.parquet"), table()
    assert found.column_names == ["session", "sku", "brand", "y", "n1", "tags", "logit", "probability"]
    assert all(found[name].to_pylist() == rows[name] for name in ("y", "n1", "tags"))


def test_what_cannot_be_carried(clickwise, run, tmp_path):
    rows = table()
    put(tmp_path / "in.parquet", {**{name: rows[name] for name in INPUTS}, "logit": rows["n0"],
                                  "both": [{"a": 1}] * ROWS})
    for source, name, code, words in (("in.parquet", "towns,city", 2, ("--carry towns", "in.parquet", "city")),
                                      ("in.parquet", "citys", 2, ("did you mean 'city'?",)),
                                      ("test", "tag", 2, ("'test'", "did you mean 'tags'?")),
                                      ("in.parquet", "logit", 2, ("predict writes",)),
                                      ("in.parquet", "both", 1, ("'both'", "struct", ".parquet"))):
        result = clickwise("predict", run, "--encoded", "--input", source, "--out", "p.csv", "--carry", name)
        assert result.code == code and "Traceback" not in result.err, result.err
        assert all(word in result.err for word in words), result.err
        assert not list(tmp_path.glob("*p.csv*"))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_unknown_ids_are_taken_in_as_the_spec_says(clickwise, run, tmp_path, ending):
    spec = tmp_path / "ds" / "feature_spec.yaml"
    for name, policy in (("city", "zero"), ("tags", "modulo")):
        spec.write_text(re.sub(rf"(  {name}: {{.*?)}}", rf"\1, unknown_ids: {policy}}}", spec.read_text()))
    rows = {name: table()[name] for name in INPUTS}
    rows["city"][:3], rows["tags"][:2] = [0, 0, 0], [[3, 49], [0]]
    put(tmp_path / f"known.{ending}", rows)
    rows["city"][:3], rows["tags"][:2] = [20, -1, 10**12], [[53, -1], [50 * 10**15]]
    put(tmp_path / f"unknown.{ending}", rows)
    for name in ("known", "unknown"):
        result = clickwise("predict", run, "--encoded", "--input", f"{name}.{ending}", "--out", f"{name}.p.parquet")
        assert result.code == 0, result.err
    known, unknown = (pq.read_table(tmp_path / f"{name}.p.parquet") for name in ("known", "unknown"))
    assert known == unknown


BAD = {
    "id beyond the table": ("city", 20, ("row 7", "id 20", "0 … 19")),
    "id beyond its type": ("city", 300, ("row 7", "id 300", "0 … 19")),
    "negative id": ("shop", -1, ("row 7", "id -1", "0 … 299", "do")),
    "id in a list": ("tags", [1, 50], ("row 7", "id 50", "0 … 49")),
    "list too long": ("tags", [1, 2, 3, 4], ("row 7", "a list of 4", "at most 3")),
    "no number": ("n1", math.nan, ("row 7", "'n1'")),
    "infinite": ("n0", -math.inf, ("row 7", "'n0'", "-inf")),
}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_values_are_refused(clickwise, run, tmp_path, kind, ending):
    name, value, words = BAD[kind]
    rows = {column: table()[column] for column in INPUTS}
    rows[name][7] = value
    put(tmp_path / f"in.{ending}", rows)
    result = clickwise("predict", run, "--encoded", "--input", f"in.{ending}", "--out", "p.csv")
    assert result.code == 1 and "Traceback" not in result.err and not (tmp_path / "p.csv").exists()
    for word in (f"in.{ending}", *words):
        assert word in result.err, result.err


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_missing_column_is_named_with_what_to_do(clickwise, run, tmp_path, ending):
    rows = table()
    put(tmp_path / f"in.{ending}", {**{name: rows[name] for name in INPUTS if name != "shop"}, "shops": rows["shop"]})
    result = clickwise("predict", run, "--encoded", "--input", f"in.{ending}", "--out", "p.csv")
    assert result.code == 1 and "'shop'" in result.err and "did you mean 'shops'?" in result.err


def test_files_that_are_none(clickwise, run, tmp_path):
    for name in ("in.parquet", "in.csv"):
        (tmp_path / name).write_bytes(b"")
        result = clickwise("predict", run, "--encoded", "--input", name, "--out", "p.csv")
        assert result.code == 1 and name in result.err and "Traceback" not in result.err


USERS = '''
import dataclasses
import torch
from clickwise.embedding.table import Table
from clickwise.models.ctr_model import CTRModel

@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    dim: int = 4

class Users(CTRModel):
    Config, channels = Config, ("user", "target_item")

    @staticmethod
    def tables(spec, config):
        return tuple(Table(name=feature.name, rows=feature.cardinality, features=(feature.name,), dim=config.dim)
                     for feature in (*spec.channel("user"), *spec.channel("target_item")))

    def __init__(self, spec, embeddings, config):
        super().__init__()
        self.embeddings, self.bias = embeddings, torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        assert batch.numerical is None and not batch.history, "more than was asked for"
        user, item = self.embeddings((*batch.user, *batch.target_item)).chunk(2, dim=1)
        return (user * item).sum(1).float() + self.bias
'''


@pytest.mark.parametrize("declared", [True, False], ids=["channels declared", "channels left at their default"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_model_of_ones_own_reads_users_without_a_history(clickwise, tmp_path, monkeypatch, ending, declared):
    code = USERS if declared else USERS.replace("Config, channels = Config, (", "Config, _ = Config, (").replace(
        "batch.numerical is None and ", "")
    (tmp_path / "own_users.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_users", raising=False)
    features = {"y": Feature("y", "bool"), "who": Feature("who", "int8", 20), "sku": Feature("sku", "int8", 60),
                "city": Feature("city", "int8", 20), "n": Feature("n", "float32")}
    channels = {"label": ("y",), "user": ("who",), "target_item": ("sku",), "categorical": ("city",),
                "numerical": ("n",)}
    mappings = {mapping: split_binary_chunks(features, channels, mapping) for mapping in ("train", "test")}
    spec, random = FeatureSpec(features, mappings, channels, {}, tmp_path / "ds"), np.random.default_rng(0)
    arrays = {name: random.integers(0, feature.cardinality or 2, ROWS).astype(feature.dtype)
              for name, feature in features.items() if name != "n"}
    for mapping in mappings:
        write(spec, Columns(ROWS, arrays, np.zeros((ROWS, 1), "float32")), mapping)
    result = clickwise("train", "tiny/dlrm", "data={path: ds}", "model={name: own_users.Users}", "train.batch_size=20",
                       "train.epochs=3", "optimizer.lr=0.5", "embedding.optimizer.lr=0.5", "--json")
    assert result.code == 0, result.err
    run = json.loads(result.out)["run"]
    read = ("who", "sku") if declared else ("who", "sku", "city", "n")
    rows = {name: array.tolist() for name, array in arrays.items()} | {"n": [0.0] * ROWS}
    put(tmp_path / f"in.{ending}", {name: rows[name] for name in read[::-1]})
    for source in ("test", f"in.{ending}"):
        result = clickwise("predict", run, "--encoded", "--input", source, "--out", f"{source}.p.parquet",
                           "--allow-import", "own_users.Users")
        assert result.code == 0, result.err
    of_mapping, of_file = (pq.read_table(tmp_path / f"{source}.p.parquet") for source in ("test", f"in.{ending}"))
    np.testing.assert_allclose(of_file["logit"], of_mapping["logit"], atol=1e-6)
    assert len(set(of_file["logit"].to_pylist())) > 20
    put(tmp_path / f"in.{ending}", {"sku": rows["sku"], "city": rows["city"], "n": rows["n"]})
    result = clickwise("predict", run, "--encoded", "--input", f"in.{ending}", "--out", "p.csv", "--allow-import",
                       "own_users.Users")
    assert result.code == 1 and "'who'" in result.err


@pytest.mark.parametrize("length", [1, 3, 20])
def test_histories_are_as_long_as_the_recipe_says(clickwise, length):
    words = ["data.synthetic.rows={train: 400, validation: 100, test: 200}", "train.batch_size=100", "train.epochs=1",
             f"data.histories.length={length}", "metrics=[auc, log_loss]"]
    trained = json.loads(clickwise("train", "tiny/din", *words, "--json").out)
    done = clickwise("predict", trained["run"], "--input", "test", "--carry", "label", "--out", "scores.parquet")
    assert done.code == 0, done.err
    scores = pq.read_table("scores.parquet")
    found = metrics.log_loss(scores["label"].to_numpy(zero_copy_only=False), scores["probability"].to_numpy())
    assert found == pytest.approx(trained["mappings"]["test"]["log_loss"], abs=1e-6)
