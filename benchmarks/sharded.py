"""Tables over two processes: CPU time of forward, backward and update, clickwise and TorchRec in turns.

    python benchmarks/sharded.py                                              ours, beside one process
    python benchmarks/sharded.py --against torchrec --torchrec-python PATH    TorchRec's plans in the same run

Two gloo processes of one thread each, 26 tables of 100,000 rows, ids by the power law P(id) ~ (id + 1)^-1.05, 4,096
samples in all, row-wise Adagrad. What is handed back to the tables is a fixed gradient, so that nothing but the tables
is measured. Processor time is that of both processes together, with the threads that send and receive. All rivals
keep freed memory, as `clickwise train` does.

    one process        the engine of one process, all samples: what the work costs without an exchange
    ours rows          the rows of every table dealt to the processes
    ours tables        whole tables placed
    torchrec tables    table-wise, table mod processes; its rows stand in the plan's order, which is not mended here
    torchrec rows      row-wise, blocks of rows
    torchrec columns   column-wise: halves of rows, each with an accumulator of its own, which is another optimizer

Before a rival is timed it takes four steps, and every number of its tables is held against one process's. Ours must be
within 1e-6, or nothing is compared. A plan of TorchRec that is not is shown and takes no part in the comparison.
`of best` is a rival's CPU time over that of TorchRec's best plan: the median of the turns' ratios with its 10 % and
90 % points.

TorchRec needs an environment of its own, with the torch that clickwise has. Installed with what it asks for, it brings
`fbgemm-gpu`, built for CUDA, which overwrites the module of `fbgemm-gpu-cpu` and breaks it. So without:

    python -m venv torchrec
    torchrec/bin/pip install torch==2.13.0 numpy tensordict torchmetrics==1.0.3 tqdm pyre-extensions
    torchrec/bin/pip install --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0
    python benchmarks/sharded.py --against torchrec --torchrec-python torchrec/bin/python
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from measure import arguments, finish

WORKER = Path(__file__).with_name("sharded_worker.py")
ONE, OURS, PEERS = "one process", ("ours rows", "ours tables"), ("torchrec tables", "torchrec rows", "torchrec columns")
KEEP_FREED_MEMORY = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647"
PROCESSES, WITHIN = 2, 1e-6
TARGET = "ours no more CPU time than TorchRec's best plan at dim 16, ≤ 0.75 of it at dim 128"


class Rival:
    """The processes of one way to hold the tables."""

    def __init__(self, name: str, python: str, case: dict[str, object]) -> None:
        self.name, processes = name, 1 if name == ONE else PROCESSES
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLIBC_TUNABLES": KEEP_FREED_MEMORY,
                       "PYTHONWARNINGS": "ignore"}
        self.processes = [subprocess.Popen(
            [python, WORKER, json.dumps({"rival": name, "rank": rank, "processes": processes, **case})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) for rank in range(processes)]

    def _answers(self) -> list:
        lines = [process.stdout.readline() for process in self.processes]
        if not all(lines):
            raise SystemExit(f"{self.name} ended: see above")
        return [json.loads(line) for line in lines]

    def apart(self) -> float:
        """How far its tables are from those of one process, once it has checked that."""
        return max(answer["apart"] for answer in self._answers())

    def turn(self, steps: int) -> tuple[float, float]:
        """Milliseconds of a step: elapsed, and of the processors."""
        for process in self.processes:
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
        wall, cpu = zip(*self._answers(), strict=True)
        return 1e3 * max(wall) / steps, 1e3 * sum(cpu) / steps

    def end(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def started(options: argparse.Namespace, dim: int) -> Iterator[dict[Rival, float]]:
    """The rivals, checked, with how far each is from one process."""
    rivals: dict[Rival, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        case = {"dim": dim, "samples": options.batch, "table_rows": options.table_rows, "folder": folder}
        try:
            for name in (ONE, *options.rivals):
                rival = Rival(name, options.torchrec_python if name in PEERS else sys.executable, case)
                rivals[rival] = float("inf")
                rivals[rival] = rival.apart()
                if rivals[rival] > WITHIN and name not in PEERS:
                    raise SystemExit(f"{name}, dim {dim}: {rivals[rival]:.1e} from the tables of one process, "
                                     f"at most {WITHIN:.0e} is allowed. Nothing is compared.")
            yield rivals
        finally:
            for rival in rivals:
                rival.end()


def race(options: argparse.Namespace, dim: int) -> list[dict[str, object]]:
    with started(options, dim) as rivals:
        turns = {rival: [] for rival in rivals}
        for _ in range(options.repeats):
            for rival in rivals:
                turns[rival].append(rival.turn(options.steps))
    cpu_ms = {rival: [cpu for _, cpu in turns[rival]] for rival in rivals}
    peers = [rival for rival, apart in rivals.items() if rival.name in PEERS and apart <= WITHIN]
    best = min(peers, key=lambda rival: statistics.median(cpu_ms[rival]), default=None)
    rows = []
    for rival, apart in rivals.items():
        mine = cpu_ms[rival]
        row = {"dim": dim, "rival": rival.name, "cpu_ms": statistics.median(mine), "min_ms": min(mine),
               "max_ms": max(mine), "wall_ms": statistics.median(wall for wall, _ in turns[rival]),
               "samples/cpu-s": 1e3 * options.batch / statistics.median(mine), "apart": apart}
        if best and (rival in peers or rival.name not in PEERS):
            ratios = sorted(own / its for own, its in zip(mine, cpu_ms[best], strict=True))
            row |= {"of best": statistics.median(ratios), "low": ratios[len(ratios) // 10],
                    "high": ratios[-1 - len(ratios) // 10]}
        elif best:
            row |= {"of best": "other sums", "low": "", "high": ""}
        rows.append(row)
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.epilog, parser.formatter_class = __doc__.split("\n\n", 1)[1], argparse.RawDescriptionHelpFormatter
    parser.set_defaults(repeats=15)
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--batch", type=int, default=4096, help="samples of both processes together")
    parser.add_argument("--table-rows", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=20, help="of a turn; --repeats are turns")
    parser.add_argument("--against", choices=["torchrec"])
    parser.add_argument("--torchrec-python", metavar="PATH", help="the interpreter of TorchRec's environment")
    parser.add_argument("--rivals", nargs="+", choices=[*OURS, *PEERS], help="all of them by default")
    options = parser.parse_args()
    options.rivals = options.rivals or [*OURS, *(PEERS if options.against else ())]
    if not options.torchrec_python and any(rival in PEERS for rival in options.rivals):
        parser.error("TorchRec lives in an environment of its own: --torchrec-python PATH; see above")
    rows = []
    for dim in options.dims:
        rows += race(options, dim)
        print(f"measured: dim {dim}", file=sys.stderr, flush=True)
    finish("sharded", rows, options, processes=PROCESSES, batch=options.batch, table_rows=options.table_rows,
           steps=options.steps, within=WITHIN, target=TARGET)


if __name__ == "__main__":
    main()
