"""The 26 features `v1_spark` of Outbrain in plain PySpark: the rival of `prepare_outbrain.py`, run by spark-submit.

Written as one would write it: DataFrames, joins, group-bys, no Python functions by row, every table that is used twice
cached. The split and all formulas are those of `clickwise prepare`, so that the two outputs can be compared.

    spark-submit --master local[2] --driver-memory 6g benchmarks/outbrain_spark.py RAW OUT

With a file in $STATUS it writes there what /proc tells of this process and of its parent, the Java machine.
"""

import os
import sys
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

FIRST_MS, DAY_MS = 1_465_876_799_998, 86_400_000
SCHEMAS = {
    "clicks_train": "display_id long, ad_id long, clicked int",
    "events": "display_id long, uuid string, document_id long, timestamp long, platform int, geo_location string",
    "promoted_content": "ad_id long, document_id_promo long, campaign_id long, advertiser_id long",
    "documents_meta": "document_id long, source_id long, publisher_id long, publish_time timestamp",
    "documents_categories": "document_id long, aspect string, confidence double",
    "documents_topics": "document_id long, aspect string, confidence double",
    "documents_entities": "document_id long, aspect string, confidence double",
}
RATES = {"ad_id": ("pop_ad_id", 5), "document_id_promo": ("pop_document_id", 5),
         "source_id_promo": ("pop_source_id", 10),
         "publisher_id_promo": ("pop_publisher_id", 10), "advertiser_id": ("pop_advertiser_id", 10),
         "campaign_id": ("pop_campain_id", 10)}
MODULI = {"doc_event_id": ("document_id", 300_000), "event_platform": ("platform_code", 4),
          "doc_id": ("document_id_promo", 100_000), "doc_event_source_id": ("source_id", 4000),
          "doc_event_publisher_id": ("publisher_id", 1000), "event_geo_location": ("geo_code", 2500),
          "event_country": ("country_code", 300), "event_country_state": ("state_code", 2000), "ad": ("ad_id", 250_000),
          "ad_advertiser": ("advertiser_id", 2500), "doc_ad_source_id": ("source_code_promo", 4000),
          "doc_ad_publisher_id": ("publisher_id_promo", 1000), "campaign": ("campaign_id", 5000)}


def main(raw: str, out: str) -> None:
    spark = SparkSession.builder.config("spark.sql.shuffle.partitions", 16).getOrCreate()
    tables = {name: spark.read.csv(f"{raw}/{name}.csv", schema=schema, header=True, nullValue="\\N")
              for name, schema in SCHEMAS.items()}
    displays = displays_of(tables["clicks_train"], tables["events"])
    meta, documents = documents_of(tables["documents_meta"])
    rows = tables["clicks_train"].join(displays, "display_id")
    rows = rows.join(tables["promoted_content"], "ad_id", "left")
    promo = meta.select(*(F.col(name).alias(f"{name}_promo") for name in meta.columns))
    rows = rows.join(meta, "document_id", "left").join(promo, "document_id_promo", "left").cache()
    for key, (name, least) in RATES.items():
        counts = rows.filter(~F.col("test")).groupBy(key).agg(F.count("*").alias("views"), F.sum("clicked").alias("n"))
        counts = counts.filter(F.col("views") > least).select(key, (F.col("n") / F.col("views")).alias(name),
                                                             F.col("views").alias(f"views_{key}"))
        rows = rows.join(counts, key, "left")
    for kind in ("categories", "topics", "entities"):
        rows = rows.join(similarities(rows, tables[f"documents_{kind}"], documents).withColumnRenamed(
            "sim", f"doc_event_doc_ad_sim_{kind}"), ["document_id", "document_id_promo"], "left")
    rows = scaled(rows.cache())
    ids = [F.pmod(F.coalesce(column, F.lit(0)), F.lit(size)).cast("int").alias(name)
           for name, (column, size) in MODULI.items()]
    numbers = [F.coalesce(F.col(name), F.lit(0.0)).cast("float").alias(name) for name in rows.columns
               if name.startswith(("pop_", "doc_event_doc", "scaled_"))]
    done = rows.select("test", "display_id", "ad_id", "clicked", *ids, *numbers)
    done.filter(~F.col("test")).drop("test").write.parquet(f"{out}/train")
    done.filter("test").drop("test").orderBy("display_id").write.parquet(f"{out}/test")


