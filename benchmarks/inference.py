"""Latency and throughput of forward passes, `clickwise bench --what inference`, of the Criteo models at full width.

    python benchmarks/inference.py --save

Batches of made-up Criteo rows (26 tables of Criteo T15, each clipped to 100,000 rows, dim 128) are held in memory; the
device is waited for after every pass, and the first ones are not counted.
"""

from __future__ import annotations

from measure import arguments, finish

from clickwise.verbs.bench import bench

SIZES = (1, 64, 256, 2048, 4096, 16384)
SETTINGS = ["data={synthetic: {spec: criteo_t15, rows: {train: 20_000, test: 20_000}}}", "embedding.hash_indices=true",
            "embedding.max_table_size=100_000", "embedding.optimizer={name: sgd}"]
COLUMNS = ["recipe", "precision", "batch_size", "samples_per_s", "ms_p50", "ms_p90", "ms_p95", "ms_p99"]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--recipes", nargs="+", default=["criteo/dlrm", "criteo/dcnv2"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    rows = []
    for recipe in options.recipes:
        for precision in options.precisions:
            measured = bench(recipe, [*SETTINGS, f"train.precision={precision}", f"train.device={options.device}"],
                             what="inference", steps=options.steps, batch_sizes=tuple(options.batch_sizes))
            rows += [{"recipe": recipe, "precision": precision, **row} for row in measured["rows"]]
    finish("inference", rows, options, columns=COLUMNS, steps=options.steps, settings=SETTINGS)


if __name__ == "__main__":
    main()
