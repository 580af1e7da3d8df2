"""Outbrain Click Prediction (Kaggle, 2016): ads shown beside an article, one of each display clicked, to columns.

The path: raw files → displays, split by day and hash → examples in order → what is known of documents and ads, counted
on the training rows → ids and numbers of displays, ads and examples → raw columns. `sets` lists the features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir

from clickwise.encoding import Encoding
from clickwise.feature_spec import Feature, narrowest_id_dtype
from clickwise.files import write_json
from clickwise.prepare import steps, write
from clickwise.prepare.broadcast import BroadcastByKey, Column, store_columns
from clickwise.prepare.outbrain import numbers
from clickwise.prepare.outbrain.config import OutbrainConfig
from clickwise.prepare.outbrain.encoding import DISPLAY, LABEL, store_encoding, write_examples
from clickwise.prepare.outbrain.features import store_features
from clickwise.prepare.outbrain.raw import FILES, store_raw_tables
from clickwise.prepare.outbrain.rows import count_displays, store_ads, store_displays, store_examples
from clickwise.prepare.outbrain.sets import feature_set
from clickwise.prepare.preparation import Preparation
from clickwise.prepare.raw_files import estimate_rows, find_tables, raw_folder
from clickwise.prepare.written import check_examples, save_encoding

TABLE_ROW_BYTES = 130  # of clicks, examples, similarities and `level_example`, for every row
NOT_FOR_NEW_ROWS = "dataset.feature_set={} is as published, made of a whole log at once"
TRAINED_BY = {
    "clickwise": "outbrain/wide_deep", "v1_nvtabular": "outbrain/wide_deep",
    "v1_spark": "outbrain/wide_deep 'model.embedding_sizes={doc_event_id: 128, doc_id: 128, ad_id: 128, "
                "campaign_id: 128, event_platform: 16}'",
    "multihot": "outbrain/wide_deep_multihot", "profiles": "outbrain/wide_deep_profiles"}
KEYS = ("display", "ad")  # of an example: its row in `level_display` and in `level_ad`


class Outbrain(Preparation):
    """`split_binary` columns; mappings train and test, no display is divided between them.

    preparation/ holds what was fitted: vocabularies, rates, scales, counts of aspects and places.
    """

    Config = OutbrainConfig
    file_keys = ("folder", "files", "test_displays")

    @property
    def trained_by(self) -> str:
        return TRAINED_BY[self.config.feature_set]

    def raw_files(self) -> dict[str, list[Path]]:
        config, self.features = self.config, feature_set(self.config.feature_set)
        folder = raw_folder(Path(config.folder), f"{self.where}.folder",
                            do="the raw files are at kaggle.com/c/outbrain-click-prediction; clickwise synth "
                               "outbrain_raw makes files like them")
        files = {name: find_tables(folder, [config.files.get(name, pattern)], f"{self.where}.files.{name}")
                 for name, pattern in FILES.items() if name != "page_views" or self.features.profiles}
        if config.test_displays is not None:
            listed = Path(config.test_displays)
            files["test_displays"] = find_tables(listed.parent, [listed.name], f"{self.where}.test_displays")
        return files

    def tables_bytes(self, files: Mapping[str, Sequence[Path]]) -> int | None:
        rows = estimate_rows(files["clicks"])
        if rows is None or self.features.profiles or any(
                file.suffix != ".csv" for paths in files.values() for file in paths):
            return None
        return rows * TABLE_ROW_BYTES + sum(file.stat().st_size for paths in files.values() for file in paths)

    def store(self, files: Mapping[str, Sequence[Path]]) -> None:
        self.page_views = files.get("page_views", ())
        self.read = self.folder.stage("raw files read", lambda: store_raw_tables(
            self.folder, files, max_bad_rows=self.config.max_bad_rows, max_aspects=self.config.max_aspects))
        self.split = self.folder.stage("displays split", self._split)
        self.engine.drop("clicks")

    def _split(self) -> dict:
        """Stores displays, examples and ads; `parts` (mapping -> rows first … end−1) and `displays` (counts)."""
        config, features = self.config, self.features
        store_displays(self.engine, test_share=config.test_share, test_from_day=config.test_from_day,
                       listed=config.test_displays is not None, seed=config.seed,
                       folds=config.folds if features.out_of_fold else 0, complete_events=features.complete_events)
        parts = store_examples(self.engine, self.where)
        store_ads(self.engine)
        return {"parts": parts, "displays": count_displays(self.engine)}

    def fit(self) -> None:
        self.fitted = self.folder.stage("features", lambda: store_features(
            self.folder, self.config, self.features, self.page_views, train_rows=self.split["parts"]["train"][1]))

    def write(self) -> None:
        """Writes what belongs to displays and to ads once for each, and hands it out to the rows of the mappings."""
        folder, engine, features, parts = self.folder, self.engine, self.features, self.split["parts"]
        scales, sizes = self.fitted["scales"], self.fitted["cardinalities"]
        stored = {name: Feature(name, "float32") for name in features.numbers}
        stored |= {name: Feature(name, narrowest_id_dtype(sizes[name]), cardinality=sizes[name],
                                 max_hotness=features.lists[name].most if name in features.lists else None)
                   for name in (*features.categories, *features.lists)}
        stored |= {DISPLAY: Feature(DISPLAY, "int64"), LABEL: Feature(LABEL, "bool")}
        write_json(folder.preparation / "scales.json", scales)
        named = (features.numbers, features.categories, features.lists)
        level_of = {name: feature.level for each in named for name, feature in each.items()}
        level_of |= {DISPLAY: "display", LABEL: "example"}

        def columns(rows: ir.Table, names: tuple[str, ...]) -> ir.Table:
            if names[0] in features.lists:
                name, of = names[0], features.lists[names[0]].of
                rows = steps.look_up(rows.select("row", f"__{of}"), engine.table(f"list_{name}"),
                                     {f"__{of}": "document_id"}, {name: "ids"})
                return rows.select("row", **{name: ibis.coalesce(rows[name], ibis.literal([], "array<int32>"))})
            return rows.select("row", **{
                name: numbers.apply(rows[name], features.numbers[name], **scales[name]) if name in features.numbers
                else rows[name] for name in names})

        def store(name: str, level: str, rows: ir.Table, count: int, **options: Any) -> dict[str, Column]:
            own = {name: feature for name, feature in stored.items() if level_of[name] == level}
            own |= {key: Feature(key, "int32") for key in KEYS} if level == "example" else {}
            return store_columns(folder, name, partial(columns, rows), features=own, rows=count, **options)

        @cache
        def of_key(key: str) -> dict[str, Column]:
            table = engine.table(f"level_{key}")
            return store(key, key, table if key == "display" else engine.numbered(table), engine.count(table))

        @cache
        def of_rows(mapping: str) -> dict[str, Column]:
            first, end = parts[mapping]
            rows = engine.table("level_example")
            rows = rows.filter(rows["row"].between(first, end - 1)).mutate(row=lambda t: t["row"] - first)
            return store(mapping, "example", rows, end - first,
                         shuffle_seed=self.config.seed if self.config.shuffle and mapping == "train" else None)

        def hand_out(mapping: str, names: tuple[str, ...]) -> BroadcastByKey:
            rows = of_rows(mapping)
            keys = [level_of[name] if level_of[name] in KEYS else None for name in names]
            columns = [of_key(key)[name] if key else rows[name] for name, key in zip(names, keys, strict=True)]
            return BroadcastByKey(columns, [rows[key].values if key else None for key in keys])

        spec = write.write_dataset(folder, hand_out, features=stored,
                                   channels=features.channels | {"display": (DISPLAY,), "label": (LABEL,)},
                                   rows=self.rows, shuffle_seed=None)
        if self.config.feature_set != "clickwise":
            save_encoding(folder, Encoding({}, {}, not_for_new_rows=NOT_FOR_NEW_ROWS.format(self.config.feature_set)))
            return
        save_encoding(folder, store_encoding(folder, spec.features, scales))
        write_examples(folder, parts["test"][0])
        check_examples(folder, spec, Encoding.load(folder.preparation))

    @property
    def rows(self) -> dict[str, int]:
        return {mapping: end - first for mapping, (first, end) in self.split["parts"].items()}

    def summary(self) -> dict[str, Any]:
        return {"feature_set": self.config.feature_set, "rows": self.rows, "displays": self.split["displays"],
                **self.read, "cardinalities": self.fitted["cardinalities"]}


DATASET = Outbrain
