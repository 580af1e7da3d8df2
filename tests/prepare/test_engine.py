from __future__ import annotations

import gzip

import ibis
import pytest

from clickwise.errors import PrepareError
from clickwise.memory_limits import parse_bytes
from clickwise.prepare.duckdb_engine import DuckDBEngine
from clickwise.prepare.engine import BadInput


@pytest.fixture
def engine():
    engine = DuckDBEngine(memory_limit="500MB", threads=2)
    yield engine
    engine.close()


def test_text_files_one_after_another_plain_and_gz(engine, tmp_path):
    (tmp_path / "b.tsv").write_text("1\tx\n\ty z\n")
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b'3\t"q\n4\t'))
    raw = engine.read_text([tmp_path / "b.tsv", tmp_path / "a.tsv.gz"], {"n": "int32", "s": "string"})
    table = engine.numbered(engine.materialise(raw, "t"))
    assert sorted((row["row"], row["n"], row["s"]) for row in engine.rows(table)) == [
        (0, 1, "x"), (1, None, "y z"), (2, 3, '"q'), (3, 4, None)]
    assert engine.count(table) == 4


def test_csv_with_header_and_quotes(engine, tmp_path):
    (tmp_path / "x.csv").write_text('n,s\n1,"a,b"\n2,\n')
    raw = engine.read_text([tmp_path / "x.csv"], {"n": "int64", "s": "string"}, delimiter=",", header=True, quote='"')
    assert engine.rows(raw) == [{"n": 1, "s": "a,b"}, {"n": 2, "s": None}]


def test_parquet_there_and_back(engine, tmp_path):
    table = ibis.memtable({"x": [3, 1, 2], "s": ["c", None, "b"]})
    engine.write_parquet(table.order_by("x"), tmp_path / "it's.parquet")
    assert engine.rows(engine.read_parquet([tmp_path / "it's.parquet"])) == [
        {"x": 1, "s": None}, {"x": 2, "s": "b"}, {"x": 3, "s": "c"}]


def test_hex(engine):
    table = engine.materialise(ibis.memtable({"x": ["0", "ff", "FFFFFFFF", "0000000a", None]}), "t")
    assert [row["x"] for row in engine.rows(table.select(x=engine.parse_hex(table.x)))] == [0, 255, 2**32 - 1, 10, None]
    longer = engine.materialise(ibis.memtable({"x": ["f" * 15, "0" * 14 + "a", None]}), "t")
    assert [row["x"] for row in engine.rows(longer.select(x=engine.parse_hex(longer.x, "int64")))] == [
        2**60 - 1, 10, None]
    bad = engine.materialise(ibis.memtable({"x": ["fffffffff"]}), "t")
    with pytest.raises(BadInput):
        engine.rows(bad.select(x=engine.parse_hex(bad.x)))


def test_a_stored_table_keeps_the_order_it_was_stored_in(engine):
    numbers = ibis.range(200_000).unnest().name("x").as_table()
    table = engine.numbered(engine.materialise(numbers.order_by(ibis.desc("x")), "t"))
    assert engine.row(table.aggregate(same=(table.x + table.row == 199_999).all())) == {"same": True}


def test_storing_again_replaces_and_dropping_forgets(engine):
    engine.materialise(ibis.memtable({"x": [1]}), "t")
    table = engine.materialise(ibis.memtable({"y": ["a", "b"]}), "t")
    assert table.columns == ("y",) and engine.count(engine.table("t")) == 2
    engine.drop("t")
    engine.drop("t")
    engine.materialise(ibis.memtable({"z": [1.5]}), "t")
    assert engine.rows(engine.table("t")) == [{"z": 1.5}]


def test_tables_on_disk_are_there_in_the_next_run(tmp_path):
    first = DuckDBEngine(database=tmp_path / "tables.duckdb")
    first.materialise(ibis.memtable({"x": [1, 2]}), "t")
    first.close()
    second = DuckDBEngine(database=tmp_path / "tables.duckdb")
    assert second.rows(second.table("t")) == [{"x": 1}, {"x": 2}]
    second.close()


