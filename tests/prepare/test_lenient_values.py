"""Values that programs take for a number, an id or a label though they are none: bad rows, whatever others hold."""

from __future__ import annotations

import contextlib
import gzip
import math
from types import SimpleNamespace

import ibis
import pytest
from criteo_rows import equal, line, random_lines, read, reference, write_raw
from outbrain_rows import HEADERS

from clickwise.encoding.raw_types import Float, Integer, Unreadable
from clickwise.errors import DataError, PrepareError
from clickwise.prepare.criteo import RAW, wrong_in
from clickwise.prepare.criteo_text import blocks, parse
from clickwise.prepare.engine import BadInput
from clickwise.prepare.named_columns import Reader
from clickwise.prepare.outbrain.profiles import store_views
from clickwise.prepare.outbrain.raw import PAGE_VIEWS, TABLES
from clickwise.text_files import first_lines

GOOD = random_lines(40, 9)


def test_fault_lenient_ids(clickwise, tmp_path):
    """A label 0x1, a label " 1", a number 1_000 and an id 12_3 were taken, as long as no other line was bad."""
    write_raw(tmp_path / "day_1", GOOD)
    for field, text, where in ((0, "0x1", "the label '0x1'"), (0, " 1", "the label ' 1'"),
                               (4, "1_000", "'1_000' in num_3"), (20, "12_3", "'12_3' in cat_6")):
        rows = [row.split("\t") for row in GOOD]
        rows[3][field] = text
        write_raw(tmp_path / "day_0", ["\t".join(row) for row in rows])
        result = clickwise("prepare", "criteo/prepare", f"dataset.train=[{tmp_path}/day_*]", "out=out",
                           "dataset.frequency_limit=1")
        assert result.code == 1 and "day_0, line 4" in result.err and where in result.err
        assert not (tmp_path / "out").exists()


# ---- Criteo

FIELDS = {  # place -> texts that are good, and that are not
    0: (["0", "1"], ["0x1", " 1", "01", "1.0", "true", "2", ""]),
    5: (["", "-0", "+7", "1.5", "1E+3", "0" * 60],
        ["+-1", " 1", "1 ", "1_000", "nan", "-Infinity", "1e39", "1" * 40, "0x1", "1\v", ".", "\u0663", "1\0"]),
    20: (["", "0", "aB", "ffffffff"], ["12_3", "0x1", " 1", "1 ", "000000001", "-1", "1\0", "\u00e9"]),
}


@pytest.mark.parametrize("field", FIELDS, ids=["label", "number", "hex"])
def test_fast_and_slow_reading_of_criteo_agree(tmp_path, field):
    good, others = FIELDS[field]
    for text in [*good, *others]:
        fields = GOOD[0].split("\t")
        fields[field] = text
        if text in good:
            assert len(parsed(tmp_path, "\t".join(fields).encode()).label) == 1 and wrong_in(fields) is None, text
        else:
            assert repr(text[:40]) in wrong_in(fields), text
            with pytest.raises(BadInput):
                parsed(tmp_path, "\t".join(fields).encode())


def parsed(folder, content):
    """The rows of a text that is one block."""
    (folder / "x.tsv").write_bytes(content)
    (block,) = blocks(folder / "x.tsv")
    return parse(block)


@pytest.mark.parametrize("field, words", [(1, (b"1", b"-12", b"7654321", b"1.5", b".5")),
                                          (39, (b"0", b"ab", b"0123cdef"))], ids=["number", "hex"])
def test_every_byte_in_every_place(tmp_path, field, words):
    """What is read of thousands of fields side by side is what its raw type reads of each, or both refuse it."""
    name, column = list(RAW.items())[field]
    texts = {word[:place] + bytes([byte]) + word[place + replaced:] for word in words for place in range(len(word) + 1)
             for byte in range(256) for replaced in (0, 1)} - {b"\n", b""}
    good = {}
    for text in sorted(text for text in texts if not {*b"\t\r\n"} & {*text}):
        with contextlib.suppress(Unreadable, UnicodeDecodeError):
            good[text] = column.type.one(text.decode())
        if text not in good:
            fields = [text if place == field else b"0" for place in range(40)]
            with pytest.raises(BadInput):
                parsed(tmp_path, b"\t".join(fields))
    assert len(good) > 40
    (tmp_path / "x.tsv").write_bytes(b"\n".join(b"\t".join(
        text if place == field else b"0" for place in range(40)) for text in good))
    rows = list(map(parse, blocks(tmp_path / "x.tsv")))
    read = [each.numbers[:, field - 1] if field == 1 else each.values[field - 14] for each in rows]
    assert [number for part in read for number in part.tolist()] == [*good.values()]


