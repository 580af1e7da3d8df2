"""How many values of raw columns were missing, and how many were not seen in training: counted as rows are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clickwise.encoding import Encoder
from clickwise.encoding.further_operations import RareVocabulary
from clickwise.encoding.operations import Vocabulary
from clickwise.serve.inputs import GraphInput
from clickwise.serve.signature import RawInput

MOST_COLUMNS = 1000
FEW = 8  # rows


class Shares:
    """`columns` are the raw columns that are counted, in their order: those of one value a row, at most 1,000."""

    def __init__(self, raw: Mapping[str, RawInput], inputs: Sequence[GraphInput], encoder: Encoder | None) -> None:
        self.columns = tuple(name for name, column in raw.items() if column.list is None)[:MOST_COLUMNS]
        index_of = {name: index for index, name in enumerate(self.columns)}
        self._tensor, at, of, low, high = "", [], [], [], []
        for input_ in inputs if encoder is not None else ():
            if input_.kind != "ids":
                continue
            self._tensor = input_.name
            for index, name in enumerate(input_.features):
                column = encoder.encoding.columns[name]
                step = column.steps[-1] if column.steps else None
                if isinstance(step, Vocabulary) and len(column.sources) == 1 and column.sources[0] in index_of:
                    rare = isinstance(step, RareVocabulary)
                    at.append(index)
                    of.append(index_of[column.sources[0]])
                    low.append(int(rare))
                    high.append(step.file.size + rare)
        self._each = list(zip(at, of, low, high, strict=True))
        self._at, self._of = np.array(at, np.intp), np.array(of, np.intp)
        self._low, self._high = np.array(low, np.int64), np.array(high, np.int64)

    def count(self, columns: Mapping[str, Any], tensors: Mapping[str, np.ndarray], missing: np.ndarray,
              unseen: np.ndarray) -> None:
        """Adds the rows of a request to `missing` and `unseen`, one number for each of `columns`."""
        if len(next(iter(columns.values()))) <= FEW:
            self._count_few(columns, tensors, missing, unseen)
            return
        found = np.array([_missing(columns[name]) if name in columns else 0 for name in self.columns])
        missing += found
        if len(self._at):
            ids = tensors[self._tensor][:, self._at]
            unknown = ((ids <= self._low) | (ids > self._high)).sum(0)
            unseen[self._of] += np.maximum(unknown - found[self._of], 0)

    def _count_few(self, columns: Mapping[str, Any], tensors: Mapping[str, np.ndarray], missing: np.ndarray,
                   unseen: np.ndarray) -> None:
        """The same of a few rows, without arrays, which cost more than what they count."""
        absent = set()
        for index, name in enumerate(self.columns):
            for row, value in enumerate(columns.get(name, ())):
                if value is None or value == "" or value != value:
                    absent.add((row, index))
                    missing[index] += 1
        if self._each:
            for row, ids in enumerate(tensors[self._tensor].tolist()):
                for at, of, low, high in self._each:
                    if not low < ids[at] <= high and (row, of) not in absent:
                        unseen[of] += 1


def _missing(values: Any) -> int:
    if isinstance(values, np.ndarray):
        return int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
    return sum(value is None or value == "" or value != value for value in values)
