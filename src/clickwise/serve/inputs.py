"""Which tensors an exported graph takes, and how encoded columns become them."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from clickwise.encoding.lists import Lists
from clickwise.errors import DataError
from clickwise.feature_spec import TIME_GAP, FeatureSpec, history_length, is_time_gap
from clickwise.feature_spec.histories import gap_ids

PADDING = -1  # behind the ids of a bag


@dataclasses.dataclass(frozen=True)
class GraphInput:
    """One tensor that a graph takes.

    kind      numerical: float32 [B, features] · ids: int64 [B, features], an id per feature · bag: int64 [B, H], the
              ids of one feature and then −1 · history: int64 [B, L], the latest last, 0 before the first
    features  what stands in its columns; of a bag and of a history the one feature
    length    L, where the graph takes histories of this length alone; None: of any from `least` on
    most      how many positions of a history the model reads, the latest; `length`, where there is one
    gap       of a time gap (unit, cardinality): its lists hold times, from which the ids follow
    """

    name: str
    kind: Literal["numerical", "ids", "bag", "history"]
    features: tuple[str, ...]
    length: int | None = None
    most: int | None = None
    gap: tuple[int, int] | None = None
    least: int = 1

    @property
    def datatype(self) -> Literal["FP32", "INT64"]:
        """As the Open Inference Protocol says it."""
        return "FP32" if self.kind == "numerical" else "INT64"

    @property
    def width(self) -> int | None:
        """How many values a row has; None where rows may differ."""
        return len(self.features) if self.kind in ("numerical", "ids") else self.length

    @functools.cached_property
    def values_of(self) -> Callable[[Mapping[str, Any]], tuple]:
        """What takes the values of `features` out of a row, a tuple."""
        get = operator.itemgetter(*self.features)
        return get if len(self.features) > 1 else lambda row: (get(row),)


def graph_inputs(spec: FeatureSpec, reads: Mapping[str, Sequence[str]], *, most: int | None = None,
                 least: int | None = None) -> tuple[GraphInput, ...]:
    """The inputs of the graph of a model that reads these features, channel by channel.

    `most` positions of the histories are read (None: as many as the Feature Spec says); the graph takes shorter ones
    from `least` on (None: it does not).
    """
    names = [name for channel in ("categorical", "user", "target_item") for name in reads.get(channel, ())]
    bags = [name for name in names if spec.features[name].is_multi_hot]
    ones = tuple(name for name in names if name not in bags)
    inputs = []
    if numericals := tuple(reads.get("numerical", ())):
        inputs.append(GraphInput("numerical", "numerical", numericals))
    if ones:
        inputs.append(GraphInput("ids", "ids", ones))
    inputs += [GraphInput(f"bag_{number}", "bag", (name,)) for number, name in enumerate(bags)]
    most = most or history_length(spec)
    for number, name in enumerate(reads.get("history", ())):
        feature = spec.features[name]
        gap = (feature.extra[TIME_GAP], feature.cardinality) if is_time_gap(feature) else None
        inputs.append(GraphInput(f"history_{number}", "history", (name,), most, most, gap) if least is None
                      or least >= most else
                      GraphInput(f"history_{number}", "history", (name,), None, most, gap, least))
    return tuple(inputs)


def tensors(inputs: Sequence[GraphInput], columns: Mapping[str, np.ndarray | Lists],
            rows: int) -> dict[str, np.ndarray]:
    """The tensors of these rows by name, for a graph with these inputs.

    `columns` are what an encoder gives, by feature: values [rows], or lists; histories may also be [rows, L]. Raises
    DataError where the histories of a row differ in length.
    """
    found: dict[str, np.ndarray] = {}
    histories = []
    for input_ in inputs:
        if input_.kind == "history":
            histories.append(input_)
        elif input_.kind == "bag":
            found[input_.name] = _bag(columns[input_.features[0]], rows)
        else:
            out = np.empty((rows, len(input_.features)), np.float32 if input_.kind == "numerical" else np.int64)
            for index, name in enumerate(input_.features):
                out[:, index] = columns[name]
            found[input_.name] = out
    if histories:
        found |= _histories(histories, columns, rows)
    return found


def tensors_of_rows(inputs: Sequence[GraphInput], rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The same of a few rows: their values by feature, Python's own, lists of ids for lists."""
    found: dict[str, np.ndarray] = {}
    histories = []
    for input_ in inputs:
        values = [input_.values_of(row) for row in rows]
        if input_.kind == "numerical":
            found[input_.name] = np.array(values, np.float32)
        elif input_.kind == "ids":
            found[input_.name] = np.array(values, np.int64)
        elif input_.kind == "bag":
            longest = max(1, *[len(ids) for ids, in values])
            found[input_.name] = np.array([ids + [PADDING] * (longest - len(ids)) for ids, in values], np.int64)
        else:
            histories.append(input_)
    if histories:
        found |= _histories(histories, {name: _end_to_end([row[name] for row in rows])
                                        for (name,) in (input_.features for input_ in histories)}, len(rows))
    return found


def _end_to_end(lists: Sequence[list[int]]) -> Lists:
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(ids) for ids in lists], out=offsets[1:])
    return np.array([id_ for ids in lists for id_ in ids], np.int64), offsets


def _bag(lists: Lists, rows: int) -> np.ndarray:
    values, offsets = lists
    if rows == 1:
        out = np.full((1, max(1, len(values))), PADDING, np.int64)
        out[0, :len(values)] = values
        return out
    lengths = np.diff(offsets)
    longest = max(1, int(lengths.max(initial=0)))
    out = np.full((rows, longest), PADDING, np.int64)
    out[np.arange(longest) < lengths[:, None]] = values[offsets[0]:offsets[-1]]
    return out


def _histories(inputs: Sequence[GraphInput], columns: Mapping[str, np.ndarray | Lists],
               rows: int) -> dict[str, np.ndarray]:
    given = [columns[input_.features[0]] for input_ in inputs]
    length = inputs[0].length or min(inputs[0].most, max(inputs[0].least, *map(_longest, given)))
    offsets = next((column[1] for column in given if isinstance(column, tuple)), None)
    if offsets is not None:
        _check_lengths(inputs, given, offsets)
        real = np.arange(length) >= length - np.diff(offsets)[:, None]
        taken = (offsets[1:, None] - length + np.arange(length))[real]
    found = {}
    for input_, column in zip(inputs, given, strict=True):
        out = found[input_.name] = np.zeros((rows, length), np.int64)
        if isinstance(column, tuple):
            values = column[0][taken]
            out[real] = values if input_.gap is None else gap_ids(-values, *input_.gap)
        elif column.shape[1]:
            last = column[:, -length:]
            out[:, length - last.shape[1]:] = last
    return found


def _longest(column: np.ndarray | Lists) -> int:
    return int(np.diff(column[1]).max(initial=0)) if isinstance(column, tuple) else column.shape[1]


def _check_lengths(inputs: Sequence[GraphInput], given: Sequence[np.ndarray | Lists], offsets: np.ndarray) -> None:
    for input_, column in zip(inputs, given, strict=True):
        if isinstance(column, tuple) and column[1] is not offsets and not np.array_equal(column[1], offsets):
            row = int(np.flatnonzero(np.diff(column[1]) != np.diff(offsets))[0])
            raise DataError(f"row {row}", found=f"{np.diff(column[1])[row]} values of {input_.features[0]!r}",
                            expected=f"{np.diff(offsets)[row]}, as of {inputs[0].features[0]!r}: the lists are "
                                     "features of the same events")
