"""Test AUC of the two tables of docs/add_a_dataset.md: the recipes of `table/`, and scikit-learn's gradient boosting.

    python benchmarks/tables.py --save

Both see the same columns, written by `clickwise prepare table/prepare` as the page says, and both stop by the
validation rows; the bins beside numbers are for ours alone, since trees make their own. Gradient boosting
(HistGradientBoostingClassifier, default settings, up to 1000 trees) takes features of at most 255 ids as categories and
the ids of larger ones, which are ordered by frequency, as numbers; it is also shown on the columns of an uncorrected
draft, where all that is a number is one.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import arguments, finish

from clickwise.data.columns import read_columns
from clickwise.feature_spec import FeatureSpec

RECIPES = ("table/dcnv2", "table/dlrm", "table/wide_deep")
DATA = Path(__file__).parents[1] / "data"
AMOUNTS = ["--categorical", "capital-gain", "--categorical", "capital-loss"]
TABLES = {
    "adult": (["adult/adult.csv.gz", "--label", "income"], AMOUNTS, ["dataset.label_is='>50K'"]),
    "flights": (["nycflights13/flights.csv.gz", "--label", "arr_delay"], ["--categorical", "flight"],
                ["dataset.label_above=15", "dataset.order_by=time_hour"]),
}


def clickwise(*words: str) -> str:
    command = [sys.executable, "-m", "clickwise.cli", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def prepared(folder: Path, file: str, spec_words: list[str], words: list[str]) -> FeatureSpec:
    clickwise("spec", "infer", str(DATA / file), *spec_words, "--out", str(folder))
    clickwise("prepare", "table/prepare", f"dataset.spec={folder}", *words, f"out={folder / 'columns'}")
    return FeatureSpec.load(folder / "columns")


def boosted(spec: FeatureSpec, seed: int) -> dict[str, float]:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import log_loss, roc_auc_score

    ids = [feature for feature in spec.channel("categorical") if not feature.name.endswith("_bin")]

    def inputs(mapping: str) -> tuple[np.ndarray, np.ndarray]:
        columns = read_columns(spec, mapping)
        (label,) = spec.channels["label"]
        return (np.column_stack([columns.numerical, *(columns.arrays[feature.name] for feature in ids)]),
                np.asarray(columns.arrays[label]))

    (x, y), (x_validation, y_validation), (x_test, y_test) = map(inputs, ("train", "validation", "test"))
    numbers = len(spec.channels["numerical"])
    model = HistGradientBoostingClassifier(
        max_iter=1000, early_stopping=True, random_state=seed,
        categorical_features=[numbers + index for index, feature in enumerate(ids) if feature.cardinality <= 255])
    model.fit(x, y, X_val=x_validation, y_val=y_validation)
    chances = model.predict_proba(x_test)[:, 1]
    return {"auc": roc_auc_score(y_test, chances), "log_loss": log_loss(y_test, chances)}


def trained(spec: FeatureSpec, recipe: str, seed: int, runs: str) -> dict[str, float]:
    found = json.loads(clickwise("train", recipe, f"data.path={spec.folder}", f"train.seed={seed}", "baselines=[]",
                                 "--out", runs, "--json"))
    return {name: found["mappings"]["test"][name] for name in ("auc", "log_loss")}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for table, ((file, *label), corrected, words) in TABLES.items():
            draft = prepared(Path(folder, f"{table}_draft"), file, label, words)
            spec = prepared(Path(folder, table), file, [*label, *corrected], words)
            for model, work in {**{recipe: lambda seed, recipe=recipe, spec=spec: trained(
                                       spec, recipe, seed, f"{folder}/runs") for recipe in RECIPES},
                                "gradient boosting": lambda seed, spec=spec: boosted(spec, seed),
                                "gradient boosting, draft": lambda seed, draft=draft: boosted(draft, seed)}.items():
                started = time.perf_counter()
                results = [work(seed) for seed in range(options.seeds)]
                aucs = [result["auc"] for result in results]
                rows.append({"table": table, "model": model, "auc": statistics.mean(aucs),
                             "auc_std": statistics.stdev(aucs) if len(aucs) > 1 else 0.0,
                             "log_loss": statistics.mean(result["log_loss"] for result in results),
                             "seconds": (time.perf_counter() - started) / options.seeds})
    finish("tables", rows, options, seeds=options.seeds)


if __name__ == "__main__":
    main()
