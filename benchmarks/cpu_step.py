"""One training step on the CPU: clickwise against plain PyTorch, samples/s.

    python benchmarks/cpu_step.py                                    DLRM, plain SGD
    python benchmarks/cpu_step.py --model dcnv2 --table-rows 50000   DCNv2, Adam (of touched rows in the tables)
    python benchmarks/cpu_step.py --model wide_deep --dims 64        Wide & Deep, FTRL and Adagrad

Models: 13 numerical features, 26 tables, bottom MLP 512-256-D, top MLP 1024-1024-512-256-1; DCNv2 with three cross
layers of rank 512 between x0 and the top MLP; Wide & Deep: 26 more tables of width 1, five layers of 1024, dropout 0.1.
Plain: one nn.EmbeddingBag(sparse=True) per table, nn.Linear, torch.optim.SGD, or Adam and SparseAdam, or Adagrad (which
is what FTRL without penalties computes); DLRM: stack, bmm, Z[:, i, j]; DCNv2: x0 * V(U(x)) + x. It gets its ids as
int64 and its numericals as float32 ready made. Clickwise gets int32 and float16, as they come from disk.
Ids: uniform, or the power law P(id) ~ (id + 1)^-1.05.

Every rival is a process of its own, and they step in turns, so that a noisy moment of the machine meets all of them.
A rival's name says what it is: plain | ours, fp32 | bf16, then what is added (+memory: freed memory is kept) or taken
away (-memory, -products: torch's own linear layers, -interaction and -update: the plain reference kernels).
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

TABLES, NUMERICALS, ALPHA, BATCHES = 26, 13, 1.05, 3
TOP, CROSS_LAYERS, CROSS_RANK, ADAM_LR, SGD_LR = (1024, 1024, 512, 256), 3, 512, 1e-4, 0.1
DEEP, DROPOUT, WIDE_LR, DEEP_LR, FIRST_ACCUMULATOR = (1024,) * 5, 0.1, 0.02, 0.01, 0.1
TARGETS = {"dlrm": "ours ≥ 1.5 × plain in fp32, ≥ 3 ×", "dcnv2": "ours ≥ 1.2 × plain in fp32, ≥ 2.5 ×",
           "wide_deep": "ours ≥ 2.5 × plain"}
RIVALS = ("plain fp32", "plain bf16", "ours fp32", "ours bf16")


def worker(rival: str, name: str, dim: int, samples: int, ids: str, table_rows: int, threads: int) -> None:
    """Builds one rival, then takes one step per line read, and answers each with its seconds (wall, processor)."""
    kind, precision, *changes = rival.split()
    if ("-memory" not in changes) if kind == "ours" else ("+memory" in changes):
        from clickwise.memory import keep_freed_memory

        if not keep_freed_memory():
            print("memory: no glibc here", file=sys.stderr)
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    batches = [_columns(samples, ids, table_rows) for _ in range(BATCHES)]
    make = _plain if kind == "plain" else _ours
    step = make(name, dim, table_rows, batches, precision == "bf16", changes)
    for index in range(3):
        step(index % BATCHES)
    print("ready", flush=True)
    for index, _ in enumerate(sys.stdin):
        wall, cpu = time.perf_counter(), time.process_time()
        loss = step(index % BATCHES)
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, loss]), flush=True)


def _columns(samples: int, ids: str, table_rows: int):
    """numerical [B, 13] in float16, ids [26, B] in int32, label [B]."""
    import torch

    numerical, label = torch.rand(samples, NUMERICALS).half(), torch.rand(samples) < 0.25
    if ids == "uniform":
        return numerical, torch.randint(0, table_rows, (TABLES, samples), dtype=torch.int32), label
    power = 1 - ALPHA  # the inverse of the law's distribution function on 1 … rows + 1
    u = torch.rand(TABLES, samples, dtype=torch.float64)
    ids_FB = (u * ((table_rows + 1) ** power - 1) + 1) ** (1 / power)
    return numerical, (ids_FB.int() - 1).clamp_(0, table_rows - 1), label


def _plain(name: str, dim: int, table_rows: int, batches: list, bf16: bool, changes: list[str]):
    import torch
    from torch import nn

    def mlp(inputs, sizes, relu_last, dropout=0.0):
        layers = []
        for place, outputs in enumerate(sizes):
            layers.append(nn.Linear(inputs, outputs))
            if relu_last or place < len(sizes) - 1:
                layers += [nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
            inputs = outputs
        return nn.Sequential(*layers)

    class Dots(nn.Module):
        def __init__(self):
            super().__init__()
            self.li, self.lj = torch.tril_indices(TABLES + 1, TABLES + 1, offset=-1)
            self.outputs = dim + len(self.li)

        def forward(self, z0, rows):
            x = torch.stack([z0, *rows], dim=1)
            dots = torch.bmm(x, x.transpose(1, 2))
            return torch.cat([z0, dots[:, self.li, self.lj]], dim=1)

    class Crosses(nn.Module):
        def __init__(self):
            super().__init__()
            self.outputs = (TABLES + 1) * dim
            self.u = nn.ModuleList(nn.Linear(self.outputs, CROSS_RANK, bias=False) for _ in range(CROSS_LAYERS))
            self.v = nn.ModuleList(nn.Linear(CROSS_RANK, self.outputs) for _ in range(CROSS_LAYERS))

        def forward(self, z0, rows):
            x0 = x = torch.cat([z0, *rows], dim=1)
            for u, v in zip(self.u, self.v, strict=True):
                x = x0 * v(u(x)) + x
            return x

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.bottom = mlp(NUMERICALS, (512, 256, dim), True)
            self.tables = nn.ModuleList(nn.EmbeddingBag(table_rows, dim, mode="sum", sparse=True)
                                        for _ in range(TABLES))
            self.interaction = Dots() if name == "dlrm" else Crosses()
            self.top = mlp(self.interaction.outputs, (*TOP, 1), False)

        def forward(self, numerical, ids):
            z0 = self.bottom(numerical)
            rows = [table(column[:, None]).to(z0.dtype) for table, column in zip(self.tables, ids, strict=True)]
            return self.top(self.interaction(z0, rows)).squeeze(1)

    class PlainWideDeep(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide_tables, self.deep_tables = (
                nn.ModuleList(nn.EmbeddingBag(table_rows, width, mode="sum", sparse=True) for _ in range(TABLES))
                for width in (1, dim))
            self.wide = nn.Linear(NUMERICALS, 1)
            self.deep = mlp(NUMERICALS + TABLES * dim, (*DEEP, 1), False, DROPOUT)

        def forward(self, numerical, ids):
            weights = [table(column[:, None]) for table, column in zip(self.wide_tables, ids, strict=True)]
            rows = [table(column[:, None]) for table, column in zip(self.deep_tables, ids, strict=True)]
            wide = self.wide(numerical) + torch.stack(weights).sum(0)
            return (wide + self.deep(torch.cat([numerical, *rows], dim=1))).squeeze(1)

    model = PlainWideDeep() if name == "wide_deep" else Plain()
    if name == "wide_deep":
        optimizers = [torch.optim.Adagrad([parameter for key, parameter in model.named_parameters()
                                           if key.startswith(part)], lr=lr, initial_accumulator_value=FIRST_ACCUMULATOR)
                      for part, lr in (("wide", WIDE_LR), ("deep", DEEP_LR))]
    elif name == "dlrm":
        optimizers = [torch.optim.SGD(model.parameters(), lr=SGD_LR)]
    else:
        dense = [parameter for key, parameter in model.named_parameters() if not key.startswith("tables.")]
        optimizers = [torch.optim.Adam(dense, lr=ADAM_LR),
                      torch.optim.SparseAdam(model.tables.parameters(), lr=ADAM_LR)]
    loss_of = nn.BCEWithLogitsLoss()
    batches = [(numerical.float(), ids.long(), label.float()) for numerical, ids, label in batches]

    def step(index):
        numerical, ids, label = batches[index]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logit = model(numerical, ids)
        loss = loss_of(logit.float(), label)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss.item()

    return step


def _ours(name: str, dim: int, table_rows: int, batches: list, bf16: bool, changes: list[str]):
    import torch

    from clickwise.batch import Batch
    from clickwise.embedding import TableOptimizer
    from clickwise.feature_spec import Feature
    from clickwise.optim.dense import DenseOptimizer
    from clickwise.training_recipe import find_model
    from clickwise.wiring import build_engines

    _take_away(changes)

    class Spec:
        @staticmethod
        def channel(name):
            if name == "numerical":
                return tuple(Feature(f"num_{i}", "float16") for i in range(NUMERICALS))
            return tuple(Feature(f"cat_{i}", "int32", cardinality=table_rows) for i in range(TABLES))

    model_class = find_model(name, "--model")
    if name == "wide_deep":
        config = model_class.Config(embedding_dim=dim, deep_hidden=DEEP, dropout=DROPOUT)
        ftrl = {"name": "ftrl", "lr": WIDE_LR, "beta": 0.0, "initial_accumulator": FIRST_ACCUMULATOR}
        settings = {"wide": ftrl, "deep": {"name": "adagrad", "lr": DEEP_LR, "initial_accumulator": FIRST_ACCUMULATOR}}
    else:
        crosses = {} if name == "dlrm" else {"cross_layers": CROSS_LAYERS, "cross_rank": CROSS_RANK}
        config = model_class.Config(embedding_dim=dim, bottom_mlp=(512, 256, dim), top_mlp=TOP, **crosses)
        settings = {"": {"name": "sgd", "lr": SGD_LR} if name == "dlrm" else {"name": "adam", "lr": ADAM_LR}}
    tables = model_class.tables(Spec, config)
    model = model_class(Spec, build_engines(model_class, tables, lambda part: TableOptimizer(**settings[part])), config)
    optimizers = [DenseOptimizer(**of_part).build(p for key, p in model.named_parameters() if key.startswith(part))
                  for part, of_part in settings.items()]
    batches = [Batch(numerical=numerical, categorical=tuple(ids), label=label) for numerical, ids, label in batches]

    def step(index):
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = sum(model.losses(batches[index]).values())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss.item()

    return step


def _take_away(changes: list[str]) -> None:
    """Replaces a fast kernel by its reference, so that the table shows what it brings."""
    import clickwise.kernels.dot_interaction as interaction
    import clickwise.kernels.sparse_update as update
    from clickwise.kernels import cpu_products

    if "-products" in changes:
        cpu_products.works_for = lambda x: False
    if "-interaction" in changes:
        interaction.cpu.dot_interaction = interaction.reference.dot_interaction
    if "-update" in changes:
        update.cpu.sparse_update = update.reference.sparse_update


def race(rivals: list[str], name: str, dim: int, samples: int, ids: str, table_rows: int, threads: int,
         repeats: int) -> list[dict[str, object]]:
    processes = {}
    try:
        for rival in rivals:
            command = [sys.executable, __file__, "--worker", rival, name, str(dim), str(samples), ids, str(table_rows),
                       str(threads)]
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
        rows.append({"model": name, "dim": dim, "batch": samples, "ids": ids, "rival": rival,
                     "step_ms": 1e3 * statistics.median(wall), "min_ms": 1e3 * min(wall), "max_ms": 1e3 * max(wall),
                     "cpu_ms": 1e3 * statistics.median(cpu), "samples/s": samples / statistics.median(wall),
                     "× wall": statistics.median(ratios), "low": ratios[len(ratios) // 10],
                     "high": ratios[-1 - len(ratios) // 10], "× cpu": statistics.median(cpus), "loss": loss[-1]})
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
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", help="of the result file; cpu_step, or cpu_step-<model>, by default")
    options = parser.parse_args()
    rows = []
    for dim in options.dims:
        for samples in options.batches:
            for ids in options.ids:
                rows += race(options.rivals, options.model, dim, samples, ids, options.table_rows, options.threads,
                             options.repeats)
                print(f"measured: dim {dim}, batch {samples:,}, {ids} ids", file=sys.stderr, flush=True)
    finish(options.name or ("cpu_step" if options.model == "dlrm" else f"cpu_step-{options.model}"), rows, options,
           threads=options.threads, tables=TABLES, table_rows=options.table_rows, alpha=ALPHA,
           target=f"{TARGETS[options.model]} in bf16 on a CPU with AMX")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        rival, name, dim, samples, ids, table_rows, threads = sys.argv[2:]
        worker(rival, name, int(dim), int(samples), ids, int(table_rows), int(threads))
    else:
        main()
