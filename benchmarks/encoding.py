"""Raw rows to what a model reads: one row from a dict, 100,000 rows from Arrow, and loading a vocabulary of 10 M.

The 40 features of `table`: 13 numbers, 25 texts with vocabularies of 10 … 1 M values, one integer id, a list of texts;
those of `criteo`: 13 numbers and 26 hexadecimal texts, of the sizes that the published model has. Values are drawn by
power laws, one in twenty is missing. Beside `Encoder.row` stand the same rows through pyarrow, one array of all
numbers, one of all texts, and ids by `index_in` or, as no Arrow function does it, by a dict of each vocabulary.
Targets: a row in 100 µs and a third of pyarrow's time, 300,000 rows/s of many, 1 s and 200 MB to load.

    python benchmarks/encoding.py --save
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from measure import arguments, finish, measure, measure_alternating
from prepare_criteo import SIZES as CRITEO_SIZES

from clickwise.encoding import Column, Encoder, Encoding, RawColumn
from clickwise.encoding.operations import LogShifted, Standardize, Vocabulary
from clickwise.encoding.raw_types import SPACE, Float, Hex32, Integer, Text
from clickwise.encoding.vocabulary_file import write_vocabulary

SIZES = [10] * 6 + [50] * 4 + [300] * 4 + [2000] * 3 + [10_000] * 3 + [100_000] * 4 + [1_000_000]
IDS, TAGS, ROWS, PARTS = 1_000_000, 5000, 100_000, 2000
SHIFT, MEAN, STD = 3.0, 5.0, 12.5


def texts(ids: np.ndarray) -> list[str]:
    """Words of 6 … 13 letters and digits, different for different ids."""
    return [f"v{id_ * 2654435761 % 2**32:x}-{id_ % 97}" for id_ in ids.tolist()]


def ranks(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """Ids from 1 on, P(id) ~ id^-1.05; one in fifty of them not in the vocabulary."""
    x = ((((1.02 * size + 1) ** -0.05 - 1) * rng.random(count) + 1) ** (1 / -0.05)).astype(np.int64)
    return np.clip(x, 1, max(size + 1, int(1.02 * size)))


def hex32(ids: np.ndarray, column: int) -> np.ndarray:
    return (ids * np.int64(2654435761) + column * 1_000_003) % 2**32


def numbers(rng: np.random.Generator, rows: int) -> pa.Array:
    return pa.array(np.round(rng.lognormal(2, 1.5, rows), 2), mask=rng.random(rows) < 0.05)


def table_encoding(folder: Path) -> Encoding:
    """The 40 features; vocabularies of the same size share a file."""
    (folder / "states").mkdir(parents=True)
    for size in {*SIZES, TAGS}:
        write_vocabulary(folder / f"states/{size}", [pa.array(texts(np.arange(1, size + 1)))])
    write_vocabulary(folder / "states/ids", [pa.array(np.arange(1, IDS + 1) * 7)])
    raw, columns, states = {}, {}, {"id": "states/ids", "tags": f"states/{TAGS}"}
    for index in range(13):
        raw[f"num_{index}"] = RawColumn(Float())
        columns[f"num_{index}"] = Column(f"num_{index}", (
            LogShifted(SHIFT) if index < 6 else Standardize(MEAN, STD),), "float32")
    for index, size in enumerate(SIZES):
        raw[f"text_{index}"], states[f"text_{index}"] = RawColumn(Text()), f"states/{size}"
        columns[f"text_{index}"] = Column(f"text_{index}", (Vocabulary(f"text_{index}"),), "int32")
    raw |= {"id": RawColumn(Integer()), "tags": RawColumn(Text(), "|")}
    columns |= {"id": Column("id", (Vocabulary("id"),), "int32"),
                "tags": Column("tags", (Vocabulary("tags"),), "int16", most=10)}
    Encoding(raw, columns, states).save(folder)
    return Encoding.load(folder)


def table_rows(rows: int) -> dict[str, pa.Array]:
    rng = np.random.default_rng(0)
    raw = {f"num_{index}": numbers(rng, rows) for index in range(13)}
    for index, size in enumerate(SIZES):
        raw[f"text_{index}"] = pa.array(texts(ranks(rng, size, rows)), mask=rng.random(rows) < 0.05)
    raw["id"] = pa.array(ranks(rng, IDS, rows) * 7, mask=rng.random(rows) < 0.05)
    ends = np.append(0, np.cumsum(rng.integers(0, 6, rows))).astype(np.int32)
    return raw | {"tags": pa.ListArray.from_arrays(ends, texts(ranks(rng, TAGS, int(ends[-1]))))}


def criteo_encoding(folder: Path) -> Encoding:
    (folder / "states").mkdir(parents=True)
    raw = {f"num_{index}": RawColumn(Float(bits=32, strict=True)) for index in range(13)}
    columns = {name: Column(name, (LogShifted(SHIFT),), "float16") for name in raw}
    for index, size in enumerate(CRITEO_SIZES):
        name = f"cat_{index}"
        write_vocabulary(folder / f"states/{name}", [pa.array(hex32(np.arange(1, size + 1), index))])
        raw[name], columns[name] = RawColumn(Hex32()), Column(name, (Vocabulary(name),), "int32")
    Encoding(raw, columns, {name: f"states/{name}" for name in raw if name[0] == "c"}).save(folder)
    return Encoding.load(folder)


def criteo_rows(rows: int) -> dict[str, pa.Array]:
    """As a CSV reader gives them: numbers as numbers, hexadecimal values as texts."""
    rng = np.random.default_rng(1)
    raw = {f"num_{index}": numbers(rng, rows) for index in range(13)}
    for index, size in enumerate(CRITEO_SIZES):
        values = [f"{value:08x}" for value in hex32(ranks(rng, size, rows), index).tolist()]
        raw[f"cat_{index}"] = pa.array(values, mask=rng.random(rows) < 0.05)
    return raw


# ---- the same row through pyarrow


class WithPyarrow:
    """`Encoder.row` of the table encoding as Arrow's functions do it; `hashed` looks ids up in dicts."""

    def __init__(self, hashed: bool) -> None:
        self.hashed = hashed
        self.values = {size: pa.array(texts(np.arange(1, size + 1))) for size in {*SIZES, TAGS}}
        self.values["id"] = pa.array(np.arange(1, IDS + 1) * 7)
        if hashed:
            self.values = {name: {value: id_ for id_, value in enumerate(values.to_pylist(), 1)}
                           for name, values in self.values.items()}
        self.logs, self.scaled = ([f"num_{index}" for index in each] for each in (range(6), range(6, 13)))
        self.texts = [f"text_{index}" for index in range(len(SIZES))]

    def ids(self, values: pa.Array, size: int | str) -> list[int]:
        if self.hashed:
            return [self.values[size].get(value, 0) for value in values.to_pylist()]
        return pc.add(pc.fill_null(pc.index_in(values, self.values[size], skip_nulls=True), -1), 1).to_pylist()

    def row(self, row: dict) -> dict:
        x = pc.add(pa.array([row[name] for name in self.logs], pa.float64()), SHIFT)
        logs = pc.fill_null(pc.if_else(pc.greater(x, 0.0), pc.ln(x), 0.0), 0.0).cast(pa.float32())
        x = pa.array([row[name] for name in self.scaled], pa.float64())
        scaled = pc.fill_null(pc.divide(pc.subtract(x, MEAN), STD), 0.0).cast(pa.float32())
        encoded = dict(zip(self.logs + self.scaled, logs.to_pylist() + scaled.to_pylist(), strict=True))
        words = pc.utf8_trim(pa.array([row[name] for name in self.texts], pa.string()), SPACE)
        for index, (name, size) in enumerate(zip(self.texts, SIZES, strict=True)):
            (encoded[name],) = self.ids(words.slice(index, 1), size)
        (encoded["id"],) = self.ids(pa.array([row["id"]], pa.int64()), "id")
        tags = pc.utf8_trim(pa.array(row["tags"] or [], pa.string()), SPACE)
        encoded["tags"] = [id_ for id_ in self.ids(tags, TAGS) if id_]
        return encoded


