"""Which rows there are: displays with their event and mapping, examples in order, ads with their document."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from clickwise.encoding.further_operations import DAY_MS, DaysSince
from clickwise.encoding.operations import Hash60
from clickwise.errors import PrepareError
from clickwise.prepare.engine import Engine

FIRST_MOMENT_MS = 1_465_876_799_998  # of timestamp 0, in ms since 1970: midnight in New York
DAYS = DaysSince(FIRST_MOMENT_MS, most=3650)


def store_displays(engine: Engine, *, test_share: float, test_from_day: int, listed: bool, seed: int,
                   folds: int, complete_events: bool) -> None:
    """Stores `displays`: display_id, what its event says, `test`, `fold`, `ads` and `clicks` (its rows, its clicks).

    Days before `test_from_day` go to the test by the share `test_share` of displays, chosen by
    `hash60("<seed>/<display_id>")`, so that the same display is in the test on every engine; later days go to the test
    entirely. With `listed`, the displays of the table test_displays are the test. The training displays are divided
    into `folds` by the same hash; displays of the test have fold `folds`. With `complete_events` an event without place
    or platform is as if nothing were known of it; its day still decides the mapping.
    """
    table = engine.table("shown_displays").inner_join(engine.table("events"), "display_id")
    table = table.mutate(day=table.timestamp // DAY_MS,
                         hash=Hash60().bulk(ibis.literal(f"{seed}/") + table.display_id.cast("string"),
                                            engine.parse_hex))
    if listed:
        listed_id = engine.table("test_displays").select(listed_id="display_id").distinct()
        table = table.left_join(listed_id, table.display_id == listed_id.listed_id)
        test = table.listed_id.notnull()
    else:
        test = (table.day >= test_from_day) | (table.hash < int(test_share * 2**60))
    fold = test.ifelse(folds, table.hash % max(folds, 1))
    table = table.mutate(test=test, fold=fold.cast("int16")).drop("hash", *(["listed_id"] if listed else []))
    if complete_events:
        known = table.platform.notnull() & table.geo_location.notnull()
        unknown = {name: known.ifelse(table[name], ibis.null(table[name].type()))
                   for name in ("document_id", "timestamp", "platform", "geo_location")}
        table = table.mutate(**unknown)
    engine.materialise(table, "displays")


def store_ads(engine: Engine) -> None:
    """Stores `ads`: ad_id, document_id_promo, campaign_id, advertiser_id of the ads that examples have."""
    promoted = engine.table("promoted_content").semi_join(engine.table("shown_ads"), "ad_id")
    engine.materialise(promoted.select("ad_id", "campaign_id", "advertiser_id", document_id_promo="document_id"), "ads")


def store_examples(engine: Engine, where: str) -> dict[str, tuple[int, int]]:
    """Stores `examples` (display_id, ad_id, clicked, and of the display: its row in `displays`, test, fold,
    document_id, timestamp), training rows first, a display's rows together; mapping -> its rows first … end−1."""
    clicks, displays = engine.table("clicks"), engine.numbered(engine.table("displays"))
    displays = displays.select("display_id", "test", "fold", "document_id", "timestamp",
                               display=displays.row.cast("int32"))
    table = clicks.inner_join(displays, "display_id").mutate(clicked=lambda t: t.clicked.cast("int8"))
    examples = engine.materialise(table.order_by("test", "display_id", "ad_id", "clicked"), "examples")
    found = engine.row(examples.aggregate(rows=examples.count(), train=examples.count(where=~examples.test)))
    parts = {"train": (0, found["train"]), "test": (found["train"], found["rows"])}
    for mapping, (first, end) in parts.items():
        if first == end:
            raise PrepareError(where, found=f"no display for {mapping} in {found['rows']:,} rows",
                               expected="at least one", do="change test_share, test_from_day or test_displays")
    return parts


def count_displays(engine: Engine) -> dict[str, dict[str, int]]:
    """What a reader should know of the displays: how many by mapping, and those that a ranking metric cannot use."""
    displays = engine.table("displays")
    return {mapping: engine.row(part.aggregate(
        displays=part.count(), one_ad=part.count(where=part.ads == 1), no_click=part.count(where=part.clicks == 0),
        several_clicks=part.count(where=part.clicks > 1)))
        for mapping, part in (("train", displays.filter(~displays.test)), ("test", displays.filter(displays.test)))}


def days_since(timestamp: ir.IntegerColumn, published: ir.IntegerColumn) -> ir.IntegerColumn:
    """Whole days from `published` (seconds since 1970) to `timestamp` (ms of the log); 0 beyond 0 … 3650 days,
    missing where one is missing."""
    return DAYS.bulk(timestamp, published)
