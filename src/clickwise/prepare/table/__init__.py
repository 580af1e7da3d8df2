"""Any table of raw values (CSV or Parquet with a Feature Spec) to columns: texts become ids, numbers are scaled.

The path: files of the spec → stored rows, checked → train, validation and test → vocabularies and scales of the
training rows → raw columns. `clickwise spec infer` drafts the spec; docs/add_a_dataset.md shows the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir

from clickwise.errors import PrepareError, RecipeError, nearest
from clickwise.feature_spec import LEFT_OUT, Feature, FeatureSpec, narrowest_id_dtype
from clickwise.files import write_json
from clickwise.prepare import steps, write
from clickwise.prepare.engine import Engine
from clickwise.prepare.preparation import Preparation
from clickwise.prepare.raw_files import find_files
from clickwise.prepare.table import split
from clickwise.prepare.table.config import TableConfig
from clickwise.prepare.table.rows import ENCODED, integer, list_delimiter, list_of_texts, number, store_rows, text
from clickwise.prepare.vocabularies import store_vocabularies

BYTES_ON_DISK = {".gz": 10, ".parquet": 8}  # a byte of such a file in the engine's tables, held twice; 2 of plain text


class Table(Preparation):
    """`split_binary` columns; mappings: those of the spec, and what is split off its `train`."""

    Config = TableConfig
    file_keys = ("spec",)
    trained_by = "table/dcnv2"

    def raw_files(self) -> dict[str, list[Path]]:
        spec = self.spec = FeatureSpec.load(self.config.spec)
        _check(spec, self.config, self.where)
        return {"spec": [spec.path], **{
            mapping: find_files([str(spec.folder / file) for chunk in chunks for file in chunk.files],
                                f"{spec.path}: source_spec.{mapping}") for mapping, chunks in spec.mappings.items()}}

    def tables_bytes(self, files: Mapping[str, Sequence[Path]]) -> int:
        return sum(BYTES_ON_DISK.get(file.suffix, 2) * file.stat().st_size
                   for group in files.values() for file in group)

    def store(self, files: Mapping[str, Sequence[Path]]) -> None:
        spec, config = self.spec, self.config
        self.bad_rows = self.folder.stage("raw files read", lambda: store_rows(
            self.folder, spec, config, used_columns(spec, config)))
        self.rows, self.unlabelled = self.folder.stage("split", lambda: split.split(
            self.engine, spec, config, self.where))

    # ---- what is fitted on the training rows

    def fit(self) -> None:
        self.sizes = self.folder.stage("vocabularies", self._fit_vocabularies)
        self.scales = self.folder.stage("scales", self._fit_scales) if self.spec.channels.get("numerical") else {}

    def _fit_vocabularies(self) -> dict[str, int]:
        """Fits one vocabulary per feature of ids; feature -> cardinality."""
        config, engine, features = self.config, self.engine, {each.name: each for each in encoded(self.spec)}

        def single(name: str, mapping: str) -> ir.Table:
            table = self._values(features[name], mapping)
            return steps.explode(table, name) if features[name].is_multi_hot else table

        sizes = store_vocabularies(self.folder, {
            name: single(name, "train").limit(0 if name in config.hash_only else None) for name in features},
            config.limit)
        for name, buckets in config.hash_buckets.items():
            every = ibis.union(*(single(name, mapping).select(name) for mapping in self.rows), distinct=True)
            vocabulary = steps.hashed_vocabulary(engine.table(f"vocabulary_{name}"), every, name, buckets, sizes[name],
                                                 engine.parse_hex)
            engine.materialise(engine.materialise(vocabulary, "hashed"), f"vocabulary_{name}")
            sizes[name] += buckets
        return sizes

    def _values(self, feature: Feature, mapping: str) -> ir.Table:
        """`row` and the feature's values in a mapping: a text, or a list of texts."""
        table = self._rows(mapping)
        column = table[feature.name]
        return table.select("row", **{
            feature.name: list_of_texts(column, list_delimiter(self.spec, feature.name, mapping))
            if feature.is_multi_hot else column})

    def _rows(self, mapping: str) -> ir.Table:
        return self.engine.numbered(self.engine.table(f"rows_{mapping}"))

    def _numbers(self, mapping: str) -> ir.Table:
        """`row` and the numericals of a mapping before they are scaled."""
        table = self._rows(mapping)
        return table.select("row", **{
            name: steps.signed_log(table[name]) if name in self.config.log_numericals else table[name]
            for name in self.spec.channels["numerical"]})

    def _fit_scales(self) -> dict[str, dict[str, float]]:
        """Numerical -> mean and std of the training rows."""
        numbers = self._numbers("train")
        scales = steps.scales(self.engine.row(steps.moments(numbers, self.spec.channels["numerical"])))
        write_json(self.folder.preparation / "scales.json", {"log": list(self.config.log_numericals), "scales": scales})
        return scales

    # ---- ids and numbers -> columns on disk

    def write(self) -> None:
        spec, config, engine, (label,) = self.spec, self.config, self.engine, self.spec.channels["label"]
        channels = {channel: names for channel, names in spec.channels.items() if channel != LEFT_OUT and names}
        features = {}
        for name in dict.fromkeys(name for names in channels.values() for name in names):
            feature, size = spec.features[name], self.sizes.get(name)
            if name in self.scales:
                features[name] = Feature(name, "float32")
            elif size is not None:
                features[name] = Feature(name, narrowest_id_dtype(size), size, feature.max_hotness)
            else:
                features[name] = Feature(name, "bool" if name == label else carried_dtype(feature))

        def columns(mapping: str, names: tuple[str, ...]) -> ir.Table:
            name, table = names[0], self._rows(mapping)
            if name in self.scales:
                table = self._numbers(mapping)
                return table.select("row", **{name: steps.scale(table[name], **self.scales[name]) for name in names})
            if name in self.sizes:
                table, ids = self._values(spec.features[name], mapping), engine.table(f"vocabulary_{name}")
                if not features[name].is_multi_hot:
                    return steps.encode(table, name, ids)
                return engine.materialise(steps.encode_list(table, name, ids, drop_unknown=True), "list_ids")
            if name == label:
                return table.select("row", **{name: table["__label"]})
            return table.select("row", **{name: carried(engine, table[name], spec.features[name], config.missing)})

        write.write_dataset(self.folder, columns, features=features, channels=channels, rows=self.rows,
                            shuffle_seed=config.seed if config.shuffle else None)

    def summary(self) -> dict[str, Any]:
        return {"rows": self.rows, "bad_rows_skipped": self.bad_rows, "rows_without_label": self.unlabelled,
                "cardinalities": self.sizes,
                "hashed": "first 60 bits of the MD5 sum of the UTF-8 text, modulo hash_buckets"}


