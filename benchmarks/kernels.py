"""The Triton kernels on one GPU: time, bytes/s and operations/s of each, beside what else PyTorch offers.

    python benchmarks/kernels.py --save               26 Criteo tables (T15, 15.6 GiB in float32), batch 65,536, dim 128
    python benchmarks/kernels.py --out DIR            every row into DIR/kernels.jsonl as soon as it is measured
    python benchmarks/kernels.py --shrink 8           an eighth of the rows of every table, for smaller GPUs
    python benchmarks/kernels.py --only gather cross  some of the kernels
    python benchmarks/kernels.py --only update --variants       ours beside ours with other settings
    python benchmarks/kernels.py --compiled --cases "rank 512"  with rivals under torch.compile, 10 to 20 s for each
    python benchmarks/kernels.py --dry-run            every case once, interpreted, tiny, and not compiled to machine
                                                      code: whether the script works

The ceilings are measured first: a copy of 2 GiB, bytes read plus bytes written, and a product of bfloat16 matrices.
Bytes are those that a kernel must move if nothing is cached and no row repeats; with skewed ids caches serve most of
them, so that the share of the copy can pass 100 %. Operations are those of the formula, without padding.
`ms` is the median of repeats between events, with the L2 cache flushed before each, over four batches in turn.

Rivals: `torch` is what a careful person writes (nn.EmbeddingBag per table, sparse gradients, torch.optim), `reference`
the same formulas as in reference.py, `compiled` either of them under torch.compile. The update's rivals are the engine
`reference` with its look-up and update in torch functions, and the same with the update compiled.

Whatever raises, of ours or of a rival, costs its own row alone, which then says why; the script ends with 1 where a
row of ours did.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from measure import append, arguments, finish, number, stamp
from torch import nn

from clickwise.data.synthetic.generate import VARIANTS
from clickwise.data.synthetic.power_law import PowerLaw
from clickwise.embedding import Table, TableOptimizer, build_embeddings
from clickwise.kernels import cross, dot_interaction, embedding_bag, gpu, mlp, sparse_update

# Modules with Triton kernels are imported where they are used: --dry-run must set up Triton's interpreter before.

LAWS = {"uniform": 0.0, "alpha 1.05": 1.05, "alpha 1.45": 1.45}
BATCHES = 4
COLUMNS = ["kernel", "case", "rival", "ms", "GB/s", "% copy", "TFLOP/s", "% matmul", "ours ×", "target"]
COST = """Every row is timed for 20 ms × --repeats. Estimated for one H100, with 5: 0.2 to 0.4 s a row; gather,
interaction, cross, and update with sgd and adam 85 s together; --compiled adds 10 to 20 s for each of its rows."""


# What is timed ========================================================================================================


class Problem:
    """The tensors of one case, made when it is constructed.

    RIVALS     rival → method that gives the call to be timed: "ours" first, variants of it ("ours, …") next, what is
               under torch.compile ("compiled …") last
    moved, operations  bytes and operations of such a call, known once one was given
    """

    RIVALS: dict[str, Callable[[Problem], Callable]]
    moved = operations = 0.0

    def call(self, rival: str) -> Callable[[], object]:
        return self.RIVALS[rival](self)


@dataclass(frozen=True)
class Case:
    """A problem that is not made yet; `without` are rivals that cannot take part in it."""

    kernel: str
    name: str
    problem: type[Problem]
    arguments: tuple
    target: str = ""
    without: tuple[str, ...] = ()

    def rivals(self, options: argparse.Namespace) -> list[str]:
        return [rival for rival in self.problem.RIVALS if rival not in self.without
                and (options.variants or not rival.startswith("ours,"))
                and (options.compiled or not rival.startswith("compiled"))]


class Gather(Problem):
    """Rows of 26 tables in bfloat16, side by side; with `first`, behind so many columns that are copied there."""

    @staticmethod
    def cases(options: argparse.Namespace) -> Iterator[Case]:
        for law in LAWS:
            for first in (0, options.dim, 13):  # DCNv2's and Wide & Deep's concatenation
                name = f"26 tables behind {first} columns, {law}" if first else f"26 tables, {law}"
                target = "≥ 70 % of copy" if law == "uniform" and not first else ""
                yield Case("gather", name, Gather, (options, law, first), target)

    def __init__(self, options: argparse.Namespace, law: str, first: int) -> None:
        self.options, sizes = options, table_sizes(options)
        self.batches = id_batches(law, sizes, options.batch, options.device)
        self.tables = [torch.randn(rows, options.dim, device=options.device) for rows in sizes]
        self.looks = [embedding_bag.FeatureLookup(t) for t in range(len(self.tables))]
        self.before = torch.randn(options.batch, first, device=options.device).bfloat16() if first else None
        ids = sum(column.element_size() for column in self.batches[0])
        self.moved = options.batch * (ids + len(self.tables) * options.dim * (4 + 2) + 2 * 2 * first)

    def ours(self) -> Callable:
        from clickwise.kernels.embedding_bag import triton

        plan, before = triton.Gather(self.tables, self.looks), self.before

        def gather(columns):
            if before is None:
                return plan(columns, torch.bfloat16)
            (samples, first), width = before.shape, len(self.tables) * self.options.dim
            out = torch.empty(samples, first + width, dtype=before.dtype, device=before.device)
            out[:, :first] = before
            return plan(columns, torch.bfloat16, out=out, first=first)

        return in_turn(self.batches, gather)

    def in_torch(self, wrap: Callable = lambda function: function) -> Callable:
        def gather(columns):
            rows = [F.embedding(ids, table) for ids, table in zip(columns, self.tables, strict=True)]
            return self._behind(torch.cat(rows, dim=1).bfloat16())

        return in_turn([[column.long() for column in columns] for columns in self.batches], wrap(gather))

    def compiled_reference(self) -> Callable:
        def gather(columns):
            return self._behind(embedding_bag.reference.embedding_bag(self.tables, self.looks, columns, torch.bfloat16))

        return in_turn(self.batches, compiled(self.options, gather, dynamic=False))

    def _behind(self, rows: torch.Tensor) -> torch.Tensor:
        return rows if self.before is None else torch.cat([self.before, rows], dim=1)

    RIVALS = {"ours": ours, "torch": in_torch,
              "compiled": lambda self: self.in_torch(functools.partial(compiled, self.options, dynamic=False)),
              "compiled reference": compiled_reference}


class Update(Problem):
    """Gather, and the update for a gradient in bfloat16: what a step has of embeddings."""

    RULES = {"sgd": dict(lr=0.1), "adam": dict(lr=1e-3), "rowwise_adagrad": dict(lr=0.1)}
    ROWS_MOVED = {"sgd": 2, "adam": 6, "rowwise_adagrad": 2}  # of the table and its states, read and written
    TARGETS = {("sgd", "alpha 1.05"): "≤ 0.9 ms", ("adam", "alpha 1.05"): "≤ 1.4 ms"}

    @staticmethod
    def cases(options: argparse.Namespace) -> Iterator[Case]:
        for rule in options.rules:
            # Row-wise Adagrad is not in torch, and needs tiles as wide as the rows.
            without = ("torch", "ours, tiles of 64 × 64") if rule == "rowwise_adagrad" else ()
            for law in LAWS:
                yield Case("gather + update", f"{rule}, {law}", Update, (options, rule, law),
                           Update.TARGETS.get((rule, law), ""), without)

    def __init__(self, options: argparse.Namespace, rule: str, law: str) -> None:
        self.options, self.rule, self.sizes = options, rule, table_sizes(options)
        self.batches = id_batches(law, self.sizes, options.batch, options.device)
        self.grad = torch.randn(options.batch, len(self.sizes) * options.dim, device=options.device).bfloat16()
        self.moved = self.grad.numel() * (4 + 2 + 2 + 4 * self.ROWS_MOVED[rule])

    def by_engine(self, engine: str, around: Callable[[], AbstractContextManager] = contextlib.nullcontext) -> Callable:
        """Steps of an engine, each inside a context that `around` gives."""
        features = tuple(f"f{t}" for t in range(len(self.sizes)))
        tables = [Table(name=name, rows=rows, dim=self.options.dim, features=(name,), init="zeros")
                  for name, rows in zip(features, self.sizes, strict=True)]
        embeddings = build_embeddings(engine, tables, features, TableOptimizer(name=self.rule, **self.RULES[self.rule]),
                                      device=self.options.device)

        def step(columns):
            with around(), torch.autocast(self.options.device.type, torch.bfloat16):
                embeddings(columns).backward(self.grad)

        return in_turn(self.batches, step)

    def with_tile(self, **settings: int) -> Callable:
        """Launch settings of the update's pass in the place of those that `_tile` chooses."""
        from clickwise.kernels.sparse_update import triton

        tile = triton._tile
        return self.by_engine("fused", functools.partial(
            replaced, triton, _tile=lambda dim, rule: {**tile(dim, rule), **settings}))

    def in_torch(self) -> Callable:
        bags = nn.ModuleList(nn.EmbeddingBag(rows, self.options.dim, mode="sum", sparse=True,
                                             device=self.options.device) for rows in self.sizes)
        optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.SparseAdam}[self.rule](
            bags.parameters(), **self.RULES[self.rule])

        def step(columns):
            optimizer.zero_grad(set_to_none=True)
            rows = [bag(ids[:, None]) for bag, ids in zip(bags, columns, strict=True)]
            torch.cat(rows, dim=1).bfloat16().backward(self.grad)
            optimizer.step()

        return in_turn([[column.long() for column in columns] for columns in self.batches], step)

    def by_reference(self, wrap: Callable = lambda function: function) -> Callable:
        update = wrap(sparse_update.reference.sparse_update)

        @contextlib.contextmanager
        def in_torch_on_a_gpu_too():
            with replaced(gpu, kernels_for=lambda x, operation: None), \
                    replaced(sparse_update.reference, sparse_update=update):
                yield

        return self.by_engine("reference", in_torch_on_a_gpu_too)

    RIVALS = {"ours": lambda self: self.by_engine("fused"),
              "ours, tiles of 64 × 64": functools.partial(with_tile, BLOCK_D=64, CHUNK=64, num_warps=8),
              "ours, 64 registers at most": functools.partial(with_tile, maxnreg=64),
              "torch": in_torch, "reference": by_reference,
              "compiled": lambda self: self.by_reference(functools.partial(compiled, self.options))}


