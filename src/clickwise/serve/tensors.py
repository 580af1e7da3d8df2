"""The datatypes of the protocol: values in JSON, and in binary, little-endian, texts with their length before them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from clickwise.errors import UsageError

TEXT = "BYTES"
DATATYPES = {"BOOL": np.dtype("?"), **{f"{sign}INT{bits}": np.dtype(f"<{kind}{bits // 8}")
                                       for sign, kind in (("", "i"), ("U", "u")) for bits in (8, 16, 32, 64)},
             **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)}}
_NOTHING = type(None)
_KINDS = {"b": {bool, _NOTHING}, "i": {int, _NOTHING}, "u": {int, _NOTHING}, "f": {int, float, _NOTHING}}
_IN_JSON = {TEXT: {str, _NOTHING}, **{name: _KINDS[dtype.kind] for name, dtype in DATATYPES.items()}}
_WORDS = {"b": "true, false or null", "i": "whole numbers or null", "u": "whole numbers or null",
          "f": "numbers or null"}
_LENGTH = struct.Struct("<I")


def check_values(name: str, datatype: str, values: list[Any]) -> None:
    """Raises UsageError for values of JSON that are not of the datatype."""
    kinds = set(map(type, values))
    if not kinds <= _IN_JSON[datatype]:
        words = "texts or null" if datatype == TEXT else _WORDS[DATATYPES[datatype].kind]
        odd = next(kind for kind in kinds if kind not in _IN_JSON[datatype])
        raise UsageError(f"input {name!r}, data", found=f"a value of the type {_named(odd)}",
                         expected=f"{words}, as {datatype} says")


def _named(kind: type) -> str:
    return {dict: "object", list: "list", str: "text", bool: "boolean", _NOTHING: "null"}.get(kind, "number")


def values_of(name: str, datatype: str, binary: memoryview, count: int) -> np.ndarray:
    """So many numbers or booleans. Raises UsageError."""
    dtype = DATATYPES[datatype]
    if len(binary) != count * dtype.itemsize:
        raise UsageError(f"input {name!r}, binary_data_size", found=f"{len(binary)} bytes",
                         expected=f"{count * dtype.itemsize}: {count} values of {datatype}")
    return np.frombuffer(binary, dtype)


def texts(name: str, binary: memoryview, count: int) -> list[str]:
    """So many texts. Raises UsageError."""
    found, at, end = [], 0, len(binary)
    for index in range(count):
        if at + 4 > end or (size := _LENGTH.unpack_from(binary, at)[0]) > end - at - 4:
            raise UsageError(f"input {name!r}, row {index}", found="a text that ends behind the tensor",
                             expected="its length in 4 bytes, little-endian, then its bytes")
        try:
            found.append(str(binary[at + 4:at + 4 + size], "utf-8"))
        except UnicodeDecodeError:
            raise UsageError(f"input {name!r}, row {index}", found="bytes that are no UTF-8",
                             expected="UTF-8") from None
        at += 4 + size
    if at != end:
        raise UsageError(f"input {name!r}, binary_data_size", found=f"{end - at} bytes behind {count} texts",
                         expected="none")
    return found
