"""The steps of a table of any size, as queries of the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ibis.expr.types as ir
import numpy as np

from clickwise.encoding import Encoding, RawColumn
from clickwise.encoding.operations import SignedLog
from clickwise.feature_spec import Feature, FeatureSpec
from clickwise.prepare import bins, steps
from clickwise.prepare.encode import read, write_encoded
from clickwise.prepare.folder import PreparationFolder
from clickwise.prepare.scales import fit_scales
from clickwise.prepare.table.raw_columns import fit_types
from clickwise.prepare.table.rows import check
from clickwise.prepare.vocabularies import store_vocabularies
from clickwise.prepare.written import EXAMPLE_ROWS, EXAMPLES

if TYPE_CHECKING:
    from clickwise.prepare.table.config import TableConfig


class RowsInEngine:
    """The stored tables `raw_<mapping>` and, once they are split, `rows_<mapping>`, whose values have been read."""

    examples: str | None = None  # the mapping whose first rows are kept as they are

    def __init__(self, folder: PreparationFolder, spec: FeatureSpec, config: TableConfig) -> None:
        self.folder, self.engine, self.spec, self.config = folder, folder.engine, spec, config

    def types(self) -> dict[str, str]:
        return fit_types(self.engine, self.spec, self.config)

    def check(self, raw: Mapping[str, RawColumn], mapping: str) -> None:
        check(self.engine, self.spec, self.config, raw, mapping)

    def to_split(self, mapping: str, by: Sequence[str]) -> ir.Table:
        return self.engine.numbered(self.engine.table(f"raw_{mapping}"))

    def assign(self, mapping: str, names: Sequence[str], labelled: ir.Table, part: ir.IntegerValue,
               encoding: Encoding) -> dict[str, tuple[int, int]]:
        engine, found = self.engine, {}
        # Values are read and parts worked out once: a filter works its expression out again for each mention.
        assigned = engine.materialise(labelled.mutate(__part=part, **read(labelled, encoding.raw, engine)).drop("row"),
                                      "assigned")
        for index, name in enumerate(names):
            wanted = assigned.filter(assigned["__label"].notnull() & (assigned["__part"] == index))
            if name == self.examples:
                self._save_examples(mapping, index, list(encoding.raw))
            engine.materialise(wanted.drop("__part", "__label"), f"rows_{name}")
            count = engine.row(wanted.aggregate(rows=wanted.count(), positive=wanted["__label"].cast("int64").sum()))
            found[name] = count["rows"], count["positive"] or 0
        found[""] = engine.count(assigned.filter(assigned["__label"].isnull())), 0
        engine.drop("assigned")
        return found

    def forget_raw(self) -> None:
        """Once the rows are split, and a run that is stopped would go on behind that."""
        for mapping in self.spec.mappings:
            self.engine.drop(f"raw_{mapping}")

    def _save_examples(self, mapping: str, part: int, columns: Sequence[str]) -> None:
        """The first rows of a part as they stand in the raw table, whose rows are numbered as those of `assigned`."""
        engine = self.engine
        assigned = engine.numbered(engine.table("assigned"))
        wanted = assigned.filter(assigned["__label"].notnull() & (assigned["__part"] == part))
        wanted = wanted.select("row").order_by("row").limit(EXAMPLE_ROWS)
        raw = engine.numbered(engine.table(f"raw_{mapping}"))
        engine.write_parquet(raw.semi_join(wanted, "row").order_by("row").select(*columns),
                             self.folder.preparation / EXAMPLES)

    # ---- what is fitted on the training rows

    def vocabularies(self, features: Iterable[Feature]) -> dict[str, int]:
        train = self.engine.table("rows_train")
        rows = self.engine.count(train)

        def values(feature: Feature) -> ir.Table:
            table = train.select(feature.name)
            table = steps.explode(table, feature.name) if feature.is_multi_hot else table
            return table.limit(0 if feature.name in self.config.hash_only else None)

        return store_vocabularies(self.folder, {feature.name: values(feature) for feature in features},
                                  lambda name: self.config.limit_among(name, rows))

    def number_counts(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return bins.number_counts(self.engine, self.engine.table("rows_train"), name)

    def scales(self, names: Sequence[str], logs: Sequence[str]) -> dict[str, dict[str, float]]:
        train = self.engine.table("rows_train")
        return fit_scales(self.engine, train.select(**{
            name: SignedLog().bulk(train[name]) if name in logs else train[name] for name in names}), names)

    def missing(self, mapping: str) -> dict[str, float]:
        """Raw column → the share of its rows without a value; a list without one has none."""
        rows = self.engine.table(f"rows_{mapping}")
        known = {str(index): rows.count(where=rows[name].length() > 0) if rows[name].type().is_array()
                 else rows[name].count() for index, name in enumerate(rows.columns)}
        found = self.engine.row(rows.aggregate(rows=rows.count(), **known))
        return {name: 1 - found[str(index)] / found["rows"] for index, name in enumerate(rows.columns)}

    def write(self, encoding: Encoding, **how: Any) -> tuple[FeatureSpec, dict[str, dict[str, float]]]:
        return write_encoded(self.folder, encoding, lambda mapping, names: self.engine.numbered(
            self.engine.table(f"rows_{mapping}"), *names), **how)
