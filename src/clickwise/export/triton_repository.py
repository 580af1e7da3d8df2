"""A model repository for NVIDIA Triton, of an export.

    NAME            ensemble: raw rows, as texts, to a probability, by the next two
    NAME_encoding   python backend: raw rows to the tensors of the graph
    NAME_graph      ONNX backend, or the python backend with ONNX Runtime: tensors to a probability
    NAME_raw        python backend: raw rows to a probability, in one process

Of an export without its encoding there is NAME_graph alone. What is the same file in several of them is one on the
disk, where the file system can.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from clickwise.errors import DataError, UsageError
from clickwise.files import link_or_copy, whole_folder, write_text
from clickwise.serve.signature import FILE, Signature

Backend = Literal["onnxruntime", "python"]
Device = Literal["cpu", "gpu"]
EXPORT = "export"  # beside model.py, as `serve.triton_model` expects it
CONFIG = "config.pbtxt"
MODEL_PY = """import os
import sys

# Triton's own Python does not look at it.
sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))

from clickwise.serve.triton_model import {} as TritonPythonModel  # noqa: E402, F401
"""
MOST_ROWS = 4096  # of the requests that Triton puts together
OUTPUT = {"probability": ("FP32", [1])}
Tensors = Mapping[str, tuple[str, list[int]]]  # name → datatype, shape of a row


def write_repository(export: Path, repository: Path, *, backend: Backend = "onnxruntime",
                     device: Device = "cpu") -> list[str]:
    """Adds an export to a model repository, a new one or one that is there, as its version says; the names of the
    models. `backend` and `device` are those of the graph.

    Raises UsageError for a version that is no number or there already, and DataError for a model whose states go on
    with events, which Triton does not know of.
    """
    signature = Signature.load(export)
    if not (signature.version.isdecimal() and int(signature.version)):
        raise UsageError("--version", found=repr(signature.version), expected="1, 2, …, as Triton numbers versions")
    if signature.goes_on:
        raise DataError(export, found="states that go on with events", do="clickwise serve",
                        expected="a model that scores rows by themselves")
    graph = {each.name: (each.datatype, [each.width or -1]) for each in signature.inputs}
    raw = {name: ("STRING", [1]) for name in signature.raw}
    models = {f"{signature.name}_graph": _Model(graph, OUTPUT, "Graph", device)}
    if raw:
        models |= {f"{signature.name}_encoding": _Model(raw, graph, "Encoding"),
                   f"{signature.name}_raw": _Model(raw, OUTPUT, "RawRows"),
                   signature.name: _Model(raw, OUTPUT)}
    for name in models:
        if (path := repository / name / signature.version).exists():
            raise UsageError(path, found="a version of the model", expected="a version that is not there yet",
                             do=f"--version {int(signature.version) + 1}")
    for name, model in models.items():
        with whole_folder(repository / name / signature.version) as folder:
            _fill(folder, export, model, backend)
        write_text(repository / name / CONFIG, _config(name, model, backend, graph, signature.name))
    return list(models)


class _Model:
    """`kind`: the class of `serve.triton_model` that runs it; an ensemble has none."""

    def __init__(self, inputs: Tensors, outputs: Tensors, kind: str = "", device: Device = "cpu") -> None:
        self.inputs, self.outputs, self.kind, self.device = inputs, outputs, kind, device

    def backend(self, of_graph: Backend) -> str:
        return of_graph if self.kind == "Graph" else "python" if self.kind else ""


def _fill(folder: Path, export: Path, model: _Model, backend: Backend) -> None:
    """What a version of the model needs of the export."""
    if not model.kind:
        (folder / ".keep").touch()  # an ensemble has an empty folder, which copies may leave out
    elif model.backend(backend) == "onnxruntime":
        _link(export, folder, [path.name for path in export.glob("model.onnx*")])
    else:
        write_text(folder / "model.py", MODEL_PY.format(model.kind))
        names = [path.relative_to(export).as_posix() for path in export.rglob("*") if path.is_file()]
        if model.kind == "Encoding":
            names = [name for name in names if name == FILE or not name.startswith("model.")]
        _link(export, folder / EXPORT, names)


def _link(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(source / name, target / name)


def _config(name: str, model: _Model, backend: Backend, graph: Tensors, ensemble: str) -> str:
    """The model's config.pbtxt."""
    lines = [f'name: "{name}"', f"max_batch_size: {MOST_ROWS}",
             f'backend: "{model.backend(backend)}"' if model.kind else 'platform: "ensemble"']
    lines += _tensors("input", model.inputs)
    # The graph gives [rows]; clients get [rows, 1], as all of Triton's answers have a shape for each row.
    lines += _tensors("output", model.outputs, "reshape: { shape: [ ] } " if backend == "onnxruntime" and
                      model.kind == "Graph" else "")
    if model.kind:
        kind = "KIND_GPU" if model.device == "gpu" else "KIND_CPU"
        lines += [f"instance_group [ {{ kind: {kind} count: 1 }} ]", "dynamic_batching { }"]
    else:
        lines += ["ensemble_scheduling {", *_step(f"{ensemble}_encoding", model.inputs, graph),
                  *_step(f"{ensemble}_graph", graph, model.outputs), "}"]
    return "\n".join(lines) + "\n"


def _tensors(what: str, tensors: Tensors, further: str = "") -> list[str]:
    return [f'{what} [ {{ name: {_text(name)} data_type: TYPE_{datatype} dims: {shape} {further}}} ]'
            for name, (datatype, shape) in tensors.items()]


def _step(model: str, inputs: Tensors, outputs: Tensors) -> list[str]:
    lines = [f"  step [ {{ model_name: {_text(model)} model_version: -1"]
    lines += [f"    {key}_map {{ key: {_text(name)} value: {_text(name)} }}"
              for key, tensors in (("input", inputs), ("output", outputs)) for name in tensors]
    return [*lines, "  } ]"]


def _text(name: str) -> str:
    return json.dumps(name)
