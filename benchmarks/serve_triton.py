"""Our server beside NVIDIA Triton with its python backend: the same export, raw rows of KuaiRand in JSON over HTTP, one
and 64 rows in a request, one connection, in turns, the client on the other core.

`cpu_us` is the processor time of all processes of a server for a request. Triton runs `NAME_raw`, the encoding and ONNX
Runtime in one process, which costs it less than its ensemble. It is taken from TRITON_HOME (docs/export.md).
Target: 1.5 times the requests per processor-second of Triton at one row.

    TRITON_HOME=.triton python benchmarks/serve_triton.py --save
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import arguments, finish
from serve import Connection, infer, make_export, posted, raw_rows, server

from clickwise.export.triton_repository import write_repository
from clickwise.serve.exported import ExportedModel

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from triton_server import triton


def to_triton(rows: list[dict[str, str]]) -> bytes:
    return posted("/v2/models/model_raw/infer", json.dumps({"inputs": [
        {"name": name, "datatype": "BYTES", "shape": [len(rows), 1], "data": [row[name] for row in rows]}
        for name in rows[0]]}).encode())


def processes(of: int) -> list[int]:
    """A process and all that it has started."""
    children = Path(f"/proc/{of}/task/{of}/children").read_text().split()
    threads = [path.read_text().split() for path in Path(f"/proc/{of}/task").glob("*/children")]
    return [of, *(each for child in {*children, *sum(threads, [])} for each in processes(int(child)))]


def cpu_s(of: int) -> float:
    return sum(int(file.read_text().split()[0]) for process in processes(of)
               for file in Path(f"/proc/{process}/task").glob("*/schedstat")) / 1e9


def turn(process: int, port: int, requests: list[bytes], count: int) -> float:
    connection, before = Connection(port), cpu_s(process)
    for number in range(count):
        status, body = connection.ask(requests[number % len(requests)])
        assert status == 200, body
    return 1e6 * (cpu_s(process) - before) / count


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--export", type=Path, help="an export named model that takes KuaiRand's raw rows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        export = options.export or make_export(Path(place))
        write_repository(export, Path(place) / "models", backend="python")
        rows = raw_rows(list(ExportedModel(export).encoder.needs))
        ours = stack.enter_context(server("-m", "clickwise.cli", "serve", str(export), "--port", "PORT",
                                          "--no-access-log"))
        http, _, _ = stack.enter_context(triton(Path(place) / "models", Path(place), "--model-control-mode=explicit",
                                                "--load-model=model_raw"))
        (theirs,) = [process for process in processes(os.getpid())
                     if Path(f"/proc/{process}/comm").read_text().strip() == "tritonserver"]
        cases = {}
        for size, count in ((1, 1000), (64, 100)):
            parts = [rows[first:first + size] for first in range(0, 16 * size, size)]
            cases[f"{size} rows, clickwise"] = (*ours, [infer(part) for part in parts], count)
            cases[f"{size} rows, Triton"] = (theirs, http, [to_triton(part) for part in parts], count)
        for (_, port, requests, _), name in zip(cases.values(), cases, strict=True):
            scores = json.loads(Connection(port).ask(requests[0])[1])["outputs"][0]["data"]
            expected = ExportedModel(export).score(rows[:len(scores)])
            assert np.allclose(scores, expected, atol=1e-6), name
        taken = {name: [turn(*case) for _ in range(options.repeats + 1)][1:] for name, case in cases.items()}
    found = [{"case": name, "cpu_us": float(np.median(each)), "cpu_min_us": min(each), "cpu_max_us": max(each),
              "times Triton": float(np.median(taken[name.replace("clickwise", "Triton")]) / np.median(each))}
             for name, each in taken.items()]
    finish("serve_triton", found, options, columns=["case", "cpu_us", "cpu_min_us", "cpu_max_us", "times Triton"],
           targets={"times Triton": 1.5})


if __name__ == "__main__":
    main()
