"""One training step on the CPU: clickwise against plain PyTorch, torch.compile and fbgemm's tables, samples/s.

    python benchmarks/cpu_step.py                                    DLRM, plain SGD
    python benchmarks/cpu_step.py --model dcnv2 --table-rows 50000   DCNv2, Adam (of touched rows in the tables)
    python benchmarks/cpu_step.py --model wide_deep --dims 64        Wide & Deep, FTRL and Adagrad
    python benchmarks/cpu_step.py --threads 1 --batches 2048 --tbe-python PATH --rivals "tbe bf16 +memory" "ours bf16"

Models: 13 numerical features, 26 tables, bottom MLP 512-256-D, top MLP 1024-1024-512-256-1; DCNv2 with three cross
layers of rank 512 between x0 and the top MLP; Wide & Deep: 26 more tables of width 1, five layers of 1024, dropout 0.1.
Plain: one nn.EmbeddingBag(sparse=True) per table, nn.Linear, torch.optim.SGD, or Adam and SparseAdam, or Adagrad (which
is what FTRL without penalties computes); DLRM: cat, bmm, Z[:, i, j]; DCNv2: x0 * V(U(x)) + x. It gets its ids as
int64 and its numericals as float32 ready made. Clickwise gets int32 and float16, as they come from disk.
Compile: plain by torch.compile. TBE: plain with the table-batched embeddings that are TorchRec's, of fbgemm, which has
no Adam on a CPU; it gets its ids as int32. Both step the dense part by torch's fused SGD.
Ids: uniform, or the power law P(id) ~ (id + 1)^-1.05.

Every rival is a process of its own, and they step in turns, so that a noisy moment of the machine meets all of them.
A rival's name says what it is: plain | compile | tbe | ours, fp32 | bf16, then what is added (+memory: freed memory is
kept, as ours does; +huge: in huge pages, which ours asks for; +bf16_tables: ours with rows stored in bfloat16) or taken
away (-memory, -products: torch's own linear layers, -interaction and -update: the plain reference kernels).
`×` is how many times faster than the first rival: the median of the turns' ratios with its 10 % and 90 % points by
elapsed time, and by processor time, which other work on the machine disturbs less.

TBE needs an environment of its own, with the torch that clickwise has:

    python -m venv tbe
    tbe/bin/pip install torch==2.13.0 numpy setuptools
    tbe/bin/pip install --no-deps fbgemm-gpu-cpu==1.8.0
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from cpu_step_rivals import ALPHA, TABLES
from measure import KEEP_FREED_MEMORY, arguments, finish

WORKER = Path(__file__).with_name("cpu_step_rivals.py")
HUGE_PAGES = "glibc.malloc.hugetlb=1"
TARGETS = {"dlrm": "ours ≥ 1.5 × plain in fp32, ≥ 3 ×", "dcnv2": "ours ≥ 1.2 × plain in fp32, ≥ 2.5 ×",
           "wide_deep": "ours ≥ 2.5 × plain"}
RIVALS = ("plain fp32", "plain bf16", "ours fp32", "ours bf16")


def started(rival: str, python: str, case: dict[str, object]) -> subprocess.Popen:
    kind, _, *changes = rival.split()
    # The rivals share the cores: threads of one that waits for its turn must not spin.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    tunables = [KEEP_FREED_MEMORY] * ("+memory" in changes) + [HUGE_PAGES] * ("+huge" in changes)
    if tunables:
        environment["GLIBC_TUNABLES"] = ":".join(tunables)
    process = subprocess.Popen([python, WORKER, json.dumps({"rival": rival, **case})], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, env=environment)
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"{rival} did not start")
    return process


def race(options: argparse.Namespace, dim: int, samples: int, ids: str) -> list[dict[str, object]]:
    rivals, processes = options.rivals, {}
    case = {"name": options.model, "optimizer": options.optimizer, "dim": dim, "samples": samples, "ids": ids,
            "table_rows": options.table_rows, "threads": options.threads}
    try:
        for rival in rivals:
            processes[rival] = started(rival, options.tbe_python if rival.startswith("tbe ") else sys.executable, case)
        times = {rival: [] for rival in rivals}
        for _ in range(options.repeats):
            for rival, process in processes.items():
                if process.poll() is not None:
                    raise SystemExit(f"{rival} ended with code {process.returncode}: out of memory? Race fewer rivals.")
                process.stdin.write("\n")
                process.stdin.flush()
                times[rival].append(json.loads(process.stdout.readline()))
    finally:
        for process in processes.values():
            process.terminate()
            process.wait()
    rows = []
    for rival in rivals:
        wall, cpu, loss = zip(*times[rival], strict=True)
        ratios = sorted(plain[0] / mine for plain, mine in zip(times[rivals[0]], wall, strict=True))
        cpus = sorted(plain[1] / mine for plain, mine in zip(times[rivals[0]], cpu, strict=True))
        rows.append({"model": options.model, "dim": dim, "batch": samples, "ids": ids, "rival": rival,
                     "step_ms": 1e3 * statistics.median(wall), "min_ms": 1e3 * min(wall), "max_ms": 1e3 * max(wall),
                     "cpu_ms": 1e3 * statistics.median(cpu), "samples/s": samples / statistics.median(wall),
                     "samples/cpu-s": samples / statistics.median(cpu),
                     "× wall": statistics.median(ratios), "low": ratios[len(ratios) // 10],
                     "high": ratios[-1 - len(ratios) // 10], "× cpu": statistics.median(cpus),
                     "cpu_low": cpus[len(cpus) // 10], "cpu_high": cpus[-1 - len(cpus) // 10], "loss": loss[-1]})
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", default="dlrm", choices=list(TARGETS))
    parser.add_argument("--table-rows", type=int, default=100_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--batches", type=int, nargs="+", default=[2048, 16384])
    parser.add_argument("--ids", nargs="+", default=["uniform", "power"], choices=["uniform", "power"])
    parser.add_argument("--rivals", nargs="+", default=list(RIVALS), help="the first is what the others are held to")
    parser.add_argument("--optimizer", choices=["sgd", "adam"], help="of dlrm (sgd) and dcnv2 (adam)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tbe-python", metavar="PATH", help="the interpreter of the environment of the rival tbe")
    parser.add_argument("--name", help="of the result file; cpu_step, or cpu_step-<model>, by default")
    options = parser.parse_args()
    options.optimizer = options.optimizer or ("sgd" if options.model == "dlrm" else "adam")
    with_tbe = any(rival.startswith("tbe ") for rival in options.rivals)
    if with_tbe and not options.tbe_python:
        parser.error("fbgemm's tables live in an environment of their own: --tbe-python PATH; see the top of this file")
    if with_tbe and (options.model == "wide_deep" or options.optimizer != "sgd"):
        parser.error("fbgemm's tables step by plain SGD here: --model dlrm, or dcnv2 with --optimizer sgd")
    rows = []
    for dim in options.dims:
        for samples in options.batches:
            for ids in options.ids:
                rows += race(options, dim, samples, ids)
                print(f"measured: dim {dim}, batch {samples:,}, {ids} ids", file=sys.stderr, flush=True)
    finish(options.name or ("cpu_step" if options.model == "dlrm" else f"cpu_step-{options.model}"), rows, options,
           threads=options.threads, optimizer=options.optimizer, tables=TABLES, table_rows=options.table_rows,
           alpha=ALPHA, target=f"{TARGETS[options.model]} in bf16 on a CPU with AMX")


if __name__ == "__main__":
    main()
