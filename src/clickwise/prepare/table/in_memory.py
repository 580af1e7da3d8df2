"""The steps of a small table in memory: by the array forms of the raw types, without a query for every column.

A query costs about 20 ms however few rows it reads. `in_engine` takes the same steps for tables of any size, to the
same bits; it also finds the words for whatever is wrong with a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from clickwise.arrow_arrays import filled, of_numbers, of_texts, to_numpy
from clickwise.arrow_files import is_list, is_text, plain
from clickwise.encoding import Encoding, RawColumn
from clickwise.encoding.lists import known_parts, parts
from clickwise.encoding.operations import SignedLog
from clickwise.encoding.raw_types import Boolean, Float, Integer, Text, Time, Unreadable
from clickwise.feature_spec import Feature, FeatureSpec
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.scales import fit_scales_of
from clickwise.prepare.table import rows
from clickwise.prepare.table.raw_columns import PLAIN_WHOLE, fitting, list_delimiter, named_columns
from clickwise.prepare.vocabularies import write_vocabulary_of
from clickwise.prepare.written import EXAMPLE_ROWS, EXAMPLES, write_in_memory

if TYPE_CHECKING:
    from clickwise.prepare.table.config import TableConfig

MOST_ROWS = 1 << 18  # of all mappings: an engine with its threads is faster where there are more
SAMPLE = 50  # rows that tell which types a column cannot have
VALUE_BYTES = 40  # of a value: as it was read, as its raw type reads it, as it is written


class RowsInMemory:
    """The rows of every mapping: `raw`, and once `read` has run as their raw types read them; `rows_<mapping>`."""

    examples: str | None = None  # the mapping whose first rows are kept as they are

    def __init__(self, folder: PreparationFolder, spec: FeatureSpec, config: TableConfig) -> None:
        self.folder, self.spec, self.config = folder, spec, config
        self.raw = {mapping: folder.engine.in_memory(f"raw_{mapping}") for mapping in spec.mappings}
        self._amounts = {*spec.channels.get("numerical", ()), *spec.channels["label"]}
        self.read: dict[str, dict[str, pa.Array]] = {}
        self.rows: dict[str, pa.Table] = {}

    def types(self) -> dict[str, str]:
        """As `raw_columns.fit_types`."""
        named, hashed = named_columns(self.spec, self.config)
        types = {}
        for name, is_multi_hot in named.items():
            values = self.raw["train"][name].combine_chunks()
            if name in hashed and is_text(values.type):
                continue
            if is_multi_hot:
                values, _ = parts(values, list_delimiter(self.spec, name, "train"))
            if not is_list(values.type):
                type_ = _type_of(plain(values), self.config.missing)
                types |= {name: type_} if name not in hashed or type_ == Integer.name else {}
        return types

    def check(self, raw: Mapping[str, RawColumn], mapping: str) -> None:
        """Reads the values of a mapping. Raises PrepareError for the first that is no number, or list that is too
        long."""
        table = self.raw[mapping]
        read = self.read[mapping] = {}
        if len(table) and all(self._reads(name, column, table[name].combine_chunks(), read)
                              for name, column in raw.items()):
            return
        rows.check(self.folder.engine, self.spec, self.config, raw, mapping)
        raise AssertionError(f"{mapping}: rows that are good to the engine")

    def _reads(self, name: str, raw: RawColumn, column: pa.Array, read: dict[str, pa.Array]) -> bool:
        """Whether all values can be read; then `read` has them."""
        feature, offsets = self.spec.features[name], None
        if feature.is_multi_hot:
            column, offsets = parts(column, raw.list)
        elif is_list(column.type):
            return False
        column = plain(column)
        if isinstance(raw.type, Integer) and pa.types.is_floating(column.type):
            number = to_numpy(column)
            if (np.abs(number) > rows.exact_up_to(column.type.bit_width)).any():
                return False
        try:
            values = raw.type.array(column)
        except Unreadable:
            return False
        if offsets is not None:
            values, offsets = known_parts(values, offsets)
            if np.diff(offsets).max(initial=0) > feature.max_hotness:
                return False
            values = pa.ListArray.from_arrays(of_numbers(offsets.astype(np.int32)), values)
        elif isinstance(raw.type, Float) and name in self._amounts:
            if pc.any(pc.is_inf(values)).as_py():
                return False
        elif isinstance(raw.type, Integer) and values.null_count and not rows.is_id(self.spec, name):
            unread = Text().array(column.filter(values.is_null())).drop_null()
            if not pc.all(pc.is_in(unread, of_texts(self.config.missing)), min_count=0).as_py():
                return False
        read[name] = values
        return True

    def to_split(self, mapping: str, by: Sequence[str]) -> ir.Table:
        table = self.folder.engine.table(f"raw_{mapping}")
        return self.folder.engine.numbered(table, *by, *({rows.FILE} & set(table.columns)))

    def assign(self, mapping: str, names: Sequence[str], labelled: ir.Table, part: ir.IntegerValue,
               encoding: Encoding) -> dict[str, tuple[int, int]]:
        found = pa.Table.from_batches(list(self.folder.engine.batches(
            labelled.select("row", label=ibis.coalesce(labelled["__label"].cast("int8"), -1), part=part))))
        found = found.sort_by("row")
        label_B, part_B = to_numpy(found["label"]), to_numpy(found["part"])
        read, counts = self.read.pop(mapping), {}
        for index, name in enumerate(names):
            row_S = np.flatnonzero((part_B == index) & (label_B >= 0))
            counts[name] = len(row_S), int(label_B[row_S].sum())
            self.rows[name] = pa.table({column: values.take(of_numbers(row_S)) for column, values in read.items()})
            if name == self.examples:
                parquet.write_table(self.raw[mapping].select(list(read)).take(of_numbers(row_S[:EXAMPLE_ROWS])),
                                    self.folder.preparation / EXAMPLES)
        counts[""] = int((label_B < 0).sum()), 0
        return counts

    def forget_raw(self) -> None:
        self.raw.clear()

    # ---- what is fitted on the training rows

    def vocabularies(self, features: Iterable[Feature]) -> dict[str, int]:
        """Writes the vocabulary of every feature; feature → cardinality without buckets."""
        return {feature.name: write_vocabulary_of(
            self.folder, feature.name, self._values(feature),
            self.config.limit_among(feature.name, len(self.rows["train"]))) for feature in features}

    def _values(self, feature: Feature) -> pa.Array:
        values = self.rows["train"][feature.name].combine_chunks()
        values = values.flatten() if feature.is_multi_hot else values
        return values[:0] if feature.name in self.config.hash_only else values

    def number_counts(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """As `bins.number_counts`."""
        x = self._numbers(name)
        return np.unique(x[~np.isnan(x)] + 0.0, return_counts=True)

    def scales(self, names: Sequence[str], logs: Sequence[str]) -> dict[str, dict[str, float]]:
        return fit_scales_of({name: SignedLog().many(self._numbers(name)) if name in logs else self._numbers(name)
                              for name in names})

    def _numbers(self, name: str) -> np.ndarray:
        return to_numpy(self.rows["train"][name]).astype(np.float64)

    def missing(self, mapping: str) -> dict[str, float]:
        rows, found = self.rows[mapping], {}
        for name, column in zip(rows.column_names, rows.columns, strict=True):
            empty = int((filled(pc.list_value_length(column), 1) == 0).sum()) if is_list(column.type) else 0
            found[name] = (column.null_count + empty) / len(rows)
        return found

    def write(self, encoding: Encoding, **how: Any) -> tuple[FeatureSpec, dict[str, dict[str, float]]]:
        return write_in_memory(self.folder, self.rows, **how)


def _type_of(values: pa.Array, missing: Sequence[str]) -> str:
    """The raw type of values that have names."""
    type_ = values.type
    if pa.types.is_string(type_):
        return _type_of_texts(values, missing)
    if pa.types.is_floating(type_):
        number = to_numpy(values).astype(np.float64)
        with np.errstate(invalid="ignore"):
            return (Text if (~np.isnan(number) & (number % 1 != 0)).any() else Integer).name
    if pa.types.is_integer(type_) or pa.types.is_decimal(type_):
        return (Text if Integer().array(values).null_count > values.null_count else Integer).name
    is_time = pa.types.is_timestamp(type_) or pa.types.is_date(type_)
    return (Boolean if pa.types.is_boolean(type_) else Time if is_time else Text).name


def _type_of_texts(values: pa.Array, missing: Sequence[str]) -> str:
    """As `raw_columns.fit_types` of texts."""
    left = fitting(values[:SAMPLE].to_pylist(), missing)
    texts = Text().array(values).drop_null() if left else None
    for name in left:
        if name == Integer.name:
            known = texts.filter(pc.invert(pc.is_in(texts, of_texts(missing))))
            fits = len(known) and pc.all(pc.match_substring_regex(known, PLAIN_WHOLE)).as_py() and \
                not Integer().array(known).null_count
        else:
            fits = len(texts) and not {Boolean.name: Boolean, Time.name: Time}[name]().array(texts).null_count
        if fits:
            return name
    return Text.name
