"""What is known of documents: source, publisher, publish time; what they are about, and how alike two of them are."""

from __future__ import annotations

from typing import Literal

import ibis
import ibis.expr.types as ir

from clickwise.encoding.further_operations import FINE, fine
from clickwise.prepare import steps
from clickwise.prepare.engine import Engine
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.outbrain.raw import ASPECTS, published
from clickwise.progress import Progress

KINDS = tuple(ASPECTS)
Publisher = Literal["as_is", "per_source", "per_document"]
Idf = Literal["log", "log_log"]
Documents = Literal["all", "with_source", "largest_id"]


def store_documents(engine: Engine, *, missing_publisher: Publisher, keep_without_source: bool) -> None:
    """Stores `documents`: document_id, source_id, publisher_id, published (seconds since 1970); one row each.

    missing_publisher    as_is · per_source: documents without a publisher share a new one with the others of their
                         source, numbered from the greatest publisher + 1 on · per_document: each gets one of its own.
                         NOTE[DIFF] the references number sources by chance, documents by their place in the file from
                         one later on, and under per_source a document of a source with and without publishers comes
                         several times; here sources (documents) are numbered in ascending order and every document
                         comes once
    keep_without_source  documents without a source stay; else they are as if unknown, and so are their publishers
    """
    meta = engine.table("documents_meta")
    table = meta.select("document_id", "source_id", "publisher_id", published=published(meta))
    if not keep_without_source:
        table = table.filter(table.source_id.notnull())
    if missing_publisher != "as_is":
        key = "source_id" if missing_publisher == "per_source" else "document_id"
        first = (engine.row(table.aggregate(n=table.publisher_id.max()))["n"] or 0) + 1
        without = table.filter(table.publisher_id.isnull() & table[key].notnull()).select(key).distinct()
        new = without.select(new_key=without[key],
                             new_publisher=ibis.row_number().over(order_by=without[key]).cast("int64") + first)
        joined = table.left_join(engine.materialise(new, "new_publishers"), [(key, "new_key")])
        table = joined.select("document_id", "source_id", "published",
                              publisher_id=joined.publisher_id.fill_null(joined.new_publisher))
    engine.materialise(table, "documents")


# ---- aspects: the categories, topics and entities of documents


def store_aspects(folder: PreparationFolder, *, idf: Idf, documents: Documents, viewed: bool = False) -> None:
    """Stores, of the documents of `displays` and `ads` (with `viewed`, of `page_views` too), `aspects`: document_id,
    kind (an index of KINDS), aspect (an integer, not shared between kinds), confidence, rarity (ln(N/df)), unit; and
    vocabularies `aspect_<kind>` (value, id, count), which are written to preparation/aspects/ too, with their rarity.

    A document that has an aspect twice has it with the greater confidence (NOTE[DIFF] Spark takes that of the later row
    and has it twice in lists, NVTabular takes their sum). With df the rows of the raw table that have
    the aspect, and N as `documents` says (all of documents_meta, those with a source, or the greatest id in the
    aspect's table + 1), idf is ln(N/df), or ln(ln(N/df)); 0 where that does not exist or N ≤ df. `unit` is
    confidence · idf over the length of the document's vector of the kind, so that the inner product of two documents is
    their cosine; 0 where that length is.
    """
    engine, parts = folder.engine, []
    meta = engine.table("documents_meta")
    (folder.preparation / "aspects").mkdir(exist_ok=True)
    used = [engine.table("displays").select("document_id"),
            engine.table("ads").select(document_id="document_id_promo")]
    if viewed:
        used.append(engine.table("page_views").select("document_id"))
    used = engine.materialise(ibis.union(*used).distinct(), "used_documents")
    with Progress("weighing aspects", total=len(KINDS), unit="tables") as bar:
        for index, (kind, id_) in enumerate(ASPECTS.items()):
            raw = engine.table(f"documents_{kind}")
            vocabulary = engine.materialise(steps.vocabulary(raw, id_), f"aspect_{kind}")
            if documents == "largest_id":
                n = raw.aggregate(n=raw.document_id.max() + 1)
            else:
                n = meta.aggregate(n=meta.count() if documents == "all" else meta.source_id.count())
            n = engine.row(n)["n"]
            engine.write_parquet(vocabulary.mutate(rarity=inverse_document_frequency(n, vocabulary["count"], "log"))
                                 .order_by("id"), folder.preparation / "aspects" / f"{kind}.parquet")
            rows = raw.semi_join(used, "document_id").inner_join(vocabulary, raw[id_] == vocabulary["value"])
            rows = rows.group_by("document_id", "id", "count").aggregate(confidence=rows.confidence_level.max())
            rarity, weight = (inverse_document_frequency(n, rows["count"], each)
                              for each in ("log", idf))
            parts.append(rows.select("document_id", "confidence", kind=ibis.literal(index, "int8"), rarity=rarity,
                                     weight=weight * rows.confidence,
                                     aspect=rows["id"].cast("int64") * len(KINDS) + index))
            bar.advance(1, kind)
        table = engine.materialise(ibis.union(*parts), "aspects_without_length")
        length = (table.weight * table.weight).sum().over(ibis.window(group_by=[table.document_id, table.kind])).sqrt()
        table = table.mutate(unit=ibis.coalesce(table.weight / length.nullif(0), 0.0)).drop("weight")
        engine.materialise(table, "aspects")
        engine.drop("aspects_without_length")


