"""A graph as an ONNX file, and beside it its weights, which ONNX Runtime maps into memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from clickwise.errors import EngineError
from clickwise.export.graph import Graph
from clickwise.export.prelu import without_branches
from clickwise.export.recurrence import as_scans, record_recurrences
from clickwise.export.tables import RowType
from clickwise.export.traced import OUTPUTS, quiet, traced
from clickwise.run.session import Session
from clickwise.serve.inputs import GraphInput

OPSET = 20
OUTSIDE = 1024  # bytes from which on a tensor is not in the ONNX file itself
ALIGNMENT = 4096  # bytes: what is mapped into memory begins at a page


def write_onnx(session: Session, path: str | Path, *, rows: RowType | None = None) -> tuple[GraphInput, ...]:
    """Writes the session's model to `path`, and its weights to a file beside it with `.data` at the end of its name;
    returns what the graph takes, in order. It gives `logit` and `probability`, float32 [B].

    rows   the type in which the tables are stored: None (as the run has them), bf16, or int8 with a scale per row;
           all arithmetic is float32, whatever type the model was trained in

    Tables are copied a part at a time. Raises EngineError where the ONNX packages are not installed.
    """
    ir, passes = _packages()
    path = Path(path)
    graph = Graph(session, rows=rows, values=False)
    record_recurrences(graph)
    with quiet():
        program = torch.onnx.export(traced(graph), dynamo=True, opset_version=OPSET, verbose=False,
                                    input_names=[input_.name for input_ in graph.inputs], output_names=list(OUTPUTS))
    model = program.model
    as_scans(model, ir)
    without_branches(model, ir)
    passes.RemoveUnusedNodesPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)  # of lines of source, and where they lie on this machine
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    _write_weights(model, ir, path.with_name(path.name + ".data"), graph.tensors_of_tables())
    ir.save(model, path)
    return graph.inputs


def _write_weights(model: Any, ir: Any, data: Path, tables: dict[str, Iterator[torch.Tensor]]) -> None:
    """Writes the model's tensors to `data`, those of `tables` with the values that they have there, but for small ones;
    the model then refers to them."""
    initializers = model.graph.initializers
    if missing := tables.keys() - initializers.keys():
        raise EngineError(f"torch {torch.__version__}", found=f"tables that its exporter to ONNX lost: {missing}",
                          expected="a version that clickwise is tested with", do="clickwise doctor")
    with open(data, "wb") as file:
        for name, value in initializers.items():
            tensor = value.const_value
            if name not in tables and tensor.nbytes < OUTSIDE:
                continue
            start = file.seek(-file.tell() % ALIGNMENT, os.SEEK_CUR)
            for part in tables[name] if name in tables else [torch.from_numpy(tensor.numpy())]:
                file.write(_bytes(part))
            value.const_value = ir.ExternalTensor(data.name, start, file.tell() - start, tensor.dtype, name=name,
                                                  shape=tensor.shape, base_dir=str(data.parent))


def _bytes(part: torch.Tensor) -> memoryview:
    return memoryview(part.contiguous().view(torch.uint8).numpy()).cast("B")


def _packages() -> tuple[Any, Any]:
    """`onnx_ir`, and its passes over a model."""
    try:
        import onnx_ir
        import onnxscript  # noqa: F401
        from onnx_ir.passes import common
    except ImportError as error:
        raise EngineError("ONNX", found=f"no package {error.name!r}", expected="the packages that write ONNX files",
                          do="pip install 'clickwise[export]'") from None
    return onnx_ir, common
