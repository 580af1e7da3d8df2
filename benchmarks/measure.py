"""Shared by all benchmark scripts: repeated timing, the stamp of the machine, a table, lines of JSON, and `--save`.

    parser = arguments(__doc__)                     # argparse, with --repeats and --save
    options = parser.parse_args()
    timing = measure(lambda: work(), repeats=options.repeats)
    rows = [{"case": "none", "rows/s": 1e6 / timing.cpu_s, **timing.columns()}]
    finish("loader", rows, options)                 # prints; with --save writes results/loader-<date>.json

A script in benchmarks/ runs as `python benchmarks/x.py`, which puts this folder on the path: `from measure import …`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clickwise import machine
from clickwise.files import to_json

RESULTS = Path(__file__).parent / "results"
KEEP_FREED_MEMORY = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647"  # as GLIBC_TUNABLES of a process


@dataclass(frozen=True)
class Timing:
    """Seconds of every repeat: elapsed (`wall`) and of the processor, all threads of this process (`cpu`)."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def wall_s(self) -> float:
        return statistics.median(self.wall)

    @property
    def cpu_s(self) -> float:
        return statistics.median(self.cpu)

    def columns(self) -> dict[str, float | int]:
        """Medians with the least and the greatest value, ready for a row of the table and the saved file."""
        return {"repeats": len(self.wall), "wall_s": self.wall_s, "wall_min_s": min(self.wall),
                "wall_max_s": max(self.wall), "cpu_s": self.cpu_s, "cpu_min_s": min(self.cpu),
                "cpu_max_s": max(self.cpu)}


def measure(function: Callable[[], object], *, repeats: int = 5, warmup: int = 1,
            synchronize: Callable[[], object] | None = None) -> Timing:
    """Timing of `repeats` calls after `warmup` uncounted ones; `synchronize` (a GPU's) ends each call."""
    wall, cpu = [], []
    for index in range(warmup + repeats):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        function()
        if synchronize is not None:
            synchronize()
        if index >= warmup:
            wall.append(time.perf_counter() - wall_start)
            cpu.append(time.process_time() - cpu_start)
    return Timing(tuple(wall), tuple(cpu))


def measure_alternating(functions: dict[str, Callable[[], object]], *, repeats: int = 5, warmup: int = 1,
                        synchronize: Callable[[], object] | None = None) -> dict[str, Timing]:
    """Timings of rivals measured in turns, so that a noisy moment of the machine does not favour one of them."""
    parts = {name: [] for name in functions}
    for index in range(warmup + repeats):
        for name, function in functions.items():
            timing = measure(function, repeats=1, warmup=0, synchronize=synchronize)
            if index >= warmup:
                parts[name].append(timing)
    return {name: Timing(tuple(t.wall[0] for t in timings), tuple(t.cpu[0] for t in timings))
            for name, timings in parts.items()}


def calibration() -> dict[str, float]:
    """Processor time in ms of three loops that never change, the least of several: by them absolute times of two
    machines compare, and a busy moment shows."""
    matrices, numbers = np.ones((400, 64, 64), np.float32), np.zeros(2**23)  # no product has two threads
    loops = {"interpreter": lambda: sum(range(500_000)), "products": lambda: matrices @ matrices,
             "memory": numbers.copy}
    return {name: round(1e3 * min(measure(loop).cpu), 3) for name, loop in loops.items()}


def stamp() -> dict[str, object]:
    """Everything that a reader needs to judge or repeat a measurement."""
    command = shlex.join(["python", os.path.relpath(sys.argv[0], Path(__file__).parents[1]), *sys.argv[1:]])
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LD_PRELOAD", "GLIBC_TUNABLES", "CUDA_VISIBLE_DEVICES")
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {"command": command, "environment": {name: os.environ[name] for name in names if name in os.environ},
            "load": load, "calibration_ms": calibration(), **machine.circumstances()}


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmark scripts share."""
    parser = argparse.ArgumentParser(description=(description or "").strip().split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="counted repeats of every case (median reported)")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/<name>-<date>.json")
    return parser


def append(path: Path, row: dict[str, object]) -> None:
    """Adds `row` to the end of `path` as one line of strict JSON (null where a number is not finite), on the disk when
    this returns: a process that is killed later loses none of its lines."""
    with open(path, "ab", buffering=0) as file:
        file.write(to_json(row).encode() + b"\n")
        os.fsync(file.fileno())


def table(rows: list[dict[str, object]], columns: list[str] | None = None) -> str:
    """The rows as aligned text; `columns` picks and orders, by default those of the first row."""
    columns = columns or list(rows[0])
    cells = [columns] + [[number(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]

    def left(i: int) -> bool:
        return all(isinstance(row.get(columns[i], ""), str) for row in rows)

    return "\n".join("  ".join(cell.ljust(w) if left(i) else cell.rjust(w)
                               for i, (cell, w) in enumerate(zip(line, widths, strict=True))).rstrip()
                     for line in cells)


def number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


def finish(name: str, rows: list[dict[str, object]], options: argparse.Namespace, /, *,
           columns: list[str] | None = None, **more: object) -> Path | None:
    """Prints the table; with `--save` writes `results/<name>-<date>.json` and returns its path.

    `more` are further named facts of the measurement (sizes, settings, the target).
    """
    print(table(rows, columns))  # first: it is there even where a broken GPU says nothing more about itself
    facts = stamp()
    print(f"{facts['machine']['processor']}, {facts['machine']['cores']} cores, commit {(facts['commit'] or '?')[:12]}")
    if not options.save:
        return None
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{facts['date'][:10]}.json"
    path.write_text(json.dumps({"name": name, **facts, **more, "results": rows}, indent=2) + "\n", encoding="utf-8")
    print(f"saved {path.relative_to(Path(__file__).parents[1])}")
    return path
