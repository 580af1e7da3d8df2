"""Everything worth measuring on one GPU, in one command that fits into a few minutes.

    python benchmarks/gpu.py --budget 540            all stages, those of most worth first, within 9 minutes
    python benchmarks/gpu.py --stages c,d            some of them
    python benchmarks/gpu.py --rehearse              the same on a CPU, tiny, kernels interpreted: whether it all works

    a  the card's ceilings: a copy, a product         e  the table of kernels (benchmarks/kernels.py)
    b  kernels against their references, the tests    f  AUC on planted signals, bf16 against float32
    c  training steps at the published batch sizes    g  the input pipeline
    d  inference                                      h  the kernels that take a step's time, with the steps of c

Every stage is a few tasks, each a process of its own with a time limit, and writes each figure at once: a crash costs
its own task, a cut nothing that was measured. What is under torch.compile comes last, because it takes longest.

In the folder of --out: gpu-<card>-<date>.json with every figure, written anew after each task, from which
`python benchmarks/performance_page.py` writes docs/performance.md; and gpu-<time>/ with the rows and logs as they came.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout is measured, whatever is installed

from measure import RESULTS, append, stamp, table  # noqa: E402
from on_gpu.context import ROWS, Context, rows_in  # noqa: E402
from on_gpu.sizes import PUBLISHED, REHEARSAL, Sizes  # noqa: E402

from clickwise import files, machine  # noqa: E402

STAGES = "abcdefgh"
OUTCOMES, KERNELS, LOG = "outcomes.jsonl", "kernels.jsonl", "log.txt"
LEAST_S = 8  # no task is begun for less
ROUND_OFF_S = 3  # of the budget, for what comes behind the last task


@dataclasses.dataclass(frozen=True)
class Task:
    """One process: `about_s` on one H100, estimated; `limit_s`, after which it is ended; its words for `run_task`, or
    a command of its own."""

    stage: str
    name: str
    about_s: int
    limit_s: int
    words: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def tasks(sizes: Sizes, stages: str) -> list[Task]:
    """In the order of their worth."""
    every = [Task("a", "ceilings", 8, 40, ("ceilings",)), Task("b", "self-tests", 25, 60, ("self_tests",)),
             Task("b", "tests", 55, 60, command=("-m", "pytest", "-n", str(min(12, machine.usable_cores())), "-p",
                                                 "no:cacheprovider", "-p", "on_gpu.outcomes", "--hypothesis-seed=0",
                                                 *sizes.tests))]
    with_steps = "".join(stage for stage in "ch" if stage in stages)
    for index, (model, batch, _) in enumerate(sizes.steps):
        every.append(Task(with_steps or "c", f"{model} {batch:,}", 14, 60, ("train", str(index), with_steps)))
    every += [Task("d", model, 10, 40, ("infer", model)) for model in sizes.inference]
    every += [Task("e", " ".join(options), 25, 60, command=("benchmarks/kernels.py", *options))
              for options in sizes.kernels]
    every += [Task("f", recipe, 12, 60, ("signal", recipe)) for recipe in sizes.signals]
    every.append(Task("g", "input pipeline", 25, 60, ("pipeline",)))
    every += [Task("c", f"{model} {batch:,}, compiled", 40, 90, ("compiled", str(index)))
              for index, (model, batch, _) in enumerate(sizes.steps[:sizes.compiled])]
    every.append(Task("e", "four cases, compiled rivals", 80, 120,
                      command=("benchmarks/kernels.py", *sizes.compiled_kernels, "--compiled")))
    return [task for task in every if set(task.stage) & set(stages)]


def run_task(words: list[str], context: Context) -> None:
    """What a child process does."""
    from on_gpu import ceilings, checks, pipeline, steps

    sizes = context.sizes
    match words:
        case ["ceilings"]:
            ceilings.run(context)
        case ["self_tests"]:
            checks.self_tests(context)
        case ["train", index, stages]:
            variants = ("fast", "plain torch") if "c" in stages else ("fast",)
            steps.train(context, *sizes.steps[int(index)], variants, stages)
        case ["compiled", index]:
            steps.train(context, *sizes.steps[int(index)], ("compiled",), "c")
        case ["infer", model]:
            settings = next(settings for name, _, settings in sizes.steps if name == model)
            steps.infer(context, model, sizes.inference[model], settings)
        case ["signal", recipe]:
            checks.signal(context, recipe, sizes.signals[recipe])
        case ["pipeline"]:
            pipeline.run(context)
        case _:
            raise ValueError(f"no task {words}")


class Run:
    """The tasks of one call, and what is known of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.sizes = options, REHEARSAL if options.rehearse else PUBLISHED
        self.started, self.stamp = time.monotonic(), stamp()
        self.folder = options.out / f"gpu-{datetime.datetime.now():%Y-%m-%d-%H%M%S}"
        self.folder.mkdir(parents=True)
        self.result: Path | None = None

    def left_s(self) -> float:
        return self.options.budget - (time.monotonic() - self.started)

    def go(self) -> list[dict]:
        """The rows of every task that the budget allows."""
        todo = tasks(self.sizes, self.options.stages)
        for number, task in enumerate(todo, 1):
            seconds = self.left_s() - ROUND_OFF_S
            if seconds < LEAST_S:
                self._row(task, "not begun", remark=f"the budget of {self.options.budget} s was used up")
                continue
            print(f"{time.monotonic() - self.started:4.0f} s  {number}/{len(todo)}  {task.stage}  {task.name}",
                  file=sys.stderr, flush=True)
            self._run(task, min(task.limit_s, seconds))
            self.write()
        return self.write()

    def _run(self, task: Task, limit_s: float) -> None:
        """Runs the task to its end or limit; what went wrong with it is a row."""
        words = task.command or ("benchmarks/gpu.py", "--task", json.dumps(task.words), "--out", str(self.folder),
                                 *(["--rehearse"] if self.options.rehearse else []))
        if task.command[:1] == ("benchmarks/kernels.py",):
            words = (*words, "--out", str(self.folder))
        paths = [str(ROOT / "src"), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1",
                       "OUTCOMES": str(self.folder / OUTCOMES)}
        started = time.monotonic()
        with open(self.folder / LOG, "ab") as log:
            log.write(f"\n== {task.stage} {task.name}: python {shlex.join(words)}\n".encode())
            log.flush()
            start = log.tell()
            # A session of its own: whatever it starts is ended with it.
            child = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, stdout=log,
                                     stderr=subprocess.STDOUT, start_new_session=True)
            try:
                code = child.wait(limit_s)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
        if task.name == "tests":
            self._count_tests(task)
        if code is None:
            self._row(task, f"ended after {limit_s:.0f} s", holds=False)
        elif code and (task.name, code) != ("tests", 1):  # which says that some failed: they are counted
            with open(self.folder / LOG, "rb") as log:
                log.seek(start)
                last = log.read().decode(errors="replace").strip().splitlines()[-1:]
            self._row(task, f"ended with {code}", error=" ".join(last)[:300], holds=False)
        self._row(task, "took", measured=round(time.monotonic() - started, 1), unit="s", predicted=task.about_s)

    def _count_tests(self, task: Task) -> None:
        path = self.folder / OUTCOMES
        tests = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        failed = [test for test in tests if test["outcome"] == "failed"]
        self._row(task, "failed", measured=len(failed), unit=f"of {len(tests)}", holds=bool(tests) and not failed)
        for test in failed[:20]:
            self._row(task, test["test"], error=test["error"], holds=False)

    def _row(self, task: Task, figure: str, measured: object = None, unit: str = "", **more: object) -> None:
        append(self.folder / ROWS, {"stage": task.stage[0], "case": task.name, "figure": figure, "measured": measured,
                                    "unit": unit, **more})

    def write(self) -> list[dict]:
        """The result file as far as it goes; its rows."""
        rows = rows_in(self.folder)
        card = next((row["card"] for row in rows if "card" in row), "rehearsal" if self.options.rehearse else "unknown")
        path = self.folder / KERNELS
        kernels = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        if self.result is None or "unknown" in self.result.name and card != "unknown":
            if self.result is not None:
                self.result.unlink(missing_ok=True)
            name = f"gpu-{card.replace(' ', '-').lower()}-{self.stamp['date'][:10]}"
            self.result = next(path for path in (self.options.out / f"{name}{ending}.json" for ending in
                               ("", *(f"-{n}" for n in range(2, 1000)))) if not path.exists())
        content = {"name": "gpu", "rehearsed": self.options.rehearse, "card": card, "budget_s": self.options.budget,
                   "stages": self.options.stages, "seconds": round(time.monotonic() - self.started, 1), **self.stamp,
                   "results": rows, "kernels": kernels}
        files.write_text(self.result, json.dumps(content, indent=1) + "\n")
        return rows