def test_a_line_of_any_length_takes_no_time():
    for long in ("1" * 200_000 + "x", "1." * 100_000, "1" * 200_000):
        fields = [*line(1, dict.fromkeys(range(13), "1" * 5000), {}).split("\t")]
        assert wrong_in(fields) is not None  # 13 numbers of which each can be cut in two in 5,000 ways
        fields[1:14] = [long] * 13
        assert long[:40] in wrong_in(fields)


def test_bad_values_are_counted_beside_other_bad_rows(criteo, tmp_path):
    bad = line(1, {3: "1_000"})
    files = [write_raw(tmp_path / "day_0", [*GOOD[:5], bad, *GOOD[5:]]),
             write_raw(tmp_path / "day_1.gz", [*GOOD, bad, "no row"])]
    with pytest.raises(PrepareError, match=r"(?s)day_1.gz, line 42.*bad row number 3, 2 allowed"):
        criteo(files, max_bad_rows=2)
    assert equal(read(criteo(files, max_bad_rows=3, shuffle=False), "train"), reference(GOOD * 2, GOOD * 2, 1))


# ---- how the bytes of a file lie

def ends(rows, *kinds):
    return "".join(row + kinds[index % len(kinds)] for index, row in enumerate(rows)).encode()


def wrong_sum(content):
    return content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]


WHOLE = gzip.compress(ends(GOOD, "\n"))
STYLES = {
    "CR": ends(GOOD, "\r"), "all three ends, tabs": ends(GOOD, "\t\n", "\t\t\t\r\n", "\r"),
    "a mark, empty lines": b"\xef\xbb\xbf\n" + ends(GOOD, "\n\n"), "tabs": ends(GOOD, "\t\n", "\t\t\t\n", "\n"),
    "gz without its name": WHOLE,
    "several members": gzip.compress(ends(GOOD[:9], "\n")) + gzip.compress(ends(GOOD[9:], "\n")),
}


@pytest.mark.parametrize("style", STYLES)
def test_criteo_reads_what_text_files_reads(criteo, tmp_path, style):
    file = tmp_path / ("day_0.gz" if style == "several members" else "day_0")
    file.write_bytes(STYLES[style])
    assert equal(read(criteo([str(file)], shuffle=False), "train"), reference(GOOD, GOOD, 1))


@pytest.mark.parametrize("content, line, rows", [
    (wrong_sum(WHOLE), 41, 40), (WHOLE + b"no member", 41, 40),
    (wrong_sum(gzip.compress(ends(GOOD[:9], "\n"))) + gzip.compress(ends(GOOD[9:], "\n")), 10, 9),
], ids=["wrong sum", "something behind", "wrong sum of the first member"])
def test_a_damaged_gz_is_one_bad_row(criteo, tmp_path, content, line, rows):
    (tmp_path / "day_0.gz").write_bytes(content)
    with pytest.raises(PrepareError, match=f"day_0.gz, line {line}\n.*cut off or damaged from here on"):
        criteo([str(tmp_path / "day_0.gz")])
    found = read(criteo([str(tmp_path / "day_0.gz")], max_bad_rows=1, shuffle=False), "train")
    assert equal(found, reference(GOOD[:rows], GOOD[:rows], 1))


# ---- Outbrain: tables whose columns have names

ROWS = {"clicks": "1,2,0", "events": "1,u,2,3,1,US", "promoted_content": "1,2,3,4", "page_views": "u,1,2,1,US,1",
        "documents_meta": "1,2,3,2016-06-14 10:00:00", "documents_categories": "1,2,0.5"}
GOOD_VALUES = [("clicks", "display_id", text) for text in ("7", "7.0", "+7", "007", "-7", " 7 ", str(2**53))]
GOOD_VALUES += [("events", "platform", ""), ("events", "platform", "\\N"), ("clicks", "clicked", "1.0")]
GOOD_VALUES += [("documents_categories", "confidence_level", text) for text in ("1", "1e-3")]
BAD_VALUES = [("clicks", "display_id", text) for text in (
    "1.5", "1e3", "0b11", "1_000", "+-1", "1" * 19, "1" * 5000, "nan", "", "\u0663", "7\0")]
