"""Values of a column checked against what its feature allows; the first that is wrong is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clickwise.data.arrays import Array, RaggedArray
from clickwise.errors import SpecError
from clickwise.feature_spec import Feature

STEP = 1 << 20  # values looked at at a time


def in_steps(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Parts of `values` that stay in the processor's cache, each with the index of its first."""
    for start in range(0, len(values), STEP):
        yield start, values[start : start + STEP]


def check_ids(array: Array, feature: Feature, where: Path | str, first: int = 0) -> None:
    """Raises SpecError for the first id outside 0 … cardinality−1 or list longer than max_hotness.

    `first` is the number of the array's first row, for the message. What `unknown_ids` says was applied where the ids
    came in (csv, parquet, transcode); mapped files are not rewritten.
    """
    values = array.values if isinstance(array, RaggedArray) else array.reshape(-1)
    row_length = 1
    if isinstance(array, RaggedArray):
        check_offsets(array.offsets, where, first=first, feature=feature)
    elif len(array):
        row_length = max(1, array.size // len(array))
    for start, part in in_steps(values):
        if part.min() >= 0 and part.max() < feature.cardinality:
            continue
        index = start + int(np.flatnonzero((part < 0) | (part >= feature.cardinality))[0])
        row = index // row_length
        if isinstance(array, RaggedArray):
            row = int(np.searchsorted(array.offsets, index, side="right")) - 1
        if feature.unknown_ids in (None, "error"):
            do = "raise cardinality, or set unknown_ids: zero or modulo for the feature" if values[index] >= 0 else \
                f"{values[index]} is no id here: 0 is missing, rare, unseen and padding"
        else:
            do = f"clickwise transcode applies unknown_ids: {feature.unknown_ids}; columns on disk are not rewritten"
        raise SpecError(f"{where}, row {first + row}", found=f"id {values[index]} of the feature {feature.name!r}",
                        expected=f"0 … {feature.cardinality - 1} (cardinality {feature.cardinality})", do=do)


def check_offsets(offsets: np.ndarray, where: Path | str, what: str = "row", first: int = 0,
                  feature: Feature | None = None) -> None:
    """Raises SpecError for the first offset that is less than the one before, or list too long for the feature."""
    limit = None if feature is None else feature.max_hotness
    for start in range(0, len(offsets) - 1, STEP):
        lengths = np.diff(offsets[start : start + STEP + 1])
        if lengths.min() < 0:
            row = start + int(np.flatnonzero(lengths < 0)[0])
            raise SpecError(f"{where}, {what} {first + row}", expected="offsets that never fall",
                            found=f"an offset {offsets[row + 1]} after {offsets[row]}",
                            do="the offsets file is damaged or has another type")
        if limit is not None and lengths.max() > limit:
            row = start + int(np.flatnonzero(lengths > limit)[0])
            raise SpecError(f"{where}, {what} {first + row}",
                            found=f"a list of {offsets[row + 1] - offsets[row]} of the feature {feature.name!r}",
                            expected=f"at most {limit} (max_hotness)")


def check_finite(numerical: np.ndarray, where: Path | str, names: tuple[str, ...], first: int = 0) -> None:
    """Raises SpecError for the first NaN or infinity in [rows, N]."""
    flat = numerical.reshape(-1)
    for start, part in in_steps(flat):
        if part.dtype == np.float16:  # numpy's isfinite of float16 is many times slower than this look at the exponent
            good = int((part.view(np.uint16) & 0x7FFF).max()) < 0x7C00
        else:
            good = bool(np.isfinite(part).all())
        if not good:
            index = start + int(np.flatnonzero(~np.isfinite(part))[0])
            row, column = divmod(index, len(names))
            raise SpecError(f"{where}, row {first + row}", found=f"{flat[index]} in the feature {names[column]!r}",
                            expected="finite numbers", do="fill missing values, clip or scale large ones")


def check_labels(array: np.ndarray, where: Path | str, first: int = 0) -> None:
    """Raises SpecError for the first label that is neither 0 nor 1."""
    raw = array.view(np.uint8) if array.dtype == np.bool_ else array
    for start, part in in_steps(raw):
        wrong = (part != 0) & (part != 1)
        if wrong.any():
            index = start + int(np.flatnonzero(wrong)[0])
            raise SpecError(f"{where}, row {first + index}", found=f"the label {raw[index]}", expected="0 or 1")