class Differentiable(Problem):
    """Forward, or backward with the gradients of all `leaves`, of a function that `apply` calls. Backward's bytes are
    those of its inputs and outputs, read and written once. RIVALS: methods that give the function."""

    def __init__(self, options: argparse.Namespace, direction: str) -> None:
        self.options, self.is_forward = options, direction == "forward"
        self.leaves: list[torch.Tensor] = []

    def leaf(self, *shape: int, dtype: torch.dtype = torch.bfloat16, scale: float = 1.0) -> torch.Tensor:
        tensor = torch.randn(*shape, device=self.options.device, dtype=dtype).mul_(scale).requires_grad_()
        self.leaves.append(tensor)
        return tensor

    def apply(self, function: Callable) -> torch.Tensor:
        raise NotImplementedError

    def call(self, rival: str) -> Callable[[], object]:
        function, inputs = super().call(rival), sum(leaf.nbytes for leaf in self.leaves)
        if self.is_forward:
            call = torch.no_grad()(functools.partial(self.apply, function))
            self.moved = inputs + call().nbytes
            return call
        out = self.apply(function)
        self.moved, self.operations = 2 * inputs + out.nbytes, 2 * self.operations
        return functools.partial(torch.autograd.grad, out, self.leaves, torch.randn_like(out), retain_graph=True)


