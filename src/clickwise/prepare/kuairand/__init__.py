"""KuaiRand (Gao et al., CIKM 2022): impressions of a short-video app, with attributes of users and videos, to columns.

The path: raw files → one table of impressions in the order of time → counts of earlier days → vocabularies and scales
of the training days → raw columns. The sample that is shipped and the full KuaiRand-Pure, -1K and -27K have the same
columns. Outcomes of an impression (likes, play time, …) never become inputs; its click is the label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir
from pyarrow import parquet

from clickwise.errors import PrepareError
from clickwise.feature_spec import Feature, narrowest_id_dtype
from clickwise.files import shipped
from clickwise.prepare import steps, write
from clickwise.prepare.engine import Engine, EngineConfig
from clickwise.prepare.kuairand.config import KuaiRandConfig
from clickwise.prepare.kuairand.history import (
    PLACES,
    TIME,
    store_history,
    target_features,
    write_history,
)
from clickwise.prepare.kuairand.log import (
    DISPLAY,
    ITEM,
    LABEL,
    TAGS,
    store_impressions,
)
from clickwise.prepare.kuairand.numbers import store_numbers
from clickwise.prepare.output import Output, say
from clickwise.prepare.raw_files import find_files, find_tables, raw_folder
from clickwise.progress import Progress
from clickwise.recipe import to_dict

CONFIG = KuaiRandConfig


def prepare(config: KuaiRandConfig, out: Path, *, engine: EngineConfig | None = None, overwrite: bool = False,
            where: str = "kuairand") -> Path:
    """The folder `out` with `split_binary` columns, feature_spec.yaml and preparation/ (vocabularies, scales, counts).

    Mappings: train, validation (if there is one) and test; their display is the user's day, and the video's own id
    goes along in the channel `item`, which no model reads. Raises PrepareError; then `out` is as before.
    """
    engine = engine or EngineConfig()
    folder = raw_folder(shipped("data/kuairand_pure") if config.folder is None else Path(config.folder),
                        f"{where}.dataset.folder", do="or null, for the sample that is shipped")
    files = {key: find_tables(folder, getattr(config, key), f"{where}.dataset.{key}")
             for key in ("log", "users", "videos")}
    history, needs = config.history, () if config.history is None else config.history.needs
    if history is not None and "watched" in history.sources:
        files["watched"] = find_files([str(folder / pattern) for pattern in history.watched],
                                      f"{where}.dataset.history.watched")
    recipe = {"dataset": {"name": "kuairand", **to_dict(config)}}
    output = Output(out, recipe=recipe, inputs=files, file_keys=("folder", "log", "users", "videos"), engine=engine,
                    overwrite=overwrite)
    if output.unchanged:
        say(f"{out}: already prepared from these files with this recipe")
        return output.out
    with output:
        read = store_impressions(output, files, features=(*config.numerical, *config.categorical, *needs),
                                 max_bad_rows=config.max_bad_rows)
        parts = _split(output, config, where)
        until = config.test_from - 1 if config.count_until == "training" else None
        cardinalities = _vocabularies(output, config, parts)
        if config.numerical:
            store_numbers(output, config.numerical, train=parts["train"], rate_weight=config.rate_weight,
                          when="time_ms" if config.count_until == "earlier_moments" else "date", last_counted=until)
        found = {}
        if history is not None:
            found = store_history(output, history, files.get("watched", ()), train=parts["train"], clicked_until=until)
        _write(output, config, parts, cardinalities, found.get("sizes", {}))
        return output.finish({
            "dataset": "kuairand", "rows": {mapping: end - first for mapping, (first, end) in parts.items()}, **read,
            "cardinalities": {name: size for name, (size, _) in cardinalities.items()} | found.pop("sizes", {}),
            **({"history": found} if found else {}), "ibis": ibis.__version__})


# ---- which rows belong to which mapping


def _split(output: Output, config: KuaiRandConfig, where: str) -> dict[str, tuple[int, int]]:
    """Mapping -> its rows first … end−1 of the impressions, which stand in the order of days."""
    days = {key: getattr(config, key) for key in ("train_from", "validation_from", "test_from")}
    table = output.engine().table("impressions")
    found = output.engine().row(table.aggregate(
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
            raise PrepareError(f"{where}.dataset.{mapping}_from", found=f"no impressions for {mapping} in a log from "
                               f"{found['low']} to {found['high']}", expected="at least one", do="choose other days")
    return parts


def _rows(engine: Engine, part: tuple[int, int], columns: Sequence[str]) -> ir.Table:
    return steps.rows_between(engine.numbered(engine.table("impressions")).select("row", *columns), *part)


# ---- what is fitted on the training rows


def _vocabularies(output: Output, config: KuaiRandConfig,
                  parts: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int | None]]:
    """Fits one vocabulary per categorical feature, stores it in the engine and beside the output; stores `tag_ids`.
    Feature -> cardinality and hotness (None: one-hot)."""
    if output.done("vocabularies"):
        return output.facts("vocabularies")
    engine, sizes = output.engine(), {}
    (output.preparation / "vocabularies").mkdir(exist_ok=True)
    with Progress("counting values", total=len(config.categorical), unit="features") as bar:
        for name in config.categorical:
            train = _rows(engine, parts["train"], ["tag" if name == TAGS else name])
            if name == TAGS:
                train = steps.explode(train.select(tags=_tag_list(train.tag)), TAGS)
            limit = config.frequency_limits.get(name, config.frequency_limit)
            vocabulary = engine.materialise(steps.vocabulary(train, name, limit), f"vocabulary_{name}")
            file = output.preparation / "vocabularies" / f"{name}.parquet"
            engine.write_parquet(vocabulary.order_by("id"), file)
            hotness = _store_tag_ids(engine, vocabulary) if name == TAGS else None
            sizes[name] = (parquet.read_metadata(file).num_rows + 1, hotness)
            bar.advance(1, name)
    output.mark("vocabularies", sizes)
    return sizes


def _tag_list(tag: ir.StringColumn) -> ir.ArrayColumn:
    """`"12, 7"` -> ["12", "7"]."""
    return tag.split(",").map(lambda text: text.strip()).filter(lambda text: text != "")


def _store_tag_ids(engine: Engine, vocabulary: ir.Table) -> int:
    """Stores `tag_ids` (row and the ids of its known tags); the most tags that a row has, at least 2."""
    impressions = engine.numbered(engine.table("impressions"))
    texts = impressions.filter(impressions.tag.notnull()).select("tag").distinct()
    lists = steps.encode_list(texts.mutate(tags=_tag_list(texts.tag)), TAGS, vocabulary, row="tag", drop_unknown=True)
    lists = engine.materialise(lists.rename(__tag="tag"), "tag_lists")
    joined = impressions.select("row", "tag").left_join(lists, impressions.tag == lists["__tag"])
    stored = engine.materialise(
        joined.select("row", tags=ibis.coalesce(joined[TAGS], ibis.literal([], "array<int32>"))), "tag_ids")
    return max(2, engine.row(stored.aggregate(most=stored[TAGS].length().max()))["most"])


# ---- ids and numbers -> columns on disk


def _write(output: Output, config: KuaiRandConfig, parts: Mapping[str, tuple[int, int]],
           cardinalities: Mapping[str, tuple[int, int | None]], items: Mapping[str, int]) -> None:
    engine, channels = output.engine(), config.channels
    scales = output.facts("numbers") if config.numerical else {}
    features = {name: Feature(name, "float16") for name in config.numerical}
    features |= {name: Feature(name, narrowest_id_dtype(size), cardinality=size, max_hotness=hotness)
                 for name, (size, hotness) in cardinalities.items()}
    features |= {DISPLAY: Feature(DISPLAY, "int64"), ITEM: Feature(ITEM, "int64"), LABEL: Feature(LABEL, "bool")}

    if config.history is not None:
        features |= target_features(config.history, items)
        features |= {name: Feature(name, "int64" if name == TIME else "int32") for name in config.history.columns}

    def columns(mapping: str, names: tuple[str, ...]) -> ir.Table:
        part = parts[mapping]
        if names[0] in PLACES:
            return steps.rows_between(engine.table("history_places").select("row", *names), *part)
        if names[0] in items:
            rows, ids = _rows(engine, part, ["video_id"]), engine.table("video_ids")
            ids = ids.select("key", *names)
            return rows.join(ids, rows.video_id == ids.key).select("row", *names)
        if set(names) <= set(scales):
            table = steps.rows_between(engine.table("numbers"), *part)
            return table.select("row", **{name: steps.scale(table[name], **scales[name]) for name in names})
        if names == (TAGS,):
            return steps.rows_between(engine.table("tag_ids"), *part)
        table = _rows(engine, part, names)
        return table if names[0] in (DISPLAY, ITEM, LABEL) \
            else steps.encode(table, names[0], engine.table(f"vocabulary_{names[0]}"))

    spec = write.write_dataset(output, columns, features=features, channels=channels,
                               rows={mapping: end - first for mapping, (first, end) in parts.items()},
                               shuffle_seed=config.seed if config.shuffle else None)
    if config.history is not None:
        write_history(output, config.history, spec, items)