def shown(rows: list[dict]) -> str:
    """The table on the terminal: measured beside predicted and published."""
    cells = []
    for row in rows:
        if row["figure"] == "took":
            continue
        more = row.get("error") or row.get("remark") or "; ".join(row.get("said") or ())
        cells.append({"stage": row["stage"], "case": row["case"], "figure": row["figure"][:60],
                      "measured": "" if row["measured"] is None else row["measured"], "unit": row["unit"],
                      "predicted": row.get("predicted") or "", "published": row.get("published") or "",
                      "of roofline": row.get("roofline_share") or "", "GiB": row.get("peak_gib") or "",
                      "holds": {True: "yes", False: "NO"}.get(row.get("holds"), ""), "": (more or "")[:70]})
    return table(cells)


def stages_of(text: str) -> str:
    stages = text.replace(",", "").replace(" ", "")
    if not stages or set(stages) - set(STAGES):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected stages among {','.join(STAGES)}: c,d for example")
    return "".join(sorted(set(stages)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=540, help="seconds for all of it")
    parser.add_argument("--stages", type=stages_of, default=STAGES, help="some of a,b,c,d,e,f,g,h")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, tiny, kernels interpreted")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        from on_gpu.machine import Card, Rehearsal

        sizes, kind = (REHEARSAL, Rehearsal) if options.rehearse else (PUBLISHED, Card)
        run_task(json.loads(options.task), Context(sizes, kind(), options.out))
        return 0
    if not options.rehearse and not _has_gpu():
        print("no GPU here, and nothing was measured; --rehearse shows whether everything works", file=sys.stderr)
        return 1
    options.out = options.out.resolve()
    if options.rehearse and options.out == RESULTS.resolve():
        print("--rehearse: found no --out, expected a folder for what is no result", file=sys.stderr)
        return 2
    run = Run(options)
    try:
        rows = run.go()
    except KeyboardInterrupt:
        rows = run.write()
    print(shown(rows))
    print(f"{run.result}\n{run.folder}/{LOG}")
    return 1 if any(row.get("holds") is False for row in rows) else 0


def _has_gpu() -> bool:
    """Asked of a child, so that this process holds no memory of the card."""
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", question]).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
