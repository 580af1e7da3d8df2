"""Raw Criteo logs to a test AUC: `clickwise prepare` and `clickwise train` beside Polars and TorchRec, on one core.

Both read the same generated files (`clickwise synth criteo_raw`), fit vocabularies with the same frequency limit, and
train the DLRM of criteo/dlrm_small for one epoch: rows of 16 numbers, bottom MLP 128-16, top MLP 128-64-1, batches of
1,024, row-wise Adagrad in the tables, Adam elsewhere. The rival (`end_to_end_rival.py`) lives in an environment of its
own: that of `sharded.py` with polars and scikit-learn. CPU time is user + system of all processes, imports included;
the two go in turns. Nothing is compared unless both reach an AUC within 0.01. Targets: CPU time at most 0.85 times the
rival's, and growing no faster than the rows.

    python benchmarks/end_to_end.py --rows 1000000 4000000 --torchrec-python torchrec/bin/python
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import arguments, finish

OURS, RIVAL = "clickwise", "Polars + TorchRec"
FILES, LIMIT, LR, TABLE_LR, BATCH, NEAR = 5, 15, 1e-3, 0.02, 1024, 0.01


def run(*command: object) -> tuple[float, float, str]:
    """CPU seconds, peak memory in GB and the output of a process on one core."""
    core = min(os.sched_getaffinity(0))
    one = {name: "1" for name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(list(map(str, command)), stdout=out, stderr=errors, env=os.environ | one,
                                 preexec_fn=lambda: os.sched_setaffinity(0, {core}))
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if child.returncode:
            sys.exit(errors.read())
        return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9, out.read()


def ours(raw: Path, folder: Path) -> dict[str, float]:
    command = (sys.executable, "-m", "clickwise")
    prepare = run(*command, "prepare", "criteo/prepare", f"dataset.train=[{raw}/day_*]",
                  f"dataset.frequency_limit={LIMIT}", "engine.memory_limit=4GB", f"out={folder}/columns")
    train = run(*command, "train", "criteo/dlrm_small", f"data.path={folder}/columns", "data.validation=null",
                "train.epochs=1", "baselines=[]", "metrics=[auc]", "--out", f"{folder}/runs", "--json")
    auc = json.loads(train[2])["mappings"]["test"]["auc"]
    return {"prepare_cpu_s": prepare[0], "train_cpu_s": train[0], "peak_gb": max(prepare[1], train[1]), "auc": auc}


def rival(raw: Path, folder: Path, python: str) -> dict[str, float]:
    cpu, peak, out = run(python, Path(__file__).with_name("end_to_end_rival.py"), raw, folder, LIMIT, LR, TABLE_LR,
                         BATCH)
    found = json.loads(out.splitlines()[-1])
    return {"prepare_cpu_s": found["prepare_cpu_s"], "train_cpu_s": cpu - found["prepare_cpu_s"], "peak_gb": peak,
            "auc": found["auc"]}


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(repeats=1)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--torchrec-python", metavar="PATH", required=True)
    parser.add_argument("--folder", help="where the files go (a temporary folder)")
    options = parser.parse_args()
    rows = []
    for count in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as place:
            raw = Path(place) / "raw"
            subprocess.run([sys.executable, "-c", "import sys; from clickwise.data.synthetic import "
                            "synthesize_raw_criteo; synthesize_raw_criteo(sys.argv[1], int(sys.argv[2]), files="
                            f"{FILES}, threads=1)", str(raw), str(count)], check=True)
            runs: dict[str, list[dict[str, float]]] = {OURS: [], RIVAL: []}
            for turn in range(options.repeats):
                for name, work in ((OURS, lambda folder, raw=raw: ours(raw, folder)),
                                   (RIVAL, lambda folder, raw=raw: rival(raw, folder, options.torchrec_python))):
                    folder = Path(place) / f"{turn}_{len(runs[name])}_{name[:5]}"
                    folder.mkdir()
                    found = work(folder)
                    runs[name].append({"cpu_s": found["prepare_cpu_s"] + found["train_cpu_s"], **found})
                    print(count, name, runs[name][-1], file=sys.stderr, flush=True)
            if abs(runs[OURS][0]["auc"] - runs[RIVAL][0]["auc"]) > NEAR:
                sys.exit(f"the AUCs differ: {runs[OURS][0]['auc']}, {runs[RIVAL][0]['auc']}")
        ratios = sorted(mine["cpu_s"] / other["cpu_s"] for mine, other in zip(*runs.values(), strict=True))
        for name, times in runs.items():
            rows.append({"raw rows": count, "case": name,
                         **{key: statistics.median(each[key] for each in times) for key in times[0]},
                         "of_rival": statistics.median(ratios) if name == OURS else 1.0,
                         "of_rival_min": ratios[0] if name == OURS else 1.0,
                         "of_rival_max": ratios[-1] if name == OURS else 1.0})
    finish("end_to_end", rows, options, cores=1, frequency_limit=LIMIT, batch_size=BATCH,
           target="CPU time at most 0.85 times Polars + TorchRec's, growing no faster than the rows")


if __name__ == "__main__":
    main()
