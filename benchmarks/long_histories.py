"""SIM's search in long histories beside DIN and DIEN on the latest events: test AUC on a generated set.

    python benchmarks/long_histories.py --save

2,000 users of 500 to 700 events. All but the latest 20 are of the user's 20 lasting interests, categories, the latest
of 20 others. A target is of none of the others and, in half of the rows, of an interest; it is clicked with the chance
CLICKED then, 1 − CLICKED else: the latest events tell nothing, and the best AUC is that of these chances on the very
labels of the test. Users of the test are not among those of the training; no user id is read. A log of events, written
as `clickwise prepare` writes one.

Target: SIM above DIN and DIEN on the latest 20 events, by 0.2 at least; else the exit code is 1.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from kuairand import clickwise
from measure import arguments, finish

from clickwise.feature_spec import Chunk, Feature, FeatureSpec
from clickwise.metrics import auc

USERS, LEAST, MOST, LATEST = 2_000, 500, 700, 20
CATEGORIES, ITEMS_OF_EACH, INTERESTS = 200, 20, 20
TARGETS, CLICKED, TEST_SHARE = 20, 0.88, 0.2
COMMON = ("data.validation=null", "train.batch_size=256", "train.evaluation_batch_size=2048", "train.threads=1",
          "train.epochs=3", "train.log_every=50", "embedding.optimizer={name: adam, lr: 0.01}",
          "optimizer={name: adam, lr: 0.002}", "schedule={warmup_epochs: 0.1, decay_start_epoch: 1, decay_epochs: 2}",
          "baselines=[]", "metrics=[auc, log_loss]")
SMALL = "embedding_dim: 8, top_mlp: [64, 32]"
BEST = "the chances themselves"
RIVALS = {
    f"DIN, latest {LATEST}": f"model={{name: din, history_length: {LATEST}, unit_mlp: [32, 16], {SMALL}}}",
    f"DIEN, latest {LATEST}": f"model={{name: dien, history_length: {LATEST}, gru_size: 16, {SMALL}}}",
    "SIM, soft search": f"model={{name: sim, short_length: {LATEST}, k: 50, gru_size: 16, {SMALL}}}",
    "SIM, hard search": f"model={{name: sim, search: hard, short_length: {LATEST}, k: 50, gru_size: 16, {SMALL}}}",
}


def write_set(folder: Path, seed: int) -> float:
    """Writes the dataset; the best AUC on its test rows."""
    dice = np.random.default_rng(seed)
    counts = dice.integers(LEAST, MOST + 1, USERS)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    user = np.repeat(np.arange(USERS), counts)
    # Of every user an order of all categories: interests, those of the latest events, and the others.
    order = dice.permuted(np.tile(np.arange(CATEGORIES), (USERS, 1)), axis=1)
    is_late = np.arange(len(user)) >= offsets[user + 1] - LATEST
    category = order[user, np.where(is_late, INTERESTS, 0) + dice.integers(0, INTERESTS, len(user))]

    target_user = np.repeat(np.arange(USERS), TARGETS)
    of_interest = dice.random(len(target_user)) < 0.5
    target = order[target_user, np.where(of_interest, dice.integers(0, INTERESTS, len(target_user)),
                                         dice.integers(2 * INTERESTS, CATEGORIES, len(target_user)))]
    chance = np.where(of_interest, CLICKED, 1 - CLICKED)
    label = dice.random(len(target_user)) < chance
    is_test = target_user >= USERS * (1 - TEST_SHARE)
    _write(folder, dice, offsets, category, {"train": ~is_test, "test": is_test}, target_user, target, label)
    return float(auc(label[is_test], np.log(chance / (1 - chance))[is_test].astype(np.float32)))


def _write(folder: Path, dice: np.random.Generator, offsets: np.ndarray, category: np.ndarray,
           mappings: dict[str, np.ndarray], user: np.ndarray, target: np.ndarray, label: np.ndarray) -> None:
    sizes = {"item": CATEGORIES * ITEMS_OF_EACH + 1, "category": CATEGORIES + 1}
    features = {"label": Feature("label", "bool")}
    for name, size in sizes.items():
        for ending in ("", "_history"):
            features[name + ending] = Feature(name + ending, "int16", size, dimensions=(MOST,) if ending else None)
    channels = {"label": ("label",), "target_item": ("item", "category"),
                "history": ("item_history", "category_history")}

    def save(name: str, values: np.ndarray, dtype: str) -> str:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        values.astype(dtype).tofile(folder / name)
        return name

    def items(categories: np.ndarray) -> np.ndarray:
        return 1 + categories * ITEMS_OF_EACH + dice.integers(0, ITEMS_OF_EACH, len(categories))

    log = (save("events/offsets.bin", offsets, "int64"), save("events/item.bin", items(category), "int16"),
           save("events/category.bin", 1 + category, "int16"))
    chunks = {}
    for mapping, rows in mappings.items():
        columns = {"label": (label, "bool"), "item": (items(target), "int16"), "category": (1 + target, "int16")}
        chunks[mapping] = tuple(Chunk("split_binary", (name,), (save(f"{mapping}/{name}.bin", values[rows], dtype),))
                                for name, (values, dtype) in columns.items())
        users = save(f"{mapping}/user.bin", user[rows], "int32")
        position = save(f"{mapping}/position.bin", np.diff(offsets)[user[rows]], "int32")
        chunks[mapping] += (Chunk("events", channels["history"], (users, position, *log)),)
    FeatureSpec(features, chunks, channels, folder=folder).save(folder)


def test_auc(folder: Path, model: str, seed: int) -> float:
    with tempfile.TemporaryDirectory() as runs:
        run = json.loads(clickwise("train", "tiny/din", f"data={{path: {folder}}}", model, *COMMON,
                                   f"train.seed={seed}", "--out", runs, "--json"))
    return run["mappings"]["test"]["auc"]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in (BEST, *RIVALS)}
    seconds: dict[str, list[float]] = {name: [] for name in found}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(options.seeds):
            folder = Path(temporary, str(seed))
            for name in found:
                started = time.perf_counter()
                found[name].append(write_set(folder, seed) if name == BEST else test_auc(folder, RIVALS[name], seed))
                seconds[name].append(time.perf_counter() - started)
                print(f"measured: seed {seed}, {name}: {found[name][-1]:.4f}", file=sys.stderr, flush=True)
    rows = [{"model": name, "auc": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0,
             "by seed": [round(value, 5) for value in values], "seconds": statistics.median(seconds[name])}
            for name, values in found.items()]
    finish("long_histories", rows, options, columns=["model", "auc", "std", "seconds"], users=USERS,
           events=[LEAST, MOST], target="SIM ≥ DIN and DIEN on the latest events + 0.2")
    recent = max(row["auc"] for row in rows if "latest" in row["model"])
    return int(min(row["auc"] for row in rows if "SIM" in row["model"]) < recent + 0.2)


if __name__ == "__main__":
    sys.exit(main())
