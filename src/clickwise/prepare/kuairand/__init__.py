"""KuaiRand (Gao et al., CIKM 2022): impressions of a short-video app, with attributes of users and videos, to columns.

The path: raw files → one table of impressions in the order of time → counts of earlier days → vocabularies and scales
of the training days → raw columns. The sample that is shipped and the full KuaiRand-Pure, -1K and -27K have the same
columns. Outcomes of an impression (likes, play time, …) never become inputs; its click is the label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from clickwise.encoding import Encoding
from clickwise.encoding.operations import Standardize
from clickwise.errors import PrepareError
from clickwise.feature_spec import Feature, FeatureSpec, narrowest_id_dtype
from clickwise.files import shipped, whole_file
from clickwise.prepare import steps, write
from clickwise.prepare.engine import Engine
from clickwise.prepare.kuairand.config import KuaiRandConfig
from clickwise.prepare.kuairand.encoding import EVENTS, RAW, store_encoding
from clickwise.prepare.kuairand.history import LOG_COLUMNS, TIME, store_history, target_features, write_history
from clickwise.prepare.kuairand.log import DISPLAY, ITEM, LABEL, TAGS, store_impressions
from clickwise.prepare.kuairand.numbers import store_numbers
from clickwise.prepare.preparation import Preparation
from clickwise.prepare.raw_files import find_files, find_tables, raw_folder
from clickwise.prepare.vocabularies import store_vocabularies
from clickwise.prepare.written import EXAMPLE_ROWS, EXAMPLES, check_examples, save_encoding

LICENCE = ("CC BY-SA 4.0. Gao et al., KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed "
           "Videos, CIKM 2022, doi:10.1145/3511808.3557624; data doi:10.5281/zenodo.10439422")


class KuaiRand(Preparation):
    """`split_binary` columns, and a log of events where there is a history.

    Mappings: train, validation (if there is one) and test; their display is the user's day, and the video's own id
    goes along in the channel `item`, which no model reads.
    """

    Config = KuaiRandConfig
    file_keys = ("folder", "log", "users", "videos")

    @property
    def trained_by(self) -> str:
        return "kuairand/dlrm" if self.config.history is None else "kuairand/sim"

    def metadata(self) -> dict[str, Any]:
        return {"licence": LICENCE}

    def raw_files(self) -> dict[str, list[Path]]:
        config = self.config
        folder = raw_folder(shipped("data/kuairand_pure") if config.folder is None else Path(config.folder),
                            f"{self.where}.folder", do="or null, for the sample that is shipped")
        files = {key: find_tables(folder, getattr(config, key), f"{self.where}.{key}")
                 for key in ("log", "users", "videos")}
        if config.history is not None and "watched" in config.history.sources:
            files["watched"] = find_files([str(folder / pattern) for pattern in config.history.watched],
                                          f"{self.where}.history.watched")
        return files

    def store(self, files: Mapping[str, Sequence[Path]]) -> None:
        config, self.watched = self.config, files.get("watched", ())
        needs = () if config.history is None else config.history.needs
        self.read = self.folder.stage("impressions", lambda: store_impressions(
            self.folder, files, features=(*config.numerical, *config.categorical, *needs),
            max_bad_rows=config.max_bad_rows))
        self.parts = self._split()

    def _split(self) -> dict[str, tuple[int, int]]:
        """Mapping -> its rows first … end−1 of the impressions, which stand in the order of days."""
        config, table = self.config, self.engine.table("impressions")
        days = {key: getattr(config, key) for key in ("train_from", "validation_from", "test_from")}
        found = self.engine.row(table.aggregate(
            low=table.date.min(), high=table.date.max(), rows=table.count(),
            **{key: table.count(where=table.date < (day or 0)) for key, day in days.items()}))
        first, test, rows = found["train_from"], found["test_from"], found["rows"]
        parts = {"train": (first, test), "test": (test, rows)}
        if config.validation_from is not None:
            parts["validation"] = (found["validation_from"], test)
            if not config.train_on_validation:
                parts["train"] = (first, found["validation_from"])
        for mapping, (first, end) in parts.items():
            if first >= end:
                log = f"a log from {found['low']} to {found['high']}"
                raise PrepareError(f"{self.where}.{mapping}_from", found=f"no impressions for {mapping} in {log}",
                                   expected="at least one", do="choose other days")
        return parts

    # ---- what is fitted on the training rows

    def fit(self) -> None:
        config, train = self.config, self.parts["train"]
        until = config.test_from - 1 if config.count_until == "training" else None
        self.sizes, self.most_tags = self.folder.stage("vocabularies", self._fit_vocabularies)
        fitted = self.folder.stage("numbers", lambda: store_numbers(
            self.folder, config.numerical, train=train, rate_weight=config.rate_weight, last_counted=until,
            last_moment=config.test_from - 1 if config.moments_until == "training" else None,
            when="time_ms" if config.count_until == "earlier_moments" else "date")) if config.numerical else {}
        self.scales, self.prior = fitted.get("scales", {}), fitted.get("mean_click_rate", 0.5)
        self.history = self.folder.stage("history", lambda: store_history(
            self.folder, config.history, self.watched, train=train, clicked_until=until)) if config.history else {}

    def _fit_vocabularies(self) -> tuple[dict[str, int], int | None]:
        """Fits one vocabulary per categorical feature, and stores `tag_ids`; feature -> cardinality, and the most tags
        that a row has, at least 2 (None without that feature)."""
        tables = {}
        for name in self.config.categorical:
            tables[name] = self._rows("train", ["tag" if name == TAGS else name])
            if name == TAGS:
                tables[name] = steps.explode(tables[name].select(tags=_tag_list(tables[name].tag)), TAGS)
        sizes = store_vocabularies(self.folder, tables, self.config.limit)
        return sizes, _store_tag_ids(self.engine) if TAGS in sizes else None

    def _rows(self, mapping: str, columns: Sequence[str]) -> ir.Table:
        impressions = self.engine.numbered(self.engine.table("impressions"))
        return steps.rows_between(impressions.select("row", *columns), *self.parts[mapping])

    # ---- ids and numbers -> columns on disk

    def write(self) -> None:
        config, engine, items = self.config, self.engine, self.history.get("sizes", {})
        features = {name: Feature(name, "float16") for name in config.numerical}
        features |= {name: Feature(name, narrowest_id_dtype(size), size, self.most_tags if name == TAGS else None)
                     for name, size in self.sizes.items()}
        features |= {DISPLAY: Feature(DISPLAY, "int64"), ITEM: Feature(ITEM, "int64"), LABEL: Feature(LABEL, "bool")}
        if config.history is not None:
            features |= target_features(config.history, items)
            features |= {name: Feature(name, "int64" if name == TIME else "int32") for name in config.history.columns}

        def columns(mapping: str, names: tuple[str, ...]) -> ir.Table:
            """Several files are written from one query: joins without a selection between them compile fast."""
            part = self.parts[mapping]
            if names == (TAGS,):
                return steps.rows_between(engine.table("tag_ids"), *part)
            table = engine.numbered(engine.table("impressions"))
            table = table.filter((table["row"] >= part[0]) & (table["row"] < part[1]))
            for stored, on, key, held in (("numbers", "row", "row", self.scales),
                                          ("history_positions", "row", "row", LOG_COLUMNS),
                                          ("video_ids", "video_id", "key", items)):
                if found := {f"__of_{name}": name for name in names if name in held}:
                    table = table.left_join(engine.table(stored).select(**{f"__{stored}": key}, **found),
                                            [(on, f"__{stored}")])
            for name in (name for name in names if name in self.sizes):
                ids = engine.table(f"vocabulary_{name}").select(**{f"__value_{name}": "value", f"__of_{name}": "id"})
                table = table.left_join(ids, [(name, f"__value_{name}")])

            def column(name: str) -> ir.Column:
                if name in self.scales:
                    return Standardize(**self.scales[name]).bulk(table[f"__of_{name}"]).cast("float32")
                if name in self.sizes:
                    return table[f"__of_{name}"].fill_null(0)
                return table[name] if name in (DISPLAY, ITEM, LABEL) else table[f"__of_{name}"]

            return table.select(row=table["row"] - part[0], **{name: column(name) for name in names})

        spec = write.write_dataset(self.folder, columns, features=features, channels=config.channels, rows=self.rows,
                                   shuffle_seed=config.seed if config.shuffle else None, one_pass=True)
        if config.history is not None:
            spec = write_history(self.folder, config.history, spec, items)
        self.folder.stage("encoding", lambda: self._save_encoding(spec))

    def _save_encoding(self, spec: FeatureSpec) -> None:
        places = self.config.history.columns if self.config.history is not None else ()
        features = {name: spec.features[name] for channel, names in self.config.channels.items() for name in names
                    if name not in places}
        encoding = store_encoding(self.folder, self.config, features, self.scales, self.prior)
        save_encoding(self.folder, encoding)
        row_B = self._write_examples(is_log=encoding.goes_on)
        check_examples(self.folder, spec, Encoding.load(self.folder.preparation), row_B)

    def _write_examples(self, is_log: bool) -> np.ndarray:
        """Writes the first rows of the test mapping, or the beginning of the log that the states go on with: all
        impressions from the first moment of the test days on. Which rows of that mapping they are, −1 for none."""
        first, end = self.parts["test"]
        rows = self.engine.numbered(self.engine.table("impressions"))
        is_test = rows["row"] >= first
        if is_log:
            begins = self.engine.row(rows.aggregate(ms=rows.time_ms.min(where=is_test)))["ms"]
            rows = rows.filter(rows.time_ms >= begins).order_by(*EVENTS.order)
        else:
            rows = rows.filter(is_test).order_by("row")
        batches = self.engine.batches(rows.select("row", *RAW).limit(EXAMPLE_ROWS))
        table = pa.Table.from_batches(batches).sort_by([(name, "ascending") for name in (EVENTS.order if is_log
                                                                                       else ["row"])])
        with whole_file(self.folder.preparation / EXAMPLES) as temporary:
            parquet.write_table(table.drop_columns("row"), temporary)
        return np.maximum(table["row"].to_numpy() - first, -1)

    @property
    def rows(self) -> dict[str, int]:
        return {mapping: end - first for mapping, (first, end) in self.parts.items()}

    def summary(self) -> dict[str, Any]:
        history = dict(self.history)
        sizes = self.sizes | history.pop("sizes", {})
        return {"rows": self.rows, **self.read, "cardinalities": sizes, **({"history": history} if history else {})}


DATASET = KuaiRand


def _tag_list(tag: ir.StringColumn) -> ir.ArrayColumn:
    """`"12, 7"` -> ["12", "7"]."""
    return tag.split(",").map(lambda text: text.strip()).filter(lambda text: text != "")


def _store_tag_ids(engine: Engine) -> int:
    """Stores `tag_ids` (row and the ids of its known tags); the most tags that a row has, at least 2."""
    impressions, vocabulary = engine.numbered(engine.table("impressions")), engine.table(f"vocabulary_{TAGS}")
    texts = impressions.filter(impressions.tag.notnull()).select("tag").distinct()
    lists = steps.encode_list(texts.mutate(tags=_tag_list(texts.tag)), TAGS, vocabulary, row="tag", drop_unknown=True)
    lists = engine.materialise(lists, "tag_lists")
    joined = steps.look_up(impressions.select("row", "tag"), lists, {"tag": "tag"}, {TAGS: TAGS})
    stored = engine.materialise(
        joined.select("row", tags=ibis.coalesce(joined[TAGS], ibis.literal([], "array<int32>"))), "tag_ids")
    return max(2, engine.row(stored.aggregate(most=stored[TAGS].length().max()))["most"])
