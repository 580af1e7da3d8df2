"""KuaiRand's histories: what a user watched before the log, and clicked in it, as a log of events beside the columns.

An event is a video that the user chose. Beside each click of the log lies what the user was shown and did not click,
the latest such impression before it; where there is none, a video drawn by hash.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from clickwise.errors import PrepareError
from clickwise.feature_spec import TIME_GAP, Chunk, Feature, FeatureSpec, narrowest_id_dtype
from clickwise.files import save_array
from clickwise.prepare import steps
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.kuairand.log import LABEL, first_tag
from clickwise.prepare.named_columns import parquet_schema
from clickwise.prepare.section import Section
from clickwise.prepare.vocabularies import store_vocabulary
from clickwise.progress import Progress
from clickwise.recipe import require

SOURCES, ITEMS = ("watched", "clicked", "shown"), ("video", "tag", "author")
OUTCOME, SHOWN, CLICKED = "outcome", 1, 2  # a feature of events of the log, and its ids: passed over; chosen
USER, POSITION, TIME = "history_user", "history_position", "history_time"  # columns: positions in the log
LOG_COLUMNS = (USER, POSITION, TIME)
GAP, MINUTE, GAPS = "minutes_ago", 60_000, 18  # ms; ids of time gaps, the last for all beyond 2^15 minutes
WATCH_COLUMNS = {"user_id": pa.types.is_integer, "last_time_ms": pa.types.is_integer, "watch_seq": pa.types.is_nested}


@dataclass(frozen=True, kw_only=True)
class HistoryConfig(Section):
    """The section `dataset.history`.

    sources          watched: the videos watched before the log · clicked: those clicked in the log before the
                     impression, strictly earlier · shown: those that were shown and not clicked too, and a further
                     feature of the history that tells them apart (outcome). With `count_until: training` none from
                     the first test day on
    watched          the files of the first, in `folder`: Parquet with user_id, watch_seq (a list, oldest first) and
                     last_time_ms, which is taken for the time of all of them
    items            what a model sees of a video, out of video, tag (the first one) and author
    length           events in the window of a history
    frequency_limit  a video, tag or author keeps an id of its own if it occurs so often in the training rows and the
                     watched videos; an event without one is no event
    time_gap         a further feature of the history: minutes between event and impression, by doubling
    """

    sources: list[str] = field(default=("watched", "clicked"))
    watched: list[str] = field(default=("watch_history_*",))
    items: list[str] = field(default=("video", "tag"))
    length: int = 50
    frequency_limit: int = 1
    time_gap: bool = True

    def __post_init__(self) -> None:
        for key, known in (("sources", SOURCES), ("items", ITEMS)):
            names = getattr(self, key)
            require(bool(names) and set(names) <= set(known) and len(set(names)) == len(names), key, found=names,
                    expected=f"some of {', '.join(known)}, each once")
        require(self.items[0] == "video", "items", found=self.items, expected="video first: it tells an event")
        self.require_at_least(1, "length")
        self.require_at_least(0, "frequency_limit")
        require("watched" not in self.sources or bool(self.watched), "watched", found=self.watched,
                expected="at least one file")

    @property
    def needs(self) -> tuple[str, ...]:
        """Attributes of videos that must be read for it."""
        return tuple({"tag": "tags", "author": "author_id"}[name] for name in self.items if name != "video")

    @property
    def columns(self) -> tuple[str, ...]:
        """What is written of every impression to find its position in the log."""
        return (USER, POSITION, *([TIME] if self.time_gap else []))


def store_history(folder: PreparationFolder, config: HistoryConfig, watched: Sequence[Path], *, train: tuple[int, int],
                  clicked_until: int | None) -> dict:
    """Stores `history_events` (in the order of the log), `history_users`, `history_positions` (the columns of
    every impression) and `video_ids`; cardinalities of `items` and what was counted.

    `train` are the training rows of the impressions; clicks of days after `clicked_until` are no events.
    """
    engine = folder.engine
    impressions = engine.numbered(engine.table("impressions"))
    with Progress("putting histories in order", total=4, unit="steps") as bar:
        parts = []
        if "watched" in config.sources:
            table = engine.materialise(_watched(engine.read_parquet(_checked(watched))), "watched")
            parts.append(table.mutate(outcome=ibis.literal(CLICKED, "int8"), other=ibis.null("int64")))
        if {"clicked", "shown"} & set(config.sources):
            parts.append(_of_the_log(impressions, clicked_until, shown="shown" in config.sources))
        events = parts[0] if len(parts) == 1 else ibis.union(*parts)
        events = engine.materialise(events.order_by("user_id", "time", "position"), "history_events")
        bar.advance(1)
        users = ibis.union(impressions.select("user_id"), events.select("user_id")).distinct()
        counts = events.group_by("user_id").aggregate(count=events.count())
        users = steps.look_up(users, counts, {"user_id": "user_id"}, {"count": "count"})
        number = (ibis.row_number().over(order_by=users.user_id) + 1).cast("int32")
        users = engine.materialise(users.select("user_id", number=number, count=ibis.coalesce(users["count"], 0)),
                                   "history_users")
        bar.advance(1)
        positions = engine.materialise(_positions(impressions, events, users), "history_positions")
        bar.advance(1)
        fitted = impressions.filter((impressions["row"] >= train[0]) & (impressions["row"] < train[1]))
        seen = fitted.select("video_id")
        if "watched" in config.sources:
            seen = seen.union(engine.table("watched").select("video_id"))
        sizes = _store_video_ids(folder, config, seen)
        bar.advance(1)
    found = engine.row(positions.aggregate(none=positions.count(where=positions[POSITION] == 0),
                                           mean=positions[POSITION].cast("float64").mean()))
    return {"sizes": sizes, "events": engine.count(events), "impressions_without_history": found["none"],
            "mean_history": round(found["mean"], 2)}


def _checked(files: Sequence[Path]) -> Sequence[Path]:
    """The files, after a look at their columns."""
    for file in files:
        schema = parquet_schema(file, expected="Parquet with " + ", ".join(WATCH_COLUMNS))
        for name, fits in WATCH_COLUMNS.items():
            if name not in schema.names or not fits(schema.field(name).type):
                found = f"{name} as {schema.field(name).type}" if name in schema.names else f"no column {name!r}"
                raise PrepareError(file, found=found, expected="user_id and last_time_ms as integers, watch_seq as a "
                                   "list of integers", do="or leave watched out of dataset.history.sources")
    return files


def _watched(table: ir.Table) -> ir.Table:
    events = table.unnest("watch_seq", offset="position")
    events = events.filter(events.watch_seq.notnull())
    return events.select(user_id=events.user_id.cast("int64"), time=events.last_time_ms.cast("int64"),
                         position=events.position.cast("int64"), video_id=events.watch_seq.cast("int64"))


def _of_the_log(impressions: ir.Table, until: int | None, *, shown: bool) -> ir.Table:
    """Every click (and what was `shown` without one), with the video of the user's latest impression before it that was
    not clicked."""
    passed = (impressions[LABEL] == 0).ifelse(impressions["row"], ibis.null("int64"))
    earlier = ibis.window(group_by="user_id", order_by="row", preceding=(None, 1))
    events = impressions.mutate(passed=passed.max().over(earlier))
    if not shown:
        events = events.filter(events[LABEL] == 1)
    if until is not None:
        events = events.filter(events.date <= until)
    joined = steps.look_up(events, impressions, {"passed": "row"}, {"other": "video_id"})
    return joined.select("user_id", time=joined.time_ms, position=joined["row"], video_id=joined.video_id,
                         outcome=(joined[LABEL] == 1).ifelse(CLICKED, SHOWN).cast("int8"), other=joined.other)


def _positions(impressions: ir.Table, events: ir.Table, users: ir.Table) -> ir.Table:
    """`row`, the user's number, how many events came strictly before the impression, and its time."""
    moments = ibis.union(
        events.select("user_id", "time", n=ibis.literal(1, "int64")),
        impressions.select("user_id", time=impressions.time_ms, n=ibis.literal(0, "int64")))
    moments = moments.group_by(["user_id", "time"]).aggregate(n=steps.sum_as_int64(moments.n.sum()))
    so_far = moments.n.sum().over(ibis.cumulative_window(group_by="user_id", order_by="time"))
    moments = moments.mutate(before=steps.sum_as_int64(so_far) - moments.n)
    joined = steps.look_up(impressions, moments, {"user_id": "user_id", "time_ms": "time"}, {"before": "before"})
    joined = steps.look_up(joined, users, {"user_id": "user_id"}, {"number": "number"})
    return joined.select("row", **{USER: joined.number, POSITION: joined.before.cast("int32"), TIME: joined.time_ms})


