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

from clickwise.feature_spec import Feature, narrowest_id_dtype
from clickwise.files import write_json
from clickwise.prepare import write
from clickwise.prepare.engine import EngineConfig
from clickwise.prepare.fan_out import Column, FanOut, store_columns
from clickwise.prepare.outbrain import numbers
from clickwise.prepare.outbrain.config import OutbrainConfig
from clickwise.prepare.outbrain.features import Facts, store_features
from clickwise.prepare.outbrain.raw import FILES, store_raw_tables
from clickwise.prepare.outbrain.rows import count_displays, store_ads, store_displays, store_examples
from clickwise.prepare.outbrain.sets import FeatureSet, feature_set
from clickwise.prepare.output import Output, say
from clickwise.prepare.raw_files import estimate_rows, find_tables, raw_folder
from clickwise.recipe import to_dict

TABLE_ROW_BYTES = 130  # of clicks, examples, similarities and `level_example`, for every row
LABEL, DISPLAY = "clicked", "display_id"
KEYS = ("display", "ad")  # of an example: its place in `level_display` and in `level_ad`
CONFIG = OutbrainConfig


def prepare(config: OutbrainConfig, out: Path, *, engine: EngineConfig | None = None, overwrite: bool = False,
            where: str = "outbrain") -> Path:
    """The folder `out` with `split_binary` columns, feature_spec.yaml and preparation/.

    Mappings: train and test; no display is cut. Raises PrepareError; then `out` is as before.
    preparation/ holds what was fitted: vocabularies, rates, scales, counts of aspects and places.
    """
    engine = engine or EngineConfig()
    features = feature_set(config.feature_set)
    files = _files(config, features, where)
    output = Output(out, recipe={"dataset": {"name": "outbrain", **to_dict(config)}}, inputs=files,
                    file_keys=("folder", "files", "test_displays"), engine=engine, overwrite=overwrite)
    if output.unchanged:
        say(f"{out}: already prepared from these files with this recipe")
        return output.out
    with output:
        output.engine(_tables_bytes(files, features))
        read = store_raw_tables(output, files, max_bad_rows=config.max_bad_rows, max_aspects=config.max_aspects)
        rows = _split(output, config, features, where)
        facts = store_features(output, config, features, files, train_rows=rows["parts"]["train"][1])
        _write(output, config, features, rows["parts"], facts)
        return output.finish({
            "dataset": "outbrain", "feature_set": config.feature_set,
            "rows": {mapping: end - first for mapping, (first, end) in rows["parts"].items()},
            "displays": rows["displays"], **read, "cardinalities": facts["cardinalities"], "ibis": ibis.__version__})


def _files(config: OutbrainConfig, features: FeatureSet, where: str) -> dict[str, list[Path]]:
    folder = raw_folder(Path(config.folder), f"{where}.dataset.folder",
                        do="the raw files are at kaggle.com/c/outbrain-click-prediction; clickwise synth outbrain_raw "
                           "makes files like them")
    files = {name: find_tables(folder, [config.files.get(name, pattern)], f"{where}.dataset.files.{name}")
             for name, pattern in FILES.items() if name != "page_views" or features.profiles}
    if config.test_displays is not None:
        listed = Path(config.test_displays)
        files["test_displays"] = find_tables(listed.parent, [listed.name], f"{where}.dataset.test_displays")
    return files


def _tables_bytes(files: Mapping[str, Sequence[Path]], features: FeatureSet) -> int | None:
    """About how large the tables between the steps will be; None where nobody knows, as with page views."""
    rows = estimate_rows(files["clicks"])
    if rows is None or features.profiles or any(file.suffix != ".csv" for paths in files.values() for file in paths):
        return None
    return rows * TABLE_ROW_BYTES + sum(file.stat().st_size for paths in files.values() for file in paths)


def _split(output: Output, config: OutbrainConfig, features: FeatureSet, where: str) -> dict:
    """Stores displays, examples and ads; `parts` (mapping -> rows first … end−1) and `displays` (counts)."""
    if output.done("displays split"):
        return output.facts("displays split")
    store_displays(output, test_share=config.test_share, test_from_day=config.test_from_day,
                   listed=config.test_displays is not None, seed=config.seed,
                   folds=config.folds if features.out_of_fold else 0, complete_events=features.complete_events)
    parts = store_examples(output, where)
    store_ads(output)
    output.mark("displays split", {"parts": parts, "displays": count_displays(output.engine())})
    output.engine().drop("clicks")
    return output.facts("displays split")


def _write(output: Output, config: OutbrainConfig, features: FeatureSet, parts: Mapping[str, tuple[int, int]],
           facts: Facts) -> None:
    """Writes what belongs to displays and to ads once for each, and hands it out to the rows of the mappings."""
    engine, scales, sizes = output.engine(), facts["scales"], facts["cardinalities"]
    stored = {name: Feature(name, "float32") for name in features.numbers}
    stored |= {name: Feature(name, narrowest_id_dtype(sizes[name]), cardinality=sizes[name],
                             max_hotness=features.lists[name].most if name in features.lists else None)
               for name in (*features.categories, *features.lists)}
    stored |= {DISPLAY: Feature(DISPLAY, "int64"), LABEL: Feature(LABEL, "bool")}
    write_json(output.preparation / "scales.json", scales)
    named = (features.numbers, features.categories, features.lists)
    level_of = {name: feature.level for each in named for name, feature in each.items()}
    level_of |= {DISPLAY: "display", LABEL: "example"}

    def columns(rows: ir.Table, names: tuple[str, ...]) -> ir.Table:
        if names[0] in features.lists:
            name, of = names[0], features.lists[names[0]].of
            lists = engine.table(f"list_{name}").select(**{"__document": "document_id", name: "ids"})
            rows = rows.select("row", f"__{of}").left_join(lists, [(f"__{of}", "__document")])
            return rows.select("row", **{name: ibis.coalesce(rows[name], ibis.literal([], "array<int32>"))})
        return rows.select("row", **{
            name: numbers.apply(rows[name], features.numbers[name], **scales[name]) if name in features.numbers
            else rows[name] for name in names})

    def store(name: str, level: str, rows: ir.Table, count: int, **options: Any) -> dict[str, Column]:
        own = {name: feature for name, feature in stored.items() if level_of[name] == level}
        own |= {key: Feature(key, "int32") for key in KEYS} if level == "example" else {}
        return store_columns(output, name, partial(columns, rows), features=own, rows=count, **options)

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
                     shuffle_seed=config.seed if config.shuffle and mapping == "train" else None)

    def fan_out(mapping: str, names: tuple[str, ...]) -> FanOut:
        rows = of_rows(mapping)
        keys = [level_of[name] if level_of[name] in KEYS else None for name in names]
        return FanOut([of_key(key)[name] if key else rows[name] for name, key in zip(names, keys, strict=True)],
                      [rows[key].values if key else None for key in keys])

    write.write_dataset(output, fan_out, features=stored,
                        channels=features.channels | {"display": (DISPLAY,), "label": (LABEL,)},
                        rows={mapping: end - first for mapping, (first, end) in parts.items()}, shuffle_seed=None)
