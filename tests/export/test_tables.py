"""Tables of an export in fewer bytes: the scores are those of the model whose rows were rounded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from graph_cases import arrays_of, opened, ran, scored, session_of
from model_inputs import history_spec, spec_of

import clickwise
from clickwise.export import tables
from clickwise.export.onnx_file import write_onnx
from clickwise.feature_spec import FeatureSpec
from clickwise.run.session import build_session
from clickwise.training_recipe import parse_recipe
from clickwise.wiring import engines_of

pytest.importorskip("onnxruntime")

FLAT = spec_of(2, [30, 9, 400], [None, 4, None])
HISTORY = history_spec([9], [30, 5], [30, 5], length=4)
MODELS = {"dcnv2": (FLAT, dict(embedding_dim=16, embedding_dims={"c1": 8}, bottom_mlp=[8], cross_rank=2, top_mlp=[8])),
          "din": (HISTORY, dict(embedding_dim=8, top_mlp=[8], unit_mlp=[6]))}


def set_rows(session, rounded):
    """Rounds every row of the model."""
    for engine in engines_of(session.model):
        for table in engine.tables:
            engine.set_rows(table.name, rounded(engine.rows_of(table.name).float()))


def int8(rows_RD):
    scale_R1 = rows_RD.abs().amax(1, keepdim=True) / 127
    return torch.where(scale_R1 == 0, 0.0, torch.round(rows_RD / scale_R1) * scale_R1)


ROUNDED = {"bf16": lambda rows_RD: rows_RD.bfloat16().float(), "int8": int8}


@pytest.mark.parametrize("rows", [pytest.param("bf16", marks=pytest.mark.slow), "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_rows_are_rounded_and_nothing_else_is(name, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "AT_ONCE", 24)
    spec, settings = MODELS[name]
    session = session_of(spec, name, **settings)
    engine = session.model.embeddings
    engine.set_rows(engine.tables[0].name, engine.rows_of(engine.tables[0].name) * (torch.arange(
        engine.tables[0].rows) % 3 > 0)[:, None])  # every third is zeros
    arrays = arrays_of(spec, 64)
    as_trained = scored(session, arrays, 64)["logit"]
    inputs = write_onnx(session, tmp_path / "model.onnx", rows=rows)
    found = ran(opened(tmp_path / "model.onnx"), inputs, arrays, 64)
    set_rows(session, ROUNDED[rows])
    np.testing.assert_allclose(found["probability"], scored(session, arrays, 64)["probability"], rtol=0, atol=1e-6)
    assert np.abs(found["logit"] - as_trained).max() > 1e-5


@pytest.mark.parametrize(("rows", "of_value"), [(None, 4), ("bf16", 2), ("int8", 1 + 4 / 16)])
def test_the_file_holds_the_bytes_of_the_rows(rows, of_value, tmp_path):
    session = session_of(spec_of(0, [20_000]), "dcnv2", embedding_dim=16, cross_rank=2, top_mlp=[8])
    write_onnx(session, tmp_path / "model.onnx", rows=rows)
    assert 0 <= (tmp_path / "model.onnx.data").stat().st_size - 20_000 * 16 * of_value < 16_384
    graph = (tmp_path / "model.onnx").read_bytes()
    assert len(graph) < 16_384
    assert str(Path(clickwise.__file__).parent).encode() not in graph and b"pkg.torch" not in graph


def test_rows_trained_in_bfloat16_are_stored_as_they_are(tmp_path):
    spec, settings = MODELS["dcnv2"]
    session = session_of(spec, "dcnv2", embedding={"table_dtype": "bfloat16"}, **settings)
    inputs = write_onnx(session, tmp_path / "model.onnx")
    arrays = arrays_of(spec, 64)
    np.testing.assert_allclose(ran(opened(tmp_path / "model.onnx"), inputs, arrays, 64)["probability"],
                               scored(session, arrays, 64)["probability"], rtol=0, atol=1e-6)
    assert (tmp_path / "model.onnx.data").stat().st_size < 3 * 4096 + 2 * 16 * 430 + 2 * 8 * 9


@pytest.mark.slow
def test_tables_of_more_than_two_gigabytes(tmp_path):
    spec = FeatureSpec.of(("a",), {"x": 4_600_000, "y": 4_500_000, "z": 1000})
    session = build_session(parse_recipe({"data": {"path": "elsewhere"}, "model": {
        "name": "dcnv2", "embedding_dim": 64, "bottom_mlp": [8], "cross_rank": 8, "top_mlp": [8]},
        "embedding": {"optimizer": {"name": "sgd"}}}, "test"), spec)
    inputs = write_onnx(session, tmp_path / "model.onnx")
    try:
        assert (tmp_path / "model.onnx.data").stat().st_size > 2**31
        arrays = {"a": np.zeros(3, np.float32), "x": np.array([0, 4_599_999, 5]), "y": np.array([4_499_999, 0, 9]),
                  "z": np.array([0, 1, 999])}
        np.testing.assert_allclose(ran(opened(tmp_path / "model.onnx"), inputs, arrays, 3)["probability"],
                                   scored(session, arrays, 3)["probability"], rtol=0, atol=1e-6)
    finally:
        (tmp_path / "model.onnx.data").unlink()
