"""The Triton kernels on one GPU: time, bytes/s and operations/s of each, beside what else PyTorch offers.

    python benchmarks/kernels.py --save               26 Criteo tables (T15, 15.6 GiB in float32), batch 65,536, dim 128
    python benchmarks/kernels.py --shrink 8           an eighth of the rows of every table, for smaller GPUs
    python benchmarks/kernels.py --only gather cross  some of the kernels
    python benchmarks/kernels.py --dry-run            every case once, interpreted, tiny, and not compiled to machine
                                                      code: whether the script works

The ceilings are measured first: a copy of 2 GiB, bytes read plus bytes written, and a product of bfloat16 matrices.
Bytes are those that a kernel must move if nothing is cached and no row repeats; with skewed ids caches serve most of
them, so that the share of the copy can pass 100 %. Operations are those of the formula, without padding.
`ms` is the median of repeats between events, with the L2 cache flushed before each, over four batches in turn.

Rivals: `torch` is what a careful person writes (nn.EmbeddingBag per table, sparse gradients, torch.optim), `reference`
the same formulas as in reference.py, `compiled` the reference under torch.compile. The update's rivals are the engine
`reference` with its look-up and update in torch functions, and the same with the update compiled.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import arguments, finish

CASES = ("gather", "update", "interaction", "cross")
ALPHAS = (0.0, 1.05, 1.45)
BATCHES = 4


class Bench:
    """Times calls and collects rows of the table."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        self.dry, self.samples, self.repeats_ms = options.dry_run, options.batch, 20 * options.repeats
        self.device = torch.device("cpu" if self.dry else "cuda")
        self.rows: list[dict[str, object]] = []
        self.ours: dict[tuple[str, str], float | None] = {}
        self.bytes_per_s = self.ops_per_s = None

    def ms(self, call: Callable[[], object]) -> float | None:
        if self.dry:
            call()
            return None
        import triton.testing

        for _ in range(BATCHES + 1):  # whatever is compiled anew for another batch is so now
            call()
        return triton.testing.do_bench(call, warmup=50, rep=self.repeats_ms, return_mode="median")

    def ceilings(self) -> None:
        import torch

        if self.dry:
            return
        x = torch.randn(2**29, device=self.device)
        y = torch.empty_like(x)
        self.bytes_per_s = 2 * x.nbytes / self.ms(lambda: y.copy_(x)) * 1e3
        a, b = (torch.randn(8192, 8192, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        self.ops_per_s = 2 * 8192**3 / self.ms(lambda: a @ b) * 1e3

    def add(self, kernel: str, case: str, calls: dict[str, Callable[[], object]], *, moved: float = 0,
            operations: float = 0, target: str = "") -> None:
        """One row per rival; "ours" comes first, in this call or in an earlier one."""
        for rival, call in calls.items():
            try:
                ms = self.ms(call)
            except Exception as slip:  # a rival that runs out of memory or does not compile ends nothing
                if rival == "ours":
                    raise
                print(f"{kernel}, {case}, {rival}: {type(slip).__name__}: {str(slip)[:120]}", file=sys.stderr)
                continue
            if rival == "ours":
                self.ours[kernel, case] = ms
            row = {"kernel": kernel, "case": case, "rival": rival}
            if ms is None:
                self.rows.append({**row, "ms": "not measured on a GPU", "GB/s": "", "% copy": "", "TFLOP/s": "",
                                  "% matmul": "", "ours ×": "",
                                  "target": target if rival == "ours" else ""})
                continue
            self.rows.append({**row, "ms": ms, "GB/s": moved / ms / 1e6, "% copy": 1e5 * moved / ms / self.bytes_per_s,
                              "TFLOP/s": operations / ms / 1e9, "% matmul": 1e5 * operations / ms / self.ops_per_s,
                              "ours ×": ms / self.ours[kernel, case], "target": target if rival == "ours" else ""})
            print(f"measured: {kernel}, {case}, {rival}: {ms:.3f} ms", file=sys.stderr, flush=True)


def in_turn(batches: list, call: Callable) -> Callable[[], object]:
    """A call without arguments that takes the batches in turn, so that caches do not know the next one's ids."""
    turn = itertools.cycle(batches)
    return lambda: call(*next(turn))


def compiled(bench: Bench, function: Callable, **settings) -> Callable:
    """The function under torch.compile, which forgets what it compiled before: it gives up on functions that it met in
    more than a few shapes. A backward is repeated here, so the graph must not give its memory away."""
    import torch
    import torch._functorch.config

    torch._dynamo.reset()
    torch._functorch.config.donated_buffer = False
    return torch.compile(function, backend="aot_eager" if bench.dry else "inductor", **settings)


@contextlib.contextmanager
def torch_update(function: Callable) -> Iterator[None]:
    """Updates of the engine `reference` are those of `function`, on a GPU too."""
    from clickwise.kernels import gpu, sparse_update

    kept = gpu.kernels_for, sparse_update.reference.sparse_update
    gpu.kernels_for, sparse_update.reference.sparse_update = lambda x, operation: None, function
    try:
        yield
    finally:
        gpu.kernels_for, sparse_update.reference.sparse_update = kept


def tables_and_ids(bench: Bench, shrink: int) -> Iterator[tuple[str, list[int], list]]:
    """(name of the ids' law, rows of the tables, batches of columns in the types they are stored in)."""
    import numpy as np
    import torch

    from clickwise.data.synthetic.generate import VARIANTS
    from clickwise.data.synthetic.power_law import PowerLaw

    sizes = [max(2, rows // shrink) for rows in VARIANTS["criteo_t15"]]
    random = np.random.default_rng(0)
    for alpha in ALPHAS:
        laws, batches = [PowerLaw(rows, alpha) for rows in sizes], []
        for _ in range(1 if bench.dry else BATCHES):
            columns = []
            for law in laws:
                ids = law.quantile(random.random(bench.samples))
                dtype = torch.int8 if law.size < 127 else torch.int16 if law.size < 32767 else torch.int32
                columns.append(torch.from_numpy(ids).to(dtype).to(bench.device))
            batches.append((tuple(columns),))
        yield ("uniform" if alpha == 0 else f"alpha {alpha}"), sizes, batches


def gather(bench: Bench, options: argparse.Namespace) -> None:
    import torch
    import torch.nn.functional as F

    from clickwise.kernels.embedding_bag import Look, reference
    from clickwise.kernels.embedding_bag.triton import Gather

    tables = None
    for law, sizes, batches in tables_and_ids(bench, options.shrink):
        tables = tables or [torch.randn(rows, options.dim, device=bench.device) for rows in sizes]
        looks = [Look(t) for t in range(len(sizes))]
        plan = Gather(tables, looks)
        wide = [(tuple(column.long() for column in columns),) for columns, in batches]

        def plain(columns, tables=tables):
            return torch.cat([F.embedding(ids, table) for ids, table in zip(columns, tables, strict=True)],
                             dim=1).bfloat16()

        def reference_of(columns, tables=tables, looks=looks):
            return reference.embedding_bag(tables, looks, columns, torch.bfloat16)

        calls = {"ours": in_turn(batches, lambda columns, plan=plan: plan(columns, torch.bfloat16)),
                 "torch": in_turn(wide, plain),
                 "compiled": in_turn(wide, compiled(bench, plain, dynamic=False)),
                 "compiled reference": in_turn(batches, compiled(bench, reference_of, dynamic=False))}
        moved = sum(column.element_size() for column in batches[0][0]) + len(sizes) * options.dim * (4 + 2)
        bench.add("gather", f"26 tables, {law}", calls, target="≥ 70 % of copy" if law == "uniform" else "",
                  moved=bench.samples * moved)
        for first in (options.dim, 13):  # DCNv2's and Wide & Deep's concatenation
            before = torch.randn(bench.samples, first, device=bench.device).bfloat16()

            width = first + len(sizes) * options.dim

            def behind(columns, plan=plan, before=before, width=width):
                out = torch.empty(len(before), width, dtype=before.dtype, device=before.device)
                out[:, :before.shape[1]] = before
                return plan(columns, torch.bfloat16, out=out, first=before.shape[1])

            def plain_behind(columns, plain=plain, before=before):
                return torch.cat([before, plain(columns)], dim=1)

            bench.add("gather", f"26 tables behind {first} columns, {law}", {
                "ours": in_turn(batches, behind), "torch": in_turn(wide, plain_behind),
                "compiled": in_turn(wide, compiled(bench, plain_behind, dynamic=False))},
                      moved=bench.samples * (moved + 2 * 2 * first))


def update(bench: Bench, options: argparse.Namespace) -> None:
    """Gather, and the update for a gradient in bfloat16: what a step has of embeddings."""
    import torch
    from torch import nn

    from clickwise.embedding import Table, TableOptimizer, build_embeddings
    from clickwise.kernels.sparse_update import reference

    rules = {"sgd": dict(name="sgd", lr=0.1), "adam": dict(name="adam", lr=1e-3),
             "rowwise_adagrad": dict(name="rowwise_adagrad", lr=0.1)}
    for rule in rules if options.rules is None else options.rules:
        for law, sizes, batches in tables_and_ids(bench, options.shrink):
            features = tuple(f"f{t}" for t in range(len(sizes)))
            tables = [Table(name=name, rows=rows, dim=options.dim, features=(name,), init="zeros")
                      for name, rows in zip(features, sizes, strict=True)]
            grad = torch.randn(bench.samples, len(sizes) * options.dim, device=bench.device).bfloat16()

            def step(engine, columns, grad):
                with torch.autocast(bench.device.type, torch.bfloat16):
                    engine(columns).backward(grad)

            def reference_step(engine, function, columns, grad):
                with torch_update(function):
                    step(engine, columns, grad)

            def plain_step(bags, optimizer, columns, grad):
                optimizer.zero_grad(set_to_none=True)
                torch.cat([bag(ids[:, None]) for bag, ids in zip(bags, columns, strict=True)],
                          dim=1).bfloat16().backward(grad)
                optimizer.step()

            # One after another: two engines with Adam's states may not fit beside each other.
            for rival in ("ours", "torch", "reference", "compiled"):
                if rival == "torch" and rule == "rowwise_adagrad":
                    continue
                if rival == "torch":
                    bags = nn.ModuleList(nn.EmbeddingBag(rows, options.dim, mode="sum", sparse=True,
                                                         device=bench.device) for rows in sizes)
                    optimizer = torch.optim.SGD(bags.parameters(), lr=0.1) if rule == "sgd" else \
                        torch.optim.SparseAdam(bags.parameters(), lr=1e-3)
                    wide = [(tuple(column.long() for column in columns),) for columns, in batches]
                    call = in_turn(wide, functools.partial(plain_step, bags, optimizer, grad=grad))
                else:
                    engine = build_embeddings("fused" if rival == "ours" else "reference", tables, features,
                                              TableOptimizer(**rules[rule]), device=bench.device)
                    call = functools.partial(step, engine, grad=grad)
                    if rival != "ours":
                        function = reference.sparse_update if rival == "reference" else \
                            compiled(bench, reference.sparse_update)
                        call = functools.partial(reference_step, engine, function, grad=grad)
                    call = in_turn(batches, call)
                rows_moved = {"sgd": 2, "adam": 6, "rowwise_adagrad": 2}[rule]
                moved = bench.samples * len(sizes) * options.dim * (4 + 2 + 2 + 4 * rows_moved)
                target = {"sgd": "≤ 0.9 ms", "adam": "≤ 1.4 ms"}.get(rule, "") if law == "alpha 1.05" else ""
                bench.add("gather + update", f"{rule}, {law}", {rival: call}, moved=moved, target=target)
                bags = optimizer = engine = call = None
                if not bench.dry:
                    torch.cuda.empty_cache()


def interaction(bench: Bench, options: argparse.Namespace) -> None:
    import torch

    from clickwise.kernels.dot_interaction import reference
    from clickwise.kernels.dot_interaction import triton as fast

    for features, dim, dtype in ((26, 128, torch.bfloat16), (26, 128, torch.float16), (26, 128, torch.float32),
                                 (26, 16, torch.bfloat16), (64, 64, torch.bfloat16), (127, 256, torch.bfloat16)):
        samples = bench.samples // (4 if features * dim > 8192 else 1)
        leaves = [torch.randn(samples, dim, device=bench.device, dtype=dtype, requires_grad=True),
                  torch.randn(samples, features, dim, device=bench.device, dtype=dtype, requires_grad=True)]
        rivals = {"ours": fast.dot_interaction, "reference": reference.dot_interaction,
                  "compiled": compiled(bench, reference.dot_interaction, dynamic=False)}
        _both_directions(bench, "dot interaction", f"{features} × {dim} {str(dtype).removeprefix('torch.')}", rivals,
                         leaves, lambda run, leaves: run(*leaves),
                         operations=2.0 * samples * dim * features * (features + 1) / 2, target="≥ 60 % of copy")


def cross(bench: Bench, options: argparse.Namespace) -> None:
    import torch

    from clickwise.kernels.cross import reference
    from clickwise.kernels.cross import triton as fast

    width, layers = (96, 2) if bench.dry else (27 * 128, 3)
    for rank in (32, None) if bench.dry else (128, 512, 1024, 2048, None):
        def leaf(*shape):
            return torch.randn(*shape, device=bench.device, dtype=torch.bfloat16).mul_(0.02).requires_grad_()

        leaves = [leaf(bench.samples, width)]
        for _ in range(layers):
            leaves += [leaf(width, rank or width), leaf(width)] + ([] if rank is None else [leaf(rank, width)])

        def call(run, leaves, rank=rank):
            each = 2 if rank is None else 3
            parts = [leaves[1 + each * i:1 + each * (i + 1)] for i in range(layers)]
            return run(leaves[0], [(None if rank is None else part[2], part[0], part[1]) for part in parts])

        def with_most_rank(most, *args):
            kept, fast.MOST_RANK = fast.MOST_RANK, most
            try:
                return fast.cross(*args)
            finally:
                fast.MOST_RANK = kept

        # The product by cuBLAS or by the kernel, whatever the rank: what MOST_RANK is to be set by.
        rivals = {"ours": fast.cross, "ours, apart": functools.partial(with_most_rank, 0),
                  "ours, in one": functools.partial(with_most_rank, 10**9), "reference": reference.cross,
                  "compiled": compiled(bench, reference.cross, dynamic=False)}
        per_layer = 2.0 * bench.samples * width * (width if rank is None else 2 * rank)
        _both_directions(bench, "cross", f"{layers} layers, rank {rank or 'full'} bfloat16", rivals, leaves, call,
                         operations=layers * per_layer)


def _both_directions(bench, kernel, case, rivals, leaves, call, *, operations, target="") -> None:
    """Rows for forward and backward; backward's bytes are those of its inputs and outputs, read and written once."""
    import torch

    outs = {}
    for rival, run in rivals.items():
        try:
            outs[rival] = call(run, leaves)
        except Exception as slip:  # a rival may not compile
            if rival == "ours":
                raise
            print(f"{kernel}, {case}, {rival}: {type(slip).__name__}: {str(slip)[:120]}", file=sys.stderr)
    grad = torch.randn_like(outs["ours"])

    def forward(run):
        with torch.no_grad():
            call(run, leaves)

    inputs, out = sum(leaf.nbytes for leaf in leaves), outs["ours"].nbytes
    bench.add(f"{kernel}, forward", case, {rival: functools.partial(forward, rivals[rival]) for rival in outs},
              moved=inputs + out, operations=operations, target=target)
    bench.add(f"{kernel}, backward", case,
              {rival: functools.partial(torch.autograd.grad, of, leaves, grad, retain_graph=True)
               for rival, of in outs.items()}, moved=2 * inputs + out, operations=2 * operations, target=target)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--batch", type=int, default=65536)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--shrink", type=int, default=1, help="divides the rows of every table")
    parser.add_argument("--rules", nargs="+", help="of the update: sgd adam rowwise_adagrad")
    parser.add_argument("--dry-run", action="store_true", help="every case once, interpreted, tiny; times nothing")
    options = parser.parse_args()
    if options.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"
        sys.path.append(str(Path(__file__).parents[1] / "tests"))
        import triton_device  # noqa: F401  makes the interpreter's arithmetic right

        options.batch, options.dim, options.shrink = 3, 16, 100_000
    import torch

    if not (options.dry_run or torch.cuda.is_available()):
        raise SystemExit("no GPU here, and nothing was measured; --dry-run shows whether the script works")
    torch.manual_seed(0)
    bench = Bench(options)
    bench.ceilings()
    for case in options.only:
        globals()[case](bench, options)
    gpu = {} if options.dry_run else {"copy_gb_s": bench.bytes_per_s / 1e9, "matmul_tflop_s": bench.ops_per_s / 1e12}
    print("ceilings: " + (", ".join(f"{name} {value:,.0f}" for name, value in gpu.items()) or "not measured on a GPU"))
    parts = [*(options.only if set(options.only) != set(CASES) else ()), *(options.rules or ())]
    finish("-".join(["kernels", *parts]), bench.rows, options, batch=options.batch, dim=options.dim,
           shrink=options.shrink, **gpu)


if __name__ == "__main__":
    main()
