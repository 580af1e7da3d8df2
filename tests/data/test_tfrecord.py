"""TFRecords: the rows that were written come out of `clickwise transcode`, whatever way they were written; what is
damaged is named by file, record and offset."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
import tfrecord_writer as by_hand
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clickwise.data.arrays import RaggedArray
from clickwise.data.columns import Columns, read_columns
from clickwise.data.crc32c import crc32c, masked
from clickwise.data.examples import _find_lists, read_example, read_features
from clickwise.data.tfrecord_file import Records
from clickwise.data.transcode import transcode
from clickwise.errors import ClickwiseError, DataError
from clickwise.feature_spec import AUTO, Chunk, Feature, FeatureSpec

RFC_3720 = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E,
            bytes(range(31, -1, -1)): 0x113FDB5C, b"123456789": 0xE3069283, b"": 0}  # its appendix B.4, and the usual


def sums(pieces: list[bytes]) -> list[int]:
    ends = np.cumsum([len(piece) for piece in pieces])
    return crc32c(np.frombuffer(b"".join(pieces), np.uint8), ends - [len(piece) for piece in pieces], ends).tolist()


def test_sums_are_those_of_the_standard():
    assert sums(list(RFC_3720)) == list(RFC_3720.values())
    assert by_hand.crc32c(b"123456789") == 0xE3069283
    assert int(masked(np.array([0xE3069283], np.uint32))[0]).to_bytes(4, "little") == by_hand.masked_sum(b"123456789")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=700), max_size=8))
def test_sums_of_many_pieces(pieces):
    assert sums(pieces) == [by_hand.crc32c(piece) for piece in pieces]


FEATURES = {"label": Feature("label", "bool"), "age": Feature("age", "float32"), "views": Feature("views", "float32"),
            "ad": Feature("ad", "int64", AUTO), "topics": Feature("topics", "int64", AUTO, max_hotness=3),
            "display": Feature("display", "int64")}
CHANNELS = {"label": ("label",), "numerical": ("age", "views"), "categorical": ("ad", "topics"),
            "display": ("display",)}
ROWS = [{"label": row % 3 % 2, "age": row / 8, "views": row * 3, "ad": row * 997 % 90_000, "topics": [1 + row % 40] *
         (row % 4), "display": (1 << 40) + row // 5} for row in range(50)]


def records(rows: list[dict], prebatch: int) -> list[dict[str, list]]:
    """`prebatch` rows in a record, their lists filled up with -1 to the longest; of one row, as they are."""
    found = []
    for first in range(0, len(rows), prebatch):
        part = rows[first : first + prebatch]
        longest = max(len(row["topics"]) for row in part)
        columns = {name: [row[name] for row in part] for name in FEATURES if name != "topics"}
        found.append({**columns, "topics": [id for row in part
                                            for id in row["topics"] + [-1] * (longest - len(row["topics"]))]})
    return found


def source(folder, files: dict[str, bytes], features=FEATURES, channels=CHANNELS) -> FeatureSpec:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    spec = FeatureSpec(features, {"train": (Chunk("tfrecord", tuple(features), tuple(files)),)}, channels, {}, folder)
    spec.save(folder)
    return spec


def check_rows(columns: Columns, rows: list[dict]) -> None:
    topics = columns.arrays["topics"]
    assert isinstance(topics, RaggedArray)
    assert [topics[row].tolist() for row in range(columns.rows)] == [row["topics"] for row in rows]
    assert columns.numerical.tolist() == [[row["age"], row["views"]] for row in rows]
    for name in ("label", "ad", "display"):
        assert columns.arrays[name].tolist() == [row[name] for row in rows]


ZIPS = {"plain": bytes, "gzip": gzip.compress, "zlib": zlib.compress,
        "gzip of parts": lambda content: gzip.compress(content[:1000]) + gzip.compress(content[1000:])}


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "one by one"])
@pytest.mark.parametrize("prebatch", [1, 7, 50])
@pytest.mark.parametrize("zipped", ZIPS)
def test_rows_survive(tmp_path, monkeypatch, zipped, prebatch, packed):
    monkeypatch.setattr("clickwise.data.tfrecord_file.PIECE", 997)  # records that lie over the end of a piece
    monkeypatch.setattr("clickwise.data.tfrecord_file.PACKED_PIECE", 101)
    (tmp_path / "in").mkdir()
    written = records(ROWS, prebatch)
    parts = (written[:2], [], written[2:])  # an empty part, as Spark writes them
    source(tmp_path / "in", {f"part-{number}": ZIPS[zipped](by_hand.tfrecords(*part, packed=packed)) if part else b""
                             for number, part in enumerate(parts)})
    spec = transcode(tmp_path / "in", tmp_path / "out")
    check_rows(read_columns(spec, "train"), ROWS)
    assert spec.features["ad"].cardinality == 1 + max(row["ad"] for row in ROWS)


def test_histories_of_sim_as_published(tmp_path, capsys):
    """Ids 1 … cardinality, and 0 for padding: the spec is read unmodified, and its tables have the further row."""
    features = {"label": Feature("label", "bool"), "user": Feature("user", "int64", 9),
                "item": Feature("item", "int64", 5), "item_pos": Feature("item_pos", "int64", 5, dimensions=(4,)),
                "item_neg": Feature("item_neg", "int64", 5, dimensions=(4,))}
    channels = {"label": ["label"], "user": ["user"], "target_item": ["item"], "history": ["item_pos"],
                "negative_history": ["item_neg"]}
    batches = [{"label": [1, 0], "user": [9, 9], "item": [5, 3], "item_pos": [0, 0, 1, 2, 0, 1, 2, 5],
                "item_neg": [0, 0, 4, 4, 0, 5, 5, 5]},
               {"label": [1], "user": [1], "item": [4], "item_pos": [1, 2, 3, 4], "item_neg": [5, 4, 3, 2]}]
    (tmp_path / "in").mkdir()
    source(tmp_path / "in", {"part_0.tfrecord": by_hand.tfrecords(batches[0]),
                             "remainder.tfrecord": by_hand.tfrecords(batches[1])}, features, channels)
    spec = transcode(tmp_path / "in", tmp_path / "out")
    columns = read_columns(spec, "train")
    assert columns.arrays["item_pos"].tolist() == [[0, 0, 1, 2], [0, 1, 2, 5], [1, 2, 3, 4]]
    assert columns.arrays["item"].tolist() == [5, 3, 4]
    assert [spec.features[name].cardinality for name in ("user", "item", "item_neg")] == [10, 6, 6]
    assert "0 is padding" in capsys.readouterr().err


def test_other_orders_names_and_layouts_of_an_example(tmp_path):
    """Records of one file in different layouts: another order of names, other features, one by one or packed, the list
    before its name, a name twice (the later counts), fields that nobody knows."""
    def entry(name: bytes, feature: bytes, swapped: bool = False) -> bytes:
        parts = [by_hand.message(1, name), by_hand.message(2, feature)]
        return by_hand.message(1, b"".join(reversed(parts) if swapped else parts))

    rng, content = np.random.default_rng(0), b""
    for number, row in enumerate(records(ROWS, 1)):
        names = [*rng.permutation(list(row))]
        entries = [entry(name.encode(), by_hand.feature(row[name], packed=number % 4 != 1), number % 4 == 2)
                   for name in names]
        entries.insert(int(rng.integers(len(entries))), entry(b"other", by_hand.feature([b"text", b"more"])))
        entries.insert(0, entry(b"ad", by_hand.feature([77])))
        unknown = by_hand.varint(7 << 3) + by_hand.varint(300) if number % 4 == 3 else b""
        content += by_hand.record(by_hand.message(1, b"".join(entries)) + unknown)
    spec = transcode(source(tmp_path, {"part-0": content}), tmp_path / "out")
    check_rows(read_columns(spec, "train"), ROWS)


@settings(max_examples=300, deadline=None)
@example([(99, 27)], 0, True)  # an empty list, of no kind that there is
@example([(99, 24)], 0, True)
@example([(99, 19)], 0, True)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3), st.integers(0, 49), st.booleans())
def test_what_is_read_side_by_side_is_what_is_read_one_by_one(changes, row, packed):
    """Whatever is changed in a record: the same values, or an error."""
    data = bytearray(by_hand.example(records(ROWS, 1)[row], packed))
    for at, byte in changes:
        data[at % len(data)] = byte
    names = ["label", "age", "ad", "topics"]
    good = by_hand.example(records(ROWS, 1)[1])
    content = bytes(data) + good
    held = Records(Path("part-0"), content, np.array([0, len(data)]), np.array([len(data), len(content)]), 0,
                   np.zeros(2, np.int64))
    try:
        alone = {name.decode(): (kind, b"".join(values)) for name, (kind, values)
                 in read_example(bytes(data), {name.encode() for name in names}).items() if values}
    except (ValueError, IndexError):
        with pytest.raises(DataError, match="record 0"):
            read_features(held, names)
        return
    kinds, starts, ends, odd = _find_lists(held, {name.encode(): index for index, name in enumerate(names)})
    assert not odd[1]
    if not odd[0]:
        assert {name: (int(kinds[key, 0]), content[starts[key, 0] : ends[key, 0]]) for key, name in enumerate(names)
                if kinds[key, 0]} == alone


GOOD = {"label": [1, 0], "age": [0.5, 1.0], "views": [1, 2], "ad": [3, 4], "topics": [1, 2], "display": [5, 6]}


def cut(content: bytes, at: int, put: bytes = b"\0") -> bytes:
    return content[:at] + put + content[at + len(put) :]


WRITTEN = by_hand.tfrecords(GOOD, GOOD)
SECOND = len(WRITTEN) // 2
DAMAGE = {
    "length": (cut(WRITTEN, SECOND + 1, b"\7"), (f"record 1, offset {SECOND}", "a length with another checksum")),
    "data": (cut(WRITTEN, SECOND + 40, b"\7"), (f"record 1, offset {SECOND}", "a data with another checksum")),
    "cut off": (WRITTEN[:-3], (f"record 1, offset {SECOND}", f"after {SECOND - 3} bytes", "cut off")),
    "no TFRecord": (b"label,age\n1,0.5\n", ("record 0, offset 0", "b'label,age\\n1,'", "of another type")),
    "gzip cut off": (gzip.compress(WRITTEN)[:-20], ("offset", "cut off")),
    "gzip damaged": (cut(gzip.compress(WRITTEN), 60, b"\1\2\3"), ("damaged",)),
    "no Example": (by_hand.record(b"hello"), ("record 0, offset 0", "no tf.train.Example")),
    "an integer without an end": (by_hand.record(by_hand.message(1, by_hand.message(1, by_hand.message(
        1, b"label") + by_hand.message(2, by_hand.message(3, by_hand.message(1, b"\x81")))))),
        ("record 0, offset 0", "an integer that does not end")),
    "no feature": (by_hand.tfrecords(GOOD, {("ads" if name == "ad" else name): values
                                            for name, values in GOOD.items()}),
                   (f"record 1, offset {SECOND}", "no values of 'ad' in a record of 2 rows", "did you mean 'ads'?")),
    "no list in any record": (by_hand.tfrecords({name: values for name, values in GOOD.items() if name != "topics"}),
                              ("no record with 'topics'",)),
    "no label": (by_hand.tfrecords({**GOOD, "label": []}), ("record 0, offset 0", "no values of 'label'")),
    "too many": (by_hand.tfrecords(GOOD, {**GOOD, "age": [0.5, 1.0, 1.5]}),
                 (f"record 1, offset {SECOND}", "3 values of 'age' in a record of 2 rows", "1 for each")),
    "lists of no one length": (by_hand.tfrecords({**GOOD, "topics": [1, 2, 3]}),
                               ("record 0, offset 0", "3 values of 'topics'", "filled up with -1")),
    "texts": (by_hand.tfrecords({**GOOD, "ad": [b"x", b"y"]}), ("record 0, offset 0", "bytes (texts) values of 'ad'")),
    "another kind": (by_hand.tfrecords(GOOD, {**GOOD, "ad": [1.0, 2.0]}),
                     (f"record 1, offset {SECOND}", "float values of 'ad'", "int64")),
    "floats as ids": (by_hand.tfrecords({**GOOD, "ad": [1.0, 2.0]}), ("'ad', row 0", "1.0", "integers")),
    "an id below 0": (by_hand.tfrecords(GOOD, {**GOOD, "ad": [1, -1]}), ("row 3", "id -1 of the feature 'ad'")),
    "a label of 2": (by_hand.tfrecords({**GOOD, "label": [1, 2]}), ("row 1", "2", "0 or 1")),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_named(tmp_path, kind):
    content, words = DAMAGE[kind]
    (tmp_path / "in").mkdir()
    spec = source(tmp_path / "in", {"part-0": content})
    with pytest.raises(ClickwiseError) as caught:
        transcode(spec, tmp_path / "out")
    assert str(caught.value).startswith(str(tmp_path / "in" / "part-0"))
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_files_without_any_record(tmp_path):
    with pytest.raises(ClickwiseError, match="no rows"):
        transcode(source(tmp_path, {"part-0": b""}), tmp_path / "out")
