"""Events with ids -> the log on disk, the samples of every mapping as places in it, and their Feature Spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pyarrow import parquet

from clickwise.errors import PrepareError
from clickwise.feature_spec import TIME_GAP, Chunk, Feature, FeatureSpec, narrowest_id_dtype
from clickwise.prepare.engine import Engine
from clickwise.prepare.output import Output
from clickwise.prepare.placed import PlacedFile, Places
from clickwise.progress import Progress

if TYPE_CHECKING:
    from clickwise.prepare.amazon_books.config import AmazonBooksConfig

DAY, GAPS = 86400, 16  # seconds; ids of time gaps, the last for all beyond 2^13 days
USERS_AT_ONCE = 1 << 14
LOG = {"item": "item_history", "category": "category_history"}  # feature of the target -> of the history
PLACE = {"user": np.dtype("int32"), "position": np.dtype("int32"), "label": np.dtype("bool")}


def write_log(output: Output, config: AmazonBooksConfig, cardinalities: Mapping[str, int],
              where: str) -> dict[str, int]:
    """Writes events/, a folder for every mapping and feature_spec.yaml; rows by mapping."""
    folder, engine = output.dataset, output.engine()
    features, channels = _features(config, cardinalities)
    counts = _write_events(output, engine, config, features)
    rows: dict[str, int] = {}
    for mapping in ("train", *(["validation"] if config.validation else []), "test"):
        rows[mapping] = _write_samples(output, config, mapping, counts)
    for mapping, count in rows.items():
        if not count:
            raise PrepareError(f"{where}.min_history", found=f"no sample for {mapping}",
                               expected=f"users with at least {config.min_history + 1 + config.held_out} events",
                               do="a smaller min_history, validation: false, or more reviews")
    held = tuple(name for channel in ("target_item", "history", "negative_history") for name in channels[channel])
    log = ("events/offsets.bin", *(f"events/{name}.bin" for name in [*LOG, *(["time"] if config.time_gap else [])]))
    mappings = {mapping: (Chunk("split_binary", ("label",), (f"{mapping}/label.bin",)),
                          Chunk("split_binary", ("user_id",), (f"{mapping}/user_id.bin",)),
                          Chunk("events", held, (f"{mapping}/user_id.bin", f"{mapping}/position.bin", *log),
                                {"negatives": config.negatives}))
                for mapping in rows}
    FeatureSpec(features, mappings, channels, folder=folder).save(folder)
    return rows


def _features(config: AmazonBooksConfig, sizes: Mapping[str, int]) -> tuple[dict[str, Feature], dict[str, tuple]]:
    features = {"label": Feature("label", "bool"), "user_id": Feature("user_id", "int32", sizes["user_id"])}
    channels = {"label": ("label",), "user": ("user_id",), "display": ("user_id",), "target_item": tuple(LOG)}
    window = (config.history_length,)
    for channel, ending in (("target_item", ""), ("history", "_history"), ("negative_history", "_negatives")):
        channels[channel] = tuple(name + ending for name in LOG)
        features |= {name + ending: Feature(name + ending, narrowest_id_dtype(sizes[name]), sizes[name],
                                            dimensions=window if ending else None) for name in LOG}
    if config.time_gap:
        features["days_ago"] = Feature("days_ago", "int8", GAPS, dimensions=window, extra={TIME_GAP: DAY})
        channels["history"] += ("days_ago",)
    return features, channels


def _write_events(output: Output, engine: Engine, config: AmazonBooksConfig,
                  features: Mapping[str, Feature]) -> np.ndarray:
    """Writes the log; events of every user by id, int64 [users + 1] (user 0 is nobody)."""
    users = parquet.read_table(output.preparation / "vocabularies" / "user_id.parquet", columns=["count"])
    counts = np.append(0, users["count"].to_numpy()).astype(np.int64)
    if output.done("events written"):
        return counts
    folder, total = output.dataset / "events", int(counts.sum())
    folder.mkdir(exist_ok=True)
    with open(folder / "offsets.bin", "wb") as file:
        np.concatenate([[0], np.cumsum(counts)]).astype("<i8").tofile(file)
    ids = engine.table("item_ids")
    events = engine.numbered(engine.table("events"))
    joined = events.inner_join(ids, events.item == ids.item)
    kinds = {name: np.dtype(features[history].dtype) for name, history in LOG.items()}
    columns = {name: joined.select("row", value=joined[f"{name}_id"]) for name in LOG}
    if config.time_gap:
        kinds["time"], columns["time"] = np.dtype("int64"), events.select("row", value=events.time)
    with Progress("writing events", total=total * len(columns), unit="values") as bar:
        for name, table in columns.items():
            with PlacedFile(folder / f"{name}.bin", total, kinds[name], 1, output.buffer_bytes,
                            output.work / "spill") as file:
                for batch in engine.batches(table):
                    file.put(batch.column(0).to_numpy(), batch.column(1).to_numpy())
                    bar.advance(len(batch), name)
    output.mark("events written")
    return counts


def _write_samples(output: Output, config: AmazonBooksConfig, mapping: str, counts: np.ndarray) -> int:
    """Writes user, position and label of the samples of a mapping; how many there are."""
    if output.done(f"{mapping} written"):
        return output.facts(f"{mapping} written")
    first, end = sample_range(mapping, counts, config)
    each = 1 + config.negatives_per_positive
    rows = int(np.maximum(end - first, 0).sum()) * each
    folder: Path = output.dataset / mapping
    folder.mkdir(exist_ok=True)
    seed = config.seed if config.shuffle and mapping == "train" else None
    spill = output.work / "spill"
    places = Places(rows, seed, spill / f"{mapping}.places", output.buffer_bytes)
    names = {"user": "user_id", "position": "position", "label": "label"}
    with Progress(f"writing {mapping}", total=rows) as bar:
        for key, dtype in PLACE.items():  # one after another, so that one file is in memory at a time
            row = 0
            with PlacedFile(folder / f"{names[key]}.bin", rows, dtype, 1, output.buffer_bytes, spill) as file:
                for part in samples(first, end, each):
                    values = part[key]
                    file.put(places(np.arange(row, row + len(values))), values)
                    row += len(values)
        bar.advance(rows)
    places.remove()
    output.mark(f"{mapping} written", rows)
    return rows


def sample_range(mapping: str, counts: np.ndarray, config: AmazonBooksConfig) -> tuple[np.ndarray, np.ndarray]:
    """Of every user the places first … end−1 of the events that are targets of the mapping: the last event in test,
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
        yield {"user": np.repeat(user, each), "position": np.repeat(position, each),
               "label": np.arange(len(user) * each) % each == 0}