def one_row(encoding: Encoding, repeats: int) -> list[dict[str, object]]:
    raw = table_rows(PARTS)
    rows = pa.table(raw).to_pylist()
    rivals = {"Encoder.row": (Encoder(encoding), rows), "pyarrow, ids by dicts": (WithPyarrow(True), rows),
              "pyarrow, index_in": (WithPyarrow(False), rows[:5])}
    expected = [rivals["Encoder.row"][0].row(row) for row in rows]
    for name, (rival, some) in rivals.items():
        assert [rival.row(row) for row in some] == expected[:len(some)], name
    timings = measure_alternating({name: lambda rival=rival, some=some: [rival.row(row) for row in some]
                                   for name, (rival, some) in rivals.items()}, repeats=repeats)
    return [case(f"one row, {name}", timing, len(rivals[name][1]), "µs per row", 1e6)
            for name, timing in timings.items()]


def many_rows(name: str, encoding: Encoding, raw: dict[str, pa.Array], repeats: int) -> dict[str, object]:
    encoder = Encoder(encoding)
    encoded, some = encoder.columns(raw).arrays, pa.table(raw).slice(0, 50).to_pylist()
    for index, row in enumerate(map(encoder.row, some)):
        for column, value in row.items():
            array = encoded[column]
            array = array[index] if isinstance(array, np.ndarray) else array[0][array[1][index]:array[1][index + 1]]
            assert array.tolist() == value, column
    timing = measure(lambda: encoder.columns(raw), repeats=repeats)
    return case(f"{ROWS:,} rows of {name}", timing, ROWS, "rows/s", None)


