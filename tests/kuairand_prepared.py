"""A tiny KuaiRand, prepared: its log with repeats, the part that states go on with, and rows as a server gets them."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from kuairand_rows import attributes, in_order, key, random_log, write_table

from clickwise.prepare import run as prepare

TEST_FROM = 20220501
RAW = ("user_id", "video_id", "date", "hourmin", "time_ms", "tab", "duration_ms")
NUMERICAL = ["follow_user_num", "duration", "aspect_ratio", "user_impressions", "video_tab_click_rate",
             "user_tag_impressions", "author_click_rate", "seconds_since_last", "earlier_today"]
CATEGORICAL = ["hour", "day_of_week", "user_active_degree", "author_id", "music_type", "tags"]
CASES = {"frozen": {"moments_until": "training"}, "days": {"count_until": "earlier_days"},
         "history": {"count_until": "earlier_moments", "history": {
             "sources": ["watched", "shown"], "items": ["video", "tag", "author"], "length": 6}},
         "clicks": {"count_until": "earlier_moments", "history": {
             "sources": ["watched", "clicked"], "items": ["video"], "length": 3, "time_gap": True}}}


def log() -> list[dict]:
    """A log with repeats; of the first test day some rows are logged with moments of the day before."""
    rows, dice = random_log(150, seed=3), random.Random(5)
    for row in rows:
        if row["date"] == TEST_FROM and dice.random() < 0.3:
            row["time_ms"] = 2_000_000_000 + 1_000_000 * dice.randrange(40, 60)
    rows = list({key(row): row for row in rows}.values())
    repeats = [{**row, "is_click": 1 - row["is_click"], "hourmin": row["hourmin"] + 100}
               for row in dice.sample(rows, 15)]
    return sorted([*rows, *repeats], key=lambda row: row["time_ms"])


LOG = log()
EVENTS = list({key(row): row for row in reversed(LOG)}.values())  # the first row of each
TEST = in_order(EVENTS, TEST_FROM, 99999999)
BEGINS = min(row["time_ms"] for row in TEST)
TO_REPLAY = [row for row in LOG if row["time_ms"] >= BEGINS]


def table_of(rows, columns=RAW):
    return pa.table({name: [row[name] for row in rows] for name in columns})


def write_raw(folder: Path) -> Path:
    """Writes the raw files."""
    users, videos = attributes()
    write_table(folder / "log_standard_a.csv", LOG)
    write_table(folder / "user_features_a.csv", users)
    write_table(folder / "video_features_basic_a.csv", videos)
    watched = {0: [105, 103, 105, 999], 1: [], 2: [100], 3: [111, 102], 50: [101]}
    pq.write_table(pa.table({"user_id": list(watched), "last_time_ms": [-1] * len(watched),
                             "watch_seq": pa.array(list(watched.values()), pa.list_(pa.int64()))}),
                   folder / "watch_history_a.parquet")
    return folder


def prepared(raw: Path, case: str, out: Path, **of_history: object) -> Path:
    """Writes the columns of a case into `out`/`case`, and gives that folder."""
    section = {"name": "kuairand", "folder": str(raw), "frequency_limit": 1, "numerical": NUMERICAL,
               "categorical": CATEGORICAL, "rate_weight": 4.0, **CASES[case]}
    if of_history:
        section["history"] = {**section["history"], **of_history}
    return prepare({"dataset": section, "engine": {"threads": 1}, "out": str(out / case)}, "test")
