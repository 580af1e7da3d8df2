"""Raw logs in Criteo's format with a planted signal: what `prepare` reads when the real logs are not at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clickwise.data.columns import Columns
from clickwise.data.synthetic.ceiling import Ceiling
from clickwise.data.synthetic.generate import (
    CHUNK_ROWS,
    CRITEO_NUMERICALS,
    SyntheticConfig,
    chunk_generator,
    draw_labels,
    synthetic_spec,
)
from clickwise.data.synthetic.power_law import power_law
from clickwise.data.synthetic.signal import SignalConfig, build_signal, hidden_bits
from clickwise.data.synthetic.write import Figures, checked, in_order, new_folder
from clickwise.errors import DataError
from clickwise.feature_spec import FeatureSpec
from clickwise.progress import Progress

# Of each integer column: how many values it has, and the least of them (Criteo's second reaches −3).
INTEGERS = ((1000, 0), (20000, -3), (5000, 0), (500, -1), (60000, 0), (2000, 0), (300, 0), (3000, -1), (8000, 0),
            (10, 0), (200, -2), (50, 0), (400, 0))
CHUNK = CHUNK_ROWS // 4
VARIANT = "criteo_t15"


def synthesize_raw_criteo(out_folder: str | Path, rows: int, files: int = 2, seed: int = 1, *, alpha: float = 1.45,
                          signal: SignalConfig | str = "additive", threads: int | None = None) -> Figures:
    """Writes files day_0 … day_{files−1}; returns rows, click rate and the best that a model can reach on them.

    Every line is a label, 13 integers and 26 categories as 8 hexadecimal digits, between tabs. Ids follow the power
    law of the tables of VARIANT; in every column one id of the law stands for a missing value and is left empty (2 to
    50 % of the rows, by column). The additive signal is linear in ln(x + 3), which is what preparation makes of an
    integer. The folder appears when all of it is there; DataError where it exists already, or the disk is full.
    """
    if not 1 <= files <= rows:
        raise DataError("synthetic raw logs", found=f"{rows} rows in {files} files",
                        expected="at least one row for every file")
    config = checked(spec=VARIANT, rows={"train": rows}, seed=seed, alpha=alpha, signal=signal)
    log = RawLog(synthetic_spec(config), config)
    ceiling = Ceiling()
    with new_folder(out_folder) as folder, Progress("synthesizing raw logs", total=rows) as bar:
        for file in range(files):
            file_rows = rows * (file + 1) // files - rows * file // files
            jobs = [(file, index, min(CHUNK, file_rows - start))
                    for index, start in enumerate(range(0, file_rows, CHUNK))]
            with open(folder / f"day_{file}", "wb") as opened:
                for (text, chunk_ceiling), job in zip(in_order(lambda job: log.chunk(*job), jobs, threads), jobs,
                                                      strict=True):
                    opened.write(text)
                    ceiling += chunk_ceiling
                    bar.advance(job[2])
    return ceiling.figures()


class RawLog:
    """Chunks of text; each is a pure function of (seed, file, index)."""

    def __init__(self, spec: FeatureSpec, config: SyntheticConfig) -> None:
        self.seed = config.seed
        self.signal = build_signal(config.signal, spec, seed=config.seed, alpha=config.alpha)
        self.categoricals = [(feature.name, power_law(feature.cardinality, config.alpha),
                              column % min(8, feature.cardinality))
                             for column, feature in enumerate(spec.channel("categorical"))]
        self.integers = [IntegerColumn(size, least, config.alpha, missing=column % 8)
                         for column, (size, least) in enumerate(INTEGERS)]
        # A slot for every field, 8 bytes wide: what stays zero is dropped from the text.
        fields = [(f"{kind}{column}", form) for column in range(39) for kind, form in (("value", "<u8"), ("end", "u1"))]
        self.line = np.dtype([("label", "u1"), ("tab", "u1"), *fields])

    def chunk(self, file: int, index: int, rows: int) -> tuple[bytes, Ceiling]:
        generator = chunk_generator(self.seed, f"day_{file}", index)
        lines, arrays = np.zeros(rows, self.line), {}
        numerical = np.empty((rows, CRITEO_NUMERICALS), np.float32)
        for column, integer in enumerate(self.integers):
            ids = integer.law.draw(generator, rows)
            numerical[:, column] = integer.prepared.take(ids)
            lines[f"value{column}"] = integer.text.take(ids)
        for column, (name, law, missing) in enumerate(self.categoricals):
            ids = arrays[name] = law.draw(generator, rows)
            text = hex_text(hidden_hash(self.seed, name, ids))
            text[ids == missing] = 0
            lines[f"value{CRITEO_NUMERICALS + column}"] = text
        logit = self.signal.logit(Columns(rows=rows, arrays=arrays, numerical=numerical))
        label = draw_labels(generator, logit)
        lines["label"] = label + np.uint8(ord("0"))
        for column in range(39):
            lines[f"end{column}"] = ord("\t" if column < 38 else "\n")
        lines["tab"] = ord("\t")
        return lines.tobytes().translate(None, b"\0"), Ceiling.of(logit, label)


class IntegerColumn:
    """One integer column: its law, and by id its text and what preparation will make of it."""

    def __init__(self, size: int, least: int, alpha: float, missing: int) -> None:
        self.law = power_law(size, alpha)
        values = np.arange(size) + least
        text = np.array([str(value) for value in values], "S8")
        text[missing] = b""
        self.text = text.view("<u8")
        # ln(x + 3), 0 for a missing value and for x ≤ −3; a quarter of it lies on [0, 1) like other numericals.
        prepared = np.log(np.maximum(values + 3, 1)) / 4
        prepared[missing] = 0
        self.prepared = prepared.astype(np.float32)


def hidden_hash(seed: int, column: str, ids: np.ndarray) -> np.ndarray:
    """32 bits for every id, uint32; two ids of a column never share them."""
    key = hidden_bits(seed, f"raw {column}", np.zeros(1, np.int64)).astype(np.uint32)
    x = ids.astype(np.uint32) ^ key
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):  # odd factors and xor-shifts are one-to-one
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x ^ (x >> np.uint32(16))


def hex_text(x: np.ndarray) -> np.ndarray:
    """The 8 lower-case hexadecimal digits of every uint32, as the 8 bytes of a uint64 in memory order."""
    digits = x.byteswap().astype(np.uint64)
    digits = (digits | digits << np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    digits = (digits | digits << np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    digits = (digits >> np.uint64(4) | digits << np.uint64(8)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    above_9 = ((digits + np.uint64(0x0606060606060606)) >> np.uint64(4)) & np.uint64(0x0101010101010101)
    return digits + np.uint64(0x3030303030303030) + above_9 * np.uint64(ord("a") - ord("0") - 10)
