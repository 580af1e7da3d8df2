"""CPU time of preparing `.gz`: Criteo's logs and a table of one's own, beside the same with nothing looked at.

    python benchmarks/prepare_gz.py --save

The rival has the engine unpack the files itself, which knows of no checksum, and takes line ends and lengths on trust.
Each run is a process of its own, the two in turns; CPU time is user + system of that process with all its threads,
imports included. Target: at most 1.03 times that of the rival.
"""

from __future__ import annotations

import gzip
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import prepare_criteo
import prepare_table
from measure import arguments, finish

CHILD = """
import json, resource, sys
from clickwise import prepare
from clickwise.memory import peak_bytes
from clickwise.prepare import raw_text
from clickwise.text_scan import Scan
if sys.argv[1] == "not looked at":
    raw_text.RawText.can_be_piped = False
    raw_text.scan = lambda path, marks: Scan()
prepare.run({"dataset": json.loads(sys.argv[2]), "out": sys.argv[3]}, "benchmark")
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "peak_gb": peak_bytes() / 1e9}))
"""


def pack(file: Path) -> None:
    with open(file, "rb") as plain, gzip.open(f"{file}.gz", "wb", 6) as packed:
        shutil.copyfileobj(plain, packed, 1 << 20)
    file.unlink()


def generate(folder: Path, criteo_rows: int, table_rows: int) -> dict[str, dict]:
    """The section `dataset` of each case."""
    prepare_criteo.generate(folder / "criteo", criteo_rows)
    prepare_table.generate(folder / "table", table_rows)
    for file in [*(folder / "criteo").iterdir(), folder / "table/csv/rows.csv"]:
        pack(file)
    spec = folder / "table/csv/feature_spec.yaml"
    spec.write_text(spec.read_text(encoding="utf-8").replace("rows.csv", "rows.csv.gz"), encoding="utf-8")
    days = sorted(map(str, (folder / "criteo").iterdir()))
    return {"criteo": {"name": "criteo", "train": days, "split": "halve_last"},
            "table": {"name": "table", "spec": str(spec.parent)}}


def run(rival: str, dataset: dict, out: Path) -> dict[str, float]:
    shutil.rmtree(out, ignore_errors=True)
    done = subprocess.run([sys.executable, "-c", CHILD, rival, json.dumps(dataset), str(out)],
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--criteo-rows", type=int, default=2_000_000)
    parser.add_argument("--table-rows", type=int, default=1_000_000)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for case, dataset in generate(Path(temporary), options.criteo_rows, options.table_rows).items():
            runs = {"not looked at": [], "as it is": []}
            for _ in range(options.repeats):
                for rival in runs:
                    runs[rival].append(run(rival, dataset, Path(temporary, "out")))
                    print(case, rival, runs[rival][-1], file=sys.stderr, flush=True)
            trusting = statistics.median(time["cpu_s"] for time in runs["not looked at"])
            for rival, times in runs.items():
                cpu = [time["cpu_s"] for time in times]
                rows.append({"case": f"{case}, {rival}", "cpu_s": statistics.median(cpu), "cpu_min_s": min(cpu),
                             "cpu_max_s": max(cpu), "cpu_ratio": statistics.median(cpu) / trusting,
                             "peak_gb": max(time["peak_gb"] for time in times)})
    finish("prepare-gz", rows, options, criteo_rows=options.criteo_rows, table_rows=options.table_rows,
           target="cpu_ratio at most 1.03")


if __name__ == "__main__":
    main()