def inverse_document_frequency(n: int, df: ir.IntegerColumn, kind: Idf) -> ir.FloatingColumn:
    """ln(n/df), or ln(ln(n/df)), in float64; 0 where df ≥ n."""
    logarithm = (ibis.literal(float(n)) / df).ln()
    return ibis.cases((df < n, logarithm if kind == "log" else logarithm.ln()), else_=0.0)


def store_similarities(engine: Engine) -> None:
    """Stores `similarities`: document_id, document_id_promo and the cosine per kind (`sim_<kind>`), one row for every
    pair of an event's document and an ad's that share an aspect; any other pair has none."""
    examples = engine.table("examples")
    with Progress("comparing documents", unit="pairs") as bar:
        pairs = examples.select("document_id", "ad_id").inner_join(
            engine.table("ads").select("ad_id", "document_id_promo"), "ad_id")
        pairs = engine.materialise(pairs.select("document_id", "document_id_promo").distinct(), "pairs")
        bar.advance(engine.count(pairs))
        of_event = engine.table("aspects").select("document_id", "kind", "aspect", "unit")
        of_ad = of_event.select(promo="document_id", promo_aspect="aspect", promo_unit="unit")
        both = pairs.inner_join(of_event, "document_id")
        both = both.inner_join(of_ad, [both.document_id_promo == of_ad.promo, both.aspect == of_ad.promo_aspect])
        product = both.unit * both.promo_unit
        similar = both.group_by("document_id", "document_id_promo").aggregate(
            **{f"sim_{kind}": (both.kind == index).ifelse(fine(product), 0).sum().cast("float64") / FINE
               for index, kind in enumerate(KINDS)})
        engine.materialise(similar, "similarities")
        engine.drop("pairs")


# ---- lists of aspects as features


def ranked_aspects(engine: Engine, kind: str) -> ir.Table:
    """document_id, id (of the vocabulary `aspect_<kind>`), rank: the least for the aspect of greatest confidence."""
    aspects = engine.table("aspects")
    index = KINDS.index(kind)
    aspects = aspects.filter(aspects.kind == index)
    return aspects.select("document_id", id=(aspects.aspect - index) // len(KINDS), rank=-aspects.confidence)


def aspects_as_listed(engine: Engine, kind: str) -> ir.Table:
    """The same with the aspects of a document in the order of the raw file."""
    vocabulary = engine.table(f"aspect_{kind}")
    raw = engine.numbered(engine.table(f"documents_{kind}")).semi_join(engine.table("used_documents"), "document_id")
    joined = raw.inner_join(vocabulary, raw[ASPECTS[kind]] == vocabulary["value"])
    return joined.group_by("document_id", "id").aggregate(rank=joined.row.min())


def lists(ranked: ir.Table, ids: ir.Table, most: int) -> ir.Table:
    """document_id, `ids`: of the aspects of every document that are in `ids` (value, id) the first `most` by rank,
    equal ones by their own id."""
    known = ranked.inner_join(ids.select(value="value", new="id"), ranked.id == ids.value)
    order = ibis.window(group_by="document_id", order_by=[known["rank"], known.id])
    known = known.mutate(position=ibis.row_number().over(order)).filter(lambda t: t.position < most)
    pair = ibis.struct({"position": known.position, "id": known.new})
    collected = known.group_by("document_id").aggregate(pairs=pair.collect())
    return collected.select("document_id", ids=collected.pairs.sort().map(lambda pair: pair["id"]).cast("array<int32>"))
