"""Tiny Outbrain logs and, in plain Python, every published formula: nothing of the package is used here."""

from __future__ import annotations

import csv
import datetime
import hashlib
import math
import random
import statistics
from collections import Counter, defaultdict
from pathlib import Path

DAY_MS, FIRST_MS = 86_400_000, 1_465_876_799_998
HEADERS = {
    "clicks_train": ("display_id", "ad_id", "clicked"),
    "events": ("display_id", "uuid", "document_id", "timestamp", "platform", "geo_location"),
    "promoted_content": ("ad_id", "document_id", "campaign_id", "advertiser_id"),
    "documents_meta": ("document_id", "source_id", "publisher_id", "publish_time"),
    "documents_categories": ("document_id", "category_id", "confidence_level"),
    "documents_topics": ("document_id", "topic_id", "confidence_level"),
    "documents_entities": ("document_id", "entity_id", "confidence_level"),
    "page_views": ("uuid", "document_id", "timestamp", "platform", "geo_location", "traffic_source"),
}
IDS = {"categories": "category_id", "topics": "topic_id", "entities": "entity_id"}
PLACES = ("US>CA>803", "US>SC>519", "US>SC>500", "SG>00", "AU", "US", " GB>H9", "CA>ON>7")


def random_tables(displays: int = 60, seed: int = 0, *, documents: int = 24, ads: int = 15) -> dict[str, list[dict]]:
    """Every raw table; missing values are None."""
    dice = random.Random(seed)

    def maybe(value, share=0.15):
        return None if dice.random() < share else value

    tables: dict[str, list[dict]] = {name: [] for name in HEADERS}

    def add(name, *values):
        tables[name].append(dict(zip(HEADERS[name], values, strict=True)))

    for document in range(1, documents + 1):
        if document != 3:  # one is not in documents_meta
            moment = datetime.datetime(2016, 6, 14) + datetime.timedelta(hours=dice.uniform(-20_000, 300))
            if document == 5:
                moment = datetime.datetime(1990, 1, 1)
            add("documents_meta", document, maybe(dice.randint(1, 5)), maybe(dice.randint(1, 4), 0.3),
                maybe(moment.strftime("%Y-%m-%d %H:%M:%S"), 0.3))
        for kind, id_, most in (("categories", 1000, 2), ("topics", 1, 4), ("entities", None, 7)):
            for _ in range(dice.randint(0, most)):
                number = min(int(dice.expovariate(0.4)), 9)
                value = number + id_ if id_ else hashlib.md5(str(number).encode()).hexdigest()
                add(f"documents_{kind}", document, value, round(dice.random(), 4))
    for ad in range(1, ads + 1):
        landing = 3 if ad == 1 else dice.randint(1, documents // 2)
        add("promoted_content", ad, landing, dice.randint(1, 4), dice.randint(1, 3))
    users = [f"{number:014x}" for number in range(displays // 2)]
    for display in range(1, displays + 1):
        user, at = dice.choice(users), dice.randint(0, 13 * DAY_MS - 1)
        add("events", display, user, dice.randint(1, documents), at, maybe(dice.randint(1, 3), 0.1),
            maybe(dice.choice(PLACES[:3] if dice.random() < 0.6 else PLACES), 0.1))
        shown = dice.sample(range(1, ads + 1), dice.randint(2, 6))
        clicked = dice.choice(shown)
        for ad in shown:
            add("clicks_train", display, ad, int(ad == clicked))
        for _ in range(3):
            near = at + dice.randint(-DAY_MS, DAY_MS // 4)
            add("page_views", user, dice.choice([dice.randint(1, documents), tables["events"][-1]["document_id"]]),
                max(near, 0), 1, "US>CA>803", dice.randint(1, 3))
    add("page_views", "f" * 14, 1, 0, 1, "US", 1)  # of a user without events
    return tables


def write_tables(folder: Path, tables: dict[str, list[dict]], missing: str = "\\N") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        with open(folder / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADERS[name])
            writer.writerows([missing if value is None else value for value in row.values()] for row in rows)
    return folder


def changed(tables: dict[str, list[dict]], **changes) -> dict[str, list[dict]]:
    """The tables, the rows of some of them replaced by `change(rows)`."""
    return tables | {name: change([dict(row) for row in tables[name]]) for name, change in changes.items()}


def hash60(text: object) -> int:
    return int(hashlib.md5(str(text).encode()).hexdigest()[:15], 16)


class Reference:
    """What the sets should hold, row by row, worked out from the raw tables; `kind` is v1_spark, v1_nvtabular, …"""

    def __init__(self, tables: dict[str, list[dict]], kind: str, *, seed: int = 0, test_share: float = 0.2) -> None:
        self.tables, self.kind = tables, kind
        self.spark = kind in ("v1_spark", "profiles")
        self.events = {row["display_id"]: dict(row) for row in tables["events"]}
        for event in self.events.values():
            event["day"] = event["timestamp"] // DAY_MS
            event["test"] = event["day"] >= 11 or hash60(f"{seed}/{event['display_id']}") < test_share * 2**60
            place = event["geo_location"]
            if place is not None and (self.spark or self.kind == "clickwise"):
                place = place.strip()
            if self.kind == "clickwise":  # with Spark the whole place keeps its spaces
                event["geo_location"] = place
            event |= {"country": place and place[:2], "state": place and place[:5]}
        for event in self.events.values():
            if self.spark and (event["platform"] is None or event["geo_location"] is None):
                event |= dict.fromkeys(("document_id", "timestamp", "platform", "geo_location", "country", "state"))
        self.ads = {row["ad_id"]: row for row in tables["promoted_content"]}
        self._meta()
        key = {name: index for index, name in enumerate(("display_id", "ad_id"))}
        self.rows = [self._row(click) for click in sorted(
            tables["clicks_train"], key=lambda r: (self.events[r["display_id"]]["test"], *(r[name] for name in key)))]
        self.train = [row for row in self.rows if not row["test"]]

    def _meta(self) -> None:
        meta = {row["document_id"]: dict(row) for row in self.tables["documents_meta"]}
        if self.kind in ("v1_spark", "v1_nvtabular", "profiles"):
            meta = {id_: row for id_, row in meta.items() if row["source_id"] is not None}
        greatest = max(row["publisher_id"] for row in meta.values() if row["publisher_id"] is not None)
        without = sorted(id_ for id_, row in meta.items() if row["publisher_id"] is None)
        if self.spark:
            sources = sorted({meta[id_]["source_id"] for id_ in without})
            for id_ in without:
                meta[id_]["publisher_id"] = greatest + 1 + sources.index(meta[id_]["source_id"])
        elif self.kind != "clickwise":
            for index, id_ in enumerate(without):
                meta[id_]["publisher_id"] = greatest + 1 + index
        self.meta = meta

    def _row(self, click: dict) -> dict:
        event, ad = self.events[click["display_id"]], self.ads[click["ad_id"]]
        of_event, of_ad = self.meta.get(event["document_id"], {}), self.meta.get(ad["document_id"], {})
        return {**click, **event, **{f"{name}_promo": of_ad.get(name) for name in ("source_id", "publisher_id")},
                **{name: of_event.get(name) for name in ("source_id", "publisher_id")},
                "ad_id": click["ad_id"], "document_id_promo": ad["document_id"], "campaign_id": ad["campaign_id"],
                "advertiser_id": ad["advertiser_id"], "days": days(event["timestamp"], of_event.get("publish_time")),
                "days_promo": days(event["timestamp"], of_ad.get("publish_time"))}

    def mappings(self, column: list) -> dict[str, list]:
        """A column of all rows by mapping."""
        return {"train": column[:len(self.train)], "test": column[len(self.train):]}

    # ---- counts and rates

    def counts(self, key: str, rows: list[dict] | None = None) -> dict:
        """value -> (views, clicks, ads) in the training rows."""
        found: dict = defaultdict(lambda: [0, 0, set()])
        for row in self.train if rows is None else rows:
            found[row[key]][0] += 1
            found[row[key]][1] += row["clicked"]
            found[row[key]][2].add(row["ad_id"])
        found.pop(None, None)
        return {value: (views, clicks, len(ads)) for value, (views, clicks, ads) in found.items()}

    def rate(self, key: str, at_least: int) -> list[float]:
        counts = {value: c for value, c in self.counts(key).items() if c[0] >= at_least}
        return [counts[row[key]][1] / counts[row[key]][0] if row[key] in counts else 0.0 for row in self.rows]

    def views(self, key: str, at_least: int = 0) -> list[int]:
        counts = self.counts(key)
        found = [counts.get(row[key], (0, 0, 0))[0] for row in self.rows]
        return [n if n >= at_least else 0 for n in found]

    def rate_confidence(self, key: str, at_least: int) -> list[float]:
        counts = {value: c for value, c in self.counts(key).items() if c[0] >= at_least}
        return [confidence(counts[row[key]][0] / counts[row[key]][2]) if row[key] in counts else 0.0
                for row in self.rows]

    # ---- aspects

    def aspects(self, kind: str) -> dict[int, dict]:
        """document -> aspect -> confidence."""
        found: dict = defaultdict(dict)
        for row in self.tables[f"documents_{kind}"]:
            mine, id_ = found[row["document_id"]], row[IDS[kind]]
            mine[id_] = max(mine.get(id_, 0.0), row["confidence_level"])
        return found

    def idf(self, kind: str, double: bool) -> dict:
        rows = self.tables[f"documents_{kind}"]
        if self.spark:
            n = sum(row["source_id"] is not None for row in self.tables["documents_meta"])
        elif self.kind == "clickwise":
            n = len(self.tables["documents_meta"])
        else:
            n = max(row["document_id"] for row in rows) + 1
        df = Counter(row[IDS[kind]] for row in rows)
        logs = {id_: math.log(n / count) if count < n else 0.0 for id_, count in df.items()}
        return {id_: (math.log(x) if x > 0 else 0.0) if double else x for id_, x in logs.items()}

    def similarity(self, kind: str) -> list[float]:
        aspects, idf = self.aspects(kind), self.idf(kind, self.spark)
        vectors = {document: {id_: c * idf[id_] for id_, c in mine.items()} for document, mine in aspects.items()}
        return [cosine(vectors.get(row["document_id"], {}), vectors.get(row["document_id_promo"], {}))
                for row in self.rows]

    def popularity(self, kind: str) -> tuple[list[float], list[float]]:
        """Weighted mean and confidence of the rates of the aspects of the ad's document."""
        aspects, sure, found = self.aspects(kind), defaultdict(float), defaultdict(lambda: [0, 0, set()])
        for row in self.train:
            for id_, c in aspects.get(row["document_id_promo"], {}).items():
                sure[id_] += c
                found[id_][0] += 1
                found[id_][1] += row["clicked"]
                found[id_][2].add(row["ad_id"])
        least = 6 if kind == "entities" else 11
        rated = {id_: (clicks / views, confidence(views / len(ads)) * sure[id_] / views)
                 for id_, (views, clicks, ads) in found.items() if views >= least}
        means, sures = [], []
        for row in self.rows:
            mine = [(rated[id_], c) for id_, c in aspects.get(row["document_id_promo"], {}).items() if id_ in rated]
            weight = sum(conf * c for (_, conf), c in mine)
            means.append(sum(ctr * conf * c for (ctr, conf), c in mine) / weight if weight else 0.0)
            sures.append(max((conf * c for (_, conf), c in mine), default=0.0))
        return means, sures

    # ---- users

    def profile(self, row: dict, users: str = "all") -> list[int]:
        """The documents viewed before the event, one for each view: those with an aspect and a source."""
        tested = {event["uuid"] for event in self.events.values() if event["test"] and event["timestamp"] is not None}
        if row["timestamp"] is None or (users == "test" and row["uuid"] not in tested):
            return []
        known = {document for kind in IDS for document in self.aspects(kind)} & set(self.meta)
        return [view["document_id"] for view in self.tables["page_views"]
                if view["uuid"] == row["uuid"] and view["timestamp"] < row["timestamp"]
                and view["document_id"] in known]

    def user_similarity(self, kind: str, users: str = "all") -> tuple[list[float], list[float]]:
        aspects, idf, single = self.aspects(kind), self.idf(kind, True), self.idf(kind, False)
        every, sims, sures = len(idf), [], []
        for row in self.rows:
            user: dict = defaultdict(list)
            for document in self.profile(row, users):
                for id_, c in aspects.get(document, {}).items():
                    user[id_].append(c)
            user = {id_: len(cs) * single[id_] * statistics.mean(cs) for id_, cs in user.items()}
            mine = aspects.get(row["document_id_promo"], {})
            sims.append(cosine({id_: c * idf[id_] for id_, c in mine.items()}, user))
            p, common = len(mine) / every * len(user) / every, len(set(mine) & set(user))
            sures.append(1 - p**common if common else p)
        return sims, sures

    def traffic_source(self, row: dict) -> int | None:
        if row["timestamp"] is None:
            return None
        views = [(view["timestamp"], view["traffic_source"]) for view in self.tables["page_views"]
                 if view["uuid"] == row["uuid"] and view["document_id"] == row["document_id"]
                 and view["timestamp"] <= row["timestamp"] and view["timestamp"] // DAY_MS == row["day"]]
        return max(views)[1] if views else None

    def event_count(self, name: str) -> Counter:
        return Counter(event[name] for event in self.events.values())


def days(timestamp: int | None, publish_time: str | None) -> int | None:
    if timestamp is None or publish_time is None:
        return None
    then = datetime.datetime.strptime(publish_time, "%Y-%m-%d %H:%M:%S").replace(tzinfo=datetime.UTC)
    found = math.floor((timestamp + FIRST_MS - then.timestamp() * 1000) / DAY_MS)
    return found if 0 <= found <= 3650 else 0


def cosine(one: dict, two: dict) -> float:
    length = math.sqrt(sum(w * w for w in one.values())) * math.sqrt(sum(w * w for w in two.values()))
    return sum(w * two[id_] for id_, w in one.items() if id_ in two) / length if length else 0.0


def confidence(s: float) -> float:
    return 1.0 if s >= 100_000 else math.log(1 + s) / math.log2(100_001)


def min_max(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / ((high - low) or 1.0) for value in values]


def z_score(values: list[float], train: int) -> list[float]:
    mean, std = statistics.mean(values[:train]), statistics.stdev(values[:train])
    return [(value - mean) / (std or 1.0) for value in values]


def ids(values: list, limit: int = 1) -> dict:
    """Value -> 1, 2, … by descending count, ties by value."""
    counts = Counter(value for value in values if value is not None)
    kept = sorted((value for value, count in counts.items() if count >= limit), key=lambda v: (-counts[v], v))
    return {value: index for index, value in enumerate(kept, 1)}
