"""The server: processor time of a request, how long clients wait, beside the same model behind FastAPI and pydantic.

Raw rows of KuaiRand, every value a text, to `kuairand/dcnv2` (made here, two epochs, where no --export is given): one
and 64 rows in JSON; ids in binary; 1,000 candidates by key. Servers stand side by side and are asked in turns over one
connection, the client on the other core. `cpu_us` is the processor time of the server alone. Then overload: wrk asks
from 512 connections without a pause for --overload seconds, while one client looks whether what is answered is right.
The rival needs `pip install fastapi`. Targets: 300 µs a request, 2.5 times the requests per processor-second of
FastAPI, p50 0.4 ms and p99 2 ms; 6 ms for 1,000 candidates; overload: no growth, the rest of it 503.

    python benchmarks/serve.py --save
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from measure import arguments, finish, table

from clickwise.serve.exported import ExportedModel
from clickwise.verbs.asked_server import processes

DATA = Path(__file__).parents[1] / "data/kuairand_pure/log_standard_4_25_to_5_08_pure.parquet"
FIRST, ROWS, CANDIDATES = 150_000, 2000, 1000


def make_export(folder: Path) -> Path:
    """kuairand/dcnv2, whose states stand still, so that a row needs nothing but itself."""
    from clickwise.export.folder import export
    from clickwise.prepare import run as prepare
    from clickwise.recipe import load
    from clickwise.verbs.train import train

    settings = ["dataset.moments_until=training", f"out={folder / 'columns'}"]
    columns = prepare(load("kuairand/prepare", settings), "serve")
    run = train("kuairand/dcnv2", [f"data.path={columns}", "baselines=[]"], out=folder / "runs")
    export(run, folder / "export", name="model")
    return folder / "export"


def raw_rows(needs: list[str]) -> list[dict[str, str]]:
    log = pq.read_table(DATA).slice(FIRST, ROWS).select(needs).to_pylist()
    return [{name: str(value) for name, value in row.items()} for row in log]


class Connection:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[int, bytes]:
        self._socket.sendall(request)
        found = b""
        while b"\r\n\r\n" not in found:
            found += self._received()
        head, _, body = found.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        while len(body) < length:
            body += self._received()
        return int(head[9:12]), body

    def _received(self) -> bytes:
        part = self._socket.recv(1 << 20)
        if not part:
            raise ConnectionError("closed")
        return part


def posted(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json",
             f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def tensor(name: str, values: list[str]) -> dict:
    return {"name": name, "datatype": "BYTES", "shape": [len(values)], "data": values}


def infer(rows: list[dict[str, str]]) -> bytes:
    return posted("/v2/models/model/infer", json.dumps({"inputs": [
        tensor(name, [row[name] for row in rows]) for name in rows[0]]}).encode())


def infer_ids(model: ExportedModel, row: dict[str, str]) -> bytes:
    inputs, tail = [], b""
    for name, array in model.encode([row]).items():
        tail += array.tobytes()
        inputs.append({"name": name, "datatype": "FP32" if array.dtype == np.float32 else "INT64",
                       "shape": list(array.shape), "parameters": {"binary_data_size": array.nbytes}})
    head = json.dumps({"inputs": inputs, "parameters": {"encoded": True, "binary_data_output": True}}).encode()
    return posted("/v2/models/model/infer", head + tail, f"Inference-Header-Content-Length: {len(head)}")


def predict(path: str, rows: list[dict[str, str]]) -> bytes:
    return posted(path, json.dumps({"rows": rows}).encode())


def rank(rows: list[dict[str, str]], top: int | None = 10) -> bytes:
    context = {name: value for name, value in rows[0].items() if name != "video_id"}
    videos = list(dict.fromkeys(int(row["video_id"]) for row in rows))[:CANDIDATES]
    return posted("/v1/rank", json.dumps({"context": context, "candidates": videos, "top": top}).encode())


@contextlib.contextmanager
def server(*words: str) -> Iterator[tuple[int, int]]:
    """A process, on the first core where there are two, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, *(word.replace("PORT", str(port)) for word in words)])
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.1)
        if (os.cpu_count() or 1) > 1 and hasattr(os, "sched_setaffinity"):
            for thread in os.listdir(f"/proc/{process.pid}/task"):
                os.sched_setaffinity(int(thread), {0})
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def cpu_s(of: int) -> float:
    """Processor seconds of a process and all that it has started."""
    return sum(int(file.read_text().split()[0]) for process in processes(of)
               for file in Path(f"/proc/{process}/task").glob("*/schedstat")) / 1e9


def rss_mb(process: int) -> float:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1]) / 1024


def turn(process: int, connection: Connection, requests: list[bytes], count: int) -> tuple[float, list[float]]:
    """Processor seconds of a request, and how long each took."""
    waited, before = [], cpu_s(process)
    for number in range(count):
        began = time.perf_counter()
        status, body = connection.ask(requests[number % len(requests)])
        waited.append(time.perf_counter() - began)
        assert status == 200, body
    return (cpu_s(process) - before) / count, waited


