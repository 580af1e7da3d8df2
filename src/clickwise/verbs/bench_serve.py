"""`clickwise bench EXPORT --what serve`: latencies and throughput of servers, side by side, and what ours costs."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clickwise import machine
from clickwise.encoding.raw_file import RawFile
from clickwise.errors import DataError, EngineError, UsageError
from clickwise.serve.exported import ENCODING
from clickwise.serve.requests import request_of
from clickwise.serve.signature import FILE, Signature
from clickwise.verbs.asked_server import AskedServer
from clickwise.verbs.closed_loop import closed_loop
from clickwise.verbs.open_loop import Outcome, open_loop

RATES = (100.0, 500.0, 1000.0)  # requests per second
REQUESTS, ROWS = 256, 16_384  # different ones; of several rows fewer, but 8 of so many rows in all
MOST_ROWS = 10_000  # of a file
TURNS = 5  # of a closed loop, so that a noisy moment of the machine does not meet one server alone
WARM_UP_S = 0.5


def bench_serve(target: str, *, source: Path | None = None, rates: Sequence[float] = RATES,
                batch_sizes: Sequence[int] = (1,), seconds: float = 10.0, urls: Sequence[str] = (),
                connections: int | None = None) -> dict[str, Any]:
    """A row of figures for every batch size, rate and server (`rows`): answers and rows per second, percentiles of
    the latency in milliseconds, the shares that were shed (503, 504) and that failed, and the processor time of the
    server per request, in microseconds.

    `target` is an export, or a run, which is exported for it. A server is started for it, or with `urls` those that run
    already are asked in turns, whose time is not known: ours, or NVIDIA Triton with a repository of this export. The
    rows that are sent are those of `source`, a file of raw rows, or of the export's example. `target` may also be an
    address, whose server says which columns it needs of `source`.

    Requests are sent at `rates`, each at its moment, and a latency counts from the moment at which it was due. With
    `connections` each of so many asks again as soon as it is answered, as in published tables; `rate` is None then.
    """
    with tempfile.TemporaryDirectory(prefix="clickwise-") as temporary, contextlib.ExitStack() as stack:
        if "://" in target:
            servers = [AskedServer.at(url) for url in (target, *urls)]
            rows = _rows_of_file(source, servers[0])
        else:
            export = _export_of(Path(target), Path(temporary))
            signature = Signature.load(export)
            rows = _rows(export, signature, source)
            servers = [AskedServer.at(url, signature.name) for url in urls] or [stack.enter_context(_server(export))]
        found = figures_of(servers, rows, rates=rates, batch_sizes=batch_sizes, seconds=seconds,
                           connections=connections)
    return {"what": "serve", "model": servers[0].model, "connections": connections, "rows": found, "seconds": seconds,
            **machine.circumstances()}


def figures_of(servers: Sequence[AskedServer], rows: Sequence[Mapping[str, Any]], *, rates: Sequence[float] = RATES,
               batch_sizes: Sequence[int] = (1,), seconds: float = 10.0,
               connections: int | None = None) -> list[dict[str, Any]]:
    """`rows` of `bench_serve` for these servers, of which those with a process tell their time. Raises DataError."""
    for server in servers:
        if absent := [name for name in server.columns if name not in rows[0]]:
            raise DataError(server.url, found=f"a model that needs {', '.join(absent)}",
                            expected=f"one of these columns: {', '.join(rows[0])}")
    found = []
    for size in batch_sizes:
        several = max(8, min(REQUESTS, ROWS // size))
        batches = [[rows[(first + index) % len(rows)] for index in range(size)]
                   for first in range(0, several * size, size)]
        requests = [[server.request(batch) for batch in batches] for server in servers]
        for server, mine in zip(servers, requests, strict=True):
            try:
                closed_loop(*server.address, mine, WARM_UP_S)
            except OSError as error:
                raise DataError(server.url, found=f"no answer: {error}", expected="a server") from None
        if connections is not None:
            found += _in_turns(servers, requests, size, seconds, connections)
            continue
        for rate in rates:
            for server, mine in zip(servers, requests, strict=True):
                before = server.cpu_s()
                outcome = open_loop(*server.address, mine, rate, seconds)
                found.append({"server": server.url, "batch_size": size, "rate": rate,
                              **_figures(outcome, size, seconds, _since(before, server))})
    return found


def _in_turns(servers: Sequence[AskedServer], requests: Sequence[Sequence[bytes]], size: int, seconds: float,
              connections: int) -> list[dict[str, Any]]:
    """A closed loop of every server for so many seconds in all."""
    outcomes: list[list[Outcome]] = [[] for _ in servers]
    cpu_s: list[list[float | None]] = [[] for _ in servers]
    for _ in range(TURNS):
        for index, (server, mine) in enumerate(zip(servers, requests, strict=True)):
            before = server.cpu_s()
            outcomes[index].append(closed_loop(*server.address, mine, seconds / TURNS, connections=connections))
            cpu_s[index].append(_since(before, server))
    rows = []
    for server, turns, costs in zip(servers, outcomes, cpu_s, strict=True):
        whole = Outcome(*(np.concatenate([getattr(turn, name) for turn in turns]) for name in ("latency_s", "status")))
        rows.append({"server": server.url, "batch_size": size, "rate": None,
                     **_figures(whole, size, seconds, None if None in costs else sum(costs))})
    return rows


def _since(before: float | None, server: AskedServer) -> float | None:
    return None if before is None else server.cpu_s() - before


def _figures(outcome: Outcome, size: int, seconds: float, cpu_s: float | None) -> dict[str, float | None]:
    good = outcome.status == 200
    shed = np.isin(outcome.status, (503, 504))
    latency = 1e3 * outcome.latency_s[good]
    percentiles = {"ms_p50": 50, "ms_p90": 90, "ms_p95": 95, "ms_p99": 99, "ms_p99_9": 99.9}
    return {"answers_per_s": round(float(good.sum()) / seconds, 1),
            "rows_per_s": round(size * float(good.sum()) / seconds, 1),
            **{name: round(float(np.percentile(latency, at)), 3) if len(latency) else float("nan")
               for name, at in percentiles.items()},
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
    else:
        from clickwise.encoding import Encoding

        encoding = Encoding.load(export / ENCODING)
        needs = {name: str(column) for name, column in signature.raw.items() if not encoding.raw_column(name).optional}
        file = RawFile.open(source, needs, encoding.layout)
        rows = [{**dict.fromkeys(signature.raw), **row} for row in _first_rows(file, file.having(signature.raw))]
        columns = request_of(rows, signature.raw)["inputs"]  # lists as texts
    return [dict(zip((each["name"] for each in columns), values, strict=True))
            for values in zip(*(each["data"] for each in columns), strict=True)]


def _rows_of_file(source: Path | None, server: AskedServer) -> list[Mapping[str, Any]]:
    """Raw rows with the columns that a server needs."""
    if source is None:
        raise UsageError("--input", found="none, and an address in place of an export", expected="a file of raw rows",
                         do="--input FILE; or clickwise bench EXPORT --what serve --url URL, which has rows")
    file = RawFile.open(source, dict.fromkeys(server.columns, "a column of the model"))
    return _first_rows(file, server.columns)


def _first_rows(file: RawFile, columns: Sequence[str]) -> list[dict[str, Any]]:
    for table in file.blocks(columns, MOST_ROWS):
        return table.to_pylist()
    raise DataError(file.path, found="no rows", expected="at least one row")


@contextlib.contextmanager
def _server(export: Path) -> Iterator[AskedServer]:
    """A server of its own."""
    process = subprocess.Popen([sys.executable, "-m", "clickwise", "serve", str(export), "--port", "0"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"https?://[\w.\[\]:]+:\d+", line):
                threading.Thread(target=process.stdout.read, daemon=True).start()  # a full pipe would stop the server
                yield AskedServer.at(found[0], process=process.pid)
                return
        raise EngineError("clickwise serve", found="".join(said)[-500:] or "no word", expected="a server that is ready")
    finally:
        process.terminate()
        process.wait(30)
