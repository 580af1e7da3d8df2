"""CPU time of `spec infer` and `prepare` for a table of 5,000 columns and 2,000 rows: half numbers, a quarter texts of
five values, a quarter whole numbers of 1,000 values.

    taskset -c 0 python benchmarks/wide_table.py --save

Each runs as a process of its own, imports included. Target: 30 CPU-seconds together on one quiet Zen 5 core.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from measure import arguments, finish
from pyarrow import csv

ROWS, COLUMNS = 2_000, 5_000


def table(columns: int) -> pa.Table:
    rng = np.random.default_rng(0)
    found = {f"number_{i}": rng.normal(size=ROWS).round(4) for i in range(columns // 2)}
    found |= {f"text_{i}": rng.choice(["a", "b", "c", "dd", "eee"], ROWS) for i in range(columns // 4)}
    found |= {f"whole_{i}": rng.integers(0, 1000, ROWS) for i in range(columns - columns // 2 - columns // 4)}
    return pa.table({**found, "click": (rng.random(ROWS) < 0.3).astype(np.int8)})


def cpu_s(*words: str) -> float:
    """Of a command, its threads and the system's part included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "clickwise.cli", *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    options = arguments(__doc__).parse_args()
    rows = []
    for columns in (500, COLUMNS):
        with tempfile.TemporaryDirectory() as folder:
            file, spec = Path(folder, "wide.csv"), str(Path(folder, "spec"))
            csv.write_csv(table(columns), file)
            infer = cpu_s("spec", "infer", str(file), "--label", "click", "--out", spec)
            prepare = cpu_s("prepare", "table/prepare", f"dataset.spec={spec}", f"out={folder}/columns")
            rows.append({"columns": columns, "infer_cpu_s": infer, "prepare_cpu_s": prepare, "cpu_s": infer + prepare})
    finish("wide_table", rows, options, columns=["columns", "infer_cpu_s", "prepare_cpu_s", "cpu_s"],
           targets={"cpu_s": 30})


if __name__ == "__main__":
    main()