BAD_VALUES += [("clicks", "clicked", text) for text in ("2", "0.5")]
BAD_VALUES += [("events", "timestamp", text) for text in ("1000000000000000000", "-1000000000000000000")]
BAD_VALUES += [("documents_categories", "confidence_level", text) for text in (
    "inf", "nan", "1.5", "-0.1", "1_0e-1", " 0.5", "1" * 400)]
BAD_VALUES += [("promoted_content", "campaign_id", "3.7"), ("documents_meta", "source_id", str(2**63)),
               ("page_views", "traffic_source", "300"), ("events", "geo_location", b"\xff")]


def header_of(table):
    return HEADERS["clicks_train" if table == "clicks" else table]


@pytest.fixture
def stored(engine, tmp_path):
    """`stored(table, content, ending, max_bad_rows)` -> the rows of a raw table."""
    def store(table, content, ending=".csv", max_bad_rows=0):
        folder = SimpleNamespace(engine=engine, work=tmp_path / "work", engine_config=SimpleNamespace(threads=1))
        file = tmp_path / f"{table}{ending}"
        file.write_bytes(content)
        return engine.rows(Reader(folder, max_bad_rows).store(TABLES[table], [file]))

    return store


def file_of(table, column=None, text="", rows=6):
    """A file in which the third row has another value of `column`."""
    names = header_of(table)
    content = [ROWS[table].encode().split(b",") for _ in range(rows)]
    if column is not None:
        content[2][names.index(column)] = text if isinstance(text, bytes) else text.encode()
    return [",".join(names).encode(), *(b",".join(row) for row in content)]


@pytest.mark.parametrize("table, column, text", BAD_VALUES, ids=lambda value: repr(value)[:20])
def test_bad_values_of_outbrain(stored, table, column, text):
    alone = file_of(table, column, text)
    said = f"no value of {column}" if text == "" else column
    shown = text[:40].replace("\0", "\\x00").replace("\u00a0", "\\xa0") if isinstance(text, str) else ""
    with pytest.raises(PrepareError) as error:
        stored(table, b"\n".join(alone))
    assert f"{table}.csv, line 4" in error.value.where and said in error.value.found and shown in error.value.found
    with pytest.raises(PrepareError, match=f"line {len(alone) + 2}"):  # and so behind another bad row
        stored(table, b"\n".join([alone[0], b"no row", *alone[1:], alone[3]]), max_bad_rows=2)
    assert len(stored(table, b"\n".join([*alone, b"no row"]), max_bad_rows=2)) == 5


@pytest.mark.parametrize("table, column, text", GOOD_VALUES, ids=lambda value: repr(value)[:20])
def test_good_values_of_outbrain(stored, table, column, text):
    alone = stored(table, b"\n".join(file_of(table, column, text)))
    beside = stored(table, b"\n".join([*file_of(table, column, text), b"no row"]), max_bad_rows=1)
    assert len(alone) == 6 and alone == beside
    if text in ("", "\\N"):
        assert alone[2][column] is None
    else:
        assert alone[2][column] == float(text)


def test_values_of_parquet(engine, tmp_path):
    """Floats that are whole are integers, NaN is missing; anything else stops preparation."""
    folder = SimpleNamespace(engine=engine, work=tmp_path / "work", engine_config=SimpleNamespace(threads=1))
    table, file = TABLES["promoted_content"], tmp_path / "promoted_content.parquet"
    for value in (2.0, float("nan"), 1.5, math.inf, 1e18):
        rows = ibis.memtable({name: [1.0, value if name == "campaign_id" else 3.0] for name in table.columns})
        engine.write_parquet(rows, file)
        if value == 2.0 or value != value:
            found = engine.rows(Reader(folder, 0).store(table, [file]))
            assert found[1]["campaign_id"] == (2 if value == 2.0 else None)
        else:
            with pytest.raises(PrepareError, match="promoted_content.parquet"):
                Reader(folder, 0).store(table, [file])


def test_bytes_that_are_no_text_in_a_column_that_is_not_read(stored):
    """page_views.platform and geo_location are not read: they may hold anything, beside other bad rows too."""
    content = b"\n".join(file_of("page_views", "geo_location", b"\xff\xfe"))
    assert len(stored("page_views", content)) == 6
    assert len(stored("page_views", content + b"\nno row", max_bad_rows=1)) == 6