def displays_of(clicks: DataFrame, events: DataFrame) -> DataFrame:
    """display_id, its event, whether it is a test display; counts of events stand for places, −1 for missing ones."""
    hashed = F.conv(F.substring(F.md5(F.concat(F.lit("0/"), F.col("display_id").cast("string"))), 1, 15), 16, 10)
    events = events.withColumn("test", (F.floor(F.col("timestamp") / DAY_MS) >= 11)
                               | (hashed.cast("long") < int(0.2 * 2**60)))
    events = events.withColumn("geo", F.col("geo_location")).withColumn("country", F.substring(F.trim("geo"), 1, 2))
    events = events.withColumn("state", F.substring(F.trim("geo"), 1, 5)).cache()
    known = events.filter(F.col("geo").isNotNull() & F.col("platform").isNotNull())
    found = known.select("display_id", "document_id", "timestamp", (F.col("platform") - 1).alias("platform_code"),
                         "geo", "country", "state")
    for name in ("geo", "country", "state"):
        counts = known.groupBy(name).count()
        code = F.when(F.col("count") >= 10, F.col("count")).otherwise(-1)
        found = found.join(counts.select(name, code.alias(f"{name}_code")), name, "left")
    displays = events.select("display_id", "test").join(clicks.select("display_id").distinct(), "display_id")
    return displays.join(found, "display_id", "left").fillna(-1, ["geo_code", "country_code", "state_code"])


def documents_of(meta: DataFrame) -> tuple[DataFrame, int]:
    """Documents with a source, a publisher for each; how many."""
    greatest = meta.agg(F.max("publisher_id")).first()[0]
    meta = meta.filter(F.col("source_id").isNotNull()).cache()
    new = meta.filter(F.col("publisher_id").isNull()).select("source_id").distinct().withColumn(
        "new", F.row_number().over(Window.orderBy("source_id")) + greatest)
    meta = meta.join(new, "source_id", "left").withColumn("publisher_id", F.coalesce("publisher_id", "new")).drop("new")
    return meta.select("document_id", "source_id", "publisher_id", "publish_time"), meta.count()


def similarities(rows: DataFrame, aspects: DataFrame, documents: int) -> DataFrame:
    """document_id, document_id_promo, sim: the cosine of ln ln(N/df) · confidence."""
    df = aspects.groupBy("aspect").agg(F.count("*").alias("df"))
    idf = F.when(F.col("df") < documents, F.log(F.log(documents / F.col("df")))).otherwise(0.0)
    vectors = aspects.groupBy("document_id", "aspect").agg(F.max("confidence").alias("confidence")).join(df, "aspect")
    vectors = vectors.select("document_id", "aspect", (idf * F.col("confidence")).alias("w")).cache()
    lengths = vectors.groupBy("document_id").agg(F.sqrt(F.sum(F.col("w") * F.col("w"))).alias("length"))
    vectors = vectors.join(lengths, "document_id").select(
        "document_id", "aspect", F.when(F.col("length") > 0, F.col("w") / F.col("length")).otherwise(0.0).alias("unit"))
    promo = vectors.select(F.col("document_id").alias("document_id_promo"), "aspect", F.col("unit").alias("other"))
    pairs = rows.select("document_id", "document_id_promo").distinct()
    both = pairs.join(vectors, "document_id").join(promo, ["document_id_promo", "aspect"])
    return both.groupBy("document_id", "document_id_promo").agg(F.sum(F.col("unit") * F.col("other")).alias("sim"))


def scaled(rows: DataFrame) -> DataFrame:
    """Counts and days as log2(1 + x), from 0 to 1 over all rows; the code of an ad's source."""
    def days(published: str):
        found = F.floor((F.col("timestamp") + FIRST_MS - F.col(published).cast("long") * 1000) / DAY_MS)
        return F.when(found.between(0, 3650), found).otherwise(0)

    logs = {"scaled_doc_views": F.col("views_document_id_promo"), "scaled_ad_views": F.col("views_ad_id"),
            "scaled_days": days("publish_time"), "scaled_days_promo": days("publish_time_promo")}
    for name, column in logs.items():
        rows = rows.withColumn(name, F.log2(1 + F.coalesce(column, F.lit(0))))
    ends = rows.agg(*(function(name).alias(f"{word}_{name}") for name in logs
                      for word, function in (("low", F.min), ("high", F.max)))).first()
    for name in logs:
        low, high = ends[f"low_{name}"], ends[f"high_{name}"]
        rows = rows.withColumn(name, (F.col(name) - low) / ((high - low) or 1.0))
    return rows.withColumn("source_code_promo", F.coalesce("source_id_promo", F.lit(-1)))


if __name__ == "__main__":
    main(*sys.argv[1:])
    if "STATUS" in os.environ:
        Path(os.environ["STATUS"]).write_text(
            "".join(Path(f"/proc/{process}/status").read_text() for process in ("self", os.getppid())))
