"""Any table of raw values (CSV or Parquet with a Feature Spec) to columns: texts become ids, numbers are scaled.

The path: files of the spec → stored rows, checked → train, validation and test → vocabularies and scales of the
training rows → raw columns. `clickwise spec infer` drafts the spec; docs/add_a_dataset.md shows the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ibis
import ibis.expr.types as ir
from pyarrow import parquet

from clickwise.errors import PrepareError, RecipeError, nearest
from clickwise.feature_spec import LEFT_OUT, Feature, FeatureSpec, narrowest_id_dtype
from clickwise.files import write_json
from clickwise.prepare import steps, write
from clickwise.prepare.engine import Engine, EngineConfig
from clickwise.prepare.output import Output, say
from clickwise.prepare.raw_files import find_files
from clickwise.prepare.table import split
from clickwise.prepare.table.config import TableConfig
from clickwise.prepare.table.rows import ENCODED, integer, list_delimiter, list_of_texts, number, store_rows, text
from clickwise.progress import Progress
from clickwise.recipe import to_dict

CONFIG = TableConfig


def prepare(config: TableConfig, out: Path, *, engine: EngineConfig | None = None, overwrite: bool = False,
            where: str = "table") -> Path:
    """The folder `out` with `split_binary` columns, feature_spec.yaml and preparation/ (vocabularies, scales, recipe).

    Mappings: those of the spec, and what is cut off its `train`. Raises PrepareError; then `out` is as before.
    """
    engine = engine or EngineConfig()
    spec = FeatureSpec.load(config.spec)
    _check(spec, config, f"{where}.dataset")
    files = {mapping: find_files([str(spec.folder / file) for chunk in chunks for file in chunk.files],
                                 f"{spec.path}: source_spec.{mapping}") for mapping, chunks in spec.mappings.items()}
    recipe = {"dataset": {"name": "table", **to_dict(config)}}
    output = Output(out, recipe=recipe, inputs={"spec": [spec.path], **files}, file_keys=("spec",), engine=engine,
                    overwrite=overwrite)
    if output.unchanged:
        say(f"{out}: already prepared from these files with this recipe")
        return output.out
    with output:
        bad_rows = store_rows(output, spec, config, used_columns(spec, config))
        rows, unlabelled = split.split(output, spec, config, where)
        sizes = _vocabularies(output, spec, config, tuple(rows))
        scales = _scales(output, spec, config)
        _write(output, spec, config, rows, sizes, scales)
        return output.finish({
            "dataset": "table", "rows": rows, "bad_rows_skipped": bad_rows, "rows_without_label": unlabelled,
            "cardinalities": sizes, "hashed": "first 60 bits of the MD5 sum of the UTF-8 text, modulo hash_buckets",
            "ibis": ibis.__version__})


def used_columns(spec: FeatureSpec, config: TableConfig) -> list[str]:
    """The columns that are read: of every channel but `left_out`, and what the split goes by."""
    names = [name for channel, names in spec.channels.items() if channel != LEFT_OUT for name in names]
    return list(dict.fromkeys([*names, *(name for name in (config.split_by, config.order_by) if name)]))


def encoded(spec: FeatureSpec) -> list[Feature]:
    return [feature for channel in ENCODED for feature in spec.channel(channel)]


def _check(spec: FeatureSpec, config: TableConfig, where: str) -> None:
    """Raises the error of whatever in the spec or in the settings does not fit the other."""
    def refuse(place: str, found: str, expected: str, do: str = "") -> None:
        raise PrepareError(f"{spec.path}: {place}", found=found, expected=expected, do=do)

    ids, numbers = [feature.name for feature in encoded(spec)], spec.channels.get("numerical", ())
    for key, names, known in (("frequency_limits", config.frequency_limits, ids), ("log_numericals",
                              config.log_numericals, numbers), ("hash_buckets", config.hash_buckets, ids)):
        for name in names:
            if name not in known:
                kind = "numericals" if key == "log_numericals" else "categorical features"
                raise RecipeError(f"{where}.{key}", found=repr(name), expected=f"{kind} of {spec.path}",
                                  do=nearest(name, known))
    if "train" not in spec.mappings:
        refuse("source_spec", ", ".join(spec.mappings) or "no mapping", "a mapping `train`")
    for channel in ("history", "negative_history"):
        if spec.channels.get(channel):
            refuse(f"channel_spec.{channel}", "lists of ids that share another feature's vocabulary",
                   "features with a vocabulary of their own", "make it a multi-hot feature of `categorical`")
    if not spec.channels.get("label"):
        refuse("channel_spec.label", "no label", "one feature", "clickwise spec infer --label NAME")
    if not (ids or numbers):
        refuse("channel_spec", "no numerical and no categorical feature", "at least one")
    folded: dict[str, str] = {}
    for name in used_columns(spec, config):
        if name.lower() == "row" or name.startswith("__"):
            refuse("feature_spec", f"the name {name!r}, which preparation uses itself", "another name", "rename it")
        if (other := folded.setdefault(name.lower(), name)) != name:
            refuse("feature_spec", f"{other!r} and {name!r}", "names that differ in more than upper and lower case",
                   "rename one of the columns")
    for feature in spec.features.values():
        if feature.dimensions:
            refuse(f"feature_spec.{feature.name}.dimensions", "a list of fixed length", "single values, or max_hotness")
    for mapping, chunks in spec.mappings.items():
        for place, chunk in enumerate(chunks):
            if chunk.type not in ("csv", "parquet"):
                refuse(f"source_spec.{mapping}[{place}].type", chunk.type, "csv or parquet with raw values",
                       f"clickwise train RECIPE data.path={spec.folder}" if chunk.type == "split_binary" else "")


# ---- what is fitted on the training rows


def values(engine: Engine, spec: FeatureSpec, feature: Feature, mapping: str) -> ir.Table:
    """`row` and the feature's values in a mapping: a text, or a list of texts."""
    table = engine.numbered(engine.table(f"rows_{mapping}"))
    column = table[feature.name]
    return table.select("row", **{feature.name: list_of_texts(column, list_delimiter(spec, feature.name, mapping))
                                  if feature.is_multi_hot else column})


