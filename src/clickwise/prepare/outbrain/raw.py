"""The raw files of Outbrain -> tables that have been looked at: every display has an event, every ad a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import ibis
import ibis.expr.types as ir

from clickwise.errors import PrepareError
from clickwise.prepare.engine import Engine
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.named_columns import RawTable, Reader
from clickwise.prepare.raw_files import named
from clickwise.progress import Progress

MISSING = ("", "\\N")
ASPECTS = {"categories": "category_id", "topics": "topic_id", "entities": "entity_id"}


# Ids that a float holds too; traffic sources are stored as int8; times lie within a century of the log (ms).
IDS = (-(2**53), 2**53)
WITHIN = {"clicked": (0, 1), "traffic_source": (0, 127), "confidence_level": (0, 1),
          "timestamp": (-100 * 365 * 86_400_000, 100 * 365 * 86_400_000)}


def _table(name: str, required: Sequence[str], optional: Mapping[str, str] | None = None,
           types: Mapping[str, str] | None = None) -> RawTable:
    columns = {column: (types or {}).get(column, "int64") for column in required} | (optional or {})
    within = {column: WITHIN.get(column, IDS) for column, type_ in columns.items() if type_ != "string"}
    return RawTable(name=name, columns=columns, required=required, within=within, missing=MISSING)


TABLES = {table.name: table for table in (
    _table("clicks", ("display_id", "ad_id", "clicked")),
    _table("events", ("display_id", "uuid", "document_id", "timestamp"),
           {"platform": "int64", "geo_location": "string"}, {"uuid": "string"}),
    _table("promoted_content", ("ad_id",), dict.fromkeys(("document_id", "campaign_id", "advertiser_id"), "int64")),
    _table("documents_meta", ("document_id",),
           {"source_id": "int64", "publisher_id": "int64", "publish_time": "string"}),
    *(_table(f"documents_{kind}", ("document_id", id_, "confidence_level"), types={
        "confidence_level": "float64", "entity_id": "string"}) for kind, id_ in ASPECTS.items()),
)}
PAGE_VIEWS = _table("page_views", (), {"uuid": "string", **dict.fromkeys(("document_id", "timestamp",
                                                                          "traffic_source"), "int64")})
TEST_DISPLAYS = _table("test_displays", ("display_id",))
TABLES |= {table.name: table for table in (PAGE_VIEWS, TEST_DISPLAYS)}
FILES = {name: f"{name}.*" for name in TABLES if name != "test_displays"} | {"clicks": "clicks_train.*"}
UNIQUE = {"events": "display_id", "promoted_content": "ad_id", "documents_meta": "document_id"}


def store_raw_tables(folder: PreparationFolder, files: Mapping[str, Sequence[Path]], *, max_bad_rows: int,
                     max_aspects: int) -> dict:
    """Stores a table of TABLES for every entry of `files`, and `shown_displays` (display_id, ads, clicks) and
    `shown_ads` (ad_id) of the clicks; page views are only looked at, and users of events kept only where there are page
    views. The columns of every file are looked at before any is read.

    Raises PrepareError for what cannot be read and for what does not fit together; returns what was counted.
    """
    engine, reader = folder.engine, Reader(folder, max_bad_rows)
    for name, paths in files.items():
        reader.headers(TABLES[name], paths)
    rows = {}
    for name in [name for name in TABLES if name in files and name != "page_views"]:
        table = TABLES[name]
        if name == "events" and "page_views" not in files:
            table = replace(table, columns={column: type_ for column, type_ in table.columns.items()
                                            if column != "uuid"}, required=("display_id", "document_id", "timestamp"))
        rows[name] = _looked_at(engine, reader.store(table, files[name]), table, files[name])
    with Progress("looking at raw tables", total=len(UNIQUE) + 2 + len(ASPECTS), unit="checks") as bar:
        for name, key in UNIQUE.items():
            reader.check_unique(engine.table(name), key, files[name])
            bar.advance(1, name)
        _check_known(engine, files)
        bar.advance(2)
        for kind in ASPECTS:
            _check_aspects(engine, f"documents_{kind}", max_aspects, files)
            bar.advance(1, kind)
    return {"rows_read": rows, "bad_rows_skipped": reader.bad_rows.found}


def published(documents_meta: ir.Table) -> ir.IntegerColumn:
    """publish_time as seconds since 1970; missing where it is no moment."""
    return documents_meta.publish_time.try_cast("timestamp").epoch_seconds().cast("int64")


def _looked_at(engine: Engine, table: ir.Table, raw: RawTable, files: Sequence[Path]) -> int:
    """The rows of a raw table in which no column is without any value."""
    found = engine.row(table.aggregate(rows=table.count(), **{name: table[name].count() for name in raw.columns}))
    if "publish_time" in raw.columns:
        found["publish_time"] = engine.row(table.aggregate(n=published(table).count()))["n"]
    check_values(found, raw, files)
    if "clicked" in raw.columns:
        clicks = engine.row(table.aggregate(n=table.clicked.sum()))["n"]
        if not clicks:
            raise PrepareError(named(files), found=f"{found['rows']:,} rows without a click",
                               expected="one click in every display",
                               do="clicks_train.csv has them; clicks_test.csv has no labels")
    return found["rows"]


def check_values(found: Mapping[str, int], raw: RawTable, files: Sequence[Path]) -> None:
    """Raises PrepareError where `found`, how many `rows` there are and how many have a value of each column, has 0."""
    for name in raw.columns:
        if not found[name]:
            text = "no moment as YYYY-MM-DD HH:MM:SS" if name == "publish_time" else "no value"
            raise PrepareError(named(files), found=f"{text} of {name} in any of {found['rows']:,} rows",
                               expected="a value in some of them", do="check how the file was written")


def _check_known(engine: Engine, files: Mapping[str, Sequence[Path]]) -> None:
    """Every display of the clicks has an event, every ad is promoted content with a document."""
    clicks, ads = engine.table("clicks"), engine.table("promoted_content")
    displays = clicks.group_by("display_id").aggregate(ads=clicks.count(),
                                                       clicks=clicks.count(where=clicks.clicked == 1))
    for key, shown, table, what in (
            ("display_id", engine.materialise(displays, "shown_displays"), engine.table("events"), "events"),
            ("ad_id", engine.materialise(clicks.select("ad_id").distinct(), "shown_ads"),
             ads.filter(ads.document_id.notnull()), "promoted_content")):
        unknown = shown.anti_join(table, key)
        found = engine.row(unknown.aggregate(n=unknown.count(), example=unknown[key].min()))
        if found["n"]:
            name, wanted = ("display", "an event") if key == "display_id" else ("ad", "a document")
            many = f"{found['n']:,} {name}" + ("" if found["n"] == 1 else "s")
            raise PrepareError(named(files["clicks"]),
                               found=f"{many} without {wanted}, {key} {found['example']} for example",
                               expected=f"every {key} with a row in {named(files[what])}",
                               do="use files of one and the same download, all of them whole")


def _check_aspects(engine: Engine, name: str, most: int, files: Mapping[str, Sequence[Path]]) -> None:
    table = engine.table(name)
    counts = table.group_by("document_id").aggregate(n=table.count())
    found = engine.row(counts.order_by([ibis.desc("n"), "document_id"]))
    if found["n"] > most:
        kind = name.removeprefix("documents_")
        raise PrepareError(named(files[name]), found=f"document {found['document_id']} with {found['n']:,} {kind}",
                           expected=f"at most {most:,}",
                           do="check the file, or allow more with dataset.max_aspects (every pair of documents is "
                              "compared aspect by aspect)")
