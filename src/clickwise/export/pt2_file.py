"""A graph compiled to machine code by AOTInductor: what runs it needs torch, and no compiler."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import torch

from clickwise.errors import EngineError
from clickwise.export.graph import Graph
from clickwise.export.tables import RowType
from clickwise.export.traced import quiet, traced
from clickwise.run.session import Session
from clickwise.serve.inputs import GraphInput


def write_pt2(session: Session, path: str | Path, *, rows: RowType | None = None) -> tuple[GraphInput, ...]:
    """Writes the session's model to `path`, which ends in `.pt2`, weights included; returns what it takes, in order.

    `torch._inductor.aoti_load_package(path)` gives a function of these tensors with the results (logit, probability),
    float32 [B] each. It runs on processors like this one. `rows` as in `write_onnx`. Histories have one length, the
    most positions that the model reads, for each of which a recurrence is compiled anew: that takes minutes.

    Raises EngineError where there is no C++ compiler, or this torch has no AOTInductor.
    """
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler.split()[0]) is None:
        raise EngineError(path, found=f"no C++ compiler {compiler!r}", expected="one, for AOTInductor",
                          do="install g++ or set CXX, or export to ONNX alone, which needs none")
    compile_graph = compiler_of_graphs()
    graph = Graph(session, rows=rows, any_length=False)
    with quiet():
        compile_graph(traced(graph), package_path=str(path))
    return graph.inputs


def compiler_of_graphs():
    """torch's function that compiles a graph to a file. Raises EngineError where there is none."""
    try:
        return torch._inductor.aoti_compile_and_package
    except AttributeError:
        raise EngineError(f"torch {torch.__version__}", found="no torch._inductor.aoti_compile_and_package",
                          expected="a torch with AOTInductor", do="pip install 'torch>=2.11,<2.14'") from None