def side_by_side(cases: dict[str, tuple[int, int, list[bytes], int]], repeats: int) -> list[dict[str, object]]:
    """Every case in turns, each on a new connection: those of others may be closed while they wait."""
    found: dict[str, list] = {name: [] for name in cases}
    for number in range(repeats + 1):
        for name, (process, port, requests, count) in cases.items():
            taken = turn(process, Connection(port), requests, count if number else min(count, 200))
            if number:
                found[name].append(taken)
    rows: list[dict[str, object]] = []
    cpu_of = {name: [seconds * 1e6 for seconds, _ in turns] for name, turns in found.items()}
    rivals = {"1 row, JSON": "1 row, FastAPI, async def", "64 rows, JSON": "64 rows, FastAPI, async def"}
    for name, turns in found.items():
        cpu = cpu_of[name]
        waits = [np.percentile(waited, (50, 90, 99)) * 1e3 for _, waited in turns]
        middle = np.median(waits, 0)
        rows.append({"case": name, "cpu_us": float(np.median(cpu)), "cpu_min_us": min(cpu), "cpu_max_us": max(cpu),
                     "requests/cpu_s": 1e6 / float(np.median(cpu)),
                     "times FastAPI": float(np.median(cpu_of[rivals[name]])) / float(np.median(cpu)) if
                     rivals.get(name) in found else "", "p50_ms": middle[0], "p90_ms": middle[1],
                     "p99_ms": middle[2], "p99_min_ms": min(wait[2] for wait in waits)})
    return rows


def overload(export: Path, rows: list[dict[str, str]], seconds: int) -> dict[str, object]:
    """What one client sees while wrk asks from 512 connections without a pause."""
    with tempfile.TemporaryDirectory() as place, server("-m", "clickwise.cli", "serve", str(export), "--port", "PORT",
                                                         "--no-access-log", "--queue", "32") as (process, port):
        body = infer(rows[:1]).partition(b"\r\n\r\n")[2].decode()
        script = Path(place) / "body.lua"
        script.write_text(f'wrk.method = "POST"\nwrk.body = [[{body}]]\n')
        connection = Connection(port)
        expected = [connection.ask(infer([row]))[1] for row in rows[:100]]
        alone, _ = turn(process, connection, [infer([row]) for row in rows[:100]], 1000)
        before = rss_mb(process)
        wrk = subprocess.Popen(["wrk", "-t1", "-c512", f"-d{seconds}s", "--script", str(script),
                                f"http://127.0.0.1:{port}/v2/models/model/infer"], stdout=subprocess.PIPE, text=True)
        right, refused, wrong, waited = 0, 0, 0, []
        while wrk.poll() is None:
            for row, answer in zip(rows[:100], expected, strict=True):
                began = time.perf_counter()
                status, told = connection.ask(infer([row]))
                if status == 200:
                    waited.append(time.perf_counter() - began)
                    right, wrong = right + (close(told, answer)), wrong + (not close(told, answer))
                else:
                    refused += status == 503
        said = wrk.communicate()[0]
        asked = int(re.search(r"(\d+) requests in", said)[1])
        failed = int((re.search(r"Non-2xx or 3xx responses: (\d+)", said) or [0, 0])[1])
        alive = connection.ask(infer(rows[:1]))[0]
        return {"case": f"overload, {seconds} s", "offered/capacity": asked / seconds * alone, "asked": asked,
                "answered": asked - failed, "refused": failed, "right": right, "wrong": wrong,
                "refused_one": refused, "p50_ms": np.percentile(waited, 50) * 1e3,
                "p99_ms": np.percentile(waited, 99) * 1e3, "rss_mb": before, "rss_after_mb": rss_mb(process),
                "alive": alive == 200}


def close(told: bytes, expected: bytes) -> bool:
    a, b = (json.loads(body)["outputs"][0]["data"] for body in (told, expected))
    return bool(np.allclose(a, b, atol=1e-6))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--export", type=Path, help="an export named model that takes KuaiRand's raw rows")
    parser.add_argument("--requests", type=int, default=1000, help="of one row, in every repeat")
    parser.add_argument("--overload", type=int, default=60, help="seconds; 0: none")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, set(range(1, os.cpu_count())))
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        export = options.export or make_export(Path(place))
        model = ExportedModel(export)
        rows = raw_rows(list(model.encoder.needs))
        ours = stack.enter_context(server("-m", "clickwise.cli", "serve", str(export), "--port", "PORT",
                                          "--no-access-log"))
        ones, many = [infer([row]) for row in rows], [infer(rows[first:first + 64]) for first in range(0, 1024, 64)]
        cases = {"1 row, JSON": (*ours, ones, options.requests), "64 rows, JSON": (*ours, many, options.requests // 20),
                 "1 row, ids, binary": (*ours, [infer_ids(model, row) for row in rows], options.requests),
                 f"rank {CANDIDATES:,}": (*ours, [rank(rows)], options.requests // 20)}
        try:
            import fastapi  # noqa: F401
        except ImportError:
            print("FastAPI is not installed: no rival", file=sys.stderr)
        else:
            script = str(Path(__file__).with_name("serve_fastapi.py"))
            rival = stack.enter_context(server(script, str(export), "PORT"))
            cases |= {"1 row, FastAPI, async def": (*rival, [predict("/predict", [row]) for row in rows],
                                                    options.requests),
                      "1 row, FastAPI, def": (*rival, [predict("/predict_def", [row]) for row in rows],
                                              options.requests),
                      "64 rows, FastAPI, async def": (*rival, [predict("/predict", rows[first:first + 64]) for first in
                                                               range(0, 1024, 64)], options.requests // 20)}
        found = side_by_side(cases, options.repeats)
        stack.close()
        under = overload(export, rows, options.overload) if options.overload and shutil.which("wrk") else None
        if under is not None:
            print(table([under]))
    finish("serve", found, options, overload=under)


if __name__ == "__main__":
    main()
