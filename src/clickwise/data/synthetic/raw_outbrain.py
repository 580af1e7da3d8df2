"""Raw logs in the format of the Outbrain click data with a planted signal: eight CSV files, and page views."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from clickwise.data.synthetic.ceiling import Ceiling
from clickwise.data.synthetic.generate import chunk_generator
from clickwise.data.synthetic.outbrain_world import (
    CATEGORIES,
    DAY_MS,
    DAYS,
    FIRST_MOMENT_MS,
    SLOTS,
    TOPICS,
    World,
)
from clickwise.data.synthetic.power_law import power_law
from clickwise.data.synthetic.raw_criteo import hex_text
from clickwise.data.synthetic.write import Figures, checked, in_order, new_folder
from clickwise.progress import Progress

CHUNK = 1 << 16
HEADERS = {
    "clicks_train.csv": "display_id,ad_id,clicked",
    "clicks_test.csv": "display_id,ad_id",
    "events.csv": "display_id,uuid,document_id,timestamp,platform,geo_location",
    "page_views.csv": "uuid,document_id,timestamp,platform,geo_location,traffic_source",
    "promoted_content.csv": "ad_id,document_id,campaign_id,advertiser_id",
    "documents_meta.csv": "document_id,source_id,publisher_id,publish_time",
    "documents_categories.csv": "document_id,category_id,confidence_level",
    "documents_topics.csv": "document_id,topic_id,confidence_level",
    "documents_entities.csv": "document_id,entity_id,confidence_level",
}
# Ads per display: from 2 to 12, 5.2 in the mean, as in the real log.
SIZES = np.arange(2, SLOTS + 1)
SIZE_SHARES = np.array([0.16, 0.14, 0.22, 0.11, 0.16, 0.05, 0.06, 0.03, 0.04, 0.01, 0.02])
VIEWS = 3  # page views per display beside the event's own and the one that follows the click
MISSING = "\\N"


def synthesize_raw_outbrain(out_folder: str | Path, rows: int, seed: int = 1, *, alpha: float = 1.45,
                            test_rows: int | None = None, threads: int | None = None) -> Figures:
    """Writes the nine raw files; returns rows, displays and the best that a model can reach on clicks_train.csv.

    `rows` are those of clicks_train.csv, about 5 to a display, of which one is clicked; clicks_test.csv has
    `test_rows` (a tenth by default) without labels. In every display the click is drawn by the exponentials of the
    logits of its ads (`World.logit`), so that the best MAP@12 and AUC are known. The quirks of the real files are
    there: `\\N` and empty fields, places of one or two levels, missing and absurd publish times, sources without a
    publisher, documents without aspects or with an aspect twice, and in page_views.csv the view of the landing page
    that gives the click away. The folder appears when all of it is there; DataError where it exists already, or the
    disk is full. `threads` change no byte.
    """
    checked(rows={"train": rows}, seed=seed, alpha=alpha, signal="additive")
    counts = {"train": rows, "test": test_rows or max(rows // 10, 1)}
    chunks, displays = [], {}
    for kind, total in counts.items():
        first = sum(displays.values())
        for index, start in enumerate(range(0, total, CHUNK)):
            sizes = display_sizes(seed, kind, index, min(CHUNK, total - start))
            chunks.append((kind, index, min(CHUNK, total - start), first + 1))
            first += len(sizes)
        displays[kind] = first - sum(displays.values())
    log = OutbrainLog(World(displays["train"], seed, alpha), displays)
    ceiling = DisplayCeiling()
    with new_folder(out_folder) as folder, Progress("synthesizing raw logs", total=sum(counts.values())) as bar:
        files = {name: open(folder / name, "wb") for name in HEADERS}
        try:
            for name, header in HEADERS.items():
                files[name].write(f"{header}\n".encode())
            for texts, chunk_ceiling, chunk_rows in in_order(lambda job: log.clicks(*job), chunks, threads):
                _append(files, texts)
                ceiling += chunk_ceiling
                bar.advance(chunk_rows)
            for size, write in ((log.world.ads, log.ads), (log.world.documents, log.documents)):
                parts = [(start, min(start + CHUNK, size + 1), write) for start in range(1, size + 1, CHUNK)]
                for texts in in_order(lambda part: part[2](*part[:2]), parts, threads):
                    _append(files, texts)
        finally:
            for file in files.values():
                file.close()
    return ceiling.figures() | {"documents": log.world.documents, "ads": log.world.ads}


def _append(files: dict, texts: dict[str, bytes]) -> None:
    for name, text in texts.items():
        files[name].write(text)


def display_sizes(seed: int, kind: str, index: int, rows: int) -> np.ndarray:
    """Ads of every display of a chunk, `rows` in all."""
    sizes = chunk_generator(seed, f"outbrain {kind} sizes", index).choice(
        SIZES, rows // 2 + 1, p=SIZE_SHARES / SIZE_SHARES.sum())
    ends = np.cumsum(sizes)
    count = int(np.searchsorted(ends, rows)) + 1
    sizes = sizes[:count]
    sizes[-1] -= ends[count - 1] - rows
    return sizes


class OutbrainLog:
    """Chunks of text by file; each is a pure function of the seed and its index."""

    def __init__(self, world: World, displays: dict[str, int]) -> None:
        self.world, self.displays = world, displays

    def clicks(self, kind: str, index: int, rows: int, first_display: int) -> tuple[dict[str, bytes], DisplayCeiling,
                                                                                   int]:
        """Clicks, events and page views of a chunk; of test displays no page views and no labels."""
        world = self.world
        generator = chunk_generator(world.seed, f"outbrain {kind}", index)
        sizes = display_sizes(world.seed, kind, index, rows)
        count = len(sizes)
        starts = np.cumsum(sizes) - sizes
        display = first_display + np.arange(count)
        of_row = np.repeat(np.arange(count), sizes)
        user = power_law(world.users, 0.6).draw(generator, count).astype(np.int64)
        document = power_law(world.documents, world.alpha).draw(generator, count).astype(np.int64) + 1
        timestamp = self._timestamps(kind, display, generator)
        slot = (generator.integers(0, SLOTS, count)[of_row] + np.arange(rows) - starts[of_row]) % SLOTS
        ad = power_law(world.ads // SLOTS, world.alpha).draw(generator, rows).astype(np.int64) * SLOTS + slot + 1
        texts = {"events.csv": self._events(display, user, document, timestamp, generator)}
        if kind == "test":
            texts["clicks_test.csv"] = csv_text(display[of_row], ad)
            return texts, DisplayCeiling(), rows
        logit = world.logit(document[of_row], user[of_row], ad)
        noisy = logit - np.log(generator.exponential(size=rows))  # + Gumbel noise
        clicked = noisy == np.maximum.reduceat(noisy, starts)[of_row]
        texts["clicks_train.csv"] = csv_text(display[of_row], ad, clicked.astype(np.int8))
        texts["page_views.csv"] = self._page_views(user, document, timestamp, world.ad_document(ad[clicked]), generator)
        return texts, DisplayCeiling.of(logit, clicked, starts, sizes), rows

    def _timestamps(self, kind: str, display: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Training displays stand in the order of time over days 0 to 12, those of the test from day 0 to 14."""
        if kind == "test":
            return generator.integers(0, (DAYS + 2) * DAY_MS, len(display))
        share = (display - 1 + generator.random(len(display))) / self.displays["train"]
        return (share * DAYS * DAY_MS).astype(np.int64)

    def _events(self, display, user, document, timestamp, generator) -> bytes:
        platform = self.world.platform(user)
        platform[generator.random(len(user)) < 1e-3] = 0
        place = self.world.place(user) + 1
        place[generator.random(len(user)) < 2e-3] = 0
        places = ["", *self.world.places]
        return csv_text(display, self._uuid(user), document, timestamp, words([MISSING, "1", "2", "3"], platform),
                        words(places, place))

    def _page_views(self, user, document, timestamp, landing, generator) -> bytes:
        """The event's own view, the landing page a moment after the click, and others of the user at any time."""
        world, count = self.world, len(user)
        liked = np.where(generator.random(count * VIEWS) < 0.6, world.interest(np.repeat(user, VIEWS)),
                         generator.integers(0, CATEGORIES, count * VIEWS))
        others = world.document_of(liked, generator.random(count * VIEWS))
        moment = np.concatenate([np.maximum(timestamp - generator.integers(0, 3000, count), 0),
                                 timestamp + generator.integers(2000, 60_000, count),
                                 generator.integers(0, (DAYS + 2) * DAY_MS, count * VIEWS)])
        who = np.concatenate([user, user, np.repeat(user, VIEWS)])
        traffic = generator.integers(1, 4, len(who))
        traffic[count:2 * count] = 1
        order = generator.permutation(len(who))
        what = np.concatenate([document, landing, others])
        return csv_text(*(column.take(pa.array(order)) if isinstance(column, pa.Array) else column[order]
                          for column in (self._uuid(who), what, moment, world.platform(who),
                                         words(world.places, world.place(who)), traffic)))

    def _uuid(self, user: np.ndarray) -> pa.Array:
        """14 hexadecimal digits per user."""
        bits = self.world.bits("uuid", user)
        text = np.stack([hex_text(bits.astype(np.uint32)), hex_text((bits >> np.uint64(32)).astype(np.uint32))], axis=1)
        return texts_of(np.ascontiguousarray(text.view(np.uint8)[:, :14]))

    def ads(self, first: int, end: int) -> dict[str, bytes]:
        ad = np.arange(first, end)
        campaign = self.world.campaign(ad)
        return {"promoted_content.csv": csv_text(ad, self.world.ad_document(ad), campaign,
                                                 self.world.advertiser(campaign))}

    def documents(self, first: int, end: int) -> dict[str, bytes]:
        """Attributes of the documents `first` … end−1, and what they are about."""
        world, document = self.world, np.arange(first, end)
        unit = {name: world.unit(name, document) for name in ("no source", "no publisher", "published", "absurd")}
        source = world.source(document)
        publisher = world.publisher(source)
        # Two thirds have a publish time: mostly within two years before the log ends, a few far off.
        published = FIRST_MOMENT_MS // 1000 + (14 * 86_400 - unit["published"] ** 3 * 1.1e9).astype(np.int64)
        published = np.where(unit["absurd"] < 0.01, published + 10**9, published).astype("datetime64[s]")
        published = np.char.replace(np.datetime_as_string(published), "T", " ").astype(object)
        no_time = world.unit("no time", document) < 0.34
        texts = {"documents_meta.csv": csv_text(
            document, pa.array(source, mask=unit["no source"] < 0.005), pa.array(publisher, mask=unit["no publisher"]
            < 0.02), pa.array(published, mask=no_time))}
        for kind, most, share in (("categories", 2, 0.95), ("topics", 6, 0.83), ("entities", 5, 0.7)):
            texts[f"documents_{kind}.csv"] = self._aspects(document, kind, most, share)
        return texts

    def _aspects(self, document: np.ndarray, kind: str, most: int, share: float) -> bytes:
        """Up to `most` aspects of a share of the documents; one row in 500 comes twice, with another confidence."""
        world = self.world
        count = np.where(world.unit(f"has {kind}", document) < share, world.one_of(most, f"many {kind}", document) + 1,
                         0)
        count += (count > 0) & (world.unit(f"twice {kind}", document) < 2e-3 * most)
        rows = np.repeat(document, count)
        nth = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
        known = np.minimum(nth, most - 1)
        if kind == "categories":
            names = 1400 + (world.category(rows) + known * 7) % CATEGORIES
        elif kind == "topics":  # the first topic belongs to the category
            names = np.where(known == 0, world.category(rows) * 3 + world.one_of(3, "topic", rows),
                             world.ranked(TOPICS // most, "topics", rows * most + known) * most + known)
        else:
            entity = world.ranked(world.entities // most, kind, rows * most + known) * most + known
            bits = [world.bits(f"entity {half}", entity) for half in range(2)]
            text = np.stack([hex_text((half >> np.uint64(shift)).astype(np.uint32)) for half in bits
                             for shift in (0, 32)], axis=1)
            names = texts_of(text.view(np.uint8))
        confidence = (0.92 / (nth + 1) * (0.5 + world.unit(f"sure {kind}", rows * 16 + nth) / 2)).round(6)
        return csv_text(rows, names, confidence)


# ---- text


def csv_text(*columns: np.ndarray | pa.Array) -> bytes:
    """Lines without a header; missing values are empty."""
    sink = pa.BufferOutputStream()
    table = pa.table({str(index): pa.array(column) for index, column in enumerate(columns)})
    csv.write_csv(table, sink, csv.WriteOptions(include_header=False, quoting_style="none"))
    return sink.getvalue().to_pybytes()


def words(choices: list[str], index: np.ndarray) -> pa.Array:
    return pa.array(choices).take(pa.array(index))


def texts_of(digits: np.ndarray) -> pa.Array:
    """Rows of bytes as texts."""
    width = digits.shape[1]
    offsets = pa.array(np.arange(0, digits.size + 1, width, dtype=np.int32))
    return pa.StringArray.from_buffers(len(digits), offsets.buffers()[1], pa.py_buffer(np.ascontiguousarray(digits)))


# ---- the best that a model can reach


@dataclasses.dataclass(frozen=True)
class DisplayCeiling:
    """Rows by their true probability, and the reciprocal rank of the click under the true order, summed."""

    rows: Ceiling = dataclasses.field(default_factory=Ceiling)
    displays: int = 0
    best: float = 0.0
    realised: float = 0.0

    @classmethod
    def of(cls, logit: np.ndarray, clicked: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> DisplayCeiling:
        of_row = np.repeat(np.arange(len(sizes)), sizes)
        weight = np.exp(logit - np.maximum.reduceat(logit, starts)[of_row])
        p = weight / np.add.reduceat(weight, starts)[of_row]
        order = np.lexsort((-p, of_row))
        rank = np.arange(len(p)) - starts[of_row] + 1  # of_row[order] == of_row: displays stand together
        with np.errstate(divide="ignore"):
            rows = Ceiling.of(np.log(p) - np.log1p(-p), clicked)
        return cls(rows, len(sizes), float((p[order] / rank).sum()), float((clicked[order] / rank).sum()))

    def __add__(self, other: DisplayCeiling) -> DisplayCeiling:
        return DisplayCeiling(self.rows + other.rows, self.displays + other.displays, self.best + other.best,
                              self.realised + other.realised)

    def figures(self) -> Figures:
        return {**self.rows.figures(), "displays": self.displays,
                "best_map_at_12": round(self.best / max(self.displays, 1), 5),
                "realised_map_at_12": round(self.realised / max(self.displays, 1), 5)}
