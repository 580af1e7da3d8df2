"""A tiny KuaiRand for tests, and what its preparation should give, worked out row by row in plain Python."""

from __future__ import annotations

import csv
import gzip
import math
import random
from collections import Counter
from pathlib import Path

DAYS = (20220428, 20220429, 20220430, 20220501, 20220502)


def random_log(rows: int, seed: int = 0, users: int = 9, videos: int = 12) -> list[dict]:
    """Impressions in no order; some of a user fall on one moment, some videos and users have no attributes."""
    dice = random.Random(seed)
    log = []
    for row in range(rows):
        index = row % len(DAYS) if row < 3 * len(DAYS) else dice.randrange(len(DAYS))
        minute = dice.randrange(60)
        log.append({"user_id": dice.randrange(users), "video_id": 100 + dice.randrange(videos), "date": DAYS[index],
                    "hourmin": minute // 3 * 100, "time_ms": 1_000_000 * (1000 * index + minute),
                    "is_click": dice.randrange(2), "is_like": dice.randrange(2), "play_time_ms": dice.randrange(9000),
                    "duration_ms": dice.choice([0, 7000, 61_500]), "is_rand": 0, "tab": dice.choice([0, 1, 1, 4])})
    seen = set()
    return [r for r in log if not (key(r) in seen or seen.add(key(r)))]


def key(row: dict) -> tuple:
    return row["user_id"], row["video_id"], row["time_ms"]


def attributes(users: int = 9, videos: int = 12) -> tuple[list[dict], list[dict]]:
    """The last user and the last video are not among them; some fields are empty."""
    user_rows = [{"user_id": i, "user_active_degree": ["full_active", "high_active", ""][i % 3],
                  "is_video_author": f"{i % 2}", "follow_user_num": 10 * i, "fans_user_num": "" if i == 2 else i,
                  "friend_user_num": i % 4, "register_days": 30 * i,
                  **{f"onehot_feat{k}": "" if (i + k) % 7 == 0 else f"{(i + k) % 3}.0" for k in range(18)}}
                 for i in range(users - 1)]
    tags = ["5", "12,5", "", "7, 12", "99"]
    video_rows = [{"video_id": 100 + i, "author_id": 500 + i // 2, "video_type": "NORMAL" if i % 5 else "AD",
                   "upload_dt": "2022-04-10", "upload_type": ["Web", "LongImport"][i % 2], "server_width": 720,
                   "server_height": 1280 if i % 3 else 0, "music_id": 9_155_697_141 + i,
                   "music_type": "" if i % 4 == 0 else "9.0", "tag": tags[i % 5]} for i in range(videos - 1)]
    return user_rows, video_rows


def write_table(path: Path, rows: list[dict]) -> Path:
    """CSV by the ending of `path`, plain or gz; tags with a comma are quoted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def in_order(log: list[dict], first: int, end: int) -> list[dict]:
    rows = [row for row in log if first <= row["date"] < end]
    return sorted(rows, key=lambda r: (r["date"], r["time_ms"], r["user_id"], r["video_id"]))


def raw_numbers(log: list[dict], row: dict, prior: float, weight: float, last_day: int = 99999999,
                when: str = "date") -> dict:
    """The numerical features of `row` before scaling; None where missing. Counts are of rows that come before by
    `when`."""
    users, videos = ({r[id_]: r for r in rows} for id_, rows in zip(("user_id", "video_id"), attributes(), strict=True))

    def author(r):
        return videos.get(r["video_id"], {}).get("author_id")

    keys = {"user": lambda r: r["user_id"], "video": lambda r: r["video_id"], "author": author,
            "user_tab": lambda r: (r["user_id"], r["tab"]), "video_tab": lambda r: (r["video_id"], r["tab"]),
            "user_tag": lambda r: (r["user_id"], *raw_tags(r)[:1]), "user_author": lambda r: (r["user_id"], author(r))}
    unknown = {"author": author(row) is None, "user_tag": not raw_tags(row), "user_author": author(row) is None}
    values = {}
    for name, of in keys.items():
        before = [r for r in log if r[when] < row[when] and r["date"] <= last_day and of(r) == of(row)]
        shown, clicks = len(before), sum(r["is_click"] for r in before)
        known = not unknown.get(name)
        values[f"{name}_impressions"] = math.log1p(shown) if known else None
        values[f"{name}_click_rate"] = \
            math.log((clicks + weight * prior) / (shown - clicks + weight * (1 - prior))) if known else None
    times = [r["time_ms"] for r in log if r["user_id"] == row["user_id"] and r["time_ms"] < row["time_ms"]]
    values["seconds_since_last"] = math.log1p((row["time_ms"] - max(times)) / 1000) if times else None
    values["earlier_today"] = math.log1p(sum(
        r["user_id"] == row["user_id"] and r["date"] == row["date"] and r["time_ms"] < row["time_ms"] for r in log))
    user, video = users.get(row["user_id"], {}), videos.get(row["video_id"], {})
    for name in ("follow_user_num", "fans_user_num", "friend_user_num", "register_days"):
        values[name] = None if user.get(name, "") == "" else math.log1p(user[name])
    values["duration"] = math.log1p(row["duration_ms"] / 1000)
    values["aspect_ratio"] = video["server_width"] / video["server_height"] if video.get("server_height") else None
    return values


def raw_category(row: dict, name: str) -> object:
    """The value of a categorical feature; None where missing."""
    users, videos = ({r[id_]: r for r in rows} for id_, rows in zip(("user_id", "video_id"), attributes(), strict=True))
    if name == "hour":
        return row["hourmin"] // 100
    value = {**users.get(row["user_id"], {}), **videos.get(row["video_id"], {}), **row}.get(name, "")
    return None if value == "" else int(float(value)) if name.startswith(("onehot", "is_", "music_type")) else value


def raw_tags(row: dict) -> list[str]:
    tag = next((r["tag"] for r in attributes()[1] if r["video_id"] == row["video_id"]), "")
    return [part.strip() for part in tag.split(",") if part]


def ids(values: list, limit: int) -> dict:
    """Value -> id by descending count, ties by value."""
    counts = Counter(value for value in values if value is not None)
    kept = sorted((value for value, count in counts.items() if count >= limit), key=lambda v: (-counts[v], v))
    return {value: index for index, value in enumerate(kept, 1)}
