"""CPU time, wall time and peak memory of `prepare table`, beside that of another checkout: CSV and Parquet.

The table: a label, 5 numbers, 10 texts with 10 … 100,000 values by power laws, 2 integer ids and a list of tags; one
value in twenty is missing. Each run is a process of its own, the two checkouts in turns; CPU time is user + system of
that process with all its threads, imports included. Target: at most 1.0 times that of the commit before.

    python benchmarks/prepare_table.py --before ../clickwise-before/src
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from measure import arguments, finish
from pyarrow import csv, parquet

from clickwise.files import write_text

ROOT = Path(__file__).parents[1]
SIZES, IDS, TAGS = [10, 10, 50, 200, 1000, 5000, 10_000, 30_000, 100_000, 100_000], [500_000, 50_000], 2000
CHILD = """
import json, resource, sys
from clickwise import prepare
prepare.run({"dataset": {"name": "table", "spec": sys.argv[1]}, "out": sys.argv[2]}, "benchmark")
used = resource.getrusage(resource.RUSAGE_SELF)
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "peak_gb": peak / 1e9}))
"""


def table(rows: int) -> pa.Table:
    rng = np.random.default_rng(0)

    def ranks(size: int, count: int = rows) -> np.ndarray:
        return ((((size + 1.0) ** -0.05 - 1) * rng.random(count) + 1) ** -20.0).astype(np.int64)  # P(i) ~ i^-1.05

    def missing() -> np.ndarray:
        return rng.random(rows) < 0.05

    words = np.array([f"w{id_ * 2654435761 % 2**32:x}" for id_ in range(max(SIZES) + 1)], object)
    columns = {"clicked": pa.array((rng.random(rows) < 0.2).astype(np.int8))}
    columns |= {f"x{i}": pa.array(np.round(rng.lognormal(2, 1, rows), 2), mask=missing()) for i in range(5)}
    columns |= {f"text{i}": pa.array(words[ranks(size)], mask=missing()) for i, size in enumerate(SIZES)}
    columns |= {f"id{i}": pa.array(ranks(size) * 7, mask=missing()) for i, size in enumerate(IDS)}
    ends = np.append(0, np.cumsum(rng.integers(0, 5, rows))).astype(np.int32)
    return pa.table(columns | {"tags": pa.ListArray.from_arrays(ends, pa.array(words[ranks(TAGS, int(ends[-1]))]))})


def generate(folder: Path, rows: int) -> None:
    """The table as `csv/` and `parquet/`, each with its Feature Spec."""
    content = table(rows)
    names = content.column_names
    lines = [f"  x{i}: {{dtype: float32}}" for i in range(5)]
    lines += [f"  {name}: {{dtype: str, cardinality: auto}}" for name in names if name.startswith("text")]
    lines += [f"  id{i}: {{dtype: int32, cardinality: auto}}" for i in range(2)]
    lines += ["  tags: {dtype: str, cardinality: auto, max_hotness: 4}", "  clicked: {dtype: int8}"]
    for kind in ("csv", "parquet"):
        (folder / kind).mkdir(parents=True)
        write_text(folder / kind / "feature_spec.yaml", "\n".join([
            "feature_spec:", *lines, "source_spec:", "  train:",
            f"  - {{type: {kind}, files: [rows.{kind}], features: [{', '.join(names)}]}}", "channel_spec:",
            "  label: [clicked]", f"  numerical: [{', '.join(names[1:6])}]",
            f"  categorical: [{', '.join(names[6:])}]", ""]))
    parquet.write_table(content, folder / "parquet/rows.parquet")
    tags = pa.array(["|".join(value) for value in content["tags"].to_pylist()])
    csv.write_csv(content.set_column(names.index("tags"), "tags", tags), folder / "csv/rows.csv")


def run(source: Path, spec: Path, out: Path) -> dict[str, float]:
    shutil.rmtree(out, ignore_errors=True)
    done = subprocess.run([sys.executable, "-c", CHILD, str(spec), str(out)], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(source)})
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(repeats=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--before", type=Path, help="src/ of another checkout")
    parser.add_argument("--kinds", default="csv,parquet")
    options = parser.parse_args()
    sources = {"now": ROOT / "src"} | ({"before": options.before.resolve()} if options.before else {})
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        generate(folder, options.rows)
        for kind in options.kinds.split(","):
            runs = {name: [] for name in sources}
            for _ in range(options.repeats):
                for name, source in sources.items():
                    runs[name].append(run(source, folder / kind, folder / "out"))
                    print(kind, name, runs[name][-1], file=sys.stderr, flush=True)
            for name, times in runs.items():
                cpu = [time["cpu_s"] for time in times]
                rows.append({"case": f"{kind}, {name}", "cpu_s": statistics.median(cpu), "cpu_min_s": min(cpu),
                             "cpu_max_s": max(cpu), "peak_gb": max(time["peak_gb"] for time in times),
                             "rows_per_cpu_s": options.rows / statistics.median(cpu)})
    finish("prepare-table", rows, options, raw_rows=options.rows, target="at most 1.0 times the commit before")


if __name__ == "__main__":
    main()
