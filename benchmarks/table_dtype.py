"""Test AUC with embedding rows in float32, in bfloat16, and in bfloat16 whose steps are rounded to the nearest number.

    python benchmarks/table_dtype.py --cases tiny --save
    python benchmarks/table_dtype.py --cases kuairand --save

The same seeds, first values and order of the samples for all three; `- float32` is the mean of the differences seed by
seed, with their standard deviation. Rounding to nearest is no setting: it shows what rounding by chance is for. On a
CPU the engine `reference` trains, whose rounding is that of the GPU's kernel: the same chance at the same place and
step.
Cases: recipes, the synthetic ones with other optimizers of the tables too. KuaiRand's test days are as shipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from measure import arguments, finish

from clickwise.kernels.sparse_update import reference
from clickwise.prepare import run as prepare
from clickwise.recipe import load
from clickwise.verbs.train import train

SYNTHETIC = {"": [], ", sgd": ["embedding.optimizer={name: sgd, lr: 30.0}"],
             ", rowwise_adagrad": ["embedding.optimizer={name: rowwise_adagrad, lr: 0.05}"],
             ", small steps": ["embedding.optimizer={name: adam, lr: 1.0e-4}", "train.batch_size=256"]}
CASES = {"tiny": {f"tiny/dlrm{name}": ("tiny/dlrm", words) for name, words in SYNTHETIC.items()},
         "kuairand": {recipe: (recipe, []) for recipe in ("kuairand/dlrm", "kuairand/dcnv2", "kuairand/wide_deep")}}
ROWS = {"float32": "float32", "bfloat16": "bfloat16", "bfloat16, nearest": "bfloat16"}


@contextlib.contextmanager
def rounding_of(rows: str):
    kept = reference._narrowed
    if rows.endswith("nearest"):
        reference._narrowed = lambda row_UD, weight_RD, touched_U, step: row_UD.to(weight_RD.dtype)
    try:
        yield
    finally:
        reference._narrowed = kept


def auc_of(recipe: str, words: list[str], rows: str, folder: Path) -> float:
    with rounding_of(rows), open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        run = train(recipe, [*words, f"embedding.table_dtype={ROWS[rows]}", "embedding.engine=reference"], out=folder)
    return json.loads((run / "metrics.json").read_text())["mappings"]["test"]["auc"]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", default="tiny", choices=list(CASES))
    options = parser.parse_args()
    table = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.cases == "kuairand":
            prepare(load("kuairand/prepare", [f"out={folder / 'kuairand'}"]), "kuairand/prepare")
        for case, (recipe, words) in CASES[options.cases].items():
            aucs: dict[str, list[float]] = {rows: [] for rows in ROWS}
            for seed in range(options.seeds):
                of_data = f"data.synthetic.seed={seed + 1}" if options.cases == "tiny" else \
                    f"data.path={folder / 'kuairand'}"
                for rows, found in aucs.items():
                    found.append(auc_of(recipe, [*words, of_data, f"train.seed={seed}"], rows, folder / "runs"))
            for rows, found in aucs.items():
                differences = [mine - full for mine, full in zip(found, aucs["float32"], strict=True)]
                table.append({"case": case, "rows": rows, "auc": statistics.mean(found),
                              "std": statistics.stdev(found), "- float32": f"{statistics.mean(differences):+.5f}",
                              "± ": f"{statistics.stdev(differences):.5f}",
                              "by seed": [round(auc, 6) for auc in found]})
            print(f"measured: {case}", file=sys.stderr, flush=True)
    finish(f"table_dtype-{options.cases}", table, options, seeds=options.seeds,
           columns=["case", "rows", "auc", "std", "- float32", "± "])


if __name__ == "__main__":
    main()
