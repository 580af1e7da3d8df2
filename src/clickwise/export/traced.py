"""A graph recorded by `torch.export`, for any number of rows."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import torch
from torch.export import Dim, ExportedProgram

from clickwise.errors import EngineError
from clickwise.export.graph import Graph
from clickwise.serve.inputs import GraphInput

OUTPUTS = ("logit", "probability")
ROWS, IDS = 5, 3  # of the example that is recorded


def traced(graph: Graph) -> ExportedProgram:
    """The graph as one program for any number of rows, of ids in a bag, and of positions in a history whose length is
    free. Raises EngineError for a model that depends on the values of what it is given."""
    rows = Dim("rows")
    shapes = []
    for input_ in graph.inputs:
        shape = {0: rows}
        if input_.kind == "bag":
            shape[1] = Dim(f"{input_.name}_ids")
        elif input_.kind == "history" and input_.length is None:
            shape[1] = Dim("positions", min=input_.least)
        shapes.append(shape)
    example = tuple(_example(input_) for input_ in graph.inputs)
    try:
        with torch.no_grad():
            return torch.export.export(graph, example, dynamic_shapes=(tuple(shapes),), strict=False)
    except Exception as error:  # of many kinds, and what the model itself raises
        raise EngineError(f"the model {type(graph.model).__name__}", found=f"{error}".strip().partition("\n")[0],
                          expected="a forward that does the same whatever the values and the number of rows",
                          do="see docs/add_a_model.md, on exports") from error


def _example(input_: GraphInput) -> torch.Tensor:
    if input_.kind == "numerical":
        return torch.zeros(ROWS, len(input_.features))
    wide = {"ids": len(input_.features), "bag": IDS, "history": input_.length or input_.least + 2}
    return torch.zeros(ROWS, wide[input_.kind], dtype=torch.int64)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporters and ONNX's optimizer say of themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch._inductor", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
