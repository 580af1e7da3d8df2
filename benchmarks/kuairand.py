"""Test metrics of a KuaiRand recipe over several seeds, from the shipped raw sample, and how long everything takes.

    python benchmarks/kuairand.py --save
    python benchmarks/kuairand.py --name kuairand-dlrm-frozen --prepare dataset.count_until=training --save
    python benchmarks/kuairand.py --recipe kuairand/wide_deep --save
    python benchmarks/kuairand.py --recipe kuairand/sim --data kuairand/prepare_history --save
    python benchmarks/kuairand.py --recipe kuairand/sim --data kuairand/prepare_history --name kuairand-sim-validated \
        --prepare dataset.train_on_validation=false --train data.validation=validation --save

The target for the DLRM is a mean test AUC of at least 0.7255: what gradient boosting reaches without histories.
That for Wide & Deep is the same and, over the user-days that have a click and a non-click, a mean MAP@12 of at least
0.76 (items in the order of their click rate in the training days: 0.752; in random order: 0.696).
Those for the models of histories are 0.745 for DIN, and 0.7469 for DIEN and SIM: what gradient boosting reaches with
hand-made features of the history, trained on all days before the test's first as they are.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time

from measure import arguments, finish

METRICS = ("auc", "log_loss", "normalized_entropy", "gauc", "map_at_12", "map_at_12_contested")


def clickwise(*words: str) -> str:
    command = [sys.executable, "-m", "clickwise.cli", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--recipe", default="kuairand/dlrm")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default="kuairand/prepare", help="the recipe that prepares the data")
    parser.add_argument("--prepare", nargs="*", default=[], help="overrides of that recipe")
    parser.add_argument("--train", nargs="*", default=[], help="overrides of the recipe that trains")
    parser.add_argument("--name", help="of the result file")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/kuairand"
        started = time.perf_counter()
        clickwise("prepare", options.data, f"out={data}", *options.prepare)
        prepare_s = time.perf_counter() - started
        for seed in range(options.seeds):
            started = time.perf_counter()
            result = json.loads(clickwise("train", options.recipe, f"data.path={data}", f"train.seed={seed}",
                                          *options.train, "--out", f"{folder}/runs", "--json"))
            test = result["mappings"]["test"]
            rows.append({"seed": str(seed), **{name: test[name] for name in METRICS if name in test},
                         "steps": result["steps"], "train_s": time.perf_counter() - started})
    for name, function in (("mean", statistics.mean), ("std", statistics.stdev if len(rows) > 1 else lambda _: 0.0)):
        numbers = [row for row in rows if row["seed"].isdigit()]
        keys = [key for key in numbers[0] if key != "seed"]
        rows.append({"seed": name, **{key: function([row[key] for row in numbers]) for key in keys}})
    print(f"{options.recipe}: preparation {prepare_s:.1f} s")
    finish(options.name or options.recipe.replace("/", "-"), rows, options, recipe=options.recipe,
           data=options.data, prepare=options.prepare, train=options.train, prepare_s=prepare_s)


if __name__ == "__main__":
    main()
