"""How often an ad, and what belongs with it, was shown and clicked in the training rows; rates made of the counts."""

from __future__ import annotations

import math

import ibis
import ibis.expr.types as ir

from clickwise.prepare import steps
from clickwise.prepare.engine import Engine
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.outbrain.documents import KINDS
from clickwise.progress import Progress

KEYS = ("ad_id", "document_id_promo", "source_id_promo", "publisher_id_promo", "advertiser_id", "campaign_id")


def store_counts(folder: PreparationFolder, *, out_of_fold: bool) -> None:
    """Stores `ad_counts` (ad_id, fold, the keys, views, clicks: of training rows) and `ad_rates`, one row for every
    ad_id and fold of the examples: train_rows (how many of them are for training), `<key>__views`, `<key>__clicks`,
    `<key>__ads` (how many ads have the key and were shown), 0 where the key is missing or was never shown.

    With `out_of_fold` a row of a training fold gets the counts of all other folds: no label of its own display is in
    them. (Leaving out the row alone would tell its label: the rate of a clicked row is lower than of the same ad
    unclicked.) The sums of every key are written to preparation/rates/.
    """
    engine, rates = folder.engine, folder.preparation / "rates"
    rates.mkdir(exist_ok=True)
    examples, ads = engine.table("examples"), engine.table("ad_features")
    shown = examples.group_by("ad_id", "fold").aggregate(
        views=examples.count(where=~examples.test),
        clicks=examples.count(where=~examples.test & (examples.clicked == 1)))
    shown = engine.materialise(shown.inner_join(ads, "ad_id").select("fold", "views", "clicks", *KEYS), "ad_counts")
    ads = engine.materialise(_summed(shown, list(KEYS)), "ad_totals")  # an ad in one row: few of them have many folds
    joined, counts = shown, {}  # joins without a selection between them compile fast
    with Progress("counting clicks", total=len(KEYS), unit="keys") as bar:
        for key in KEYS:
            known = ads.filter(ads[key].notnull())
            total = engine.materialise(_summed(known, [key], ads=known.count(where=known.views > 0)), f"counts_{key}")
            engine.write_parquet(total.filter(total.views > 0).order_by(key), rates / f"{key}.parquet")
            joined = _joined(joined, total, "all", key, [key])
            if out_of_fold:
                own = _summed(shown.filter(shown[key].notnull()), [key, "fold"])
                joined = _joined(joined, own, "own", key, [key, "fold"])
            bar.advance(1, key)
        for key in KEYS:
            counts[f"{key}__ads"] = ibis.coalesce(joined[f"all_{key}__ads"], 0)
            for name in ("views", "clicks"):
                count = ibis.coalesce(joined[f"all_{key}__{name}"], 0)
                counts[f"{key}__{name}"] = count - ibis.coalesce(joined[f"own_{key}__{name}"], 0) if out_of_fold \
                    else count
        engine.materialise(joined.select("ad_id", "fold", train_rows="views", **counts), "ad_rates")


def _summed(table: ir.Table, keys: list[str], **further: ir.Value) -> ir.Table:
    return table.group_by(keys).aggregate(
        **{name: steps.sum_as_int64(table[name].sum()) for name in ("views", "clicks")}, **further)


def _joined(table: ir.Table, counts: ir.Table, kind: str, key: str, on: list[str]) -> ir.Table:
    """`table` with <kind>_<key>__<count> for every count of `counts`, which has the columns `on` once each."""
    renamed = counts.select(**{f"{kind}_{key}_{name}" if name in on else f"{kind}_{key}__{name}": name
                               for name in counts.columns})
    return table.left_join(renamed, [(name, f"{kind}_{key}_{name}") for name in on])


def rate(table: ir.Table, key: str, at_least: int) -> ir.FloatingColumn:
    """clicks / views of `key`; 0 below `at_least` views."""
    views = table[f"{key}__views"]
    return (views >= at_least).ifelse(table[f"{key}__clicks"] / views.nullif(0), 0.0)


def views(table: ir.Table, key: str, at_least: int = 0) -> ir.IntegerColumn:
    """Views of `key`; 0 below `at_least`."""
    found = table[f"{key}__views"]
    return (found >= at_least).ifelse(found, 0)


def confidence(views: ir.NumericColumn, ads: ir.NumericColumn) -> ir.FloatingColumn:
    """How sure a published rate is: ln(1 + s) / log2(100001) of s = views per ad, 1 from 100,000 on.

    The two logarithms have different bases, as published: the confidence jumps from 0.69 to 1 at the end.
    """
    s = views / ads.nullif(0)
    return ibis.cases((s >= 100_000, 1.0), (s > 0, (s + 1).ln() / math.log2(100_001)), else_=0.0)


def rate_confidence(table: ir.Table, key: str, at_least: int) -> ir.FloatingColumn:
    """`confidence` of the rate of `key`; 0 below `at_least` views."""
    found = table[f"{key}__views"]
    return (found >= at_least).ifelse(confidence(found, table[f"{key}__ads"]), 0.0)


def store_aspect_rates(engine: Engine) -> None:
    """Stores `aspect_rates`: document_id and, per kind, `pop_<kind>` and `pop_<kind>_conf`: what the categories
    (topics, entities) of an ad's document say of its click rate.

    With ctr and conf of an aspect over all training rows whose ad's document has it (conf: `confidence` times the mean
    of its confidence in these rows), and its confidence d in this document: Σ ctr·conf·d / Σ conf·d and max conf·d,
    over aspects of more than 10 views (entities: 5).
    """
    shown = engine.table("ad_counts").inner_join(
        engine.table("aspects").select("kind", "aspect", document="document_id", sure="confidence"),
        [("document_id_promo", "document")])
    rates = shown.group_by("kind", "aspect").aggregate(
        views=shown.views.sum(), clicks=shown.clicks.sum(), sure=(shown.sure * shown.views).sum(),
        ads=shown.ad_id.nunique(where=shown.views > 0))
    rates = rates.filter(rates.views >= (rates.kind == KINDS.index("entities")).ifelse(6, 11))
    rates = engine.materialise(rates.select(
        "kind", rated="aspect", ctr=rates.clicks / rates.views,
        conf=confidence(rates.views, rates.ads) * rates.sure / rates.views), "rates_of_aspects")
    aspects = engine.table("aspects").select("document_id", "aspect", "confidence")
    of_document = aspects.inner_join(rates, [("aspect", "rated")])
    weight = of_document.conf * of_document.confidence
    found = {}
    for index, kind in enumerate(KINDS):
        mine = of_document.kind == index
        sums = [mine.ifelse(x, 0.0).sum() for x in (of_document.ctr * weight, weight)]
        found |= {f"pop_{kind}": ibis.coalesce(sums[0] / sums[1].nullif(0), 0.0),
                  f"pop_{kind}_conf": mine.ifelse(weight, 0.0).max()}
    engine.materialise(of_document.group_by("document_id").aggregate(**found), "aspect_rates")