def _store_video_ids(folder: PreparationFolder, config: HistoryConfig, seen: ir.Table) -> dict[str, int]:
    """Stores `video_ids`: of every video the ids of `items`; writes the vocabularies. Cardinality by item feature."""
    engine = folder.engine
    videos = engine.table("raw_videos")
    known = videos.select(
        "video_id",
        tag=ibis.coalesce(first_tag(videos.tag), "") if "tag" in config.items else ibis.literal(""),
        author=ibis.coalesce(videos.author_id, -1) if "author" in config.items else ibis.literal(-1))
    counted = seen.group_by("video_id").aggregate(n=seen.count())
    every = ibis.union(engine.table("impressions").select("video_id"),
                       engine.table("history_events").select("video_id")).distinct()
    table = steps.look_up(every, known, {"video_id": "video_id"}, {"tag": "tag", "author": "author"})
    table = steps.look_up(table, counted, {"video_id": "video_id"}, {"n": "n"})
    table = engine.materialise(table.select(
        key=table.video_id, video=table.video_id, tag=ibis.coalesce(table.tag, ""),
        author=ibis.coalesce(table.author, -1), n=ibis.coalesce(table.n, 0)), "videos_seen")
    sizes, encoded = {}, table.select("key", *config.items)
    for name in config.items:
        sizes[name] = store_vocabulary(folder, name, table, config.frequency_limit, weight="n",
                                       prefix="vocabulary_history_")
        encoded = steps.encode(encoded, name, engine.table(f"vocabulary_history_{name}"))
    engine.materialise(encoded, "video_ids")
    return sizes


