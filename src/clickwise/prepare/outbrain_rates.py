"""How often an ad, and what belongs with it, was shown and clicked in the training rows; rates made of the counts."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from clickwise.prepare import steps
from clickwise.prepare.output import Output
from clickwise.progress import Progress

KEYS = ("ad_id", "document_id_promo", "source_id_promo", "publisher_id_promo", "advertiser_id", "campaign_id")


def store_counts(output: Output, *, out_of_fold: bool) -> None:
    """Stores `ad_counts` (ad_id, fold, the keys, views, clicks: of training rows) and `ad_rates`, one row for every
    ad_id and fold of the examples: `<key>__views`, `<key>__clicks`, 0 where the key is missing or was never shown.

    With `out_of_fold` a row of a training fold gets the counts of all other folds: no label of its own display is in
    them. (Leaving out the row alone would tell its label: the rate of a clicked row is lower than of the same ad
    unclicked.) The sums of every key are written to preparation/rates/.
    """
    engine, folder = output.engine(), output.preparation / "rates"
    folder.mkdir(exist_ok=True)
    examples, ads = engine.table("examples"), engine.table("ad_features")
    shown = examples.group_by("ad_id", "fold").aggregate(
        views=examples.count(where=~examples.test),
        clicks=examples.count(where=~examples.test & (examples.clicked == 1)))
    shown = engine.materialise(shown.inner_join(ads, "ad_id").select("fold", "views", "clicks", *KEYS), "ad_counts")
    table = shown.select("fold", *KEYS)
    with Progress("counting clicks", total=len(KEYS), unit="keys") as bar:
        for key in KEYS:
            known = shown.filter(shown[key].notnull())
            by_fold = known.group_by(key, "fold").aggregate(
                views=steps.whole(known.views.sum()), clicks=steps.whole(known.clicks.sum()), ads=known.ad_id.nunique())
            by_fold = engine.materialise(by_fold, f"counts_{key}")
            total = by_fold.group_by(key).aggregate(
                **{name: steps.whole(by_fold[name].sum()) for name in ("views", "clicks")})
            total = engine.materialise(total, f"total_{key}")
            engine.write_parquet(total.filter(total.views > 0).order_by(key), folder / f"{key}.parquet")
            table = _with_counts(table, key, total, by_fold if out_of_fold else None)
            bar.advance(1, key)
        wanted = [name for name in table.columns if "__" in name]
        engine.materialise(table.select("ad_id", "fold", *wanted), "ad_rates")


def _with_counts(table: ir.Table, key: str, total: ir.Table, own: ir.Table | None) -> ir.Table:
    def joined(table: ir.Table, counts: ir.Table, by: tuple[str, ...], prefix: str) -> ir.Table:
        counts = counts.select(**{f"{prefix}_{name}": name for name in (*by, "views", "clicks")})
        table = table.left_join(counts, [table[name] == counts[f"{prefix}_{name}"] for name in by])
        return table.drop(*(f"{prefix}_{name}" for name in by))

    table = joined(table, total, (key,), "all")
    if own is not None:
        table = joined(table, own, (key, "fold"), "own")
    counts = {}
    for name in ("views", "clicks"):
        count = ibis.coalesce(table[f"all_{name}"], 0)
        counts[f"{key}__{name}"] = count if own is None else count - ibis.coalesce(table[f"own_{name}"], 0)
    return table.mutate(**counts).drop(*(name for name in table.columns if name.startswith(("all_", "own_"))))


def rate(table: ir.Table, key: str, at_least: int) -> ir.FloatingColumn:
    """clicks / views of `key`; 0 below `at_least` views."""
    views = table[f"{key}__views"]
    return (views >= at_least).ifelse(table[f"{key}__clicks"] / views.nullif(0), 0.0)


def views(table: ir.Table, key: str, at_least: int = 0) -> ir.IntegerColumn:
    """Views of `key`; 0 below `at_least`."""
    found = table[f"{key}__views"]
    return (found >= at_least).ifelse(found, 0)
