"""One DLRM training step on the CPU: clickwise against plain PyTorch, samples/s.

Model: 13 numerical features, 26 tables of 100,000 rows, bottom MLP 512-256-D, top MLP 1024-1024-512-256-1, plain SGD.
Plain: one nn.EmbeddingBag(sparse=True) per table, stack, bmm, Z[:, i, j], nn.Linear, torch.optim.SGD; it gets its ids
as int64 and its numericals as float32 ready made. Clickwise gets int32 and float16, as they come from disk.
Ids: uniform, or the power law P(id) ~ (id + 1)^-1.05.

Every rival is a process of its own, and they step in turns, so that a noisy moment of the machine meets all of them.
A rival's name says what it is: plain | ours, fp32 | bf16, then what is added (+memory: freed memory is kept) or taken
away (-memory, -onednn: torch's own linear layers, -interaction and -update: the plain reference kernels).
`×` is how many times faster than the first rival: the median of the turns' ratios with its 10 % and 90 % points by
elapsed time, and the median by processor time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from measure import arguments, finish

TABLES, ROWS, NUMERICALS, ALPHA, BATCHES = 26, 100_000, 13, 1.05, 3
RIVALS = ("plain fp32", "plain bf16", "ours fp32", "ours bf16")


def worker(rival: str, dim: int, samples: int, ids: str, threads: int) -> None:
    """Builds one rival, then takes one step per line read, and answers each with its seconds (wall, processor)."""
    kind, precision, *changes = rival.split()
    if ("-memory" not in changes) if kind == "ours" else ("+memory" in changes):
        from clickwise.memory import keep_freed_memory

        if not keep_freed_memory():
            print("memory: no glibc here", file=sys.stderr)
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    batches = [_columns(samples, ids) for _ in range(BATCHES)]
    make = _plain if kind == "plain" else _ours
    step = make(dim, batches, precision == "bf16", changes)
    for index in range(3):
        step(index % BATCHES)
    print("ready", flush=True)
    for index, _ in enumerate(sys.stdin):
        wall, cpu = time.perf_counter(), time.process_time()
        loss = step(index % BATCHES)
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, loss]), flush=True)


def _columns(samples: int, ids: str):
    """numerical [B, 13] in float16, ids [26, B] in int32, label [B]."""
    import torch

    numerical, label = torch.rand(samples, NUMERICALS).half(), torch.rand(samples) < 0.25
    if ids == "uniform":
        return numerical, torch.randint(0, ROWS, (TABLES, samples), dtype=torch.int32), label
    power = 1 - ALPHA  # the inverse of the law's distribution function on 1 … rows + 1
    u = torch.rand(TABLES, samples, dtype=torch.float64)
    ids_FB = (u * ((ROWS + 1) ** power - 1) + 1) ** (1 / power)
    return numerical, (ids_FB.int() - 1).clamp_(0, ROWS - 1), label


def _plain(dim: int, batches: list, bf16: bool, changes: list[str]):
    import torch
    from torch import nn

    def mlp(inputs, sizes, relu_last):
        layers = []
        for place, outputs in enumerate(sizes):
            layers.append(nn.Linear(inputs, outputs))
            if relu_last or place < len(sizes) - 1:
                layers.append(nn.ReLU())
            inputs = outputs
        return nn.Sequential(*layers)

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.bottom = mlp(NUMERICALS, (512, 256, dim), True)
            self.tables = nn.ModuleList(nn.EmbeddingBag(ROWS, dim, mode="sum", sparse=True) for _ in range(TABLES))
            self.li, self.lj = torch.tril_indices(TABLES + 1, TABLES + 1, offset=-1)
            self.top = mlp(dim + len(self.li), (1024, 1024, 512, 256, 1), False)

        def forward(self, numerical, ids):
            z0 = self.bottom(numerical)
            rows = [table(column[:, None]).to(z0.dtype) for table, column in zip(self.tables, ids, strict=True)]
            x = torch.stack([z0, *rows], dim=1)
            dots = torch.bmm(x, x.transpose(1, 2))
            return self.top(torch.cat([z0, dots[:, self.li, self.lj]], dim=1)).squeeze(1)

    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_of = nn.BCEWithLogitsLoss()
    batches = [(numerical.float(), ids.long(), label.float()) for numerical, ids, label in batches]

    def step(index):
        numerical, ids, label = batches[index]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logit = model(numerical, ids)
        loss = loss_of(logit.float(), label)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _ours(dim: int, batches: list, bf16: bool, changes: list[str]):
    import torch

    from clickwise.batch import Batch
    from clickwise.embedding import TableOptimizer, build_embeddings
    from clickwise.models.dlrm import DLRM, DLRMConfig
    from clickwise.spec import Feature

    _take_away(changes)

    class Spec:
        @staticmethod
        def channel(name):
            if name == "numerical":
                return tuple(Feature(f"num_{i}", "float16") for i in range(NUMERICALS))
            return tuple(Feature(f"cat_{i}", "int32", cardinality=ROWS) for i in range(TABLES))

    config = DLRMConfig(embedding_dim=dim, bottom_mlp=(512, 256, dim), top_mlp=(1024, 1024, 512, 256))
    features = tuple(feature.name for feature in Spec.channel("categorical"))
    tables = DLRM.tables(Spec, config)
    model = DLRM(Spec, build_embeddings("auto", tables, features, TableOptimizer(name="sgd", lr=0.1)), config)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, fused="-fused" not in changes)
    batches = [Batch(numerical=numerical, categorical=tuple(ids), label=label) for numerical, ids, label in batches]

    def step(index):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = sum(model.losses(batches[index]).values())
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _take_away(changes: list[str]) -> None:
    """Replaces a fast kernel by its reference, so that the table shows what it brings."""
    import clickwise.kernels.dot_interaction as interaction
    import clickwise.kernels.mlp as mlp
    import clickwise.kernels.sparse_update as update

    if "-onednn" in changes:
        onednn.works_for = lambda x: False
    if "-interaction" in changes:
        interaction.cpu.dot_interaction = interaction.reference.dot_interaction
    if "-update" in changes:
        update.cpu.sparse_update = update.reference.sparse_update


def race(rivals: list[str], dim: int, samples: int, ids: str, threads: int, repeats: int) -> list[dict[str, object]]:
    processes = {}
    try:
        for rival in rivals:
            command = [sys.executable, __file__, "--worker", rival, str(dim), str(samples), ids, str(threads)]
            # The rivals share the cores: threads of one that waits for its turn must not spin.
            processes[rival] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
            if processes[rival].stdout.readline() != "ready\n":
                raise SystemExit(f"{rival} did not start")
        times = {rival: [] for rival in rivals}
        for _ in range(repeats):
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
        cpus = [plain[1] / mine for plain, mine in zip(times[rivals[0]], cpu, strict=True)]
        rows.append({"dim": dim, "batch": samples, "ids": ids, "rival": rival,
                     "step_ms": 1e3 * statistics.median(wall), "min_ms": 1e3 * min(wall), "max_ms": 1e3 * max(wall),
                     "cpu_ms": 1e3 * statistics.median(cpu), "samples/s": samples / statistics.median(wall),
                     "× wall": statistics.median(ratios), "low": ratios[len(ratios) // 10],
                     "high": ratios[-1 - len(ratios) // 10], "× cpu": statistics.median(cpus), "loss": loss[-1]})
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--batches", type=int, nargs="+", default=[2048, 16384])
    parser.add_argument("--ids", nargs="+", default=["uniform", "power"], choices=["uniform", "power"])
    parser.add_argument("--rivals", nargs="+", default=list(RIVALS), help="the first is what the others are held to")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="cpu_step", help="of the result file")
    options = parser.parse_args()
    rows = []
    for dim in options.dims:
        for samples in options.batches:
            for ids in options.ids:
                rows += race(options.rivals, dim, samples, ids, options.threads, options.repeats)
                print(f"measured: dim {dim}, batch {samples:,}, {ids} ids", file=sys.stderr, flush=True)
    finish(options.name, rows, options, threads=options.threads, tables=TABLES, table_rows=ROWS, alpha=ALPHA,
           target="ours ≥ 1.5 × plain in fp32, ≥ 3 × in bf16 on a CPU with AMX")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], int(sys.argv[6]))
    else:
        main()
