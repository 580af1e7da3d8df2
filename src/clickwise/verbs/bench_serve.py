"""`clickwise bench EXPORT --what serve`: latencies of a server at given rates, in an open loop, and what it costs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from clickwise import machine
from clickwise.encoding.raw_file import RawFile
from clickwise.errors import DataError, EngineError
from clickwise.serve.exported import ENCODING
from clickwise.serve.requests import request_of
from clickwise.serve.signature import FILE, Signature
from clickwise.verbs.open_loop import open_loop

RATES = (100.0, 500.0, 1000.0)  # requests per second
REQUESTS = 256  # different ones
WARM_UP = 200


def bench_serve(target: Path, *, source: Path | None = None, rates: Sequence[float] = RATES,
                batch_sizes: Sequence[int] = (1,), seconds: float = 10.0, url: str | None = None) -> dict[str, Any]:
    """A row of figures per batch size and rate (`rows`): answers per second, percentiles of their latency in
    milliseconds, counted from the moment at which a request was due, the shares that were shed (503, 504) and that
    failed, and the processor time of the server per request, in microseconds.

    `target` is an export, or a run, which is exported for it. The rows that are sent are those of `source`, a file of
    raw rows, or of the export's example. With `url` a server that runs already is asked, whose time is not known: ours,
    or NVIDIA Triton with a repository of this export, whose model NAME_raw takes all as texts.
    """
    with tempfile.TemporaryDirectory(prefix="clickwise-") as temporary:
        export = _export_of(target, Path(temporary))
        signature = Signature.load(export)
        rows = _rows(export, signature, source)
        found = []
        with contextlib.nullcontext((url, None)) if url else _server(export) as (address, process):
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port or 80
            request = _request_of_triton if url and _is_triton(address) else _request
            for size in batch_sizes:
                requests = [request(signature, f"{host}:{port}", [rows[(first + index) % len(rows)]
                                                                  for index in range(size)])
                            for first in range(0, REQUESTS * size, size)]
                try:
                    open_loop(host, port, requests, 200, WARM_UP / 200, connections=4)
                except OSError as error:
                    raise DataError(address, found=f"no answer: {error}", expected="a server") from None
                for rate in rates:
                    before = _cpu_s(process)
                    outcome = open_loop(host, port, requests, rate, seconds)
                    cpu_s = None if before is None else _cpu_s(process) - before
                    found.append({"batch_size": size, "rate": rate, **_figures(outcome, seconds, cpu_s)})
    return {"what": "serve", "model": signature.name, "rows": found, "seconds": seconds, **machine.circumstances()}


def _figures(outcome: Any, seconds: float, cpu_s: float | None) -> dict[str, float | None]:
    good = outcome.status == 200
    shed = np.isin(outcome.status, (503, 504))
    latency = 1e3 * outcome.latency_s[good]
    percentiles = np.percentile(latency, [50, 90, 99, 99.9]) if len(latency) else [float("nan")] * 4
    names = ("ms_p50", "ms_p90", "ms_p99", "ms_p99_9")
    return {"answers_per_s": round(float(good.sum()) / seconds, 1),
            **{name: round(float(value), 3) for name, value in zip(names, percentiles, strict=True)},
            "shed": round(float(shed.mean()), 4), "failed": round(float((~good & ~shed).mean()), 4),
            "cpu_us_per_request": None if cpu_s is None else round(1e6 * cpu_s / len(good), 1)}


def _export_of(target: Path, temporary: Path) -> Path:
    if (target / FILE).exists():
        return target
    from clickwise.export.folder import export

    export(target, temporary / "export")
    return temporary / "export"


def _rows(export: Path, signature: Signature, source: Path | None) -> list[Mapping[str, Any]]:
    """Raw rows, as a request holds them."""
    if source is None:
        if signature.example is None:
            raise DataError(export, found="no example in signature.json", expected="raw rows to send",
                            do="--input FILE, a file of raw rows")
        columns = signature.example["request"]["inputs"]
        return [dict(zip((each["name"] for each in columns), values, strict=True))
                for values in zip(*(each["data"] for each in columns), strict=True)]
    from clickwise.encoding import Encoding

    encoding = Encoding.load(export / ENCODING)
    required = {name: str(column) for name, column in signature.raw.items() if not encoding.raw_column(name).optional}
    file = RawFile.open(source, required, encoding.layout)
    rows = next(iter(file.blocks(file.having(signature.raw), 10_000))).to_pylist()
    return [{**dict.fromkeys(signature.raw), **row} for row in rows]


def _request(signature: Signature, host: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    return _posted(host, signature.name, request_of(rows, signature.raw))


def _request_of_triton(signature: Signature, host: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    tensors = [{"name": name, "datatype": "BYTES", "shape": [len(rows), 1], "data": [
        "" if row[name] is None else str(row[name]) for row in rows]} for name in signature.raw]
    return _posted(host, f"{signature.name}_raw", {"inputs": tensors})


def _posted(host: str, model: str, content: Mapping[str, Any]) -> bytes:
    body = json.dumps(content).encode()
    head = (f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n")
    return head.encode() + body


def _is_triton(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/v2", timeout=10) as answer:
            return json.load(answer).get("name") == "triton"
    except (OSError, ValueError) as error:
        raise DataError(address, found=f"no answer: {error}", expected="a server") from None


@contextlib.contextmanager
def _server(export: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """The address of a server of its own, and its process."""
    process = subprocess.Popen([sys.executable, "-m", "clickwise", "serve", str(export), "--port", "0"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"https?://[\w.\[\]:]+:\d+", line):
                threading.Thread(target=process.stdout.read, daemon=True).start()  # a full pipe would stop the server
                yield found[0], process
                return
        raise EngineError("clickwise serve", found="".join(said)[-500:] or "no word", expected="a server that is ready")
    finally:
        process.terminate()
        process.wait(30)


def _cpu_s(process: subprocess.Popen | None) -> float | None:
    """Processor seconds of a process and all its children; None where the system does not tell."""
    if process is None or not Path(f"/proc/{process.pid}").exists():
        return None
    def of(pid: int) -> float:
        user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") + sum(of(int(child)) for child in children)

    return of(process.pid)
