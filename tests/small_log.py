"""A small dataset whose rows are positions in a log of events, on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clickwise.feature_spec import Chunk, Feature, FeatureSpec

ITEMS, CATEGORIES, LENGTH = 40, 7, 6


def category_of(item: np.ndarray) -> np.ndarray:
    return np.where(item == 0, 0, item % (CATEGORIES - 1) + 1)


def small_log(users: int, seed: int = 0, unknown: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, items and times: user 0 has no events, others 1 to 15; some items are 0 where `unknown`."""
    random = np.random.default_rng(seed)
    counts = np.append(0, random.integers(1, 16, users - 1))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype("int64")
    item = random.integers(0 if unknown else 1, ITEMS, offsets[-1]).astype("int32")
    time = np.concatenate([np.sort(random.integers(0, 500, count)) for count in counts]).astype("int64")
    return offsets, item, time


def write_log(folder: Path, *, users: int = 9, seed: int = 0, targets: bool = True, gaps: bool = True,
              stored_negatives: bool = False, unknown: bool = True) -> FeatureSpec:
    """Mappings train (two rows, one clicked, for each event but the first and last of a user) and test (the last)."""
    offsets, item, time = small_log(users, seed, unknown)
    features = {"label": Feature("label", "bool"), "user_id": Feature("user_id", "int32", users)}
    for name in ("item", "category"):
        for ending in ("", "_history", "_negatives"):
            dimensions = (LENGTH,) if ending else None
            features[name + ending] = Feature(name + ending, *(("int32", ITEMS) if name == "item" else
                                                               ("int8", CATEGORIES)), dimensions=dimensions)
    channels = {"label": ("label",), "user": ("user_id",), "target_item": ("item", "category"),
                "history": ("item_history", "category_history"),
                "negative_history": ("item_negatives", "category_negatives")}
    log = {"item_history": item, "category_history": category_of(item).astype("int8")}
    if gaps:
        features["gap"] = Feature("gap", "int8", 8, dimensions=(LENGTH,), extra={"time_gap": 10})
        channels["history"] += ("gap",)
        log["gap"] = time
    if stored_negatives:
        other = np.random.default_rng(seed + 1).integers(1, ITEMS, len(item)).astype("int32")
        log |= {"item_negatives": other, "category_negatives": category_of(other).astype("int8")}
    (folder / "events").mkdir(parents=True, exist_ok=True)
    offsets.tofile(folder / "events/offsets.bin")
    for name, values in log.items():
        values.tofile(folder / f"events/{name}.bin")
    mappings = {}
    held = [*channels["history"], *channels["negative_history"], *(channels["target_item"] if targets else ())]
    random = np.random.default_rng(seed + 2)
    for mapping in ("train", "test"):
        (folder / mapping).mkdir(exist_ok=True)
        counts = np.diff(offsets)
        samples = [(user, index) for user, count in enumerate(counts)
                  for index in (range(1, count - 1) if mapping == "train" else [count - 1] if count else [])]
        user, position = np.repeat(np.array(samples, "int32"), 2, axis=0).T
        user.tofile(folder / mapping / "user_id.bin")
        position.tofile(folder / mapping / "position.bin")
        (np.arange(len(user)) % 2 == 0).tofile(folder / mapping / "label.bin")
        chunks = [Chunk("split_binary", ("label",), (f"{mapping}/label.bin",)),
                  Chunk("split_binary", ("user_id",), (f"{mapping}/user_id.bin",))]
        if not targets:
            target = random.integers(1, ITEMS, len(user)).astype("int32")
            target.tofile(folder / mapping / "item.bin")
            category_of(target).astype("int8").tofile(folder / mapping / "category.bin")
            chunks += [Chunk("split_binary", (name,), (f"{mapping}/{name}.bin",)) for name in ("item", "category")]
        files = (f"{mapping}/user_id.bin", f"{mapping}/position.bin", "events/offsets.bin",
                 *(f"events/{name}.bin" for name in log))
        chunks.append(Chunk("events", tuple(held), files,
                            {"negatives": "stored" if stored_negatives else "popularity"}))
        mappings[mapping] = tuple(chunks)
    FeatureSpec(features, mappings, channels, {}, folder).save(folder)
    return FeatureSpec.load(folder)


def padded(values: list, length: int) -> list:
    """The last `length` values, zeros before them."""
    values = values[max(0, len(values) - length):]
    return [0] * (length - len(values)) + values