def test_more_than_fits_into_memory_goes_to_disk_and_survives(tmp_path):
    engine = DuckDBEngine(memory_limit="60MB", threads=1, spill_folder=tmp_path / "spill",
                          database=tmp_path / "tables.duckdb")
    rows = 3_000_000
    numbers = ibis.range(rows).unnest().name("x").as_table()
    table = engine.materialise(numbers.mutate(y=numbers.x * 7919 % rows, z=numbers.x, w=-numbers.x), "t")
    table = engine.numbered(engine.materialise(table.order_by("y"), "ordered"))
    assert engine.row(table.aggregate(n=table.count(), same=(table.y == table.row).all())) == {"n": rows, "same": True}
    engine.close()


def test_too_little_memory_is_said(tmp_path):
    engine = DuckDBEngine(memory_limit="5MB", threads=1)
    numbers = ibis.range(2_000_000).unnest().name("x").as_table()
    with pytest.raises(PrepareError, match="engine.memory_limit"):
        engine.materialise(numbers.mutate(y=-numbers.x).order_by("y"), "t")
    engine.close()


@pytest.mark.parametrize(("text", "size"), [("4GB", 4 * 10**9), ("1.5 gb", 1_500_000_000), ("512MiB", 2**29),
                                            ("100", 100), ("much", None), ("4XB", None), ("", None), ("GB", None)])
def test_sizes(text, size):
    assert parse_bytes(text) == size


def test_sums_of_integers_are_integers(engine):
    table = engine.materialise(ibis.memtable({"x": [2**62, 2**62, 2**62], "y": [0.5, 1.0, 1.0]}), "t")
    row = engine.row(table.aggregate(x=table.x.sum(), y=table.y.sum()))
    assert row == {"x": 3 * 2**62, "y": 2.5} and isinstance(row["x"], int)


def test_an_ibis_without_the_private_function_is_named(engine, monkeypatch):
    for kind in type(engine.ibis).__mro__:
        if "_run_pre_execute_hooks" in vars(kind):
            monkeypatch.delattr(kind, "_run_pre_execute_hooks")
    with pytest.raises(PrepareError, match=rf"(?s){ibis.__version__}.*pip install 'ibis-framework\[duckdb\]==12"):
        engine.materialise(ibis.memtable({"x": [1]}), "t")


def test_names_with_quotes_in_files_and_columns(engine, tmp_path):
    file = tmp_path / "it's.csv"
    file.write_text('a,b\n1,"it\'\'s"\n2,?\n', encoding="utf-8")
    names = ["it's", 'a "b"']
    raw = engine.read_text([file], dict.fromkeys(names, "string"), delimiter=",", header=True, quote='"',
                           missing=("", "?"), file_column="of")
    table = engine.materialise(raw, "t", is_small=True)
    assert engine.rows(table) == [{names[0]: "1", names[1]: "it''s", "of": 0}, {names[0]: "2", names[1]: None, "of": 0}]
    assert engine.in_memory("t").column_names == [*names, "of"]


def test_tables_have_the_types_that_ibis_finds(engine):
    engine.duckdb.execute("""CREATE TABLE t AS SELECT 1::TINYINT AS a, 1::UBIGINT AS b, 1.5::DECIMAL(9, 2) AS c,
        ['x'] AS d, [[1]] AS e, {'x': 1} AS f, TIMESTAMPTZ '2024-01-01 00:00:00+00' AS g, DATE '2024-01-01' AS h,
        1::HUGEINT AS i""")
    assert engine.table("t").schema() == engine.ibis.table("t").schema()


def test_a_small_table_leaves_the_threads_as_they_were(engine):
    engine.duckdb.execute("SET threads = 3")
    with pytest.raises(BadInput):
        engine.materialise(ibis.memtable({"x": ["one"]}).select(x=ibis._.x.cast("int64")), "t", is_small=True)
    assert engine.duckdb.execute("SELECT current_setting('threads')").fetchall() == [(3,)]
