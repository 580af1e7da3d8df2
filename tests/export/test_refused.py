"""What cannot be exported is told in one message."""

import sys

import pytest
from graph_cases import session_of
from model_inputs import spec_of

from clickwise.errors import EngineError
from clickwise.export.onnx_file import write_onnx
from clickwise.export.pt2_file import write_pt2
from clickwise.models.dcnv2 import DCNv2

SPEC = spec_of(2, [30, 9], [None, 3])
SETTINGS = dict(embedding_dim=4, bottom_mlp=[8], cross_rank=2, top_mlp=[8])


class Waits(DCNv2):
    """A model that looks at what it computed."""

    def forward(self, batch):
        logit_B = super().forward(batch)
        return logit_B if bool((logit_B > 0).any()) else -logit_B


@pytest.mark.parametrize("package", ["onnx_ir", "onnxscript"])
def test_a_missing_package(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EngineError, match=rf"no package '{package}'(?s:.*)pip install 'clickwise\[export\]'"):
        write_onnx(session_of(SPEC, "dcnv2", **SETTINGS), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [write_onnx, write_pt2])
def test_a_model_that_depends_on_values(write, tmp_path):
    with pytest.raises(EngineError, match="the model Waits"):
        write(session_of(SPEC, f"{__name__}.Waits", **SETTINGS), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    with pytest.raises(EngineError, match="no C\\+\\+ compiler 'no-such-compiler -O3'"):
        write_pt2(session_of(SPEC, "dcnv2", **SETTINGS), tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []
