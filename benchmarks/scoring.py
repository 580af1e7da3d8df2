"""Scoring on a CPU, forward passes without gradients: clickwise against AOTInductor and ONNX Runtime, CPU ms.

    python benchmarks/scoring.py --save

Models: DLRM and DCNv2 of the Criteo recipes (26 tables, dim 128), Wide & Deep of Outbrain's (five layers of 1,024), SIM
of Amazon Books' (a history of 100 events, k = 50); at most 20,000 rows a table, so that compiling stays quick.
Rivals: ours, as `evaluate`, `predict` and `bench` score, batches as the loader gives them; aoti, `clickwise export
--format pt2` with the weights frozen into it, in bf16 under autocast; onnx, `clickwise export` (ONNX Runtime has no
bf16 on CPUs). Theirs get their ids as one int64 tensor and their numericals as float32, ready made. All have one model
with the same weights: `differs` is how far a probability is from ours.

Every rival is a process of its own with one thread, keeps freed memory, and scores in turns: `ms` is the median
processor time of a pass over all turns, with its 10 % and 90 % points. `×` is ours over the faster of the others: the
median of the turns' ratios.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from measure import arguments, finish

TABLE_ROWS, ROWS, SEED = 20_000, 20_480, 0
BATCHES = {1: 60, 64: 20, 2048: 2, 16384: 1}  # samples → passes in a turn
OURS_ALONE = 16384
TARGETS = {1: 3.0, 64: 1.3, 2048: 1.3}
CRITEO = [f"data={{synthetic: {{spec: criteo_t15, rows: {{train: 1000, test: {ROWS}}}}}}}",
          "embedding.hash_indices=true", f"embedding.max_table_size={TABLE_ROWS}", "embedding.optimizer={name: sgd}"]
MODELS = {
    "dlrm": ("criteo/dlrm", CRITEO),
    "dcnv2": ("criteo/dcnv2", CRITEO),
    "wide_deep": ("outbrain/wide_deep", [
        f"data={{synthetic: {{numericals: 13, cardinalities: {[TABLE_ROWS] * 4 + [500] * 13}, "
        f"rows: {{train: 1000, test: {ROWS}}}}}}}",
        "model.embedding_sizes={cat_0: 128, cat_1: 128, cat_2: 128, cat_3: 128, cat_4: 16}", "metrics=[auc]",
        "train.metric=auc"]),
    "sim": ("amazon_books/sim", [
        f"data={{synthetic: {{numericals: 0, cardinalities: [], history_length: 100, items: {TABLE_ROWS}, "
        f"item_categories: 100, rows: {{train: 1000, test: {ROWS}}}, signal: {{kind: far_back}}}}}}",
        "metrics=[auc]", "train.metric=auc", "train.patience=null"]),
}
RIVALS = {"fp32": ("ours", "aoti", "onnx"), "bf16": ("ours", "aoti")}


def worker(rival: str, model: str, precision: str) -> None:
    """Builds one rival; then for every line read, [samples, passes], answers with the seconds of the passes, and for
    0 passes with the probabilities of the first rows."""
    import torch

    from clickwise.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    score_of = {"ours": _ours, "aoti": _aoti, "onnx": _onnx}[rival](model, precision)
    print("ready", flush=True)
    for line in sys.stdin:
        samples, passes = json.loads(line)
        score = score_of(samples)
        for _ in range(3 if samples <= 64 else 1):
            score()
        answer = [_seconds(score) for _ in range(passes)] if passes else score().tolist()
        print(json.dumps(answer), flush=True)


def _seconds(score) -> float:
    started = time.process_time()
    score()
    return time.process_time() - started


def _session(model: str, precision: str, samples: int = 1):
    import dataclasses

    from clickwise.run.session import build_session
    from clickwise.training_recipe import load_recipe

    name, settings = MODELS[model]
    recipe = load_recipe(name, [*settings, f"train.precision={precision}", f"train.seed={SEED}"])
    sizes = dataclasses.replace(recipe.train, batch_size=1, evaluation_batch_size=samples)
    return build_session(dataclasses.replace(recipe, train=sizes))


def _batch(session):
    """The first of the test mapping."""
    return next(iter(session.evaluation_loader(session.recipe.data.test).epoch(0)))


def _ours(model: str, precision: str):
    import dataclasses
    import itertools

    from clickwise.kernels.prepacked import PackedWeights
    from clickwise.train.evaluate import predictions

    session = _session(model, precision)

    def score_of(samples: int):
        sizes = dataclasses.replace(session.recipe.train, evaluation_batch_size=samples)
        of_size = dataclasses.replace(session, recipe=dataclasses.replace(session.recipe, train=sizes))
        found = predictions(session.model, itertools.repeat(_batch(of_size)), precision=precision,
                            device=session.device, weights=PackedWeights())
        return lambda: next(found)[0].sigmoid()

    return score_of


def _aoti(model: str, precision: str):
    import torch

    from clickwise.export.graph import Graph
    from clickwise.export.traced import quiet, traced

    class InPrecision(Graph):
        def forward(self, *tensors):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                return super().forward(*tensors)

    torch._inductor.config.freezing = True
    session = _session(model, precision)
    graph = InPrecision(session, any_length=False)
    with tempfile.TemporaryDirectory() as folder, quiet(), torch.no_grad():
        run = torch._inductor.aoti_load_package(torch._inductor.aoti_compile_and_package(
            traced(graph), package_path=f"{folder}/model.pt2"))

    def score_of(samples: int):
        tensors = [torch.from_numpy(array) for array in _inputs(graph, model, precision, samples).values()]
        return lambda: run(*tensors)[1]

    return score_of


def _onnx(model: str, precision: str):
    from clickwise.export.graph import Graph
    from clickwise.export.onnx_file import write_onnx
    from clickwise.serve.exported import open_graph

    session = _session(model, precision)
    folder = tempfile.mkdtemp()  # whose files are mapped into memory
    write_onnx(session, Path(folder) / "model.onnx")
    run = open_graph(Path(folder) / "model.onnx", threads=1).run
    graph = Graph(session, values=False)

    def score_of(samples: int):
        given = _inputs(graph, model, precision, samples)
        return lambda: run(["probability"], given)[0]

    return score_of


def _inputs(graph, model: str, precision: str, samples: int):
    """What the graph takes of the same batch."""
    from clickwise.export.check import _tensors_of

    session = _session(model, precision, samples)
    return _tensors_of(_batch(session), session.reads, SimpleNamespace(signature=SimpleNamespace(inputs=graph.inputs)))


class Rival:
    """A worker that waits to be asked."""

    def __init__(self, *how: str) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
               "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647"}
        self.process = subprocess.Popen([sys.executable, __file__, "--worker", *how], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=env)
        while (line := self.process.stdout.readline()).strip() != "ready":
            if not line:
                raise SystemExit(f"{' '.join(how)}: ended before it was ready")

    def ask(self, samples: int, passes: int) -> list[float]:
        self.process.stdin.write(json.dumps([samples, passes]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measured(model: str, precision: str, turns: int) -> list[dict]:
    rivals = {name: Rival(name, model, precision) for name in RIVALS[precision]}
    rows = []
    for samples, passes in BATCHES.items():
        names = ["ours"] if samples == OURS_ALONE else list(rivals)
        scores = {name: rivals[name].ask(samples, 0) for name in names}
        seconds = {name: [] for name in names}
        for turn in range(turns):
            for name in names[turn % len(names):] + names[:turn % len(names)]:
                seconds[name].append(rivals[name].ask(samples, passes))
        others = [name for name in names if name != "ours"]
        best = min(others, key=lambda name: statistics.median(sum(seconds[name], [])), default=None)
        for name in names:
            each = sorted(1e3 * second for second in sum(seconds[name], []))
            row = {"model": model, "precision": precision, "batch": samples, "rival": name,
                   "ms": statistics.median(each), "ms_p10": each[len(each) // 10], "ms_p90": each[-1 - len(each) // 10],
                   "differs": max(abs(a - b) for a, b in zip(scores[name], scores["ours"], strict=True))}
            if name == "ours" and best:
                ratios = [statistics.median(a) / statistics.median(b)
                          for a, b in zip(seconds["ours"], seconds[best], strict=True)]
                row |= {"×": statistics.median(ratios), "of": best, "target": TARGETS[samples]}
            rows.append(row)
            print(json.dumps(row, ensure_ascii=False), file=sys.stderr, flush=True)
    for rival in rivals.values():
        rival.end()
    return rows


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
        return
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--precisions", nargs="+", default=list(RIVALS), choices=RIVALS)
    options = parser.parse_args()
    rows = [row for model in options.models for precision in options.precisions
            for row in measured(model, precision, options.repeats)]
    columns = ["model", "precision", "batch", "rival", "ms", "ms_p10", "ms_p90", "×", "of", "target", "differs"]
    finish("scoring", rows, options, columns=columns, threads=1)


if __name__ == "__main__":
    main()
