"""How long a server of large tables takes until it answers, and how much memory it holds: DLRM with 26 tables of a
million rows of 16 numbers, 1.7 GB, untrained, of ids alone.

Tables are mapped into memory: `own_mb` is what the process holds by itself, `mapped_mb` what it has looked up of them,
which the system keeps for all processes and takes back when it needs room (of a row that is looked up it maps the 64 kB
around it). Target: 2 s to start.

    python benchmarks/serve_start.py --save
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from measure import arguments, finish

import clickwise as cw
from clickwise.export.folder import export
from clickwise.feature_spec import FeatureSpec
from clickwise.verbs.synth import synth

TABLES, ROWS, DIM, REQUESTS = 26, 1_000_000, 16, 1000


def make_export(folder: Path) -> Path:
    spec = FeatureSpec.of([f"n{index}" for index in range(13)], {f"c{index}": ROWS for index in range(TABLES)})
    spec.save(folder)
    synth(str(folder / "feature_spec.yaml"), out=folder / "data", rows=20_000, test_rows=2_000, alpha=1.45,
          signal="additive", seed=0, threads=None)
    run = cw.fit_recipe("criteo/dlrm", {
        "data.path": str(folder / "data"), "data.validation": None, "train.steps": 1, "train.epochs": None,
        "train.batch_size": 1024, "train.evaluation_batch_size": 1024, "model.embedding_dim": DIM,
        "model.bottom_mlp": [64, DIM], "model.top_mlp": [64], "schedule": {}, "train.precision": "fp32",
        "baselines": []}, out=folder / "runs")
    export(run, folder / "export", name="large", encoding=False)
    return folder / "export"


def serve(folder: Path, *words: str) -> dict[str, object]:
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "clickwise", "serve", str(folder), "--port", "0",
                                "--no-access-log", *words], stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        started = time.perf_counter() - began
        (own, mapped), dice = memory_mb(process.pid), np.random.default_rng(0)
        for _ in range(REQUESTS):
            body = {"inputs": [
                {"name": "numerical", "datatype": "FP32", "shape": [1, 13], "data": [dice.random(13).tolist()]},
                {"name": "ids", "datatype": "INT64", "shape": [1, TABLES],
                 "data": [dice.integers(0, ROWS, TABLES).tolist()]}]}
            with urllib.request.urlopen(f"{address}/v2/models/large/infer", json.dumps(body).encode()) as answer:
                answer.read()
        own_after, mapped_after = memory_mb(process.pid)
        return {"case": " ".join(["clickwise serve", *words]), "started_s": started, "own_mb": own, "mapped_mb": mapped,
                "own_after_mb": own_after, "mapped_after_mb": mapped_after}
    finally:
        process.terminate()
        process.wait()


def memory_mb(process: int) -> tuple[float, float]:
    """Resident memory that is the process' own, and that of files."""
    _, resident, shared = map(int, Path(f"/proc/{process}/statm").read_text().split()[:3])
    page = os.sysconf("SC_PAGE_SIZE") / 1e6
    return (resident - shared) * page, shared * page


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--export", type=Path, help="one that was made before")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.export or make_export(Path(temporary))
        tables = sum(path.stat().st_size for path in folder.glob("model.onnx*")) / 1e6
        rows = [{**serve(folder, *words), "tables_mb": tables} for words in ((), ("--no-checksums",))]
    finish("serve_start", rows, options, columns=["case", "started_s", "own_mb", "mapped_mb", "own_after_mb",
                                                   "mapped_after_mb", "tables_mb"],
           targets={"started_s": 2})


if __name__ == "__main__":
    main()