def target_features(config: HistoryConfig, sizes: Mapping[str, int]) -> dict[str, Feature]:
    return {name: Feature(name, narrowest_id_dtype(sizes[name]), sizes[name]) for name in config.items}


def write_history(folder: PreparationFolder, config: HistoryConfig, spec: FeatureSpec,
                  sizes: Mapping[str, int]) -> FeatureSpec:
    """Writes the log beside the mappings; the spec with the channels history and negative_history, which is saved."""
    features = dict(spec.features)
    channels = {"history": tuple(f"{name}_history" for name in config.items),
                "negative_history": tuple(f"{name}_negatives" for name in config.items)}
    for ending in ("history", "negatives"):
        features |= {f"{name}_{ending}": dataclasses.replace(feature, name=f"{name}_{ending}",
                                                             dimensions=(config.length,))
                     for name, feature in target_features(config, sizes).items()}
    if "shown" in config.sources:
        channels["history"] += (OUTCOME,)
        features[OUTCOME] = Feature(OUTCOME, "int8", CLICKED + 1, dimensions=(config.length,))
    if config.time_gap:
        channels["history"] += (GAP,)
        features[GAP] = Feature(GAP, "int8", GAPS, dimensions=(config.length,), extra={TIME_GAP: MINUTE})
    held = (*channels["history"], *channels["negative_history"])
    folder.stage("history written", lambda: _write_log(folder, config, features, sizes))
    log = ("history/offsets.bin", *(f"history/{name}.bin" for name in held))
    mappings = {}
    for mapping, chunks in spec.mappings.items():
        file_of = {chunk.features[0]: chunk.files[0] for chunk in chunks}
        position, *time = (file_of[name] for name in config.columns if name != USER)
        files = (file_of[USER], position, *log, *time)
        mappings[mapping] = (*chunks, Chunk("events", held, files, {"negatives": "stored"}))
    spec = FeatureSpec(features, mappings, {**spec.channels, **channels}, folder=folder.dataset)
    spec.save(folder.dataset)
    return spec


def _write_log(folder: PreparationFolder, config: HistoryConfig, features: Mapping[str, Feature],
               sizes: Mapping[str, int]) -> None:
    engine, log = folder.engine, folder.dataset / "history"
    log.mkdir(exist_ok=True)
    users = engine.table("history_users")
    counts = np.zeros(engine.count(users) + 1, np.int64)
    for batch in engine.batches(users.select("number", "count")):
        counts[batch.column(0).to_numpy()] = batch.column(1).to_numpy()
    save_array(log / "offsets.bin", np.concatenate([[0], np.cumsum(counts)]).astype("<i8"))
    # What is known of a video follows from its id: a table in memory spares a join.
    of_video = {name: np.zeros(sizes["video"], features[f"{name}_history"].dtype) for name in config.items}
    for batch in engine.batches(engine.table("video_ids").select(*config.items)):
        video = batch.column(0).to_numpy()
        for index, name in enumerate(config.items):
            of_video[name][video] = batch.column(index).to_numpy()
    for values in of_video.values():
        values[0] = 0
    events = engine.numbered(engine.table("history_events"))
    video_ids, total = engine.table("video_ids"), int(counts.sum())
    for kind, column in (("history", "video_id"), ("negatives", "other")):
        joined = steps.look_up(events, video_ids, {column: "key"}, {"video": "video"})
        table = joined.select("row", video=ibis.coalesce(joined.video, 0))
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(Progress(f"writing {kind}", total=total, unit="events"))
            files = {name: stack.enter_context(folder.scatter_file(
                log / f"{name}_{kind}.bin", total, values.dtype, buffer_bytes=folder.buffer_bytes // len(of_video)))
                for name, values in of_video.items()}
            for batch in engine.batches(table):
                row, video = batch.column(0).to_numpy(), batch.column(1).to_numpy()
                if kind == "negatives" and sizes["video"] > 1:
                    video = np.where(video == 0, _drawn(row, sizes["video"]), video)
                for name, file in files.items():
                    file.put(row, of_video[name][video])
                bar.advance(len(row))
    for name, column, dtype in ((GAP, "time", "int64"), (OUTCOME, "outcome", "int8")):
        if name in features:
            with folder.scatter_file(log / f"{name}.bin", total, dtype) as file:
                file.put_all(engine.batches(events.select("row", column)))


def _drawn(row: np.ndarray, videos: int) -> np.ndarray:
    """A video, 1 … videos−1, by a hash of the row."""
    return 1 + (row.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(33)).astype(
        np.int64) % (videos - 1)