def case(name: str, timing, rows: int, unit: str, scale: float | None) -> dict[str, object]:
    low, middle, high = (rows / x if scale is None else x / rows * scale
                         for x in (min(timing.cpu), timing.cpu_s, max(timing.cpu)))
    return {"case": name, "median": middle, "from": min(low, high), "to": max(low, high), "unit": unit,
            "repeats": len(timing.cpu)}


# ---- loading, in a process of its own


def load(folder: str) -> None:
    def resident(key: str) -> float:
        return int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0]) * 1024 / 1e6

    started = time.process_time(), time.perf_counter()
    encoding = Encoding.load(Path(folder))
    cpu, wall = time.process_time() - started[0], time.perf_counter() - started[1]
    (file,) = (column.steps[0].file for column in encoding.columns.values())
    assert file.size == 10_000_000
    print(cpu, wall, resident("VmRSS"), resident("VmHWM"))


def loading(folder: Path, kind: str, repeats: int) -> list[dict[str, object]]:
    (folder / "states").mkdir(parents=True)
    values = np.arange(1, 10_000_001)
    write_vocabulary(folder / "states/x", [pa.array(values * 7 if kind == "integer" else texts(values))])
    raw = {"x": RawColumn(Integer() if kind == "integer" else Text())}
    Encoding(raw, {"x": Column("x", (Vocabulary("x"),), "int32")}, {"x": "states/x"}).save(folder)
    command = [sys.executable, __file__, "--load", str(folder)]
    runs = np.array([subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                     for _ in range(repeats)], float)
    units = ("CPU s", "s elapsed", "MB resident", "MB resident at most")
    return [{"case": f"loading 10 M values, {kind}", "median": float(np.median(run)), "from": run.min(),
             "to": run.max(), "unit": unit, "repeats": repeats}
            for run, unit in zip(runs.T, units, strict=True)]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--parts", default="one,table,criteo,load", help="which of one, table, criteo and load")
    parser.add_argument("--load", help="internal")
    options = parser.parse_args()
    if options.load:
        return load(options.load)
    pa.set_cpu_count(1)
    rows, parts = [], options.parts.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table = table_encoding(folder / "table") if {"one", "table"} & {*parts} else None
        if "one" in parts:
            rows += one_row(table, options.repeats)
        if "table" in parts:
            rows.append(many_rows("40 features", table, table_rows(ROWS), options.repeats))
        if "criteo" in parts:
            criteo, raw = criteo_encoding(folder / "criteo"), criteo_rows(ROWS)
            rows.append(many_rows("Criteo's 39", criteo, raw, options.repeats))
            encoder, some = Encoder(criteo), pa.table(raw).slice(0, PARTS).to_pylist()
            timing = measure(lambda: [encoder.row(row) for row in some], repeats=options.repeats)
            rows.append(case("one row of Criteo's 39, Encoder.row", timing, PARTS, "µs per row", 1e6))
        if "load" in parts:
            rows += loading(folder / "integer", "integer", options.repeats)
            rows += loading(folder / "text", "text", options.repeats)
    finish("encoding", rows, options, target="a row in 100 µs and a third of pyarrow's time; 300,000 rows/s; "
                                             "loading in 1 s with less than 200 MB resident")


if __name__ == "__main__":
    main()
