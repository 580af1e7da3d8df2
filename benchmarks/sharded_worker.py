"""One process of one rival of `sharded.py`: its part of 26 tables, stepped as often as a line of its input says.

Needs torch, and clickwise or TorchRec: the rivals may live in environments of their own.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist

TABLES, ALPHA, BATCHES, CHECKED, WARM = 26, 1.05, 4, 4, 6
LR, EPS = 0.01, 1e-8

# Takes the process's ids [26, B] and gives its rows [B, 26 · dim], whose backward updates the tables.
Forward = Callable[[torch.Tensor], torch.Tensor]
# What the process holds: table, its first row, the distance of rows, the first column, values [rows, columns].
Held = Callable[[], Iterator[tuple[int, int, int, int, torch.Tensor]]]


@dataclasses.dataclass(frozen=True)
class Case:
    """`samples` are those of all processes together; `folder` is where they meet and where the expected tables lie."""

    rival: str
    rank: int
    processes: int
    dim: int
    samples: int
    table_rows: int
    folder: str

    @property
    def names(self) -> list[str]:
        return [f"cat_{table}" for table in range(TABLES)]


def columns(samples: int, table_rows: int, seed: int) -> torch.Tensor:
    """Ids [26, samples], int32, by the power law P(id) ~ (id + 1)^-1.05."""
    power = 1 - ALPHA  # the inverse of the law's distribution function on 1 … rows + 1
    u = torch.rand(TABLES, samples, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ids_FB = (u * ((table_rows + 1) ** power - 1) + 1) ** (1 / power)
    return (ids_FB.int() - 1).clamp_(0, table_rows - 1)


def first_values(table: int, case: Case) -> torch.Tensor:
    generator, bound = torch.Generator().manual_seed(table), case.table_rows**-0.5
    return torch.empty(case.table_rows, case.dim).uniform_(-bound, bound, generator=generator)


def work(case: Case) -> None:
    torch.set_num_threads(1)
    if case.processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{case.folder}/{case.rival}-{case.dim}", rank=case.rank,
                                world_size=case.processes)
    kind, _, plan = case.rival.partition(" ")
    forward, held = (_torchrec if kind == "torchrec" else _ours)(case, plan)
    whole = [columns(case.samples, case.table_rows, seed) for seed in range(BATCHES)]
    samples = case.samples // case.processes
    mine = [ids_FB[:, case.rank * samples:(case.rank + 1) * samples].contiguous() for ids_FB in whole]
    for step in range(CHECKED):
        rows = forward(mine[step % BATCHES])
        rows.backward(rows.detach() / case.samples)  # of the mean of the squares of all samples, halved
    print(json.dumps({"apart": _apart(case, held, whole)}), flush=True)

    grad = torch.randn(samples, TABLES * case.dim, generator=torch.Generator().manual_seed(case.rank)) / case.samples
    for step in range(WARM):
        forward(mine[step % BATCHES]).backward(grad)
    for line in sys.stdin:
        if case.processes > 1:
            dist.barrier()  # not counted: that the other process was told a little later
        wall, cpu = time.perf_counter(), time.process_time()
        for step in range(int(line)):
            forward(mine[step % BATCHES]).backward(grad)
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)


def _apart(case: Case, held: Held, batches: list[torch.Tensor]) -> float:
    """How far a number of any table is from what one process made of it; that process writes down what it touched."""
    file = Path(case.folder) / f"expected-{case.dim}.pt"
    if case.processes == 1:
        rows = [torch.cat([ids_FB[table] for ids_FB in batches[:CHECKED]]).unique().long() for table in range(TABLES)]
        torch.save([(rows_U, values[rows_U]) for rows_U, (*_, values) in zip(rows, held(), strict=True)], file)
        return 0.0
    expected = torch.load(file, mmap=True)
    worst, numbers = 0.0, 0
    for table, first, distance, column, values in held():
        whole_RD = first_values(table, case)
        whole_RD[expected[table][0]] = expected[table][1]
        part = whole_RD[first::distance][:len(values), column:column + values.shape[1]]
        worst, numbers = max(worst, float((part - values).abs().max())), numbers + values.numel()
    found = torch.tensor([worst], dtype=torch.float64), torch.tensor([numbers])
    dist.all_reduce(found[0], dist.ReduceOp.MAX)
    dist.all_reduce(found[1])
    if int(found[1]) != TABLES * case.table_rows * case.dim:
        raise SystemExit(f"{case.rival}: {int(found[1]):,} numbers in the tables of all processes")
    return float(found[0])


def _ours(case: Case, plan: str) -> tuple[Forward, Held]:
    from clickwise.embedding import Table, TableOptimizer, build_embeddings

    tables = [Table(name=name, rows=case.table_rows, dim=case.dim, features=(name,), init="zeros")
              for name in case.names]
    build = functools.partial(build_embeddings, tables=tables, features=case.names,
                              optimizer=TableOptimizer(name="rowwise_adagrad", lr=LR, eps=EPS))
    if case.processes == 1:
        engine = build("reference")
    else:
        from clickwise.embedding.placement import Sharding

        engine = build("sharded", sharding=Sharding(by=plan))
    engine.train()
    for table, name in enumerate(case.names):
        engine.set_rows(name, first_values(table, case))

    def held():
        for table, name in enumerate(case.names):
            rows = engine.held_rows(name)
            if len(rows):
                yield table, rows.start, rows.step, 0, engine.rows_of(name)

    return lambda ids_FB: engine(ids_FB.unbind()), held


def _torchrec(case: Case, plan: str) -> tuple[Forward, Held]:
    import torchrec
    from torchrec.distributed import DistributedModelParallel, comm_ops
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.sharding_plan import (
        column_wise,
        construct_module_sharding_plan,
        row_wise,
        table_wise,
    )
    from torchrec.distributed.types import ShardingEnv, ShardingPlan
    from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

    comm_ops.set_gradient_division(False)  # the processes' gradients are summed, as ours are
    bags = torchrec.EmbeddingBagCollection(tables=[
        torchrec.EmbeddingBagConfig(name=name, num_embeddings=case.table_rows, embedding_dim=case.dim,
                                    feature_names=[name]) for name in case.names])
    apply_optimizer_in_backward(torchrec.optim.RowWiseAdagrad, bags.parameters(), {"lr": LR, "eps": EPS})
    by_table = {
        "tables": lambda table: table_wise(rank=table % case.processes, compute_kernel="fused"),
        "rows": lambda table: row_wise(compute_kernel="fused"),
        "columns": lambda table: column_wise(ranks=list(range(case.processes)), compute_kernel="fused"),
    }[plan]
    of_bags = construct_module_sharding_plan(
        bags, per_param_sharding={name: by_table(table) for table, name in enumerate(case.names)},
        local_size=case.processes, world_size=case.processes, device_type="cpu")
    model = DistributedModelParallel(
        torch.nn.ModuleDict({"bags": bags}), env=ShardingEnv.from_process_group(dist.group.WORLD),
        plan=ShardingPlan(plan={"bags": of_bags}), sharders=[EmbeddingBagCollectionSharder()],
        device=torch.device("cpu"), init_data_parallel=False)
    sharded = model.module["bags"]

    def shards():
        for table, name in enumerate(case.names):
            found = next(value for key, value in model.state_dict().items() if key.endswith(f".{name}.weight"))
            for shard in found.local_shards():
                yield table, *shard.metadata.shard_offsets, shard.tensor.detach()

    with torch.no_grad():
        for table, row, column, values in shards():
            rows, width = values.shape
            values.copy_(first_values(table, case)[row:row + rows, column:column + width])
    lengths = torch.ones(TABLES * (case.samples // case.processes), dtype=torch.int32)

    def forward(ids_FB):
        # The rows stand in the order of the plan, which nobody here minds.
        return sharded(torchrec.KeyedJaggedTensor(case.names, ids_FB.view(-1), lengths=lengths)).values()

    def held():
        for table, row, column, values in shards():
            yield table, row, 1, column, values

    return forward, held


if __name__ == "__main__":
    work(Case(**json.loads(sys.argv[1])))
