"""CPU time, wall time and peak memory of preparing generated Outbrain logs, by feature set; PySpark beside it.

The raw files are those of `clickwise synth outbrain_raw`: 5 rows a display, 3 documents for every 20 displays. Each run
is a process of its own and starts from the raw files; CPU time is user + system with all threads and children, imports
and the start of the Java machine included. With `--spark` (a Python that has pyspark; Java 17 on the path)
`outbrain_spark.py` makes the same 26 features, and the columns of the two are compared. Targets: 10 M rows within 8 GB,
at most a twentieth of the CPU time of PySpark local[2].

    python benchmarks/prepare_outbrain.py --rows 500000 --spark /path/to/venv/bin/python
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import arguments, finish

SETS = ("clickwise", "v1_spark", "v1_nvtabular", "multihot", "profiles")
# Each process writes down its own peak: what `wait4` tells of a child counts this program's memory before exec as well.
PREPARE = """
import os, pathlib, sys
from clickwise import prepare
raw, out, name, memory, threads = sys.argv[1:]
prepare.run({"dataset": {"name": "outbrain", "folder": raw, "feature_set": name, "shuffle": False},
             "engine": {"memory_limit": memory, "threads": int(threads)}, "out": out}, "benchmark")
pathlib.Path(os.environ["STATUS"]).write_text(pathlib.Path("/proc/self/status").read_text())
"""
# Names that differ: in the output of outbrain_spark.py -> in ours.
RENAMED = {"ad": "ad_id", "campaign": "campaign_id", "scaled_doc_views": "doc_views_log_01scaled",
           "scaled_ad_views": "ad_views_log_01scaled", "scaled_days": "doc_event_days_since_published_log_01scaled",
           "scaled_days_promo": "doc_ad_days_since_published_log_01scaled"}


def run(command: list[object], **environment: object) -> dict[str, float]:
    """cpu_s and wall_s of a command with all its children; peak_gb, the most that is told by what the command writes to
    the file $STATUS: /proc/<process>/status."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as errors, tempfile.NamedTemporaryFile("r") as status_file:
        environment |= {"STATUS": status_file.name}
        process = subprocess.Popen(list(map(str, command)), stdout=errors, stderr=errors,
                                   env=os.environ | {name: str(value) for name, value in environment.items()})
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(errors.read().decode()[-3000:])
        peak = max(map(int, re.findall(r"VmHWM:\s+(\d+) kB", status_file.read())))
    return {"cpu_s": used.ru_utime + used.ru_stime, "wall_s": wall, "peak_gb": peak * 1024 / 1e9}


def same(spark: Path, ours: Path) -> None:
    """Ends the program where the 26 features of the two differ."""
    from pyarrow import parquet

    from clickwise.data.columns import read_columns
    from clickwise.feature_spec import FeatureSpec

    spec = FeatureSpec.load(ours)
    for mapping in ("train", "test"):
        columns = read_columns(spec, mapping)
        mine = {name: np.asarray(column) for name, column in columns.arrays.items()}
        mine |= dict(zip(spec.channels["numerical"], np.asarray(columns.numerical).T, strict=True))
        theirs = parquet.read_table(spark / mapping)
        order = np.lexsort((theirs["ad_id"].to_numpy(), theirs["display_id"].to_numpy()))
        for name in theirs.column_names:
            if name == "ad_id":
                continue
            one, two = theirs[name].to_numpy()[order], mine[RENAMED.get(name, name)]
            if not np.allclose(one, two, rtol=1e-4, atol=1e-5):
                sys.exit(f"{mapping} {name}: {(~np.isclose(one, two, rtol=1e-4, atol=1e-5)).sum()} rows differ")


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(repeats=1)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--memory-limit", default="8GB")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--spark", help="a Python that has pyspark")
    parser.add_argument("--driver-memory", default="8g")
    parser.add_argument("--folder", default=None, help="where the raw files and outputs go (a temporary folder)")
    options = parser.parse_args()
    from clickwise.data.synthetic import synthesize_raw_outbrain

    folder, cases = Path(tempfile.mkdtemp(dir=options.folder)), {}
    try:
        made = synthesize_raw_outbrain(folder / "raw", options.rows, threads=options.threads)
        raw_bytes = {file.stem: file.stat().st_size for file in (folder / "raw").iterdir()}
        for _ in range(options.repeats):
            for name in options.sets:
                shutil.rmtree(folder / name, ignore_errors=True)
                cases.setdefault(name, []).append(run([
                    sys.executable, "-c", PREPARE, folder / "raw", folder / name, name, options.memory_limit,
                    options.threads]))
                print(name, cases[name][-1], file=sys.stderr, flush=True)
            if options.spark:
                home = Path(subprocess.run([options.spark, "-c", "import pyspark; print(pyspark.__path__[0])"],
                                           check=True, capture_output=True, text=True).stdout.strip())
                shutil.rmtree(folder / "spark", ignore_errors=True)
                cases.setdefault("pyspark, v1_spark", []).append(run([
                    home / "bin" / "spark-submit", "--master", f"local[{options.threads}]",
                    "--driver-memory", options.driver_memory,
                    "--conf", f"spark.local.dir={folder}/spark_spill", "--conf", "spark.ui.enabled=false",
                    "--conf", "spark.sql.session.timeZone=UTC",
                    Path(__file__).with_name("outbrain_spark.py"), folder / "raw", folder / "spark"],
                    SPARK_HOME=home, PYSPARK_PYTHON=options.spark))
                print("pyspark", cases["pyspark, v1_spark"][-1], file=sys.stderr, flush=True)
        if options.spark and "v1_spark" in options.sets:
            same(folder / "spark", folder / "v1_spark")
    finally:
        shutil.rmtree(folder)
    rows = [{"case": name, **{key: statistics.median(run[key] for run in runs) for key in runs[0]},
             "rows_per_cpu_s": options.rows / statistics.median(run["cpu_s"] for run in runs)}
            for name, runs in cases.items()]
    if options.spark:
        spark = next(row["cpu_s"] for row in rows if row["case"].startswith("pyspark"))
        for row in rows:
            row["cpu_of_pyspark"] = row["cpu_s"] / spark
    finish("prepare-outbrain", rows, options, raw_rows=options.rows, raw_bytes=raw_bytes, documents=made["documents"],
           displays=made["displays"], ads=made["ads"], memory_limit=options.memory_limit, threads=options.threads,
           target="10 M rows within 8 GB; CPU time of v1_spark at most 0.05 of pyspark's")


if __name__ == "__main__":
    main()
