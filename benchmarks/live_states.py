"""States of a server, on one core: a row's look-up, and events taken in, by SQLite, in memory, and by a Redis of this
machine where there is one.

The log is that of the shipped sample from the first test moment on, the encodings those of kuairand/prepare (the user's
moments go on) and kuairand/prepare_history (counts of 7 keys and histories of 50 events too). 20,000 events are told
first, 1,000 in a request; then rows of the log's end are looked up one by one. `states` is what the states that go on
take of a row, `row` the whole of it, from raw values to ids and numbers. CPU is that of this process, not of a Redis.
Target: 400 µs of CPU for the states of a row.

    python benchmarks/live_states.py --save
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import pyarrow as pa
from measure import arguments, finish, measure
from replay import log_of

from clickwise.encoding import Encoding
from clickwise.prepare import run
from clickwise.recipe import load
from clickwise.serve.states import LiveStates, open_store

CASES = ("kuairand/prepare", "kuairand/prepare_history")
TARGET_US, REQUEST, ROWS = 400, 1000, 500


@contextlib.contextmanager
def stores(folder: Path):
    """Name → the text that opens it."""
    found = {"sqlite": f"sqlite:{folder}/states.db", "memory": "memory"}
    if shutil.which("redis-server") is None:
        yield found
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["redis-server", "--port", str(port), "--dir", str(folder), "--appendonly", "yes", "--appendfsync",
             "always"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        next(line for line in server.stdout if "Ready to accept" in line)
        yield found | {"redis": f"redis://127.0.0.1:{port}"}
        server.terminate()


def measured(live: LiveStates, log: pa.Table, repeats: int) -> dict[str, float]:
    """Of one store: what `main` writes."""
    requests = iter([log.slice(first, REQUEST) for first in range(0, 20_000, REQUEST)])
    many = measure(lambda: live.events(next(requests)), repeats=19)
    singles = iter([log.slice(20_000 + row, 1) for row in range(101)])
    one = measure(lambda: live.events(next(singles)), repeats=100)
    rows = log.slice(len(log) - ROWS).to_pylist()
    encoder = live.encoder
    read = [{of: encoder.encoding.raw_column(of).type.one(row[of]) for of in encoder.needs} for row in rows]
    for row in read:
        for state in encoder.encoding.tables.values():
            if not state.goes_on:
                row |= state.look_up_one(row)
    states = measure(lambda: [live.look_up_one(row) for row in read], repeats=repeats)
    whole = measure(lambda: [encoder.row(row) for row in rows], repeats=repeats)
    return {"states, CPU µs": states.cpu_s / ROWS * 1e6, "from": min(states.cpu) / ROWS * 1e6,
            "to": max(states.cpu) / ROWS * 1e6, "target": TARGET_US, "elapsed µs": states.wall_s / ROWS * 1e6,
            "row, CPU µs": whole.cpu_s / ROWS * 1e6, "events/CPU-s": REQUEST / many.cpu_s,
            "events/s": REQUEST / many.wall_s, "one event, CPU ms": one.cpu_s * 1e3, "elapsed ms": one.wall_s * 1e3}


def main() -> None:
    options = arguments(__doc__).parse_args()
    pa.set_cpu_count(1)
    rows = []
    for recipe in CASES:
        with tempfile.TemporaryDirectory() as folder, stores(Path(folder)) as texts:
            out = run(load(recipe, [f"out={folder}/columns"]), recipe)
            encoding = Encoding.load(Path(out) / "preparation")
            names = [name for name in encoding.columns if name != encoding.events.label]
            for name, text in texts.items():
                live = LiveStates(encoding, names, open_store(text))
                rows.append({"case": recipe, "store": name, "states": len(live.states),
                             **measured(live, log_of(encoding), options.repeats)})
    finish("live_states", rows, options)


if __name__ == "__main__":
    main()
