"""Tables over two processes: what a step of the tables alone costs, beside TorchRec, and a whole step of DLRM.

    python benchmarks/sharded.py                                              ours, beside one process
    python benchmarks/sharded.py --against torchrec --torchrec-python PATH    TorchRec's plans in the same run
    python benchmarks/sharded.py --what step                                  DLRM: two processes against one

Two gloo processes of one thread each, 26 tables of 100,000 rows, ids by the power law P(id) ~ (id + 1)^-1.05, 4,096
samples in all. Processor time is that of both processes together, with the threads that send and receive. All rivals
keep freed memory, as `clickwise train` does, unless `--memory as-it-comes`, and step in turns.

Tables alone: row-wise Adagrad; what is handed back to the tables is a fixed gradient, so that nothing else is timed.

    one process        the engine of one process, all samples: what the work costs without an exchange
    ours rows          the rows of every table dealt to the processes
    ours tables        whole tables placed
    torchrec tables    table-wise, table mod processes; its rows stand in the plan's order, which is not mended here
    torchrec rows      row-wise, blocks of rows
    torchrec columns   column-wise: halves of rows, each with an accumulator of its own, which is another optimizer

Before a rival is timed it takes four steps, and every number of its tables is held against one process's. Ours must be
within 1e-6, or nothing is compared. A plan of TorchRec that is not is shown and takes no part in the comparison.
`of best` is a rival's CPU time over that of TorchRec's best plan: the median of the turns' ratios with its 10 % and
90 % points. All rivals are in memory at once, 18 GB at dim 128: `--rivals` takes fewer.

A whole step: the model of the recipe `criteo/dlrm`, float32, plain SGD, as `clickwise train --processes 2` takes it.
`speed` is samples/s over those of one process with one thread: the machine must have two cores to spare. `efficiency`
is one process's CPU time over that of both, which other work on the machine disturbs less.

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

from measure import KEEP_FREED_MEMORY, arguments, finish

WORKER = Path(__file__).with_name("sharded_worker.py")
ONE, OURS, PEERS = "one process", ("ours rows", "ours tables"), ("torchrec tables", "torchrec rows", "torchrec columns")
PROCESSES, WITHIN = 2, 1e-6
TARGETS = {"tables": "ours no more CPU time than TorchRec's best plan at dim 16, ≤ 0.75 of it at dim 128",
           "step": "speed ≥ 1.7 on a quiet machine, else efficiency ≥ 0.85"}


class Rival:
    """The processes of one way to hold the tables."""

    def __init__(self, name: str, python: str, keeps: bool, case: dict[str, object]) -> None:
        self.name, processes = name, 1 if name == ONE else PROCESSES
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        if keeps:
            environment["GLIBC_TUNABLES"] = KEEP_FREED_MEMORY
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
        case = {"what": options.what, "dim": dim, "samples": options.batch, "table_rows": options.table_rows,
                "folder": folder}
        try:
            for name in (ONE, *options.rivals):
                rival = Rival(name, options.torchrec_python if name in PEERS else sys.executable,
                              options.memory == "kept", case)
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
    compared = _steps if options.what == "step" else _tables
    rows = []
    for rival, others in compared(rivals, turns).items():
        wall, cpu = ([turn[which] for turn in turns[rival]] for which in (0, 1))
        rows.append({"dim": dim, "rival": rival.name, "cpu_ms": statistics.median(cpu), "min_ms": min(cpu),
                     "max_ms": max(cpu), "wall_ms": statistics.median(wall), "apart": rivals[rival], **others})
    return rows


Turns = dict[Rival, list[tuple[float, float]]]


def _tables(rivals: dict[Rival, float], turns: Turns) -> dict[Rival, dict[str, object]]:
    """Each rival's CPU time over that of TorchRec's best plan."""
    peers = [rival for rival, apart in rivals.items() if rival.name in PEERS and apart <= WITHIN]
    best = min(peers, key=lambda rival: statistics.median(cpu for _, cpu in turns[rival]), default=None)
    found: dict[Rival, dict[str, object]] = {}
    for rival in rivals:
        if best is None:
            found[rival] = {}
        elif rival.name in PEERS and rival not in peers:
            found[rival] = {"of best": "other sums", "low": "", "high": ""}
        else:
            found[rival] = _spread("of best", [mine / its for (_, mine), (_, its)
                                               in zip(turns[rival], turns[best], strict=True)])
    return found


def _steps(rivals: dict[Rival, float], turns: Turns) -> dict[Rival, dict[str, object]]:
    """How each rival does beside one process."""
    one = next(rival for rival in rivals if rival.name == ONE)
    found: dict[Rival, dict[str, object]] = {}
    for rival in rivals:
        speeds, efficiencies = ([its[which] / mine[which] for mine, its in zip(turns[rival], turns[one], strict=True)]
                                for which in (0, 1))
        found[rival] = {"speed": statistics.median(speeds), **_spread("efficiency", efficiencies)}
    return found


def _spread(name: str, ratios: list[float]) -> dict[str, object]:
    """The median of the turns' ratios, with its 10 % and 90 % points."""
    ratios = sorted(ratios)
    return {name: statistics.median(ratios), "low": ratios[len(ratios) // 10], "high": ratios[-1 - len(ratios) // 10]}


def main() -> None:
    parser = arguments(__doc__)
    parser.epilog, parser.formatter_class = __doc__.split("\n\n", 1)[1], argparse.RawDescriptionHelpFormatter
    parser.set_defaults(repeats=15)
    parser.add_argument("--what", choices=list(TARGETS), default="tables")
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--batch", type=int, default=4096, help="samples of both processes together")
    parser.add_argument("--table-rows", type=int, default=100_000)
    parser.add_argument("--steps", type=int, help="of a turn (20 of tables, 2 of a model); --repeats are turns")
    parser.add_argument("--memory", choices=["kept", "as-it-comes"], default="kept", help="freed memory of all rivals")
    parser.add_argument("--against", choices=["torchrec"])
    parser.add_argument("--torchrec-python", metavar="PATH", help="the interpreter of TorchRec's environment")
    parser.add_argument("--rivals", nargs="+", choices=[*OURS, *PEERS], help="all of them by default")
    options = parser.parse_args()
    options.rivals = options.rivals or [*OURS, *(PEERS if options.against else ())]
    if not options.torchrec_python and any(rival in PEERS for rival in options.rivals):
        parser.error("TorchRec lives in an environment of its own: --torchrec-python PATH; see above")
    if options.what == "step" and any(rival in PEERS for rival in options.rivals):
        parser.error("--what step is of ours alone")
    options.steps = options.steps or {"tables": 20, "step": 2}[options.what]
    rows = []
    for dim in options.dims:
        rows += race(options, dim)
        print(f"measured: dim {dim}", file=sys.stderr, flush=True)
    name = "sharded" if options.what == "tables" else "sharded-step"
    finish(name if options.memory == "kept" else f"{name}-memory-as-it-comes", rows, options, processes=PROCESSES,
           batch=options.batch, table_rows=options.table_rows, steps=options.steps, within=WITHIN,
           target=TARGETS[options.what])


if __name__ == "__main__":
    main()
