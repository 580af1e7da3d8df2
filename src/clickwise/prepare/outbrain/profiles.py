"""What a user had viewed before an event: counts, traffic source, and how alike an ad's document is to it all.

Page views are read once, in a stream; only those of users with events, up to their last event, are kept. A profile
holds the views strictly before its event: the view of the landing page, which follows a click, never enters it.
NOTE[DIFF] the published profiles hold views of any time and leave out only what test displays promote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import ibis
import ibis.expr.types as ir

from clickwise.prepare.engine import Engine
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.named_columns import Reader
from clickwise.prepare.outbrain.documents import KINDS
from clickwise.prepare.outbrain.raw import PAGE_VIEWS, check_values
from clickwise.prepare.outbrain.rows import DAY_MS
from clickwise.progress import Progress

SOURCES = 8  # more than there are traffic sources


def store_views(folder: PreparationFolder, files: Sequence[Path], *, max_bad_rows: int) -> dict:
    """Stores `visitors` (display_id, user, timestamp, test) and `page_views` (user, document_id, timestamp,
    traffic_source); what was counted."""
    engine, reader = folder.engine, Reader(folder, max_bad_rows)
    displays = engine.table("displays")
    users = displays.group_by("uuid").aggregate(last=displays.timestamp.max())
    users = engine.numbered(engine.materialise(users.filter(users["last"].notnull()), "users"))
    users = users.select("last", user_uuid="uuid", user=users.row.cast("int32"))

    def of_users(views: ir.Table) -> ir.Table:
        joined = views.inner_join(users, [("uuid", "user_uuid")])
        joined = joined.filter(ibis.cases((joined.timestamp <= joined["last"], joined.document_id.notnull()),
                                          else_=False))
        return joined.select("document_id", "timestamp", "user", traffic_source=joined.traffic_source.cast("int8"))

    views = reader.store(PAGE_VIEWS, files, of=of_users)
    if not engine.row(views.aggregate(n=views.traffic_source.count()))["n"]:  # none is kept, or none has a source
        counts = reader.store(replace(PAGE_VIEWS, name="page_views_counted"), files, of=lambda views: views.aggregate(
            rows=views.count(), **{name: views[name].count() for name in PAGE_VIEWS.columns}))
        check_values(engine.row(counts), PAGE_VIEWS, files)
    visitors = displays.inner_join(users, [("uuid", "user_uuid")]).filter(lambda t: t.timestamp.notnull())
    engine.materialise(visitors.select("display_id", "document_id", "timestamp", "test", "user"), "visitors")
    return {"page_views_kept": engine.count(views), "bad_page_views": reader.bad_rows.found}


def traffic_sources(engine: Engine) -> ir.Table:
    """visitor, traffic_source: that of the user's last view of the event's document on the event's day, not after the
    event; displays without such a view have no row.

    NOTE[DIFF] the reference asks for the same platform and place as well (a user id is one browser's), takes all views
    of the day, before and after, and has the row once for each of them.
    """
    visitors, views = engine.table("visitors"), engine.table("page_views")
    views = views.filter(views.traffic_source.between(1, 3)).select(
        viewed="document_id", at="timestamp", viewer="user", source="traffic_source")
    joined = visitors.inner_join(views, [("user", "viewer"), ("document_id", "viewed")])
    joined = joined.filter((joined["at"] <= joined.timestamp) & (joined["at"] // DAY_MS == joined.timestamp // DAY_MS))
    last = joined.group_by(visitor=joined.display_id).aggregate(last=(joined["at"] * SOURCES + joined.source).max())
    return last.select("visitor", traffic_source=last["last"] % SOURCES)


def store_profiles(engine: Engine, users: Literal["all", "test"]) -> None:
    """Stores `seen` (user, document_id, since: the first view), `profiles` (display_id, user, user_views, and by kind
    `user_<kind>`, how many aspects, and `length_<kind>`) and `user_similarities` (row, `product_<kind>`,
    `common_<kind>`: how many aspects are shared).

    Of a display's user, only views before the event count, of documents with any aspect that the table `documents`
    has; user_views is how many. With `users` test, users have a profile who have a test display, in their training
    rows too. The weight of an aspect is tf · idf · confidence: the number of views of documents that have it (four
    views of one document are four), ln(N/df), the mean confidence in these views. The product of that vector and the
    vector of the ad's document (of length 1) over its own length is their cosine. A profile only grows with time: what
    a view adds to it is worked out once for each view, and not again for every display that follows.
    """
    with Progress("building profiles", total=3, unit="steps") as bar:
        visitors, views = engine.table("visitors"), engine.table("page_views")
        if users == "test":
            visitors = visitors.semi_join(visitors.filter(visitors.test), "user")
            views = views.semi_join(visitors, "user")
        aspects = engine.table("aspects")
        views = views.semi_join(aspects, "document_id").semi_join(engine.table("documents"), "document_id")
        views = views.group_by("user", "document_id", at="timestamp").aggregate(times=views.count())
        views = engine.materialise(views, "viewed")
        engine.materialise(views.group_by("user", "document_id").aggregate(since=views["at"].min()), "seen")
        bar.advance(1, "documents")

        grown = views.inner_join(aspects.select("document_id", "kind", "aspect", "rarity", "confidence"), "document_id")
        grown = grown.mutate(confidence=grown.times * grown.confidence)
        # Each view adds to the square of the weight that its aspect has so far. Rarity 2, confidences 0.5, then 0.25:
        #   first view    4 · 0.5 · (2 · 0.5 - 0.5) = 1
        #   second view   4 · 0.25 · (2 · 0.75 - 0.25) = 1.25; together 2.25 = (2 · 0.75)², the square of the weight now
        order = {"group_by": ["user", "aspect"], "order_by": ["at", "document_id"]}
        sure = grown.confidence.sum().over(ibis.cumulative_window(**order))
        grown = engine.materialise(grown.select(
            "user", "aspect", "kind", "at", weight=grown.rarity * grown.confidence,
            square=grown.rarity * grown.rarity * grown.confidence * (2 * sure - grown.confidence),  # it adds to length²
            new=ibis.row_number().over(ibis.window(**order)) == 0), "grown_vectors")
        engine.materialise(_profiles(visitors, views, grown), "profiles")
        bar.advance(1, "aspects")
        engine.materialise(_similarities(engine, visitors, grown), "user_similarities")
        engine.drop("grown_vectors")
        engine.drop("viewed")
        bar.advance(1, "similarities")


def _profiles(visitors: ir.Table, views: ir.Table, grown: ir.Table) -> ir.Table:
    """The table `profiles`: events and views of a user in one row of time, an event before views of the same moment."""
    sums = ("views", *(f"{name}_{kind}" for kind in KINDS for name in ("size", "square")))

    def moments(table: ir.Table, is_view: bool, **known: ir.Value) -> ir.Table:
        return table.select("user", "at", display_id=known.pop("display_id", ibis.null("int64")),
                            is_view=ibis.literal(is_view),
                            **{name: known.get(name, ibis.literal(0.0)).cast("float64") for name in sums})

    viewed = views.group_by("user", "at").aggregate(n=views.times.sum())
    growth = grown.group_by("user", "at").aggregate(**{
        name: value for index, kind in enumerate(KINDS) for name, value in (
            (f"size_{kind}", grown.count(where=grown.new & (grown.kind == index))),
            (f"square_{kind}", (grown.kind == index).ifelse(grown.square, 0.0).sum()))})
    events = visitors.select("user", "display_id", at="timestamp")
    table = ibis.union(moments(viewed, True, views=viewed.n),
                       moments(growth, True, **{name: growth[name] for name in sums[1:]}),
                       moments(events, False, display_id=events.display_id))
    before = ibis.cumulative_window(group_by="user", order_by=["at", "is_view"])
    table = table.mutate(**{name: table[name].sum().over(before) for name in sums})
    table = table.filter(~table.is_view)
    return table.select("display_id", "user", user_views="views",
                        **{f"user_{kind}": table[f"size_{kind}"].cast("int64") for kind in KINDS},
                        **{f"length_{kind}": table[f"square_{kind}"].sqrt() for kind in KINDS})


def _similarities(engine: Engine, visitors: ir.Table, grown: ir.Table) -> ir.Table:
    examples = engine.numbered(engine.table("examples")).select("row", "display_id", "ad_id")
    ads = engine.table("ads").select("ad_id", "document_id_promo")
    of_ad = engine.table("aspects").select(promo="document_id", shared="aspect", unit="unit")
    rows = examples.inner_join(visitors.select("display_id", "user", "timestamp"), "display_id")
    rows = rows.inner_join(ads, "ad_id").inner_join(of_ad, [("document_id_promo", "promo")])
    both = rows.inner_join(grown.rename(viewer="user"), [("user", "viewer"), ("shared", "aspect")])
    both = both.filter(both["at"] < both.timestamp)
    found = {}
    for index, kind in enumerate(KINDS):
        mine = both.kind == index
        found |= {f"product_{kind}": mine.ifelse(both.unit * both.weight, 0.0).sum(),
                  f"common_{kind}": both.count(where=mine & both.new)}
    return both.group_by(similar_row="row").aggregate(**found)


OF_DISPLAY = ("user", *(f"{word}_{kind}" for word in ("user", "length") for kind in KINDS))
OF_AD = tuple(f"document_{kind}" for kind in KINDS)


def with_views(engine: Engine, displays: ir.Table) -> ir.Table:
    """`displays` with the profile of their user: user_views and OF_DISPLAY."""
    profiles = engine.table("profiles").rename(profiled="display_id")
    displays = displays.left_join(profiles, [("display_id", "profiled")])
    return displays.mutate(user_views=ibis.coalesce(displays.user_views, 0.0))


def with_aspects(engine: Engine, ads: ir.Table) -> ir.Table:
    """`ads` with `pop_<kind>` and `pop_<kind>_conf`, and `document_<kind>`: how many aspects the ad's document has."""
    aspects = engine.table("aspects")
    counts = aspects.group_by(counted="document_id").aggregate(**{
        f"document_{kind}": aspects.count(where=aspects.kind == index) for index, kind in enumerate(KINDS)})
    rates = engine.table("aspect_rates").rename(rated="document_id")
    ads = ads.left_join(rates, [("document_id_promo", "rated")])
    ads = ads.left_join(counts, [("document_id_promo", "counted")])
    return ads.mutate(**{name: ibis.coalesce(ads[name], 0.0) for kind in KINDS
                         for name in (f"pop_{kind}", f"pop_{kind}_conf")})


def with_similarities(engine: Engine, table: ir.Table) -> ir.Table:
    """`table` of examples, which has OF_DISPLAY and OF_AD, with viewed_before, `user_sim_<kind>` and
    `user_sim_<kind>_conf`."""
    seen = engine.table("seen").rename(viewer="user", viewed_document="document_id")
    table = table.left_join(engine.table("user_similarities"), [("row", "similar_row")])
    table = table.left_join(seen, [("user", "viewer"), ("document_id_promo", "viewed_document")])
    cosine = {kind: table[f"product_{kind}"] / table[f"length_{kind}"].nullif(0) for kind in KINDS}
    return table.mutate(
        viewed_before=ibis.coalesce(table.since < table.timestamp, False).cast("int64"),
        **{f"user_sim_{kind}": ibis.coalesce(cosine[kind], 0.0) for kind in KINDS},
        **{f"user_sim_{kind}_conf": similarity_confidence(
            *(ibis.coalesce(table[f"{name}_{kind}"], 0) for name in ("document", "user", "common")),
            engine.count(engine.table(f"aspect_{kind}"))) for kind in KINDS})


def similarity_confidence(document: ir.IntegerColumn, user: ir.IntegerColumn, common: ir.IntegerColumn,
                          every: int) -> ir.FloatingColumn:
    """How sure a published similarity is, from the number of aspects of either, of both, and of all there are.

    With p = (document / every) · (user / every): 1 − p^common, or p where they share none; 0 where one has none.
    """
    p = (document / every) * (user / every)
    return ibis.cases((common > 0, 1 - p.pow(common)), else_=p)