def _vocabularies(output: Output, spec: FeatureSpec, config: TableConfig, mappings: tuple[str, ...]) -> dict[str, int]:
    """Fits one vocabulary per feature of ids, stores it in the engine, as `ids_<place>`, and beside the output.
    Feature -> cardinality."""
    if output.done("vocabularies"):
        return output.facts("vocabularies")
    engine, sizes, features = output.engine(), {}, encoded(spec)
    folder = output.preparation / "vocabularies"
    folder.mkdir(exist_ok=True)
    with Progress("counting values", total=len(features), unit="features") as bar:
        for place, feature in enumerate(features):
            name = feature.name

            def single(mapping: str, feature: Feature = feature) -> ir.Table:
                table = values(engine, spec, feature, mapping)
                return steps.explode(table, feature.name) if feature.is_multi_hot else table

            fitted = single("train").limit(0 if name in config.hash_only else None)
            vocabulary = engine.materialise(steps.vocabulary(fitted, name, config.limit(name)), f"ids_{place}")
            file = folder / f"{name}.parquet"
            engine.write_parquet(vocabulary.order_by("id"), file)
            known = parquet.read_metadata(file).num_rows + 1
            sizes[name] = known + config.hash_buckets.get(name, 0)
            if name in config.hash_buckets:
                every = ibis.union(*(single(mapping).select(name) for mapping in mappings), distinct=True)
                hashed = engine.materialise(steps.hashed_vocabulary(vocabulary, every, name,
                                                                    config.hash_buckets[name], known), "hashed")
                engine.materialise(hashed, f"ids_{place}")
            bar.advance(1, name)
    output.mark("vocabularies", sizes)
    return sizes


def _numbers(engine: Engine, spec: FeatureSpec, config: TableConfig, mapping: str) -> ir.Table:
    """`row` and the numericals of a mapping before they are scaled."""
    table = engine.numbered(engine.table(f"rows_{mapping}"))
    return table.select("row", **{name: steps.signed_log(table[name]) if name in config.log_numericals else table[name]
                                  for name in spec.channels.get("numerical", ())})


def _scales(output: Output, spec: FeatureSpec, config: TableConfig) -> dict[str, dict[str, float]]:
    """Numerical -> mean and std of the training rows."""
    names = spec.channels.get("numerical", ())
    if not names:
        return {}
    if not output.done("scales"):
        engine = output.engine()
        scales = steps.scales(engine.row(steps.moments(_numbers(engine, spec, config, "train"), names)))
        write_json(output.preparation / "scales.json", {"log": list(config.log_numericals), "scales": scales})
        output.mark("scales", scales)
    return output.facts("scales")


# ---- ids and numbers -> columns on disk


def _write(output: Output, spec: FeatureSpec, config: TableConfig, rows: Mapping[str, int], sizes: Mapping[str, int],
           scales: Mapping[str, Mapping[str, float]]) -> None:
    engine, (label,) = output.engine(), spec.channels["label"]
    places = {feature.name: place for place, feature in enumerate(encoded(spec))}
    channels = {channel: names for channel, names in spec.channels.items() if channel != LEFT_OUT and names}
    features = {}
    for name in dict.fromkeys(name for names in channels.values() for name in names):
        feature = spec.features[name]
        if name in scales:
            features[name] = Feature(name, "float32")
        elif name in sizes:
            features[name] = Feature(name, narrowest_id_dtype(sizes[name]), sizes[name], feature.max_hotness)
        else:
            features[name] = Feature(name, "bool" if name == label else carried_dtype(feature))

    def columns(mapping: str, names: tuple[str, ...]) -> ir.Table:
        name, table = names[0], engine.numbered(engine.table(f"rows_{mapping}"))
        if name in scales:
            table = _numbers(engine, spec, config, mapping)
            return table.select("row", **{name: steps.scale(table[name], **scales[name]) for name in names})
        if name in sizes:
            table, ids = values(engine, spec, spec.features[name], mapping), engine.table(f"ids_{places[name]}")
            if not features[name].is_multi_hot:
                return steps.encode(table, name, ids)
            return engine.materialise(steps.encode_list(table, name, ids, drop_unknown=True), "list_ids")
        if name == label:
            return table.select("row", **{name: table["__label"]})
        return table.select("row", **{name: carried(table[name], spec.features[name], config.missing)})

    write.write_dataset(output, columns, features=features, channels=channels, rows=rows,
                        shuffle_seed=config.seed if config.shuffle else None)


def carried_dtype(feature: Feature) -> str:
    """The type of a column that is handed on as it is: texts become 60-bit hashes."""
    return "int64" if feature.is_raw_text or feature.dtype == "bool" else feature.dtype


def carried(column: ir.Column, feature: Feature, missing: tuple[str, ...]) -> ir.Column:
    """The values of a display, or of a channel of one's own; 0 where there is none."""
    if feature.is_raw_text:
        return ibis.coalesce(steps.hash60(text(column)), 0)
    if "float" in feature.dtype:
        return ibis.coalesce(number(column, missing), 0.0)
    return ibis.coalesce(integer(column, missing), 0)
