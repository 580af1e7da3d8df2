"""Events with ids -> the log on disk, the samples of every mapping as positions in it, and their Feature Spec."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pyarrow import parquet

from clickwise.errors import PrepareError
from clickwise.feature_spec import LIST_OF, TIME_GAP, Chunk, Feature, FeatureSpec, narrowest_id_dtype
from clickwise.files import save_array
from clickwise.prepare.amazon_books.drawn import write_raw_rows
from clickwise.prepare.amazon_books.encoding import write_encoding
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.scatter import RowOrder
from clickwise.progress import Progress

if TYPE_CHECKING:
    from clickwise.prepare.amazon_books.config import AmazonBooksConfig

DAY, GAPS = 86400, 16  # seconds; ids of time gaps, the last for all beyond 2^13 days
USERS_AT_ONCE = 1 << 14
SAMPLE = {"user_id": "int32", "position": "int32", "label": "bool"}  # files of a mapping


def write_log(folder: PreparationFolder, config: AmazonBooksConfig, cardinalities: Mapping[str, int],
              where: str) -> dict[str, Any]:
    """Writes events/, a folder for every mapping, feature_spec.yaml and the raw rows of held-out mappings. By mapping:
    `rows`, `rows_without_an_id` (whose target has none), and `raw_rows`, how many raw rows were written. And whether it
    `has_encoding`."""
    features, channels = _features(config, cardinalities)
    users = parquet.read_table(folder.preparation / "vocabularies" / "user_id.parquet", columns=["count"])
    counts = np.append(0, users["count"].to_numpy()).astype(np.int64)  # events by user id; user 0 is nobody
    folder.stage("events written", lambda: _write_events(folder, config, features, counts))
    item = functools.partial(np.memmap, folder.dataset / "events/item.bin", features["item"].dtype, "r")
    written = {mapping: folder.stage(f"{mapping} written", functools.partial(
        _write_samples, folder, config, mapping, counts, item))
        for mapping in ("train", *(["validation"] if config.validation else []), "test")}
    rows = {mapping: found["rows"] for mapping, found in written.items()}
    for mapping, count in rows.items():
        if not count:
            raise PrepareError(f"{where}.min_history", found=f"no sample for {mapping}",
                               expected=f"users with at least {config.min_history + 1 + config.held_out} events",
                               do="a smaller min_history, validation: false, or more reviews")
    held = tuple(name for channel in ("target_item", "history", "negative_history") for name in channels[channel])
    log = ("events/offsets.bin", *(f"events/{name}.bin" for name in
                                   ["item", *config.category_names, *(["time"] if config.time_gap else [])]))
    mappings = {mapping: (Chunk("split_binary", ("label",), (f"{mapping}/label.bin",)),
                          Chunk("split_binary", ("user_id",), (f"{mapping}/user_id.bin",)),
                          Chunk("events", held, (f"{mapping}/user_id.bin", f"{mapping}/position.bin", *log),
                                {"negatives": config.negatives}))
                for mapping in rows}
    spec = FeatureSpec(features, mappings, channels, folder=folder.dataset)
    spec.save(folder.dataset)
    raw_rows = {mapping: folder.stage(f"raw rows of {mapping} written", functools.partial(
        write_raw_rows, folder, spec, mapping, config.negatives)) for mapping in rows if mapping != "train"}
    has_encoding = folder.stage("encoding", lambda: write_encoding(folder, spec))
    return {"rows": rows, "raw_rows": raw_rows, "has_encoding": has_encoding,
            "rows_without_an_id": {mapping: found["without_an_id"] for mapping, found in written.items()}}


def _features(config: AmazonBooksConfig, sizes: Mapping[str, int]) -> tuple[dict[str, Feature], dict[str, tuple]]:
    features = {"label": Feature("label", "bool"), "user_id": Feature("user_id", "int32", sizes["user_id"])}
    channels, names = {"label": ("label",), "user": ("user_id",), "display": ("user_id",)}, config.category_names
    window = (config.history_length,)
    for channel, ending in (("target_item", ""), ("history", "_history"), ("negative_history", "_negatives")):
        channels[channel] = tuple(name + ending for name in ("item", *names))
        for name in ("item", *names):
            size = sizes["item" if name == "item" else "category"]
            features[name + ending] = Feature(
                name + ending, narrowest_id_dtype(size), size, dimensions=window if ending else None,
                extra={LIST_OF: f"category{ending}"} if name in names[1:] else {})
    if config.time_gap:
        features["days_ago"] = Feature("days_ago", "int8", GAPS, dimensions=window, extra={TIME_GAP: DAY})
        channels["history"] += ("days_ago",)
    return features, channels


def _write_events(folder: PreparationFolder, config: AmazonBooksConfig, features: Mapping[str, Feature],
                  counts: np.ndarray) -> None:
    """Writes the log of `counts` events of every user."""
    engine, log, total = folder.engine, folder.dataset / "events", int(counts.sum())
    log.mkdir(exist_ok=True)
    save_array(log / "offsets.bin", np.concatenate([[0], np.cumsum(counts)]).astype("<i8"))
    ids = engine.table("item_ids")
    events = engine.numbered(engine.table("events"))
    joined = events.inner_join(ids, events.item == ids.item)
    columns = {name: (features[name].dtype, joined.select("row", joined[f"{name}_id"]))
               for name in ("item", *config.category_names)}
    if config.time_gap:
        columns["time"] = "int64", events.select("row", "time")
    with Progress("writing events", total=total * len(columns), unit="values") as bar:
        for name, (dtype, table) in columns.items():
            with folder.scatter_file(log / f"{name}.bin", total, dtype) as file:
                file.put_all(engine.batches(table), bar.advance)


def _write_samples(folder: PreparationFolder, config: AmazonBooksConfig, mapping: str, counts: np.ndarray,
                   open_items: Callable[[], np.ndarray]) -> dict[str, int]:
    """Writes user, position and label of the samples of a mapping; how many `rows` they are, and how many of them are
    `without_an_id`, the targets that are drawn beside one without an id among them."""
    first, end = sample_range(mapping, counts, config)
    each = 1 + config.negatives_per_positive
    rows, unknown = int(np.maximum(end - first, 0).sum()) * each, 0
    if rows:
        start, item = np.cumsum(counts) - counts, open_items()
        for part in samples(first, end, 1):
            unknown += each * int(np.count_nonzero(item[start[part["user_id"]] + part["position"]] == 0))
    (folder.dataset / mapping).mkdir(exist_ok=True)
    seed = config.seed if config.shuffle and mapping == "train" else None
    order = RowOrder(rows, seed, folder.work / "spill" / f"{mapping}.order", folder.buffer_bytes)
    with Progress(f"writing {mapping}", total=rows * len(SAMPLE), unit="values") as bar:
        for name, dtype in SAMPLE.items():  # one after another, so that one file is in memory at a time
            row = 0
            with folder.scatter_file(folder.dataset / mapping / f"{name}.bin", rows, dtype) as file:
                for part in samples(first, end, each):
                    file.put(order(np.arange(row, row + len(part[name]))), part[name])
                    row += len(part[name])
            bar.advance(rows, name)
    order.remove()
    return {"rows": rows, "without_an_id": unknown}


def sample_range(mapping: str, counts: np.ndarray, config: AmazonBooksConfig) -> tuple[np.ndarray, np.ndarray]:
    """Of every user the positions first … end−1 of the events that are targets of the mapping: the last event in test,
    the last but one in validation, those before in train; each only with `min_history` events before it."""
    last = {"test": 0, "validation": 1}
    end = counts - last.get(mapping, config.held_out)
    first = np.full_like(end, config.min_history) if mapping == "train" else np.maximum(end - 1, config.min_history)
    return first, end


def samples(first: np.ndarray, end: np.ndarray, each: int) -> Iterator[dict[str, np.ndarray]]:
    """User, position and label of all samples in parts: `each` for every target, the first of them clicked."""
    number = np.maximum(end - first, 0)
    for start in range(0, len(number), USERS_AT_ONCE):
        part = number[start : start + USERS_AT_ONCE]
        user = np.repeat(np.arange(start, start + len(part)), part)
        position = np.arange(len(user)) - np.repeat(np.cumsum(part) - part, part) + first[user]
        yield {"user_id": np.repeat(user, each), "position": np.repeat(position, each),
               "label": np.arange(len(user) * each) % each == 0}
