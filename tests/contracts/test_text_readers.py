"""Every reader of text reads the same rows, delimited or JSON lines: what `infer` drafts, `prepare`, `predict` and
training take.

A new way to write a table joins by a line in STYLES or JSON_STYLES. The rows are known; each file is written by
Python's csv or json module or by hand.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json

import pyarrow as pa
import pytest

from clickwise.encoding.raw_file import RawFile
from clickwise.feature_spec import FeatureSpec
from clickwise.prepare.infer import infer
from clickwise.prepare.table.config import TableConfig
from clickwise.prepare.table.rows import store_rows
from clickwise.text_files import TextLayout

NAMES = ["shop", "price", "note", "click"]
PLAIN = [[f"s{index % 7}", f"{index * 37 % 1000 / 8:.3f}", f"n {index % 5}", str(index * 7 % 3 % 2)]
         for index in range(60)]
ACCENTS = [["Ölçü" if row[0] == "s3" else row[0], row[1], f"{row[2]} é", row[3]] for row in PLAIN]
HARD = [[row[0], row[1], 'a "b", c' if index % 3 else "line\nend; x|y", row[3]] for index, row in enumerate(PLAIN)]
STRAY = [[row[0], row[1], '"open' if index in (5, 30) else 'closed"' if index in (17, 41) else row[2], row[3]]
         for index, row in enumerate(PLAIN)]
LONG = [[row[0], row[1], "word " * 60_000 if index == 3 else row[2], row[3]] for index, row in enumerate(PLAIN)]
EMPTY = [[row[0] if index % 4 else "", row[1] if index % 5 else "", "", row[3]] for index, row in enumerate(PLAIN)]


def written(rows, delimiter=",", end="\n", header=True, quoting=csv.QUOTE_MINIMAL, before="", last_end=True, **dialect):
    text = io.StringIO()
    char = delimiter if len(delimiter) == 1 else "\x1f"
    csv.writer(text, delimiter=char, lineterminator=end, quoting=quoting, **dialect).writerows([NAMES] * header + rows)
    content = before + text.getvalue().replace(char, delimiter)
    return content if last_end else content.removesuffix(end)


def by_hand(rows, delimiter="\t", end="\n"):
    return end.join(delimiter.join(row) for row in [NAMES, *rows]) + end


def ends_in_turn(text, *ends):
    return "".join(line + end for line, end in zip(text.split("\n")[:-1], itertools.cycle(ends), strict=False))


def commas(rows):
    return [[row[0], row[1].replace(".", ","), *row[2:]] for row in rows]


UTF8 = str.encode
STYLES = {  # name → (the rows that are meant, the bytes of the file)
    **{f"{name} {end_name}{' without header' * (not header)}": (PLAIN, UTF8(written(PLAIN, delimiter, end, header)))
       for name, delimiter in {"comma": ",", "tab": "\t", "semicolon": ";", "pipe": "|", "pipes": "||", "colons": "::"}
       .items() for end_name, end in {"LF": "\n", "CRLF": "\r\n", "CR": "\r"}.items() for header in (True, False)},
    "LF and CRLF": (PLAIN, UTF8(ends_in_turn(written(PLAIN), "\n", "\r\n"))),
    "LF and CR": (PLAIN, UTF8(ends_in_turn(written(PLAIN), "\n", "\r"))),
    "all three ends": (PLAIN, UTF8(ends_in_turn(written(PLAIN, "\t"), "\n", "\r\n", "\r"))),
    "two exports in one": (PLAIN, UTF8(written(PLAIN[:30]) + written(PLAIN[30:], end="\r\n", header=False))),
    "no end of the last line": (PLAIN, UTF8(written(PLAIN, last_end=False))),
    "no end of the last CRLF line": (PLAIN, UTF8(written(PLAIN, end="\r\n", last_end=False))),
    "empty lines at the end": (PLAIN, UTF8(written(PLAIN) + "\n\n\n")),
    "empty lines between": (PLAIN, UTF8(written(PLAIN).replace("\n", "\n\n"))),
    "an empty first line": (PLAIN, UTF8(written(PLAIN, before="\n"))),
    "comments first": (PLAIN, UTF8(written(PLAIN, before="# exported\n# by hand, twice\n"))),
    "a comment and an empty line": (PLAIN, UTF8(written(PLAIN, "\t", before="# exported\n\n"))),
    "all quoted": (PLAIN, UTF8(written(PLAIN, quoting=csv.QUOTE_ALL))),
    "texts quoted": (PLAIN, UTF8(written(PLAIN, ";", quoting=csv.QUOTE_NONNUMERIC))),
    "all quoted, CR": (PLAIN, UTF8(written(PLAIN, end="\r", quoting=csv.QUOTE_ALL))),
    "quotes, delimiters and line ends inside": (HARD, UTF8(written(HARD))),
    "… with tabs": (HARD, UTF8(written(HARD, "\t"))),
    "… with semicolons": (HARD, UTF8(written(HARD, ";"))),
    "… with pipes": (HARD, UTF8(written(HARD, "||"))),
    "stray quotes": (STRAY, UTF8(by_hand(STRAY))),
    "stray quotes, CRLF": (STRAY, UTF8(by_hand(STRAY, end="\r\n"))),
    "one unpaired quote": ([*PLAIN[:9], ["s1", "2.5", '"open', "1"], *PLAIN[10:]], UTF8(
        by_hand([*PLAIN[:9], ["s1", "2.5", '"open', "1"], *PLAIN[10:]]))),
    "UTF-8 with a mark": (ACCENTS, written(ACCENTS).encode("utf-8-sig")),
    "UTF-8 with a mark, CRLF": (ACCENTS, written(ACCENTS, end="\r\n").encode("utf-8-sig")),
    "UTF-16": (ACCENTS, written(ACCENTS, "\t").encode("utf-16")),
    "UTF-16, big end first": (ACCENTS, b"\xfe\xff" + written(ACCENTS).encode("utf-16-be")),
    "Windows' letters": (ACCENTS, written(ACCENTS, ";").replace("ğ", "g").encode("cp1252")),
    "a long field": (LONG, UTF8(written(LONG))),
    "a long field, CR": (LONG, UTF8(written(LONG, end="\r"))),
    "missing values": (EMPTY, UTF8(written(EMPTY))),
    "missing values, tab, CRLF": (EMPTY, UTF8(written(EMPTY, "\t", "\r\n"))),
    "decimal commas": (PLAIN, UTF8(written(commas(PLAIN), ";"))),
    "decimal commas, tab": (PLAIN, UTF8(written(commas(PLAIN), "\t"))),
    "gz": (PLAIN, gzip.compress(UTF8(written(PLAIN)))),
    "gz of several members": (PLAIN, b"".join(gzip.compress(UTF8(part)) for part in (
        written(PLAIN[:20]), written(PLAIN[20:], header=False)))),
    "gz, CR": (PLAIN, gzip.compress(UTF8(written(PLAIN, end="\r")))),
    "gz that is none": (PLAIN, UTF8(written(PLAIN))),
}


def as_json(rows, end="\n", value=str, leave_out=False, turn=False, last_end=True, **dump):
    lines = []
    for number, row in enumerate(rows):
        pairs = [(name, value(text)) for name, text in zip(NAMES, row, strict=True)
                 if text or not (leave_out and number)]
        lines.append(json.dumps(dict(pairs[::-1] if turn and number % 2 else pairs), **dump) + end)
    return "".join(lines) if last_end else "".join(lines).removesuffix(end)


def null(text):
    return text or None


JSON_STYLES = {
    **{f"JSON {name}": (PLAIN, UTF8(as_json(PLAIN, end))) for name, end in
       {"LF": "\n", "CRLF": "\r\n", "CR": "\r"}.items()},
    "JSON, no end of the last line": (PLAIN, UTF8(as_json(PLAIN, last_end=False))),
    "JSON, empty lines": (PLAIN, UTF8("\n" + as_json(PLAIN).replace("\n", "\n \n") + "\n\n")),
    "JSON with spaces": (PLAIN, UTF8("".join(f"  {line}\t\n" for line in as_json(PLAIN).splitlines()))),
    "JSON, keys in turn": (PLAIN, UTF8(as_json(PLAIN, turn=True))),
    "JSON, letters as they are": (ACCENTS, UTF8(as_json(ACCENTS, ensure_ascii=False))),
    "JSON, letters by number": (ACCENTS, UTF8(as_json(ACCENTS))),
    "JSON with a mark": (ACCENTS, as_json(ACCENTS, ensure_ascii=False).encode("utf-8-sig")),
    "JSON, quotes and line ends inside": (HARD, UTF8(as_json(HARD))),
    "JSON, a long value": (LONG, UTF8(as_json(LONG))),
    "JSON, keys left out": (EMPTY, UTF8(as_json(EMPTY, leave_out=True))),
    "JSON, nulls": (EMPTY, UTF8(as_json(EMPTY, value=null))),
    "JSON gz": (PLAIN, gzip.compress(UTF8(as_json(PLAIN)))),
    "JSON gz of several members": (PLAIN, b"".join(gzip.compress(UTF8(as_json(part))) for part in (
        PLAIN[:20], PLAIN[20:]))),
    "JSON gz that is none": (PLAIN, UTF8(as_json(PLAIN))),
}
STYLES |= JSON_STYLES


def infer_reads(path, draft):
    columns = draft.table.columns
    return {name: (columns[name].rows, columns[name].values) for name in columns}


def prepare_reads(spec, engine, tmp_path):
    class Folder:
        work = tmp_path / "work"

    Folder.engine = engine
    store_rows(Folder, spec, TableConfig(spec=str(spec.path)), list(spec.features))
    return pa.Table.from_batches(engine.batches(engine.table("raw_train")))


def predict_reads(path, spec, draft):
    written_so = TextLayout.of(spec.mappings["train"][0].options).options()
    layout = {"delimiter": ",", "columns": list(draft.table.columns), **written_so}
    file = RawFile.open(path, dict.fromkeys(draft.table.columns, "a value"), layout)
    return pa.concat_tables(list(file.blocks(list(draft.table.columns), 13)))


@pytest.mark.parametrize("style", STYLES)
def test_all_read_the_same_rows(style, engine, tmp_path):
    rows, content = STYLES[style]
    path = tmp_path / (("rows.jsonl" if style in JSON_STYLES else "rows.csv") + ".gz" * ("gz" in style))
    path.write_bytes(content)
    draft = infer([path], label="column_4" if "without header" in style else "click", categorical=["column_3"] if
                  "without header" in style else ["note"] if any(row[2] for row in rows) else [])
    spec = draft.save(tmp_path / "spec")
    names = list(draft.table.columns)
    assert names == ([f"column_{index}" for index in range(1, 5)] if "without header" in style else NAMES)

    expected = dict(zip(names, zip(*rows, strict=True), strict=True))
    for name, (count, values) in infer_reads(path, draft).items():
        assert count == len(rows) and {value.strip() for value in expected[name]} - {""} == values, name
    for table in (prepare_reads(spec, engine, tmp_path), predict_reads(path, spec, draft)):
        for name in table.column_names:
            found = [value or "" for value in table[name].to_pylist()]
            assert [value.strip() for value in found] == [value.strip() for value in expected[name]], name
    assert FeatureSpec.load(tmp_path / "spec").mappings["train"][0].options == spec.mappings["train"][0].options


def test_there_are_many():
    assert len(STYLES) >= 60