@pytest.mark.parametrize("row", [
    b"nobody,1,late,1,US,1", b"nobody,1,2,1,US,300", b"u,,1.5,1,US,1", b"u,1.5,,1,US,1", b"u,1,99,1,US,x",
    b",1,late,1,US,1"], ids=["unknown user", "… and source", "no document", "no time", "after the last", "no user"])
def test_page_views_that_are_dropped_are_looked_at_too(engine, tmp_path, row):
    folder = SimpleNamespace(engine=engine, work=tmp_path / "work", engine_config=SimpleNamespace(threads=1))
    engine.materialise(ibis.memtable({"display_id": [1], "uuid": ["u"], "document_id": [1], "timestamp": [5],
                                      "test": [False]}), "displays")
    file = tmp_path / "page_views.csv"
    file.write_bytes(b"\n".join([*file_of("page_views"), row]))
    with pytest.raises(PrepareError, match="page_views.csv, line 8"):
        store_views(folder, [file], max_bad_rows=0)
    assert store_views(folder, [file], max_bad_rows=1)["page_views_kept"] == 6


@pytest.mark.parametrize("name, content", {
    "CR": lambda rows: b"\r".join(rows), "CRLF": lambda rows: b"\r\n".join(rows),
    "mixed": lambda rows: b"\n".join(rows[:3]) + b"\r\n" + b"\r\n".join(rows[3:]),
    "a mark first": lambda rows: b"\xef\xbb\xbf" + b"\n".join(rows),
    "empty lines": lambda rows: b"\n\n" + b"\n\n".join(rows),
    "commas at the end": lambda rows: b"\n".join([rows[0], *(row + b",," for row in rows[1:])]),
    "several members": lambda rows: b"".join(gzip.compress(row + b"\n") for row in rows),
}.items(), ids=lambda value: value if isinstance(value, str) else "")
def test_outbrain_reads_what_text_files_reads(stored, name, content):
    rows = file_of("events", "geo_location", '"GB>H9, ""north"""')
    found = stored("events", content(rows), ".csv.gz" if name == "several members" else ".csv")
    assert found == stored("events", b"\n".join(rows)) and len(found) == 6
    assert found[2]["geo_location"] == 'GB>H9, "north"'


def test_a_damaged_gz_of_outbrain(stored):
    content = gzip.compress(b"\n".join(file_of("clicks")) + b"\n")
    with pytest.raises(PrepareError, match="clicks.csv.gz, line 8\n.*damaged"):
        stored("clicks", wrong_sum(content), ".csv.gz")
    assert len(stored("clicks", wrong_sum(content), ".csv.gz", max_bad_rows=1)) == 6
    assert len(stored("clicks", content[:-3], ".csv.gz", max_bad_rows=1)) == 6
    with pytest.raises(DataError, match="clicks.csv.gz, line 1"):
        stored("clicks", b"\x1f\x8bnothing of the kind", ".csv.gz")


def test_the_start_of_a_damaged_gz_is_shown(tmp_path):
    (tmp_path / "x.csv.gz").write_bytes(wrong_sum(gzip.compress(b"a,b\n1,2\n")))
    assert first_lines(tmp_path / "x.csv.gz")[0] == ["a,b", "1,2"]


# ---- the engine's two ways to a number

@pytest.mark.parametrize("type_", [Integer(), Float(bits=32, strict=True), Float(missing=("NA",), strict=True)])
def test_parsed_numbers_are_those_of_the_raw_type(engine, type_):
    letters = ["", *"-+./05e_ "]
    texts = sorted({a + b + c + d for a in letters for b in letters for c in letters for d in letters} | {
        "9" * 18, "9" * 19, "9" * 39, "1" * 400, "0" * 400 + "1", "NA", "nan", "inf"} - {""})
    table = engine.materialise(ibis.memtable({"row": range(len(texts)), "x": texts}), "texts")
    sql = engine.ibis.compile(table.select("row", x=engine.parse_number(table.x, type_)))
    value = sql[sql.index("CASE"):sql.index(' AS "x"')]
    found = dict(engine.duckdb.sql(sql.replace(value, f"TRY({value})")).fetchall())
    for row, text in enumerate(texts):
        try:
            assert found[row] == type_.one(text), text
        except Unreadable:
            assert found[row] is None, text


def test_page_views_has_a_range_for_every_number():
    """Only so is every row looked at before any is dropped."""
    assert set(PAGE_VIEWS.within) == {name for name, type_ in PAGE_VIEWS.columns.items() if type_ != "string"}
