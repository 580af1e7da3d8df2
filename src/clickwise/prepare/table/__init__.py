"""Any table of raw values (text or Parquet with a Feature Spec) to columns: texts become ids, numbers are scaled.

The path: files of the spec → stored rows, checked → train, validation and test → vocabularies and scales of the
training rows → raw columns. `clickwise spec infer` drafts the spec; docs/add_a_dataset.md shows the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clickwise.encoding import Column, Encoding, RawColumn
from clickwise.encoding.operations import (
    Above,
    Bins,
    Hash60,
    Is,
    Operation,
    OrLeast,
    OrZero,
    SignedLog,
    Standardize,
    Vocabulary,
)
from clickwise.errors import PrepareError, RecipeError, nearest
from clickwise.feature_spec import LEFT_OUT, RAW_CHUNKS, Feature, FeatureSpec, narrowest_id_dtype
from clickwise.files import write_json
from clickwise.given_files import read_given_json
from clickwise.prepare.bins import fit_numbers, write_names
from clickwise.prepare.further_rows import Source
from clickwise.prepare.infer import COLUMNS
from clickwise.prepare.preparation import Preparation
from clickwise.prepare.raw_files import find_files
from clickwise.prepare.table import split
from clickwise.prepare.table.config import TableConfig
from clickwise.prepare.table.in_engine import RowsInEngine
from clickwise.prepare.table.in_memory import MOST_ROWS, VALUE_BYTES, RowsInMemory
from clickwise.prepare.table.raw_columns import encoded, raw_columns
from clickwise.prepare.table.row_counts import shown
from clickwise.prepare.table.rows import store_rows
from clickwise.prepare.written import SHOWN, save_encoding, say_without_display
from clickwise.progress import say

FAR = 0.5  # so far apart are shares of missing values that cannot be of the same kind of rows
NARROW = 0.01  # deviations: so close are nearly all of some numbers where a few are extreme
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

    def metadata(self) -> dict[str, Any]:
        return dict(self.spec.metadata)

    def further(self) -> dict[str, Source]:
        if self.config.input:
            return {"input": Source(find_files(self.config.input, f"{self.where}.input"))}
        files, sources = self.raw_files(), {}
        for mapping, chunks in self.spec.mappings.items():
            if len(chunks) > 1:
                raise PrepareError(f"{self.spec.path}: source_spec.{mapping}", found="several chunks",
                                   expected="one with --with")
            layout = {"delimiter": chunks[0].options.get("delimiter", ","), "columns": chunks[0].features}
            sources[mapping] = Source(files[mapping], layout)
        return sources

    def tables_bytes(self, files: Mapping[str, Sequence[Path]]) -> int:
        return sum(BYTES_ON_DISK.get(file.suffix, 2) * file.stat().st_size
                   for group in files.values() for file in group)

    def store(self, files: Mapping[str, Sequence[Path]]) -> None:
        spec, config = self.spec, self.config
        self.bad_rows = self.folder.stage("raw files read", lambda: store_rows(
            self.folder, spec, config, used_columns(spec, config)))
        self.table = self._rows()
        types = self._stage("types", self.table.types)
        self.raw = raw_columns(spec, config, types)
        (label,) = spec.channels["label"]
        self.label = Column(label, _label_steps(config, self.raw[label]), "bool")
        self.rows, self.unlabelled, self.spans, self.files = self._stage("split", self._split)
        for mapping, files in self.files.items():
            say(f"{mapping}: rows of {shown(files, SHOWN)}")
        self.table.forget_raw()

    def _rows(self) -> RowsInEngine | RowsInMemory:
        """The rows as they were read: in memory where they are few, and the engine's tables lie there, too."""
        kind: type[RowsInEngine | RowsInMemory] = RowsInEngine
        if not self.folder.keeps_tables:
            rows = sum(self.engine.count(self.engine.table(f"raw_{mapping}")) for mapping in self.spec.mappings)
            most = self.folder.buffer_bytes // (VALUE_BYTES * len(used_columns(self.spec, self.config)))
            kind = RowsInMemory if rows <= min(MOST_ROWS, most) else RowsInEngine
        return kind(self.folder, self.spec, self.config)

    def _stage(self, name: str, work: Callable[[], Any]) -> Any:
        """A stage of a preparation that can resume; rows in memory are gone when it stops."""
        return work() if isinstance(self.table, RowsInMemory) else self.folder.stage(name, work)

    def _split(self) -> split.Split:
        for mapping in self.spec.mappings:
            self.table.check(self.raw, mapping)
        return split.split(self.table, self.engine, self.spec, self.config,
                           Encoding(self.raw, {self.label.of: self.label}), self.where)

    # ---- what is fitted on the training rows

    def fit(self) -> None:
        numerical = self.spec.channels.get("numerical", ())
        sizes = self._stage("vocabularies", lambda: self.table.vocabularies(encoded(self.spec)))
        self.sizes = {name: size + self.config.hash_buckets.get(name, 0) for name, size in sizes.items()}
        numbers = self._stage("numbers", lambda: fit_numbers(self.table.number_counts, numerical, self.config.bins))
        asked = self.config.log_numericals
        self.logs = [name for name in numerical if (numbers[name]["log"] if asked is None else name in asked)]
        if self.logs and asked is None:
            say("a logarithm comes before the scale, for a heavy tail: " + ", ".join(self.logs))
        self.scales = self._stage("scales", lambda: self.table.scales(numerical, self.logs)) if numerical else {}
        self._say_narrow({name: found["middle"] for name, found in numbers.items() if found["middle"]})
        names = self._names_of_bins(name for name, found in numbers.items() if found["edges"])
        self.bins = {bins: (name, numbers[name]["edges"]) for name, bins in names.items()}
        write_names(self.folder, {feature: edges for feature, (_, edges) in self.bins.items()})
        self.features, self.encoding = self._encoding()
        self._stage("encoding", lambda: save_encoding(self.folder, self.encoding))

    def _say_narrow(self, middles: Mapping[str, Sequence[float]]) -> None:
        """Says of numbers of which a few are so extreme that the scale leaves no room for the others: a 9e99 for what
        is missing, an amount in another unit."""
        for name, middle in middles.items():
            scale = Standardize(**self.scales[name])
            low, high = (scale.one(SignedLog().one(x) if name in self.logs else x) for x in middle)
            if middle[0] < middle[1] and high - low < NARROW:
                say(f"warning: {name!r}: a few numbers are so far from all others that these become nearly one number; "
                    "correct them, or leave them empty")

    def _names_of_bins(self, names: Iterable[str]) -> dict[str, str]:
        """Numerical → a name that no feature has, in upper or lower case either."""
        taken, found = {name.lower() for name in self.spec.features}, {}
        for name in names:
            found[name] = f"{name}_bin"
            while found[name].lower() in taken:
                found[name] += "_"
        return found

    def _encoding(self) -> tuple[dict[str, Feature], Encoding]:
        """The features as they are stored, and how raw values become them."""
        spec, config = self.spec, self.config
        features, columns = {}, {}
        for name in dict.fromkeys(name for channel, names in spec.channels.items() if channel != LEFT_OUT
                                  for name in names):
            feature, size = spec.features[name], self.sizes.get(name)
            if name == self.label.of:
                features[name], columns[name] = Feature(name, "bool"), self.label
                continue
            if name in self.scales:
                features[name] = Feature(name, "float32")
                chain = (*([SignedLog()] if name in self.logs else []), Standardize(**self.scales[name]))
            elif size is not None:
                features[name] = Feature(name, narrowest_id_dtype(size), size, feature.max_hotness)
                chain = (Vocabulary(name, config.hash_buckets.get(name, 0)),)
            else:  # of a display, or of a channel of your own: handed on, texts as 60-bit hashes
                features[name] = Feature(name, "int64" if feature.is_raw_text or feature.dtype == "bool"
                                         else feature.dtype)
                hashed = [Hash60()] if feature.is_raw_text else []
                chain = (*hashed, OrLeast(features[name].dtype) if self._is_display(name) else OrZero())
            columns[name] = Column(name, chain, features[name].dtype, feature.max_hotness if size else None)
        for name, (of, edges) in self.bins.items():
            features[name] = Feature(name, narrowest_id_dtype(len(edges) + 1), len(edges) + 1)
            columns[name] = Column(of, (Bins(edges),), features[name].dtype)
        return features, Encoding(self.raw, columns)

    def _is_display(self, name: str) -> bool:
        is_float = self.spec.features[name].dtype.startswith("float")
        return name in self.spec.channels.get("display", ()) and not is_float

    # ---- ids and numbers -> columns on disk

    def write(self) -> None:
        channels = {channel: names for channel, names in self.spec.channels.items() if channel != LEFT_OUT and names}
        if self.bins:
            channels["categorical"] = (*channels.get("categorical", ()), *self.bins)

        written, self.values = self.table.write(
            self.encoding, features=self.features, channels=channels, rows=self.rows,
            shuffle_seed=self.config.seed if self.config.shuffle else None)
        self.missing = {mapping: {name: round(share, 6) for name, share in self.table.missing(mapping).items()
                                  if share and name != self.label.of} for mapping in self.rows}
        self._say_missing()
        for name in filter(self._is_display, channels.get("display", ())):
            say_without_display(self.folder, written, name)
        write_json(self.folder.preparation / COLUMNS, self._columns())

    def _say_missing(self) -> None:
        """Says of the numbers that are missing most, and of columns that have values in one mapping alone."""
        for mapping, shares in self.missing.items():
            most = sorted((-share, name) for name, share in shares.items() if name in self.scales)
            if most:
                say(f"{mapping}: missing numbers, which become the mean: "
                    + ", ".join(f"{name} {-100 * share:.3g} %" for share, name in most[:SHOWN])
                    + (f", and {len(most) - SHOWN} more (summary.json)" if len(most) > SHOWN else ""))
        train = self.missing["train"]
        for mapping, shares in self.missing.items():
            for name in dict.fromkeys([*train, *shares]):
                if abs(shares.get(name, 0) - train.get(name, 0)) > FAR:
                    say(f"warning: {mapping}: {name!r} is missing in {100 * shares.get(name, 0):.3g} % of the rows, in "
                        f"train in {100 * train.get(name, 0):.3g} %")

    def _columns(self) -> dict[str, dict[str, Any]]:
        """Of every column what it is taken for, why, what to check, how many ids it has, and by mapping the share of
        rows without a value and without an id. The reasons are those of `clickwise spec infer`, where a person has not
        decided otherwise."""
        path, spec = self.spec.folder / COLUMNS, self.spec
        try:
            drafted = read_given_json(path) if path.exists() else {}
            drafted = {name: {key: str(column[key]) for key in ("channel", "why", "check")}
                       for name, column in drafted.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise PrepareError(path, found="other than what clickwise spec infer wrote", expected="that",
                               do="remove it: it holds only the reasons of the draft") from None
        found, channels = {}, {}
        for channel, names in spec.channels.items():
            channels = dict.fromkeys(names, channel) | channels
        for name in dict.fromkeys([*drafted, *spec.features]):
            channel = channels.get(name, LEFT_OUT)
            draft = drafted.get(name, {})
            if draft and draft["channel"] != channel:
                draft = {"why": f"as the Feature Spec says; drafted as {draft['channel']}"}
            found[name] = {"channel": channel, "why": draft.get("why", ""), "check": draft.get("check", ""),
                           "ids": self.sizes.get(name),
                           "missing": {mapping: shares[name] for mapping, shares in self.missing.items()
                                       if name in shares},
                           "without_an_id": {mapping: shares[name] for mapping, shares in self.values.items()
                                             if name in shares}}
        return found

    def summary(self) -> dict[str, Any]:
        return {"rows": self.rows, "time": self.spans, "files": self.files, "bad_rows_skipped": self.bad_rows,
                "rows_without_label": self.unlabelled, "cardinalities": self.sizes, "missing": self.missing,
                "without_an_id": self.values, "logarithms": self.logs,
                "bins": {name: len(edges) for name, (_, edges) in self.bins.items()},
                "hashed": "first 60 bits of the MD5 sum of the UTF-8 text, modulo hash_buckets"}


DATASET = Table


def used_columns(spec: FeatureSpec, config: TableConfig) -> list[str]:
    """The columns that are read: of every channel but `left_out`, and what the split goes by."""
    names = [name for channel, names in spec.channels.items() if channel != LEFT_OUT for name in names]
    return list(dict.fromkeys([*names, *(name for name in (config.split_by, config.order_by) if name)]))


def _label_steps(config: TableConfig, raw: RawColumn) -> tuple[Operation, ...]:
    if config.label_above is not None:
        return (Above(float(config.label_above)),)
    values = tuple(dict.fromkeys(map(raw.type.one, config.positives)))
    return (Is(values if len(values) > 1 else values[0]),) if values else ()


def _check(spec: FeatureSpec, config: TableConfig, where: str) -> None:
    """Raises the error of whatever in the spec or in the settings does not fit the other."""
    def refuse(key: str, found: str, expected: str, do: str = "") -> None:
        raise PrepareError(f"{spec.path}: {key}", found=found, expected=expected, do=do)

    ids, numbers = [feature.name for feature in encoded(spec)], spec.channels.get("numerical", ())
    for key, names, known in (("frequency_limits", config.frequency_limits, ids), ("log_numericals",
                              config.log_numericals or (), numbers), ("hash_buckets", config.hash_buckets, ids)):
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
            if chunk.type not in RAW_CHUNKS:
                refuse(f"source_spec.{mapping}[{index}].type", chunk.type, f"raw values: {', '.join(RAW_CHUNKS)}",
                       f"clickwise train RECIPE data.path={spec.folder}" if chunk.type == "split_binary" else "")
