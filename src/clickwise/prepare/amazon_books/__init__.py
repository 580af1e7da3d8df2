"""Amazon product reviews (Books 2014, or any category in that format) to a log of events and samples.

The path: reviews and metadata → events of the users with enough of them, by time → vocabularies of the training events
→ every user's events once, and samples as positions in them (docs/data_path.md). A review is a click; what was not
clicked is drawn when batches are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir

from clickwise.errors import PrepareError
from clickwise.machine import usable_cores
from clickwise.prepare import steps
from clickwise.prepare.amazon_books.config import AmazonBooksConfig
from clickwise.prepare.amazon_books.log import write_log
from clickwise.prepare.amazon_books.metadata import SEPARATOR, store_metadata
from clickwise.prepare.engine import BadInput, Engine
from clickwise.prepare.preparation import Preparation
from clickwise.prepare.raw_files import BadRows, estimate_rows, find_files
from clickwise.prepare.vocabularies import store_vocabulary, write_vocabulary
from clickwise.progress import Progress
from clickwise.text_scan import is_gzip, scan

REVIEW = {"reviewerID": "string", "asin": "string", "unixReviewTime": "int64"}
EXPECTED = "a review a line, as JSON, with reviewerID and asin (texts) and unixReviewTime (an integer)"
NO_CATEGORY = "no_category"


class AmazonBooks(Preparation):
    """A log of events, and samples of train, validation and test as positions in it."""

    Config = AmazonBooksConfig
    file_keys = ("reviews", "metadata")
    trained_by = "amazon_books/sim"

    def raw_files(self) -> dict[str, list[Path]]:
        return {key: find_files(getattr(self.config, key), f"{self.where}.{key}") for key in self.file_keys}

    # ---- raw files -> tables

    def store(self, files: Mapping[str, Sequence[Path]]) -> None:
        bad_rows = self.folder.stage("metadata read", lambda: self._read_metadata(files["metadata"]))
        self.read = self.folder.stage("reviews read", lambda: self._read_reviews(files["reviews"], bad_rows))
        self.kept = self.folder.stage("events", self._store_events)

    @property
    def _products(self) -> Path:
        return self.folder.work / "metadata.parquet"

    def _read_metadata(self, files: Sequence[Path]) -> dict[str, int]:
        """Writes item and category of every product to a file in the working folder; bad rows by file."""
        bad_rows = BadRows(self.config.max_bad_rows, self.folder.work)
        store_metadata(files, self._products, bad_rows=bad_rows,
                       processes=self.folder.engine_config.threads or usable_cores(), most=self.config.categories)
        return bad_rows.found

    def _read_reviews(self, files: Sequence[Path], found: Mapping[str, int]) -> dict:
        """Stores `reviews` (user, item, time); rows, and bad rows by file, with those `found` before."""
        bad_rows = BadRows(self.config.max_bad_rows, self.folder.work, found)
        with Progress("reading reviews", total=estimate_rows(files)) as bar:
            def load(files: list[Path]) -> int:
                if damaged := [file.name for file in files if is_gzip(file) and scan(file).damage]:
                    raise BadInput(f"{', '.join(damaged)}: damaged")  # the engine does not look at checksums
                raw = self.engine.read_json_lines(files, REVIEW)
                with self.engine.watched(bar):
                    table = self.engine.materialise(raw.select(user=raw.reviewerID, item=raw.asin,
                                                               time=raw.unixReviewTime), "reviews")
                found = self.engine.row(table.aggregate(rows=table.count(), complete=table.count(where=ibis.and_(
                    *(table[name].notnull() for name in table.columns), table.user != "", table.item != ""))))
                if found["complete"] < found["rows"]:
                    raise BadInput(f"{found['rows'] - found['complete']} lines without {', '.join(REVIEW)}")
                return found["rows"]

            rows = bad_rows.read_lines("reviews", files, load, bad_review, EXPECTED)
            bar.total = rows
            bar.advance(rows - bar.done)
        return {"rows": rows, "bad_rows": bad_rows.found}

    def _store_events(self) -> dict:
        """Stores `users` (value, id, count, start) and `events` (user id, item, time) by user, time and item."""
        engine, config, reviews = self.engine, self.config, self.engine.table("reviews")
        with Progress("putting events in order", total=2, unit="steps") as bar:
            once = engine.materialise(reviews.distinct(), "once") if config.repeats == "drop" else reviews
            users = steps.vocabulary(once, "user", config.min_events)
            start = users["count"].sum().over(ibis.cumulative_window(order_by=users["id"]))
            users = users.mutate(start=steps.sum_as_int64(start) - users["count"])
            users = engine.materialise(users.order_by("id"), "users")
            bar.advance(1)
            found = engine.row(users.aggregate(users=users.count(), events=steps.sum_as_int64(users["count"].sum())))
            if not found["users"]:
                most = engine.row(steps.vocabulary(once, "user").aggregate(most=lambda t: t["count"].max()))["most"]
                raise PrepareError(f"{self.where}.min_events", found=f"no user with {config.min_events} events or more;"
                                   f" the most that one has is {most}", expected="at least one user",
                                   do="a smaller number")
            ids = users.select(__user=users["value"], user_id=users["id"])
            joined = once.inner_join(ids, once.user == ids["__user"])
            events = joined.select("user_id", "item", "time")
            engine.materialise(events.order_by("user_id", "time", "item"), "events")
            bar.advance(1)
        dropped = engine.count(reviews) - engine.count(once)
        if config.repeats == "drop":
            engine.drop("once")
        return {"users": found["users"], "events": found["events"], "repeats_dropped": dropped}

    # ---- what is fitted on the training events

    def fit(self) -> None:
        self.fitted = self.folder.stage("vocabularies", self._fit_vocabularies)

    def _fit_vocabularies(self) -> dict:
        """Stores `item_ids` (item, its id, the id of its category) of every item; cardinalities and counts."""
        engine, folder = self.engine, self.folder
        with Progress("counting values", total=3, unit="features") as bar:
            users = engine.table("users")
            write_vocabulary(folder, "user_id", users.select("value", "id", "count"))
            sizes = {"user_id": engine.count(users) + 1}
            bar.advance(1, "user_id")
            events = numbered_events(engine)
            fitted = events.filter(events.left >= self.config.held_out) if self.config.fit_on == "train" else events
            sizes["item"] = store_vocabulary(folder, "item", fitted)
            bar.advance(1, "item")
            names = self.config.category_names
            categories, items = _categories(engine, self._products, names), engine.table("vocabulary_item")
            counted = categories.left_join(items, categories.item == items["value"]).select(*names, "count")
            counted = ibis.union(*(counted.select("count", category=name) for name in names), distinct=False) \
                if len(names) > 1 else counted
            sizes["category"] = store_vocabulary(folder, "category", counted.filter(
                counted["count"].notnull() & counted.category.notnull()), weight="count")
            table = categories.mutate(**{f"{name}_id": categories[name] for name in ("item", *names)})
            for name in ("item", *names):
                table = steps.encode(table, f"{name}_id", engine.table(
                    f"vocabulary_{'item' if name == 'item' else 'category'}"))
            table = engine.materialise(table, "item_ids")
            engine.write_parquet(table.order_by("item"), folder.preparation / "items.parquet")
            bar.advance(1, "category")
        unknown = engine.row(table.aggregate(
            items=table.count(where=table.item_id == 0), categories=table.count(where=table.category == NO_CATEGORY)))
        return {"cardinalities": sizes, "items_without_an_id": unknown["items"],
                "items_without_a_category": unknown["categories"]}

    def write(self) -> None:
        self.written = write_log(self.folder, self.config, self.fitted["cardinalities"], self.where)

    def summary(self) -> dict[str, Any]:
        return {**self.written, **self.kept, "reviews_read": self.read["rows"],
                "bad_rows_skipped": self.read["bad_rows"], **self.fitted}


DATASET = AmazonBooks


def bad_review(line: bytes) -> str | None:
    """What is wrong with a line; None for a good one."""
    try:
        review = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"no JSON ({error})"
    if not isinstance(review, dict):
        return f"a {type(review).__name__}"
    for key, type_ in REVIEW.items():
        value = review.get(key)
        good = isinstance(value, str) and value if type_ == "string" else isinstance(value, int) \
            and not isinstance(value, bool)
        if not good:
            return f"{key}: {value!r}"
    return None


def numbered_events(engine: Engine) -> ir.Table:
    """The events with `row`, their position in the log, and `left`: how many of the same user come after."""
    events, users = engine.numbered(engine.table("events")), engine.table("users")
    joined = steps.look_up(events, users.mutate(end=users["start"] + users["count"]), {"user_id": "id"}, {"end": "end"})
    return joined.mutate(left=joined["end"] - 1 - joined["row"]).drop("end")


def _categories(engine: Engine, metadata: Path, names: Sequence[str]) -> ir.Table:
    """Every item of the events and its categories; of a product that is there twice, the first that are given."""
    products = engine.read_parquet([metadata])
    first = products.group_by("item").aggregate(category=products.category.argmin(products.line),
                                                line=products.line.min())
    items = steps.look_up(engine.table("events").select("item").distinct(), first, {"item": "item"},
                          {"category": "category"})
    if len(names) > 1:
        several = items.category.split(SEPARATOR)
        items = items.mutate(**{name: several[index].nullif("") for index, name in enumerate(names)})
    return engine.materialise(items.mutate(category=ibis.coalesce(items.category, NO_CATEGORY)), "categories")
