"""Our server beside NVIDIA Triton with its python backend, and FastAPI: the same export, raw rows of KuaiRand as texts
in JSON over HTTP, all servers on one core and in turns, one connection, the client on the other core.

First what a request costs: of one row, of 64, and 1,000 candidates, which are `rank` of ours and one request of 1,000
rows to those that have no such thing. `cpu_us` is the processor time of all processes of a server for a request, and
`times ours` how much that is of ours. Then the form of published tables, latency and throughput over batch sizes, as
`clickwise bench EXPORT --what serve --connections 1 --url OURS --url TRITON` measures it.

Triton runs `NAME_raw`, the encoding and ONNX Runtime in one process, which costs it less than its ensemble. It is taken
from TRITON_HOME (docs/export.md); FastAPI needs `pip install fastapi`.
Target: 1.5 times the requests per processor-second of Triton at one row.

    TRITON_HOME=.triton python benchmarks/serve_triton.py --save
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import arguments, finish, table
from serve import CANDIDATES, Connection, cpu_s, make_export, predict, rank, raw_rows, server

from clickwise.export.triton_repository import write_repository
from clickwise.serve.exported import ExportedModel
from clickwise.verbs.asked_server import AskedServer, processes
from clickwise.verbs.bench_serve import figures_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from triton_server import triton

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def turn(process: int, port: int, requests: list[bytes], count: int) -> tuple[float, float]:
    """Processor time of a request in microseconds, and how long half of them took at most, in milliseconds."""
    connection, before, waited = Connection(port), cpu_s(process), []
    for number in range(count):
        began = time.perf_counter()
        status, body = connection.ask(requests[number % len(requests)])
        waited.append(time.perf_counter() - began)
        assert status == 200, body
    return 1e6 * (cpu_s(process) - before) / count, 1e3 * float(np.median(waited))


def scores_of(answer: bytes) -> list[float]:
    """In the order of the request, whichever server it was."""
    found = json.loads(answer)
    if "ranked" in found:
        return [entry["score"] for entry in sorted(found["ranked"], key=lambda entry: entry["index"])]
    return found["probability"] if "probability" in found else found["outputs"][0]["data"]


def candidates(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows that `rank` scores."""
    videos = list(dict.fromkeys(row["video_id"] for row in rows))[:CANDIDATES]
    return [{**rows[0], "video_id": video} for video in videos]


def costs(servers: dict[str, AskedServer], rows: list[dict[str, str]], model: ExportedModel,
          repeats: int) -> list[dict[str, object]]:
    """What a request costs every server; all scores must be those of the export."""
    parts = {f"{size} row{'s' * (size > 1)}": ([rows[first:first + size] for first in range(0, 16 * size, size)], count)
             for size, count in ((1, 1000), (64, 100))} | {f"rank {CANDIDATES:,}": ([candidates(rows)], 30)}
    cases: dict[tuple[str, str], tuple[int, int, list[bytes], int]] = {}
    for what, (batches, count) in parts.items():
        expected = model.score(batches[0])
        for name, asked in servers.items():
            is_rank = what.startswith("rank") and name == "clickwise"
            requests = [rank(rows)] if is_rank else [
                predict("/predict", batch) if name == "FastAPI" else asked.request(batch) for batch in batches]
            port = asked.address[1]
            answer = Connection(port).ask(rank(rows, top=None) if is_rank else requests[0])[1]
            assert np.allclose(scores_of(answer), expected, atol=1e-6), (name, what)
            cases[what, name] = asked.process, port, requests, count
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {case: [] for case in cases}
    for number in range(repeats + 1):
        for case, case_of in cases.items():
            found = turn(*case_of)
            if number:
                taken[case].append(found)
    middle = {case: np.median(turns, 0) for case, turns in taken.items()}
    return [{"request": what, "server": name, "cpu_us": float(middle[what, name][0]),
             "cpu_min_us": min(cpu for cpu, _ in turns), "cpu_max_us": max(cpu for cpu, _ in turns),
             "times ours": float(middle[what, name][0] / middle[what, "clickwise"][0]),
             "p50_ms": float(middle[what, name][1])}
            for (what, name), turns in taken.items()]


def pinned(process: int) -> int:
    """The process, all that it has started and will start, on the first core where there are several."""
    if (os.cpu_count() or 1) > 1 and hasattr(os, "sched_setaffinity"):
        for each in processes(process):
            for thread in os.listdir(f"/proc/{each}/task"):
                os.sched_setaffinity(int(thread), {0})
    return process


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--export", type=Path, help="an export named model that takes KuaiRand's raw rows")
    parser.add_argument("--seconds", type=float, default=5.0, help="of every batch size and server")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, set(range(1, os.cpu_count())))
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        export = options.export or make_export(Path(place))
        write_repository(export, Path(place) / "models", backend="python")
        model = ExportedModel(export)
        rows = raw_rows(list(model.encoder.needs))
        process, port = stack.enter_context(server("-m", "clickwise.cli", "serve", str(export), "--port", "PORT",
                                                   "--no-access-log"))
        servers = {"clickwise": AskedServer.at(f"http://127.0.0.1:{port}", "model", process)}
        http, _, _ = stack.enter_context(triton(Path(place) / "models", Path(place), "--model-control-mode=explicit",
                                                "--load-model=model_raw"))
        (process,) = [each for each in processes(os.getpid())
                      if Path(f"/proc/{each}/comm").read_text().strip() == "tritonserver"]
        servers["Triton"] = AskedServer.at(f"http://127.0.0.1:{http}", "model", pinned(process))
        script = str(Path(__file__).with_name("serve_fastapi.py"))
        process, port = stack.enter_context(server(script, str(export), "PORT"))
        servers["FastAPI"] = AskedServer(f"http://127.0.0.1:{port}", "", (), process)
        found = costs(servers, rows, model, options.repeats)
        print(table(found))
        names = {servers[name].url: name for name in ("clickwise", "Triton")}
        published = figures_of([servers["clickwise"], servers["Triton"]], rows, batch_sizes=SIZES,
                               seconds=options.seconds, connections=1)
    published = [{**row, "server": names[row["server"]]} for row in published]
    finish("serve_triton", published, options, columns=[
        "server", "batch_size", "rows_per_s", "ms_p50", "ms_p90", "ms_p95", "ms_p99", "cpu_us_per_request"],
        costs=found, targets={"times ours of Triton, 1 row": 1.5})


if __name__ == "__main__":
    main()
