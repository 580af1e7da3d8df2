"""Ids and numbers as a client sends them: the tensors that the graph takes, checked before the graph sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clickwise.errors import UsageError, nearest
from clickwise.serve.inputs import PADDING, GraphInput
from clickwise.serve.signature import Signature
from clickwise.serve.tensors import check_values, values_of

MOST_IDS = 10_000  # of one list
Ids = Mapping[str, np.ndarray]  # by input the number of ids of each of its features


def id_limits(signature: Signature) -> dict[str, np.ndarray]:
    """How many ids each feature has that stands in a tensor of ids, by the tensor's name."""
    return {input_.name: np.array([signature.ids[name] for name in input_.features], np.int64)
            for input_ in signature.inputs if input_.kind != "numerical"}


def graph_tensors(given: Mapping[str, Any], signature: Signature, ids: Ids, most_rows: int
                  ) -> tuple[dict[str, np.ndarray], int]:
    """The tensors of a request by name, and how many rows they have. `given`: datatype, shape, and data or bytes.
    Raises UsageError."""
    wanted = {input_.name: input_ for input_ in signature.inputs}
    for name in given:
        if name not in wanted:
            raise UsageError(f"input {name!r}", found="no tensor of the model", expected=", ".join(wanted),
                             do=nearest(name, wanted))
    found: dict[str, np.ndarray] = {}
    rows = None
    for name, input_ in wanted.items():
        if name not in given:
            raise UsageError("inputs", found=f"no {name!r}", expected=", ".join(wanted))
        tensor = _tensor(input_, *given[name])
        rows = len(tensor) if rows is None else rows
        if len(tensor) != rows:
            raise UsageError(f"input {name!r}, shape", found=f"{len(tensor)} rows",
                             expected=f"{rows}, as of the others")
        _check(input_, tensor, ids.get(name))
        found[name] = tensor
    return found, rows or 0


def _tensor(input_: GraphInput, datatype: str, shape: list[int], data: Any, binary: memoryview | None) -> np.ndarray:
    where, wanted = f"input {input_.name!r}", input_.datatype
    if datatype != wanted:
        raise UsageError(f"{where}, datatype", found=datatype, expected=wanted)
    width = input_.width
    if len(shape) != 2 or (shape[1] != width if width is not None else not 1 <= shape[1] <= MOST_IDS):
        raise UsageError(f"{where}, shape", found=str(shape),
                         expected=f"[rows, {width}]" if width is not None else f"[rows, 1 … {MOST_IDS:,}]")
    count = shape[0] * shape[1]
    if binary is not None:
        return values_of(input_.name, datatype, binary, count).reshape(shape)
    if type(data) is list and data and type(data[0]) is list:
        if len(data) != shape[0] or not all(type(row) is list and len(row) == shape[1] for row in data):
            raise UsageError(f"{where}, data", found="lists of other lengths", expected=f"those of the shape {shape}")
        data = [value for row in data for value in row]
    if type(data) is not list or len(data) != count:
        raise UsageError(f"{where}, data", found=f"{len(data)} values" if type(data) is list else "no list",
                         expected=f"{count}, as its shape says")
    check_values(input_.name, datatype, data)
    if None in data:
        raise UsageError(f"{where}, data", found="null", expected="a number for every feature")
    try:
        return np.array(data, np.float32 if wanted == "FP32" else np.int64).reshape(shape)
    except OverflowError:
        raise UsageError(f"{where}, data", found="a number beyond 64 bits", expected=wanted) from None


def _check(input_: GraphInput, tensor: np.ndarray, ids: np.ndarray | None) -> None:
    if ids is None:
        if not np.isfinite(tensor).all():
            row, column = np.argwhere(~np.isfinite(tensor))[0]
            raise UsageError(f"input {input_.name!r}, row {row}, {input_.features[column]}", found="a number that is "
                             "not finite", expected="a finite number")
        return
    least = PADDING if input_.kind == "bag" else 0
    bad = (tensor < least) | (tensor >= ids)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        index = column if len(ids) > 1 else 0
        raise UsageError(f"input {input_.name!r}, row {row}, {input_.features[index]}",
                         found=f"the id {tensor[row, column]}", expected=f"{least} … {ids[index] - 1}")
