"""Rows whose target is drawn, as raw rows: what a loader draws for a held-out mapping, each item by its own name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from clickwise.feature_spec import FeatureSpec
from clickwise.feature_spec.draws import Draws
from clickwise.prepare.folder import PreparationFolder

ROWS = "rows"  # the folder of these files in preparation/
COLUMNS = ("reviewerID", "asin", "unixReviewTime", "position", "label")
BYTES_PER_EVENT = 80  # of what the draw holds in memory at its peak
PART = 1 << 16  # rows drawn at a time


def write_raw_rows(folder: PreparationFolder, spec: FeatureSpec, mapping: str, rule: str) -> int | None:
    """Writes preparation/rows/<mapping>.parquet: reviewerID, asin, unixReviewTime, position (how many of the user's
    events came before) and label of every row, in the order of the mapping, and returns how many. Where the label is 0,
    the item is the one that every evaluation draws for that row, at the time of the event beside which it is drawn.

    None where the log is too large for the memory that the recipe allows: then there is no file.
    """
    offsets = np.fromfile(spec.folder / "events/offsets.bin", np.int64)
    if not fits_in_memory(folder, int(offsets[-1])):
        return None
    user, position = (np.fromfile(spec.folder / f"{mapping}/{name}.bin", np.int32) for name in ("user_id", "position"))
    label = np.fromfile(spec.folder / f"{mapping}/label.bin", bool)
    item = np.fromfile(spec.folder / "events/item.bin", spec.features["item"].dtype)
    came, drawn = offsets[user] + position, drawn_events(offsets, item, user, position, rule)
    rows = pa.table({"row": np.arange(len(label)), "target": np.where(label, came, drawn), "came": came,
                     "position": position, "label": label.astype(np.int8)})
    found = folder.work / f"{mapping}_rows.parquet"
    parquet.write_table(rows, found)
    engine = folder.engine
    rows, events, users = engine.read_parquet([found]), engine.numbered(engine.table("events")), engine.table("users")
    targets = events.select(target=events.row, asin=events.item)
    moments = events.select(came=events.row, user_id=events.user_id, unixReviewTime=events.time)
    people = users.select(user_id=users.id, reviewerID=users["value"])
    raw = rows.inner_join(targets, "target").inner_join(moments, "came").inner_join(people, "user_id")
    path = folder.preparation / ROWS / f"{mapping}.parquet"
    path.parent.mkdir(exist_ok=True)
    engine.write_parquet(raw.order_by("row").select(*COLUMNS), path)
    found.unlink()
    return len(label)


def fits_in_memory(folder: PreparationFolder, events: int) -> bool:
    """Whether a log of so many events may be held in memory whole, for a moment."""
    return events * BYTES_PER_EVENT <= folder.engine_config.memory_bytes // 4


def drawn_events(offsets: np.ndarray, item: np.ndarray, user: np.ndarray, position: np.ndarray,
                 rule: str) -> np.ndarray:
    """The event whose item is drawn for each row in evaluation, int64 [rows]: loaders there have seed and epoch 0."""
    reach = np.zeros(len(offsets) - 1, np.int64)
    np.maximum.at(reach, user, position + 1)  # nothing later is known to any row of the mapping
    draws = Draws(offsets, [item, np.arange(offsets[-1])], reach, rule=rule, seed=0, most=1)
    row = np.arange(len(user))
    parts = (slice(start, start + PART) for start in range(0, len(user), PART))
    return np.concatenate([draws.draw_targets(0, user[part], position[part], row[part])[1] for part in parts])
