"""The raw files of KuaiRand -> one table of impressions: each once, by time, with the attributes of user and video."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import ibis.expr.types as ir

from clickwise.encoding.operations import Weekday
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.named_columns import RawTable, Reader

LABEL, DISPLAY, ITEM, TAGS, FIRST_TAG = "is_click", "user_day", "item_id", "tags", "first_tag"
LOG = {"user_id": "int64", "video_id": "int64", "date": "int64", "hourmin": "int64", "time_ms": "int64",
       LABEL: "int64", "duration_ms": "float64", "tab": "int64"}
LOG_REQUIRED = ("user_id", "video_id", "date", "hourmin", "time_ms", LABEL)

# Attributes by raw column; codes that some copies of the data write as 1.0 are integers too.
CODES = ("is_lowactive_period", "is_live_streamer", "is_video_author", "music_type",
         *(f"onehot_feat{i}" for i in range(18)))
USER_CATEGORICAL = ("user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range",
                    "register_days_range", *(name for name in CODES if name != "music_type"))
VIDEO_CATEGORICAL = ("author_id", "video_type", "upload_type", "music_id", "music_type")
USER_NUMBERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")


def store_impressions(folder: PreparationFolder, files: Mapping[str, Sequence[Path]], *, features: Collection[str],
                      max_bad_rows: int) -> dict:
    """Stores `impressions`: every impression once, by time, with what `features` need of its user and video.

    Raises PrepareError for columns that are missing and rows that cannot be read; returns what was counted.
    """
    engine, reader = folder.engine, Reader(folder, max_bad_rows)
    log = reader.store(RawTable(name="log", columns=LOG, required=LOG_REQUIRED, within={LABEL: (0, 1)}), files["log"])
    users = _attributes(reader, "users", "user_id", features, files["users"])
    videos = _attributes(reader, "videos", "video_id", features, files["videos"])

    # A repeat may be logged some seconds later, over midnight too: its first line counts, and a click in any line.
    key = ("user_id", "video_id", "time_ms")
    once = log.group_by(list(key)).aggregate(
        **{name: log[name].max() if name == LABEL else log[name].min() for name in LOG if name not in key})
    table = once
    for attributes, id_ in ((users, "user_id"), (videos, "video_id")):
        attributes = attributes.rename({f"__{id_}": id_})
        table = table.left_join(attributes, table[id_] == attributes[f"__{id_}"])
    table = table.mutate(hour=(table.hourmin // 100).cast("int64"), day_of_week=Weekday().bulk(table.date),
                         **{DISPLAY: table.user_id * 100_000_000 + table.date, ITEM: table.video_id})
    if "tag" in table.columns:
        table = table.mutate(**{FIRST_TAG: first_tag(table.tag)})
    stored = engine.materialise(table.order_by("date", "time_ms", "user_id", "video_id"), "impressions")
    rows, kept = engine.count(log), engine.count(stored)
    unknown = engine.row(stored.aggregate(users=stored.count(where=stored["__user_id"].isnull()),
                                          videos=stored.count(where=stored["__video_id"].isnull())))
    return {"rows_read": rows, "repeats_dropped": rows - kept, "rows_without_attributes": unknown,
            "bad_rows_skipped": reader.bad_rows.found}


def _attributes(reader: Reader, name: str, id_: str, features: Collection[str], files: Sequence[Path]) -> ir.Table:
    """What `features` need of users or videos, one row for each."""
    wanted = set(features)
    if name == "users":
        columns = {name: "float64" for name in USER_NUMBERS} | _types(USER_CATEGORICAL)
    else:
        columns = _types(VIDEO_CATEGORICAL)
    columns = {name: type_ for name, type_ in columns.items() if name in wanted}
    if name == "videos":
        columns |= {"server_width": "float64", "server_height": "float64"} if "aspect_ratio" in wanted else {}
        by_author, by_tag = (any(name.startswith(keys) for name in wanted)
                             for keys in (("author_", "user_author_"), (TAGS, "user_tag_")))
        columns |= ({"author_id": "int64"} if by_author else {}) | ({"tag": "string"} if by_tag else {})
    table = reader.store(RawTable(name=f"raw_{name}", columns={id_: "int64", **columns}, required=(id_,)), files)
    reader.check_unique(table, id_, files)
    return table


def _types(names: Sequence[str]) -> dict[str, str]:
    return {name: "int64" if name in CODES or name.endswith("_id") else "string" for name in names}


def first_tag(tag: ir.StringColumn) -> ir.StringColumn:
    """`"12, 7"` -> "12"; missing where there is none."""
    return tag.split(",")[0].strip().nullif("")