class Interaction(Differentiable):
    @staticmethod
    def cases(options: argparse.Namespace) -> Iterator[Case]:
        for features, dim, dtype in ((26, 128, torch.bfloat16), (26, 128, torch.float16), (26, 128, torch.float32),
                                     (26, 16, torch.bfloat16), (64, 64, torch.bfloat16), (127, 256, torch.bfloat16)):
            for direction in ("forward", "backward"):
                yield Case(f"dot interaction, {direction}", f"{features} × {dim} {str(dtype).removeprefix('torch.')}",
                           Interaction, (options, direction, features, dim, dtype), "≥ 60 % of copy")

    def __init__(self, options, direction, features: int, dim: int, dtype: torch.dtype) -> None:
        super().__init__(options, direction)
        samples = max(1, options.batch // (4 if features * dim > 8192 else 1))
        self.leaf(samples, dim, dtype=dtype)
        self.leaf(samples, features, dim, dtype=dtype)
        self.operations = 2.0 * samples * dim * features * (features + 1) / 2

    def apply(self, function):
        return function(*self.leaves)

    def ours(self) -> Callable:
        from clickwise.kernels.dot_interaction import triton

        return triton.dot_interaction

    RIVALS = {"ours": ours, "reference": lambda self: dot_interaction.reference.dot_interaction,
              "compiled": lambda self: compiled(self.options, dot_interaction.reference.dot_interaction, dynamic=False)}


class Cross(Differentiable):
    @staticmethod
    def cases(options: argparse.Namespace) -> Iterator[Case]:
        width, layers = (96, 2) if options.dry_run else (27 * 128, 3)
        for rank in (32, None) if options.dry_run else (128, 512, 1024, 2048, None):
            for direction in ("forward", "backward"):
                yield Case(f"cross, {direction}", f"{layers} layers, rank {rank or 'full'} bfloat16", Cross,
                           (options, direction, width, layers, rank))

    def __init__(self, options, direction, width: int, layers: int, rank: int | None) -> None:
        super().__init__(options, direction)
        leaf = functools.partial(self.leaf, scale=0.02)
        self.x0 = leaf(options.batch, width)
        self.layers = [(None if rank is None else leaf(rank, width), leaf(width, rank or width), leaf(width))
                       for _ in range(layers)]
        self.operations = layers * 2.0 * options.batch * width * (width if rank is None else 2 * rank)

    def apply(self, function):
        return function(self.x0, self.layers)

    def ours(self, most_rank: int | None = None) -> Callable:
        """With `most_rank`: whether the product with V is the kernel's (up to this rank) or cuBLAS's."""
        from clickwise.kernels.cross import triton

        if most_rank is None:
            return triton.cross

        def run(*args):
            with replaced(triton, MOST_RANK=most_rank):
                return triton.cross(*args)

        return run

    RIVALS = {"ours": ours,  # the variants: what MOST_RANK is to be set by
              "ours, apart": functools.partial(ours, most_rank=0),
              "ours, in one": functools.partial(ours, most_rank=10**9),
              "reference": lambda self: cross.reference.cross,
              "compiled": lambda self: compiled(self.options, cross.reference.cross, dynamic=False)}


class Mlp(Differentiable):
    STACKS = {"DLRM, top": ((480, 1024, 1024, 512, 256), 0.0), "Wide & Deep": ((1056, *[1024] * 5), 0.1)}

    @staticmethod
    def cases(options: argparse.Namespace) -> Iterator[Case]:
        for name, (widths, dropout) in Mlp.STACKS.items():
            if options.dry_run:
                widths = [width // 16 for width in widths]
            for direction in ("forward", "backward"):
                yield Case(f"mlp, {direction}", f"{name}, dropout {dropout} bfloat16", Mlp,
                           (options, direction, widths, dropout))

    def __init__(self, options, direction, widths: Sequence[int], dropout: float) -> None:
        super().__init__(options, direction)
        self.dropout = dropout
        self.x = self.leaf(options.batch, widths[0])
        self.weights = [self.leaf(outputs, inputs, scale=inputs**-0.5)
                        for inputs, outputs in itertools.pairwise(widths)]
        self.biases = [self.leaf(outputs, scale=0.02) for outputs in widths[1:]]
        self.operations = sum(2.0 * options.batch * weight.numel() for weight in self.weights)

    def apply(self, function):
        return function(self.x, self.weights, self.biases, dropout=self.dropout)

    def ours(self) -> Callable:
        from clickwise.kernels.mlp import triton

        return triton.mlp

    @staticmethod
    def in_torch(x_BK, weights, biases, dropout: float):
        for weight, bias in zip(weights, biases, strict=True):
            x_BK = mlp.reference.mlp(x_BK, [weight], [bias])
            if dropout:
                x_BK = F.dropout(x_BK, dropout)
        return x_BK

    RIVALS = {"ours": ours, "reference": lambda self: self.in_torch,
              "compiled": lambda self: compiled(self.options, self.in_torch, dynamic=False)}


KERNELS = {"gather": Gather, "update": Update, "interaction": Interaction, "cross": Cross, "mlp": Mlp}


# What the problems share ==============================================================================================


def table_sizes(options: argparse.Namespace) -> tuple[int, ...]:
    """Rows of the tables of T15; of a few of them in a dry run."""
    return tuple(max(2, rows // options.shrink) for rows in VARIANTS["criteo_t15"][::5 if options.dry_run else 1])


@functools.cache
def id_batches(law: str, sizes: Sequence[int], samples: int, device: torch.device) -> list[list[torch.Tensor]]:
    """Batches of columns of ids, in the types they are stored in."""
    random = np.random.default_rng(0)
    tables = [PowerLaw(rows, LAWS[law]) for rows in sizes]
    return [[torch.from_numpy(ids.draw(random, samples)).to(device) for ids in tables] for _ in range(BATCHES)]


def in_turn(batches: list, call: Callable) -> Callable[[], object]:
    """A call without arguments that takes the batches in turn, so that caches do not know the next one's ids."""
    turn = itertools.cycle(batches)
    return lambda: call(tuple(next(turn)))


def compiled(options: argparse.Namespace, function: Callable, **settings) -> Callable:
    """The function under torch.compile. A backward is repeated here, so the graph must not give its memory away."""
    import torch._functorch.config

    torch._functorch.config.donated_buffer = False
    return torch.compile(function, backend="aot_eager" if options.dry_run else "inductor", **settings)


@contextlib.contextmanager
def replaced(module: ModuleType, **values: object) -> Iterator[None]:
    """`module` with other values of its names."""
    kept = {name: getattr(module, name) for name in values}
    vars(module).update(values)
    try:
        yield
    finally:
        vars(module).update(kept)


# Timing ===============================================================================================================


class Bench:
    """Times cases. Each row is kept for the table and, with `--out`, written at once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.rows = options, []
        self.bytes_per_s, self.ops_per_s = (None, None) if options.dry_run else self._ceilings()
        self.facts = {"batch": options.batch, "dim": options.dim, "shrink": options.shrink}
        if not options.dry_run:
            self.facts |= {"copy_gb_s": self.bytes_per_s / 1e9, "matmul_tflop_s": self.ops_per_s / 1e12}
        self._write({**stamp(), **self.facts})

    def _write(self, line: dict[str, object]) -> None:
        if self.options.out is not None:
            append(self.options.out / "kernels.jsonl", line)

    def _ceilings(self) -> tuple[float, float]:
        """(bytes per second of a copy, operations per second of a product)."""
        x = torch.randn(2**29, device=self.options.device)
        y = torch.empty_like(x)
        a, b = (torch.randn(8192, 8192, device=self.options.device, dtype=torch.bfloat16) for _ in range(2))
        return 2 * x.nbytes / self.ms(lambda: y.copy_(x)) * 1e3, 2 * 8192**3 / self.ms(lambda: a @ b) * 1e3

    def ms(self, call: Callable[[], object]) -> float | None:
        """None where nothing is measured."""
        if self.options.dry_run:
            call()
            return None
        import triton.testing

        for _ in range(BATCHES + 1):  # whatever is compiled anew for another batch is so now
            call()
        return triton.testing.do_bench(call, warmup=50, rep=20 * self.options.repeats, return_mode="median")

    def run(self, case: Case) -> None:
        """One row per rival."""
        ours = None
        for rival in case.rivals(self.options):
            row = {"kernel": case.kernel, "case": case.name, "rival": rival}
            try:
                row |= self._figures(case, rival, ours)
            except Exception as error:  # out of memory, or whatever a compiler or a driver raises
                traceback.print_exc()
                row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            if rival == "ours":
                ours = row.get("ms")
                row["target"] = case.target
            self.rows.append(row)
            self._write(row)
            print(f"{case.kernel}, {case.name}, {rival}: {row.get('error') or number(row['ms'])}", file=sys.stderr,
                  flush=True)

    def _figures(self, case: Case, rival: str, ours: float | None) -> dict[str, object]:
        """Every rival has its own problem, given back here: two engines with Adam's states may not fit side by side."""
        self._give_memory_back()
        problem = case.problem(*case.arguments)
        ms = self.ms(problem.call(rival))
        if ms is None:
            return {"ms": "not measured on a GPU"}
        return {"ms": ms, "GB/s": problem.moved / ms / 1e6, "% copy": 1e5 * problem.moved / ms / self.bytes_per_s,
                "TFLOP/s": problem.operations / ms / 1e9, "% matmul": 1e5 * problem.operations / ms / self.ops_per_s,
                "ours ×": 1.0 if rival == "ours" else ms / ours if ours else ""}

    def _give_memory_back(self) -> None:
        """That of the last problem. What torch.compile made is forgotten too: it gives up on functions that it met in
        more than a few shapes."""
        if self.options.compiled:
            torch._dynamo.reset()
        gc.collect()
        gc.freeze()  # modules, which the next collection need not look through: 0.2 s
        if self.options.device.type == "cuda":
            torch.cuda.empty_cache()


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    parser.epilog = COST
    parser.add_argument("--out", type=Path, metavar="DIR", help="add each row to DIR/kernels.jsonl as soon as it is "
                        "measured, behind one line of machine, versions and ceilings")
    parser.add_argument("--only", nargs="+", default=list(KERNELS), choices=KERNELS)
    parser.add_argument("--cases", nargs="+", metavar="TEXT", help="cases whose names contain one of these")
    parser.add_argument("--rules", nargs="+", default=list(Update.RULES), choices=Update.RULES, help="of the update")
    parser.add_argument("--variants", action="store_true", help="also ours with other settings")
    parser.add_argument("--compiled", action="store_true", help="also rivals under torch.compile")
    parser.add_argument("--batch", type=int, default=65536)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--shrink", type=int, default=1, help="divides the rows of every table")
    parser.add_argument("--dry-run", action="store_true", help="every case once, interpreted, tiny; times nothing")
    options = parser.parse_args()
    options.device = torch.device("cpu" if options.dry_run else "cuda")
    if options.dry_run:
        options.batch, options.dim, options.shrink = 3, 16, 100_000
    elif not torch.cuda.is_available():
        raise SystemExit("no GPU here, and nothing was measured; --dry-run shows whether the script works")
    return options


def main() -> int:
    """1 where a row of ours is an error, else 0."""
    parser = arguments(__doc__)
    options = options_of(parser)
    cases = [case for name in options.only for case in KERNELS[name].cases(options)
             if options.cases is None or any(text in case.name for text in options.cases)]
    if not cases:
        parser.error(f"no case of {', '.join(options.only)} has one of {options.cases} in its name")
    if options.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"
        sys.path.append(str(Path(__file__).parents[1] / "tests"))
        import triton_device  # noqa: F401  makes the interpreter's arithmetic right
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    bench = Bench(options)
    for case in cases:
        bench.run(case)

    some = [*(options.only if set(options.only) != set(KERNELS) else ()),
            *(options.rules if set(options.rules) != set(Update.RULES) else ()),
            *(text.replace(" ", "_") for text in options.cases or ())]
    errors = [row for row in bench.rows if "error" in row]
    finish("-".join(["kernels", *some]), bench.rows, options, columns=COLUMNS + ["error"] * bool(errors), **bench.facts)
    print("ceilings: " + ("not measured on a GPU" if options.dry_run else
                          "{copy_gb_s:,.0f} GB/s copied, {matmul_tflop_s:,.0f} TFLOP/s".format(**bench.facts)))
    return int(any(row["rival"].startswith("ours") for row in errors))


if __name__ == "__main__":
    sys.exit(main())
