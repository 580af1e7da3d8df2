"""How large everything is: as published, and for a rehearsal. Nothing else of a stage differs between the two."""

from __future__ import annotations

import dataclasses

T15 = "criteo_t15"  # 26 tables of 32.7 M rows: 15.6 GiB in float32 at 128 columns


@dataclasses.dataclass(frozen=True)
class Histories:
    users: int
    items: int
    categories: int
    length: int


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What stages may differ in.

    criteo, outbrain   rows of the tables
    histories          of DIN, DIEN and SIM
    compiled           how many of these, the first, are measured under torch.compile too
    same_auc           how far bf16 and float32 may lie apart
    alpha              the skew of ids: that of the targets in docs/kernels.md
    steps              (model, batch, settings besides the recipe's) of the training stage
    inference          model → batch sizes
    signals            recipe → settings: trained to their end, in float32 by plain torch and in bf16 by the fast path
    tests              what pytest is given
    kernels            options of benchmarks/kernels.py, in a process each; of `compiled_kernels`, the last of all, with
                       rivals under torch.compile
    """

    criteo: tuple[int, ...] | str
    outbrain: tuple[int, ...]
    histories: Histories
    steps: tuple[tuple[str, int, tuple[str, ...]], ...]
    inference: dict[str, tuple[int, ...]]
    signals: dict[str, tuple[str, ...]]
    tests: tuple[str, ...]
    kernels: tuple[tuple[str, ...], ...]
    compiled_kernels: tuple[str, ...]
    compiled: int = 4
    same_auc: float = 0.0005
    alpha: float = 1.05
    copy_bytes: int = 2**31
    product: int = 8192
    compared_steps: int = 30
    window: int = 40
    windows: int = 3
    singles: int = 30
    held_batches: int = 8
    profiled_steps: int = 5
    pipeline_rows: int = 4_000_000
    pipeline_batch: int = 65536
    smoke_steps: int = 5


PUBLISHED = Sizes(
    criteo=T15,
    # The 26 features of 2021, in the order of OUTBRAIN_FEATURES.
    outbrain=(300_000, 4, 100_000, 4_000, 1_000, 2_500, 300, 2_000, 250_000, 2_500, 4_000, 1_000, 5_000),
    histories=Histories(users=105_926, items=1_209_082, categories=2_331, length=100),
    steps=(("dlrm", 65536, ()), ("dcnv2", 65536, ()), ("wide_deep", 131072, ()), ("sim", 131072, ()),
           ("sim", 4096, ()), ("dien", 4096, ()), ("din", 4096, ())),
    inference={"dlrm": (1, 64, 2048, 32768), "dcnv2": (1, 2048, 65536), "wide_deep": (1, 4096, 131072),
               "sim": (1, 4096, 131072)},
    signals={"tiny/dlrm": (), "tiny/dcnv2": (), "tiny/wide_deep": (), "tiny/sim": ()},
    tests=("tests/kernels", "tests/embedding", "tests/contracts/test_embedding_contract.py"),
    kernels=(("--only", "gather"), ("--only", "interaction", "cross", "mlp"),
             ("--only", "update", "--rules", "sgd", "--variants"), ("--only", "update", "--rules", "adam")),
    compiled_kernels=("--only", "gather", "interaction", "cross", "update", "--rules", "sgd", "--cases",
                      "26 tables, uniform", "26 × 128 bfloat16", "rank 512", "sgd, alpha 1.05"),
)

_FEW_ROWS = "data.synthetic.rows={train: 48, validation: 16, test: 32}"
_SHORT = (_FEW_ROWS, "train.batch_size=16", "train.epochs=1")
REHEARSAL = Sizes(
    criteo=(40, 3, 1000, 130),
    outbrain=(300, 4, 100, 40, 10, 25, 3, 20, 250, 25, 40, 10, 50),
    histories=Histories(users=11, items=200, categories=9, length=8),
    steps=(("dlrm", 8, ("model.embedding_dim=16", "model.bottom_mlp=[16]", "model.top_mlp=[16, 8]")),
           ("dcnv2", 8, ("model.embedding_dim=8", "model.bottom_mlp=[8]", "model.top_mlp=[8]", "model.cross_rank=8",
                          "model.cross_layers=2")),
           ("wide_deep", 8, ("model.embedding_sizes={}", "model.embedding_dim=4", "model.deep_hidden=[16, 8]")),
           ("sim", 4, ("model.embedding_dim=4", "model.k=2", "model.short_length=3")),
           ("dien", 4, ("model.embedding_dim=4",)), ("din", 4, ("model.embedding_dim=4",))),
    inference={"dlrm": (1, 8), "sim": (2,)},
    signals={"tiny/dlrm": (*_SHORT, "model.top_mlp=[8]")},
    compiled=1, same_auc=1.0,
    tests=("tests/kernels/test_dot_interaction_triton.py",),
    kernels=(("--dry-run", "--only", "mlp"),),
    compiled_kernels=("--dry-run", "--only", "interaction", "--cases", "26 × 16"),
    copy_bytes=2**20, product=64, compared_steps=2, window=1, windows=1, singles=1, held_batches=2, profiled_steps=1,
    pipeline_rows=400, pipeline_batch=16, smoke_steps=1,
)
