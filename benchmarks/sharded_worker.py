"""One process of one rival of `sharded.py`: its part of 26 tables, stepped as often as a line of its input says.

Needs torch, and clickwise or TorchRec, but nothing else of this folder: rivals live in environments of their own.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist

TABLES, NUMERICALS, ALPHA, BATCHES, CHECKED, WARM = 26, 13, 1.05, 4, 4, 6
LR, EPS = 0.01, 1e-8  # of row-wise Adagrad, for tables alone
BOTTOM, TOP, STEP_LR = (512, 256), (1024, 1024, 512, 256), 0.1  # of DLRM as `criteo/dlrm` has it, plain SGD

# Takes one training step with the process's part of a batch, by number.
Step = Callable[[int], object]
# Takes the process's ids [26, B] and gives its rows [B, 26 · dim], whose backward updates the tables.
Forward = Callable[[torch.Tensor], torch.Tensor]
# What the process holds: table, its first row, the distance of rows, the first column, values [rows, columns].
Held = Callable[[], Iterator[tuple[int, int, int, int, torch.Tensor]]]


@dataclasses.dataclass(frozen=True)
class Case:
    """`what` is trained: tables alone, or a whole model. `samples` are those of all processes together; `folder` is
    where they meet and where the expected tables lie."""

    what: str
    rival: str
    rank: int
    processes: int
    dim: int
    samples: int
    table_rows: int
    folder: str

    @property
    def mine(self) -> slice:
        """Which samples of a batch this process has."""
        each = self.samples // self.processes
        return slice(each * self.rank, each * (self.rank + 1))

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
        dist.init_process_group("gloo", init_method=f"file://{case.folder}/{case.rival}", rank=case.rank,
                                world_size=case.processes)
    kind, _, plan = case.rival.partition(" ")
    whole = [columns(case.samples, case.table_rows, seed) for seed in range(BATCHES)]
    if case.what == "step":
        step, held = _dlrm(case, plan, whole)
        first = step
    else:
        forward, held = (_torchrec if kind == "torchrec" else _ours)(case, plan)
        first, step = _of_tables(case, forward, whole)
    for index in range(CHECKED):
        first(index % BATCHES)
    print(json.dumps({"apart": _apart(case, held, whole)}), flush=True)
    for index in range(WARM):
        step(index % BATCHES)
    for line in sys.stdin:
        if case.processes > 1:
            dist.barrier()  # not counted: that the other process was told a little later
        wall, cpu = time.perf_counter(), time.process_time()
        for index in range(int(line)):
            step(index % BATCHES)
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)


def _of_tables(case: Case, forward: Forward, whole: list[torch.Tensor]) -> tuple[Step, Step]:
    """A step whose gradient follows from the rows, and one that times nothing but the tables."""
    mine = [ids_FB[:, case.mine].contiguous() for ids_FB in whole]
    grad = torch.randn(mine[0].shape[1], TABLES * case.dim, generator=torch.Generator().manual_seed(case.rank))
    grad /= case.samples

    def checked(index: int) -> None:
        rows = forward(mine[index])
        rows.backward(rows.detach() / case.samples)  # of the mean of the squares of all samples, halved

    return checked, lambda index: forward(mine[index]).backward(grad)


def _apart(case: Case, held: Held, batches: list[torch.Tensor]) -> float:
    """How far a number of any table is from what one process made of it; that process writes down what it touched."""
    file = Path(case.folder) / "expected.pt"
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


def _sharding(case: Case, plan: str):
    from clickwise.embedding.placement import Sharding

    return Sharding(by=plan, copied_rows=0) if case.processes > 1 else Sharding()


def _ours(case: Case, plan: str) -> tuple[Forward, Held]:
    from clickwise.embedding import Table, TableOptimizer, build_embeddings

    tables = [Table(name=name, rows=case.table_rows, dim=case.dim, features=(name,), init="zeros")
              for name in case.names]
    engine = build_embeddings("auto", tables, case.names, TableOptimizer(name="rowwise_adagrad", lr=LR, eps=EPS),
                              sharding=_sharding(case, plan)).train()
    return lambda ids_FB: engine(ids_FB.unbind()), _set_and_held(case, engine)


def _set_and_held(case: Case, engine) -> Held:
    for table, of in enumerate(engine.tables):
        engine.set_rows(of.name, first_values(table, case))

    def held():
        for table, of in enumerate(engine.tables):
            rows = engine.held_rows(of.name)
            if len(rows):
                yield table, rows.start, rows.step, 0, engine.rows_of(of.name)

    return held


def _dlrm(case: Case, plan: str, whole: list[torch.Tensor]) -> tuple[Step, Held]:
    from clickwise.batch import Batch, Part
    from clickwise.embedding import TableOptimizer
    from clickwise.feature_spec import Feature
    from clickwise.models.dlrm import DLRM
    from clickwise.optim.dense import DenseOptimizer
    from clickwise.train.step import OptimizerGroup, TrainStep
    from clickwise.wiring import build_engines

    class Spec:
        @staticmethod
        def channel(name):
            if name == "numerical":
                return tuple(Feature(f"num_{i}", "float16") for i in range(NUMERICALS))
            return tuple(Feature(name, "int32", cardinality=case.table_rows) for name in case.names)

    config = DLRM.Config(embedding_dim=case.dim, bottom_mlp=(*BOTTOM, case.dim), top_mlp=TOP)
    optimizer = TableOptimizer(name="sgd", lr=STEP_LR)
    engine = build_engines(DLRM, DLRM.tables(Spec, config), lambda part: optimizer, sharding=_sharding(case, plan))
    torch.manual_seed(0)  # the dense part is the same in every process
    model = DLRM(Spec, engine, config).train()
    dense = DenseOptimizer(name="sgd", lr=STEP_LR).build(model.parameters())
    step = TrainStep(model, {"": OptimizerGroup(dense, [engine])}, precision="fp32", device=torch.device("cpu"))
    part = None if case.processes == 1 else Part(case.samples // case.processes, case.samples)
    batches = [Batch(numerical=torch.rand(case.samples, NUMERICALS)[case.mine].half(), part=part,
                     categorical=tuple(ids_FB[:, case.mine].contiguous()),
                     label=(torch.rand(case.samples) < 0.25)[case.mine]) for ids_FB in whole]
    return lambda index: step(batches[index]), _set_and_held(case, engine)


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
    bags = torchrec.EmbeddingBagCollection(device=torch.device("meta"), tables=[
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
