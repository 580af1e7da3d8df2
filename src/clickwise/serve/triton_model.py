"""What Triton's python backend runs: raw rows, as texts, to probabilities or tensors, and tensors to probabilities.

Triton makes one of these in a process of its own, and calls it with the requests that it has put together. An input is
a raw column, [rows, 1]; an empty text is a missing value. A request that cannot be read gets an error of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton  # there inside of Triton alone

from clickwise.errors import ClickwiseError
from clickwise.serve.exported import ExportedModel, Tensors
from clickwise.serve.served import Served

EXPORT = "export"  # beside model.py


class RawRows:
    """Raw rows to `probability` [rows, 1]."""

    has_graph = True

    def initialize(self, args: dict[str, str]) -> None:
        model = ExportedModel(Path(args["model_repository"]) / args["model_version"] / EXPORT, graph=self.has_graph)
        self.served = Served(model, args["model_name"], args["model_version"])
        self.names = [each["name"] for each in json.loads(args["model_config"])["input"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """An answer for each request."""
        answers: list[Any] = [None] * len(requests)
        read: list[tuple[int, Tensors]] = []
        for index, request in enumerate(requests):
            try:
                read.append((index, self.tensors(request)))
            except ClickwiseError as error:
                answers[index] = triton.InferenceResponse(error=triton.TritonError(" ".join(str(error).split())))
        for (index, _), outputs in zip(read, self.outputs([tensors for _, tensors in read]), strict=True):
            answers[index] = triton.InferenceResponse([triton.Tensor(name, array) for name, array in outputs.items()])
        return answers

    def tensors(self, request: Any) -> Tensors:
        """The tensors of a request's raw rows. Raises ClickwiseError."""
        columns = {name: [value.decode("utf-8", "replace") for value in _input(request, name).ravel().tolist()]
                   for name in self.names}
        return self.served.encode(columns, len(columns[self.names[0]]))

    def outputs(self, several: list[Tensors]) -> list[dict[str, np.ndarray]]:
        """What is answered to each of these requests, which are scored as one."""
        if not several:
            return []
        rows = np.cumsum([len(next(iter(tensors.values()))) for tensors in several])
        found = self.served.score(self.served.joined(several))
        return [{"probability": part[:, None]} for part in np.split(found, rows[:-1])]


class Encoding(RawRows):
    """Raw rows to the tensors that the graph takes."""

    has_graph = False

    def outputs(self, several):
        return several


class Graph(RawRows):
    """Tensors to `probability` [rows, 1]."""

    def tensors(self, request):
        return {name: _input(request, name) for name in self.names}


def _input(request: Any, name: str) -> np.ndarray:
    return triton.get_input_tensor_by_name(request, name).as_numpy()
