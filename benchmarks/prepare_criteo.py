"""CPU time and peak memory of the Criteo preparation beside the same work in DuckDB's SQL and in Polars, on one core.

All read the same generated raw files (power-law hexadecimal values), count the vocabularies of the training rows,
encode, shuffle the training rows and write the same split_binary columns. Each run is a process of its own on one core,
the rivals in turns; CPU time is user + system of that process, imports included. Nothing is compared unless all rivals
write the same test and validation files and the same training rows in some order. Polars reads all files at once,
eagerly or with its streaming engine; the SQL is the fastest plan we know: hex staged as 32-bit integers, one query per
column, numpy putting the values in place. `fixed` is `clickwise prepare` of 1,000 rows beside the bare imports of
duckdb, numpy and pyarrow. Targets: at most 1.0 times Polars' streaming engine and 0.9 times the SQL; `fixed` at most 4
times the imports.

    python benchmarks/prepare_criteo.py --rows 2000000 10000000
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import arguments, finish

# Sizes of the 26 value ranges: the published table sizes at frequency limit 15.
SIZES = [7912889, 33823, 17139, 7339, 20046, 4, 7105, 1382, 63, 5554114, 582469, 245828, 11, 2209, 10667, 104, 4, 968,
         15, 8165896, 2675940, 7156453, 302516, 12022, 97, 35]
FILES, FREQUENCY_LIMIT, SEED, PART = 5, 15, 0, 500_000


def generate(folder: Path, rows: int) -> None:
    """FILES raw files with `rows` lines in all; some values missing, ranks of values by a power law."""
    import duckdb
    import pyarrow as pa

    folder.mkdir(parents=True)
    connection = duckdb.connect()
    names = ["label", *(f"i{i}" for i in range(13)), *(f"c{i}" for i in range(26))]
    text = ",".join(name if name[0] != "c" else f"printf('%08x', {name})" for name in names)
    per_file = -(-rows // FILES)
    for number in range(FILES):
        with open(folder / f"day_{number}", "wb") as file:
            todo = min(per_file, rows - number * per_file)
            for first in range(0, todo, PART):
                part = _raw_part(np.random.default_rng([number, first]), min(PART, todo - first))
                connection.register("part", pa.table(dict(zip(names, part, strict=True))))
                connection.execute(f"COPY (SELECT {text} FROM part) TO '{folder}/part' "
                                   "(FORMAT csv, DELIMITER '\t', HEADER false, NULLSTR '', QUOTE '')")
                file.write((folder / "part").read_bytes())
    (folder / "part").unlink()


def _raw_part(rng: np.random.Generator, rows: int) -> list:
    import pyarrow as pa

    columns = [(rng.random(rows) < 0.25).astype(np.int8)]
    for _ in range(13):
        number = np.floor(rng.lognormal(2, 2, rows)).clip(0, 2e6).astype(np.int32) - 2
        columns.append(pa.array(number, mask=rng.random(rows) < 0.15))
    for index, size in enumerate(SIZES):
        exponent = -0.05  # P(rank) ~ rank^-1.05
        rank = ((((size + 1.0) ** exponent - 1) * rng.random(rows) + 1) ** (1 / exponent)).astype(np.uint64)
        value = ((rank + np.uint64(index * 100_000_007)) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32))
        columns.append(pa.array(value.astype(np.uint32), mask=rng.random(rows) < (0.05 if index % 3 == 0 else 0)))
    return columns


# ---- the rivals, each run in a process of its own


def ours(raw: Path, out: Path, memory_limit: str) -> None:
    from clickwise import prepare

    files = sorted(map(str, raw.iterdir()))
    prepare.run({"dataset": {"name": "criteo", "train": files, "split": "halve_last", "seed": SEED,
                             "frequency_limit": FREQUENCY_LIMIT},
                 "engine": {"memory_limit": memory_limit, "threads": 1}, "out": str(out)}, "benchmark")


def sql(raw: Path, out: Path, memory_limit: str) -> None:
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"SET memory_limit='{memory_limit}'; SET temp_directory='{out}.spill'; SET threads=1; "
                       "SET enable_progress_bar=false")
    files = sorted(map(str, raw.iterdir()))
    types = {"label": "TINYINT", **{f"i{i}": "FLOAT" for i in range(13)}, **{f"c{i}": "VARCHAR" for i in range(26)}}
    numbers, values = [f"i{i}" for i in range(13)], [f"c{i}" for i in range(26)]
    for table, part in (("train", files[:-1]), ("last", files[-1:])):
        hexes = ", ".join(f"CAST('0x' || {name} AS UINTEGER) AS {name}" for name in values)
        connection.execute(f"CREATE TABLE {table} AS SELECT label, {', '.join(numbers)}, {hexes} FROM read_csv({part}, "
                           f"delim='\t', header=false, quote='', escape='', auto_detect=false, columns={types})")
    sizes = {}
    for name in values:
        connection.execute(
            f"CREATE TABLE v_{name} AS SELECT value, CAST(row_number() OVER (ORDER BY n DESC, value) AS INTEGER) AS id "
            f"FROM (SELECT {name} AS value, count(*) AS n FROM train WHERE {name} IS NOT NULL GROUP BY 1 "
            f"HAVING count(*) >= {FREQUENCY_LIMIT})")
        sizes[name] = connection.execute(f"SELECT count(*) + 1 FROM v_{name}").fetchall()[0][0]
    last = connection.execute("SELECT count(*) FROM last").fetchall()[0][0]
    count = connection.execute("SELECT count(*) FROM train").fetchall()[0][0]
    for mapping, source, first, rows in (("train", "train", 0, count), ("test", "last", 0, last // 2),
                                         ("validation", "last", last // 2, last - last // 2)):
        (out / mapping).mkdir(parents=True)
        where = f"FROM {source} s %s WHERE s.rowid >= {first} AND s.rowid < {first + rows}"
        order = np.random.default_rng(SEED).permutation(rows) if mapping == "train" else None

        def write(query, file, dtype, width=1, rows=rows, first=first, order=order, mapping=mapping):
            result = np.empty((rows, width), dtype)
            relation = connection.sql(query)
            read = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
            for batch in read(1 << 17):
                index = batch.column(0).to_numpy() - first
                index = index if order is None else order[index]
                block = np.empty((len(index), width), dtype)
                for column in range(width):
                    block[:, column] = batch.column(column + 1).to_numpy()
                result[index] = block
            result.tofile(out / mapping / file)

        logs = ", ".join(f"CAST(CASE WHEN {name} > -3 THEN ln(CAST({name} AS DOUBLE) + 3) ELSE 0 END AS FLOAT)"
                         for name in numbers)
        write(f"SELECT s.rowid, {logs} {where % ''}", "numerical.bin", np.float16, 13)
        write(f"SELECT s.rowid, label {where % ''}", "label.bin", np.bool_)
        for index, name in enumerate(values):
            dtype = np.int8 if sizes[name] < 127 else np.int16 if sizes[name] < 32767 else np.int32
            join = f"LEFT JOIN v_{name} v ON s.{name} = v.value"
            write(f"SELECT s.rowid, coalesce(v.id, 0) {where % join}", f"cat_{index}.bin", dtype)
    connection.close()


def polars(raw: Path, out: Path, memory_limit: str, engine: str = "in-memory") -> None:
    import polars as pl

    numbers, values = [f"i{i}" for i in range(13)], [f"c{i}" for i in range(26)]
    schema = {"label": pl.Int8, **dict.fromkeys(numbers, pl.Float32), **dict.fromkeys(values, pl.String)}

    def read(files: list[str]) -> pl.DataFrame:
        lines = pl.scan_csv(files, separator="\t", has_header=False, schema=schema, quote_char=None)
        return lines.with_columns(pl.col(values).str.to_integer(base=16, dtype=pl.UInt32)).collect(engine=engine)

    files = sorted(map(str, raw.iterdir()))
    train, last = read(files[:-1]), read(files[-1:])
    vocabularies = {name: train.lazy().select(value=name).drop_nulls().group_by("value").len()
                    .filter(pl.col("len") >= FREQUENCY_LIMIT).sort(["len", "value"], descending=[True, False])
                    .select("value", id=pl.int_range(1, pl.len() + 1, dtype=pl.Int32)).collect(engine=engine)
                    for name in values}
    half = len(last) // 2
    for mapping, table in (("train", train), ("test", last[:half]), ("validation", last[half:])):
        (out / mapping).mkdir(parents=True)
        order = np.random.default_rng(SEED).permutation(len(table)) if mapping == "train" else slice(None)
        logs = table.lazy().select(pl.when(pl.col(name) > -3).then((pl.col(name).cast(pl.Float64) + 3).log())
                                   .otherwise(0.0).cast(pl.Float32).alias(name) for name in numbers)
        logs = logs.collect(engine=engine)
        block = np.empty((len(table), 13), np.float16)
        for index, name in enumerate(numbers):
            block[:, index] = logs[name].to_numpy()
        block[order].tofile(out / mapping / "numerical.bin")
        table["label"].to_numpy().astype(np.bool_)[order].tofile(out / mapping / "label.bin")
        for index, name in enumerate(values):
            size = len(vocabularies[name]) + 1
            dtype = np.int8 if size < 127 else np.int16 if size < 32767 else np.int32
            ids = table.lazy().select(value=name).join(vocabularies[name].lazy(), on="value", how="left",
                                                       maintain_order="left")
            ids = ids.select(pl.col("id").fill_null(0)).collect(engine=engine)["id"].to_numpy()
            ids.astype(dtype)[order].tofile(out / mapping / f"cat_{index}.bin")


def polars_streaming(raw: Path, out: Path, memory_limit: str) -> None:
    polars(raw, out, memory_limit, "streaming")


OURS, SQL, STREAMING = "clickwise prepare", "DuckDB SQL", "Polars, streaming"
RIVALS = {OURS: ours, SQL: sql, STREAMING: polars_streaming, "Polars, in memory": polars}
TARGETS = {SQL: 0.9, STREAMING: 1.0}


def child(name: str, raw: str, out: str, memory_limit: str) -> None:
    from clickwise.memory import peak_bytes

    RIVALS[name](Path(raw), Path(out), memory_limit)
    print(peak_bytes() / 1e9)


def run(command: list[object]) -> tuple[dict[str, float], str]:
    """CPU seconds of a process on one core, and what it printed."""
    core = min(os.sched_getaffinity(0))
    one = {name: "1" for name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS")}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | one,
                          preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    used, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr)
    return {"cpu_s": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime, "wall_s": wall}, done.stdout


def same(one: Path, two: Path) -> bool:
    """Whether two outputs hold the same: the files of the test and validation rows byte by byte, the training rows in
    some order."""
    files = sorted(path.relative_to(two) for path in two.rglob("*.bin"))
    if len(files) != 3 * 28 or files != sorted(path.relative_to(one) for path in one.rglob("*.bin")):
        return False
    train = [file for file in files if file.parts[0] == "train"]
    return all((one / file).read_bytes() == (two / file).read_bytes() for file in files if file not in train) and \
        np.array_equal(_sums(one, train), _sums(two, train))


def _sums(folder: Path, files: list[Path]) -> np.ndarray:
    """A number for the content of each row, sorted; uint64."""
    rows = (folder / "train/label.bin").stat().st_size
    total = np.zeros(rows, np.uint64)
    for file in files:
        column = np.fromfile(folder / file, np.uint8).reshape(rows, -1)
        for byte in range(column.shape[1]):
            total = (total ^ column[:, byte]) * np.uint64(0x9E3779B97F4A7C15)
            total ^= total >> np.uint64(29)
    return np.sort(total)


def fixed(folder: Path, repeats: int) -> dict[str, float]:
    """CPU seconds of the command for 1,000 rows, of the bare imports, and how many times these that is."""
    generate(folder / "tiny", 1000)
    found = {"prepare": [], "imports": []}
    for _ in range(repeats):
        shutil.rmtree(folder / "tiny_out", ignore_errors=True)
        found["imports"].append(run([sys.executable, "-c", "import duckdb, numpy, pyarrow"])[0]["cpu_s"])
        found["prepare"].append(run([
            sys.executable, "-m", "clickwise", "prepare", "criteo/prepare", f"dataset.train=[{folder}/tiny/day_*]",
            f"out={folder}/tiny_out"])[0]["cpu_s"])
    prepare, imports = (statistics.median(found[name]) for name in ("prepare", "imports"))
    return {"cpu_s": prepare, "imports_cpu_s": imports, "ratio": prepare / imports}


def measured(count: int, names: list[str], folder: Path, options) -> list[dict]:
    """What every rival took for so many raw rows."""
    generate(folder / "raw", count)
    raw_bytes = sum(os.path.getsize(file) for file in (folder / "raw").iterdir())
    runs = {name: [] for name in names}
    for turn in range(options.repeats):
        for name in names:
            out = folder / f"out_{names.index(name)}"
            subprocess.run(f"rm -rf {out} {out}.*", shell=True, check=True)
            times, peak = run([sys.executable, __file__, "--child", name, folder / "raw", out, options.memory_limit])
            runs[name].append({**times, "peak_gb": float(peak.splitlines()[-1])})
            print(count, name, runs[name][-1], file=sys.stderr, flush=True)
            if turn == 0 and name != OURS and not same(folder / "out_0", out):
                sys.exit(f"the outputs of {name} differ")
    rows = []
    for name, times in runs.items():
        cpu, ratios = [each["cpu_s"] for each in times], sorted(
            mine["cpu_s"] / each["cpu_s"] for mine, each in zip(runs[OURS], times, strict=True))
        rows.append({"raw rows": count, "case": name, "cpu_s": statistics.median(cpu), "cpu_min_s": min(cpu),
                     "cpu_max_s": max(cpu), "wall_s": statistics.median(each["wall_s"] for each in times),
                     "peak_gb": max(each["peak_gb"] for each in times), "ours_of_it": statistics.median(ratios),
                     "ours_of_it_min": ratios[0], "ours_of_it_max": ratios[-1], "target": TARGETS.get(name, ""),
                     "rows_per_cpu_s": count / statistics.median(cpu), "raw_bytes": raw_bytes})
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(repeats=3)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000_000, 10_000_000])
    parser.add_argument("--memory-limit", default="4GB")
    parser.add_argument("--folder", default=None, help="where the raw files and outputs go (a temporary folder)")
    parser.add_argument("--rivals", nargs="+", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--child", nargs=4, help="internal")
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    Path(options.folder or tempfile.gettempdir()).mkdir(parents=True, exist_ok=True)
    names = [OURS, *(name for name in options.rivals if name != OURS)]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        tiny = fixed(Path(folder), 2 * options.repeats + 1)
        print("fixed", tiny, file=sys.stderr, flush=True)
    rows = []
    for count in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows += measured(count, names, Path(folder), options)
    finish("prepare-criteo", rows, options, columns=[name for name in rows[0] if name != "raw_bytes"], files=FILES,
           cores=1, memory_limit=options.memory_limit, frequency_limit=FREQUENCY_LIMIT, fixed=tiny,
           target="CPU time at most 1.0 times Polars' streaming engine, 0.9 times the SQL; fixed at most 4 times the "
                  "imports")


if __name__ == "__main__":
    main()
