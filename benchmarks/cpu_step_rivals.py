"""One rival of `cpu_step.py`: a model and its optimizers, stepped once for every line of its input.

Needs torch, and clickwise or fbgemm, but nothing else of this folder: the rival `tbe` lives in an environment of its
own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

TABLES, NUMERICALS, ALPHA, BATCHES, WARM = 26, 13, 1.05, 3, 4
TOP, CROSS_LAYERS, CROSS_RANK, ADAM_LR, SGD_LR = (1024, 1024, 512, 256), 3, 512, 1e-4, 0.1
DEEP, DROPOUT, WIDE_LR, DEEP_LR, FIRST_ACCUMULATOR = (1024,) * 5, 0.1, 0.02, 0.01, 0.1

# Takes a step with a batch, by number, and gives its loss.
Step = Callable[[int], float]


def work(rival: str, name: str, optimizer: str, dim: int, samples: int, ids: str, table_rows: int,
         threads: int) -> None:
    """Builds one rival, then takes one step per line read, and answers each with its seconds (wall, processor)."""
    kind, precision, *changes = rival.split()
    if kind == "ours" and "-memory" not in changes:
        from clickwise.memory import keep_freed_memory

        if not keep_freed_memory():
            print("memory: no glibc here", file=sys.stderr)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    batches = [_columns(samples, ids, table_rows) for _ in range(BATCHES)]
    make = _ours if kind == "ours" else _plain
    step = make(name, optimizer, dim, table_rows, batches, precision == "bf16", [kind, *changes])
    for index in range(WARM):
        step(index % BATCHES)
    print("ready", flush=True)
    for index, _ in enumerate(sys.stdin):
        wall, cpu = time.perf_counter(), time.process_time()
        loss = step(index % BATCHES)
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, loss]), flush=True)


def _columns(samples: int, ids: str, table_rows: int):
    """numerical [B, 13] in float16, ids [26, B] in int32, label [B]."""
    numerical, label = torch.rand(samples, NUMERICALS).half(), torch.rand(samples) < 0.25
    if ids == "uniform":
        return numerical, torch.randint(0, table_rows, (TABLES, samples), dtype=torch.int32), label
    power = 1 - ALPHA  # the inverse of the law's distribution function on 1 … rows + 1
    u = torch.rand(TABLES, samples, dtype=torch.float64)
    ids_FB = (u * ((table_rows + 1) ** power - 1) + 1) ** (1 / power)
    return numerical, (ids_FB.int() - 1).clamp_(0, table_rows - 1), label


def _mlp(inputs: int, sizes: tuple[int, ...], relu_last: bool, dropout: float = 0.0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for place, outputs in enumerate(sizes):
        layers.append(nn.Linear(inputs, outputs))
        if relu_last or place < len(sizes) - 1:
            layers += [nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        inputs = outputs
    return nn.Sequential(*layers)


class Dots(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.li, self.lj = torch.tril_indices(TABLES + 1, TABLES + 1, offset=-1)
        self.outputs = dim + len(self.li)

    def forward(self, z0, rows):
        x = torch.cat([z0, *rows], dim=1).view(len(z0), TABLES + 1, self.dim)
        dots = torch.bmm(x, x.transpose(1, 2))
        return torch.cat([z0, dots[:, self.li, self.lj]], dim=1)


class Crosses(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.outputs = (TABLES + 1) * dim
        self.u = nn.ModuleList(nn.Linear(self.outputs, CROSS_RANK, bias=False) for _ in range(CROSS_LAYERS))
        self.v = nn.ModuleList(nn.Linear(CROSS_RANK, self.outputs) for _ in range(CROSS_LAYERS))

    def forward(self, z0, rows):
        x0 = x = torch.cat([z0, *rows], dim=1)
        for u, v in zip(self.u, self.v, strict=True):
            x = x0 * v(u(x)) + x
        return x


class Bags(nn.Module):
    """Rows of 26 tables of plain torch, a tensor [B, dim] for each."""

    def __init__(self, table_rows: int, dim: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(table_rows, dim, mode="sum", sparse=True) for _ in range(TABLES))

    def forward(self, ids):
        return [table(column[:, None]) for table, column in zip(self.tables, ids, strict=True)]


class TableBatched(nn.Module):
    """fbgemm's tables, which update themselves in backward by plain SGD: rows as one tensor [B, 26 · dim], float32, the
    only type that it gives on a CPU. Told that every id is a row, and with ids of int32, it is fastest."""

    def __init__(self, table_rows: int, dim: int) -> None:
        super().__init__()
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode, EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            [(table_rows, dim, EmbeddingLocation.HOST, ComputeDevice.CPU)] * TABLES, device="cpu",
            optimizer=EmbOptimType.EXACT_SGD, learning_rate=SGD_LR, bounds_check_mode=BoundsCheckMode.NONE,
            embedding_table_index_type=torch.int32, embedding_table_offset_type=torch.int32)
        with torch.no_grad():
            for weight in self.tables.split_embedding_weights():
                weight.normal_()  # as nn.EmbeddingBag
        self.offsets: torch.Tensor | None = None

    def forward(self, ids):
        if self.offsets is None:
            self.offsets = torch.arange(ids.numel() + 1, dtype=torch.int32)
        return [self.tables(ids.view(-1), self.offsets)]


class Plain(nn.Module):
    def __init__(self, name: str, dim: int, tables: nn.Module) -> None:
        super().__init__()
        self.bottom, self.tables = _mlp(NUMERICALS, (512, 256, dim), True), tables
        self.interaction = Dots(dim) if name == "dlrm" else Crosses(dim)
        self.top = _mlp(self.interaction.outputs, (*TOP, 1), False)

    def forward(self, numerical, ids):
        z0 = self.bottom(numerical)
        rows = [part.to(z0.dtype) for part in self.tables(ids)]
        return self.top(self.interaction(z0, rows)).squeeze(1)


class PlainWideDeep(nn.Module):
    def __init__(self, table_rows: int, dim: int) -> None:
        super().__init__()
        self.wide_tables, self.deep_tables = Bags(table_rows, 1), Bags(table_rows, dim)
        self.wide = nn.Linear(NUMERICALS, 1)
        self.deep = _mlp(NUMERICALS + TABLES * dim, (*DEEP, 1), False, DROPOUT)

    def forward(self, numerical, ids):
        wide = self.wide(numerical) + torch.stack(self.wide_tables(ids)).sum(0)
        return (wide + self.deep(torch.cat([numerical, *self.deep_tables(ids)], dim=1))).squeeze(1)


def _plain(name: str, optimizer: str, dim: int, table_rows: int, batches: list, bf16: bool,
           changes: list[str]) -> Step:
    """`changes` begin with what it is: `plain`, `compile`: that by torch.compile, or `tbe`: fbgemm's tables in it. The
    last two have torch's fused SGD."""
    kind = changes[0]
    if name == "wide_deep":
        model = PlainWideDeep(table_rows, dim)
        optimizers = [torch.optim.Adagrad([parameter for key, parameter in model.named_parameters()
                                           if key.startswith(part)], lr=lr, initial_accumulator_value=FIRST_ACCUMULATOR)
                      for part, lr in (("wide", WIDE_LR), ("deep", DEEP_LR))]
    else:
        model = Plain(name, dim, (TableBatched if kind == "tbe" else Bags)(table_rows, dim))
        dense = [parameter for key, parameter in model.named_parameters() if not key.startswith("tables.")]
        tables = [] if kind == "tbe" else list(model.tables.parameters())
        if optimizer == "sgd":
            optimizers = [torch.optim.SGD(dense, lr=SGD_LR, fused=kind != "plain"), *(
                [torch.optim.SGD(tables, lr=SGD_LR)] if tables else [])]
        else:
            optimizers = [torch.optim.Adam(dense, lr=ADAM_LR), torch.optim.SparseAdam(tables, lr=ADAM_LR)]
    run = torch.compile(model) if kind == "compile" else model
    loss_of = nn.BCEWithLogitsLoss()
    batches = [(numerical.float(), ids if kind == "tbe" else ids.long(), label.float())
               for numerical, ids, label in batches]

    def step(index: int) -> float:
        numerical, ids, label = batches[index]
        for each in optimizers:
            each.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logit = run(numerical, ids)
        loss = loss_of(logit.float(), label)
        loss.backward()
        for each in optimizers:
            each.step()
        return loss.item()

    return step


def _ours(name: str, optimizer: str, dim: int, table_rows: int, batches: list, bf16: bool,
          changes: list[str]) -> Step:
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
        settings = {"": {"name": optimizer, "lr": SGD_LR if optimizer == "sgd" else ADAM_LR}}
    tables = model_class.tables(Spec, config)
    engines = build_engines(model_class, tables, lambda part: TableOptimizer(**settings[part]),
                            table_dtype="bfloat16" if "+bf16_tables" in changes else "float32")
    model = model_class(Spec, engines, config)
    optimizers = [DenseOptimizer(**of_part).build(p for key, p in model.named_parameters() if key.startswith(part))
                  for part, of_part in settings.items()]
    batches = [Batch(numerical=numerical, categorical=tuple(ids), label=label) for numerical, ids, label in batches]

    def step(index: int) -> float:
        for each in optimizers:
            each.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = sum(model.losses(batches[index]).values())
        loss.backward()
        for each in optimizers:
            each.step()
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


if __name__ == "__main__":
    work(**json.loads(sys.argv[1]))
