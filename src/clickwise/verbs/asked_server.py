"""A server that is measured, ours or NVIDIA Triton: which of its models takes raw rows, and requests for it."""

from __future__ import annotations

import dataclasses
import json
import os
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clickwise.errors import DataError

OF_TRITON = "_raw"  # behind the name of the model of a repository that takes raw rows by itself


@dataclasses.dataclass(frozen=True)
class AskedServer:
    """`model` takes the raw columns `columns`, all as texts. `process`, where it is known, is that of the server."""

    url: str
    model: str
    columns: tuple[str, ...]
    process: int | None = None

    @classmethod
    def at(cls, url: str, name: str | None = None, process: int | None = None) -> AskedServer:
        """The server at an address, with its model `name`, or its only one. Raises DataError where none answers, and
        where there is no such model."""
        index = _told(url, "/v2/repository/index", b"{}")
        served = sorted({each["name"] for each in index if each.get("state") == "READY"})
        if name is None:
            found = [each for each in served if each.endswith(OF_TRITON)] or served
        else:
            found = [each for each in (name + OF_TRITON, name) if each in served][:1]
        if len(found) != 1:
            raise DataError(url, found=f"the models {', '.join(served) or '(none)'}", expected=name or
                            "one that takes raw rows", do="clickwise bench EXPORT --what serve --url URL")
        inputs = _told(url, f"/v2/models/{found[0]}")["inputs"]
        return cls(url, found[0], tuple(each["name"] for each in inputs), process)

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    def request(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """`infer` with these rows: every value as text, [rows, 1], missing ones empty, which all servers take."""
        body = json.dumps({"inputs": [{"name": name, "datatype": "BYTES", "shape": [len(rows), 1],
                                       "data": [_text(row[name]) for row in rows]} for name in self.columns]}).encode()
        host, port = self.address
        return (f"POST /v2/models/{self.model}/infer HTTP/1.1\r\nHost: {host}:{port}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body

    def cpu_s(self) -> float | None:
        """Processor seconds of the server and all that it has started; None where the system does not tell."""
        if self.process is None or not Path(f"/proc/{self.process}").exists():
            return None
        return sum(map(_cpu_s, processes(self.process)))


def processes(of: int) -> list[int]:
    """A process and all that it has started, in any of its threads."""
    children = " ".join(path.read_text(encoding="utf-8") for path in Path(f"/proc/{of}/task").glob("*/children"))
    return [of, *(each for child in children.split() for each in processes(int(child)))]


def _cpu_s(process: int) -> float:
    user, system = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _told(url: str, path: str, body: bytes | None = None) -> Any:
    """What a server answers, as JSON. Raises DataError."""
    try:
        with urllib.request.urlopen(url.rstrip("/") + path, body, timeout=10) as answer:
            return json.load(answer)
    except (OSError, ValueError) as error:
        raise DataError(url, found=f"no answer to {path}: {error}",
                        expected="a server with the Open Inference Protocol") from None