DATASET = Table


def used_columns(spec: FeatureSpec, config: TableConfig) -> list[str]:
    """The columns that are read: of every channel but `left_out`, and what the split goes by."""
    names = [name for channel, names in spec.channels.items() if channel != LEFT_OUT for name in names]
    return list(dict.fromkeys([*names, *(name for name in (config.split_by, config.order_by) if name)]))


def encoded(spec: FeatureSpec) -> list[Feature]:
    return [feature for channel in ENCODED for feature in spec.channel(channel)]


def _check(spec: FeatureSpec, config: TableConfig, where: str) -> None:
    """Raises the error of whatever in the spec or in the settings does not fit the other."""
    def refuse(key: str, found: str, expected: str, do: str = "") -> None:
        raise PrepareError(f"{spec.path}: {key}", found=found, expected=expected, do=do)

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
        for index, chunk in enumerate(chunks):
            if chunk.type not in ("csv", "parquet"):
                refuse(f"source_spec.{mapping}[{index}].type", chunk.type, "csv or parquet with raw values",
                       f"clickwise train RECIPE data.path={spec.folder}" if chunk.type == "split_binary" else "")


def carried_dtype(feature: Feature) -> str:
    """The type of a column that is handed on as it is: texts become 60-bit hashes."""
    return "int64" if feature.is_raw_text or feature.dtype == "bool" else feature.dtype


def carried(engine: Engine, column: ir.Column, feature: Feature, missing: tuple[str, ...]) -> ir.Column:
    """The values of a display, or of a channel of one's own; 0 where there is none."""
    if feature.is_raw_text:
        return ibis.coalesce(steps.hash60(text(column), engine.parse_hex), 0)
    if "float" in feature.dtype:
        return ibis.coalesce(number(column, missing), 0.0)
    return ibis.coalesce(integer(column, missing), 0)
