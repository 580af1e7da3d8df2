"""Amazon product reviews (Books 2014, or any category in that format) to a log of events and samples.

The path: reviews and metadata → events of the users with enough of them, by time → vocabularies of the training events
→ every user's events once, and samples as places in them (docs/data_path.md). A review is a click; what was not clicked
is drawn when batches are made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir

from clickwise.errors import PrepareError
from clickwise.machine import usable_cores
from clickwise.prepare import steps
from clickwise.prepare.amazon_books.config import AmazonBooksConfig
from clickwise.prepare.amazon_books.log import write_log
from clickwise.prepare.amazon_books.metadata import store_metadata
from clickwise.prepare.engine import BadInput, Engine, EngineConfig
from clickwise.prepare.output import Output, say
from clickwise.prepare.raw_files import BadRows, estimate_rows, find_files
from clickwise.progress import Progress
from clickwise.recipe import to_dict

REVIEW = {"reviewerID": "string", "asin": "string", "unixReviewTime": "int64"}
EXPECTED = "a review a line, as JSON, with reviewerID and asin (texts) and unixReviewTime (an integer)"
NO_CATEGORY = "no_category"
CONFIG = AmazonBooksConfig


def prepare(config: AmazonBooksConfig, out: Path, *, engine: EngineConfig | None = None, overwrite: bool = False,
            where: str = "amazon_books") -> Path:
    """The folder `out` with the log, samples of train, validation and test, feature_spec.yaml and preparation/.

    Raises PrepareError; then `out` is as before.
    """
    engine = engine or EngineConfig()
    files = {key: find_files(getattr(config, key), f"{where}.dataset.{key}") for key in ("reviews", "metadata")}
    recipe = {"dataset": {"name": "amazon_books", **to_dict(config)}}
    output = Output(out, recipe=recipe, inputs=files, file_keys=("reviews", "metadata"), engine=engine,
                    overwrite=overwrite)
    if output.unchanged:
        say(f"{out}: already prepared from these files with this recipe")
        return output.out
    with output:
        metadata = _store_metadata(output, files["metadata"], config)
        read = _store_reviews(output, files["reviews"], config)
        kept = _store_events(output, config, f"{where}.dataset")
        sizes = _store_vocabularies(output, config, metadata["file"])
        rows = write_log(output, config, sizes["cardinalities"], f"{where}.dataset")
        return output.finish({
            "dataset": "amazon_books", "rows": rows, **kept, **{"reviews_read": read["rows"]},
            "bad_rows_skipped": {**metadata["bad_rows"], **read["bad_rows"]}, **sizes, "ibis": ibis.__version__})


# ---- raw files -> tables


def _store_metadata(output: Output, files: Sequence[Path], config: AmazonBooksConfig) -> dict:
    """Writes item and category to a file in the working folder; its path, and bad rows by file."""
    if not output.done("metadata read"):
        path = output.work / "metadata.parquet"
        bad_rows = store_metadata(files, path, processes=output.engine_config.threads or usable_cores(),
                                  max_bad_rows=config.max_bad_rows)
        output.mark("metadata read", {"file": str(path), "bad_rows": bad_rows})
    return output.facts("metadata read")


def _store_reviews(output: Output, files: Sequence[Path], config: AmazonBooksConfig) -> dict:
    """Stores `reviews` (user, item, time); rows, and bad rows by file."""
    if output.done("reviews read"):
        return output.facts("reviews read")
    engine = output.engine()
    allowed = config.max_bad_rows - sum(output.facts("metadata read")["bad_rows"].values())
    bad_rows = BadRows(bad_review, allowed, EXPECTED)
    try:
        rows = _read_reviews(engine, files)
    except BadInput as slip:
        say(f"reading reviews: a line cannot be read ({str(slip).splitlines()[0]}); looking at every line")
        good = bad_rows.without(files, output.work / "without_bad_rows")
        try:
            rows = _read_reviews(engine, good)
        except BadInput as error:
            raise PrepareError(", ".join(map(str, files)), found=str(error).splitlines()[0],
                               expected=EXPECTED) from None
    output.mark("reviews read", {"rows": rows, "bad_rows": bad_rows.found})
    return output.facts("reviews read")


def _read_reviews(engine: Engine, files: Sequence[Path]) -> int:
    estimate = estimate_rows(files)
    with Progress("reading reviews", total=estimate) as bar:
        def report(share: float) -> None:
            bar.advance(max(0, int(share * (estimate or 0)) - bar.done))

        raw = engine.read_json_lines(files, REVIEW)
        with engine.watched(report):
            table = engine.materialise(raw.select(user=raw.reviewerID, item=raw.asin, time=raw.unixReviewTime),
                                       "reviews")
        found = engine.row(table.aggregate(rows=table.count(), whole=table.count(where=ibis.and_(
            *(table[name].notnull() for name in table.columns), table.user != "", table.item != ""))))
        if found["whole"] < found["rows"]:
            raise BadInput(f"{found['rows'] - found['whole']} lines without {', '.join(REVIEW)}")
        bar.total = found["rows"]
        bar.advance(found["rows"] - bar.done)
    return found["rows"]


def bad_review(line: bytes) -> str | None:
    """What is wrong with a line; None for a good one."""
    try:
        review = json.loads(line)
    except (ValueError, RecursionError) as slip:
        return f"no JSON ({slip})"
    if not isinstance(review, dict):
        return f"a {type(review).__name__}"
    for key, type_ in REVIEW.items():
        value = review.get(key)
        good = isinstance(value, str) and value if type_ == "string" else isinstance(value, int) \
            and not isinstance(value, bool)
        if not good:
            return f"{key}: {value!r}"
    return None


# ---- tables -> events, ids


def _store_events(output: Output, config: AmazonBooksConfig, where: str) -> dict:
    """Stores `users` (value, id, count, start) and `events` (user id, item, time) by user, time and item."""
    if output.done("events"):
        return output.facts("events")
    engine, reviews = output.engine(), output.engine().table("reviews")
    with Progress("putting events in order", total=2, unit="steps") as bar:
        once = engine.materialise(reviews.distinct(), "once") if config.repeats == "drop" else reviews
        users = steps.vocabulary(once, "user", config.min_events)
        start = users["count"].sum().over(ibis.cumulative_window(order_by=users["id"]))
        users = engine.materialise(users.mutate(start=steps.whole(start) - users["count"]).order_by("id"), "users")
        bar.advance(1)
        found = engine.row(users.aggregate(users=users.count(), events=steps.whole(users["count"].sum())))
        if not found["users"]:
            most = engine.row(steps.vocabulary(once, "user").aggregate(most=lambda t: t["count"].max()))["most"]
            raise PrepareError(f"{where}.min_events", found=f"no user with {config.min_events} events or more; the most"
                               f" that one has is {most}", expected="at least one user", do="a smaller number")
        ids = users.select(__user=users["value"], user_id=users["id"])
        joined = once.inner_join(ids, once.user == ids["__user"])
        events = joined.select("user_id", "item", "time")
        engine.materialise(events.order_by("user_id", "time", "item"), "events")
        bar.advance(1)
    facts = {"users": found["users"], "events": found["events"],
             "repeats_dropped": engine.count(reviews) - engine.count(once)}
    if config.repeats == "drop":
        engine.drop("once")
    output.mark("events", facts)
    return facts


def placed_events(engine: Engine) -> ir.Table:
    """The events with `row`, their place in the log, and `left`: how many of the same user come after."""
    events, users = engine.numbered(engine.table("events")), engine.table("users")
    users = users.select(__id=users["id"], end=users["start"] + users["count"])
    joined = events.inner_join(users, events.user_id == users["__id"])
    return joined.mutate(left=joined["end"] - 1 - joined["row"]).drop("__id", "end")


def _store_vocabularies(output: Output, config: AmazonBooksConfig, metadata: str) -> dict:
    """Stores `item_ids` (item, its id, the id of its category) of every item; cardinalities and what was counted."""
    if output.done("vocabularies"):
        return output.facts("vocabularies")
    engine, folder = output.engine(), output.preparation / "vocabularies"
    folder.mkdir(exist_ok=True)
    with Progress("counting values", total=3, unit="features") as bar:
        users = engine.table("users")
        engine.write_parquet(users.select("value", "id", "count").order_by("id"), folder / "user_id.parquet")
        bar.advance(1, "user_id")
        events = placed_events(engine)
        fitted = events.filter(events.left >= config.held_out) if config.fit_on == "train" else events
        item = engine.materialise(steps.vocabulary(fitted, "item"), "vocabulary_item")
        engine.write_parquet(item.order_by("id"), folder / "item.parquet")
        bar.advance(1, "item")
        categories = _categories(engine, metadata)
        counted = categories.left_join(item, categories.item == item["value"]).select("category", "count")
        category = engine.materialise(steps.vocabulary(counted.filter(counted["count"].notnull()), "category",
                                                       weight="count"), "vocabulary_category")
        engine.write_parquet(category.order_by("id"), folder / "category.parquet")
        table = categories.mutate(item_id=categories.item, category_id=categories.category)
        table = steps.encode(steps.encode(table, "item_id", item), "category_id", category)
        table = engine.materialise(table, "item_ids")
        engine.write_parquet(table.order_by("item"), output.preparation / "items.parquet")
        bar.advance(1, "category")
    count = {"user_id": engine.count(users), "item": engine.count(item), "category": engine.count(category)}
    unknown = engine.row(table.aggregate(
        items=table.count(where=table.item_id == 0), categories=table.count(where=table.category == NO_CATEGORY)))
    facts = {"cardinalities": {name: size + 1 for name, size in count.items()},
             "items_without_an_id": unknown["items"], "items_without_a_category": unknown["categories"]}
    output.mark("vocabularies", facts)
    return facts


def _categories(engine: Engine, metadata: str) -> ir.Table:
    """Every item of the events and its category; of a product that is there twice, the first that is given."""
    products = engine.read_parquet([Path(metadata)])
    first = products.group_by("item").aggregate(category=products.category.argmin(products.line),
                                                line=products.line.min())
    items = engine.table("events").select("item").distinct()
    first = first.select(__item=first.item, __category=first.category)
    joined = items.left_join(first, items.item == first["__item"])
    return engine.materialise(joined.select("item", category=ibis.coalesce(joined["__category"], NO_CATEGORY)),
                              "categories")
