"""Requests and answers of the Open Inference Protocol, version 2, over REST: JSON, and tensors in binary behind it.

    asked = read_request(body, header_length, …)               -> Asked: raw columns by name, or the graph's tensors
    answer(asked, "kuairand", "1", {"probability": scores})    -> the body, and how long its JSON is, if tensors follow

A raw column is a tensor of shape [rows] or [rows, 1], `null` in JSON or NaN for a missing value; a column of lists is
text, or in JSON a list for each row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from clickwise.errors import UsageError, nearest
from clickwise.serve.given_ids import Ids, graph_tensors
from clickwise.serve.signature import RawInput, Signature
from clickwise.serve.tensors import DATATYPES, TEXT, check_values, texts, values_of

OUTPUTS = ("probability",)
MOST_ROWS, MOST_TENSORS, MOST_NAME = 65_536, 10_000, 500


@dataclasses.dataclass(slots=True)
class Asked:
    """A request: `columns`, raw values by column, or `tensors`, what the graph takes; `outputs`, each with whether it
    is to be binary; `encode`, what makes tensors of its columns."""

    rows: int
    columns: dict[str, Sequence[Any] | np.ndarray] | None
    tensors: dict[str, np.ndarray] | None
    outputs: Sequence[tuple[str, bool]]
    id: str | None = None
    encode: Callable[[], dict[str, np.ndarray]] | None = None


def read_request(body: bytes, header_length: int | None, signature: Signature, raw: Mapping[str, RawInput],
                 ids: Ids) -> Asked:
    """What a body asks for of a model that takes the columns `raw`; `header_length` is that of its JSON, where tensors
    follow in binary. Raises UsageError, which says what is wrong with it."""
    head, rest = body, None
    if header_length is not None:
        if not 0 <= header_length <= len(body):
            raise UsageError("Inference-Header-Content-Length", found=str(header_length),
                          expected=f"0 … {len(body)}, the length of the body")
        head, rest = body[:header_length], memoryview(body)[header_length:]
    request = read_json(head)
    given = request.get("inputs")
    if type(given) is not list or not given:
        raise UsageError("inputs", found=_kind(given), expected="a list of tensors")
    if len(given) > MOST_TENSORS:
        raise UsageError("inputs", found=f"{len(given):,} tensors", expected=f"at most {MOST_TENSORS:,}")
    parameters = _parameters(request, "parameters")
    encoded = parameters.get("encoded", not raw)
    if type(encoded) is not bool:
        raise UsageError("parameters.encoded", found=_kind(encoded), expected="true or false")
    found: dict[str, Any] = {}
    at = 0
    for tensor in given:
        name, datatype, shape = _named(tensor)
        if name in found:
            raise UsageError(f"input {name!r}", found="twice", expected="once")
        size = None
        if "parameters" in tensor:
            size = _parameters(tensor, f"input {name!r}, parameters").get("binary_data_size")
        if size is None:
            found[name] = datatype, shape, tensor.get("data"), None
            continue
        if type(size) is not int or rest is None or not 0 <= size <= len(rest) - at:
            raise UsageError(f"input {name!r}, binary_data_size", found=str(size)[:40],
                          expected="Inference-Header-Content-Length, and bytes behind the JSON" if rest is None else
                          f"0 … {len(rest) - at}, the bytes that are left")
        found[name] = datatype, shape, None, rest[at:at + size]
        at += size
    if rest is not None and at < len(rest):
        raise UsageError("the body", found=f"{len(rest) - at} bytes behind the last tensor", expected="none")
    outputs = _outputs(request, parameters)
    id_ = request.get("id")
    if id_ is not None and type(id_) is not str:
        raise UsageError("id", found=_kind(id_), expected="a text")
    if encoded:
        tensors, rows = graph_tensors(found, signature, ids, MOST_ROWS)
        return Asked(rows, None, tensors, outputs, id_)
    columns, rows = _raw_columns(found, raw)
    return Asked(rows, columns, None, outputs, id_)


def read_json(text: bytes) -> dict[str, Any]:
    """A JSON object. Raises UsageError."""
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageError("the body", found=f"no JSON ({str(error)[:100]})", expected="a JSON object") from None
    if type(request) is not dict:
        raise UsageError("the body", found=_kind(request), expected="a JSON object")
    return request


def _parameters(of: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    found = of.get("parameters")
    if found is None:
        return {}
    if type(found) is not dict:
        raise UsageError(where, found=_kind(found), expected="an object")
    return found


def _named(tensor: Any) -> tuple[str, str, list[int]]:
    if type(tensor) is not dict:
        raise UsageError("inputs", found=_kind(tensor), expected="objects with name, datatype, shape and data")
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if type(name) is not str or len(name) > MOST_NAME:
        raise UsageError("inputs", found=f"as a name {_kind(name)}",
                         expected=f"a text of at most {MOST_NAME} characters")
    if datatype != TEXT and (type(datatype) is not str or datatype not in DATATYPES):
        raise UsageError(f"input {_shown(name)}, datatype", found=_shown(datatype),
                      expected=", ".join((TEXT, *DATATYPES)))
    if type(shape) is not list or not 1 <= len(shape) <= 2 or \
            not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise UsageError(f"input {_shown(name)}, shape", found=_shown(shape), expected="[rows] or [rows, columns]")
    if not 1 <= shape[0] <= MOST_ROWS:
        raise UsageError(f"input {_shown(name)}, shape", found=f"{shape[0]:,} rows", expected=f"1 … {MOST_ROWS:,}",
                      do="send several requests" if shape[0] else "")
    return name, datatype, shape


def _raw_columns(given: Mapping[str, Any], raw: Mapping[str, RawInput]) -> tuple[dict[str, Any], int]:
    """Raw columns that the model knows; others are left alone."""
    columns: dict[str, Any] = {}
    rows = None
    for name, (datatype, shape, data, binary) in given.items():
        column = raw.get(name)
        if column is None:
            continue
        if len(shape) == 2 and shape[1] != 1:
            raise UsageError(f"input {name!r}, shape", found=str(shape), expected=f"[{shape[0]}] or [{shape[0]}, 1]")
        if rows is None:
            rows = shape[0]
        elif shape[0] != rows:
            raise UsageError(f"input {name!r}, shape", found=f"{shape[0]} rows", expected=f"{rows}, as of the others")
        if binary is None:
            columns[name] = _column(name, datatype, shape, data, column.list is not None)
        else:
            columns[name] = texts(name, binary, rows) if datatype == TEXT else values_of(name, datatype, binary, rows)
    if rows is None:
        raise UsageError("inputs", found=f"{len(given)} tensors, none of a column of the model",
                      expected=", ".join(list(raw)[:20]), do=nearest(next(iter(given)), raw))
    return columns, rows


def _column(name: str, datatype: str, shape: list[int], data: Any, is_of_lists: bool) -> list[Any]:
    """Values of JSON, one for each row."""
    if type(data) is not list:
        raise UsageError(f"input {name!r}, data", found=_kind(data), expected="a list of values, or binary_data_size")
    if len(data) != shape[0]:
        raise UsageError(f"input {name!r}, data", found=f"{len(data)} values",
                         expected=f"{shape[0]}, as its shape says")
    if len(shape) == 2 and all(type(value) is list and len(value) == 1 for value in data):
        data = [value[0] for value in data]
    if is_of_lists and any(type(value) is list for value in data):
        for value in data:
            check_values(name, datatype, value if type(value) is list else [value])
        return data
    check_values(name, datatype, data)
    return data


def _outputs(request: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[tuple[str, bool]]:
    every = parameters.get("binary_data_output", False)
    if type(every) is not bool:
        raise UsageError("parameters.binary_data_output", found=_kind(every), expected="true or false")
    wanted = request.get("outputs")
    if wanted is None:
        return [(name, every) for name in OUTPUTS]
    if type(wanted) is not list or not all(type(each) is dict for each in wanted) or len(wanted) > len(OUTPUTS):
        raise UsageError("outputs", found=_shown(wanted), expected=f"a list of {', '.join(OUTPUTS)}, each once at most")
    found = []
    for each in wanted:
        if each.get("name") not in OUTPUTS:
            raise UsageError("outputs", found=_shown(each.get("name")), expected=" or ".join(OUTPUTS))
        binary = _parameters(each, "outputs, parameters").get("binary_data", every)
        if type(binary) is not bool:
            raise UsageError("outputs, binary_data", found=_kind(binary), expected="true or false")
        found.append((each["name"], binary))
    return found or [(name, every) for name in OUTPUTS]


def answer(asked: Asked, name: str, version: str, scores: Mapping[str, np.ndarray]) -> tuple[bytes, int | None]:
    """The body of the answer, and how long its JSON is, where binary tensors follow it."""
    outputs: list[dict[str, Any]] = []
    tail = []
    for output, is_binary in asked.outputs:
        found = scores[output]
        entry: dict[str, Any] = {"name": output, "datatype": "FP32", "shape": [len(found)]}
        if is_binary:
            entry["parameters"] = {"binary_data_size": found.nbytes}
            tail.append(found.tobytes())
        else:
            entry["data"] = found
        outputs.append(entry)
    content: dict[str, Any] = {"model_name": name, "model_version": version}
    if asked.id is not None:
        content["id"] = asked.id
    content["outputs"] = outputs
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return (body, None) if not tail else (b"".join([body, *tail]), len(body))


def _kind(value: Any) -> str:
    """What a value of JSON is, for a message that repeats no values."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number",
             float: "a number"}
    return "nothing" if value is None else kinds.get(type(value), "something else")


def _shown(value: Any) -> str:
    """A name, a datatype or a shape, not too long."""
    if value is None or isinstance(value, (dict, list)) and len(value) > 8:
        return _kind(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
