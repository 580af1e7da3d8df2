"""A model repository for Triton: what it says, and the scores of a real server."""

from __future__ import annotations

import json
import random
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from served_models import running
from triton_server import triton

import clickwise as cw
from clickwise.errors import ClickwiseError
from clickwise.export.folder import export
from clickwise.export.triton_repository import write_repository

SETTINGS = {"train.epochs": 1, "train.batch_size": 64, "model.cross_rank": 4, "model.bottom_mlp": [8],
            "model.top_mlp": [8], "examples": 20}


def frame(rows=300, seed=0):
    dice = random.Random(seed)
    data = pd.DataFrame([{"town": dice.choice(["Oslo", "Bonn", None, "São Paulo"]), "price": dice.random() * 1e4,
                          "shop": dice.choice([1005000, 7, 8]),
                          "tags": "|".join(dice.choices("abc", k=dice.randrange(3)))}
                         for _ in range(rows)])
    data["click"] = [int(dice.random() < (0.8 if town == "Oslo" else 0.2)) for town in data.town]
    return data


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return cw.fit(frame(), label="click", multi_hot={"tags": "|"}, test=0.2, settings=SETTINGS, seed=3,
                  out=tmp_path_factory.mktemp("fit") / "of")


@pytest.fixture(scope="module")
def repository(model, tmp_path_factory):
    """The graph by the python backend: there is no ONNX backend in the server that tests can have."""
    out = tmp_path_factory.mktemp("triton") / "models"
    found = export(model.folder, out, format="triton", name="shops", backend="python")
    assert found["models"] == ["shops_graph", "shops_encoding", "shops_raw", "shops"]
    return out


def inputs(data, client):
    found = []
    for name in ("town", "price", "shop", "tags"):
        texts = [["" if value is None or value != value else str(value)] for value in data[name]]
        found.append(client.InferInput(name, [len(data), 1], "BYTES"))
        found[-1].set_data_from_numpy(np.array(texts, object))
    return found


def test_what_lies_where(model, repository, tmp_path):
    names = sorted(path.name for path in repository.iterdir())
    assert names == ["shops", "shops_encoding", "shops_graph", "shops_raw"]
    assert not list(repository.parent.glob(".*"))  # nothing temporary
    assert [path.name for path in (repository / "shops_encoding" / "1").rglob("model.onnx*")] == []
    config = (repository / "shops" / "config.pbtxt").read_text()
    assert 'platform: "ensemble"' in config and 'name: "tags" data_type: TYPE_STRING dims: [1]' in config
    assert config.count("model_name") == 2 and 'model_name: "shops_graph"' in config
    export(model.folder, tmp_path / "gpu", format="triton", name="shops", device="gpu", encoding=False)
    (of_graph,) = (tmp_path / "gpu").iterdir()
    config = (of_graph / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in config and "KIND_GPU" in config and "dynamic_batching" in config
    assert re.search(r"bag_0.* dims: \[-1\]", config) and re.search(r"probability.*reshape: { shape: \[ \] }", config)
    assert {path.name for path in (of_graph / "1").iterdir()} == {"model.onnx", "model.onnx.data"}


@pytest.mark.slow
def test_versions(model, repository, tmp_path):
    shutil.copytree(repository, tmp_path / "models")
    with pytest.raises(ClickwiseError, match="--version 2"):
        export(model.folder, tmp_path / "models", format="triton", name="shops", backend="python")
    export(model.folder, tmp_path / "models", format="triton", name="shops", backend="python", version="2")
    assert (tmp_path / "models" / "shops_raw" / "2" / "model.py").exists()
    with pytest.raises(ClickwiseError, match="numbers versions"):
        export(model.folder, tmp_path / "other", format="triton", version="blue")


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_real_server_scores_as_the_run(model, repository, tmp_path, protocol):
    client = pytest.importorskip(f"tritonclient.{protocol}")
    data = frame(200, 1)
    expected = model.predict_proba(data)
    with triton(repository, tmp_path, "--model-control-mode=explicit", "--load-model=shops",
                "--load-model=shops_raw") as (http, grpc, said):
        port = {"http": http, "grpc": grpc}[protocol]
        connection = client.InferenceServerClient(f"127.0.0.1:{port}")
        for name in ("shops", "shops_raw"):
            for rows in (1, 3, 200):
                found = connection.infer(name, inputs(data[:rows], client)).as_numpy("probability")
                assert found.shape == (rows, 1)
                np.testing.assert_allclose(found[:, 0], expected[:rows], atol=1e-6)
        # Four clients at once, whose requests Triton puts together; a bad one among them gets its own error.
        def ask(first):
            mine, wrong = client.InferenceServerClient(f"127.0.0.1:{port}"), []
            for row in range(first, 200, 4):
                found = mine.infer("shops", inputs(data[row:row + 1], client)).as_numpy("probability")
                if abs(found[0, 0] - expected[row]) > 1e-6:
                    wrong.append(row)
                with pytest.raises(Exception, match="dear"):
                    mine.infer("shops", inputs(data[row:row + 1].assign(price="dear"), client))
            return wrong

        with ThreadPoolExecutor(4) as clients:
            assert [*clients.map(ask, range(4))] == [[]] * 4
        connection.unload_model("shops_raw")
        with pytest.raises(Exception, match="shops_raw"):
            connection.infer("shops_raw", inputs(data[:1], client))
        connection.load_model("shops_raw")
        found = connection.infer("shops_raw", inputs(data[:5], client)).as_numpy("probability")
        np.testing.assert_allclose(found[:, 0], expected[:5], atol=1e-6)


@pytest.mark.slow
def test_both_servers_in_one_table(model, repository, tmp_path, clickwise):
    exported = model.export(tmp_path / "exported", name="shops")
    with triton(repository, tmp_path, "--model-control-mode=explicit", "--load-model=shops_raw") as (http, _, _), \
            running(exported, "--no-access-log") as (_, ours):
        theirs = f"http://127.0.0.1:{http}"
        result = clickwise("bench", exported, "--what", "serve", "--url", ours, "--url", theirs, "--connections", 1,
                           "--batch-sizes", "1,3", "--seconds", "0.5", "--json")
    assert result.code == 0, result.err
    rows = json.loads(result.out)["rows"]
    assert [(row["server"], row["batch_size"]) for row in rows] == [(ours, 1), (theirs, 1), (ours, 3), (theirs, 3)]
    assert all(row["failed"] == row["shed"] == 0 < row["rows_per_s"] for row in rows)


def test_states_that_go_on_are_refused(repository, tmp_path, model, monkeypatch):
    import dataclasses

    from clickwise.serve.signature import Signature

    load = Signature.load
    monkeypatch.setattr(Signature, "load", classmethod(lambda cls, folder: dataclasses.replace(load(folder),
                                                                                              goes_on=True)))
    with pytest.raises(ClickwiseError, match="clickwise serve"):
        write_repository(model.export(tmp_path / "m"), tmp_path / "models")
