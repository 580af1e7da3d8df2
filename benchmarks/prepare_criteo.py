"""CPU time, wall time and peak memory of the Criteo preparation beside the same work as hand-written DuckDB SQL.

Both read the same generated raw files (power-law hexadecimal values), count the vocabularies of the training rows,
encode, shuffle the training rows and write the same split_binary columns. Each run is a process of its own, the two
in turns; CPU time is user + system of that process with all its threads, imports included. The SQL is the fastest
plan we know: hex staged as 32-bit integers, one query per column, numpy putting the values in place; its staged
tables lie in memory or in a database file. Target: our CPU time at most 1.15 times that of the faster SQL.

    python benchmarks/prepare_criteo.py --rows 2000000
"""

from __future__ import annotations

import json
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


# ---- the two rivals, each run in a process of its own


def ours(raw: Path, out: Path, memory_limit: str) -> None:
    from clickwise import prepare

    files = sorted(map(str, raw.iterdir()))
    prepare.run({"dataset": {"name": "criteo", "train": files, "split": "halve_last", "seed": SEED,
                             "frequency_limit": FREQUENCY_LIMIT},
                 "engine": {"memory_limit": memory_limit}, "out": str(out)}, "benchmark")


def sql(raw: Path, out: Path, memory_limit: str, database: str = ":memory:") -> None:
    import duckdb

    connection = duckdb.connect(database)
    connection.execute(f"SET memory_limit='{memory_limit}'; SET temp_directory='{out}.spill'")
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


def sql_on_disk(raw: Path, out: Path, memory_limit: str) -> None:
    sql(raw, out, memory_limit, f"{out}.duckdb")


RIVALS = {"sql, tables in memory": sql, "sql, tables on disk": sql_on_disk, "clickwise prepare": ours}


def child(name: str, raw: str, out: str, memory_limit: str) -> None:
    started = time.perf_counter()
    RIVALS[name](Path(raw), Path(out), memory_limit)
    wall = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent before exec
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "wall_s": wall, "peak_gb": peak / 1e9}))


def same(one: Path, two: Path) -> bool:
    """Whether two outputs hold the same bytes; of the shuffled training rows, each byte equally often."""
    def content(path: Path) -> np.ndarray:
        data = np.fromfile(path, np.uint8)
        return np.bincount(data, minlength=256) if path.parent.name == "train" else data

    files = [path.relative_to(two) for path in two.rglob("*.bin")]
    return len(files) == 3 * 28 and all(np.array_equal(content(one / file), content(two / file)) for file in files)


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(repeats=3)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--memory-limit", default="4GB")
    parser.add_argument("--folder", default=None, help="where the raw files and outputs go (a temporary folder)")
    parser.add_argument("--child", nargs=4, help="internal")
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    Path(options.folder or tempfile.gettempdir()).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        generate(folder / "raw", options.rows)
        runs = {name: [] for name in RIVALS}
        for _ in range(options.repeats):
            for number, name in enumerate(RIVALS):
                out = folder / f"out_{number}"
                subprocess.run(f"rm -rf {out} {out}.*", shell=True, check=True)
                command = [sys.executable, __file__, "--child", name, folder / "raw", out, options.memory_limit]
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stderr)
                runs[name].append(json.loads(done.stdout.splitlines()[-1]))
                print(name, runs[name][-1], file=sys.stderr, flush=True)
        if not same(folder / "out_0", folder / "out_2"):
            sys.exit("the outputs differ")
        raw_bytes = sum(os.path.getsize(file) for file in (folder / "raw").iterdir())
    finally:
        shutil.rmtree(folder)
    best = min(statistics.median(run["cpu_s"] for run in runs[name]) for name in list(RIVALS)[:2])
    rows = []
    for name, times in runs.items():
        median = {key: statistics.median(run[key] for run in times) for key in times[0]}
        rows.append({"case": name, **median, "cpu_min_s": min(run["cpu_s"] for run in times),
                     "cpu_max_s": max(run["cpu_s"] for run in times), "cpu_ratio": median["cpu_s"] / best,
                     "rows_per_cpu_s": options.rows / median["cpu_s"]})
    finish("prepare-criteo", rows, options, raw_rows=options.rows, raw_bytes=raw_bytes, files=FILES,
           memory_limit=options.memory_limit, frequency_limit=FREQUENCY_LIMIT,
           target="cpu_ratio of clickwise at most 1.15")


if __name__ == "__main__":
    main()
