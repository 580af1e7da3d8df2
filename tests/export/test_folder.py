"""An export: a folder that scores raw rows as its run does, checked before it is there."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import clickwise as cw
from clickwise.errors import DataError, EngineError, UsageError
from clickwise.export import folder
from clickwise.serve.exported import ExportedModel

SETTINGS = {"train.epochs": 1, "train.batch_size": 64, "model.cross_rank": 4, "model.bottom_mlp": [8],
            "model.top_mlp": [8], "examples": 40}
WITHOUT_TORCH = """
import json, sys
for name in ("torch", "ibis", "duckdb", "onnx"):
    sys.modules[name] = None
from pathlib import Path
from clickwise.serve.exported import ExportedModel
model, rows = ExportedModel(Path(sys.argv[1])), json.loads(sys.argv[2])
print(json.dumps([model.score(rows).tolist(), [float(model.score([row])[0]) for row in rows]]))
"""


def frame(rows=400, seed=0):
    dice = random.Random(seed)
    data = pd.DataFrame([{"age": dice.choice([None, *range(18, 60)]), "shop": dice.choice([1005000, 7, 8]),
                          "town": dice.choice(["Oslo", "Bonn", None, "São Paulo"]),
                          "member": dice.choice([True, False]),
                          "tags": "|".join(dice.choices("abc", k=dice.randrange(3))), "price": dice.random() * 1e4}
                         for _ in range(rows)])
    data["click"] = [int(dice.random() < (0.8 if town == "Oslo" else 0.2)) for town in data.town]
    return data


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return cw.fit(frame(), label="click", multi_hot={"tags": "|"}, validation=0.2, settings=SETTINGS,
                  out=tmp_path_factory.mktemp("fit") / "of")


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return model.export(tmp_path_factory.mktemp("exports") / "m", name="shops")


def rows_of(data):
    return [{name: None if value is None or value != value else value for name, value in row.items()}
            for row in data.drop(columns="click").to_dict("records")]


def test_raw_rows_score_as_in_the_run(model, exported):
    data = frame(60, 1)
    expected, found = model.predict_proba(data), ExportedModel(exported)
    np.testing.assert_allclose(found.score(rows_of(data)), expected, atol=1e-6)
    np.testing.assert_allclose([found.score([row])[0] for row in rows_of(data)], expected, atol=1e-6)
    np.testing.assert_allclose(found.score(pa.Table.from_pandas(data)), expected, atol=1e-6)
    texts = [{name: value if value is None else str(value) for name, value in row.items()} for row in rows_of(data)]
    mixed = [row if index % 2 else text for index, (row, text) in enumerate(zip(rows_of(data), texts, strict=True))]
    np.testing.assert_allclose(found.score(mixed), expected, atol=1e-6)


def test_without_torch_run_or_data(model, exported, tmp_path):
    """… nor anything left in the user's home: ONNX Runtime would send what it is used for to its maker."""
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    rows, root = rows_of(frame(20, 2)), model.folder.parents[2]
    away = root.rename(root.with_name("away"))
    try:
        done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(exported), json.dumps(rows)],
                              capture_output=True, text=True, cwd=exported, env=environment)
    finally:
        away.rename(root)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
    expected = model.predict_proba(frame(20, 2))
    for scores in json.loads(done.stdout):
        np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_the_example_of_the_signature(exported):
    found = ExportedModel(exported)
    request, expected = found.signature.example["request"], found.signature.example["expected_scores"]
    assert {each["name"] for each in request["inputs"]} == set(found.signature.raw) and len(expected) == 3
    columns = {each["name"]: pa.array(each["data"]) for each in request["inputs"]}
    np.testing.assert_allclose(found.score(columns), expected, atol=1e-6)
    assert (found.signature.name, found.signature.raw["tags"].list) == ("shops", "|")
    assert {each["name"]: each["datatype"] for each in request["inputs"]}["price"] == "FP64"


def test_the_model_card(exported):
    card = (exported / folder.CARD).read_text(encoding="utf-8")
    for word in ("# shops", "dcnv2", "Licence", "raw ids: yes", "| validation |", "town", "| price | float | yes |"):
        assert word in card, word


def test_what_cannot_be_read_is_told(exported):
    found, row = ExportedModel(exported), rows_of(frame(1))[0]
    for wrong, said in (({"price": "dear"}, "'dear'"), ({"price": float("inf")}, "finite")):
        with pytest.raises(DataError, match=said):
            found.score([row | wrong])
    del row["town"]
    for rows in ([row], [row] * 20):
        with pytest.raises(DataError, match="no column 'town'"):
            found.score(rows)


@pytest.mark.parametrize("file", ["model.onnx", "model.onnx.data", "encoding/encoding.json", "signature.json"])
def test_damage_is_noticed(exported, file, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", exported, copy], check=True)
    path = copy / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(DataError, match=Path(file).name):
        ExportedModel(copy)


@pytest.mark.parametrize("rows", [pytest.param("bf16", marks=pytest.mark.slow), "int8"])
def test_rounded_rows_are_measured(model, rows, tmp_path):
    whole, small = folder.export(model.folder, tmp_path / "whole"), folder.export(model.folder, tmp_path / rows,
                                                                                  rows=rows)
    assert whole["largest_difference"] <= 1e-6 < small["largest_difference"] < small["tolerance"]
    assert small["auc_of_the_run"] == pytest.approx(model.metrics["validation"]["auc"], abs=1e-6)
    assert small["auc"] == pytest.approx(small["auc_of_the_run"], abs=0.02)


def test_without_its_encoding_it_takes_ids(model, tmp_path):
    folder.export(model.folder, tmp_path / "ids", encoding=False)
    found = ExportedModel(tmp_path / "ids")
    assert found.encoder is None and not found.signature.raw and not (tmp_path / "ids" / "encoding").exists()
    with pytest.raises(DataError, match="without-encoding"):
        found.score(rows_of(frame(1)))
    whole = ExportedModel(model.export(tmp_path / "whole"))
    given = whole.encode(rows_of(frame(30)))
    np.testing.assert_array_equal(found.run(given), whole.run(given))


def test_an_export_that_scores_otherwise_is_none(model, monkeypatch, tmp_path):
    write = folder.write_onnx

    def wrong(session, path, **options):
        session.model.output.bias.data += 1e-3
        try:
            return write(session, path, **options)
        finally:
            session.model.output.bias.data -= 1e-3

    monkeypatch.setattr(folder, "write_onnx", wrong)
    with pytest.raises(EngineError, match="which\n? *clickwise predict gives"):
        folder.export(model.folder, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be(model, clickwise, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(UsageError, match="things in it"):
        model.export(tmp_path / "full")
    for words, code, said in (((tmp_path, "--out", "m"), 1, "clickwise train"),
                              ((model.folder, "--out", "m", "--rows", "fp8"), 2, "fp8"),
                              ((model.folder, "--out", "full"), 2, "things in it")):
        result = clickwise("export", *words)
        assert result.code == code and said in result.err and "Traceback" not in result.err, result.err
    assert not (tmp_path / "m").exists()


def test_from_the_command_line(model, clickwise):
    result = clickwise("export", model.folder, "--out", "m", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["rows"] == 40 and ExportedModel(Path("m")).signature.version == "1"
